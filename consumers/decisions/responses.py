"""The first answer to a request, built again from the recorded events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from config import topology
from consumers.decisions.budget_repository import budget_of
from domain.decisions.answers import answer_of
from domain.events import decisions, flags
from ledger.errors import LostEventsError, UnavailableError
from projections.engine.events import read_event

if TYPE_CHECKING:
    from domain.budgets.budget import Budget
    from domain.serialization import JsonObject
    from ledger.store.log import Log

_REPLICA_BEHIND_SECONDS = (0, 0.02, 0.05, 0.1, 0.2, 0.5)


async def first_answer(log: Log, position: int) -> JsonObject:
    """Return the answer that was given when the event at this position was recorded.

    Raises:
        LostEventsError: the log has no event there.
        UnavailableError: a replica stays behind its leader.

    """
    recorded = await log.at(position)
    if recorded is None:
        raise LostEventsError("a request was answered by an event that is gone", position)
    record = read_event(recorded).body
    budget: Budget | None = None
    if recorded.subject.startswith(topology.BUDGET_SUBJECT):
        for pause in _REPLICA_BEHIND_SECONDS:
            await asyncio.sleep(pause)
            events = [event for event in await log.read_subject(recorded.subject) if event.position <= position]
            if events and events[-1].position == position:
                break
        else:  # another replica returned the event itself
            message = f"{recorded.subject} cannot be read up to position {position}: a replica is behind its leader"
            raise UnavailableError(message)
        budget = budget_of(events)
    assert isinstance(record, (decisions.Record, flags.FlagEvent))
    return answer_of(record, budget, position)
