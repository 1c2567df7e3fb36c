"""Currencies: every one that ISO 4217 has listed (``domain.currency_table``), with its digits and when it was valid."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from domain.currency_table import TABLE

GRACE = timedelta(days=90)
"""Facts may be dated so long after a currency's end, since accounts are settled for a while."""
UNLISTED_DIGITS = 4
"""Digits by which amounts in a code are read that this table does not have: as many as ISO 4217 gives any."""
_CODE = re.compile(r"[A-Z]{3}", re.ASCII)
_EARLIEST, _LATEST = timedelta(hours=14), timedelta(hours=12)
"""A day begins so long before UTC's, and ends so long behind it, somewhere on earth."""


class Currency(NamedTuple):
    """A currency of the table."""

    code: str
    digits: int
    """Digits after the point."""
    since: int | None
    """The first year; none where it is not known, or does not matter: before 1970."""
    until: date | None
    """The last day; none while it is valid."""
    name: str


def is_code(value: object) -> bool:
    """Return whether a value has the form of a code, listed or not."""
    return isinstance(value, str) and _CODE.fullmatch(value) is not None


def is_known(value: object) -> bool:
    """Return whether a value is the code of a currency that is or was valid."""
    return isinstance(value, str) and value in CURRENCIES


def digits_of(code: str) -> int:
    """Return the digits after the point of amounts in a currency, listed or not."""
    return EXPONENTS.get(code, UNLISTED_DIGITS)


def currency_fault(code: str, moment: datetime | None = None, grace: timedelta = timedelta(0)) -> str | None:
    """Return why a currency is not valid at a moment and what to do, or none where it is valid.

    Without a moment every currency that was ever valid is. ``grace`` prolongs its end. A day counts as long as it is
    that day anywhere.
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
    """Return from when and until when a currency is valid, in seconds since 1970."""
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
"""Every currency that ever was valid, by its code."""
EXPONENTS: dict[str, int] = {code: currency.digits for code, currency in CURRENCIES.items()}
"""Digits after the point, by code."""
_BOUNDS = {
    code: _bounds(currency)
    for code, currency in CURRENCIES.items()
    if currency.since is not None or currency.until is not None
}
