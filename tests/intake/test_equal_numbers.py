"""Numbers of one mathematical value are one content, however they are written; others never are (JSON Schema)."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.session import Session
from ledger.store.duplicate_events import content_hash, same_event
from tests.support.builders import event, gbp
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import read_rejections

EQUAL = [
    ("1", "1.0"),
    ("1e2", "100"),
    ("0.0", "-0.0"),
    ("0", "-0"),
    ("12e-1", "1.20"),
    ("1E+2", "1.0e2"),
    ("9007199254740993", "9007199254740993.0"),
    ("100000000000000000000", "1e20"),
    ("0.10", "0.1"),
    ("-5e-3", "-0.005"),
]
UNEQUAL = [
    ("9007199254740993.0", "9007199254740992.0"),
    ("0.1", "0.10000000000000000000001"),
    ("1", "-1"),
    ("1", '"1"'),
    ("123456789012345678901", "123456789012345678902"),
    ("1e2", "1e3"),
    ("1", "true"),
    ("0", "null"),
]


def written(number: str, identifier: str = "p-1") -> bytes:
    fact = event(identifier, "purchase.completed", order_id="O-1", total=gbp("5.00"), extra="NUMBER")
    return json.dumps(fact).replace('"NUMBER"', f'{{"deep": [{number}]}}').encode()


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_numbers_are_one_content(one: str, other: str) -> None:
    assert same_event(written(one), written(other))


@pytest.mark.parametrize(("one", "other"), UNEQUAL)
def test_other_numbers_are_another(one: str, other: str) -> None:
    assert not same_event(written(one), written(other))


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(numbers, numbers)
def test_numbers_are_equal_where_decimal_says_so(one: str, other: str) -> None:
    assert same_event(written(one), written(other)) == (Decimal(one) == Decimal(other))


async def test_a_retry_with_a_number_in_another_form_is_a_duplicate(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        end = 0
        for number, (one, other) in enumerate(EQUAL):
            for form in (one, other, one):
                await upstream.publish(written(form, f"p-{number}"))
            assert (await upstream.receipt(f"p-{number}"))["status"] == "recorded"
            end += 1
        await _after(upstream)
        assert await session.log.last_position() == end + 1
        assert not await read_rejections(session)


async def test_another_number_under_one_id_is_refused(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        for number, (one, other) in enumerate(UNEQUAL):
            await upstream.publish(written(one, f"p-{number}"))
            await upstream.publish(written(other, f"p-{number}"))
        await _after(upstream)
        found: list[Any] = [json.loads(one.data) for one in await read_rejections(session)]
        assert [entry["code"] for entry in found] == ["id_reused"] * len(UNEQUAL)


def test_hashes_are_as_they_were() -> None:
    assert content_hash(written("1.0")) != content_hash(written("1"))


async def _after(upstream: Upstream) -> None:
    await upstream.record(event("after", "purchase.completed", order_id="O", total=gbp("1.00")))
