"""Currencies: all that ISO 4217 ever listed (``domain.currency_table``), with their digits and their validity."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from domain.currency_table import TABLE

GRACE = timedelta(days=90)
"""Facts may be dated this long after a currency's end, because accounts are settled for a while."""
UNLISTED_DIGITS = 4
"""Digits after the point of amounts in a code that the table lacks: the most that ISO 4217 gives any currency."""
_CODE = re.compile(r"[A-Z]{3}", re.ASCII)
_EARLIEST, _LATEST = timedelta(hours=14), timedelta(hours=12)
"""The offsets of the world's first and last time zone: a day begins 14 hours before UTC's and ends 12 hours after."""


class Currency(NamedTuple):
    """A currency of the table."""

    code: str
    digits: int
    """Digits after the point."""
    since: int | None
    """The first year; ``None`` where it is unknown or before 1970, when it does not matter."""
    until: date | None
    """The last day; ``None`` while the currency is valid."""
    name: str


def is_code(value: object) -> bool:
    """Return whether a value has the form of a currency code, listed or not."""
    return isinstance(value, str) and _CODE.fullmatch(value) is not None


def is_known(value: object) -> bool:
    """Return whether a value is the code of a currency that is or was valid."""
    return isinstance(value, str) and value in CURRENCIES


def digits_of(code: str) -> int:
    """Return the digits after the point of amounts in a currency, listed or not."""
    return EXPONENTS.get(code, UNLISTED_DIGITS)


def currency_fault(code: str, moment: datetime | None = None, grace: timedelta = timedelta(0)) -> str | None:
    """Return the reason why a currency is not valid at a moment, with a remedy; ``None`` where it is valid.

    Without a moment, every currency that was ever valid passes. ``grace`` prolongs the currency's end. A day counts as
    long as it is that day anywhere on earth.
    """
    currency = CURRENCIES.get(code)
    if currency is None:
        return f"currency must be an ISO 4217 code such as GBP, not {code!r}"
    bounds = _BOUNDS.get(code)
    if moment is None or bounds is None:
        return None
    begins, ends = bounds
    seconds = moment.timestamp()
    if seconds < begins:
        return f"{code} ({currency.name}) is valid from {currency.since} on; use the currency of that time"
    if seconds >= ends + grace.total_seconds():
        return f"{code} ({currency.name}) was valid until {currency.until}; use a currency that is valid"
    return None


def _bounds(currency: Currency) -> tuple[float, float]:
    """Return the first moment and the end of a currency's validity, in seconds since 1970."""
    begins, ends = float("-inf"), float("inf")
    if currency.since is not None:
        begins = (datetime(currency.since, 1, 1, tzinfo=UTC) - _EARLIEST).timestamp()
    if currency.until is not None:
        midnight = datetime.combine(currency.until + timedelta(days=1), time(), UTC)
        ends = (midnight + _LATEST).timestamp()
    return begins, ends


def _read(table: str) -> dict[str, Currency]:
    found = {}
    for line in table.strip().splitlines():
        code, digits, since, until, name = line.split(maxsplit=4)
        year = None if since == "-" else int(since)
        end = None if until == "-" else date.fromisoformat(until)
        found[code] = Currency(code, int(digits), year, end, name)
    return found


CURRENCIES = _read(TABLE)
"""Every currency that was ever valid, by its code."""
EXPONENTS: dict[str, int] = {code: currency.digits for code, currency in CURRENCIES.items()}
"""Digits after the point, by code."""
_BOUNDS = {
    code: _bounds(currency)
    for code, currency in CURRENCIES.items()
    if currency.since is not None or currency.until is not None
}
