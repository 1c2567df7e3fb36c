"""Money: whole minor units plus an ISO 4217 currency, in one immutable type."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Self

from iso4217 import Currency

AMOUNT_PATTERN = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]+)?", re.ASCII)
_SHOWN = 60
EXPONENTS: dict[str, int] = {c.code: c.exponent for c in Currency if c.exponent is not None}
"""Digits after the point for each currency that has minor units (ISO 4217, list one)."""


class MoneyError(ValueError):
    """An amount or currency that cannot be money. ``field`` is `amount`, `currency` or empty."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Money:
    """An amount of one currency: ``minor`` whole minor units (pence, yen), may be negative."""

    __slots__ = ("currency", "minor")

    minor: int
    currency: str

    def __init__(self, minor: int, currency: str) -> None:
        _set_minor(self, minor)
        _set_currency(self, currency)

    def __setattr__(self, name: str, value: object) -> None:
        message = f"Money is immutable: {name} cannot be set"
        raise AttributeError(message)

    @classmethod
    def parse(cls, amount: object, currency: object) -> Self:
        """Money from its texts, e.g. ``("5.00", "GBP")``.

        Raises:
            MoneyError: not a text, signed, in exponent form, too large, with more digits than
                the currency has, or in a currency ISO 4217 does not know.

        """
        exponent = EXPONENTS.get(currency) if isinstance(currency, str) else None
        if exponent is None or not isinstance(currency, str):
            message = f"currency must be an ISO 4217 code such as GBP, not {shown(currency)}"
            raise MoneyError(message, "currency")
        if not isinstance(amount, str):
            message = f'amount must be a text such as "5.00", not {shown(amount)}'
            raise MoneyError(message, "amount")
        if not AMOUNT_PATTERN.fullmatch(amount):
            message = (
                "amount must be digits with an optional point, unsigned, without leading zeros, "
                f'at most twelve before the point, such as "5.00", not {shown(amount)}'
            )
            raise MoneyError(message, "amount")
        whole, _, fraction = amount.partition(".")
        if len(fraction) > exponent:
            message = f"amount {shown(amount)} has more digits than {currency} ({exponent}); round it first"
            raise MoneyError(message, "amount")
        return cls(int(whole + fraction.ljust(exponent, "0")), currency)

    @property
    def text(self) -> str:
        """The amount as text with the currency's digits, e.g. ``5.00`` or ``-0.50``."""
        return _text(self.minor, self.currency)

    def wire(self) -> dict[str, str]:
        """The JSON form, ``{"amount": "5.00", "currency": "GBP"}``."""
        return wire_of(self.minor, self.currency)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and (self.minor, self.currency) == (other.minor, other.currency)

    def __hash__(self) -> int:
        return hash((self.minor, self.currency))

    def __repr__(self) -> str:
        return f"Money({self.text} {self.currency})"


_set_minor = Money.__dict__["minor"].__set__
_set_currency = Money.__dict__["currency"].__set__


def wire_of(minor: int, currency: str) -> dict[str, str]:
    """The JSON form of so many minor units, without making money of them first."""
    return {"amount": _text(minor, currency), "currency": currency}


@lru_cache(maxsize=65_536)
def _text(minor: int, currency: str) -> str:
    exponent = EXPONENTS.get(currency, 2)
    digits = str(abs(minor)).rjust(exponent + 1, "0")
    sign = "-" if minor < 0 else ""
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}" if exponent else sign + digits


_parse = lru_cache(maxsize=65_536)(Money.parse)  # amounts repeat: prices, limits, budgets


def money_from_wire(value: Any) -> Money:
    """Money from its JSON object; a ``MoneyError`` says what is wrong with which part."""
    try:
        amount, currency = value["amount"], value["currency"]
    except (KeyError, TypeError):
        message = 'money must be an object such as {"amount": "5.00", "currency": "GBP"}'
        raise MoneyError(message) from None
    try:
        return _parse(amount, currency)
    except TypeError:  # a list or an object where a text belongs
        return Money.parse(amount, currency)


def money_text(money: dict[str, str]) -> str:
    """Of its JSON form: ``5.00 GBP``."""
    return f"{money['amount']} {money['currency']}"


def shown(value: object) -> str:
    """A hostile value, cut short for an error message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
