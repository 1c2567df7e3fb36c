"""Worlds of real traffic: who bought, and who handled what, as it was; agents, goodwill and amounts from a seed."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from app.importing.importer import import_events, load_mapping
from app.publisher import Outcome
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


def there() -> list[str]:
    """The streams whose files are there."""
    return [name for name, file in FILES.items() if (DATA / file).exists()]


@cache
def _told(name: str) -> list[tuple[float, Any]]:
    """The busiest ninety days of a stream, as (seconds since its first day, fact)."""
    made = import_events(load_mapping(name), [DATA / FILES[name]], Outcome(), lambda _bytes: None)
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
        """A contact for some purchases, or for what people handled; goodwill on one contact of five; shifts, thanks."""
        staff, busy = random.Random(self.seed), dict[str, list[float]]()
        for at, body in _told(self.stream):
            agent = self._agent(staff, body)
            if isinstance(body, facts.PurchaseCompleted):
                self.tell(at, body)
                if staff.random() < 0.5 and body.customer_id:
                    later = at + HOUR + staff.random() * 2 * DAY
                    interaction = self.contact(later, agent, body.customer_id)
                    order = body.order_id if body.total.minor > 2_000 else None
                    self._serve(staff, busy, later, agent, body.customer_id, interaction, order)
            elif isinstance(body, facts.InteractionOpened):
                self.tell(at, msgspec.structs.replace(body, agent_id=agent, customer_id=self.new("C")))
                self._serve(staff, busy, at + 60, agent, self.new("C"), body.interaction_id, None)
            elif isinstance(body, facts.InteractionTransferred):
                self.tell(at, msgspec.structs.replace(body, to_agent_id=agent))
        for agent, start, end in _shifts(busy):
            self.tell(start, facts.ShiftStarted(employee_id=agent))
            self.tell(end, facts.ShiftEnded(employee_id=agent))
            if staff.random() < 0.1:
                self.thanks(start, agent, f"A-{staff.randrange(self.agents)}")
            if staff.random() < 0.15:
                self.asks(start + HOUR, agent, f"M-{staff.randrange(5)}", yes=staff.random() < 0.9)

    def _agent(self, staff: random.Random, body: Any) -> str:
        """Whoever really handled it, under a number; for a purchase one of sixty."""
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
            self.gives(
                at + 300,
                agent,
                min(self._amount(), 1_999),
                customer,
                interaction,
                order=order,
                note=staff.choice(("sorry", *(self.new("note") for _ in range(3)))),
            )


def _shifts(busy: dict[str, list[float]]) -> Iterator[tuple[str, float, float]]:
    """On duty from an hour before the first to an hour after the last thing done, where four hours lie between."""
    for agent, times in busy.items():
        times.sort()
        begins = [place for place, at in enumerate(times) if place == 0 or at - times[place - 1] > 4 * HOUR]
        for begin, end in pairwise([*begins, len(times)]):
            start, last = times[begin] - HOUR, times[end - 1] + HOUR
            while start < last:  # an account that works around the clock is several people, one after the other
                yield agent, start, min(start + 12 * HOUR, last)
                start += 12 * HOUR
