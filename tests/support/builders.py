"""Builders of facts, amounts, requests and budgets, with defaults that a test overrides where it cares."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext, opening
from domain.policy.model import Rules
from domain.policy.parsing import parse_policy
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY

RULES = Rules(1, parse_policy(BASIC_POLICY))
NOW = datetime(2026, 1, 10, tzinfo=UTC)


def gbp(amount: str) -> dict[str, str]:
    """Return an amount of pounds as JSON carries it."""
    return {"amount": amount, "currency": "GBP"}


def event(identifier: str, name: str, source: str = "crm", time: str = "2026-01-05T10:00:00Z", **data: Any) -> Document:
    """Return a fact as an upstream writes it: a CloudEvent of the type `resolution.<name>.v1` with these data."""
    return {
        "specversion": "1.0",
        "id": identifier,
        "source": source,
        "type": f"resolution.{name}.v1",
        "time": time,
        "data": data,
    }


def purchase(number: object, source: str = "crm", **attributes: Any) -> Document:
    """Return the fact `p-<number>`: order `O-<number>` over 5 pounds; ``attributes`` replace those of the event."""
    fact = event(f"p-{number}", "purchase.completed", source, order_id=f"O-{number}", total=gbp("5.00"))
    return fact | attributes


def reported_action(identifier: str, amount: str | Document = "5.00", **data: Any) -> Document:
    """Return the fact that an action was taken offline: a refund in pounds by A-1, unless ``data`` say otherwise."""
    money = gbp(amount) if isinstance(amount, str) else amount
    return event(
        identifier, "action.reported", **{"agent_id": "A-1", "kind": "refund", "reason": "late"} | data, amount=money
    )


def corrected(identifier: str, of: str, data: Document | None, **extra: Any) -> Document:
    """Return a correction of a fact of the source `crm`; without data the fact never happened."""
    fact = event(identifier, "fact.corrected", source_of="crm", id_of=of, data=data, reason="typed wrongly")
    return fact | extra


def request_context(number: int) -> RequestContext:
    """Return the context of the CRM's request `r-<number>`."""
    return RequestContext(source="crm", request_id=f"r-{number}", request_sha256="00" * 16, seen_position=0)


def new_budget(before: Budget | None = None, period: str = "2026-01") -> Budget:
    """Return A-1's budget of a period as the basic policy opens it, after the budget ``before``."""
    record, _ = opening(RULES, "agent:A-1", period, before, request_context(0), "agent", "GBP")
    return Budget.open(record, NOW)
