"""The authority of one employee now: the limit of each kind, the rest of the budget, and the end of its period."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypedDict

from domain.money import Money, money_from_wire
from domain.periods import bounds_of, zone_of
from domain.policy.history import PolicyHistory
from ledger.store.cloudevents import time_text
from projections.views.balances import read_balances_page
from projections.views.people import read_employee, read_trained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from domain.events.decisions import PolicyPublished
    from domain.policy.model import Role
    from projections.engine.storage import Row
    from projections.reading import Reader


class KindAuthority(TypedDict):
    """The authority for one kind of action."""

    kind: str
    limit: dict[str, str] | None
    """The most that one action may cost; null: unlimited."""
    left: dict[str, str]
    """The most that one action may cost now, as far as this limit and the budget go."""
    needs: list[str]
    """The courses that the employee still needs for this kind; until then each action needs an approval."""


class CustomerCap(TypedDict):
    """The most for one customer, by all agents together, in so many days."""

    amount: dict[str, str]
    days: int


class AuthorityNow(TypedDict):
    """The authority of an employee now, without approval."""

    employee_id: str
    role: str | None
    """The role, by which the policy gives authority; null where the policy gives none."""
    period: str | None
    until: str | None
    """The end of the budget's period."""
    time_zone: str | None
    """The time zone of the period's days."""
    remaining: dict[str, str] | None
    """The rest of the budget; of one that opens with the next action, all of it."""
    per_interaction: dict[str, str] | None
    """The most on one interaction; null: unlimited."""
    per_customer: CustomerCap | None
    items: list[KindAuthority]
    position: int


async def authority_now(
    read: Reader, published: Sequence[PolicyPublished], now: datetime, employee_id: str
) -> AuthorityNow:
    """Return the authority of an employee under the policy in force: the budget that is open, else that of the role."""
    rules = PolicyHistory.of(published).in_force(now)
    (row, trained), known = await read(
        "people", lambda c: (read_employee(c, employee_id), read_trained(c, employee_id, now))
    )
    holder = f"agent:{employee_id}"
    opened, budgets = await read(
        "budget_balances", lambda c: read_balances_page(c, {"holder": holder}, closed=False, descending=True, limit=1)
    )
    position = min(known.anchor.position, budgets.anchor.position)
    nothing: AuthorityNow = {
        "employee_id": employee_id,
        "role": None,
        "period": None,
        "until": None,
        "time_zone": None,
        "remaining": None,
        "per_interaction": None,
        "per_customer": None,
        "items": [],
        "position": position,
    }
    name = row.get("role") or (None if rules is None else rules.policy.default_role)
    role = None if rules is None or row.get("left") else rules.policy.roles.get(name or "")
    if rules is None or role is None:
        return nothing
    period, remaining = _budget(opened, role, rules.policy.period_at(now))
    limits = rules.limits_for(str(name), tuple(json.loads(row.get("team_ids") or "[]")), now)
    cap = role.per_customer
    return {
        **nothing,
        "role": name,
        "period": period,
        "until": time_text(bounds_of(period, zone_of(rules.policy.time_zone))[1]),
        "time_zone": rules.policy.time_zone,
        "remaining": remaining.wire(),
        "per_interaction": None if role.per_interaction is None else role.per_interaction.wire(),
        "per_customer": None if cap is None else {"amount": cap.amount.wire(), "days": cap.days},
        "items": [
            {
                "kind": kind,
                "limit": None if limit is None else limit.wire(),
                "left": _left(limit, remaining).wire(),
                "needs": sorted({*role.requires.get(kind, ())} - trained),
            }
            for kind, limit in limits.items()
        ],
    }


def _budget(opened: Sequence[Row], role: Role, period: str) -> tuple[str, Money]:
    """Return the period and the rest of the employee's open budget; without one, those of the next budget."""
    for one in opened:
        return one["period"], money_from_wire(one["remaining"])
    return period, role.budget


def _left(limit: Money | None, remaining: Money) -> Money:
    """Return the most that one action may cost: the limit, or the rest of the budget where that is less."""
    left = max(0, remaining.minor)
    if limit is not None and limit.currency == remaining.currency:
        left = min(left, limit.minor)
    return Money(left, remaining.currency)
