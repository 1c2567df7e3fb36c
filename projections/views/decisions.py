"""View decisions: the input of policy simulations (`report what-if`), with the facts that decisions depend on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import sqlalchemy as sa

from domain.commands import action_id_of
from domain.events import decisions, facts
from domain.serialization import decoder_of, encode
from domain.simulation.comparison import DECISIONS, DecisionSummary, decided
from projections.engine.columns import position_key
from projections.engine.events import types_of
from projections.engine.storage import upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from projections.engine.events import Event
    from projections.engine.storage import Row

metadata = sa.MetaData()
depended = sa.Table(
    "depended",
    metadata,
    position_key(),
    sa.Column("type", sa.Text, nullable=False),  # of a correction: `corrected`
    sa.Column("at", sa.BigInteger, nullable=False),  # microseconds since 1970
    sa.Column("data", sa.LargeBinary, nullable=False),  # the fields needed, as JSON; a summary for decisions
)
_PEOPLE = types_of(
    facts.CustomerLinked,
    facts.CustomerUnlinked,
    facts.EmployeeJoined,
    facts.EmployeeChanged,
    facts.EmployeeLeft,
    facts.RelationshipDeclared,
    facts.TrainingCompleted,
    facts.ActionReported,
)
_BOOKS = types_of(
    decisions.ActionTaken,
    decisions.ActionHeld,
    decisions.AuthorityFellShort,
    decisions.Posting,
    decisions.BudgetOpened,
    decisions.BudgetClosed,
    decisions.BudgetDrawn,
    decisions.BudgetGranted,
    decisions.BudgetTransferred,
    decisions.EscalationStep,
    decisions.EscalationRequested,
)
DEPENDED = types_of(facts.FactCorrected) | _PEOPLE | _BOOKS
"""Types of decisions, and of the events that they depend on."""
_EPOCH, _TICK = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_ROWS = 4000
_CORRECTED, _REPORTED = "corrected", "reported"

type Depended = tuple[int, datetime, msgspec.Struct | Corrected]
"""An event: its position, its event time and its body, a `DecisionSummary`, `Corrected` or `Reported`."""


class Reported(msgspec.Struct):
    """An action that a fact reported, with its id."""

    action_id: str
    body: facts.ActionReported


class Corrected(NamedTuple):
    """A corrected fact: as it was known before, and as it is right (``None``: it never happened)."""

    before: msgspec.Struct | None
    after: msgspec.Struct | None


class _Correction(msgspec.Struct):
    type: str
    before: msgspec.Raw
    after: msgspec.Raw


class Decisions:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "decisions"
    version = 4
    metadata = metadata
    prefixes = ("ledger.fact.", "ledger.budget.")
    types = DEPENDED

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Store the fields that a simulation needs."""
        upsert(connection, depended, [row for event in events if (row := _row(event)) is not None], are_new=True)

    def forget(self) -> None:
        """Do nothing, because nothing is cached."""


def _row(event: Event) -> Row | None:
    name, body = event.type, event.body
    data: object = body
    if event.correction:
        before, after = event.correction.before, event.correction.after
        fact = before or after
        if fact is None or fact.type not in _PEOPLE:
            return None
        known = {"before": before.body if before else None, "after": after.body if after else None}
        name, data = _CORRECTED, {"type": fact.type, **known}
    elif name not in DEPENDED:
        return None
    elif isinstance(body, DECISIONS):
        data = decided(body)
    elif isinstance(body, facts.ActionReported):
        name, data = _REPORTED, Reported(action_id_of(event.stored.source, event.stored.id), body)
    at = (event.time - _EPOCH) // _TICK
    return {"position": event.position, "type": name, "at": at, "data": encode(data)}


def read_depended(connection: sa.Connection) -> Iterator[list[Depended]]:
    """Yield decisions and the events they depend on in batches, in the order of the log."""
    columns = (depended.c.position, depended.c.type, depended.c.at, depended.c.data)
    cursor = connection.execute(sa.select(*columns).order_by(depended.c.position)).cursor
    plain: dict[str, Callable[[bytes], msgspec.Struct]] = {
        name: decoder_of(DecisionSummary if issubclass(cls, DECISIONS) else cls).decode
        for name, cls in DEPENDED.items()
    }
    decoders: dict[str, Callable[[bytes], msgspec.Struct | Corrected]] = {
        **plain,
        _REPORTED: decoder_of(Reported).decode,
        _CORRECTED: partial(_corrected, plain),
    }
    microseconds = timedelta.resolution
    while rows := cursor.fetchmany(_ROWS):
        yield [(position, _EPOCH + at * microseconds, decoders[name](data)) for position, name, at, data in rows]


def _corrected(decoders: Mapping[str, Callable[[bytes], msgspec.Struct]], data: bytes) -> Corrected:
    found = decoder_of(_Correction).decode(data)
    known = (None if bytes(one) == b"null" else decoders[found.type](bytes(one)) for one in (found.before, found.after))
    return Corrected(*known)
