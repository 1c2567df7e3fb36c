"""Ids: opaque, in one canonical form; checked where they come in, and never again in stored events."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

MOST_CHARACTERS = 128

_CONTROL = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
_SURROGATES = r"\ud800-\udfff"
_WHITE_SPACE = r"\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
"""White space (Unicode 17.0, PropList.txt) besides U+0020 and the characters of `_CONTROL`."""
_IGNORABLE = (
    "00AD 034F 061C 115F-1160 17B4-17B5 180B-180F 200B-200F 202A-202E 2060-206F 3164 FE00-FE0F FEFF FFA0 FFF0-FFF8 "
    "1BCA0-1BCA3 1D173-1D17A E0000-E0FFF"
)
"""Default_Ignorable_Code_Point (Unicode 17.0, DerivedCoreProperties.txt): characters that are not shown."""
_PICTOGRAPHIC = (
    "00A9 00AE 203C 2049 2122 2139 2194-2199 21A9-21AA 231A-231B 2328 23CF 23E9-23F3 23F8-23FA 24C2 25AA-25AB 25B6 "
    "25C0 25FB-25FE 2600-2604 260E 2611 2614-2615 2618 261D 2620 2622-2623 2626 262A 262E-262F 2638-263A 2640 2642 "
    "2648-2653 265F-2660 2663 2665-2666 2668 267B 267E-267F 2692-2697 2699 269B-269C 26A0-26A1 26A7 26AA-26AB "
    "26B0-26B1 26BD-26BE 26C4-26C5 26C8 26CE-26CF 26D1 26D3-26D4 26E9-26EA 26F0-26F5 26F7-26FA 26FD 2702 2705 "
    "2708-270D 270F 2712 2714 2716 271D 2721 2728 2733-2734 2744 2747 274C 274E 2753-2755 2757 2763-2764 2795-2797 "
    "27A1 27B0 27BF 2934-2935 2B05-2B07 2B1B-2B1C 2B50 2B55 3030 303D 3297 3299 1F004 1F02C-1F02F 1F094-1F09F "
    "1F0AF-1F0B0 1F0C0 1F0CF-1F0D0 1F0F6-1F0FF 1F170-1F171 1F17E-1F17F 1F18E 1F191-1F19A 1F1AE-1F1E5 1F201-1F20F "
    "1F21A 1F22F 1F232-1F23A 1F23C-1F23F 1F249-1F25F 1F266-1F321 1F324-1F393 1F396-1F397 1F399-1F39B 1F39E-1F3F0 "
    "1F3F3-1F3F5 1F3F7-1F3FA 1F400-1F4FD 1F4FF-1F53D 1F549-1F54E 1F550-1F567 1F56F-1F570 1F573-1F57A 1F587 "
    "1F58A-1F58D 1F590 1F595-1F596 1F5A4-1F5A5 1F5A8 1F5B1-1F5B2 1F5BC 1F5C2-1F5C4 1F5D1-1F5D3 1F5DC-1F5DE 1F5E1 "
    "1F5E3 1F5E8 1F5EF 1F5F3 1F5FA-1F64F 1F680-1F6C5 1F6CB-1F6D2 1F6D5-1F6E5 1F6E9 1F6EB-1F6F0 1F6F3-1F6FF "
    "1F7DA-1F7FF 1F80C-1F80F 1F848-1F84F 1F85A-1F85F 1F888-1F88F 1F8AE-1F8AF 1F8BC-1F8BF 1F8C2-1F8CF 1F8D9-1F8FF "
    "1F90C-1F93A 1F93C-1F945 1F947-1F9FF 1FA58-1FA5F 1FA6E-1FAFF 1FC00-1FFFD"
)
"""Extended_Pictographic (Unicode 17.0, emoji-data.txt): the characters that emoji sequences are made of."""


def _class_of(ranges: str) -> str:
    """Return the inside of a regular expression's character class for these ranges of code points."""
    bounds = (text.split("-") for text in ranges.split())
    return "".join("-".join(f"\\U{int(bound, 16):08x}" for bound in pair) for pair in bounds)


_ELEMENT = rf"[{_class_of(_PICTOGRAPHIC)}][\ufe0f\U0001f3fb-\U0001f3ff]?"
_EMOJI = (
    r"\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"  # a flag of a region, spelt in tags
    rf"|{_ELEMENT}(?:\u200d{_ELEMENT})*"
    r"|[0-9#*]\ufe0f?\u20e3"  # a keycap
)
"""Emoji that hold ignorable characters (Unicode Technical Standard 51, ED-17)."""
_SEEN = re.compile(rf"({_EMOJI})|[{_class_of(_IGNORABLE)}]")
_OTHER_SPACE = re.compile(f"[{_WHITE_SPACE}]")
_FORBIDDEN = re.compile(f"[{_CONTROL}{_SURROGATES}]")

_E_MAIL = r"[^@ ]+@[^@ ][^@ .]*\.[^@ ]+"
_BETWEEN = r"[ ().\u2010-\u2015\u2212-]*"
_TELEPHONE = rf"\+({_BETWEEN}[0-9]){{8,15}}{_BETWEEN}"
_UNSEEN = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufff8"
)
"""`_IGNORABLE` without the characters in emoji and those beyond U+FFFF."""
NOT_PATTERNS = (f"[{_CONTROL}{_WHITE_SPACE}{_UNSEEN}]", "^ | $", f"^{_E_MAIL}$", f"^{_TELEPHONE}$")
"""Patterns that no id matches: the part of the rule that regular expressions of every language can state.

They compile in ECMA 262 with and without its flag `u`, without which an emoji is two units. They avoid Python's end of
a text and look-around. They cannot state normal forms and the inside of emoji.
"""
ID_SCHEMA: dict[str, object] = {
    "minLength": 1,
    "maxLength": MOST_CHARACTERS,
    "not": {"anyOf": [{"pattern": pattern} for pattern in NOT_PATTERNS]},
    "description": "An opaque id in canonical form: Unicode NFC, no default-ignorable code points outside emoji.",
}
"""JSON Schema of an id."""

ID_RULE = (
    "an id is 1 to 128 characters without control characters or line separators, and opaque: "
    "not an e-mail address or international telephone number"
)
is_plain = re.compile(r"[!-*,-?A-~](?:[ -?A-~]{0,126}[!-?A-~])?").fullmatch
"""A match for most ids: ASCII, no `@`, no `+` at the beginning, no space at the ends."""
_CONTACT = re.compile(rf"{_E_MAIL}|{_TELEPHONE}").fullmatch


class IdFault(NamedTuple):
    """The reason why a text is not a valid id: a stable code, and a message with a remedy."""

    code: str
    message: str


def canonical_form(text: str) -> str:
    """Return a text in NFC, without invisible characters; U+0020 is its only white space, and never at its ends."""
    while True:
        seen = _SEEN.sub(lambda match: match[1] or "", text)
        form = unicodedata.normalize("NFC", _OTHER_SPACE.sub(" ", seen).strip(" "))
        if form == text:
            return form
        text = form


def fault_of(text: str) -> IdFault | None:
    """Return the reason why a text is not a valid id, or ``None``."""
    if is_plain(text):
        return None
    if not 0 < len(text) <= MOST_CHARACTERS or _FORBIDDEN.search(text):
        return IdFault("invalid", ID_RULE)
    form = canonical_form(text)
    if not form:
        return IdFault("invalid", f"an id must not be blank; {ID_RULE}")
    if _CONTACT(form):
        return IdFault("invalid", ID_RULE)
    if form != text:
        message = (
            "an id must be canonical: Unicode NFC, no invisible characters outside emoji, no white space at its ends "
            f"or other than U+0020 inside; the canonical form of this one is {form!r}"
        )
        return IdFault("id_not_canonical", message)
    return None
