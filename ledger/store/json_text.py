"""JSON text: its canonical form, and repeated keys in one object."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec

Json = object
"""A JSON value of open shape: text, number, bool, ``None``, list or object. Readers narrow it."""
JsonObject = dict[str, Json]
"""A JSON object of open shape. Code that only reads one takes a ``Mapping[str, Json]``, which every TypedDict is."""

_decoder = msgspec.json.Decoder()
_sorted = msgspec.json.Encoder(order="sorted")
_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?", re.ASCII)
_DIGITS_OF_A_FLOAT = 15
_KINDS = bytes(
    48 if chr(byte) in "0123456789." else 101 if chr(byte) in "eE" else 45 if chr(byte) in "+-" else 32
    for byte in range(256)
)
"""For ``bytes.translate``: digits and points become ``0``, exponents ``e``, signs ``-``, other bytes a space."""
_EXPONENT_DIGITS = 18


class Parsed(NamedTuple):
    """The value of a JSON text, and its canonical text: sorted keys, no white space."""

    value: Any
    canonical: bytes


def parse(text: bytes) -> Parsed:
    """Return the value of a JSON text and its canonical form.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is not JSON in UTF-8, or nested too deeply.
    """
    value = _decoder.decode(text)
    return Parsed(value, _sorted.encode(value))


def repeated_key(text: bytes, encoded: bytes) -> str | None:
    """Return the path of a key that occurs twice in one object of a JSON text, None if there is none.

    ``encoded`` is the text's value encoded again, in any order of keys. Decoders keep one of two values, and differ in
    which; so a text with a repeated key has more colons than its value. A text with an escaped colon may hide one and
    is
    parsed again. An empty path means that the text is nested too deeply.
    """
    escaped = b"\\" in text and b"\\u003" in text  # a search for one byte is many times faster than for five
    if not escaped and text.count(b":") == encoded.count(b":"):
        return None
    try:
        return _path_in(json.loads(text, object_pairs_hook=_object, parse_int=str, parse_float=str))
    except RecursionError:  # thousands of levels are never intended
        return ""


class _Repeated(NamedTuple):
    key: str


def _object(pairs: list[tuple[str, Json]]) -> JsonObject | _Repeated:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    earlier_keys: set[str] = set()
    return next(_Repeated(key) for key, _ in pairs if key in earlier_keys or earlier_keys.add(key))  # type: ignore[func-returns-value]


def _path_in(value: Json) -> str | None:
    if isinstance(value, _Repeated):
        return value.key
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        path = _path_in(item)
        if path is not None:
            return f"{name}.{path}"
    return None


def has_long_number(text: bytes) -> bool:
    """Return whether a JSON text may hold a number that a 64-bit float rounds; a string of digits counts as one."""
    kinds = text.translate(_KINDS)
    return b"0" * (_DIGITS_OF_A_FLOAT + 1) in kinds or (b"0e" in kinds and (b"0e0" in kinds or b"0e-0" in kinds))


def exact_value(text: bytes) -> Json:
    """Return the value of a JSON text in which equal numbers, and only those, encode to the same text.

    ``1``, ``1.0`` and ``10e-1`` become ``1e0``: JSON Schema compares numbers by their mathematical value.
    """
    return json.loads(text, parse_int=_exact_number, parse_float=_exact_number)


def _exact_number(text: str) -> msgspec.Raw:
    matched = _NUMBER.fullmatch(text)
    if matched is None or len(matched[4] or "") > _EXPONENT_DIGITS:
        return msgspec.Raw(text.encode())
    sign, integer, fraction, exponent = matched[1], matched[2], matched[3] or "", int(matched[4] or 0)
    digits = (integer + fraction).lstrip("0")
    shortest = digits.rstrip("0")
    if not shortest:
        return msgspec.Raw(b"0")
    return msgspec.Raw(f"{sign}{shortest}e{exponent - len(fraction) + len(digits) - len(shortest)}".encode())
