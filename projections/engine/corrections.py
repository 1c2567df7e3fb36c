"""Corrections of facts, and their effect on rows of views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from domain.events.facts import FactCorrected
from domain.serialization import convert
from ledger.errors import LostEventsError
from ledger.store.cloudevents import stored_decoder
from projections.engine.columns import position_key
from projections.engine.events import TYPES, Correction, Event, read_event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import EllipsisType

    from domain.serialization import JsonObject
    from ledger.store.log import Log, Recorded

CORRECTED = b"resolution.fact.corrected.v1"
corrections_metadata = sa.MetaData()
corrections = sa.Table(
    "corrections",
    corrections_metadata,
    position_key(),  # of the corrected fact
    sa.Column("corrected_by", sa.BigInteger, nullable=False),
    sa.Column("data", sa.Text),  # the right data as JSON; null if the fact never happened
)


async def originals_of(log: Log, batch: Sequence[Recorded]) -> dict[int, Recorded]:
    """Return the original facts that a batch corrects, by position.

    Raises:
        LostEventsError: an original is missing from the log.

    """
    found: dict[int, Recorded] = {}
    for recorded in batch:
        if CORRECTED in recorded.data:
            position = stored_decoder.decode(recorded.data).corrects
            if position is not None and position not in found:
                original = await log.at(position)
                if original is None:
                    raise LostEventsError("a fact that was corrected is gone", position)
                found[position] = original
    return found


def correction_of(event: Event, original: Recorded, known: JsonObject | EllipsisType | None = ...) -> Correction:
    """Return the change that a `fact.corrected` makes.

    ``known`` is the data of an earlier correction of the same fact, ``...`` where there was none.
    """
    body, first = event.body, read_event(original)
    assert isinstance(body, FactCorrected)
    before = first if known is ... else _with_data(first, known)
    return Correction(original.position, before, _with_data(first, body.data), body.reason)


def _with_data(event: Event, data: JsonObject | None) -> Event | None:
    if data is None:
        return None
    return Event(event.position, event.stored, convert(TYPES[event.type], data), event.subject)


def read_known(connection: sa.Connection, position: int) -> JsonObject | EllipsisType | None:
    """Return the data of the last correction of a fact, or ``...`` if it was not corrected."""
    row = connection.execute(sa.select(corrections.c.data).where(corrections.c.position == position)).one_or_none()
    return ... if row is None else (None if row.data is None else msgspec.json.decode(row.data))
