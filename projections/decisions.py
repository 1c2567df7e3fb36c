"""decisions: what judging them again needs of each, and of what they depended on; see `report what-if`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from domain import facts, records
from domain.judged import DECISIONS, Decided, decided
from domain.requests import action_id_of
from domain.wire import decoder_of, encode
from projections.events import types_of
from projections.generations import upsert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from projections.events import Event

metadata = sa.MetaData()
depended = sa.Table(
    "depended",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),  # of a correction: of the fact that was wrong
    sa.Column("at", sa.BigInteger, nullable=False),  # microseconds since 1970
    sa.Column("data", sa.LargeBinary),  # JSON, a decision's small; of a correction what is right, null: never happened
    sa.Column("corrects", sa.Boolean, nullable=False),
    sa.Column("before", sa.LargeBinary),  # of a correction: what was known before
    sa.Column("action_id", sa.Text),  # of an action that a fact reported
)
_PEOPLE = types_of(
    facts.CustomerLinked, facts.CustomerUnlinked, facts.EmployeeJoined, facts.EmployeeChanged, facts.EmployeeLeft,
    facts.RelationshipDeclared, facts.TrainingCompleted, facts.ActionReported,
)  # fmt: skip
_BOOKS = types_of(
    records.ActionTaken, records.ActionHeld, records.AuthorityFellShort, records.Posting, records.BudgetOpened,
    records.BudgetClosed, records.BudgetDrawn, records.BudgetGranted, records.BudgetTransferred, records.EscalationStep,
    records.EscalationRequested,
)  # fmt: skip
DEPENDED: dict[str, type[Any]] = types_of(facts.FactCorrected) | _PEOPLE | _BOOKS
"""What decisions depend on, and they themselves."""
_EPOCH, _TICK = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_ROWS = 4000


class Depended(NamedTuple):
    """One event: its body; of a correction what is right and what was wrong, none where it never happened."""

    position: int
    at: datetime
    body: Any
    corrects: bool
    before: Any
    action_id: str


class Decisions:
    """The model (see ``projections.model.Model``)."""

    name = "decisions"
    version = 1
    metadata = metadata
    prefixes = ("ledger.fact.", "ledger.budget.")
    types = DEPENDED

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Keep what judging needs."""
        upsert(connection, depended, [row for event in events if (row := _row(event)) is not None])

    def forget(self) -> None:
        """Nothing is cached."""


def _row(event: Event) -> dict[str, Any] | None:
    body, name, before, action_id = event.body, event.type, None, None
    if isinstance(body, facts.FactCorrected):
        fact = event.correction.before or event.correction.after
        if fact is None or fact.type not in _PEOPLE:
            return None
        name, body = fact.type, _body(event.correction.after)
        before = _body(event.correction.before)
    elif name not in DEPENDED:
        return None
    elif isinstance(body, DECISIONS):
        body = decided(body)
    elif isinstance(body, facts.ActionReported):
        action_id = action_id_of(event.stored.source, event.stored.id)
    return {
        "position": event.position, "type": name, "at": (event.time - _EPOCH) // _TICK,
        "data": None if body is None else encode(body), "corrects": isinstance(event.body, facts.FactCorrected),
        "before": None if before is None else encode(before), "action_id": action_id,
    }  # fmt: skip


def _body(event: Event | None) -> Any:
    return None if event is None else event.body


def read_depended(connection: sa.Connection) -> Iterator[list[Depended]]:
    """What decisions depended on, and they themselves, in the order of the log."""
    query = sa.select(depended.c.position, depended.c.type, depended.c.at, depended.c.data, depended.c.corrects,
                      depended.c.before, depended.c.action_id).order_by(depended.c.position)  # fmt: skip
    cursor = connection.execute(query).cursor
    decoders = {
        name: decoder_of(Decided if issubclass(cls, DECISIONS) else cls).decode for name, cls in DEPENDED.items()
    }
    while rows := cursor.fetchmany(_ROWS):
        some = []
        for position, name, at, data, corrects, before, action_id in rows:
            body = None if data is None else decoders[name](data)
            was = None if before is None else decoders[name](before)
            some.append(Depended(position, _EPOCH + timedelta(microseconds=at), body, corrects, was, action_id or ""))
        yield some
