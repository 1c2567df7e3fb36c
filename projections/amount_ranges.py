"""Ranges of amounts, as a reader writes them."""

from __future__ import annotations

import re
from typing import NamedTuple

from domain.money import Money, MoneyError

_FORM = re.compile(r"([0-9.]+)(?: to ([0-9.]+))? ([A-Z]{3})")
_MINOR_DIGITS = 18


class AmountRange(NamedTuple):
    """The amounts of a currency from ``least`` to ``most``, both in minor units."""

    currency: str
    least: int
    most: int

    @property
    def names(self) -> tuple[str, str]:
        """The names of its limits (see ``amount_name``)."""
        return amount_name(self.least, self.currency), amount_name(self.most, self.currency)


def read_amounts(text: str) -> AmountRange:
    """Return the range of a text: an amount such as ``45.00 GBP``, or a range such as ``40.00 to 50.00 GBP``.

    Raises:
        ValueError: the text is neither.

    """
    found = _FORM.fullmatch(text)
    if found is None:
        message = f"write an amount with its currency, such as 45.00 GBP or 40.00 to 50.00 GBP, not {text[:40]!r}"
        raise ValueError(message)
    least, most, currency = found.groups()
    try:
        first, last = Money.read(least, currency).minor, Money.read(most or least, currency).minor
    except MoneyError as error:
        raise ValueError(str(error)) from None
    if last < first:
        raise ValueError(f"{most} is less than {least}")
    return AmountRange(currency, first, last)


def amount_name(minor: int, currency: str) -> str:
    """Return an amount as a text that sorts by its size within its currency, such as ``GBP 000000000000004500``."""
    return f"{currency} {minor:0{_MINOR_DIGITS}d}"
