"""Time travel: every view's answer as of any position or time is the one it gave then."""

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from app.cli.as_of import position_of
from app.runtime.session import Session
from app.runtime.views import read_view
from ledger.store import position_lookup
from ledger.store.cloudevents import parse_time
from projections.views.audit_trail import read_trail
from projections.views.balances import read_balances, read_happened, read_making
from projections.views.casework import read_actions, read_actions_happened
from tests.support.builders import event, gbp, reported_action
from tests.support.forked_cli import CommandLine
from tests.support.upstreams import Upstream, upstream_of
from tests.support.view_answers import all_views
from tests.support.waiting import eventually


async def test_views_as_of_a_position_answer_as_they_did_there(session: Session) -> None:
    then: dict[int, list[Any]] = {}

    async def look() -> None:
        while (position := await session.log.last_position()) not in then:
            answers = await all_views(session)
            if await session.log.last_position() == position:  # what follows from a fact comes a moment later
                then[position] = answers

    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        for step in _story(upstream):
            await step()
            await look()
    assert len(then) > 8
    for position, answers in then.items():
        assert await all_views(session, position) == answers, position


def _story(upstream: Upstream) -> list[Callable[[], Awaitable[object]]]:
    def purchase(number: int, time: str) -> Callable[[], Awaitable[int]]:
        fact = event(
            f"p-{number}",
            "purchase.completed",
            time=time,
            order_id=f"O-{number}",
            customer_id="C-1",
            total=gbp("20.00"),
        )
        return lambda: upstream.record(fact)

    opened = event("o-1", "interaction.opened", interaction_id="I-1", customer_id="C-1", channel="phone")
    resolved = event("s-1", "interaction.resolved", interaction_id="I-1", resolution="refunded")
    reported = reported_action("a-1", "3.00", request_id="off-1")
    return [
        purchase(1, "2025-10-01T10:00:00Z"),
        lambda: upstream.record(opened),
        lambda: upstream.action("r-1", customer_id="C-1", interaction_id="I-1"),
        lambda: upstream.action("r-2", hold=True),
        lambda: upstream.ask(
            "budget",
            request_id="g-1",
            operation="grant",
            holder="agent:A-1",
            amount=gbp("10.00"),
            granted_by="M-1",
            reason="a storm",
        ),
        lambda: upstream.record(reported),
        lambda: upstream.record(resolved),
        lambda: upstream.ask(
            "reversal", request_id="v-1", action_id="x", reversed_by="M-1", reason="r", recovered=True
        ),
        lambda: upstream.action("r-3"),
        purchase(2, "2026-01-02T10:00:00Z"),
    ]


async def test_a_time_means_the_last_position_recorded_by_then(session: Session) -> None:
    async with upstream_of(session) as upstream:
        for number in range(30):
            await upstream.record(event(f"e-{number}", "interaction.opened", interaction_id=f"I-{number}"))
        events = await upstream.replay()
    last = events[-1]["position"]
    times = [parse_time(one["recordedtime"]) for one in events]
    for moment in times:
        expected = max(one["position"] for one, time in zip(events, times, strict=True) if time <= moment)
        assert await position_of(session.log, moment.isoformat(), last) == expected
    assert await position_of(session.log, "2020-01-01T00:00:00Z", last) == 0
    assert await position_of(session.log, "2099-01-01T00:00:00Z", last) == last
    assert await position_of(session.log, "7", last) == 7


async def test_a_late_fact_counts_at_its_event_time(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        await upstream.action("r-1")
        events = await upstream.replay()
        taken = next(one for one in events if one["type"] == "resolution.action.taken.v1")
        before = taken["time"]
        fact = reported_action("late", "3.00", time=before, request_id="off", reason="no network")
        await upstream.record(fact)
        await eventually(upstream.budget, lambda budget: budget["spent"] == "8.00")
        undone = await upstream.ask(
            "reversal",
            request_id="v",
            action_id=taken["data"]["action_id"],
            reason="x",
            reversed_by="A-1",
            amount=gbp("2.00"),
            recovered=True,
        )
        assert undone["outcome"] == "done"
    moment = parse_time(before)
    known_then = await position_of(session.log, taken["recordedtime"], await session.log.last_position())
    then = (await read_view(session, "budget_balances", lambda c: read_balances(c, position=known_then))).result
    happened = (await read_view(session, "budget_balances", lambda c: read_happened(c, _text(moment)))).result
    assert (then[0]["spent"], happened[0]["spent"]) == (gbp("5.00"), gbp("8.00"))
    making = (
        await read_view(session, "budget_balances", lambda c: read_making(c, then[0]["holder"], then[0]["period"]))
    ).result
    assert [one["spent"]["amount"] for one in making] == ["0.00", "5.00", "8.00", "6.00"]
    assert making[1]["position"] == taken["position"]
    done = (await read_view(session, "casework", lambda c: read_actions_happened(c, _text(moment)))).result
    assert [(one["amount"], one["reversed"], one["position"] > known_then) for one in done] == [
        (gbp("5.00"), gbp("0.00"), False),
        (gbp("3.00"), gbp("0.00"), True),
    ]
    later = (await read_view(session, "casework", lambda c: read_actions_happened(c, "9999"))).result
    assert [one["reversed"] for one in later] == [gbp("2.00"), gbp("0.00")]
    assert later == (await read_view(session, "casework", read_actions)).result
    told = (await read_view(session, "audit_trail", lambda c: read_trail(c, happened=_text(moment)))).result
    assert "resolution.action.reported.v1" in {one["type"] for one in told}
    assert "resolution.action.reversed.v1" not in {one["type"] for one in told}


def _text(moment: datetime) -> str:
    from ledger.store.cloudevents import time_text

    return time_text(moment)


def test_commands_answer_as_of(command: CommandLine) -> None:
    lines = "\n".join(json.dumps(reported_action(f"e-{n}", "1.00", request_id=f"q-{n}")) for n in range(5))
    assert command("publish", "-", stdin=lines).returncode == 0
    for report in ("actions", "escalations", "balances", "loyalty"):
        late = command("report", report, "--as-of", "2026-11-22T00:00:00Z", "--happened", "--json")
        assert late.returncode == 0, late.stderr
    for report in ("actions", "escalations", "balances", "loyalty", "gap", "quality", "recognition"):
        done = command("report", report, "--as-of", "3", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["position"] == 3
    assert len(json.loads(command("report", "actions", "--as-of", "3", "--json").stdout)["items"]) == 3
    assert len(json.loads(command("audit", "trail", "--as-of", "2", "--json").stdout)["items"]) == 2
    wrong = command("report", "balances", "--as-of", "yesterday")
    assert (wrong.returncode, "neither a position nor a time" in wrong.stderr) == (2, True)
    assert command("report", "balances", "--happened").returncode == 2


@pytest.mark.parametrize("text", ["9" * 19, "9" * 20, "1" + "0" * 5000, "9223372036854775808"])
async def test_a_number_beyond_any_position_is_an_error(session: Session, text: str) -> None:
    with pytest.raises(ValueError, match="exceeds every position"):
        await position_lookup.position_of(session.log, text, 5)
    assert await position_lookup.position_of(session.log, "9223372036854775807", 5) == 5
