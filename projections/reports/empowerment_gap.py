"""The document of `report gap`, computed from views."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypedDict

import sqlalchemy as sa

from domain.analytics import empowerment_gap
from domain.analytics.empowerment_gap import (
    AuthorityRequest,
    BlockedRemedy,
    Costs,
    Figures,
    LastPeriod,
    Point,
    RubberStamp,
    Share,
    grouped,
)
from domain.analytics.procedure_cost import ProcedureCost, procedure
from domain.currencies import digits_of
from domain.money import Money, MoneyError
from projections.engine.row_cache import plain_rows
from projections.engine.temporal_tables import as_of
from projections.reading import EVERYBODY
from projections.views.authority import read_asked, read_shortfalls
from projections.views.balances import read_balances
from projections.views.casework import actions
from projections.views.people import read_voices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.policy.model import Policy
    from projections.engine.storage import Row
    from projections.reading import AccessScope, Reader

NOT_SAID = "not said"
CAVEATS = (
    "approval does not prove that a request was right",
    (
        f"at most {empowerment_gap.MINUTES_AT_MOST:.0f} waiting minutes of a request count as work, "
        "for agent and approver each"
    ),
    "the probability of approval comes from past requests: with another limit, people may ask for other amounts",
)


class RecommendedLimit(TypedDict):
    """A recommendation for a role, kind and currency; ``why`` gives the reason, also where no limit is recommended."""

    role: str
    kind: str
    currency: str
    requests: int
    why: str
    limit: dict[str, str] | None
    without_step: dict[str, str] | None
    today: dict[str, str] | None
    cost_of_asking: dict[str, str] | None
    curve: list[Point[dict[str, str]]]
    last_period: LastPeriod[dict[str, str]] | None


class CustomersWaited(TypedDict):
    """The hours that customers waited, and their worth."""

    hours: float
    worth: dict[str, str] | None


class SilentKind(TypedDict):
    """The share of shortfalls of one kind that were never escalated."""

    kind: str
    never_asked: Share


class SilentGap(TypedDict):
    """Shortfalls, and the share of them that was never escalated."""

    fell_short: int
    never_asked: Share
    by_kind: list[SilentKind]


class UnusedAuthority(TypedDict):
    """Agents' budgets of closed periods, and how much of them was used."""

    budgets: int
    hardly_touched: Share
    agents: int
    mean_use: float | None


class GapReport(TypedDict):
    """The document of `report gap`."""

    overall: Figures
    by_kind: list[Figures]
    by_band: list[Figures]
    by_role: list[Figures]
    by_team: list[Figures]
    by_reason: list[Figures]
    recommended_limits: list[RecommendedLimit]
    customers_waited: CustomersWaited
    silent_gap: SilentGap
    rubber_stamps: list[RubberStamp]
    unused: UnusedAuthority
    procedure: list[ProcedureCost]
    obstacles: list[Row]
    cannot_do: list[BlockedRemedy]
    caveats: Sequence[str]
    position: int


async def gap_report(
    read: Reader,
    policy: Policy | None,
    hours: Mapping[str, str | None] | None = None,
    at: int | None = None,
    scope: AccessScope = EVERYBODY,
) -> GapReport:
    """Return the empowerment gap of goodwill; money as objects, shares with Wilson's interval.

    ``policy`` is the policy in force. ``hours`` gives the cost of an hour (``agent_hour``,
    ``manager_hour``) where the policy names none. Personal text stays encrypted. The report is as of position ``at``,
    for the people in ``scope``.

    Raises:
        ValueError: an hour's cost is not an amount.

    """
    answer = await read("authority", lambda c: (read_asked(c, at), read_shortfalls(c, at)))
    asked_rows, short_rows = answer.result
    voices = (await read("people", lambda c: read_voices(c, at))).result
    balances = (await read("budget_balances", lambda c: read_balances(c, position=at))).result
    at_once = (await read("casework", lambda c: _given_at_once(c, at, scope))).result
    asked_rows = [row for row in asked_rows if scope.shows(row["agent_id"], row["team_id"])]
    short_rows = [row for row in short_rows if scope.shows(row["agent_id"])]
    balances = [one for one in balances if scope.sees_holder(one["holder"])]
    asked = [_asked(row) for row in asked_rows if row["basis"] == "goodwill"]
    short = [row for row in short_rows if row["basis"] == "goodwill"]
    silent = Counter((row["kind"], row["reason"]) for row in short if not row["followed"])
    position = answer.progress.anchor.position if at is None else at
    return {
        "overall": empowerment_gap.line(asked),
        "by_kind": [{"kind": label, **figures} for label, figures in grouped(asked, lambda one: one.kind)],
        "by_band": [{"band": label, **figures} for label, figures in empowerment_gap.by_band(asked)],
        "by_role": [{"role": label, **figures} for label, figures in grouped(asked, lambda one: one.role)],
        "by_team": [{"team": label, **figures} for label, figures in grouped(asked, lambda one: one.team)],
        "by_reason": [{"reason": label, **figures} for label, figures in grouped(asked, lambda one: one.reason)],
        "recommended_limits": _limits(asked, policy, hours or {}),
        "customers_waited": _customers(asked, policy),
        "silent_gap": _silent(short),
        "rubber_stamps": empowerment_gap.rubber_stamps(asked),
        "unused": _unused(balances),
        "procedure": procedure(at_once, policy),
        "obstacles": [one for one in voices if one["what"] == "obstacle" and scope.shows(one["employee_id"])],
        "cannot_do": empowerment_gap.cannot_do(asked, silent),
        "caveats": CAVEATS,
        "position": position,
    }


def _given_at_once(connection: sa.Connection, position: int | None, scope: AccessScope) -> list[tuple[str, str, int]]:
    """Return goodwill on agents' own authority: kind, currency, minor units."""
    done = as_of(actions, position)
    own = (done.c.basis == "goodwill", done.c.escalation_id.is_(None), done.c.state.in_(("taken", "settled")))
    query = sa.select(done.c.kind, done.c.currency, done.c.amount_minor, done.c.agent_id, done.c.team_id).where(*own)
    return [
        (kind, currency, minor)
        for kind, currency, minor, agent_id, team_id in plain_rows(connection, query)
        if scope.shows(agent_id, team_id)
    ]


def _asked(row: Row) -> AuthorityRequest:
    currency, outcome = row["currency"], row["outcome"]
    if outcome in ("withdrawn", "expired") and row["rejections"]:
        outcome = "denied"  # a rejection came before it was given up
    return AuthorityRequest(
        row["position"],
        row["kind"] or NOT_SAID,
        row["reason"] or NOT_SAID,
        row["role"] or NOT_SAID,
        row["team_id"] or NOT_SAID,
        currency,
        row["asked_minor"],
        digits_of(currency),
        outcome,
        row["approved_minor"] or 0,
        row["waited_seconds"],
        row["decided_by"],
        row["requested"][:7],
    )


def _costs(policy: Policy | None, currency: str, hours: Mapping[str, str | None]) -> Costs:
    found: dict[str, int] = {}
    for name in Costs._fields:
        if policy is not None and name in policy.costs and policy.costs[name].currency == currency:
            found[name] = policy.costs[name].minor
        elif (given := hours.get(name)) is not None:
            try:
                found[name] = Money.parse(given, currency).minor
            except MoneyError as error:
                message = f"{name}: {error}"
                raise ValueError(message) from None
    return Costs(**found)


def _limits(
    asked: Sequence[AuthorityRequest], policy: Policy | None, hours: Mapping[str, str | None]
) -> list[RecommendedLimit]:
    """Return a recommendation for each role, kind and currency that was requested."""
    some = defaultdict[tuple[str, str, str], list[AuthorityRequest]](list)
    for one in asked:
        some[one.role, one.kind, one.currency].append(one)
    found: list[RecommendedLimit] = []
    for (role, kind, currency), mine in sorted(some.items()):
        costs = _costs(policy, currency, hours)
        here = policy.roles[role].limits.get(kind) if policy is not None and role in policy.roles else None
        today = here.minor if here is not None and here.currency == currency else None
        advice = empowerment_gap.recommended(mine, costs, today)
        period = advice["last_period"]

        def money(minor: float, currency: str = currency) -> dict[str, str]:
            return Money(round(minor), currency).wire()

        found.append(
            {
                "role": role,
                "kind": kind,
                "currency": currency,
                "requests": len(mine),
                "why": advice["why"],
                "limit": _money(advice["limit"], currency),
                "without_step": _money(advice["without_step"], currency),
                "today": _money(today, currency),
                "cost_of_asking": _money(advice["cost_of_asking"], currency),
                "curve": [
                    {**point, "up_to": money(point["up_to"]), "risk": _money(point.get("risk"), currency)}
                    for point in advice["curve"]
                ],
                "last_period": period
                and {**period, "saved": money(period["saved"]), "risked": money(period["risked"])},
            }
        )
    return found


def _customers(asked: Sequence[AuthorityRequest], policy: Policy | None) -> CustomersWaited:
    """Return the hours that customers waited, and their worth at the policy's rate."""
    hours = sum(one.waited or 0.0 for one in asked if one.decided) / 3600
    hour = policy.costs.get("customer_hour") if policy is not None else None
    return {"hours": hours, "worth": _money(hours * hour.minor, hour.currency) if hour is not None else None}


def _silent(short: Sequence[Row]) -> SilentGap:
    kinds = defaultdict[str, Counter[str]](Counter)
    for row in short:
        kinds[row["kind"]]["followed" if row["followed"] else "silent"] += 1
    return {
        "fell_short": len(short),
        "never_asked": empowerment_gap.share(sum(not row["followed"] for row in short), len(short)),
        "by_kind": [
            {"kind": kind, "never_asked": empowerment_gap.share(counts["silent"], counts.total())}
            for kind, counts in sorted(kinds.items())
        ],
    }


def _unused(balances: Sequence[Row]) -> UnusedAuthority:
    """Return how many agents' budgets of closed periods were hardly used, a sign of fear or missing training."""
    closed = [one for one in balances if one["closed"] and one["holder"].startswith("agent:")]
    used = [
        (float(one["spent"]["amount"]) / granted, one["holder"])
        for one in closed
        if (granted := float(one["granted"]["amount"])) > 0
    ]
    hardly = [holder for part, holder in used if part < 0.1]  # noqa: PLR2004 - a tenth
    return {
        "budgets": len(used),
        "hardly_touched": empowerment_gap.share(len(hardly), len(used)),
        "agents": len(set(hardly)),
        "mean_use": sum(part for part, _ in used) / len(used) if used else None,
    }


def _money(minor: float | None, currency: str) -> dict[str, str] | None:
    return None if minor is None else Money(round(minor), currency).wire()
