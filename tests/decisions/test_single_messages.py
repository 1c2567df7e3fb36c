"""Small groups of decisions: each is a message of its own, unless one decision depends on another of its group."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.runtime.redecide import redecide_log
from app.runtime.session import Session
from consumers.decisions.service import DecisionService
from domain.events.decisions import ActionTaken
from ledger.nats.request_reply import RequestReply
from ledger.store.streams import js_api
from projections.engine.events import read_event
from tests.support.builders import event, gbp
from tests.support.deciders import ask_here, decider_beside
from tests.support.documents import Document
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of

pytestmark = pytest.mark.integration

AGENTS = [f"W-{number}" for number in range(8)]


@pytest.fixture
async def upstream(session: Session) -> AsyncIterator[Upstream]:
    """Run a ledger with eight agents."""
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream)
        for agent in AGENTS:
            await upstream.publish(event(agent, "employee.joined", employee_id=agent, role="agent", team_ids=[]))
        for agent in AGENTS:
            await upstream.receipt(agent)
        yield upstream


@pytest.fixture
async def decider(upstream: Upstream, tmp_path: Path) -> AsyncIterator[DecisionService]:
    """Return a decider that has the budgets of all agents in its cache."""
    async with AsyncExitStack() as stack:
        decider = await decider_beside(upstream.session, stack, tmp_path / "decider")
        await cache_budgets(decider)
        yield decider


async def cache_budgets(decider: DecisionService) -> None:
    """Let the decider read the budgets of all agents, and draw 1.00 on each."""
    await asyncio.gather(*(ask_here(decider, agent_id=agent, amount=gbp("1.00")) for agent in AGENTS))


async def at_once(decider: DecisionService, agents: list[str], **fields: str) -> list[Document]:
    """Ask for all of these agents in one group; an agent's name is the id of the request."""
    return await asyncio.gather(
        *(ask_here(decider, request_id=f"r {agent}", agent_id=agent, amount=gbp("2.00"), **fields) for agent in agents)
    )


async def in_batches(upstream: Upstream, answers: list[Document]) -> list[bool]:
    """Return for each answer whether the server stored its event as a part of an atomic batch."""
    places = [{"seq": answer["position"]} for answer in answers]
    found = [await js_api(upstream.session.client, "STREAM.MSG.GET.LEDGER", place) for place in places]
    return [b"Nats-Batch-Id" in base64.b64decode(one["message"]["hdrs"]) for one in found]


async def assert_books_are_right(upstream: Upstream, folder: Path, taken: int) -> None:
    """Assert that each action was recorded once, and that every decision is made again as it is recorded."""
    recorded = await upstream.recorded("action.taken")
    assert len({one["request_id"] for one in recorded}) == len(recorded) == taken
    log = upstream.session.log
    found = await redecide_log(upstream.session.client, log, folder, 1, await log.last_position(), lambda *_: None)
    assert found.differences == []


async def test_independent_decisions_are_messages_of_their_own(
    upstream: Upstream, decider: DecisionService, tmp_path: Path
) -> None:
    answers = await at_once(decider, AGENTS)
    assert [one["outcome"] for one in answers] == ["taken"] * 8
    assert await in_batches(upstream, answers) == [False] * 8
    stored = [await upstream.session.log.at(one["position"]) for one in answers]
    bodies = [read_event(one).body for one in stored if one is not None]
    assert [one.agent_id for one in bodies if isinstance(one, ActionTaken)] == AGENTS
    assert [one["budget"]["spent"] for one in answers] == [gbp("3.00")] * 8
    assert await at_once(decider, AGENTS) == answers  # the first answers again
    await assert_books_are_right(upstream, tmp_path, 16)


@pytest.mark.parametrize(
    "fields", [{"customer_id": "C-1"}, {"interaction_id": "I-1"}, {"order_id": "O-1", "basis": "correction"}]
)
async def test_decisions_that_count_each_other_are_stored_together(
    upstream: Upstream, decider: DecisionService, fields: dict[str, str]
) -> None:
    answers = await at_once(decider, AGENTS[:2], **fields)
    assert await in_batches(upstream, answers) == [True, True]


async def test_two_decisions_on_one_budget_are_stored_together(upstream: Upstream, decider: DecisionService) -> None:
    answers = await asyncio.gather(*(ask_here(decider, agent_id="W-0", amount=gbp("1.00")) for _ in range(2)))
    assert await in_batches(upstream, answers) == [True, True]
    assert [one["budget"]["spent"] for one in answers] == [gbp("2.00"), gbp("3.00")]


async def test_one_that_another_decider_has_prevented_is_decided_again_alone(
    upstream: Upstream, decider: DecisionService, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        other = await decider_beside(upstream.session, stack, tmp_path / "other")
        changed = await ask_here(other, agent_id="W-3", amount=gbp("7.00"))
        assert changed["outcome"] == "taken"
        answers = await at_once(decider, AGENTS)
        spent = dict(zip(AGENTS, (one["budget"]["spent"] for one in answers), strict=True))
        assert spent == dict.fromkeys(AGENTS, gbp("3.00")) | {"W-3": gbp("10.00")}
        assert not any(await in_batches(upstream, answers))
    await assert_books_are_right(upstream, tmp_path, 17)


async def test_one_whose_acknowledgement_is_lost_delays_no_other(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, lost, order = RequestReply.on_reply, list[bytes](), list[str]()
    is_lossy = asyncio.Event()

    def lossy(self: RequestReply, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        if is_lossy.is_set() and data.startswith(b'{"stream":"LEDGER"') and not lost:
            lost.append(data)
        else:
            original(self, subject, reply, headers, data)

    monkeypatch.setattr(RequestReply, "on_reply", lossy)
    async with AsyncExitStack() as stack:
        decider = await decider_beside(upstream.session, stack, tmp_path / "decider")
        await cache_budgets(decider)

        async def ask(agent: str) -> Document:
            (answer,) = await at_once(decider, [agent])
            order.append(agent)
            return answer

        is_lossy.set()
        answers = await asyncio.gather(*map(ask, AGENTS))
    assert lost
    assert [one["outcome"] for one in answers] == ["taken"] * 8
    assert order == [*AGENTS[1:], AGENTS[0]]
    await assert_books_are_right(upstream, tmp_path, 16)
