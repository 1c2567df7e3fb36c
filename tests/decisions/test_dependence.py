"""A decision that rests on another one of its group, which is then prevented or stored later, is made again.

One decider's reader is late, so it decides on budgets that another decider has changed. The independent check is
`audit redecide`, which makes every recorded decision again from the log alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from app.runtime.redecide import redecide_log
from app.runtime.session import Session
from consumers.decisions import committer
from consumers.decisions.service import DecisionService
from consumers.decisions.timers import Timers
from domain.budgets.postings import RequestContext
from domain.decisions.fact_postings import PostingCommand
from domain.events.facts import ActionReported
from ledger.nats.client import connect
from ledger.nats.request_reply import RequestReply
from ledger.store.log import Draft, Log
from projections.engine.events import read_event
from tests.support.builders import event, gbp, reported_action
from tests.support.deciders import ask_here, decider_beside
from tests.support.documents import Document
from tests.support.fault_links import Link
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

PAID_BY_APPROVER = FULL_POLICY | {"escalation": {"payer": "approver", "after_hours": 48, "then": "next_level"}}
BY_MANAGER = {"granted_by": "M-1", "reason": "fair"}


class Two(NamedTuple):
    """Two deciders at work; the reader of the first one can be made late by its link."""

    upstream: Upstream
    one: DecisionService
    other: DecisionService
    link: Link
    folder: Path

    async def all_read(self) -> None:
        """Wait until both have read the log to its end."""
        end = await self.upstream.session.log.last_position()
        for decider in (self.one, self.other):
            await decider.state.reach(end)

    async def use_up(self, agent: str) -> None:
        """Let the other decider use up an agent's budget, which the first one does not read."""
        self.link.stall()
        for _ in range(4):
            assert (await ask_here(self.other, agent_id=agent, amount=gbp("45.00")))["outcome"] == "taken"

    async def assert_made_again(self) -> None:
        """Assert that every recorded decision is made again as it is recorded."""
        self.link.heal()
        log = self.upstream.session.log
        end = await log.last_position()
        found = await redecide_log(self.upstream.session.client, log, self.folder, 1, end, lambda *_: None)
        assert found.differences == []


@pytest.fixture
async def two(session: Session, tmp_path: Path) -> AsyncIterator[Two]:
    """Run an organisation with two deciders that have the budgets of A-1, A-2 and M-1 in their caches."""
    async with upstream_of(session, "intake") as upstream, AsyncExitStack() as stack:
        link = Link([urlsplit(session.server.servers[0]).port or 0])
        await link.open()
        stack.push_async_callback(link.close)
        reader = await connect(replace(session.server, servers=(link.url,)), "reader")
        stack.push_async_callback(reader.close)
        one = await decider_beside(session, stack, tmp_path / "one", reader)
        other = await decider_beside(session, stack, tmp_path / "other")
        await set_up_organisation(upstream, PAID_BY_APPROVER)
        await upstream.record(
            event("p-1", "purchase.completed", "shop", order_id="O-1", customer_id="C-1", total=gbp("60.00"))
        )
        for agent in ("A-1", "A-2", "M-1"):
            await ask_here(one, agent_id=agent, amount=gbp("1.00"))
        deciders = Two(upstream, one, other, link, tmp_path / "redecided")
        await deciders.all_read()
        yield deciders


@pytest.fixture(params=["singly", "together"])
def stored(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store small groups as single messages, or all groups in atomic batches."""
    if request.param == "together":
        monkeypatch.setattr(committer, "_SINGLY", 0)


async def ask_for_approval(two: Two, amount: str, agent: str = "A-1", **fields: str) -> dict[str, str]:
    """Let an agent file an escalation; return the request that approves it."""
    asked = {"operation": "request", "agent_id": agent, "kind": "refund", "reason": "late", "amount": gbp(amount)}
    answer = await ask_here(two.one, "escalation", **asked, **fields)
    await two.all_read()
    return {"operation": "approve", "escalation_id": answer["escalation_id"], "decided_by": "M-1", "reason": "fair"}


async def test_the_owed_part_of_a_correction_counts_no_goodwill_that_was_prevented(two: Two) -> None:
    await two.use_up("A-1")
    prevented, counting = await asyncio.gather(
        ask_here(two.one, agent_id="A-1", amount=gbp("30.00"), order_id="O-1"),
        ask_here(two.one, agent_id="A-2", amount=gbp("40.00"), order_id="O-1", basis="correction"),
    )
    assert (prevented["outcome"], counting["outcome"]) == ("escalate", "taken")
    assert counting["owed"] == gbp("40.00")
    await two.assert_made_again()


async def test_goodwill_is_not_recorded_before_the_correction_that_it_rests_on(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, lost = Log._frames, list[bytes]()

    def lossy(self: Log, drafts: list[Draft], reply: bytes) -> bytes:
        frames = original(self, drafts, reply)
        if not lost and b"agent:A-2" in frames:
            lost.append(frames)
            return b""
        return frames

    monkeypatch.setattr(Log, "_frames", lossy)
    await asyncio.gather(
        ask_here(two.one, agent_id="A-2", amount=gbp("40.00"), order_id="O-1", basis="correction"),
        ask_here(two.one, agent_id="A-1", amount=gbp("30.00"), order_id="O-1"),
    )
    assert lost
    await two.assert_made_again()


@pytest.mark.usefixtures("stored")
async def test_an_approval_is_not_refused_for_an_action_that_was_prevented(two: Two) -> None:
    approval = await ask_for_approval(two, "300.00")
    for _ in range(3):
        await ask_here(two.one, agent_id="M-1", amount=gbp("450.00"))
    await two.all_read()
    two.link.stall()
    await ask_here(two.other, agent_id="M-1", amount=gbp("300.00"))
    prevented, approved = await asyncio.gather(
        ask_here(two.one, agent_id="M-1", amount=gbp("400.00")), ask_here(two.one, "escalation", "http", **approval)
    )
    assert (prevented["outcome"], approved["outcome"]) == ("escalate", "done")
    await two.assert_made_again()


@pytest.mark.usefixtures("stored")
async def test_a_shortfall_shows_no_grant_that_was_prevented(two: Two) -> None:
    grant = {"operation": "grant", "holder": "team:doorstep", **BY_MANAGER}
    for _ in range(4):
        assert (await ask_here(two.one, agent_id="D-1", amount=gbp("50.00")))["outcome"] == "taken"
    emptied = {"operation": "transfer", "holder": "team:doorstep", "to_holder": "agent:A-2", **BY_MANAGER}
    await ask_here(two.one, "budget", **emptied, amount=gbp("1000.00"))
    await two.all_read()
    assert (await ask_here(two.one, agent_id="D-1", amount=gbp("5.00")))["outcome"] == "escalate"
    await two.all_read()
    two.link.stall()
    await ask_here(two.other, "budget", **grant, amount=gbp("30.00"))
    await asyncio.gather(
        ask_here(two.one, "budget", **grant, amount=gbp("10.00")),
        ask_here(two.one, agent_id="D-1", amount=gbp("20.00")),
    )
    await two.assert_made_again()


async def test_an_approval_counts_no_action_on_its_order_that_was_prevented(two: Two) -> None:
    approval = await ask_for_approval(two, "120.00", "A-2", order_id="O-1", basis="correction")
    await two.use_up("A-1")
    await asyncio.gather(
        ask_here(two.one, agent_id="A-1", amount=gbp("30.00"), order_id="O-1"),
        ask_here(two.one, "escalation", "http", **approval),
    )
    await two.assert_made_again()


@pytest.mark.usefixtures("stored")
async def test_the_charge_of_a_report_counts_no_action_that_was_prevented(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def post_nothing(_self: Timers) -> None: ...

    monkeypatch.setattr(Timers, "_post", post_nothing)
    await asyncio.sleep(0.3)  # the timers have ended their turn
    fact = reported_action("off-1", "40.00", agent_id="A-2", basis="correction", order_id="O-1")
    await two.one.state.reach(await two.upstream.record(fact))
    [due] = two.one.state.pending.dues.values()
    recorded = await two.upstream.session.log.at(due.position)
    assert recorded is not None
    reported = read_event(recorded)
    assert isinstance(reported.body, ActionReported)
    cause = RequestContext(source=reported.stored.source, request_id=reported.stored.id, seen_position=0)
    await two.use_up("A-1")
    charged: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    prevented = asyncio.create_task(ask_here(two.one, agent_id="A-1", amount=gbp("30.00"), order_id="O-1"))
    await asyncio.sleep(0)
    command, at = PostingCommand(due, reported.body), min(reported.time, datetime.now(UTC))
    two.one.pipeline.submit_command(command, cause, at, charged.set_result)
    assert (await prevented)["outcome"] == "escalate"
    await charged
    await two.assert_made_again()


async def test_two_previews_at_once_are_two_decisions(two: Two) -> None:
    beyond = {"kind": "refund", "reason": "late", "amount": gbp("55.00"), "request_id": None}
    await asyncio.gather(
        *(
            ask_here(two.one, "preview", agent_id=agent, interaction_id=f"I-{agent}", **beyond)
            for agent in ("A-1", "A-2")
        )
    )
    assert len(await two.upstream.recorded("authority.fell_short")) == 2
    await two.assert_made_again()


async def test_a_cached_budget_knows_what_another_decider_wrote_before_a_late_acknowledgement(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = lose_an_acknowledgement(monkeypatch, two.one.pipeline._log)
    late = asyncio.create_task(ask_here(two.one, agent_id="M-1", amount=gbp("400.00")))
    await eventually(lambda: asyncio.sleep(0, lost))
    then: Document = {}
    for _ in range(3):
        then = await ask_here(two.other, agent_id="M-1", amount=gbp("490.00"))
        assert then["outcome"] == "taken"
    await two.one.state.reach(then["position"])
    assert not late.done()
    await late
    seen = await ask_here(two.one, "preview", agent_id="M-1", kind="refund", reason="late", amount=gbp("0.00"))
    assert seen["budget"]["remaining"] == then["budget"]["remaining"]


def lose_an_acknowledgement(monkeypatch: pytest.MonkeyPatch, log: Log) -> list[bytes]:
    """Lose the next acknowledgement for this user of the log; return the list in which it will be."""
    lost, new_reply_subject = list[bytes](), RequestReply.new_reply_subject

    def deaf(self: RequestReply, on_reply: Callable[[bytes, bytes], None]) -> bytes:
        def take(headers: bytes, data: bytes) -> None:
            if self is log._replies and data.startswith(b'{"stream":"LEDGER"') and not lost:
                lost.append(data)
            else:
                on_reply(headers, data)

        return new_reply_subject(self, take)

    monkeypatch.setattr(RequestReply, "new_reply_subject", deaf)
    return lost
