"""Random histories of customers for `report loyalty`, in which each helped customer has at most one control.

So pairs do not depend on a random order, and SQL finds the same ones. Many times are whole days apart, so that windows
end exactly at purchases and at the end of the recorded time.
"""

from __future__ import annotations

import random
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.documents import Document
from tests.support.report_histories import POLICY, event_document, money, numbered

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 420
TEAMS = tuple(f"T-{number:02}" for number in range(12))
KINDS = ("refund", "refund", "credit", "keep_item")
CHANNELS = ("phone", "chat")
_CAUSE: Document = {"source": "crm", "request_id": "r", "seen_position": 0}


def policies() -> list[tuple[datetime, Document, list[str]]]:
    """Return the policies: three that raise a limit in some teams, one with a trial, and one that raises it for all.

    The last raise of some teams comes sixty days after the trial began, and also gives them a kind of their own.
    """

    def of(day: int, raised: int, **more: Any) -> tuple[datetime, Document, list[str]]:
        document = deepcopy(POLICY)
        at = BEGIN + timedelta(days=day)
        document["effective_from"] = at.isoformat().replace("+00:00", "Z")
        document["teams"] = {team: {"limits": {"agent": {"refund": "70.00"}}} for team in TEAMS[:raised]}
        if day >= _OWN_KIND:
            for team in TEAMS[:3]:
                document["teams"][team]["limits"]["agent"]["keep_item"] = "0.01"
        if day >= _FOR_ALL:
            document["roles"]["agent"]["limits"]["refund"] = "55.00"
            for team in TEAMS[:3]:
                document["teams"][team]["limits"]["agent"]["refund"] = "75.00"
        return at, document | more, list(TEAMS[6:]) if "trial" in more else []

    trial = {"limit": {"role": "agent", "kind": "refund", "amount": "90.00"}, "share_of_teams": 0.5, "seed": 7}
    until = (BEGIN + timedelta(days=260)).isoformat().replace("+00:00", "Z")
    return [of(-1, 0), of(120, 4), of(150, 4, trial=trial | {"until": until}), of(_OWN_KIND, 7), of(_FOR_ALL, 7)]


_OWN_KIND, _FOR_ALL = 210, 300


class LoyaltyHistory:
    """A history that a seed determines; ``effect`` is the chance that a helped customer buys once more.

    There are ``requests`` near a limit. ``margins`` is the share of purchases whose margin is known. With ``selected``, helped customers had bought more before they were helped.
    """

    def __init__(
        self,
        seed: int,
        helped: int = 90,
        effect: float = 0.5,
        requests: int = 260,
        *,
        selected: bool = False,
        margins: float | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.margins = margins
        self.helped, self.effect, self.requests, self.selected = helped, effect, requests, selected
        self.step = self.random.choice((1, 250))
        self._events: list[tuple[datetime, int, Document]] = []
        self._orders = 0

    def events(self) -> list[Document]:
        """Return the events, each with its position."""
        for number, (at, document, teams) in enumerate(policies(), 1):
            said = {"policy": document, "version": number, "published_by": "operator", "sha256": f"{number}"}
            self._add("resolution-ledger", "policy.published", at, {**_CAUSE, **said, "trial_teams": teams})
        for currency in ("GBP", "USD"):
            opening = {"holder": "agent:A-1", "period": "2025-01", "currency": currency, "policy_version": 1}
            amounts = {"granted": money(10_000_000, currency), "carried_over": money(0, currency)}
            self._add("resolution-ledger", "budget.opened", BEGIN - timedelta(days=1), {**_CAUSE, **opening, **amounts})
        for number in range(self.helped):
            self._pair(number)
        for number in range(40):
            self._bought(f"X-{number}", self._at(0, DAYS))
        for number in range(self.requests):
            self._limited(number)
        self._at_bounds()
        for day in (0, DAYS):
            self._bought("X-0", BEGIN + timedelta(days=day))
        self._set_margins()
        return numbered(self._events, BEGIN + timedelta(days=DAYS + 30))

    def _set_margins(self) -> None:
        """Leave the margins of all but ``margins`` of the purchases in pounds out."""
        if self.margins is None:
            return
        sold = [event["data"] for _, _, event in self._events if event["type"] == "resolution.purchase.completed.v1"]
        sold = [one for one in sold if one["total"]["currency"] == "GBP"]
        for number, one in enumerate(sold):
            one["margin"] = money(100) if number < round(self.margins * len(sold)) else None
            if one["margin"] is None:
                del one["margin"]

    def _at_bounds(self) -> None:
        """Add moments a second before the recorded time, and on the bounds of the trial and of retention."""
        before = BEGIN - timedelta(seconds=1)
        for number in range(3):
            self._acted(f"early-{number}", f"E-{number}", before, None)
            self._limited(1000 + number, before)
            self._opened(f"F-{number}", f"F-{number}", before, {"channel": "phone", "reason": f"early {number}"})
        for day in (150, 260):
            for second in (-1, 0, 1):
                name, at = f"G-{day}-{second}", BEGIN + timedelta(days=day, seconds=second)
                self._opened(name, name, at, {"channel": "phone", "reason": name})
        for number, second in enumerate((-1, 0, 1)):
            self._bought(f"Y-{number}", BEGIN + timedelta(days=40))
            self._bought(f"Y-{number}", BEGIN + timedelta(days=70, seconds=second))
        self._acted("in dollars", "E-0", BEGIN + timedelta(days=9), None, "USD")

    def _at(self, first: float, last: float) -> datetime:
        """Return a moment between two days; many are whole days."""
        day = self.random.uniform(first, last)
        return BEGIN + (
            timedelta(days=round(day)) if self.random.random() < 0.4 else timedelta(seconds=int(day * 86_400))
        )

    def _near(self) -> timedelta:
        """Return up to two seconds, most often none."""
        return timedelta(seconds=self.random.choice((0, 0, 0, -2, -1, 1, 2)))

    def _add(self, source: str, name: str, at: datetime, data: Document) -> None:
        self._events.append((at, len(self._events), event_document(len(self._events), source, name, at, data)))

    def _bought(self, customer: str, at: datetime) -> None:
        self._orders += 1
        minor = self.random.randint(500, 9000)
        currency = self.random.choice(("GBP",) * 9 + ("EUR",))
        margin = money(minor // 2, currency) if self.random.random() < 0.9 else None
        data = {"order_id": f"O-{self._orders}", "customer_id": customer, "total": money(minor, currency)}
        self._add("crm", "purchase.completed", at, data | {"margin": margin})

    def _pair(self, number: int) -> None:
        """Add a helped customer and another one with the same problem, most of them with a similar history."""
        mine, other, chance = f"H-{number}", f"C-{number}", self.random.random
        at = self._at(5, DAYS - 5)
        times = [self._at(0, DAYS) for _ in range(self.random.randint(1, 7))]
        early = [
            self._at(-1, 1) + (at - BEGIN) * self.random.random() for _ in range(self.random.choice((0, 1, 2, 2, 3)))
        ]
        for when in (*times, *early):
            self._bought(mine, max(BEGIN, when))
            if chance() < 0.95:
                nearby = self._at(-4, 4) - BEGIN if chance() < 0.7 else timedelta()
                self._bought(other, max(BEGIN, when + nearby))
        if self.selected and chance() < 0.8:
            self._bought(mine, max(BEGIN, at - timedelta(days=self.random.choice((59, 45, 31)))))
        if chance() < self.effect:
            self._bought(
                mine, at + timedelta(days=self.random.choice((0, 1, 10, 30, 60, 90, 90.5, 180))) + self._near()
            )
        if chance() < 0.3:  # on the bounds of the windows before
            self._bought(mine, max(BEGIN, at - timedelta(days=self.random.choice((0, 30, 60, 90, 180))) + self._near()))
        problem = {"channel": self.random.choice(CHANNELS), "reason": f"R-{number}"}
        opened = at - timedelta(seconds=self.random.choice((0, 60, 3600, 86_400, 100_000)))
        self._opened(f"I-{number}", mine, opened, problem)
        apart = self.random.choice((0, 1, 5, 12, 20, 29, 30, 31)) * self.random.choice((-1, 1))
        there = at + timedelta(days=apart)
        if chance() < 0.95:
            self._opened(f"J-{number}", other, there, problem)
        self._acted(f"act-{number}", mine, at, f"I-{number}" if chance() < 0.97 else None)
        if chance() < 0.2:
            wait = timedelta(days=self.random.choice((0, 30, 90, 90.5, 180))) + self._near()
            self._acted(f"again-{number}", mine, at + max(wait, timedelta()), None)
        if chance() < 0.25:
            later = self.random.choice((-3, 0.5, 1, 1.5, 20, 90, 90.5))
            self._acted(f"later-{number}", other, there + timedelta(days=later), None)
        if chance() < 0.3:
            back = at + timedelta(days=self.random.choice((-30.5, -30, -5, 5, 30, 31))) + self._near()
            self._add("crm", "purchase.returned", back, {"customer_id": mine, "total": money(700)})

    def _opened(self, name: str, customer: str, at: datetime, problem: Document) -> None:
        team = self.random.choice((*TEAMS, *TEAMS, None))
        self._add(
            "crm",
            "interaction.opened",
            at,
            {"interaction_id": name, "customer_id": customer, "team_id": team} | problem,
        )

    def _acted(self, name: str, customer: str, at: datetime, interaction: str | None, currency: str = "GBP") -> None:
        data = {
            **_CAUSE,
            "action_id": name,
            "agent_id": self.random.choice(("A-1", "A-2", "A-3")),
            "role": "agent",
            "customer_id": customer,
            "interaction_id": interaction,
            "kind": self.random.choice(KINDS),
            "basis": "goodwill",
            "amount": money(self.random.choice((500, 1000, 2500, 6000) * 8 + (15_000, 30_000)), currency),
            "reason": "late",
            "holder": "agent:A-1",
            "period": "2025-01",
            "policy_version": 1,
            "training": [],
            "limits": [],
            "team_id": self.random.choice((*TEAMS[:3], None)),
            "authority": "own",
            "escalation_id": f"esc-{name}" if self.random.random() < 0.4 else None,
        }
        self._add("resolution-ledger", "action.taken", at, data)

    def _limited(self, number: int, when: datetime | None = None) -> None:
        """Add a request near a limit of 50.00: taken up to it, and beyond it told to escalate."""
        minor = self.random.randint(2400 // self.step, 7600 // self.step) * self.step
        at, customer = when or self._at(0, DAYS), f"L-{number % 230 if when is None else number}"
        kind = self.random.choice(("refund",) * 9 + ("credit",))
        request = {"agent_id": "A-9", "role": "agent", "customer_id": customer, "kind": kind, "basis": "goodwill"}
        data = {**_CAUSE, **request, "amount": money(minor), "reason": "late"}
        short = {"rule": "per_action", "message": "m", "limit": money(5000), "used": money(0), "asked": money(minor)}
        preview = self.random.random() < 0.05
        self._add(
            "resolution-ledger",
            "authority.fell_short",
            at,
            data | {"outcome": "escalate", "reasons": [short], "preview": preview},
        )
        if self.random.random() < 0.5:
            self._bought(customer, at + timedelta(days=self.random.choice((0, 10, 30, 30.5, 90, 200))) + self._near())


class PairEdges(LoyaltyHistory):
    """Helped customers whose controls bought as they did until then; ``incomplete`` ones more in the last days.

    Each bought twice before. A helped one then buys on ``day``, with a margin of exactly the cost of the action.
    """

    def __init__(self, helped: int, day: int, incomplete: int = 5) -> None:
        super().__init__(helped, helped + incomplete, requests=40)
        self.day, self.complete = day, helped

    def _pair(self, number: int) -> None:
        """Add a helped customer and a control with the same purchases before."""
        complete = number < self.complete
        day = 180 + number % 40 if complete else DAYS - 20
        at = BEGIN + timedelta(days=day, hours=number)
        problem = {"channel": "phone", "reason": f"R-{number}"}
        for customer, name in ((f"H-{number}", f"I-{number}"), (f"C-{number}", f"J-{number}")):
            extra = number % 2 if customer.startswith("C") and number % 3 == 0 else 0
            for early in (1 + number, 40 + number)[: 1 + extra]:
                self._paid(customer, at - timedelta(days=early), 500 + number)
            self._opened(name, customer, at, problem)
        self._acted(f"act-{number}", f"H-{number}", at, f"I-{number}")
        self._paid(f"H-{number}", at + timedelta(days=self.day), self._cost)
        if number % 2:
            self._paid(f"C-{number}", at + timedelta(days=100), 0)

    _cost = 1000

    def _paid(self, customer: str, at: datetime, margin: int) -> None:
        """Add a purchase of twice this margin."""
        self._orders += 1
        data = {"order_id": f"O-{self._orders}", "customer_id": customer, "total": money(2 * margin)}
        self._add("crm", "purchase.completed", at, data | {"margin": money(margin)})

    def _acted(self, name: str, customer: str, at: datetime, interaction: str | None, currency: str = "GBP") -> None:
        """Add an action of the cost, at once and after an escalation by turns."""
        super()._acted(name, customer, at, interaction, currency)
        data = self._events[-1][2]["data"]
        data["amount"] = money(self._cost, currency)
        number = int(name.rpartition("-")[2]) if name[-1].isdigit() else 0
        data["kind"] = "refund"
        data.pop("escalation_id", None)
        if number % 2:
            data["escalation_id"] = f"esc-{name}"
