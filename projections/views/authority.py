"""View authority: requests for authority and their outcomes, here or in other systems, and shortfalls."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from domain.actions import named_team
from domain.events import decisions, facts
from domain.matters import matter_of
from domain.serialization import encode
from projections.engine.columns import texts
from projections.engine.entities import EntityRows, facts_of, last_fact_column, waited_seconds
from projections.engine.events import types_of
from projections.engine.row_cache import RowCache, dict_rows, plain_rows
from projections.engine.temporal_tables import as_of, past_of
from projections.views.careers import Careers, ReportedRows, careers_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    import msgspec

    from projections.engine.entities import KeptFact
    from projections.engine.events import Event
    from projections.engine.storage import Row

_REPORTED = sa.text("reported")
metadata = sa.MetaData()
asked = sa.Table(
    "asked",
    metadata,
    sa.Column("asking", sa.Text, primary_key=True),  # the system that handles it, and the id there
    sa.Column("position", sa.BigInteger),
    sa.Column("reported", sa.Boolean),
    sa.Column("requested", sa.Text),
    *texts("agent_id", "agent_kind", "role", "team_id", "named_team", "kind", "basis", "reason", "currency"),
    *texts("interaction_id", "matter", "rules"),  # rules: the limits that it met, as JSON
    sa.Column("asked_minor", sa.BigInteger),
    sa.Column("outcome", sa.Text),  # approved, denied, withdrawn, expired; null while it is open
    sa.Column("approved_minor", sa.BigInteger),
    sa.Column("decided_by", sa.Text),
    sa.Column("waited_seconds", sa.Float),  # until the first approval, else until the last outcome
    sa.Column("rejections", sa.Integer),
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("asked_elsewhere", "agent_id", "requested", sqlite_where=_REPORTED, postgresql_where=_REPORTED),
    sa.Index("asked_by_time", "requested"),
    sa.Index("asked_by_matter", "matter"),
)
past_of(asked)
facts_of(asked)
shortfalls = sa.Table(
    "shortfalls",
    metadata,
    sa.Column("shortfall", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger),
    *texts("time", "agent_id", "role", "kind", "basis", "reason", "currency", "matter"),
    sa.Column("amount_minor", sa.BigInteger),
    sa.Column("outcome", sa.Text),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("shortfalls_by_time", "time"),
    sa.Index("shortfalls_by_matter", "matter"),
)
past_of(shortfalls)
careers = careers_in(metadata)


class Authority:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "authority"
    version = 14
    metadata = metadata
    prefixes = ("ledger.",)
    types = types_of(
        decisions.EscalationRequested,
        decisions.EscalationStep,
        decisions.AuthorityFellShort,
        facts.EscalationReported,
        facts.EscalationOutcomeReported,
        facts.EmployeeJoined,
        facts.EmployeeChanged,
        facts.EmployeeLeft,
        facts.FactCorrected,
    )

    def __init__(self) -> None:
        self._careers = Careers(careers)
        self._asked = EntityRows(
            asked,
            {
                facts.EscalationReported: (
                    "escalation_id",
                    "kind",
                    "amount",
                    "requested_by",
                    "reason",
                    "interaction_id",
                ),
                facts.EscalationOutcomeReported: ("escalation_id", "verdict", "decided_by", "amount"),
            },
            _told,
            openings=1,
            key_of=reported_asking,
            completed=self._careers.completes("requested"),
        )
        self._careers.reported = (ReportedRows(self._asked, asked, "requested", "reported"),)
        self._short = RowCache(shortfalls)

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Update the rows that these events concern."""
        self._read_ahead(connection, events)
        for event in events:
            match event.body:
                case decisions.EscalationRequested() as body:
                    self._ask(connection, event, body)
                case facts.EscalationReported() | facts.EscalationOutcomeReported():
                    self._asked.add(connection, event)
                case facts.EmployeeJoined() | facts.EmployeeChanged() | facts.EmployeeLeft():
                    self._careers.add(connection, event)
                case decisions.EscalationForwarded():
                    continue
                case decisions.EscalationStep() as body:
                    self._end(connection, event, body)
                case decisions.AuthorityFellShort() as body:
                    self._fall_short(connection, event, body)
                case facts.FactCorrected() if event.correction:
                    self._asked.correct(connection, event.correction, event.position)
                    self._careers.correct(connection, event.correction, event.position)
                case _:
                    continue
        for rows in (self._asked, self._short, self._careers):
            rows.write(connection)

    def _read_ahead(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Read together the rows that these events concern."""
        own = decisions.EscalationRequested | decisions.EscalationStep
        self._asked.read_ahead(
            connection, (f" {one.body.escalation_id}" for one in events if isinstance(one.body, own))
        )
        for entities in (self._asked, self._careers.rows):
            entities.read_entities(connection, events)
        short = (f"{one.position}" for one in events if isinstance(one.body, decisions.AuthorityFellShort))
        self._short.read_ahead(connection, short)

    def forget(self) -> None:
        """Drop cached rows."""
        for rows in (self._asked, self._short, self._careers):
            rows.forget()

    def _ask(self, connection: sa.Connection, event: Event, body: decisions.EscalationRequested) -> None:
        names = ("agent_id", "agent_kind", "basis", "role", "team_id", "kind", "reason", "interaction_id")
        values = {name: getattr(body, name) for name in names} | {
            "named_team": named_team(body),
            "matter": _matter(body),
            "rules": encode([one.rule for one in body.reasons]).decode(),
            "position": event.position,
            "reported": False,
            "requested": event.stored.time,
            "rejections": 0,
            "currency": body.amount.currency,
            "asked_minor": body.amount.minor,
        }
        self._asked.put(connection, f" {body.escalation_id}", values, event.position)

    def _end(self, connection: sa.Connection, event: Event, body: decisions.EscalationStep) -> None:
        values = {
            "outcome": body.status,
            "decided_by": body.decided_by,
            "waited_seconds": body.waited_seconds,
            "approved_minor": body.amount.minor if body.status == "approved" else 0,
        }
        self._asked.put(connection, f" {body.escalation_id}", values, event.position)

    def _fall_short(self, connection: sa.Connection, event: Event, body: decisions.AuthorityFellShort) -> None:
        values = {
            "position": event.position,
            "time": event.stored.time,
            "agent_id": body.agent_id,
            "role": body.role,
            "kind": body.kind,
            "basis": body.basis,
            "reason": body.reason,
            "currency": body.amount.currency,
            "amount_minor": body.amount.minor,
            "outcome": body.outcome,
            "matter": _matter(body),
        }
        self._short.put(connection, f"{event.position}", values, event.position)


def reported_asking(event: Event) -> str:
    """Return the key of an escalation in another system: its source, and the id there."""
    body = event.body
    assert isinstance(body, facts.EscalationReported | facts.EscalationOutcomeReported)
    return f"{event.stored.source} {body.escalation_id}"


def _told(row: Row, body: msgspec.Struct, fact: KeptFact) -> Row:
    """Return the changes that a fact makes to an escalation in another system."""
    if isinstance(body, facts.EscalationReported):
        values: Row = {
            "agent_id": row["agent_id"] or body.requested_by,
            "kind": row["kind"] or body.kind,
            "reason": row["reason"] or body.reason,
            "interaction_id": row["interaction_id"] or body.interaction_id,
        }
        if row["requested"] is None:
            amount = body.amount
            values |= {"position": fact.position, "requested": fact.time, "reported": True, "basis": "goodwill"}
            values |= {"currency": amount.currency, "asked_minor": amount.minor, "rejections": 0}
        return values
    assert isinstance(body, facts.EscalationOutcomeReported)
    if row["outcome"] == "approved":  # an approval is final
        return {}
    requested, rejections = row["requested"], row["rejections"] or 0
    values = {
        "reported": True,
        "outcome": body.verdict,
        "decided_by": body.decided_by,
        "approved_minor": 0,
        "rejections": rejections + (body.verdict == "denied"),
    }
    if requested is not None:
        values["waited_seconds"] = waited_seconds(requested, fact.time)
    if body.verdict == "approved":
        values["approved_minor"] = body.amount.minor if body.amount else row["asked_minor"]
    return values


def _matter(body: decisions.EscalationRequested | decisions.AuthorityFellShort) -> str:
    return encode(matter_of(body, body.amount.minor, body.amount.currency)).decode()


def read_asked(
    connection: sa.Connection, position: int | None = None, begin: str | None = None, end: str | None = None
) -> list[Row]:
    """Return the requests for authority in the order of their times, as of a position; only those of [begin, end)."""
    source = as_of(asked, position)
    within = _within(source.c.requested, begin, end)
    query = sa.select(source).where(source.c.asked_minor.is_not(None), *within)
    return dict_rows(connection, query.order_by(source.c.requested, source.c.asking))


def read_incomplete(connection: sa.Connection, position: int | None = None) -> int:
    """Return the number of escalations in other systems whose request was not reported, as of a position."""
    source = as_of(asked, position)
    half = source.c.asked_minor.is_(None), source.c.outcome.is_not(None)
    return connection.execute(sa.select(sa.func.count()).where(*half)).scalar_one()


class TellingToEscalate(NamedTuple):
    """A request of goodwill that the ledger told to escalate."""

    agent_id: str
    matter: str
    kind: str
    reason: str
    time: str


def read_told(
    connection: sa.Connection, position: int | None = None, begin: str | None = None, end: str | None = None
) -> list[TellingToEscalate]:
    """Return the requests of goodwill that were told to escalate as of a position, in the order of the log.

    With limits they are all requests of the matters that were told so within [begin, end).
    """
    source = as_of(shortfalls, position)
    columns = (source.c[name] for name in TellingToEscalate._fields)
    query = sa.select(*columns).where(*_told_to_escalate(source), *_of_matters(source.c.matter, begin, end))
    return [TellingToEscalate(*row) for row in plain_rows(connection, query.order_by(source.c.position))]


def read_filed(connection: sa.Connection, begin: str | None, end: str | None) -> list[tuple[str, str]]:
    """Return matter and time of the escalations of goodwill of the matters that ``read_told`` returns."""
    filed = asked.c.basis == "goodwill", asked.c.matter.is_not(None), asked.c.asked_minor.is_not(None)
    query = sa.select(asked.c.matter, asked.c.requested).where(*filed, *_of_matters(asked.c.matter, begin, end))
    return plain_rows(connection, query)


def _told_to_escalate(source: sa.FromClause) -> tuple[sa.ColumnElement[bool], ...]:
    return source.c.basis == "goodwill", source.c.outcome == "escalate"


def _of_matters(
    matter: sa.ColumnElement[str], begin: str | None, end: str | None
) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition that a matter was told to escalate within [begin, end); none without limits."""
    if begin is None and end is None:
        return ()
    told = sa.select(shortfalls.c.matter).where(*_told_to_escalate(shortfalls), *_within(shortfalls.c.time, begin, end))
    return (matter.in_(told),)


def _within(time: sa.ColumnElement[str], begin: str | None, end: str | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a time lies in [begin, end); ``None`` is without limit."""
    first = [] if begin is None else [time >= begin]
    return first if end is None else [*first, time < end]
