"""Days and times of every parameter, up to the first and the last that can be written: an answer or 422, never 500."""

from contextlib import suppress
from itertools import product

import pytest

from app.runtime.session import Session
from projections.date_ranges import RangeError, read_range, zone_named
from tests.support.http_api import served
from tests.support.openapi import api_document

EDGES = (
    "0000-00-00",
    "0001-01-01",
    "0001-W01",
    "0001-Q1",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-28",
    "9999-12-31",
    "9999-12",
    "9999-W52",
    "9999-Q4",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59.999999-23:59",
    "10000-01-01",
    "2026-02-30",
    "2026-W54",
)
AT_ONCE = ("0001-01-01T00:00:00+23:59", "9999-12-28", "9999-12-31", "9999-12-31T23:59:59.999999-23:59")
"""Those that are sent to each path."""
WIDE = [("0002-01-01", "9998-12-31"), ("2000", "9998"), ("0002-01-01T00:00:00Z", "9998-12-31T00:00:00Z")]
DATES = ("from", "to", "as_of", "period")


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_a_range_of_days_is_read_or_refused(zone: str) -> None:
    for begin, end in (*product((None, *EDGES), (None, *EDGES)), *WIDE):
        with suppress(RangeError):
            found = read_range(begin, end, zone_named(zone))
            assert found.overlapping(["2026-11"]) in ([], ["2026-11"])
            assert found.before() is None or found.texts


async def test_no_date_of_any_path_is_an_error_of_ours(session: Session) -> None:
    async with served(session) as (_, client):
        tried = set[str]()
        for path, operations in api_document()["paths"].items():
            for one in operations.get("get", {}).get("parameters", ()):
                if one["name"] not in DATES or "{" in path:
                    continue
                tried.add(one["name"])
                for edge in AT_ONCE:
                    answer = await client.get(
                        path,
                        params={one["name"]: edge, "tz": "Pacific/Kiritimati"}
                        if one["name"] in ("from", "to")
                        else {one["name"]: edge},
                    )
                    assert answer.status_code in (200, 422), (path, one["name"], edge, answer.text)
        assert tried == {*DATES}
