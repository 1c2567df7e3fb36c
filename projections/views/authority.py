"""View authority: requests for authority and their outcomes, here or in other systems, and shortfalls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from domain.events import decisions, facts
from domain.matters import matter_of
from domain.serialization import encode
from ledger.store.cloudevents import parse_time
from projections.engine.events import types_of
from projections.engine.row_cache import RowCache
from projections.engine.storage import texts
from projections.engine.temporal_tables import as_of, past_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.engine.events import Correction, Event
    from projections.engine.storage import Row

metadata = sa.MetaData()
asked = sa.Table(
    "asked",
    metadata,
    sa.Column("asking", sa.Text, primary_key=True),  # the system that handles it, and the id there
    sa.Column("position", sa.BigInteger, index=True),
    sa.Column("reported", sa.Boolean),
    *texts("requested", "agent_id", "role", "team_id", "kind", "basis", "reason", "currency"),
    *texts("matter", "rules"),  # rules: the limits that it met, as JSON
    sa.Column("asked_minor", sa.BigInteger),
    sa.Column("outcome", sa.Text),  # approved, denied, withdrawn, expired; null while it is open
    sa.Column("approved_minor", sa.BigInteger),
    sa.Column("decided_by", sa.Text),
    sa.Column("waited_seconds", sa.Float),  # until the first approval, else until the last outcome
    sa.Column("rejections", sa.Integer),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(asked)
shortfalls = sa.Table(
    "shortfalls",
    metadata,
    sa.Column("shortfall", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger),
    *texts("time", "agent_id", "role", "kind", "basis", "reason", "currency", "matter"),
    sa.Column("amount_minor", sa.BigInteger),
    sa.Column("outcome", sa.Text),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(shortfalls)


class Authority:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "authority"
    version = 3
    metadata = metadata
    prefixes = ("ledger.",)
    types = types_of(
        decisions.EscalationRequested,
        decisions.EscalationStep,
        decisions.AuthorityFellShort,
        facts.EscalationReported,
        facts.EscalationOutcomeReported,
        facts.FactCorrected,
    )

    def __init__(self) -> None:
        self._asked, self._short = RowCache(asked), RowCache(shortfalls)

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Update the rows that these events concern."""
        for event in events:
            match event.body:
                case decisions.EscalationRequested() | facts.EscalationReported() as body:
                    self._ask(connection, event, body)
                case decisions.EscalationForwarded():
                    continue
                case decisions.EscalationStep() as body:
                    self._end(connection, event, body)
                case facts.EscalationOutcomeReported() as body:
                    self._hear(connection, event, body)
                case decisions.AuthorityFellShort() as body:
                    self._fall_short(connection, event, body)
                case facts.FactCorrected() if event.correction:
                    self._correct(connection, event.position, event.correction)
                case _:
                    continue
        for rows in (self._asked, self._short):
            rows.write(connection)

    def forget(self) -> None:
        """Drop cached rows."""
        for rows in (self._asked, self._short):
            rows.forget()

    def _ask(
        self, connection: sa.Connection, event: Event, body: decisions.EscalationRequested | facts.EscalationReported
    ) -> None:
        if isinstance(body, facts.EscalationReported):
            values: Row = {"agent_id": body.requested_by, "basis": "goodwill", "role": None, "team_id": None}
        else:
            values = {name: getattr(body, name) for name in ("agent_id", "basis", "role", "team_id")}
            values |= {"matter": _matter(body), "rules": encode([one.rule for one in body.reasons]).decode()}
        values |= {
            "position": event.position,
            "reported": isinstance(body, facts.EscalationReported),
            "requested": event.stored.time,
            "kind": body.kind,
            "reason": body.reason,
            "rejections": 0,
            "currency": body.amount.currency,
            "asked_minor": body.amount.minor,
        }
        self._asked.put(connection, _asking(event, body), values, event.position)

    def _end(self, connection: sa.Connection, event: Event, body: decisions.EscalationStep) -> None:
        values = {
            "outcome": body.status,
            "decided_by": body.decided_by,
            "waited_seconds": body.waited_seconds,
            "approved_minor": body.amount.minor if body.status == "approved" else 0,
        }
        self._asked.put(connection, _asking(event, body), values, event.position)

    def _hear(self, connection: sa.Connection, event: Event, body: facts.EscalationOutcomeReported) -> None:
        """Apply an outcome from another system; an approval is final."""
        row = self._asked.get(connection, _asking(event, body))
        if row is None or row["asked_minor"] is None or row["outcome"] == "approved":
            return
        waited = (event.time - parse_time(row["requested"])).total_seconds()
        values = {
            "outcome": body.verdict,
            "decided_by": body.decided_by,
            "waited_seconds": max(0.0, waited),
            "approved_minor": 0,
            "rejections": row["rejections"] + (body.verdict == "denied"),
        }
        if body.verdict == "approved":
            values |= {
                "approved_minor": body.amount.minor if body.amount else row["asked_minor"],
                "rejections": row["rejections"],
            }
        self._asked.put(connection, row["asking"], values, event.position)

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

    def _correct(self, connection: sa.Connection, position: int, correction: Correction) -> None:
        """Apply a correction of a fact from another system."""
        before, after = correction.before, correction.after
        if before is not None and isinstance(before.body, facts.EscalationReported):
            row = self._asked.get(connection, _asking(before, before.body))
            if row is not None and after is None:
                self._asked.put(connection, row["asking"], {"asked_minor": None}, position)
        if after is not None and isinstance(after.body, facts.EscalationReported):
            body = after.body
            values = {
                "kind": body.kind,
                "agent_id": body.requested_by,
                "reason": body.reason,
                "currency": body.amount.currency,
                "asked_minor": body.amount.minor,
            }
            self._asked.put(connection, _asking(after, body), values, position)
        elif after is not None and isinstance(after.body, facts.EscalationOutcomeReported):
            row = self._asked.get(connection, _asking(after, after.body))
            if row is not None:
                self._asked.put(connection, row["asking"], {"outcome": after.body.verdict}, position)


type _OfEscalation = (
    decisions.EscalationRequested
    | decisions.EscalationStep
    | facts.EscalationReported
    | facts.EscalationOutcomeReported
)


def _asking(event: Event, body: _OfEscalation) -> str:
    where = event.stored.source if isinstance(body, facts.Fact) else ""
    return f"{where} {body.escalation_id}"


def _matter(body: decisions.EscalationRequested | decisions.AuthorityFellShort) -> str:
    return encode(matter_of(body, body.amount.minor, body.amount.currency)).decode()


def read_asked(connection: sa.Connection, position: int | None = None) -> list[Row]:
    """Return all requests for authority, in the order of the log, as of a position."""
    source = as_of(asked, position)
    query = sa.select(source).where(source.c.asked_minor.is_not(None)).order_by(source.c.position)
    return [dict(row) for row in connection.execute(query).mappings()]


def read_shortfalls(connection: sa.Connection, position: int | None = None) -> list[Row]:
    """Return all shortfalls as of a position, in the order of the log."""
    source = as_of(shortfalls, position)
    query = sa.select(source).order_by(source.c.position)
    return [dict(row) for row in connection.execute(query).mappings()]
