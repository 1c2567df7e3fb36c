"""Concurrency: several deciders, 64 writers and a killed leader overspend nothing, and each request has one answer."""

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import pytest

from app.runtime.redecide import redecide_log
from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from consumers.decisions.service import DecisionService
from ledger.errors import LedgerError
from ledger.nats.client import connect
from ledger.store.streams import js_api
from projections.engine.events import read_event
from tests.support.builders import event, gbp
from tests.support.cluster_sessions import cluster_session
from tests.support.deciders import ask_here, decider_beside
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment
from tests.support.fault_links import Link
from tests.support.independent_books import Kept
from tests.support.nats_servers import Cluster
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, two_at_work, upstream_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

WRITERS = 64


@pytest.fixture(params=["one server", "three servers"])
async def two_deciders(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    """Run two deciders that both work on an embedded server, or on a cluster whose leader is killed during the test."""
    async with AsyncExitStack() as stack:
        if request.param == "one server":
            settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
            session = await stack.enter_async_context(Session(settings))
        else:
            cluster: Cluster = request.getfixturevalue("cluster")
            session = await stack.enter_async_context(cluster_session(cluster.url, tmp_path))
        yield await stack.enter_async_context(two_at_work(session))


async def test_no_decision_counts_an_action_that_another_decider_has_prevented(
    session: Session, tmp_path: Path
) -> None:
    async with upstream_of(session) as upstream, AsyncExitStack() as stack:
        await set_up_organisation(upstream)
        one, other = [await decider_beside(session, stack, tmp_path / name) for name in ("one", "other")]
        assert (await ask_here(one, agent_id="A-1", amount=gbp("1.00")))["outcome"] == "taken"
        for _ in range(4):  # `one` knows nothing of these, and has A-1's budget in its cache
            assert (await ask_here(other, agent_id="A-1", amount=gbp("40.00")))["outcome"] == "taken"
        prevented, counting = await asyncio.gather(
            ask_here(one, agent_id="A-1", amount=gbp("50.00"), customer_id="C-1"),
            ask_here(one, agent_id="D-1", amount=gbp("60.00"), customer_id="C-1"),
        )
        assert (prevented["outcome"], counting["outcome"]) == ("escalate", "taken")


async def test_a_pool_that_another_decider_has_filled_is_drawn_on(session: Session, tmp_path: Path) -> None:
    async with upstream_of(session) as upstream, AsyncExitStack() as stack:
        await set_up_organisation(upstream)
        one, other = [await decider_beside(session, stack, tmp_path / name) for name in ("one", "other")]
        for _ in range(4):  # all of the agent's own budget
            assert (await ask_here(one, agent_id="D-1", amount=gbp("50.00")))["outcome"] == "taken"
        emptied = {"operation": "transfer", "holder": "team:doorstep", "to_holder": "agent:A-2"}
        by = {"granted_by": "M-1", "reason": "fair"}
        await ask_here(one, "budget", **emptied, **by, amount=gbp("1000.00"))
        assert (await ask_here(one, agent_id="D-1", amount=gbp("5.00")))["outcome"] == "escalate"
        await ask_here(other, "budget", operation="grant", holder="team:doorstep", **by, amount=gbp("500.00"))
        await one.state.reach(await session.log.last_position())
        assert (await ask_here(one, agent_id="D-1", amount=gbp("5.00")))["outcome"] == "taken"


async def test_two_deciders_let_a_person_grant_no_more_than_the_amount_a_period(
    session: Session, tmp_path: Path
) -> None:
    async with upstream_of(session) as upstream, AsyncExitStack() as stack:
        await set_up_organisation(upstream, FULL_POLICY | {"governance": {"grants": {"manager": BOUND}}})
        deciders = [await decider_beside(session, stack, tmp_path / name) for name in ("one", "other")]
        grant = {"operation": "grant", "amount": gbp("60.00"), "granted_by": "M-1", "reason": "busy"}
        answers = await asyncio.gather(
            *(
                ask_here(decider, "budget", "http", holder=f"agent:{agent}", **grant)
                for decider in deciders
                for agent in ("A-1", "A-2")
            )
        )
        outcomes = sorted(one["outcome"] for one in answers)
        assert outcomes == ["done", "error", "error", "error"]
        assert {one["error"]["code"] for one in answers if "error" in one} == {"insufficient"}


async def test_a_decider_whose_reader_is_late_gives_the_first_answer_of_another_one(
    session: Session, tmp_path: Path
) -> None:
    """The network of one decider's reader stalls; its own reads of budgets and its appends go through."""
    async with upstream_of(session) as upstream, AsyncExitStack() as stack:
        await set_up_organisation(upstream)
        link = Link([urlsplit(session.server.servers[0]).port or 0])
        await link.open()
        stack.push_async_callback(link.close)
        reader = await connect(replace(session.server, servers=(link.url,)), "reader")
        stack.push_async_callback(reader.close)
        one = await decider_beside(session, stack, tmp_path / "one")
        other = await decider_beside(session, stack, tmp_path / "other", reader)
        link.stall()
        request = {"request_id": "r-1", "agent_id": "A-1", "amount": gbp("1.00")}
        first = await ask_here(one, **request)
        assert first["outcome"] == "taken"
        beyond = {"agent_id": "A-1", "kind": "refund", "reason": "late", "amount": gbp("55.00")}
        await ask_here(other, "preview", **beyond, interaction_id="I-1")  # writes to the budget without a first answer
        assert await ask_here(other, **request) == first
        emptied = {
            "operation": "transfer",
            "holder": "team:doorstep",
            "to_holder": "agent:A-2",
            "amount": gbp("1000.00"),
        }
        emptied |= {"request_id": "t-1", "granted_by": "M-1", "reason": "fair"}
        done = await ask_here(one, "budget", **emptied)
        assert done["outcome"] == "done"
        assert await ask_here(other, "budget", **emptied) == done  # not refused for the money that it took itself
        then = await ask_here(other, request_id="r-2", agent_id="A-1", amount=gbp("2.00"))
        assert then["budget"]["spent"] == gbp("3.00")
        link.heal()
        await other.state.reach(then["position"])
        assert await ask_here(other, **request) == first
        assert [one["request_id"] for one in await upstream.recorded("action.taken")] == ["r-1", "r-2"]


@pytest.mark.parametrize(("stored", "late"), [(3, 4), (4, 3)], ids=["an earlier month", "a later month"])
async def test_a_holders_first_budget_is_opened_by_one_of_two_deciders(
    session: Session, tmp_path: Path, stored: int, late: int
) -> None:
    """One decider stores a month's budget; the other, whose reader is late, then opens the other month's."""
    async with upstream_of(session, history=True) as upstream, AsyncExitStack() as stack:
        await set_up_organisation(upstream)
        link = Link([urlsplit(session.server.servers[0]).port or 0])
        await link.open()
        stack.push_async_callback(link.close)
        reader = await connect(replace(session.server, servers=(link.url,)), "reader")
        stack.push_async_callback(reader.close)
        one = await decider_beside(session, stack, tmp_path / "one", history=True)
        other = await decider_beside(session, stack, tmp_path / "other", reader, history=True)

        async def act(decider: DecisionService, month: int, operation: str = "action") -> Document:
            at = f"2026-0{month}-20T10:00:00Z"
            fields = {"agent_id": "A-2", "kind": "refund", "reason": "late", "amount": gbp("50.00")}
            return await ask_here(decider, operation, **fields, time=at)

        for decider, month in ((one, stored), (other, late)):  # sets its clock, and caches that there is no budget
            assert (await act(decider, month, "preview"))["outcome"] == "taken"
        link.stall()
        assert (await act(one, stored))["outcome"] == "taken"
        answer = await act(other, late)
        budgets = [
            (recorded.subject.rpartition(".")[2], type(read_event(recorded).body).__name__)
            for recorded in await session.log.read_subject(f"{topology.BUDGET_SUBJECT}.>")
        ]
        opened = [("2026-03", "BudgetOpened"), ("2026-03", "ActionTaken")]
        if stored < late:
            assert answer["budget"]["granted"] == gbp("250.00")  # 200.00, and 50.00 carried over
            after = [("2026-03", "BudgetClosed"), ("2026-04", "BudgetOpened"), ("2026-04", "ActionTaken")]
            assert budgets == opened + after
        else:
            assert answer["error"]["code"] == "clock"  # a past period is never opened
            assert budgets == [("2026-04", name) for _, name in opened]
        end = await session.log.last_position()
        found = await redecide_log(session.client, session.log, tmp_path, 1, end, lambda _done, _of: None)
        assert found.differences == []


BOUND = {"per_period": "100.00", "to": "own_teams"}


async def end_leader(session: Session, cluster: Cluster) -> None:
    await asyncio.sleep(0.5)
    leader = (await js_api(session.client, "STREAM.INFO.LEDGER"))["cluster"]["leader"]
    await asyncio.to_thread(cluster.servers[int(leader[1:])].stop, signal.SIGKILL)


async def ask_until_decided(upstream: Upstream, request: Document, operation: str = "action") -> Document:
    """Repeat a request until its answer is neither `unavailable` nor `busy`, as an upstream does."""
    return await eventually(
        lambda: upstream.ask(operation, **request),
        lambda answer: answer["outcome"] != "error" or answer["error"]["code"] not in {"unavailable", "busy"},
        60,
        passing=(nats.errors.Error, TimeoutError),
        every_seconds=0.1,
    )


async def send_all(upstream: Upstream, requests: list[Document], cluster: Cluster | None) -> list[Document]:
    """Send the requests with 64 writers while the leader is killed; repeat them all and expect the first answers."""
    queue = list(requests)
    answers: dict[str, Document] = {}

    async def writer() -> None:
        while queue:
            request = queue.pop()
            answers[request["request_id"]] = await ask_until_decided(upstream, request)

    killing = asyncio.create_task(end_leader(upstream.session, cluster)) if cluster else None
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    if killing:
        await killing
    for request in requests[:: max(1, len(requests) // 40)]:
        again = await ask_until_decided(upstream, request)
        assert again == answers[request["request_id"]]
    return list(answers.values())


def refunds(number: int, agents: list[str], amount: str, **more: Any) -> list[Document]:
    return [
        {
            "request_id": f"f-{one}",
            "agent_id": agents[one % len(agents)],
            "kind": "refund",
            "amount": gbp(amount),
            "reason": "late",
            **more,
        }
        for one in range(number)
    ]


async def test_one_budget_one_pool_and_one_customer_are_not_overspent(
    two_deciders: Upstream, request: pytest.FixtureRequest
) -> None:
    cluster: Cluster | None = request.getfixturevalue("cluster") if two_deciders.session.url.count(",") else None
    await set_up_organisation(two_deciders)
    for number in range(WRITERS):
        await two_deciders.publish(
            event(f"w-{number}", "employee.joined", employee_id=f"W-{number}", role="agent", team_ids=[])
        )
    for number in range(WRITERS):
        await two_deciders.receipt(f"w-{number}")
    for number in (1, 2):  # 80.00 were given to C-1: from here on the cap is hard
        await ask_until_decided(
            two_deciders, refunds(1, [f"A-{number}"], "40.00", customer_id="C-1")[0] | {"request_id": f"c-{number}"}
        )
    await two_deciders.wait_for_decider()
    requests = refunds(160, ["A-1"], "2.00")  # 160.00 are left
    requests += [one | {"request_id": "p" + one["request_id"]} for one in refunds(320, ["D-1", "D-2"], "7.00")]
    capped = refunds(WRITERS, [f"W-{number}" for number in range(WRITERS)], "5.00", customer_id="C-1")
    requests += [one | {"request_id": "c" + one["request_id"]} for one in capped]
    requests += [one | {"request_id": "q" + one["request_id"]} for one in refunds(40, ["A-1"], "2.00")]
    answers = await send_all(two_deciders, requests, cluster)
    assert len(answers) == len(requests)
    await assert_nothing_overspent(two_deciders, requests)


async def replay_with_leader(upstream: Upstream) -> list[Document]:
    """Return the whole log, once the servers have a leader again."""
    return await eventually(upstream.replay, passing=(LedgerError,), every_seconds=0.2)


async def assert_nothing_overspent(upstream: Upstream, requests: list[Document]) -> None:
    events = await replay_with_leader(upstream)
    taken = [e["data"] for e in events if e["type"] == "resolution.action.taken.v1"]
    assert max(Counter(one["request_id"] for one in taken).values()) == 1
    answered = Counter(e["data"]["request_id"] for e in events if e["data"].get("request_sha256") is not None)
    assert {one["request_id"] for one in requests} <= answered.keys()
    assert max(answered.values()) == 1

    def taken_by(**wanted: Any) -> float:
        return sum(
            float(one["amount"]["amount"])
            for one in taken
            if all(one.get(name) == value for name, value in wanted.items())
        )

    assert taken_by(agent_id="A-1") == 200.0  # exactly what there was
    drawn = [e["data"] for e in events if e["type"] == "resolution.budget.drawn.v1"]
    out = sum(float(one["amount"]["amount"]) for one in drawn if one["direction"] == "out")
    assert out == 1000.0
    assert 1386.0 <= taken_by(agent_id="D-1") + taken_by(agent_id="D-2") <= 1400.0
    assert taken_by(customer_id="C-1") == 100.0


class Deciders:
    """Processes of the role `decisions`, which can be added and killed."""

    def __init__(self, data_dir: Path) -> None:
        self._words = [sys.executable, "-m", "app", "run", "decisions", "--data-dir", str(data_dir)]
        self._running: list[subprocess.Popen[str]] = []

    async def add(self) -> None:
        decider = await asyncio.to_thread(
            lambda: subprocess.Popen(self._words, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True)
        )
        self._running.append(decider)
        assert decider.stdout
        await asyncio.to_thread(decider.stdout.readline)

    async def kill_oldest(self) -> None:
        await asyncio.sleep(0.3)
        self._running[0].kill()
        await asyncio.to_thread(self._running.pop(0).wait)

    def stop(self) -> None:
        for decider in self._running:
            decider.terminate()
        for decider in self._running:
            decider.wait(timeout=30)


async def test_when_a_decider_dies_another_takes_over(session: Session, tmp_path: Path) -> None:
    """SIGKILL under load, twice: asked again, every request has one effect, and the books agree with the events."""
    deciders = Deciders(tmp_path / "data")
    try:
        await deciders.add()
        await deciders.add()
        async with upstream_of(session, "intake") as upstream:
            await set_up_organisation(upstream, FULL_POLICY | {"default_role": "agent"})
            upstream.timeout_seconds = 1
            agents = [f"K-{number}" for number in range(30)]
            requests = refunds(400, agents, "1.00")
            requests += [
                one | {"request_id": "h" + one["request_id"], "hold": True} for one in refunds(100, agents, "2.00")
            ]
            big = refunds(40, ["D-1", "D-2", "A-1"], "70.00", escalate=True)
            requests += [one | {"request_id": "e" + one["request_id"]} for one in big]
            random.Random(7).shuffle(requests)
            answers = await while_killing_a_decider(send_all(upstream, requests, None), deciders)
            assert Counter(answer["outcome"] for answer in answers) == {
                "taken": 400,
                "held": 100,
                "refused": 13,
                "escalate": 27,
            }
            await deciders.add()
            then = [
                ("hold", {"action_id": answer["action_id"], "operation": "settle"})
                for answer in answers
                if answer["outcome"] == "held"
            ]
            then += [
                ("escalation", {"escalation_id": answer["escalation_id"], "operation": "approve", "decided_by": "M-1"})
                for answer in answers
                if answer["outcome"] == "escalate"
            ]
            asked = [
                ask_until_decided(upstream, {"request_id": f"t-{number}", **body}, name)
                for number, (name, body) in enumerate(then)
            ]
            after = await while_killing_a_decider(asyncio.gather(*asked), deciders)
            assert {answer["outcome"] for answer in after} == {"done"}
            kept = Kept()
            for recorded in await session.log.read_subject(">"):
                kept.read(recorded)
            assert (len(kept.taken), kept.holds) == (400 + 100 + 27, {})
    finally:
        deciders.stop()


async def while_killing_a_decider[T](work: Awaitable[T], deciders: Deciders) -> T:
    """Wait for this work while the oldest decider is killed."""
    killing = asyncio.create_task(deciders.kill_oldest())
    done = await work
    await killing
    return done
