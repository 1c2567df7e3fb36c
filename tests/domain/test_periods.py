"""Periods are named and bounded in the policy's time zone."""

from datetime import UTC, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.periods import PeriodKind, bounds_of, days_of, period_of

LONDON = ZoneInfo("Europe/London")


@pytest.mark.parametrize(
    ("moment", "kind", "name"),
    [
        ("2026-11-21T12:00:00Z", "day", "2026-11-21"),
        ("2026-11-21T12:00:00Z", "week", "2026-W47"),
        ("2026-11-21T12:00:00Z", "month", "2026-11"),
        ("2026-11-21T12:00:00Z", "quarter", "2026-Q4"),
        ("2026-06-30T23:30:00Z", "month", "2026-07"),
        ("2027-01-01T12:00:00Z", "week", "2026-W53"),
        ("2028-02-29T12:00:00Z", "day", "2028-02-29"),
    ],
)
def test_names(moment: str, kind: PeriodKind, name: str) -> None:
    assert period_of(datetime.fromisoformat(moment), kind, LONDON) == name


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)), st.sampled_from(get_args(PeriodKind)))
def test_a_moment_lies_within_its_period_and_periods_meet(naive: datetime, kind: PeriodKind) -> None:
    moment = naive.replace(tzinfo=UTC)
    period = period_of(moment, kind, LONDON)
    start, end = bounds_of(period, LONDON)
    assert start <= moment < end
    assert period_of(end, kind, LONDON) != period
    assert days_of(period_of(end, kind, LONDON))[0] == days_of(period)[1]
    assert period_of(end - timedelta(microseconds=1), kind, LONDON) == period


@pytest.mark.parametrize("name", ["2026", "2026-13", "2026-W54", "2026-Q5", "none", "", "2026-11-31"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        days_of(name)
