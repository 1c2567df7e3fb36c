"""Money: whole minor units plus an ISO 4217 currency, in one immutable type."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from domain.currencies import EXPONENTS, digits_of, is_code

if TYPE_CHECKING:
    from collections.abc import Mapping

AMOUNT_PATTERN = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]+)?", re.ASCII)
_SHOWN = 60
_DIGITS_SHOWN = 2
"""The fewest digits after the point that are shown of an amount in an unknown currency."""


class MoneyError(ValueError):
    """An error about an amount or currency that cannot be money; ``field`` is `amount`, `currency` or empty."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Money:
    """An amount in one currency, as whole minor units (pence, yen); it may be negative."""

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
        """Return money from its texts, e.g. ``("5.00", "GBP")``.

        Raises:
            MoneyError: the amount is not a text, signed, in exponent form, too large or with more digits than the
                currency has, or ISO 4217 never listed the currency.

        """
        if not isinstance(currency, str) or currency not in EXPONENTS:
            raise MoneyError(_no_currency(currency), "currency")
        return cls.read(amount, currency)

    @classmethod
    def read(cls, amount: object, currency: object) -> Self:
        """Return money as it was stored; a code that this version does not know is read by ``UNLISTED_DIGITS``.

        Raises:
            MoneyError: as for ``parse``, but an unknown code of three letters is accepted.

        """
        if not isinstance(currency, str) or not is_code(currency):
            raise MoneyError(_no_currency(currency), "currency")
        exponent = digits_of(currency)
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
        """Return the JSON form, ``{"amount": "5.00", "currency": "GBP"}``."""
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
    """Return the JSON form of an amount in minor units, without creating a `Money` first."""
    return {"amount": _text(minor, currency), "currency": currency}


@lru_cache(maxsize=65_536)
def _text(minor: int, currency: str) -> str:
    exponent = digits_of(currency)
    digits = str(abs(minor)).rjust(exponent + 1, "0")
    sign = "-" if minor < 0 else ""
    if not exponent:
        return sign + digits
    fraction = digits[-exponent:]
    if currency not in EXPONENTS:
        fraction = fraction.rstrip("0").ljust(_DIGITS_SHOWN, "0")
    return f"{sign}{digits[:-exponent]}.{fraction}"


def _no_currency(value: object) -> str:
    return f"currency must be an ISO 4217 code such as GBP, not {shown(value)}"


_read = lru_cache(maxsize=65_536)(Money.read)  # amounts repeat: prices, limits, budgets


def money_from_wire(value: Any) -> Money:
    """Return money from its JSON object, as ``Money.read`` does.

    Stored events are read by this function. The validity of a currency is checked where facts and requests come in.

    Raises:
        MoneyError: the value is not such an object; ``field`` names the wrong part.

    """
    try:
        amount, currency = value["amount"], value["currency"]
    except (KeyError, TypeError):
        message = 'money must be an object such as {"amount": "5.00", "currency": "GBP"}'
        raise MoneyError(message) from None
    try:
        return _read(amount, currency)
    except TypeError:  # a list or an object where a text belongs
        return Money.read(amount, currency)


def money_text(money: Mapping[str, str] | None) -> str:
    """Return the text of money in its JSON form, e.g. ``5.00 GBP``; empty for ``None``."""
    return "" if money is None else f"{money['amount']} {money['currency']}"


def shown(value: object) -> str:
    """Return the ``repr`` of an untrusted value, cut short for an error message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
