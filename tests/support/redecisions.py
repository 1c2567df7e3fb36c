"""Decisions of a log made again in a test, also of a log that was forged."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING

from consumers.decisions.redecision import Redecider
from consumers.decisions.state.follower import DecisionState
from ledger.store.event_id_index import EventIdIndex
from ledger.store.log import Recorded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from ledger.store.log import Log
    from tests.support.documents import Document


class ForgedLog:
    """The events of a log in memory, which a test may change."""

    def __init__(self, events: Sequence[Recorded]) -> None:
        self.events = list(events)

    @classmethod
    async def copy_of(cls, log: Log) -> ForgedLog:
        """Return all events of a log."""
        return cls(await log.read_subject(">"))

    async def at(self, position: int) -> Recorded | None:
        """Return the event at a position, or ``None``."""
        return next((one for one in self.events if one.position == position), None)

    async def read_subject(self, subject: str, after: int = 0) -> list[Recorded]:
        """Return the events of a subject after a position, oldest first."""
        return [one for one in self.events if one.subject == subject and one.position > after]

    def forged(self, position: int, change: Callable[[Document], None]) -> ForgedLog:
        """Return a copy in which a function has changed one event."""
        found: list[Recorded] = []
        for one in self.events:
            data = one.data
            if one.position == position:
                event = json.loads(data)
                change(event)
                data = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
            found.append(one._replace(data=data))
        return ForgedLog(found)

    def reordered(self, position: int, other: int) -> ForgedLog:
        """Return a copy in which the events of two positions have changed places."""
        places = {position: other, other: position}
        found = [one._replace(position=places.get(one.position, one.position)) for one in self.events]
        return ForgedLog(sorted(found))


async def redecide(log: ForgedLog, folder: Path) -> Redecider:
    """Make every decision of a log again."""
    numbers = count(1)

    def new_state() -> DecisionState:
        return DecisionState(EventIdIndex(folder / f"state-{next(numbers)}.sqlite"))

    async def replay(until: int) -> AsyncIterator[Sequence[Recorded]]:
        yield [one for one in log.events if one.position <= until]

    redecider = Redecider(log, new_state, replay)
    await redecider.read(log.events)
    await redecider.end()
    return redecider
