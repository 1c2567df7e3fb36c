"""Ids are opaque and canonical: numbers of tills and orders are ids, addresses and look-alikes are not."""

import re
import unicodedata

import pytest
from hypothesis import given, settings

from domain.ids import NOT_PATTERNS, canonical_form, fault_of
from tests.support.id_examples import ANY_TEXT, CANONICAL_IDS, NO_IDS, NOT_CANONICAL_IDS


@pytest.mark.parametrize("text", CANONICAL_IDS)
def test_ids_are_opaque_text(text: str) -> None:
    assert fault_of(text) is None


@pytest.mark.parametrize("text", NO_IDS)
def test_a_text_that_is_no_id_is_refused_with_its_rule(text: str) -> None:
    fault = fault_of(text)
    assert fault is not None
    assert fault.code == "invalid"
    assert "an id is 1 to 128 characters" in fault.message


@pytest.mark.parametrize(("text", "form"), NOT_CANONICAL_IDS.items())
def test_a_non_canonical_id_is_refused_with_its_canonical_form(text: str, form: str) -> None:
    fault = fault_of(text)
    assert fault is not None
    assert fault.code == "id_not_canonical"
    assert repr(form) in fault.message
    assert fault_of(form) is None


@settings(max_examples=5 * settings().max_examples)
@given(ANY_TEXT)
def test_canonical_forms_stay_as_they_are(text: str) -> None:
    form = canonical_form(text)
    assert canonical_form(form) == form
    assert unicodedata.is_normalized("NFC", form)


@settings(max_examples=5 * settings().max_examples)
@given(ANY_TEXT)
def test_the_published_patterns_let_every_id_pass(text: str) -> None:
    """They may let more pass: normal forms are more than a regular expression can say."""
    if fault_of(text) is None:
        assert not any(re.search(pattern, text) for pattern in NOT_PATTERNS)


def test_hostile_texts_take_no_time() -> None:
    for text in ("a@" + "b." * 24_000 + "@", "+" + "1 " * 24_000 + "x", " " * 48_000 + "x ", "\u200d👩" * 12_000):
        assert fault_of(text) is not None
        assert isinstance([re.search(pattern, text) for pattern in NOT_PATTERNS], list)
