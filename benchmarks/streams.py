"""Worlds of real traffic: real purchases and contacts, with simulated agents, goodwill and amounts."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from app.importing.import_report import ImportReport
from app.importing.importer import import_events
from app.importing.mapping import load_mapping
from benchmarks.misuse import World
from domain.abuse.history import DAY, HOUR
from domain.events import facts
from domain.serialization import decode
from ledger.store.cloudevents import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = {"online_retail": "online_retail.csv.gz", "bpic2013_incidents": "bpic2013_incidents.csv.gz"}
DAYS = 90


class _Envelope(msgspec.Struct):
    type: str
    time: str
    data: msgspec.Raw


def available_streams() -> list[str]:
    """Return the streams whose files exist."""
    return [name for name, file in FILES.items() if (DATA / file).exists()]


@cache
def _busiest_days(name: str) -> list[tuple[float, Any]]:
    """Return the busiest ninety days of a stream, as (seconds since its first day, fact)."""
    made = import_events(load_mapping(name), [DATA / FILES[name]], ImportReport(), lambda _bytes: None)
    told = list[tuple[float, Any]]()
    for one in made:
        event = msgspec.json.decode(one.data, type=_Envelope)
        told.append((parse_time(event.time).timestamp(), decode(facts.FACTS[event.type], bytes(event.data), at="data")))
    told.sort(key=lambda timed: timed[0])
    days = [int(at // DAY) for at, _ in told]
    counts = dict.fromkeys(range(days[0], days[-1] + 1), 0)
    for day in days:
        counts[day] += 1
    first = max(counts, key=lambda day: sum(counts.get(day + more, 0) for more in range(DAYS)))
    return [(at - first * DAY, body) for at, body in told if 0 <= at - first * DAY < DAYS * DAY]


class StreamWorld(World):
    """Honest traffic of a real stream; misuse is injected as into any world."""

    def __init__(self, stream: str, seed: int) -> None:
        super().__init__(seed, agents=60, days=DAYS)
        self.stream = stream
        self._names: dict[str, int] = {}

    def honest(self) -> None:
        """Add contacts for some purchases or handled cases, goodwill on one contact of five, shifts and thanks."""
        staff, busy = random.Random(self.seed), dict[str, list[float]]()
        for at, body in _busiest_days(self.stream):
            agent = self._agent(staff, body)
            if isinstance(body, facts.PurchaseCompleted):
                self.add_event(at, body)
                if staff.random() < 0.5 and body.customer_id:
                    later = at + HOUR + staff.random() * 2 * DAY
                    interaction = self.add_contact(later, agent, body.customer_id)
                    order = body.order_id if body.total.minor > 2_000 else None
                    self._serve(staff, busy, later, agent, body.customer_id, interaction, order)
            elif isinstance(body, facts.InteractionOpened):
                self.add_event(at, msgspec.structs.replace(body, agent_id=agent, customer_id=self.new("C")))
                self._serve(staff, busy, at + 60, agent, self.new("C"), body.interaction_id, None)
            elif isinstance(body, facts.InteractionTransferred):
                self.add_event(at, msgspec.structs.replace(body, to_agent_id=agent))
        for agent, start, end in _shifts(busy):
            self.add_event(start, facts.ShiftStarted(employee_id=agent))
            self.add_event(end, facts.ShiftEnded(employee_id=agent))
            if staff.random() < 0.1:
                self.add_thanks(start, agent, f"A-{staff.randrange(self.agents)}")
            if staff.random() < 0.15:
                self.add_escalation(start + HOUR, agent, f"M-{staff.randrange(5)}", yes=staff.random() < 0.9)

    def _agent(self, staff: random.Random, body: Any) -> str:
        """Return the number of the person that handled it; for a purchase one of sixty agents."""
        name = getattr(body, "agent_id", None) or getattr(body, "to_agent_id", None)
        return f"A-{self._names.setdefault(name, len(self._names))}" if name else f"A-{staff.randrange(self.agents)}"

    def _serve(
        self,
        staff: random.Random,
        busy: dict[str, list[float]],
        at: float,
        agent: str,
        customer: str,
        interaction: str,
        order: str | None,
    ) -> None:
        busy.setdefault(agent, []).append(at)
        if staff.random() < 0.2:
            self.add_action(
                at + 300,
                agent,
                min(self.random_amount(), 1_999),
                customer,
                interaction,
                order=order,
                note=staff.choice(("sorry", *(self.new("note") for _ in range(3)))),
            )


def _shifts(busy: dict[str, list[float]]) -> Iterator[tuple[str, float, float]]:
    """Return shifts from an hour before the first to an hour after the last activity, separated by four hours."""
    for agent, times in busy.items():
        times.sort()
        begins = [place for place, at in enumerate(times) if place == 0 or at - times[place - 1] > 4 * HOUR]
        for begin, end in pairwise([*begins, len(times)]):
            start, last = times[begin] - HOUR, times[end - 1] + HOUR
            while start < last:  # an account that is used around the clock gets several shifts
                yield agent, start, min(start + 12 * HOUR, last)
                start += 12 * HOUR
