"""Typed records from JSON: bad data names its field, ids are opaque text."""

import pytest

from domain.facts import InteractionOpened, PurchaseCompleted
from domain.wire import FieldError, Id, convert, decode, encode


@pytest.mark.parametrize(
    ("json", "field"),
    [('{"total": {"amount": "5.00", "currency": "GBP"}}', "data.order_id"),
     ('{"order_id": 1, "total": {"amount": "5.00", "currency": "GBP"}}', "data.order_id"),
     ('{"order_id": "o", "total": {"amount": 5.0, "currency": "GBP"}}', "data.total.amount"),
     ('{"order_id": "o", "total": {"amount": "-5.00", "currency": "GBP"}}', "data.total.amount"),
     ('{"order_id": "o", "total": {"amount": "5.00", "currency": "XXX9"}}', "data.total.currency"),
     ('{"order_id": "o", "total": 5}', "data.total"),
     ('{"order_id": "o"}', "data.total"),
     ("[]", "data"), ('"x"', "data"), ("null", "data")],
)  # fmt: skip
def test_names_the_field(json: str, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        decode(PurchaseCompleted, json)
    assert caught.value.field == field


def test_nested_too_deeply_is_an_error_like_any_other() -> None:
    with pytest.raises(FieldError):
        decode(PurchaseCompleted, '{"order_id":' + "[" * 100_000 + "]" * 100_000 + "}")


@pytest.mark.parametrize(
    "text",
    ["a", "a.b", "*", ">", "with space", "👩‍👩‍👧‍👦", "1-364285768", "536365", "12345678901234567890", "x" * 128,
     "ünï", "a@b", "0000012345", "%2E", "agent:7"],
)  # fmt: skip
def test_ids_are_opaque_text(text: str) -> None:
    assert convert(Id, text) == text


@pytest.mark.parametrize(
    "text",
    ["", "x" * 129, "a\nb", "a\x00", "a\u2028b", "a\x85b", "jo@example.com", "+44 7700 900123", "07700900123",
     "020 7946 0958", "(020) 7946 0958", "555-123-4567", "a\n"],
)  # fmt: skip
def test_what_is_no_id_says_the_rule(text: str) -> None:
    with pytest.raises(FieldError, match="an id is 1 to 128"):
        convert(Id, text)


def test_absent_fields_stay_absent() -> None:
    assert encode(InteractionOpened(interaction_id="I")) == b'{"interaction_id":"I"}'
