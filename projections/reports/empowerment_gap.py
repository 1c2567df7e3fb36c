"""The document of `report gap`, computed from views."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict

import sqlalchemy as sa

from domain.analytics import empowerment_gap
from domain.analytics.empowerment_gap import (
    AuthorityRequest,
    BlockedRemedy,
    Case,
    Figures,
    Matter,
    Point,
    RubberStamp,
    Share,
    Shortfall,
    grouped,
)
from domain.analytics.procedure_cost import ProcedureCost, procedure
from domain.analytics.unused_authority import CONTACTS, BudgetUse, UnusedAuthority, unused
from domain.currencies import digits_of
from domain.money import Money, money_from_wire
from domain.policy.history import PolicyHistory
from domain.policy.model import AskingMinutes
from domain.policy.parsing import read_policy
from ledger.store.cloudevents import parse_time
from projections.engine.columns import seconds_of
from projections.engine.row_cache import plain_rows
from projections.engine.temporal_tables import as_of
from projections.reading import EVERYBODY
from projections.reports.limit_simulation import SimulatedLimit, cost_of_asking, effect_of
from projections.reports.policy_simulation import PolicySimulation, try_quickly
from projections.views.audit_trail import read_contacts, recorded_until
from projections.views.authority import read_asked, read_incomplete, read_told
from projections.views.balances import read_closed
from projections.views.casework import actions
from projections.views.people import read_voices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.events.decisions import PolicyPublished
    from domain.policy.model import Policy
    from projections.engine.storage import Row
    from projections.reading import AccessScope, Reader
    from projections.views.authority import TellingToEscalate

NOT_SAID = "not said"
CAVEATS = (
    "approval does not prove that a request was right",
    "asking costs working minutes of the agent and of the approver; waiting is the customer's, and not part of it",
    "a recommended limit is a hypothesis: it holds if people ask the same as before",
    (
        "a matter counts as blocked and not escalated if no escalation of it was filed within seven days; matters "
        "whose seven days are not over are not counted"
    ),
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
    approved: Share
    cases: list[Case[dict[str, str]]]
    rules_known: bool
    simulated: SimulatedLimit | None


class CustomersWaited(TypedDict):
    """The hours that customers waited, and their worth."""

    hours: float
    worth: dict[str, str] | None


class RequestMinutes(TypedDict):
    """The working minutes that a request is assumed to take: those of the policy in force, else 14 and 8."""

    agent: float
    approver: float


class SilentKind(TypedDict):
    """The share of matters of one kind that were not escalated."""

    kind: str
    never_asked: Share


class SilentGap(TypedDict):
    """Matters that were told to escalate, and the share of them that was not; ``pending`` may still be escalated."""

    fell_short: int
    pending: int
    never_asked: Share
    by_kind: list[SilentKind]


class GapReport(TypedDict):
    """The document of `report gap`."""

    overall: Figures
    by_kind: list[Figures]
    by_band: list[Figures]
    by_role: list[Figures]
    by_agent_kind: list[Figures]
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
    asking_minutes: RequestMinutes
    incomplete: int
    """Outcomes in other systems without their request; no other figure counts them."""
    caveats: Sequence[str]
    rung: int
    """The evidence level of all figures: 1, a description."""
    by_time: str
    """`recorded`: events count from their recorded time on."""
    position: int


async def gap_report(
    read: Reader,
    published: Sequence[PolicyPublished],
    hours: Mapping[str, str | None] | None = None,
    at: int | None = None,
    scope: AccessScope = EVERYBODY,
) -> GapReport:
    """Return the empowerment gap of goodwill; money as objects, shares with Wilson's interval.

    ``published`` are all policies; the one in force gives limits and the costs of an hour. ``hours`` gives these costs
    (``agent_hour``, ``manager_hour``) where the policy names none. Personal text stays encrypted. The report is as of
    position ``at``, for the people in ``scope``. Recommended limits are simulated only for a reader who may see all
    people, and as of now.

    Raises:
        ValueError: an hour's cost is not an amount.

    """
    answer = await read("authority", lambda c: (read_asked(c, at), read_told(c, at), read_incomplete(c, at)))
    asked_rows, all_told, incomplete = answer.result
    recorded = await recorded_until(read, answer.progress, at)
    rules = PolicyHistory.of(published).in_force(parse_time(recorded) if at and recorded else datetime.now(UTC))
    policy = None if rules is None else rules.policy
    minutes = AskingMinutes() if policy is None else policy.asking
    voices = (await read("people", lambda c: read_voices(c, at))).result
    closed = (await read("budget_balances", lambda c: read_closed(c, at))).result
    contacts = (await read("audit_trail", lambda c: read_contacts(c, at))).result
    at_once = (await read("casework", lambda c: _given_at_once(c, at, scope))).result
    asked_rows = [row for row in asked_rows if scope.shows(row["agent_id"], row["named_team"])]
    closed = [one for one in closed if scope.sees_holder(one[0])]
    asked, told = requests_of(asked_rows), shortfalls_of(all_told, scope)
    filed = [(one.matter, one.seconds) for one in asked if one.matter is not None]
    blocked = empowerment_gap.matters(told, filed, parse_time(recorded).timestamp() if recorded else 0.0)
    silent = Counter((one.kind, one.reason) for one in blocked if one.followed is False)
    position = answer.progress.anchor.position if at is None else at
    limits = _limits(asked, policy, hours or {})
    if policy is not None and at is None and scope.people is None:
        await _simulate(read, policy, published, limits)
    return {
        "overall": empowerment_gap.line(asked),
        "by_kind": [{"kind": label, **figures} for label, figures in grouped(asked, lambda one: one.kind)],
        "by_band": [{"band": label, **figures} for label, figures in empowerment_gap.by_band(asked)],
        "by_role": [{"role": label, **figures} for label, figures in grouped(asked, lambda one: one.role)],
        "by_agent_kind": [
            {"agent_kind": label, **figures} for label, figures in grouped(asked, lambda one: one.agent_kind)
        ],
        "by_team": [{"team": label, **figures} for label, figures in grouped(asked, lambda one: one.team)],
        "by_reason": [{"reason": label, **figures} for label, figures in grouped(asked, lambda one: one.reason)],
        "recommended_limits": limits,
        "customers_waited": _customers(asked, policy),
        "silent_gap": _silent(blocked),
        "rubber_stamps": empowerment_gap.rubber_stamps(asked),
        "unused": _unused(closed, contacts),
        "procedure": procedure(at_once, policy),
        "obstacles": [one for one in voices if one["what"] == "obstacle" and scope.shows(one["employee_id"])],
        "cannot_do": empowerment_gap.cannot_do(asked, silent),
        "asking_minutes": {"agent": minutes.agent, "approver": minutes.approver},
        "incomplete": incomplete,
        "caveats": CAVEATS,
        "rung": 1,
        "by_time": "recorded",
        "position": position,
    }


def _given_at_once(connection: sa.Connection, position: int | None, scope: AccessScope) -> list[tuple[str, str, int]]:
    """Return goodwill on agents' own authority: kind, currency, minor units."""
    done = as_of(actions, position)
    own = (done.c.basis == "goodwill", done.c.escalation_id.is_(None), done.c.state.in_(("taken", "settled")))
    query = sa.select(done.c.kind, done.c.currency, done.c.amount_minor, done.c.agent_id, done.c.named_team).where(*own)
    return [
        (kind, currency, minor)
        for kind, currency, minor, agent_id, team_id in plain_rows(connection, query)
        if scope.shows(agent_id, team_id)
    ]


def requests_of(rows: Sequence[Row]) -> list[AuthorityRequest]:
    """Return the requests of goodwill among the rows of ``read_asked``."""
    return [_asked(row) for row in rows if row["basis"] == "goodwill"]


def shortfalls_of(told: Sequence[TellingToEscalate], scope: AccessScope) -> list[Shortfall]:
    """Return the requests that were told to escalate, of the people in a scope."""
    seconds = seconds_of([one.time for one in told]).tolist()
    return [
        Shortfall(one.matter, one.kind, one.reason, at)
        for one, at in zip(told, seconds, strict=True)
        if scope.shows(one.agent_id)
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
        None if row["rules"] is None else tuple(json.loads(row["rules"])),
        row["matter"],
        parse_time(row["requested"]).timestamp(),
        row["agent_kind"] or NOT_SAID,
    )


def _limits(
    asked: Sequence[AuthorityRequest], policy: Policy | None, hours: Mapping[str, str | None]
) -> list[RecommendedLimit]:
    """Return a recommendation for each role, kind and currency that was requested."""
    some = defaultdict[tuple[str, str, str], list[AuthorityRequest]](list)
    for one in asked:
        if one.rules in (None, empowerment_gap.THIS_LIMIT):
            some[one.role, one.kind, one.currency].append(one)
    found: list[RecommendedLimit] = []
    for (role, kind, currency), mine in sorted(some.items()):
        here = policy.roles[role].limits.get(kind) if policy is not None and role in policy.roles else None
        today = here.minor if here is not None and here.currency == currency else None
        advice = empowerment_gap.recommended(mine, cost_of_asking(policy, currency, hours), today)

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
                "approved": advice["approved"],
                "cases": [{**case, "limit": _money(case["limit"], currency)} for case in advice["cases"]],
                "rules_known": all(one.rules is not None for one in mine),
                "simulated": None,
            }
        )
    return found


async def _simulate(
    read: Reader, policy: Policy, published: Sequence[PolicyPublished], limits: Sequence[RecommendedLimit]
) -> None:
    """Replay history with all recommended limits, and note their effects; withdraw a limit that changes nothing."""
    document = deepcopy(policy.document)
    tried: list[RecommendedLimit] = []
    for one in limits:
        if one["limit"] is not None and one["today"] is not None:  # today's limit is in the policy's currency
            document["roles"][one["role"]]["limits"][one["kind"]] = one["limit"]["amount"]
            tried.append(one)
    if not tried:
        return
    simulation = PolicySimulation(read_policy(document), published, None, flags=False)
    await try_quickly(read, simulation, lambda _: None)
    comparison = simulation.what_if.comparison
    for one in tried:
        spared = [at for at in comparison.spared if (at.role, at.kind) == (one["role"], one["kind"])]
        cost = one["cost_of_asking"]
        minor = None if cost is None else money_from_wire(cost).minor
        one["simulated"] = effect_of(spared, comparison, one["currency"], minor)
        if not spared:
            one["limit"], one["why"] = None, "in a replay of history with this limit, no decision changes"


def _customers(asked: Sequence[AuthorityRequest], policy: Policy | None) -> CustomersWaited:
    """Return the hours that customers waited, and their worth at the policy's rate."""
    hours = sum(one.waited or 0.0 for one in asked if one.decided) / 3600
    hour = policy.costs.get("customer_hour") if policy is not None else None
    return {"hours": hours, "worth": _money(hours * hour.minor, hour.currency) if hour is not None else None}


def _silent(blocked: Sequence[Matter]) -> SilentGap:
    kinds = defaultdict[str, list[bool]](list)
    for one in blocked:
        if one.followed is not None:
            kinds[one.kind].append(not one.followed)
    known = [silent for some in kinds.values() for silent in some]
    return {
        "fell_short": len(blocked),
        "pending": len(blocked) - len(known),
        "never_asked": empowerment_gap.share(sum(known), len(known)),
        "by_kind": [
            {"kind": kind, "never_asked": empowerment_gap.share(sum(some), len(some))}
            for kind, some in sorted(kinds.items())
        ],
    }


def _unused(closed: Sequence[tuple[str, int, int]], contacts: Mapping[str, int]) -> UnusedAuthority:
    """Return the use of the closed budgets of agents with enough contacts."""
    return unused(
        [
            BudgetUse(holder, spent, granted)
            for holder, spent, granted in closed
            if holder.startswith("agent:") and contacts.get(holder.removeprefix("agent:"), 0) >= CONTACTS
        ]
    )


def _money(minor: float | None, currency: str) -> dict[str, str] | None:
    return None if minor is None else Money(round(minor), currency).wire()
