"""Events of the ledger for the benchmarks: facts, and budgets with many actions."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from consumers.decisions.budget_repository import budget_of, subject_of
from consumers.decisions.unit_of_work import stored_form
from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext, opening
from domain.commands import ActionRequest
from domain.decisions.authority import Agent, DecisionContext, judge, taken
from domain.money import Money
from domain.policy.model import Rules
from domain.policy.parsing import parse_policy
from ledger.store.log import Draft

if TYPE_CHECKING:
    from ledger.store.log import Log

POLICY: dict[str, Any] = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2020-01-01T00:00:00Z",
    "default_role": "agent",
    "roles": {
        "agent": {"budget": "99999999.00", "limits": {"refund": "50.00"}, "per_interaction": "60.00"},
        "driver": {"budget": "0", "limits": {"refund": "50.00"}},
    },
    "teams": {"depot": {"pool": "99999999.00", "draw_at_most": "5.00"}},
}


def fact(number: int) -> bytes:
    """Return a purchase of about 300 bytes."""
    event = {
        "specversion": "1.0",
        "id": f"ev-{number:08d}",
        "source": "bench",
        "type": "resolution.purchase.completed.v1",
        "time": "2026-01-01T00:00:00Z",
        "data": {
            "order_id": f"O-{number:08d}",
            "customer_id": f"C-{number % 5000:05d}",
            "total": {"amount": "12.34", "currency": "GBP"},
            "margin": {"amount": "3.21", "currency": "GBP"},
            "channel": "web",
        },
    }
    return json.dumps(event).encode()


async def budget_of_actions(log: Log, events: int) -> str:
    """Store a budget of so many events (at most 1000) with one action after the other; return its subject."""
    drafts = budget_drafts(f"B-{secrets.token_hex(6)}", events, datetime.now(UTC))
    await log.append(drafts)
    return drafts[0].subject


def budget_drafts(agent_id: str, events: int, now: datetime) -> list[Draft]:
    """Return the opening of an agent's budget, and actions on it."""
    rules = Rules(1, parse_policy(POLICY))
    agent = Agent(agent_id=agent_id, role="agent")
    cause = RequestContext(source="bench", request_id="b", request_sha256="00" * 16, seen_position=0)
    period = rules.policy.period_at(now)
    opened, _ = opening(rules, f"agent:{agent.agent_id}", period, None, cause, "agent", "GBP")
    budget = Budget.open(opened, now)
    subject = subject_of(budget.holder, "GBP", period)
    request = ActionRequest(
        request_id="x",
        agent_id=agent.agent_id,
        kind="refund",
        amount=Money(500, "GBP"),
        reason="late",
        customer_id="C-budget",
        interaction_id="I-budget",
    )
    asking = DecisionContext(request=request, agent=agent, rules=rules, source="bench", now=now, budget=budget)
    verdict = judge(asking, request.amount)
    drafts = [Draft(subject, stored_form(opened, now), 0)]
    for number in range(1, events):
        own = RequestContext(source="bench", request_id=f"b-{number}", request_sha256="00" * 16, seen_position=number)
        record = taken(asking, 1, verdict, own, f"act-{number:032x}")
        drafts.append(Draft(subject, stored_form(record, now)))
    return drafts


async def load_budget(log: Log, subject: str) -> Budget:
    """Load a budget as a decider without a cached state does."""
    return budget_of(await log.read_subject(subject))
