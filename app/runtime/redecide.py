"""Decisions made again from a ledger's log."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from consumers.decisions.redecision import Redecider
from consumers.decisions.state.follower import DecisionState
from ledger.store.event_id_index import EventIdIndex
from ledger.store.subscription import Follower

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log, Recorded


async def redecide_log(
    client: LedgerClient, log: Log, folder: Path, first: int, until: int, progressed: Callable[[int, int], None]
) -> Redecider:
    """Make the decisions at the positions ``first`` to ``until`` again.

    ``folder`` takes the indexes of the states. ``progressed`` gets the position that was reached, and the last one.
    """
    numbers = count(1)

    def new_state() -> DecisionState:
        return DecisionState(EventIdIndex(folder / f"state-{next(numbers)}.sqlite"))

    async def replay(end: int) -> AsyncIterator[Sequence[Recorded]]:
        async for batch in Follower(client, log, "redecide").batches(until=end):
            yield batch

    redecider = Redecider(log, new_state, replay, first)
    async for batch in replay(until):
        await redecider.read(batch)
        progressed(batch[-1].position, until)
    await redecider.end()
    return redecider
