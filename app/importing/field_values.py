"""Values of a SELECT as fields of events: times in UTC, exact money, numbers and texts, each with its error."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from domain.currencies import EXPONENTS
from domain.money import AMOUNT_PATTERN, Money
from ledger.store.cloudevents import time_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from zoneinfo import ZoneInfo

    from app.importing.mapping import Disambiguation
    from domain.events.facts import Fact

type Signs = tuple[str, str]
"""Decimal and thousands signs."""
type Converter = Callable[[object, Signs], object]

_LAST = timedelta(days=1) - timedelta(microseconds=1)
_TRUTHS = {"true": True, "t": True, "yes": True, "1": True, "false": False, "f": False, "no": False, "0": False}
_SHOWN = 60
_PLAIN = (".", "")


class ValueFaultError(ValueError):
    """A value that cannot be a field; ``part`` is a path below the field, such as ``amount``, or empty."""

    def __init__(self, message: str, part: str = "", value: object = None) -> None:
        super().__init__(message)
        self.part, self.value = part, value


_FIRST_YEAR = 1900
"""A time before it is a date that was read wrongly, or the zero of a spreadsheet."""


class LocalTimes:
    """Converts times to UTC. Local times that a clock change skips or repeats follow ``ambiguous``."""

    def __init__(self, zone: ZoneInfo | None, ambiguous: Disambiguation) -> None:
        self._zone, self._ambiguous = zone, ambiguous
        self._offsets: dict[int, timedelta | None] = {}
        """The offset of each day by its ordinal; None: a clock change touches the day."""

    def moment(self, value: object) -> datetime:
        """Return a time in UTC.

        Raises:
            ValueFaultError: the value is no time, is before 1900, has no zone, or is skipped or repeated by a clock
                change.

        """
        if isinstance(value, str):
            value = self._parsed(value.strip())
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - its zone follows
        if not isinstance(value, datetime) or value == datetime.min:  # DuckDB's -infinity  # noqa: DTZ901
            raise ValueFaultError(f"{_shown(value)} is not a time; give a TIMESTAMP, or a text in ISO 8601")
        if value.year < _FIRST_YEAR:
            hint = "a year of two digits is read by %y, and %Y takes it as it stands"
            raise ValueFaultError(f"{_shown(value)} is before the year {_FIRST_YEAR}: {hint}")
        try:
            return value.astimezone(UTC) if value.tzinfo is not None else self._in_utc(value)
        except OverflowError:
            raise ValueFaultError(f"{_shown(value)} is outside the years 1 to 9999 in UTC") from None

    @staticmethod
    def _parsed(text: str) -> datetime:
        try:
            return datetime.fromisoformat(text)
        except ValueError as error:
            hint = "a text in ISO 8601 or a TIMESTAMP is needed, such as try_strptime(at, '%d/%m/%Y %H:%M')"
            raise ValueFaultError(f"{_shown(text)} is not a time ({error}); {hint}") from None

    def _in_utc(self, local: datetime) -> datetime:
        if self._zone is None:
            raise ValueFaultError(f"{local} has no zone: give the mapping a `time_zone`")
        day = local.toordinal()
        offset = self._offsets.get(day, _UNKNOWN)
        if offset is _UNKNOWN:
            offset = self._offsets[day] = self._constant_offset(local)
        if offset is None:
            return self._exactly(local)
        return (local - offset).replace(tzinfo=UTC)

    def _constant_offset(self, local: datetime) -> timedelta | None:
        """Return the offset of a day, or ``None`` if a clock change touches it: no zone has two on one day."""
        begin = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=self._zone)
        offsets = {moment.replace(fold=fold).utcoffset() for moment in (begin, begin + _LAST) for fold in (0, 1)}
        return offsets.pop() if len(offsets) == 1 else None

    def _exactly(self, local: datetime) -> datetime:
        instants = [local.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
        first, second = sorted(instants)
        if first == second:
            return first
        if self._ambiguous == "reject":
            exists = first.astimezone(self._zone).replace(tzinfo=None) == local
            fault = "is there twice" if exists else "does not exist"
            raise ValueFaultError(
                f"{local} {fault} in {self._zone}, because of a clock change: choose with "
                "`ambiguous: earlier`, `ambiguous: later` or `ambiguous: reject` in the mapping"
            )
        return first if self._ambiguous == "earlier" else second


_UNKNOWN = timedelta.max


def converter_of(cls: type[Fact], name: str, column: str, times: LocalTimes) -> Converter | None:
    """Return the function that makes a field's value from a value of a SELECT that is not NULL.

    The function raises ``ValueFaultError``. None: each value of a column of this DuckDB type is a field as it is.
    """
    kinds = set(_kinds(_hints(cls)[name]))
    converters: tuple[tuple[type, Converter], ...] = (
        (Money, _money),
        (datetime, lambda value, _: time_text(times.moment(value))),
        (tuple, lambda value, _: [_text(one) for one in value] if isinstance(value, list) else [_text(value)]),
        (bool, lambda value, _: _truth(value)),
        (float, _number),
        (str, lambda value, _: _text(value)),
        (int, _whole),
    )
    kind, convert = next(pair for pair in converters if pair[0] in kinds)
    return None if kind is _PYTHON_TYPES.get(column) else convert


_hints = lru_cache(maxsize=None)(get_type_hints)
_PYTHON_TYPES = {"VARCHAR": str, "BOOLEAN": bool, "SMALLINT": int, "INTEGER": int, "BIGINT": int}
"""Python's types of the values of DuckDB's types."""


def _kinds(hint: object) -> list[object]:
    """Return the plain types in a type hint."""
    origin = get_origin(hint)
    if origin is tuple:
        return [tuple]
    if origin is Literal:
        return [str]
    parts = get_args(hint)
    if hasattr(hint, "__metadata__"):
        parts = parts[:1]
    return [kind for part in parts for kind in _kinds(part)] if parts else [hint]


def _money(value: object, signs: Signs) -> object:
    """Return money in its JSON form.

    Texts are exact. Computed amounts are rounded half-even to the currency's digits.
    """
    if not isinstance(value, dict) or set(value) != {"amount", "currency"}:
        raise ValueFaultError(f"{_shown(value)} is no money; write {{'amount': amount, 'currency': 'GBP'}}")
    amount, currency = value["amount"], value["currency"]
    if amount is None:
        return None
    if not isinstance(currency, str) or currency not in EXPONENTS:
        raise ValueFaultError(f"{_shown(currency)} is no ISO 4217 code such as GBP", "currency", currency)
    return {"amount": _amount(amount, currency, signs), "currency": currency}


def _amount(amount: object, currency: str, signs: Signs) -> str:
    if isinstance(amount, str):
        text = _plain_number(amount.strip(), signs) if signs != _PLAIN else amount.strip()
        found = _exact_amount(text, EXPONENTS[currency])
        if found is None:
            rule = "an amount is digits with an optional point, unsigned, without other signs, such as 5.00"
            if AMOUNT_PATTERN.fullmatch(text):
                rule = f"{currency} has {EXPONENTS[currency]} digits: round the amount in the SELECT"
            raise ValueFaultError(f"{_shown(amount)}: {rule}", "amount", amount)
        return found
    if isinstance(amount, bool) or not isinstance(amount, (int, float, Decimal)):
        raise ValueFaultError(f"{_shown(amount)} is no amount", "amount", amount)
    return _rounded(amount, currency)


@lru_cache(maxsize=65_536)
def _rounded(amount: float | Decimal, currency: str) -> str:
    exact = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)
    if not exact.is_finite() or exact < 0 or exact.adjusted() > _MOST_DIGITS:
        rule = "an amount is not negative (abs() gives it without its sign) and has at most twelve digits"
        raise ValueFaultError(f"{_shown(amount)}: {rule}", "amount", amount)
    return f"{exact.quantize(Decimal(1).scaleb(-EXPONENTS[currency]), ROUND_HALF_EVEN):f}"


_MOST_DIGITS = 11


@lru_cache(maxsize=65_536)
def _exact_amount(text: str, digits: int) -> str | None:
    """Return an amount's text with the currency's digits, or ``None`` if it is no amount or has more digits."""
    if not AMOUNT_PATTERN.fullmatch(text):
        return None
    whole, _, fraction = text.partition(".")
    if len(fraction.rstrip("0")) > digits:
        return None
    return f"{whole}.{fraction[:digits].ljust(digits, '0')}" if digits else whole


@lru_cache(maxsize=16)
def _pattern(signs: Signs) -> re.Pattern[str]:
    decimal, thousands = map(re.escape, signs)
    whole = rf"[0-9]{{1,3}}(?:{thousands}[0-9]{{3}})+|[0-9]+" if thousands else "[0-9]+"
    return re.compile(rf"([+-]?)({whole})(?:{decimal}([0-9]+))?", re.ASCII)


def _plain_number(text: str, signs: Signs) -> str:
    """Return a number written with other signs with a point; a text that is no such number as it is."""
    matched = _pattern(signs).fullmatch(text)
    if matched is None:
        decimal, thousands = signs
        raise ValueFaultError(
            f"{_shown(text)} is no number with `decimal: {decimal!r}`"
            + (f" and `thousands: {thousands!r}`" if thousands else ""),
            "amount",
            text,
        )
    sign, whole, fraction = matched.groups()
    whole = whole.replace(signs[1], "") if signs[1] else whole
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def _number(value: object, signs: Signs) -> float | int:
    shown = value
    if isinstance(value, str):
        text = _plain_number(value.strip(), signs) if signs != _PLAIN else value.strip()
        try:
            value = Decimal(text) if "_" not in text else None
        except InvalidOperation:
            value = None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, (float, Decimal)) or not isfinite(number := float(value)):
        raise ValueFaultError(f"{_shown(shown)} is not a number")
    return int(value) if number.is_integer() and value == int(value) else number


def _whole(value: object, signs: Signs) -> int:
    number = _number(value, signs)
    if not isinstance(number, int):
        raise ValueFaultError(f"{_shown(value)} is not a whole number")
    return number


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    found = _TRUTHS.get(str(value).strip().lower())
    if found is None:
        raise ValueFaultError(f"{_shown(value)} is neither true nor false")
    return found


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case datetime() | date():
            return value.isoformat()
    raise ValueFaultError(f"{_shown(value)} is no text: {cast_hint(value)}")


def cast_hint(value: object) -> str:
    """Return how a SELECT makes a text of a value that is none."""
    if isinstance(value, (float, Decimal)):
        return "CAST(... AS BIGINT) makes a whole number of it, and CAST(... AS VARCHAR) a text with its point"
    return "cast it to text in the SELECT"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
