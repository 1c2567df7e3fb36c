"""Ids are opaque and canonical: numbers of tills and orders are ids, addresses and look-alikes are not."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.ids import NOT_PATTERNS, canonical_form, fault_of

IDS = [
    "0042-17-000123",
    "007-42",
    "01-234567",
    "0123456789",
    "555-123-4567",
    "(020) 7946 0958",
    "07700900123",
    "a",
    "a.b",
    "*",
    ">",
    "with space",
    "two  spaces",
    "1-364285768",
    "536365",
    "x" * 128,
    "ünï",
    "a@b",
    "%2E",
    "agent:7",
    "+1234567",
    "+1234567890123456",
    "++4477009001",
    "44 7700 900123",
    "a@b@c.d e",
    "👩‍👩‍👧‍👦",
    "👩🏽‍💻",
    "🏳️‍🌈",
    "❤️‍🔥",
    "1️⃣",
    "🇬🇧",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "C-9 ☎️",
    "日本語",
    "\ufffd",
    "\U0010ffff",
    "'; --",
]
NOT = [
    "",
    " ",
    "\u200b",
    "\u3164",
    "\u2003\u00a0",
    "x" * 129,
    "a\nb",
    "a\n",
    "\t",
    "a\x00",
    "a\u2028b",
    "a\x85b",
    "a\ud800",
    "jo@example.com",
    "jo+tag@mail.example.co.uk",
    "用户@例子.广告",
    "+44 7700 900123",
    "+12345678",
    "+123456789012345",
    "+(44) 7700-900.123",
    "+44\u20117700\u2011900123",
    "+44 7700 900123.",
    "\u200bjo@example.com",
    "+44\u00a07700900123",
]
NOT_CANONICAL = {
    " C-9": "C-9",
    "C-9 ": "C-9",
    "C-9\u200b": "C-9",
    "C\u00ad-9": "C-9",
    "\ufeffC-9": "C-9",
    "C-9\ufe0f": "C-9",
    "C\u00a09": "C 9",
    "C\u30009": "C 9",
    "e\u0301": "é",
    "\u212b": "Å",
    "a\u200db": "ab",
    "👩\u200d": "👩",
    "☎\ufe0e": "☎",
    "→\ufe0f": "→",
    "👩\u200d\u200d💻": "👩💻",
    "🏴\U000e0067": "🏴",
    "C-9\U000e0001": "C-9",
    "e\u200b\u0301": "é",
    "😀\u200d↔\u0338": "😀↮",
    "می\u200cخواهم": "میخواهم",
}


@pytest.mark.parametrize("text", IDS)
def test_ids_are_opaque_text(text: str) -> None:
    assert fault_of(text) is None


@pytest.mark.parametrize("text", NOT)
def test_what_is_no_id_says_the_rule(text: str) -> None:
    fault = fault_of(text)
    assert fault is not None
    assert fault.code == "invalid"
    assert "an id is 1 to 128 characters" in fault.message


@pytest.mark.parametrize(("text", "form"), NOT_CANONICAL.items())
def test_what_is_not_canonical_says_what_would_be(text: str, form: str) -> None:
    fault = fault_of(text)
    assert fault is not None
    assert fault.code == "id_not_canonical"
    assert repr(form) in fault.message
    assert fault_of(form) is None


TEXTS = st.lists(
    st.sampled_from(
        [
            *"aé9#*@.+- ()",
            "\u00a0",
            "\u200b",
            "\u200d",
            "\ufe0f",
            "\ufe0e",
            "\u20e3",
            "\u0301",
            "👩",
            "💻",
            "🏽",
            "☎",
            "→",
            "🏴",
            "\U000e0067",
            "\U000e007f",
            "\n",
            "\u2028",
            "\ud83d",
            "\u00ad",
            "\U0001d173",
            "↔",
            "\u0338",
        ]
    )
    | st.characters(exclude_categories=("Cs", "Cn")),
    max_size=12,
).map("".join)
"""Texts near the rules' edges. (A lone surrogate is drawn by name.)"""


@settings(max_examples=5 * settings().max_examples)
@given(TEXTS)
def test_canonical_forms_stay_as_they_are(text: str) -> None:
    form = canonical_form(text)
    assert canonical_form(form) == form
    assert unicodedata.is_normalized("NFC", form)


@settings(max_examples=5 * settings().max_examples)
@given(TEXTS)
def test_the_published_patterns_let_every_id_pass(text: str) -> None:
    """They may let more pass: normal forms are more than a regular expression can say."""
    if fault_of(text) is None:
        assert not any(re.search(pattern, text) for pattern in NOT_PATTERNS)


def test_hostile_texts_take_no_time() -> None:
    for text in ("a@" + "b." * 24_000 + "@", "+" + "1 " * 24_000 + "x", " " * 48_000 + "x ", "\u200d👩" * 12_000):
        assert fault_of(text) is not None
        assert isinstance([re.search(pattern, text) for pattern in NOT_PATTERNS], list)
