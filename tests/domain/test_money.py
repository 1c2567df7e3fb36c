"""Money: whole minor units and a currency; anything else is an error with its reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.currencies import EXPONENTS
from domain.money import Money, MoneyError


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("5.00", "GBP", 500),
        ("0", "GBP", 0),
        ("0.5", "GBP", 50),
        ("500", "JPY", 500),
        ("1.234", "KWD", 1234),
        ("999999999999.99", "GBP", 99999999999999),
    ],
)
def test_amounts_are_read(amount: str, currency: str, minor: int) -> None:
    assert Money.parse(amount, currency).minor == minor


@pytest.mark.parametrize(
    ("amount", "currency", "field"),
    [
        ("5.001", "GBP", "amount"),
        ("1.5", "JPY", "amount"),
        ("1.2345", "KWD", "amount"),
        ("-5.00", "GBP", "amount"),
        ("+5", "GBP", "amount"),
        ("05.00", "GBP", "amount"),
        ("5.", "GBP", "amount"),
        (".5", "GBP", "amount"),
        ("1e3", "GBP", "amount"),
        ("1,000.00", "GBP", "amount"),
        ("", "GBP", "amount"),
        (" 5", "GBP", "amount"),
        ("5\n", "GBP", "amount"),
        ("٥", "GBP", "amount"),
        ("1" * 13, "GBP", "amount"),
        (5.0, "GBP", "amount"),
        (5, "GBP", "amount"),
        (None, "GBP", "amount"),
        ("5.00", "gbp", "currency"),
        ("5.00", "XXY", "currency"),
        ("5.00", "XAU", "currency"),
        ("5.00", None, "currency"),
        ("5.00", 826, "currency"),
    ],
)
def test_an_invalid_amount_is_an_error_that_names_its_part(amount: object, currency: object, field: str) -> None:
    with pytest.raises(MoneyError) as caught:
        Money.parse(amount, currency)
    assert caught.value.field == field


@given(st.integers(0, 10**12 - 1), st.sampled_from(sorted(EXPONENTS)))
def test_the_text_of_an_amount_reads_back(minor: int, currency: str) -> None:
    money = Money(minor, currency)
    assert Money.parse(money.text, currency) == money


def test_a_negative_amount_has_a_sign() -> None:
    assert Money(-5, "GBP").text == "-0.05"
    assert Money(-12345, "JPY").text == "-12345"


def test_an_amount_is_immutable() -> None:
    with pytest.raises(AttributeError):
        Money(1, "GBP").minor = 2
