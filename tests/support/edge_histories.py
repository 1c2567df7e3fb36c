"""Histories on the bounds of the reports' definitions: equal to a bound, one more and one less, ties, zero and missing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.support.documents import Document
from tests.support.report_histories import BEGIN, POLICY, RandomHistory, money, numbered

_MONTH = timedelta(days=365.25 / 12)
_INSTANT = timedelta(microseconds=1)
OTHER_MINUTES: Document = POLICY | {"asking": {"agent_minutes": 5, "approver_minutes": 20}}
"""A policy that says how many minutes a request takes."""
NO_HOURS: Document = POLICY | {"costs": {"return_processing": "5.00"}}
"""A policy that names the cost of a return, and not that of an hour."""


class GapEdges(RandomHistory):
    """Requests whose number, seconds, cost and days are on the bounds of the gap's figures."""

    def events(self) -> list[Document]:
        """Return the events, each with its position."""
        self._decide("policy.published", BEGIN, policy=POLICY, version=1, published_by="operator", sha256="00")
        for number in range(1600):  # a fiftieth of 1,600 is 32; of the bands one more
            waited = self.random.choice((0.0, 60.0, 7200.0))
            self._answered("agent", "refund", self.random.randint(1, 900) * 20, waited, "approved", number)
        for number in range(30):
            self._answered("agent", "fix", 100 + number, 600.0, "approved", number)
            self._answered("senior", "credit", 1160, 600.0, "denied", number)  # the cost of asking
            self._answered("manager", "refund", 499_990 + number, 600.0, "approved", number)
        for number in range(60):
            self._answered("senior", "fix", 100 + number, 600.0, "approved", number)
        for number in range(20):
            self._answered("agent", "keep_item", 300, 20.0, "approved", number)
            self._answered("senior", "keep_item", 300, 30.0, "approved", number)
            self._answered("manager", "keep_item", 300, None, "withdrawn", number)
        closed: Document = {"holder": "agent:A-0", "period": "2026-01", "currency": "GBP", "policy_version": 1}
        self._decide("budget.opened", BEGIN, **closed, granted=money(1), carried_over=money(0))
        rest = {"spent": money(0), "lapsed": money(1), "carried_over": money(0)}
        self._decide("budget.closed", BEGIN + timedelta(days=31), holder="agent:A-0", period="2026-01", **rest)
        for number in range(10):
            self._tell("interaction.opened", self._at(), interaction_id=f"I-{number}", agent_id="A-0")
        at, reasons = BEGIN + timedelta(days=100), [{"rule": "per_action", "message": "m"}]
        short: Document = {
            "agent_id": "A-0",
            "role": "agent",
            "basis": "goodwill",
            "amount": money(5001),
            "reason": "late",
        }
        short |= {"outcome": "escalate", "reasons": reasons, "preview": False}
        for customer, later in (("C-1", timedelta()), ("C-2", -_INSTANT), ("C-3", _INSTANT)):
            self._decide("authority.fell_short", at + later, **short, kind="refund", customer_id=customer)
        return numbered(self._events, at + timedelta(days=7))

    def _answered(self, role: str, kind: str, minor: int, waited: float | None, verdict: str, number: int) -> None:
        """Add an escalation that met the limit of one action, and its answer."""
        at, name = self._at(), f"esc-{role}-{kind}-{number}"
        of: Document = {"escalation_id": name, "budget": "agent:A-0", "period": "2026-01"}
        request: Document = {"agent_id": "A-0", "role": role, "kind": kind, "basis": "goodwill", "amount": money(minor)}
        request |= {"reason": "late", "action_id": f"act-{name}", "currency": "GBP", "policy_version": 1}
        asking: Document = {"payer": "approver", "to": ["M"], "due": at.isoformat()}
        reasons = [{"rule": "per_action", "message": "m"}]
        self._decide("escalation.requested", at, **request, **of, **asking, reasons=reasons)
        ended: Document = {"agent_id": "A-0", "amount": money(minor), "waited_seconds": waited or 0.0, **of}
        if verdict == "approved":
            ended |= {"asked": money(minor), "action_id": f"act-{name}", "paid_by": "agent:M"}
        if verdict != "withdrawn":
            ended["decided_by"] = "M"
        self._decide(f"escalation.{verdict}", at + timedelta(seconds=waited or 0.0), **ended)


class PeopleEdges(RandomHistory):
    """People whose number, months and actions are on the bounds of the figures of recognition."""

    def events(self) -> list[Document]:
        """Return the events, each with its position."""
        self._decide("policy.published", BEGIN, policy=POLICY, version=1, published_by="operator", sha256="00")
        last = BEGIN + timedelta(days=400)
        of = {"holder": "agent:A-0", "period": "2026-01", "currency": "GBP"}
        self._decide("budget.opened", BEGIN, **of, granted=money(0), carried_over=money(0), policy_version=1)
        for number in range(5):  # the fewest people of a step that is shown
            self._step(f"P-{number}", "agent", "senior", BEGIN + timedelta(days=100 + number))
        for number in range(4):
            self._step(f"Q-{number}", "senior", "agent", BEGIN + timedelta(days=100 + number))
        self._staying(last)
        for number in range(12):
            for part in range(12 - number):
                self._tell(
                    "recognition.given",
                    self._at(),
                    recognition_id=f"R-{number}-{part}",
                    giver_id="C",
                    receiver_id="P-0",
                    reason=f"reason {number:02d}",
                )
        for team, invited, answers in (("phone", 6, 6), ("chat", 7, 6), ("doorstep", 6, 5)):
            score: Document = {"score": 7, "best": 10, "worst": 1, "invited": invited, "respondents": answers}
            self._tell("morale.surveyed", self._at(), team_id=team, period="2026-01", **score)
        return numbered(self._events, last)

    def _step(self, employee: str, before: str, after: str, at: datetime) -> None:
        """Add an employee with a new role and a course, and actions 90 days before and after, on either side of each bound."""
        joined = at - timedelta(days=200)
        self._tell("employee.joined", joined, employee_id=employee, role=before, team_ids=["phone"], manager_id="M")
        self._tell("employee.changed", at, employee_id=employee, role=after, team_ids=["phone"])
        self._tell("training.completed", at, employee_id=employee, course_id="basics")
        for days in (-90, 0, 90):
            for away in (-timedelta(seconds=1), -_INSTANT, timedelta(), _INSTANT, timedelta(seconds=1)):
                if self.random.random() < 0.8:
                    self._took(employee, at + timedelta(days=days) + away)

    def _took(self, agent: str, at: datetime) -> None:
        done: Document = {"agent_id": agent, "kind": "credit", "basis": "goodwill", "amount": money(100)}
        done |= {"reason": "late", "holder": "agent:A-0", "period": "2026-01", "role": "agent", "policy_version": 1}
        more: Document = {"training": [], "limits": [], "authority": "own"}
        self._decide("action.taken", at, action_id=f"act-{len(self._events)}", **done, **more)

    def _staying(self, last: datetime) -> None:
        """Add roles whose longest time is a mark of the curve, to the microsecond."""
        spans: tuple[tuple[str, float, str | None], ...] = (
            *(("brief", 0.1 * number, "left" if number % 2 else "moved") for number in range(1, 8)),
            ("brief", 3, "left"),
            *(("steady", number, None) for number in (1, 2, 3, 4, 6)),
            *(("loyal", 7 + number, "left") for number in range(5)),
            ("loyal", 24, None),
            ("long", 36, "left"),
            *(("long", number, None) for number in (36, 12, 3, 1)),
        )
        for number, (role, months, end) in enumerate(spans):
            name, began = f"S-{number}", last - months * _MONTH
            self._tell("employee.joined", began, employee_id=name, role=role, team_ids=["chat"], manager_id="M")
            if end == "left":
                self._tell("employee.left", last - timedelta(seconds=number % 2), employee_id=name)
            elif end == "moved":
                self._tell("employee.changed", last, employee_id=name, role="other", team_ids=["chat"])


class QualityEdges(RandomHistory):
    """Groups of 29 to 31 interactions, and contacts on the bounds of seven days."""

    def events(self) -> list[Document]:
        """Return the events, each with its position."""
        self._decide("policy.published", BEGIN, policy=POLICY, version=1, published_by="operator", sha256="00")
        of = {"holder": "agent:A-0", "period": "2026-01", "currency": "GBP"}
        self._decide("budget.opened", BEGIN, **of, granted=money(0), carried_over=money(0), policy_version=1)
        last = BEGIN
        for place in range(14):
            for number in range(29 + place % 3):
                resolved = self._contact(place, number)
                last = max(last, resolved)
        return numbered(self._events, last + timedelta(days=7))

    def _contact(self, place: int, number: int) -> datetime:
        """Add an interaction of a team, and return its first resolution; the customer may come back."""
        name, at = f"I-{place:02d}-{number:02d}", self._at()
        customer = None if number % 9 == 8 else f"C-{place}-{number}"
        channel = "phone" if place < 13 else "chat"
        reason = None if number % 11 == 10 else "late" if place % 2 else "damaged"
        opened: Document = {"customer_id": customer, "channel": channel, "team_id": f"T-{place:02d}"}
        order = "O-1" if number % 4 == 0 else None
        self._tell("interaction.opened", at, interaction_id=name, reason=reason, order_id=order, **opened)
        if place != 3 and number % 5 == 0:
            self._tell("interaction.transferred", at, interaction_id=name, to_team_id="T-00")
        resolved = at + timedelta(hours=number)
        self._tell("interaction.resolved", resolved, interaction_id=name)
        if customer is not None and (place == 3 or number % 3 == 0):
            away = self.random.choice((-timedelta(seconds=1), -_INSTANT, timedelta(), _INSTANT, timedelta(seconds=1)))
            back: Document = {"customer_id": customer, "channel": None, "reason": reason}
            back |= {"order_id": self.random.choice((None, "O-1", "O-2"))}
            self._tell("interaction.opened", resolved + timedelta(days=7) + away, interaction_id=f"{name}-back", **back)
        if place == 5 or (place not in (7, 8) and number % (2 + place % 4) == 0) or place == 13:
            self._given(name, at, money(self.random.choice((999, 1000, 1001, 500_000, 1_000_000))))
        return resolved

    def _given(self, interaction: str, at: datetime, amount: Any) -> None:
        """Give goodwill in an interaction, and hear from the customer, at the moment of its opening."""
        done: Document = {"agent_id": "A-0", "kind": "refund", "basis": "goodwill", "amount": amount, "reason": "late"}
        done |= {"holder": "agent:A-0", "period": "2026-01", "role": "agent", "policy_version": 1, "training": []}
        self._tell(
            "feedback.received",
            at,
            customer_id="C-1",
            interaction_id=interaction,
            instrument="csat",
            score=1,
            worst=0,
            best=1,
        )
        self._decide(
            "action.taken",
            at,
            action_id=f"act-{interaction}",
            **done,
            limits=[],
            authority="own",
            interaction_id=interaction,
        )
