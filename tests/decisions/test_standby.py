"""A decider stands by for another one: it answers no request meanwhile, and takes over without a gap in the answers."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError

from app.runtime.session import Session
from consumers.decisions.service import DecisionService
from ledger.store import lease
from ledger.store.log import Log
from tests.support.builders import gbp
from tests.support.documents import Document
from tests.support.upstreams import Upstream, upstream_of
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
