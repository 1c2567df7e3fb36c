"""A simulated organisation: employees, customers, purchases and complaints, all from one seed."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

CHANNELS = ("phone", "chat", "e-mail", "store", "doorstep")
REASONS = ("late delivery", "damaged item", "wrong item", "substituted item", "billing error", "missing item")
THANKS = ("stayed until it was solved", "explained it without a script", "helped on a busy day", "shared a good idea")
KINDS = ("refund", "refund", "refund", "credit", "discount", "keep_item", "fee_waiver", "gift", "fix", "replacement")
START = datetime(2026, 1, 5, tzinfo=UTC)
AGENTS, SENIORS, MANAGERS, CUSTOMERS = 88, 8, 4, 4000
PURCHASES_A_DAY, INTERACTIONS_A_DAY = 180, 90
_TEAMS = tuple(f"team-{number}" for number in range(1, 9))
_OPEN_HOUR, _OPEN_HOURS = 8, 12


class Employee(NamedTuple):
    """An employee; a generous one gives more often, and more."""

    employee_id: str
    role: str
    team_id: str
    manager_id: str
    generosity: float


class Moment(NamedTuple):
    """A simulated moment: a fact to publish, or (``kind`` = "ask") an action to request."""

    at: datetime
    kind: str
    data: dict[str, Any]


class Organisation:
    """Makes each day's moments in order of time; the same seed gives the same days."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.employees = self._hire()
        self._orders: dict[str, list[tuple[str, float]]] = {}
        self._pleased: dict[str, float] = {}
        self._interactions = 0
        self._purchases = 0

    def _hire(self) -> list[Employee]:
        roles = ["manager"] * MANAGERS + ["senior"] * SENIORS + ["agent"] * AGENTS
        return [
            Employee(
                f"E-{number:03d}",
                role,
                _TEAMS[number % len(_TEAMS)],
                f"E-{number % MANAGERS + 1:03d}",
                self._random.betavariate(4, 4),
            )
            for number, role in enumerate(roles, 1)
        ]

    def joining(self) -> list[Moment]:
        """Return the moments in which all employees join, before the first day."""
        at = START - timedelta(days=1)
        return [
            Moment(
                at + timedelta(seconds=number),
                "employee.joined",
                {
                    "employee_id": one.employee_id,
                    "role": one.role,
                    "team_ids": [one.team_id],
                    "manager_id": one.manager_id,
                },
            )
            for number, one in enumerate(self.employees)
        ]

    def day(self, number: int) -> list[Moment]:
        """Return all moments of one day, in order of time."""
        date = START + timedelta(days=number)
        moments = [self._purchase(self._time(date)) for _ in range(self._around(PURCHASES_A_DAY))]
        for _ in range(self._around(INTERACTIONS_A_DAY)):
            moments += self._interaction(self._time(date))
        for _ in range(self._around(8)):
            moments.append(self._thanks(self._time(date)))
        if number % 30 == 14:
            moments += self._morale(date)
        moments.sort(key=lambda moment: moment.at)
        return moments

    def _around(self, mean: int) -> int:
        return max(0, round(self._random.gauss(mean, mean**0.5)))

    def _time(self, date: datetime) -> datetime:
        seconds = _OPEN_HOUR * 3600 + self._random.random() * _OPEN_HOURS * 3600
        return date + timedelta(seconds=round(seconds))

    def _purchase(self, at: datetime) -> Moment:
        self._purchases += 1
        if self._pleased and self._random.random() < 0.12:
            customer = self._random.choice(list(self._pleased))
        else:
            customer = f"C-{int(self._random.paretovariate(1.1) * 40) % CUSTOMERS:05d}"
        order, total = f"O-{self._purchases:07d}", round(self._random.lognormvariate(3.4, 0.6), 2)
        self._orders.setdefault(customer, []).append((order, total))
        data = {"order_id": order, "customer_id": customer, "total": gbp(total), "margin": gbp(total * 0.3)}
        return Moment(at, "purchase.completed", data)

    def _interaction(self, at: datetime) -> list[Moment]:
        self._interactions += 1
        one = self._random.choice(self.employees)
        customer = self._random.choice(list(self._orders)) if self._orders else "C-00001"
        interaction = f"I-{self._interactions:07d}"
        reason = self._random.choice(REASONS)
        order, total = self._random.choice(self._orders.get(customer, [("O-0000000", 30.0)]))
        moments = [
            Moment(
                at,
                "interaction.opened",
                {
                    "interaction_id": interaction,
                    "customer_id": customer,
                    "channel": self._random.choice(CHANNELS),
                    "reason": reason,
                    "agent_id": one.employee_id,
                    "team_id": one.team_id,
                    "line": 1,
                    "order_id": order,
                },
            )
        ]
        at += timedelta(minutes=self._random.expovariate(1 / 6))
        while self._random.random() < 0.22:
            one, before = self._random.choice(self.employees), one
            moments.append(
                Moment(
                    at,
                    "interaction.transferred",
                    {
                        "interaction_id": interaction,
                        "from_agent_id": before.employee_id,
                        "to_agent_id": one.employee_id,
                        "to_team_id": one.team_id,
                        "line": 2,
                        "story_repeated": self._random.random() < 0.5,
                        "waited_seconds": round(self._random.expovariate(1 / 240)),
                    },
                )
            )
            at += timedelta(minutes=self._random.expovariate(1 / 8))
        if self._random.random() < 0.45 + 0.3 * one.generosity:
            moments.append(self._ask(at, one, customer, interaction, order, total, reason))
            at += timedelta(minutes=2)
        moments += self._ending(at, one, customer, interaction, total)
        return moments

    def _ask(
        self, at: datetime, one: Employee, customer: str, interaction: str, order: str, total: float, reason: str
    ) -> Moment:
        kind = self._random.choice(KINDS)
        share = min(1.0, self._random.betavariate(2, 3) + 0.3 * one.generosity)
        amount = 0.0 if kind == "fix" else max(0.5, round(total * share * 2) / 2)
        self._pleased[customer] = amount
        asked = {
            "agent_id": one.employee_id,
            "customer_id": customer,
            "interaction_id": interaction,
            "kind": kind,
            "amount": gbp(amount),
            "reason": reason,
            "order_id": order,
        }
        return Moment(at, "ask", asked)

    def _ending(self, at: datetime, one: Employee, customer: str, interaction: str, total: float) -> list[Moment]:
        at += timedelta(minutes=self._random.expovariate(1 / 10))
        moments = [Moment(at, "interaction.resolved", {"interaction_id": interaction, "agent_id": one.employee_id})]
        if self._random.random() < 0.3:
            score = 5 if customer in self._pleased and self._random.random() < 0.7 else self._random.randint(1, 5)
            moments.append(
                Moment(
                    at + timedelta(hours=1),
                    "feedback.received",
                    {
                        "customer_id": customer,
                        "instrument": "csat",
                        "score": score,
                        "best": 5,
                        "worst": 1,
                        "interaction_id": interaction,
                    },
                )
            )
        if self._random.random() < 0.06:
            again = {"interaction_id": interaction, "reason": "happened again"}
            moments.append(Moment(at + timedelta(hours=2), "interaction.reopened", again))
        if self._random.random() < 0.05:
            kept = self._random.random() < 0.3
            back = {"customer_id": customer, "total": gbp(total), "item_kept": kept}
            moments.append(Moment(at + timedelta(hours=3), "purchase.returned", back))
        return moments

    def _thanks(self, at: datetime) -> Moment:
        giver, receiver = self._random.sample(self.employees, 2)
        data = {
            "recognition_id": f"R-{at:%Y%m%d%H%M%S}-{giver.employee_id}",
            "giver_id": giver.employee_id,
            "receiver_id": receiver.employee_id,
            "reason": self._random.choice(THANKS),
            "points": 10,
            "giver_kind": "manager" if giver.role == "manager" else "peer",
        }
        return Moment(at, "recognition.given", data)

    def _morale(self, date: datetime) -> list[Moment]:
        return [
            Moment(
                date + timedelta(hours=18),
                "morale.surveyed",
                {
                    "team_id": team,
                    "period": f"{date:%Y-%m}",
                    "invited": 12,
                    "respondents": self._random.randint(6, 12),
                    "score": round(self._random.gauss(7.2, 0.8), 1),
                    "best": 10,
                    "worst": 0,
                },
            )
            for team in _TEAMS
        ]


def gbp(amount: float) -> dict[str, str]:
    """Return an amount in pounds in its JSON form."""
    return {"amount": f"{amount:.2f}", "currency": "GBP"}
