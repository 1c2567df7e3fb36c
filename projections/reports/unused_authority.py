"""Unused authority by employee: the budgets of a period of which less than a tenth was spent, from views."""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import sqlalchemy as sa

from domain.analytics.unused_authority import CONTACTS, BudgetUse
from domain.currencies import digits_of
from domain.money import wire_of
from domain.periods import days_of, zone_of
from domain.policy.history import PolicyHistory
from domain.policy.model import Limits
from ledger.store.cloudevents import parse_time
from projections.engine.row_cache import plain_rows
from projections.reading import EVERYBODY
from projections.views.audit_trail import read_contacts
from projections.views.balances import read_balances_page, read_periods
from projections.views.casework import GIVEN, actions
from projections.views.people import read_people, read_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from domain.events.decisions import PolicyPublished
    from domain.money import Money
    from domain.policy.model import Policy, Rules
    from projections.engine.storage import Row
    from projections.reading import AccessScope, Reader


class UnusedLimit(TypedDict):
    """A kind of action that an employee with unused authority may take without approval."""

    employee_id: str
    role: str
    """The employee's role now."""
    kind: str
    limit: dict[str, str] | None
    """The most that one action of this kind may cost now; null: unlimited."""
    used: dict[str, str]
    """The cost of their actions of this kind without approval in the period."""
    actions: int
    """The number of these actions."""
    last_used: str | None
    """The time of their last such action, in any period; null: never."""
    granted: dict[str, str]
    """The budget over the life of the period: opened, granted, drawn and transferred."""
    spent: dict[str, str]
    """The part of the budget that was spent, on all kinds."""
    contacts: int
    """The interactions that they took part in, in all periods."""


class UnusedAuthorityReport(TypedDict):
    """Employees with less than a tenth of their budget spent in a period, by kind of action."""

    period: str | None
    """The period of the budgets; null without a policy."""
    periods: list[str]
    """The periods with budgets, the newest first."""
    employees: int
    """The employees that were compared: those with a budget and 10 contacts or more."""
    items: list[UnusedLimit]
    position: int


class _Able(NamedTuple):
    """An employee's role now, and the limits of the kinds that they may give."""

    role: str
    limits: Limits


class _Use(NamedTuple):
    """An employee's actions of one kind and currency without approval."""

    minor: int = 0
    """Their cost in the period, in minor units."""
    number: int = 0
    """Their number in the period."""
    last: str | None = None
    """The time of the last one, in any period."""


class _Judged(NamedTuple):
    """The use of an employee's budget; the least used one comes first."""

    share: float
    name: str
    currency: str
    budget: BudgetUse


async def unused_authority(
    read: Reader,
    published: Sequence[PolicyPublished],
    now: datetime,
    period: str | None = None,
    scope: AccessScope = EVERYBODY,
) -> UnusedAuthorityReport:
    """Return the employees in ``scope`` with less than a tenth of their budget spent in a period, by kind of action.

    By default the period is the newest one that had ended by the time of the newest action, so that it is whole; else
    the newest one that has ended, else the present one. A budget that was never opened counts as unused: it opens with
    the first action. Roles, limits and training are those of now.

    Raises:
        LookupError: no budget was opened for this period.

    """
    rules = PolicyHistory.of(published).in_force(now)
    opened, progress = await read("budget_balances", read_periods)
    position = progress.anchor.position
    if rules is None:
        return {"period": None, "periods": [], "employees": 0, "items": [], "position": position}
    periods = sorted({*opened, rules.policy.period_at(now)}, key=days_of, reverse=True)
    newest, _ = await read("casework", lambda c: c.scalar(sa.select(sa.func.max(actions.c.time))))
    last = now if newest is None else min(parse_time(newest), now)
    chosen = period or _default_period(periods, opened, rules.policy, (last, now))
    if chosen not in periods:
        message = f"no budget was opened for {chosen[:40]!r}; without a period, the answer lists those that were"
        raise LookupError(message)
    able, _ = await read("people", lambda c: _able(c, rules, now, scope))
    contacts, _ = await read("audit_trail", lambda c: read_contacts(c, agents=able))
    able = {name: one for name, one in able.items() if contacts.get(name, 0) >= CONTACTS}
    holders = [f"agent:{name}" for name in able]
    balances, _ = await read("budget_balances", lambda c: read_balances_page(c, {"period": chosen}, holders=holders))
    judged = sorted(_judged(able, rules.policy, balances))
    unused = {one.name for one in judged if one.budget.is_hardly_touched}
    uses, _ = await read("casework", lambda c: _uses(c, chosen, unused))
    items = [
        _line(one, able[one.name].role, kind, limit, uses.get((one.name, kind, one.currency), _Use()), contacts)
        for one in judged
        if one.budget.is_hardly_touched
        for kind, limit in able[one.name].limits.items()
    ]
    employees = len({one.name for one in judged})
    return {"period": chosen, "periods": periods, "employees": employees, "items": items, "position": position}


def _default_period(
    periods: Sequence[str], opened: Collection[str], policy: Policy, moments: tuple[datetime, datetime]
) -> str:
    """Return the newest period with budgets that had ended at the first of these moments, else at the other one.

    At neither, the present one. Imported history may end within a period, of which it then has some days alone.
    """
    for moment in moments:
        today = moment.astimezone(zone_of(policy.time_zone)).date()
        for one in periods:
            if one in opened and days_of(one)[1] <= today:
                return one
    return policy.period_at(moments[-1])


def _able(connection: sa.Connection, rules: Rules, now: datetime, scope: AccessScope) -> dict[str, _Able]:
    """Return the present employees in scope that have a role, with the limits of the kinds that they may give."""
    trained = defaultdict[str, set[str]](set)
    for one in read_table(connection, "courses"):
        if one["completed"] and (one["valid_until"] is None or now < parse_time(one["valid_until"])):
            trained[one["employee_id"]].add(one["course_id"])
    found = {}
    for name, one in read_people(connection).items():
        role = rules.policy.roles.get(one["role"] or "")
        if role is None or one["left"] is not None or not scope.shows(name):
            continue
        limits = rules.limits_for(one["role"], tuple(json.loads(one["team_ids"] or "[]")), now)
        may = {kind: most for kind, most in limits.items() if trained[name].issuperset(role.requires.get(kind, ()))}
        found[name] = _Able(one["role"], may)
    return found


def _uses(connection: sa.Connection, period: str, people: Collection[str]) -> dict[tuple[str, str, str], _Use]:
    """Return goodwill that these people gave without approval, by employee, kind and currency."""
    done = actions.c
    within = done.period == period
    own = (done.agent_id.in_(people), done.basis == "goodwill", done.escalation_id.is_(None), done.state.in_(GIVEN))
    groups = (done.agent_id, done.kind, done.currency)
    query = sa.select(
        *groups,
        sa.func.coalesce(sa.func.sum(sa.case((within, done.amount_minor))), 0),
        sa.func.count(sa.case((within, 1))),
        sa.func.max(done.time),
    )
    rows = plain_rows(connection, query.where(*own).group_by(*groups))
    return {(name, kind, currency): _Use(*use) for name, kind, currency, *use in rows}


def _judged(able: dict[str, _Able], policy: Policy, balances: Sequence[Row]) -> Iterator[_Judged]:
    """Yield the use of each employee's budget; one that was not opened has the amount of the role's budget."""
    opened: dict[str, list[Row]] = {}
    for one in balances:
        opened.setdefault(one["holder"], []).append(one)
    for name, (role, _) in able.items():
        holder = f"agent:{name}"
        uses = [
            (BudgetUse(holder, _minor(one["spent"]), _minor(one["granted_in_period"])), one["spent"]["currency"])
            for one in opened.get(holder, ())
        ]
        for use, currency in uses or [(BudgetUse(holder, 0, policy.roles[role].budget.minor), policy.currency)]:
            if use.granted > 0:
                yield _Judged(use.share, name, currency, use)


def _line(one: _Judged, role: str, kind: str, limit: Money | None, use: _Use, contacts: dict[str, int]) -> UnusedLimit:
    return {
        "employee_id": one.name,
        "role": role,
        "kind": kind,
        "limit": None if limit is None else limit.wire(),
        "used": wire_of(use.minor, one.currency),
        "actions": use.number,
        "last_used": use.last,
        "granted": wire_of(one.budget.granted, one.currency),
        "spent": wire_of(one.budget.spent, one.currency),
        "contacts": contacts[one.name],
    }


def _minor(money: dict[str, str]) -> int:
    """Return the minor units of a balance, which may be below zero."""
    return int(Decimal(money["amount"]).scaleb(digits_of(money["currency"])))
