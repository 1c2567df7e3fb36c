"""The authority of one employee now: the limit of each kind, the rest of the budget, and the end of its period."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypedDict

from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext, grant_of, opening, period_to_book
from domain.events.decisions import BudgetOpened
from domain.money import Money, money_from_wire
from domain.periods import bounds_of, zone_of
from domain.policy.history import PolicyHistory
from ledger.store.cloudevents import parse_time, time_text
from projections.views.balances import read_balances_page
from projections.views.people import read_employee, read_trained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import sqlalchemy as sa

    from domain.events.decisions import PolicyPublished
    from domain.policy.model import Rules, Team
    from projections.engine.storage import Row
    from projections.reading import Reader

_CAUSE = RequestContext(source="", request_id="", seen_position=0)


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
    """Return the authority of an employee now, with the budget that the decider would use or open."""
    policies = PolicyHistory.of(published)
    rules = policies.in_force(now)
    (row, trained), known = await read(
        "people", lambda c: (read_employee(c, employee_id), read_trained(c, employee_id, now))
    )
    team_ids = tuple(json.loads(row.get("team_ids") or "[]"))
    team = None if rules is None else rules.pool_team(team_ids)
    holder, pool_holder = f"agent:{employee_id}", f"team:{team}"
    (opened, pools), budgets = await read(
        "budget_balances", lambda c: (_open_balances(c, holder), _open_balances(c, pool_holder))
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
    budget = _budget_now(opened, holder, name, rules, policies, now)
    most = budget.remaining_minor
    if team is not None:
        most += _draw(rules.policy.teams[team], _budget_now(pools, pool_holder, None, rules, policies, now))
    limits = rules.limits_for(str(name), team_ids, now)
    cap = role.per_customer
    return {
        **nothing,
        "role": name,
        "period": budget.period,
        "until": time_text(bounds_of(budget.period, zone_of(rules.policy.time_zone))[1]),
        "time_zone": rules.policy.time_zone,
        "remaining": budget.money(budget.remaining_minor).wire(),
        "per_interaction": None if role.per_interaction is None else role.per_interaction.wire(),
        "per_customer": None if cap is None else {"amount": cap.amount.wire(), "days": cap.days},
        "items": [
            {
                "kind": kind,
                "limit": None if limit is None else limit.wire(),
                "left": _left(limit, budget.money(max(0, most))).wire(),
                "needs": sorted({*role.requires.get(kind, ())} - trained),
            }
            for kind, limit in limits.items()
        ],
    }


def _open_balances(connection: sa.Connection, holder: str) -> list[Row]:
    """Return a holder's open balances: at most one in each currency."""
    return read_balances_page(connection, {"holder": holder}, closed=False)


def _budget_now(
    balances: Sequence[Row], holder: str, role_name: str | None, rules: Rules, policies: PolicyHistory, now: datetime
) -> Budget:
    """Return the holder's budget in the policy's currency: the open one, or the one that the next action would open.

    A budget stays open until its holder's next action, so the period of an open one may have ended.
    """
    currency = rules.policy.currency
    newest = {one["remaining"]["currency"]: _budget_of(one, role_name, rules, policies) for one in balances}
    before = newest.pop(currency, None)
    try:
        period = period_to_book(rules, before, policies, now)
    except ValueError:  # a clock was ahead
        assert before is not None
        return before
    if before is not None and before.period == period:
        return before
    granted_in = [
        one.currency
        for one in newest.values()
        if one.opening_grant_minor > 0
        and now < bounds_of(one.period, zone_of((policies.get(one.policy_version) or rules).policy.time_zone))[1]
    ]
    opened, _ = opening(
        rules,
        holder,
        period,
        before,
        _CAUSE,
        role_name,
        currency,
        granted_in=granted_in[0] if granted_in and rules.is_strict else None,
    )
    return Budget.open(opened, now)


def _budget_of(balance: Row, role_name: str | None, rules: Rules, policies: PolicyHistory) -> Budget:
    """Return the budget of a balance, as the policy in force at its opening granted it.

    A policy in another currency granted nothing: it was published later, for a time that had begun.
    """
    opened, remaining = parse_time(balance["opened"]), money_from_wire(balance["remaining"])
    versions = filter(None, map(policies.get, range(1, policies.newest_version + 1)))
    in_currency = PolicyHistory(one for one in versions if one.policy.currency == remaining.currency)
    then = in_currency.in_force(opened) or rules
    granted, _ = grant_of(then.policy, balance["holder"], role_name, remaining.currency)
    record = BudgetOpened(
        holder=balance["holder"],
        period=balance["period"],
        currency=remaining.currency,
        granted=granted,
        carried_over=Money(remaining.minor - granted.minor, remaining.currency),
        policy_version=then.version,
        **_CAUSE.fields(),
    )
    return Budget.open(record, opened)


def _draw(team: Team, pool: Budget) -> int:
    """Return the most that one draw on a team's pool adds, in minor units."""
    most = max(0, pool.remaining_minor)
    return most if team.draw_at_most is None else min(most, team.draw_at_most.minor)


def _left(limit: Money | None, most: Money) -> Money:
    """Return the most that one action may cost: the limit, or ``most`` where that is less."""
    return most if limit is None or most.minor < limit.minor else limit
