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

    import sqlalchemy as sa

    from domain.events.decisions import PolicyPublished
    from domain.policy.model import Team
    from projections.reading import Reader


class KindAuthority(TypedDict):
    """The authority for one kind of action."""

    kind: str
    limit: dict[str, str] | None
    """The most that one action may cost; null: unlimited."""
    left: dict[str, str]
    """The most that one action may cost now, as far as this limit, the budget and one draw on the team's pool go."""
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
    team_ids = tuple(json.loads(row.get("team_ids") or "[]"))
    team = None if rules is None else rules.pool_team(team_ids)
    (opened, pools), budgets = await read(
        "budget_balances", lambda c: (_open_budget(c, f"agent:{employee_id}"), _open_budget(c, f"team:{team}"))
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
    period, remaining = opened or (rules.policy.period_at(now), role.budget)
    most = remaining.minor + (0 if team is None else _draw(rules.policy.teams[team], pools))
    limits = rules.limits_for(str(name), team_ids, now)
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
                "left": _left(limit, most, remaining.currency).wire(),
                "needs": sorted({*role.requires.get(kind, ())} - trained),
            }
            for kind, limit in limits.items()
        ],
    }


def _open_budget(connection: sa.Connection, holder: str) -> tuple[str, Money] | None:
    """Return the period and the rest of a holder's open budget."""
    for one in read_balances_page(connection, {"holder": holder}, closed=False, descending=True, limit=1):
        return one["period"], money_from_wire(one["remaining"])
    return None


def _draw(team: Team, opened: tuple[str, Money] | None) -> int:
    """Return the most that one draw on a team's pool adds, in minor units."""
    left = opened[1] if opened is not None else team.pool
    most = 0 if left is None else max(0, left.minor)
    return most if team.draw_at_most is None else min(most, team.draw_at_most.minor)


def _left(limit: Money | None, most: int, currency: str) -> Money:
    """Return the most that one action may cost: the limit, or ``most`` where that is less."""
    left = max(0, most)
    if limit is not None and limit.currency == currency:
        left = min(left, limit.minor)
    return Money(left, currency)
