"""A decider stands by for another one: it answers no request meanwhile, and takes over without a gap in the answers."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError

from app.runtime.session import Session
from consumers.decisions.budget_repository import BudgetRepository, BudgetStream
from consumers.decisions.service import DecisionService
from domain.budgets.budget import Budget
from domain.decisions.streams import BudgetKey, LoadableStream
from ledger.store import lease
from ledger.store.log import Log
from tests.support.builders import gbp
from tests.support.documents import Document
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of
from tests.support.waiting import eventually


async def decider(session: Session, folder: Path) -> DecisionService:
    client, reader = await session.connection("decider"), await session.connection("decider")
    one = DecisionService(session.server, client, reader, await Log.open(client, "LEDGER"), folder)
    await one.start()
    return one


HOLDS_AT_ONCE = 8
ACTION = {"agent_id": "A-1", "kind": "refund", "reason": "late", "amount": gbp("0.10")}
UNKNOWN_HOLD = {"operation": "void", "action_id": "act-none"}


async def ask_on(
    upstream: Upstream, answers: list[Document], until: asyncio.Event, operation: str = "action", name: str = "s"
) -> int:
    """Ask for one action after another, each once; return the number of requests without an answer."""
    lost = number = 0
    while not until.is_set():
        number += 1
        body = {"request_id": f"{name}-{number}", **(ACTION if operation == "action" else UNKNOWN_HOLD)}
        try:
            request = f"resolution.decide.crm.{operation}", json.dumps(body).encode()
            reply = await Client.request(upstream.client, *request, timeout=5)  # ours would ask again by itself
            answers.append(json.loads(reply.data))
        except (NoRespondersError, TimeoutError):
            lost += 1
    return lost


async def test_a_planned_stop_leaves_no_request_without_an_answer(session: Session, tmp_path: Path) -> None:
    async with upstream_of(session, "intake") as upstream, AsyncExitStack() as stack:
        deciders = [await decider(session, tmp_path / str(number)) for number in range(3)]
        stack.push_async_callback(deciders[2].stop)
        await upstream.set_up_basics()
        answers: list[Document] = []
        over = asyncio.Event()
        others: list[Document] = []
        asking = [asyncio.create_task(ask_on(upstream, answers, over))]
        asking += [
            asyncio.create_task(ask_on(upstream, others, over, "hold", f"h-{number}"))
            for number in range(HOLDS_AT_ONCE)
        ]
        for one in deciders[:2]:
            before = len(answers)
            await eventually(lambda before=before: asyncio.sleep(0, len(answers) > before + 20))  # type: ignore[misc]
            await asyncio.sleep(0.5)
            await one.stop()
        before = len(answers)
        await eventually(lambda: asyncio.sleep(0, len(answers) > before + 20))
        over.set()
        assert await asyncio.gather(*asking) == [0] * (1 + HOLDS_AT_ONCE)
        assert {one["error"]["code"] for one in others} == {"unknown_action"}
        assert {one["outcome"] for one in answers} <= {"taken", "refused", "escalate"}, answers
        recorded = await upstream.recorded("action.taken")
        assert len({one["request_id"] for one in recorded}) == len(recorded)
        assert len(recorded) == sum(one["outcome"] == "taken" for one in answers)


async def test_a_decider_whose_turn_cannot_begin_leaves_it_to_another(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_FAILING_SECONDS", 1.0)
    async with AsyncExitStack() as stack:
        first, broken, healthy = [await decider(session, tmp_path / str(number)) for number in range(3)]
        for one in (healthy, broken):
            stack.push_async_callback(one.stop)

        async def refuse() -> None:
            raise OSError("too many open files")

        await healthy._lease.end_tasks()  # it looks later, so that the other one has the next turn
        monkeypatch.setattr(broken, "_answer_requests", refuse)
        await first.stop()
        assert broken._lease.is_ours
        assert not broken.status().is_working
        healthy._lease.spawn(healthy._lease._keep())
        await eventually(lambda: asyncio.sleep(0, healthy.status().is_working))
        assert not broken.status().is_working


async def test_a_standby_answers_nothing_and_knows_the_same(session: Session, tmp_path: Path) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        standby = await decider(session, tmp_path / "standby")
        assert standby._subscriptions == []
        taken = [await upstream.action() for _ in range(5)]
        assert {one["outcome"] for one in taken} == {"taken"}
        await standby.state.reach(taken[-1]["position"])
        assert standby.status().readings[0].position == await session.log.last_position()
        assert all(not loop.waits for loop in standby.status().loops)
        await standby.stop()


async def test_a_standby_that_takes_over_has_read_the_budgets_that_are_used(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with upstream_of(session, "intake") as upstream, AsyncExitStack() as stack:
        active, standby = [await decider(session, tmp_path / name) for name in ("active", "standby")]
        stack.push_async_callback(standby.stop)
        await set_up_organisation(upstream)
        holders = await use_budgets(upstream, "first")  # the standby loads these
        await eventually(lambda: asyncio.sleep(0, holders <= set(cached_budgets(standby))))
        assert await use_budgets(upstream, "then") == holders  # and follows these
        await standby.state.reach(await session.log.last_position())
        kept, read_anew = cached_budgets(standby), BudgetRepository(session.log)
        for key in kept:
            await read_anew.load(key)
        assert kept == {
            key: (stream.subject, stream.budget, stream.last) for key in kept for stream in [read_anew.get(key)]
        }

        await active.stop()
        assert standby._subscriptions

        async def refuse(_self: BudgetRepository, key: LoadableStream) -> BudgetStream:
            raise AssertionError(key)

        monkeypatch.setattr(BudgetRepository, "_read", refuse)
        answers = [await upstream.action(agent_id=agent, amount="1.00") for agent in ("A-1", "A-2", "D-1")]
        assert {one["outcome"] for one in answers} == {"taken"}


def cached_budgets(one: DecisionService) -> dict[BudgetKey, tuple[str, Budget | None, int]]:
    """Return the holders' newest budgets in the cache of a decider, with their subjects and last positions."""
    cached = one.pipeline.budgets._cache.values()
    return {
        stream.key: (stream.subject, stream.budget, stream.last) for stream in cached if type(stream.key) is BudgetKey
    }


async def use_budgets(upstream: Upstream, name: str) -> set[BudgetKey]:
    """Record decisions of every kind on the budgets of agents and of a pool; return the budgets."""
    for agent in ("A-1", "A-2", "D-1"):
        assert (await upstream.action(agent_id=agent, amount="2.00"))["outcome"] == "taken"
    held = await upstream.action(agent_id="A-1", amount="3.00", hold=True)
    settled = {"operation": "settle", "action_id": held["action_id"], "amount": gbp("2.00")}
    assert (await upstream.ask("hold", request_id=f"{name} settles", **settled))["outcome"] == "done"
    taken = await upstream.action(agent_id="A-2", amount="4.00")
    back = {"action_id": taken["action_id"], "reason": "mistake", "reversed_by": "M-1", "recovered": True}
    assert (await upstream.ask("reversal", request_id=f"{name} reverses", **back))["outcome"] == "done"
    beyond = {"operation": "request", "agent_id": "A-1", "kind": "refund", "reason": "late", "amount": gbp("60.00")}
    asked = await upstream.ask("escalation", request_id=f"{name} asks", **beyond)
    approval = {"operation": "approve", "escalation_id": asked["escalation_id"], "decided_by": "M-1"}
    assert (await upstream.ask("escalation", request_id=f"{name} approves", **approval))["outcome"] == "done"
    grant = {
        "operation": "grant",
        "holder": "team:doorstep",
        "granted_by": "M-1",
        "reason": "busy",
        "amount": gbp("5.00"),
    }
    assert (await upstream.ask("budget", request_id=f"{name} grants", **grant))["outcome"] == "done"
    return {BudgetKey(holder, "GBP") for holder in ("agent:A-1", "agent:A-2", "agent:D-1", "team:doorstep")}
