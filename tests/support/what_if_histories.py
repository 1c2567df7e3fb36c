"""Random histories for `report what-if`: requests that meet only the limit of one action, and their escalations."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec

from domain.abuse.guard import Guard
from domain.abuse.history import GuardEvent
from domain.money import Money
from domain.policy.parsing import read_policy
from ledger.store.log import Recorded
from projections.engine.events import read_event
from projections.reading import EVERYBODY, AccessScope, Reader
from projections.reports.empowerment_gap import gap_report
from projections.reports.limit_simulation import what_if_of_limit
from projections.reports.policy_simulation import PolicySimulation, WhatIfReport, try_policy, try_quickly
from tests.support.documents import Document
from tests.support.redecisions import ForgedLog
from tests.support.report_histories import BEGIN, POLICY, event_document, money, numbered
from tests.support.report_oracle import HistoryLedger, differences, recorded_of

if TYPE_CHECKING:
    from ledger.store.log import Log

LIMITS: dict[str, dict[str, int]] = {
    "agent": {"refund": 5000, "credit": 2500},
    "senior": {"refund": 10_000, "credit": 6000, "keep_item": 4000},
}
"""Limits of history in minor units, by role and kind."""
OTHERS: tuple[dict[str, dict[str, int]], ...] = (
    {"agent": {"refund": 8000, "credit": 2500}, "senior": {"refund": 10_000, "credit": 6000, "keep_item": 4000}},
    {"agent": {"refund": 3000, "credit": 9000, "keep_item": 2000}, "senior": {"refund": 12_000, "credit": 100}},
    {"agent": {"refund": 50_000, "credit": 50_000}, "senior": {"refund": 50_000}},
)
"""Limits that are tried instead."""
_DAYS = 80
_VERDICTS = ("approved", "approved", "in part", "denied", "withdrawn", None)


def policy(limits: dict[str, dict[str, int]]) -> Document:
    """Return a policy with these limits, and budgets that are never used up."""
    document = deepcopy(POLICY)
    for role, kinds in limits.items():
        texts = {kind: money(minor)["amount"] for kind, minor in kinds.items()}
        document["roles"][role] = {"budget": "10000000.00", "limits": texts}
    document["roles"]["manager"] |= {"limits": {"refund": "500.00", "keep_item": "1.00"}}
    return document


class WhatIfHistory:
    """A history that a seed determines; with ``generous`` most escalations are approved.

    The first and the last decision are ``days`` apart, to the microsecond. With ``again`` the same policy is published
    once more after half of them.
    """

    def __init__(
        self, seed: int, requests: int = 150, *, generous: bool = False, days: int = _DAYS, again: bool = False
    ) -> None:
        self.again = BEGIN + timedelta(days=days / 2) if again else None
        self.random, self.requests, self.days = random.Random(seed), requests, days
        self.verdicts = ("approved",) * 30 + _VERDICTS if generous else _VERDICTS
        self._events: list[tuple[datetime, int, Document]] = []
        self.roles = {f"A-{number}": self.random.choice(("agent", "agent", "senior")) for number in range(6)}

    def events(self) -> list[Document]:
        """Return the events, each with its position."""
        start = BEGIN - timedelta(days=3)
        said = {"policy": policy(LIMITS), "version": 1, "published_by": "operator", "sha256": "0"}
        self._decide("policy.published", start, 0, **said)
        if self.again is not None:
            later = policy(LIMITS) | {"effective_from": self.again.isoformat().replace("+00:00", "Z")}
            self._decide("policy.published", self.again, 0, **said | {"policy": later, "version": 2})
        for name, role in self.roles.items():
            joined = {"employee_id": name, "role": role, "team_ids": ["phone"]}
            self._events.append(
                (start, len(self._events), event_document(len(self._events), "hr", "employee.joined", start, joined))
            )
            opening: Document = {"holder": f"agent:{name}", "period": "2025-12", "currency": "GBP", "policy_version": 1}
            self._decide("budget.opened", start, 0, **opening, granted=money(10**9), carried_over=money(0))
        manager: Document = {"holder": "agent:M", "period": "2025-12", "currency": "GBP", "policy_version": 1}
        self._decide("budget.opened", start, 0, **manager, granted=money(200_000), carried_over=money(0))
        for number in range(self.requests):
            self._request(number, BEGIN + timedelta(seconds=round(self.random.uniform(1, self.days * 86_400 - 1e5), 3)))
        for number, at in ((-1, BEGIN), (-2, BEGIN + timedelta(days=self.days))):
            self._taken(number, at)
        return numbered(self._events, BEGIN + timedelta(days=self.days + 20))

    def _taken(self, number: int, at: datetime) -> None:
        """Add an action within the limit of each simulation."""
        request: Document = {"agent_id": "A-0", "kind": "refund", "basis": "goodwill", "amount": money(100)}
        request |= {"reason": "late", "role": self.roles["A-0"], "policy_version": 1, "period": "2025-12"}
        limit = LIMITS[self.roles["A-0"]]["refund"]
        met = [{"name": "per_action", "limit": money(limit), "used": money(0)}]
        done: Document = {"holder": "agent:A-0", "customer_id": f"c-{number}", "training": [], "limits": met}
        self._decide("action.taken", at, number, action_id=f"act-{number}", authority="own", **request, **done)

    def _decide(self, name: str, at: datetime, number: int, **data: Any) -> None:
        if self.again is not None and at >= self.again and "policy_version" in data:
            data["policy_version"] = 2
        cause: Document = {"source": "crm", "request_id": f"r-{number}", "seen_position": 10**6}
        document = event_document(len(self._events), "resolution-ledger", name, at, cause | data)
        self._events.append((at, len(self._events), document))

    def _request(self, number: int, at: datetime) -> None:
        agent = self.random.choice(list(self.roles))
        role, kind = self.roles[agent], self.random.choice(("refund", "refund", "refund", "credit", "keep_item"))
        edges = [
            minor for limits in (LIMITS, *OTHERS) for minor in [limits[role].get(kind)] if minor and minor < 20_000
        ]
        minor = self.random.choice([*edges, *(edge + 1 for edge in edges), self.random.randint(1, 15_000)])
        about = self.random.choice(("interaction_id", "interaction_id", "order_id", "customer_id"))
        request: Document = {
            "agent_id": agent,
            "kind": kind,
            "basis": "goodwill",
            "amount": money(minor),
            "reason": "late",
        }
        request |= {about: f"{about[0]}-{number}", "role": role, "policy_version": 1, "period": "2025-12"}
        request |= {"holder": f"agent:{agent}"}
        limit = LIMITS[role].get(kind)
        if limit is not None and minor <= limit:
            met = [{"name": "per_action", "limit": money(limit), "used": money(0)}]
            self._decide(
                "action.taken",
                at,
                number,
                action_id=f"act-{number}",
                training=[],
                limits=met,
                authority="own",
                **request,
            )
            return
        rule = "kind" if limit is None else "per_action"
        reason = {"rule": rule, "message": rule, "asked": money(minor)}
        short = {"outcome": "escalate", "reasons": [reason], "preview": self.random.random() < 0.05}
        way = self.random.choice(("not asked", "at once", "at once", "apart", "apart", "told again"))
        if kind == "keep_item" or short["preview"]:
            way = "not asked"
        filed = f"esc-{number}" if way == "at once" else None
        self._decide("authority.fell_short", at, number, **request, **short, escalation_id=filed)
        if way == "not asked" and limit is not None and self.random.random() < 0.5:
            self._split(request, number, at, limit)
        if way == "told again":
            at += timedelta(hours=2)
            filed = f"esc-{number}"
            self._decide("authority.fell_short", at, number + 10_000, **request, **short, escalation_id=filed)
        if way != "not asked":
            wait = self.random.choice((0, 3600, 6.9 * 86_400, 7 * 86_400, 7.1 * 86_400)) if way == "apart" else 0
            self._escalated(f"esc-{number}", request, number, at + timedelta(seconds=wait))

    def _split(self, request: Document, number: int, at: datetime, limit: int) -> None:
        """Give in parts what was told to escalate, which the guard flags."""
        met = [{"name": "per_action", "limit": money(limit), "used": money(0)}]
        for part in (1, 2):
            name, at = f"act-{number}-{part}", at + timedelta(hours=1)
            done = request | {"amount": money(limit), "limits": met, "authority": "own", "training": []}
            self._decide("action.taken", at, number + part * 100_000, action_id=name, **done)

    def _escalated(self, name: str, request: Document, number: int, at: datetime) -> None:
        of: Document = {"escalation_id": name, "budget": request["holder"], "period": "2025-12"}
        asked = {key: value for key, value in request.items() if key not in ("holder", "period")}
        more = {"payer": "approver", "to": ["M"], "due": at.isoformat(), "currency": "GBP"}
        reasons = [{"rule": "per_action", "message": "m"}]
        self._decide(
            "escalation.requested", at, number, **asked, **of, action_id=f"act-{name}", reasons=reasons, **more
        )
        verdict = self.random.choice(self.verdicts)
        if verdict is None:
            return
        waited = self.random.choice((30.0, 5400.0, 90_000.0))
        at += timedelta(seconds=waited)
        amount = request["amount"]
        ended = {"agent_id": request["agent_id"], "waited_seconds": waited, **of}
        if verdict in ("denied", "withdrawn"):
            self._decide(f"escalation.{verdict}", at, number, **ended, amount=amount, decided_by="M")
            return
        if verdict == "in part":
            amount = money(max(1, round(float(amount["amount"]) * 50)))
        paid = {"asked": request["amount"], "action_id": f"act-{name}", "paid_by": "agent:M", "decided_by": "M"}
        self._decide("escalation.approved", at, number, **ended, amount=amount, **paid)
        done = request | {"amount": amount, "holder": "agent:M", "escalation_id": name, "authority": "approved"}
        self._decide(
            "action.taken", at, number, action_id=f"act-{name}", training=[], limits=[], decided_by="M", **done
        )


def what_if_report(
    ledger: HistoryLedger, limits: dict[str, dict[str, int]], progressed: Callable[[int], None] = lambda _: None
) -> Document:
    """Return the document of `report what-if` with these limits."""
    simulation = PolicySimulation(read_policy(policy(limits)), ledger.published, None, flags=False)

    async def made(read: Reader) -> WhatIfReport:
        return await try_quickly(read, simulation, progressed)

    return ledger.report(made)


def what_if_differences(ledger: HistoryLedger) -> list[str]:
    """Return the figures of `report what-if` with each of `OTHERS` that differ from the oracle's."""
    lines: list[str] = []
    for limits in OTHERS:
        told: list[int] = []
        found = what_if_report(ledger, limits, told.append)
        decided = [one["position"] for one in ledger.events if one["type"] in _DECISIONS]
        lines += [] if told[-1] >= decided[-1] else ["the progress ends before the last decision"]
        lines += compared(ledger, limits, found)
        lines += differences(found["position"], len(ledger.events), "position")
    return lines


_DECISIONS = ("resolution.action.taken.v1", "resolution.authority.fell_short.v1", "resolution.escalation.requested.v1")


def later_differences(ledger: HistoryLedger) -> list[str]:
    """Return the differences of a simulation that begins with the newest policy, and of one of a policy in shadow."""
    since = datetime.fromisoformat(ledger.published[-1].policy["effective_from"])
    lines = [line for one in OTHERS for line in compared(ledger, one, what_if_report(ledger, one), since)]
    shadow = msgspec.structs.replace(ledger.published[0], version=9, policy=policy(LIMITS) | {"mode": "shadow"})
    simulation = PolicySimulation(None, [*ledger.published, shadow, ledger.published[-1]], None, flags=False)
    lines += differences(simulation.document(0)["policy_version"], 9, "shadow")
    with contextlib.suppress(LookupError):
        PolicySimulation(None, ledger.published, None, flags=False)
        lines.append("no policy is in shadow")
    return lines + asyncio.run(_read_in_batches(ledger))


async def _read_in_batches(ledger: HistoryLedger) -> list[str]:
    """Return the differences of the progress, and of the position, where the log is read batch by batch."""
    stored = [recorded_of(one) for one in ledger.events]

    async def batches(size: int) -> AsyncIterator[list[Recorded]]:
        for start in range(0, len(stored) if size else 0, size or 1):
            yield stored[start : start + size]

    lines: list[str] = []
    for size, last in ((0, 0), (50, len(stored))):
        told: list[int] = []
        simulation = PolicySimulation(read_policy(policy(OTHERS[0])), ledger.published, None, flags=False)
        found = await try_policy(cast("Log", ForgedLog(stored)), batches(size), simulation, told.append)
        ends = [min(end, last) for end in range(50, last + 50, 50)]
        lines += differences([found["position"], told], [last, ends], "batches")
    return lines


def compared(
    ledger: HistoryLedger, limits: dict[str, dict[str, int]], found: Document, since: datetime | None = None
) -> list[str]:
    """Return the figures of one simulation that differ from the oracle's."""
    oracle = ledger.figures("what_if", *_tried(limits, since))
    (whole,) = oracle["whole"]
    newest = ledger.published[-1].version
    whole |= {"policy_version": newest + 1, "instead_of": newest}
    shown = {
        name: found[name]
        for name in ("decisions", "differences", "since_position", "unknown_people", "policy_version", "instead_of")
    }
    lines = differences(shown, whole, "whole")
    changes = sorted(found["changes"], key=lambda one: (one["kind"], one["then"], one["would_be"]))
    ordered = sorted(changes, key=lambda one: -one["n"])
    lines += differences(found["changes"], ordered, "changes.order")
    lines += differences([one | {"amount": _minor(one["amount"])} for one in changes], oracle["changes"], "changes")
    spend = [
        {"period": one["period"], **{name: _minor(one[name]) for name in ("spent", "would_be_spent")}}
        for one in found["spend"]
    ]
    lines += differences(spend, oracle["spend"], "spend")
    saved = dict(found["escalations_saved"])
    outcomes = [one | {"amount": _minor(one["amount"])} for one in saved.pop("outcomes")]
    lines += differences(saved, oracle["saved"][0], "saved") + differences(outcomes, oracle["outcomes"], "outcomes")
    lines += differences(found["limits_hit"], oracle["limits_hit"], "limits_hit")
    names = ("position", "team_id", "agent_id", "kind", "then", "now", "escalation_id")
    for one in (*found["changes"], *found["spend"], *found["escalations_saved"]["outcomes"], *found["items"]):
        lines += _foreign(one)
    lines += differences(found["flags"], None, "flags")
    items = [
        {name: one[name] for name in names}
        | {"why": list(one["why"]), "amount": _minor(one["amount"])}
        | {"time": datetime.fromisoformat(one["time"]).replace(tzinfo=None)}
        for one in found["items"]
    ]
    return lines + differences(items, oracle["items"], "items")


def simulated_differences(ledger: HistoryLedger, found: Document | None = None) -> list[str]:
    """Return the effects of the limits that `report gap` recommends that differ from the oracle's."""
    found = found or ledger.report(gap_report, ledger.published)
    limits = {role: dict(kinds) for role, kinds in LIMITS.items()}
    tried = [one for one in found["recommended_limits"] if one["simulated"] is not None]
    for one in tried:
        limits[one["role"]][one["kind"]] = min(_minor(one["without_step"]), 2 * _minor(one["today"]))
    rows = ledger.figures("what_if", *_tried(limits))["effects"]
    effects = {(one.pop("role"), one.pop("kind")): one for one in rows}
    lines: list[str] = []
    for one in tried:
        expected: Document = effects.get((one["role"], one["kind"]), _NO_EFFECT | {"days": one["simulated"]["days"]})
        cost = _minor(one["cost_of_asking"])
        expected |= {"would_have_saved": cost * expected["escalations_spared"]}
        shown = one["simulated"] | {
            name: _minor(one["simulated"][name]) for name in ("would_have_saved", "not_approved")
        }
        lines += _foreign(one["simulated"]) + differences(shown, expected, f"simulated.{one['role']}.{one['kind']}")
        lines += differences(one["limit"] is None, not expected["given_at_once"], "withdrawn")
    return lines


TRIED_LIMITS = (("agent", "refund", 8000), ("senior", "refund", 4000), ("agent", "keep_item", 2000))
"""Limits that are tried one at a time: a higher one, a lower one, and one of a kind without a limit."""
ASKING_MINOR = 1160
"""The cost of asking: 14 minutes at 24.00 an hour, and 8 minutes at 45.00."""
_SUMS = (
    "given_at_once",
    "escalations_spared",
    "hours_not_waited",
    "not_approved",
    "would_escalate",
    "would_escalate_amount",
)


def limit_differences(ledger: HistoryLedger) -> list[str]:
    """Return the effects of single limits that differ from the oracle's, for all people and for some."""
    lines: list[str] = []
    agents = sorted({one["data"]["employee_id"] for one in ledger.events if one["type"].endswith("employee.joined.v1")})
    for scope in (EVERYBODY, AccessScope(frozenset(agents[::2]), frozenset())):
        for role, kind, minor in TRIED_LIMITS:
            found = ledger.report(what_if_of_limit, ledger.published, role, kind, Money(minor, "GBP"), scope)
            lines += limit_effect_differences(ledger, found, scope, minor)
    return lines


def limit_effect_differences(ledger: HistoryLedger, found: Document, scope: AccessScope, minor: int) -> list[str]:
    """Return the figures of one limit's effect that differ from the oracle's."""
    role, kind = found["role"], found["kind"]
    limits = {name: dict(kinds) for name, kinds in LIMITS.items()}
    today = limits[role].get(kind)
    limits[role][kind] = minor
    oracle = ledger.figures("what_if", *_tried(limits))
    rows = [
        one for one in oracle["by_agent"] if (one["role"], one["kind"]) == (role, kind) and scope.shows(one["agent"])
    ]
    expected: Document = {name: sum(one[name] for one in rows) for name in _SUMS}
    spared, days = expected["escalations_spared"], oracle["span"][0]["days"]
    expected |= {"days": days, "monthly": spared / days * 365.25 / 12 if days >= 28 else None}
    expected |= {"would_have_saved": spared * ASKING_MINOR, "decisions": oracle["whole"][0]["decisions"]}
    expected |= {"limit": minor, "today": today, "policy_version": ledger.published[-1].version}
    expected |= {"position": len(ledger.events)}
    shown = {name: _minor(value) if isinstance(value, dict) else value for name, value in found.items()}
    shown = {name: value for name, value in shown.items() if name not in ("role", "kind", "caveats")}
    return _foreign(found) + differences(shown, expected, f"limit.{role}.{kind}.{minor}")


_NO_EFFECT: Document = {
    "given_at_once": 0,
    "escalations_spared": 0,
    "hours_not_waited": 0,
    "not_approved": 0,
    "monthly": 0,
}


def _foreign(effect: Document) -> list[str]:
    amounts = [one["currency"] for one in effect.values() if isinstance(one, dict)]
    return differences(amounts, ["GBP"] * len(amounts), "currency")


def log_differences(ledger: HistoryLedger) -> list[str]:
    """Return the differences where the whole log is read, from a decision on, and with the guard's flags."""
    lines: list[str] = []
    taken = [one for one in ledger.events if one["type"] == "resolution.action.taken.v1"]
    since = datetime.fromisoformat(taken[len(taken) // 3]["time"])
    stored = [recorded_of(one) for one in ledger.events]
    flags = Counter(_rules_of(ledger))
    for limits in (LIMITS, OTHERS[0]):
        for begin in (None, since):
            simulation = PolicySimulation(read_policy(policy(limits)), ledger.published, begin, flags=begin is None)
            simulation.take(stored, {})
            found: Document = {**simulation.document(len(stored))}
            if begin is None:
                shown = {one["rule"]: one["raised"] for one in found["flags"]["by_rule"] if one["raised"]}
                lines += differences(shown, dict(flags), "flags")
            if begin is None:
                balance = sum(one["would_be_raised"] - one["raised"] for one in found["flags"]["by_rule"])
                lines += differences(found["flags"]["new"] - found["flags"]["gone"], balance, "flags.balance")
            if begin is None and limits is LIMITS:
                would = {one["rule"]: one["would_be_raised"] for one in found["flags"]["by_rule"]}
                changed = [found["flags"]["new"], found["flags"]["gone"]]
                lines += differences(would, dict(flags), "flags.would") + differences(changed, [0, 0], "flags.changed")
            lines += compared(ledger, limits, found | {"flags": None, "policy_version": 2}, begin)
    return lines


def _rules_of(ledger: HistoryLedger) -> list[str]:
    """Return the rule of each flag that the guard raises over the history."""
    guard, found = Guard(), dict[str, str]()
    for one in ledger.events:
        event = read_event(recorded_of(one))
        at, told = event.time.timestamp(), event.recorded.timestamp()
        for raised in guard.take(GuardEvent(event.position, at, told, event.body, "")):
            found[raised.flag_id] = raised.finding.rule
    return list(found.values())


def _tried(limits: dict[str, dict[str, int]], since: datetime | None = None) -> tuple[str, str]:
    """Return the statements that create the oracle's tables of the limits tried and of the begin."""
    begin = datetime(1970, 1, 1) if since is None else since.replace(tzinfo=None)
    rows = [(role, kind, minor) for role, kinds in limits.items() for kind, minor in kinds.items()]
    rows += [("manager", "refund", 50_000), ("manager", "keep_item", 100)]
    values = ", ".join(f"('{role}', '{kind}', {minor})" for role, kind, minor in rows)
    return (
        f"CREATE OR REPLACE TABLE since AS SELECT TIMESTAMP '{begin.isoformat(' ')}' AS moment",
        f"CREATE OR REPLACE TABLE tried AS FROM (VALUES {values}) AS t(role, kind, most)",
    )


def _minor(amount: Document) -> int:
    return round(float(amount["amount"]) * 100)
