"""Corrections of facts, and their effect on rows of views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import sqlalchemy as sa

from domain.events import facts
from domain.serialization import convert
from ledger.errors import LostEventsError
from ledger.store.cloudevents import stored_decoder
from projections.engine.events import TYPES, Event, read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.store.log import Log, Recorded

CORRECTED = b"resolution.fact.corrected.v1"
corrections_metadata = sa.MetaData()
corrections = sa.Table(
    "corrections",
    corrections_metadata,
    sa.Column("position", sa.BigInteger, primary_key=True),  # of the corrected fact
    sa.Column("corrected_by", sa.BigInteger, nullable=False),
    sa.Column("data", sa.Text),  # the right data as JSON; null if the fact never happened
)


class Correction(NamedTuple):
    """A correction of a fact: as it was known before, and as it is known now (``None``: it never happened)."""

    position: int
    before: Event | None
    after: Event | None
    reason: str


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


def correction_of(event: Event, original: Recorded, known: Any = ...) -> Correction:
    """Return the change that a `fact.corrected` makes.

    ``known`` is the data of an earlier correction of the same fact, ``...`` where there was none.
    """
    first = read_event(original)
    before = first if known is ... else _with_data(first, known)
    return Correction(original.position, before, _with_data(first, event.body.data), event.body.reason)


def _with_data(event: Event, data: dict[str, Any] | None) -> Event | None:
    if data is None:
        return None
    return Event(event.position, event.stored, convert(TYPES[event.type], data), event.subject)


def read_known(connection: sa.Connection, position: int) -> Any:
    """Return the data of the last correction of a fact, or ``...`` if it was not corrected."""
    row = connection.execute(sa.select(corrections.c.data).where(corrections.c.position == position)).one_or_none()
    return ... if row is None else (None if row.data is None else msgspec.json.decode(row.data))


def interaction_values(correction: Correction, row: dict[str, Any]) -> dict[str, Any]:
    """Return the changes to an interaction's row: fields that still show the wrong data, and counts."""
    before = correction.before.body if correction.before else None
    after = correction.after.body if correction.after else None
    values: dict[str, Any] = {}
    for column, field in _SHOWN.get(type(before or after), {}).items():
        if row.get(column) == getattr(before, field, None):
            values[column] = getattr(after, field, None)
    match before or after:
        case facts.InteractionTransferred():
            values["transfers"] = (row.get("transfers") or 0) - (before is not None) + (after is not None)
            told_again = bool(getattr(after, "story_repeated", None)) - bool(getattr(before, "story_repeated", None))
            values["stories_repeated"] = (row.get("stories_repeated") or 0) + told_again
        case facts.InteractionOpened() if (before is None) != (after is None):
            values["status"] = "open" if after is not None else "never happened"
        case facts.InteractionResolved() if after is None and row.get("status") == "resolved":
            values["status"] = "open"
        case facts.InteractionReopened() if after is None and row.get("status") == "open":
            values["status"] = "resolved"
    return values


_SHOWN: dict[type, dict[str, str]] = {
    facts.InteractionOpened: {
        name: name for name in ("customer_id", "channel", "reason", "agent_id", "team_id", "line", "order_id")
    },
    facts.InteractionTransferred: {"agent_id": "to_agent_id", "team_id": "to_team_id", "line": "line"},
    facts.InteractionResolved: {"resolution": "resolution"},
}
