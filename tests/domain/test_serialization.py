"""Typed records from JSON: bad data names its field, ids are opaque text."""

import pytest

from domain.events.facts import EmployeeJoined, InteractionOpened, PurchaseCompleted
from domain.serialization import FieldError, check_ids, decode, encode


@pytest.mark.parametrize(
    ("json", "field"),
    [
        ('{"total": {"amount": "5.00", "currency": "GBP"}}', "data.order_id"),
        ('{"order_id": 1, "total": {"amount": "5.00", "currency": "GBP"}}', "data.order_id"),
        ('{"order_id": "o", "total": {"amount": 5.0, "currency": "GBP"}}', "data.total.amount"),
        ('{"order_id": "o", "total": {"amount": "-5.00", "currency": "GBP"}}', "data.total.amount"),
        ('{"order_id": "o", "total": {"amount": "5.00", "currency": "XXX9"}}', "data.total.currency"),
        ('{"order_id": "o", "total": 5}', "data.total"),
        ('{"order_id": "o"}', "data.total"),
        ("[]", "data"),
        ('"x"', "data"),
        ("null", "data"),
    ],
)
def test_a_decoding_error_names_the_field(json: str, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        decode(PurchaseCompleted, json)
    assert caught.value.field == field


def test_nested_too_deeply_is_an_error_like_any_other() -> None:
    with pytest.raises(FieldError):
        decode(PurchaseCompleted, '{"order_id":' + "[" * 100_000 + "]" * 100_000 + "}")


def test_stored_ids_are_read_without_validation() -> None:
    assert decode(InteractionOpened, '{"interaction_id": " +44 7700 900123\\u200b"}').interaction_id[0] == " "


def test_ids_are_checked_in_nested_fields() -> None:
    joined = EmployeeJoined(employee_id="A-1", role="agent", team_ids=("phone", "door "))
    with pytest.raises(FieldError, match="'door'") as caught:
        check_ids(joined)
    assert (caught.value.field, caught.value.code) == ("data.team_ids[1]", "id_not_canonical")
    check_ids(joined, recorded=joined)


def test_absent_fields_stay_absent() -> None:
    assert encode(InteractionOpened(interaction_id="I")) == b'{"interaction_id":"I"}'
