"""Decisions before facts in one process: the intake rests while decisions are asked for, and never for long."""

import asyncio
import time

import pytest

from consumers.runtime.precedence import Precedence
from tests.support.builders import purchase
from tests.support.upstreams import Upstream, set_up_organisation


async def rest(precedence: Precedence, seconds: float) -> float:
    """Return the seconds that work of so many seconds waits."""
    begun = time.monotonic()
    await precedence.give_way(seconds)
    return time.monotonic() - begun


async def test_without_requests_the_intake_does_not_rest() -> None:
    precedence = Precedence()
    assert await rest(precedence, 10.0) < 0.01
    precedence.asked_at = time.monotonic() - 1
    assert await rest(precedence, 10.0) < 0.01


async def test_the_rest_ends_when_requests_stay_away() -> None:
    precedence = Precedence()
    precedence.asked_at = time.monotonic()
    assert 0.015 < await rest(precedence, 10.0) < 5


async def test_under_any_load_the_intake_goes_on_after_three_times_its_work() -> None:
    precedence = Precedence()

    async def ask() -> None:
        while True:
            precedence.asked_at = time.monotonic()
            await asyncio.sleep(0.001)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    assert 0.05 < await rest(precedence, 0.02) < 5
    asking.cancel()


@pytest.mark.integration
async def test_a_request_for_a_decision_makes_the_intake_of_its_process_rest(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up_organisation(upstream)
    rests = list[Precedence]()

    async def give_way(self: Precedence, _seconds: float) -> None:
        rests.append(self)

    monkeypatch.setattr(Precedence, "give_way", give_way)
    before = time.monotonic()
    assert (await upstream.action("r-1", "1.00", agent_id="A-1"))["outcome"] == "taken"
    await upstream.record(purchase("rest"))
    assert {id(one) for one in rests} == {id(upstream.session.precedence)}
    assert upstream.session.precedence.asked_at > before
