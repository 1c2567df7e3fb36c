"""Times of stored events, as views compare them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.store.cloudevents import utc_text

OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC) | OFFSETS)


@given(MOMENTS, st.sampled_from(("auto", "seconds", "milliseconds", "microseconds")), st.booleans())
def test_one_instant_has_one_text_whatever_its_offset_and_digits(moment: datetime, digits: str, short: bool) -> None:
    given_text = moment.isoformat(timespec=digits)
    if short:
        given_text = given_text.replace("+00:00", "Z")
    known = datetime.fromisoformat(given_text).astimezone(UTC)
    expected = f"{known:%Y-%m-%dT%H:%M:%S.%fZ}".rjust(27, "0")
    assert utc_text(given_text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-05T10:00:00.5Z", "2026-01-05T10:00:00.500000Z"),
        ("2026-01-05T10:00:00.25+00:00", "2026-01-05T10:00:00.250000Z"),
        ("2026-01-05T10:00:00.1234567Z", "2026-01-05T10:00:00.123457Z"),
        ("2026-01-05t10:00:00z", "2026-01-05T10:00:00.000000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999Z"),  # readers of days know no second 60
        ("2016-12-31T23:59:60.5Z", "2016-12-31T23:59:59.999999Z"),
        ("2016-12-31T23:59:60+00:00", "2016-12-31T23:59:59.999999Z"),
        ("2016-12-31T18:59:60-05:00", "2016-12-31T23:59:59.999999Z"),
    ],
)
def test_digits_beyond_microseconds_and_other_letters_are_read_too(text: str, expected: str) -> None:
    assert utc_text(text) == expected
