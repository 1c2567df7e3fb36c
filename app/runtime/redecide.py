"""Decisions made again from a ledger's log."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from consumers.decisions.redecision import Redecider
from consumers.decisions.state.follower import DecisionState
from ledger.store.atomic_batches import MAX_BATCH
from ledger.store.event_id_index import EventIdIndex
from ledger.store.subscription import Follower

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log, Recorded


class RecordedEvents:
    """Events in memory, in order of their positions: those of a case file."""

    def __init__(self, events: Sequence[Recorded]) -> None:
        self.events = list(events)

    async def at(self, position: int) -> Recorded | None:
        """Return the event at a position, or ``None``."""
        return next((one for one in self.events if one.position == position), None)

    async def read_subject(self, subject: str, after: int = 0) -> list[Recorded]:
        """Return the events of a subject after a position, oldest first."""
        return [one for one in self.events if one.subject == subject and one.position > after]

    async def replay(self, until: int) -> AsyncIterator[Sequence[Recorded]]:
        """Yield the events up to a position."""
        yield [one for one in self.events if one.position <= until]


async def redecide_case(events: Sequence[Recorded], folder: Path, first: int, last: int) -> Redecider:
    """Make the one decision at the positions ``first`` to ``last`` again, from the events of a case file."""
    known = RecordedEvents([one for one in sorted(events) if one.position <= last])
    redecider = Redecider(known, lambda: DecisionState(EventIdIndex(folder / "case.sqlite")), known.replay, first)
    await redecider.read(known.events)
    await redecider.end()
    return redecider


async def redecide_log(
    client: LedgerClient, log: Log, folder: Path, first: int, until: int, progressed: Callable[[int, int], None]
) -> Redecider:
    """Make the decisions that begin at the positions ``first`` to ``until`` again.

    ``folder`` takes the indexes of the states. ``progressed`` gets the position that was reached, and the last one.
    """
    numbers = count(1)

    def new_state() -> DecisionState:
        return DecisionState(EventIdIndex(folder / f"state-{next(numbers)}.sqlite"))

    async def replay(end: int) -> AsyncIterator[Sequence[Recorded]]:
        async for batch in Follower(client, log, "redecide").batches(until=end):
            yield batch

    redecider = Redecider(log, new_state, replay, first, until)
    async for batch in replay(min(until + MAX_BATCH, await log.last_position())):  # a decision may go on after it
        await redecider.read(batch)
        progressed(min(batch[-1].position, until), until)
    await redecider.end()
    return redecider
