"""Decisions of a log made again in a test, also of a log that was forged."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import TYPE_CHECKING

from app.runtime.redecide import RecordedEvents
from consumers.decisions.redecision import Redecider
from consumers.decisions.state.follower import DecisionState
from ledger.store.event_id_index import EventIdIndex
from ledger.store.log import Recorded
from tests.support.builders import event, gbp, reported_action
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ledger.store.log import Log
    from tests.support.documents import Document


class ForgedLog(RecordedEvents):
    """The events of a log in memory, which a test may change."""

    @classmethod
    async def copy_of(cls, log: Log) -> ForgedLog:
        """Return all events of a log."""
        return cls(await log.read_subject(">"))

    def forged(self, position: int, change: Callable[[Document], None]) -> ForgedLog:
        """Return a copy in which a function has changed one event."""
        found: list[Recorded] = []
        for one in self.events:
            data = one.data
            if one.position == position:
                event = json.loads(data)
                change(event)
                data = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
            found.append(one._replace(data=data))
        return ForgedLog(found)

    def reordered(self, position: int, other: int) -> ForgedLog:
        """Return a copy in which the events of two positions have changed places."""
        places = {position: other, other: position}
        found = [one._replace(position=places.get(one.position, one.position)) for one in self.events]
        return ForgedLog(sorted(found))


async def redecide(log: ForgedLog, folder: Path, first: int = 1) -> Redecider:
    """Make every decision of a log again, from a position on."""
    numbers = count(1)

    def new_state() -> DecisionState:
        return DecisionState(EventIdIndex(folder / f"state-{next(numbers)}.sqlite"))

    redecider = Redecider(log, new_state, log.replay, first)
    await redecider.read(log.events)
    await redecider.end()
    return redecider


async def _give_what_is_owed(upstream: Upstream) -> None:
    """Give back an order beyond its payment: on every basis, by a hold, a report, a refund and an approval."""
    await upstream.record(event("paid", "purchase.completed", "till", order_id="O-9", total=gbp("200.00")))
    await upstream.wait_for_decider()
    order: Document = {"order_id": "O-9", "agent_id": "A-2"}
    await upstream.action("owed", "90.00", basis="entitlement", **order)
    partly = await upstream.action("partly", "118.00", basis="correction", **order)
    assert partly["owed"] == gbp("110.00")
    undo = {"action_id": partly["action_id"], "reversed_by": "M-1", "reason": "found", "recovered": True}
    await upstream.ask("reversal", request_id="undo", amount=gbp("60.00"), **undo)
    held = await upstream.action("owed later", "30.00", basis="entitlement", hold=True, **order)
    fact = event("refunded", "refund.settled", "bank", order_id="O-9", processor_reference="P-1", total=gbp("31.00"))
    await upstream.record(fact)
    await upstream.record(reported_action("reported too", "40.00", basis="correction", **order))
    asked: Document = {"operation": "request", "kind": "refund", "reason": "broken", "basis": "correction"}
    one = await upstream.ask("escalation", request_id="ask-owed", amount=gbp("150.00"), **asked, **order)
    decided = await upstream.ask(
        "escalation",
        request_id="decide-owed",
        operation="approve",
        escalation_id=one["escalation_id"],
        decided_by="M-1",
    )
    assert (held["outcome"], decided["outcome"]) == ("held", "done"), decided


async def _report_what_was_decided(upstream: Upstream) -> None:
    """Report actions under the ids of their requests: taken, held and refused ones; then request a reported one."""
    for name, amount, agent in (("second", "14.00", "A-2"), ("noted", "3.00", "A-1"), ("short", "400.00", "A-2")):
        await upstream.record(reported_action(name, amount, agent_id=agent))
    await upstream.action("held and told", "9.00", hold=True)
    await upstream.record(reported_action("held and told", "10.00"))
    await upstream.record(reported_action("told first", "1.00"))
    await upstream.wait_for_decider()
    refused = await upstream.action("told first", "1.00")
    assert refused["error"]["code"] == "already_reported", refused


async def record_every_kind_of_decision(upstream: Upstream) -> None:
    """Record every kind of decision: by agents, approvers, operators, facts and the clock."""
    await set_up_organisation(upstream)
    await upstream.record(event("link", "customer.linked", a="C-1", b="C-2", relation="household"))
    ask = upstream.ask
    taken = await upstream.action(
        "taken", "12.00", customer_id="C-1", interaction_id="I-1", order_id="O-1", escalate=True
    )
    await upstream.action("second", "13.00", agent_id="A-2", customer_id="C-2")
    await upstream.action("noted", "3.00", note="a note about the parcel")
    await upstream.action("odd form", "4", time=None)
    await upstream.action("short", "400.00", agent_id="A-2", customer_id="C-3")
    for number in range(4):  # the last one draws on the team's pool
        await upstream.action(f"pool {number}", "55.00", agent_id="D-2", interaction_id=f"P-{number}")
    held = await upstream.action("held", "20.00", hold=True)
    voided = await upstream.action("held too", "5.00", hold=True)
    await ask("hold", request_id="settle", action_id=held["action_id"], operation="settle", amount=gbp("15.00"))
    await ask("hold", request_id="void", action_id=voided["action_id"], operation="void")
    await ask(
        "reversal",
        request_id="reverse",
        action_id=taken["action_id"],
        reversed_by="M-1",
        reason="returned",
        recovered=True,
        amount=gbp("2.00"),
    )
    await ask(
        "budget",
        request_id="grant",
        operation="grant",
        holder="agent:A-1",
        amount=gbp("30.00"),
        granted_by="M-1",
        reason="fair",
    )
    await ask(
        "budget",
        request_id="move",
        operation="transfer",
        holder="agent:A-1",
        to_holder="agent:A-2",
        amount=gbp("10.00"),
        granted_by="M-1",
        reason="holiday",
    )
    for number, operation in enumerate(("approve", "deny", "withdraw", "forward")):
        asked = await ask(
            "escalation",
            request_id=f"ask-{number}",
            operation="request",
            agent_id="D-1",
            kind="refund",
            amount=gbp("90.00"),
            reason="broken",
            customer_id="C-9",
        )
        by = {"withdraw": "D-1"}.get(operation, "M-1")
        decided = await ask(
            "escalation",
            request_id=f"decide-{number}",
            operation=operation,
            escalation_id=asked["escalation_id"],
            decided_by=by,
            **({"amount": gbp("80.00")} if operation == "approve" else {}),
        )
        assert decided["outcome"] == "done", decided
    await ask("preview", agent_id="A-1", kind="refund", amount=gbp("300.00"), reason="?", interaction_id="I-3")
    fact = reported_action("reported", "7.00")
    await upstream.record(fact)
    await _give_what_is_owed(upstream)
    await _report_what_was_decided(upstream)
    policy = FULL_POLICY | {"effective_from": "2021-01-01T00:00:00Z"}
    answer = await ask("policy", request_id="policy-2", policy=policy, published_by="owner")
    assert answer["outcome"] == "done", answer
    await upstream.action("after", "6.00", customer_id="C-1")
    await asyncio.sleep(0.5)  # the timers post the reported action
