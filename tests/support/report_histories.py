"""Random histories for reports: facts and decisions as `audit replay` prints them, in the order of their times."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

from domain.commands import action_id_of
from tests.support.documents import Document

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("refund", "credit", "keep_item", "fix")
REASONS = ("late", "damaged", "billing")
ROLES = ("agent", "senior")
TEAMS = ("phone", "chat", "doorstep")
_CAUSE: Document = {"source": "crm", "request_id": "r", "seen_position": 0}
POLICY: Document = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2025-12-01T00:00:00Z",
    "roles": {
        "agent": {
            "budget": "200.00",
            "limits": {"refund": "50.00", "credit": "25.00"},
            "requires": {"credit": ["basics"]},
        },
        "senior": {
            "budget": "500.00",
            "limits": {"refund": "100.00", "credit": "60.00", "keep_item": "40.00", "fix": "unlimited"},
        },
        "manager": {
            "budget": "2000.00",
            "limits": {"refund": "500.00"},
            "approves": {"refund": "500.00", "credit": "500.00"},
        },
    },
    "costs": {"agent_hour": "24.00", "manager_hour": "45.00", "customer_hour": "10.00", "return_processing": "5.00"},
}


def money(minor: int, currency: str = "GBP") -> Document:
    """Return an amount of a currency with two digits as JSON carries it."""
    return {"amount": f"{minor // 100}.{minor % 100:02d}", "currency": currency}


def _kind_of(agent: str) -> str:
    """Return the kind of an agent: one in three is no human."""
    return "ai" if int(agent.rpartition("-")[2]) % 3 == 2 else "human"


class RandomHistory:
    """A history that a seed determines; ``days`` is its length, and ``scale`` multiplies the number of events."""

    def __init__(self, seed: int, scale: float = 1.0, days: int = 120, policy: Document | None = POLICY) -> None:
        self.random, self.policy = random.Random(seed), policy
        self.days = days
        self.scale = scale
        self._events: list[tuple[datetime, int, Document]] = []
        self.agents = [f"A-{n}" for n in range(self.random.randint(1, 9))]
        self.customers = [f"C-{n}" for n in range(self.random.randint(1, max(2, round(20 * scale))))]
        self.interactions = [f"I-{n}" for n in range(self.count(60))]

    def events(self) -> list[Document]:
        """Return the events, each with its position."""
        if self.policy is not None:
            said = {"policy": self.policy, "version": 1, "published_by": "operator", "sha256": "00"}
            self._decide("policy.published", BEGIN, **said)
        for make in (self._people, self._interactions, self._feedback, self._purchases, self._budgets, self._asked):
            make()
        for make in (self._short, self._actions, self._elsewhere, self._recognition, self._voices, self._reported):
            make()
        last = max(at for at, _, _ in self._events) + timedelta(days=self.random.choice((0, 1, 6, 8, 30)))
        if self.random.random() < 0.5:  # seven days after one of the last events, to the microsecond
            last = self.random.choice(sorted(self._events, key=lambda one: one[0])[-40:])[0] + timedelta(days=7)
        found = numbered(self._events, last)
        places = {one["id"]: one["position"] for one in found}
        for one in found:
            if one["type"] == "resolution.action.charged.v1":
                one["data"]["relates_to"] = places.get(one["data"]["relates_to"], 1)
        return found

    def count(self, mean: float) -> int:
        """Return a number of events between zero and a mean at scale 1."""
        return self.random.randint(0, max(1, round(mean * self.scale)))

    # ------------------------------------------------------------------ events

    def _at(self, begin: datetime = BEGIN, days: float | None = None) -> datetime:
        """Return a moment; many fall on whole hours, so that times tie."""
        seconds = self.random.uniform(0, (self.days if days is None else days) * 86_400)
        return begin + timedelta(
            seconds=round(seconds / 3600) * 3600 if self.random.random() < 0.3 else round(seconds, 3)
        )

    def _add(self, source: str, name: str, at: datetime, data: Document) -> None:
        number = len(self._events)
        self._events.append((at, number, event_document(number, source, name, at, data)))

    def _tell(self, name: str, at: datetime, **data: Any) -> None:
        self._add("crm", name, at, data)

    def _decide(self, name: str, at: datetime, **data: Any) -> None:
        self._add("resolution-ledger", name, at, _CAUSE | data)

    def _maybe(self, values: Any, chance: float = 0.8) -> Any:
        return self.random.choice(values) if values and self.random.random() < chance else None

    def _subject(self) -> Document:
        """Return the interaction, order and customer that a request may name."""
        return {
            "interaction_id": self._maybe(self.interactions, 0.6),
            "order_id": self._maybe(("O-1", "O-2", "O-3"), 0.3),
            "customer_id": self._maybe(self.customers, 0.7),
        }

    # ------------------------------------------------------------------ parts

    def _people(self) -> None:
        for agent in self.agents:
            joined = self._at(BEGIN - timedelta(days=900), 900)
            role = self.random.choice(ROLES)
            teams = self.random.sample(TEAMS, self.random.randint(1, 2))
            self._tell("employee.joined", joined, employee_id=agent, role=role, team_ids=teams, manager_id="M")
            at = joined
            for _ in range(self.random.randint(0, 2)):
                at = self._at(at + timedelta(seconds=1), 200)
                if self.random.random() < 0.5:
                    teams = self.random.sample(TEAMS, self.random.randint(0, 2))
                self._tell("employee.changed", at, employee_id=agent, role=self.random.choice(ROLES), team_ids=teams)
            if self.random.random() < 0.3:
                self._tell("employee.left", self._at(at + timedelta(seconds=1), 200), employee_id=agent)
            if self.random.random() < 0.5:
                self._tell(
                    "training.completed", self._at(), employee_id=agent, course_id=self._maybe(("basics", "more"), 1)
                )

    def _interactions(self) -> None:
        for name in self.interactions:
            at, told = self._at(), self.random.random() < 0.96
            self._tell(
                "interaction.opened" if told else "interaction.resolved",
                at,
                interaction_id=name,
                customer_id=self._maybe(self.customers),
                channel=self._maybe(("phone", "chat")),
                reason=self._maybe(REASONS),
                order_id=self._maybe(("O-1", "O-2"), 0.4),
                agent_id=self._maybe(self.agents),
                team_id=self._maybe(TEAMS),
                line=self._maybe((1, 1, 2), 0.7),
            )
            for _ in range(self.random.choice((0, 0, 0, 1, 2, 3))):
                at = self._at(at + timedelta(seconds=1), 3)
                self._tell(
                    "interaction.transferred",
                    at,
                    interaction_id=name,
                    to_agent_id=self._maybe(self.agents),
                    to_team_id=self._maybe(TEAMS),
                    line=self._maybe((1, 2, 3), 0.6),
                    story_repeated=self._maybe((True, False), 0.5),
                    waited_seconds=self._maybe((0, 60, 3600), 0.5),
                )
            for _ in range(self.random.choice((0, 1, 1, 1, 2))):
                at = self._at(at + timedelta(seconds=1), 2)
                self._tell("interaction.resolved", at, interaction_id=name, agent_id=self._maybe(self.agents, 0.3))
                if self.random.random() < 0.2:
                    at = self._at(at + timedelta(seconds=1), 2)
                    self._tell("interaction.reopened", at, interaction_id=name)

    def _feedback(self) -> None:
        scales = {"csat": ((1, 5), (1, 7), (0, 1), (5, 1)), "nps": ((0, 10),), "ces": ((1, 7),), "review": ((1, 5),)}
        for _ in range(self.count(40)):
            instrument = self.random.choice(tuple(scales))
            worst, best = self.random.choice(scales[instrument])
            score = self.random.randint(min(worst, best), max(worst, best))
            customer, interaction = (
                self.random.choice(self.customers),
                self._maybe([*self.interactions, "I-unknown"], 0.7),
            )
            said = {
                "instrument": instrument,
                "score": score,
                "worst": worst,
                "best": best,
                "interaction_id": interaction,
            }
            self._tell("feedback.received", self._at(), customer_id=customer, **said)

    def _purchases(self) -> None:
        for number in range(self.count(120)):
            total = self.random.randint(0, 9000)
            margin = money(total // 3) if self.random.random() < 0.8 else None
            self._tell(
                "purchase.completed",
                self._at(BEGIN - timedelta(days=200), self.days + 200),
                order_id=f"P-{number}",
                customer_id=self._maybe(self.customers, 0.9),
                total=money(total, self.random.choice(("GBP", "GBP", "GBP", "EUR"))),
                margin=margin,
            )
        for _ in range(self.count(10)):
            self._tell("purchase.returned", self._at(), customer_id=self._maybe(self.customers), total=money(500))

    def _budgets(self) -> None:
        for agent in self.agents:
            for month in range(self.random.randint(0, 4)):
                holder, period = f"agent:{agent}", self._period(month + 1)
                at, currency = datetime(2026, month + 1, 1, tzinfo=UTC), self.random.choice(("GBP", "GBP", "EUR"))
                of: Document = {"holder": holder, "period": period}
                granted, carried = self.random.choice((0, 1, 20_000, 50_000)), self.random.choice((0, 0, 5000))
                self._decide(
                    "budget.opened",
                    at,
                    **of,
                    currency=currency,
                    granted=money(granted, currency),
                    carried_over=money(carried, currency),
                    policy_version=1,
                )
                left = granted + carried
                for name in ("granted", "transferred", "drawn"):
                    if self.random.random() < 0.3:
                        way = "in" if name == "granted" else self.random.choice(("in", "out"))
                        minor = self.random.randint(0, 4000)
                        left += minor if way == "in" else -minor
                        more = {"granted_by": "M", "reason": "x"} if name != "drawn" else {"action_id": "act"}
                        more |= {"direction": way, "other_holder": "team:phone"} if name != "granted" else {}
                        self._decide(
                            f"budget.{name}", at + timedelta(hours=1), **of, amount=money(minor, currency), **more
                        )
                spent = self.random.choice((0, 100, 1000, max(left // 2, 0), max(left, 0), max(left, 0) // 10))
                self._charge(agent, holder, period, currency, spent, at + timedelta(days=2))
                if self.random.random() < 0.8:
                    unused = max(left - spent, 0)
                    over = self.random.choice((0, unused // 2))
                    self._decide(
                        "budget.closed",
                        at + timedelta(days=31),
                        **of,
                        spent=money(spent, currency),
                        lapsed=money(unused - over, currency),
                        carried_over=money(over, currency),
                    )

        for team in self.random.sample(TEAMS, 2):
            pool: Document = {"holder": f"team:{team}", "period": self._period(self.random.randint(1, 4))}
            pool |= {"currency": "GBP", "granted": money(self.random.choice((0, 1, 90_000))), "carried_over": money(0)}
            self._decide("budget.opened", BEGIN, **pool, policy_version=1)

    def _period(self, month: int) -> str:
        """Return a period that begins in a month, most of them months."""
        first = date(2026, month, 1) + timedelta(days=13)
        year, week, _ = first.isocalendar()
        others = (f"{year}-W{week:02d}", first.isoformat(), f"2026-Q{(month + 2) // 3}") if month in (1, 4) else ()
        return self.random.choice((first.strftime("%Y-%m"),) * 4 + others)

    def _charge(self, agent: str, holder: str, period: str, currency: str, spent: int, at: datetime) -> None:
        """Spend an amount by a report of another system, so that it is no action of the ledger's."""
        if spent:
            amounts = {"amount": money(spent, currency), "overdrawn": money(0, currency)}
            self._decide(
                "action.charged",
                at,
                action_id=f"act-{agent}-{period}",
                holder=holder,
                period=period,
                agent_id=agent,
                relates_to=1,
                **amounts,
            )

    def _request(self) -> Document:
        kind = self.random.choice((*KINDS, "refund", "refund", "refund"))
        return {
            "agent_id": self.random.choice(self.agents),
            "kind": kind,
            "basis": self.random.choice(("goodwill",) * 6 + ("entitlement",)),
            "amount": money(
                self.random.choice(
                    (500, 1000, 1160, 2000, 5500, 6000, self.random.randint(1, 200_000), 500_000, 1_500_000)
                )
            ),
            "reason": self.random.choice(REASONS),
            **self._subject(),
        }

    def _asked(self) -> None:
        for number in range(self.count(160)):
            self._escalation(f"esc-{number}", self._request(), self._at())

    def _escalation(self, name: str, request: Document, at: datetime) -> None:
        rules = self.random.choice((["per_action"],) * 6 + (["per_action", "per_customer"], ["kind"]))
        reasons = [{"rule": rule, "message": rule} for rule in rules]
        of = {"escalation_id": name, "budget": f"agent:{request['agent_id']}", "period": "2026-01"}
        self._decide(
            "escalation.requested",
            at,
            **request,
            **of,
            action_id=f"act-{name}",
            role=self.random.choice(("agent",) * 5 + ROLES),
            agent_kind=_kind_of(request["agent_id"]),
            team_id=self._maybe(TEAMS),
            reasons=reasons,
            payer="approver",
            to=["M"],
            due=_text(at),
            policy_version=1,
            currency=request["amount"]["currency"],
        )
        step = self.random.choice(("approved",) * 8 + ("denied", "denied", "withdrawn", "expired", None))
        if step is None:
            return
        quick = request["kind"] == "fix"
        waited = self.random.choice((20.0, 30.0)) if quick else self.random.choice((30.0, 600.0, 86_400.0))
        ended: Document = {"agent_id": request["agent_id"], **of, "amount": request["amount"], "waited_seconds": waited}
        if step == "approved":
            ended |= {"asked": request["amount"], "action_id": f"act-{name}", "paid_by": "agent:M"}
            if self.random.random() < 0.2:
                ended["amount"] = money(max(0, round(float(request["amount"]["amount"]) * 50)))
        if step in ("approved", "denied"):
            ended["decided_by"] = "M"
        self._decide(f"escalation.{step}", at + timedelta(seconds=waited), **ended)

    def _short(self) -> None:
        for number in range(self.count(80)):
            request, at = self._request(), self._at()
            outcome = self.random.choice(("escalate", "escalate", "escalate", "refused"))
            for _ in range(self.random.choice((1, 1, 2))):
                reasons, last = [{"rule": "per_action", "message": "m"}], at
                self._decide(
                    "authority.fell_short", at, **request, outcome=outcome, reasons=reasons, preview=False, role="agent"
                )
                at = self._at(at + timedelta(seconds=1), 4)
            if self.random.random() < 0.5:
                later = last + timedelta(days=self.random.choice((0, 1, 6.9, 7, 7.1, 9)))
                self._escalation(f"after-{number}", request, later)

    def _actions(self) -> None:
        for agent in self.agents:
            for currency in ("GBP", "EUR"):
                of = {"holder": f"agent:{agent}-own", "period": "2026-01", "currency": currency}
                nothing = money(0, currency)
                self._decide("budget.opened", BEGIN, **of, granted=nothing, carried_over=nothing, policy_version=1)
        for number in range(self.count(60)):
            request, at, name = self._request(), self._at(), f"act-{number}"
            if self.random.random() < 0.15:
                request["amount"] = request["amount"] | {"currency": "EUR"}
            held = self.random.random() < 0.2
            of = {"holder": f"agent:{request['agent_id']}-own", "period": "2026-01"}
            escalated = self._maybe(("esc-1", "esc-2"), 0.1) if not held else None
            if escalated:
                continue
            done = {
                "action_id": name,
                **request,
                **of,
                "role": "agent",
                "agent_kind": _kind_of(request["agent_id"]),
                "policy_version": 1,
                "training": [],
                "limits": [],
            }
            if held:
                self._decide("action.held", at, **done)
                posted = {"action_id": name, **of, "agent_id": request["agent_id"], "basis": request["basis"]}
                end = self.random.choice(("settled", "voided", None))
                if end == "settled":
                    paid = {"amount": money(100, request["amount"]["currency"]), "held": request["amount"]}
                    self._decide("action.settled", at + timedelta(hours=2), **posted, **paid)
                    self._reverse(posted | {"amount": paid["amount"]}, at + timedelta(hours=2))
                elif end == "voided":
                    self._decide(
                        "action.voided", at + timedelta(hours=2), **posted, amount=request["amount"], reason="x"
                    )
            else:
                self._decide("action.taken", at, **done, authority="own", team_id=self._maybe(TEAMS))
                names = ("agent_id", "basis", "amount")
                self._reverse({"action_id": name, **of, **{one: request[one] for one in names}}, at)

    def _reverse(self, posted: Document, at: datetime) -> None:
        """Reverse some actions, wholly or in two parts."""
        parts = self.random.choice((0, 0, 0, 0, 1, 2))
        amount = posted["amount"]
        for part in range(parts):
            minor = round(float(amount["amount"]) * 100) // parts
            taken_back = posted | {"amount": money(minor, amount["currency"]), "recovered": self.random.random() < 0.5}
            later = self._at(at + timedelta(seconds=1), 5)
            self._decide("action.reversed", later, **taken_back, reversed_by="M", reason=f"part {part}", relates_to=1)

    def _elsewhere(self) -> None:
        for number in range(self.count(50)):
            name, at = f"E-{number}", self._at()
            asked = money(self.random.randint(1, 50_000), self.random.choice(("EUR", "GBP")))
            reported = self.random.random() < 0.95
            self._tell(
                "escalation.reported" if reported else "obstacle.reported",
                at,
                **({} if reported else {"obstacle_id": name, "employee_id": "A-0", "text": "t"}),
                escalation_id=name,
                amount=asked,
                kind=self._maybe(KINDS),
                reason=self._maybe(REASONS),
                requested_by=self._maybe([*self.agents, "A-unknown"]),
            )
            for verdict in self.random.choice(
                (
                    (),
                    ("approved",),
                    ("approved",),
                    ("denied",),
                    ("denied", "approved"),
                    ("denied", "withdrawn"),
                    ("withdrawn",),
                )
            ):
                at = self._at(at + timedelta(seconds=1), 4)
                given = money(1, asked["currency"]) if self.random.random() < 0.1 else None
                self._tell("escalation.outcome_reported", at, escalation_id=name, verdict=verdict, amount=given)

    def _reported(self) -> None:
        """Report actions that another system took; most are charged to a budget without a grant."""
        for currency in ("GBP", "EUR"):
            of = {"holder": "agent:A-reported", "period": "2026-01", "currency": currency, "policy_version": 1}
            nothing = money(0, currency)
            self._decide("budget.opened", BEGIN, **of, granted=nothing, carried_over=nothing)
        for _ in range(self.count(40)):
            request, at = self._request() | {"agent_id": self.random.choice([*self.agents, "A-unknown"])}, self._at()
            if self.random.random() < 0.3:
                request["amount"] = request["amount"] | {"currency": "EUR"}
            name = f"e-{len(self._events)}"
            self._tell("action.reported", at, **request, team_id=self._maybe(TEAMS, 0.3))
            if self.random.random() < 0.8:
                posted = {one: request[one] for one in ("agent_id", "amount", "basis")}
                posted |= {"action_id": action_id_of("crm", name), "holder": "agent:A-reported", "period": "2026-01"}
                nothing = money(0, request["amount"]["currency"])
                later = self._at(at, 2)
                self._decide("action.charged", later, **posted, overdrawn=nothing, relates_to=name)
                self._reverse(posted, later)

    def _recognition(self) -> None:
        for number in range(self.count(25)):
            self._tell(
                "recognition.given",
                self._at(),
                recognition_id=f"R-{number}",
                giver_id="C",
                receiver_id=self.random.choice(self.agents),
                reason=self.random.choice(REASONS),
                points=self._maybe((1, 5), 0.5),
                interaction_id=self._maybe(self.interactions, 0.5),
                giver_kind=self._maybe(("customer", "peer", "manager")),
            )
        for team in TEAMS:
            for period in ("2026-01", "2026-02"):
                if self.random.random() < 0.8:
                    answers = self.random.choice((2, 4, 5, 6, 9))
                    self._tell(
                        "morale.surveyed",
                        self._at(),
                        team_id=team,
                        period=period,
                        invited=10,
                        respondents=answers,
                        score=self.random.randint(1, 10),
                        best=10,
                        worst=1,
                    )

    def _voices(self) -> None:
        for number in range(self.count(8)):
            at = self._at()
            self._tell("idea.submitted", at, idea_id=f"D-{number}", employee_id="A-0", text="t")
            if self.random.random() < 0.5:
                fate = self.random.choice(("adopted", "declined"))
                self._tell("idea.decided", self._at(at, 20), idea_id=f"D-{number}", decision=fate, decided_by="M")
            self._tell("obstacle.reported", at, obstacle_id=f"B-{number}", employee_id="A-0", text="t")
            if self.random.random() < 0.5:
                self._tell("obstacle.answered", self._at(at, 20), obstacle_id=f"B-{number}", answered_by="M", text="t")


def event_document(number: int, source: str, name: str, at: datetime, data: Document) -> Document:
    """Return the event of a number, without position and recorded time."""
    return {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": source,
        "type": f"resolution.{name}.v1",
        "time": _text(at),
        "data": {key: value for key, value in data.items() if value is not None},
    }


def numbered(events: list[tuple[datetime, int, Document]], last: datetime) -> list[Document]:
    """Return the events in the order of their times, each with its position; the last one is recorded at ``last``."""
    ordered = sorted(events, key=lambda one: one[:2])
    return [
        {**event, "recordedtime": _text(last if number == len(ordered) else min(at, last)), "position": number}
        for number, (at, _, event) in enumerate(ordered, 1)
    ]


def _text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
