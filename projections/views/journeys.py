"""View journeys: the path of each interaction through teams and lines, and customers' feedback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import sqlalchemy as sa

from domain.actions import is_reservation
from domain.events import decisions, facts
from projections.engine.events import types_of
from projections.engine.row_cache import RowCache
from projections.engine.storage import texts
from projections.engine.temporal_tables import as_of, past_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.engine.events import Correction, Event
    from projections.engine.storage import Row

metadata = sa.MetaData()
journeys = sa.Table(
    "journeys",
    metadata,
    sa.Column("interaction_id", sa.Text, primary_key=True),
    *texts("customer_id", "channel", "reason", "first_team", "team"),
    sa.Column("line", sa.Integer),
    sa.Column("highest_line", sa.Integer),
    sa.Column("moved_up", sa.Boolean),
    sa.Column("transfers", sa.Integer),
    sa.Column("left_teams", sa.Text),
    sa.Column("came_back", sa.Boolean),
    sa.Column("repeated_stories", sa.Integer),
    sa.Column("waited_seconds", sa.Float),
    sa.Column("opened", sa.Text, index=True),
    sa.Column("first_action", sa.Text),
    sa.Column("resolved", sa.Text),
    sa.Column("reopened", sa.Integer),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(journeys)
feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("told", sa.Text, primary_key=True),
    *texts("customer_id", "interaction_id", "instrument"),
    sa.Column("score", sa.Float),
    sa.Column("best", sa.Float),
    sa.Column("worst", sa.Float),
    sa.Column("time", sa.Text),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(feedback)


class Journeys:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "journeys"
    version = 3
    metadata = metadata
    prefixes = ("ledger.fact.", "ledger.budget.")
    types = types_of(
        decisions.ActionTaken,
        decisions.ActionHeld,
        facts.ActionReported,
        facts.FeedbackReceived,
        facts.FactCorrected,
        facts.InteractionOpened,
        facts.InteractionTransferred,
        facts.InteractionResolved,
        facts.InteractionReopened,
    )

    def __init__(self) -> None:
        self._journeys, self._feedback = RowCache(journeys), RowCache(feedback)

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Update the rows that these events concern."""
        for event in events:
            match event.body:
                case facts.FactCorrected() if event.correction:
                    self._correct(connection, event.position, event.correction)
                case facts.FeedbackReceived() as body:
                    self._feedback.put(connection, _told(event), _feedback(event, body), event.position)
                case decisions.ActionHeld() as body if is_reservation(body):
                    continue
                case decisions.ActionTaken() | decisions.ActionHeld() | facts.ActionReported() as body:
                    self._act(connection, event, body.interaction_id)
                case body:
                    interaction_id = getattr(body, "interaction_id", None) or ""
                    values = _step(event, self._journeys.get(connection, interaction_id) or {})
                    if values is not None:
                        self._journeys.put(connection, interaction_id, values, event.position)
        for rows in (self._journeys, self._feedback):
            rows.write(connection)

    def forget(self) -> None:
        """Drop cached rows."""
        for rows in (self._journeys, self._feedback):
            rows.forget()

    def _act(self, connection: sa.Connection, event: Event, interaction_id: str | None) -> None:
        row = self._journeys.get(connection, interaction_id) if interaction_id else None
        if row is not None and row["first_action"] is None:
            self._journeys.put(connection, row["interaction_id"], {"first_action": event.stored.time}, event.position)

    def _correct(self, connection: sa.Connection, position: int, correction: Correction) -> None:
        """Apply a correction to feedback, or to an interaction's customer, channel and reason.

        The path of the interaction stays as it was reported.
        """
        before, after = correction.before, correction.after
        fact = after or before
        match fact.body if fact is not None else None:
            case facts.FeedbackReceived() as body:
                if before is not None:
                    self._feedback.put(connection, _told(before), {"score": None}, position)
                if after is not None:
                    self._feedback.put(connection, _told(after), _feedback(after, body), position)
            case facts.InteractionOpened() as body:
                names = ("customer_id", "channel", "reason")
                values = {name: getattr(body, name) for name in names} if after is not None else {"opened": None}
                self._journeys.put(connection, body.interaction_id, values, position)


def _told(event: Event) -> str:
    return f"{event.stored.source} {event.stored.id}"


def _feedback(event: Event, body: facts.FeedbackReceived) -> Row:
    names = ("customer_id", "interaction_id", "instrument", "score", "best", "worst")
    return {"time": event.stored.time, **{name: getattr(body, name) for name in names}}


def _step(event: Event, row: Row) -> Row | None:
    """Return the changes to an interaction's row, or ``None`` for an event that changes nothing."""
    body, time = event.body, event.stored.time
    match body:
        case facts.InteractionOpened():
            return {
                "customer_id": body.customer_id,
                "channel": body.channel,
                "reason": body.reason,
                "opened": time,
                "first_team": body.team_id,
                "team": body.team_id,
                "line": body.line,
                "highest_line": body.line,
                "moved_up": False,
                "transfers": 0,
                "left_teams": "[]",
                "came_back": False,
                "repeated_stories": None,
                "waited_seconds": 0.0,
                "reopened": 0,
            }
        case facts.InteractionTransferred():
            return _moved(body, row)
        case facts.InteractionResolved():
            return {"resolved": time}
        case facts.InteractionReopened():
            return {"resolved": None, "reopened": (row.get("reopened") or 0) + 1}
    return None


def _moved(body: facts.InteractionTransferred, row: Row) -> Row:
    before, left = row.get("team"), json.loads(row.get("left_teams") or "[]")
    values = {
        "transfers": (row.get("transfers") or 0) + 1,
        "waited_seconds": (row.get("waited_seconds") or 0.0) + (body.waited_seconds or 0.0),
    }
    if body.story_repeated is not None:  # null means not reported
        values["repeated_stories"] = (row.get("repeated_stories") or 0) + body.story_repeated
    if body.line is not None:
        known = row.get("line")
        values |= {
            "line": body.line,
            "highest_line": max(body.line, row.get("highest_line") or 0),
            "moved_up": bool(row.get("moved_up")) or (known is not None and body.line > known),
        }
    if body.to_team_id is not None and body.to_team_id != before:
        if before is not None and before not in left:
            left.append(before)
        values |= {
            "team": body.to_team_id,
            "left_teams": json.dumps(left),
            "came_back": bool(row.get("came_back")) or body.to_team_id in left,
        }
    return values


def read_journey(connection: sa.Connection, interaction_id: str, position: int | None = None) -> Row | None:
    """Return an opened interaction as of a position, or ``None``."""
    source = as_of(journeys, position)
    query = sa.select(source).where(source.c.opened.is_not(None), source.c.interaction_id == interaction_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else dict(row)


def read_feedback(connection: sa.Connection, position: int | None = None) -> list[Row]:
    """Return customers' feedback as of a position, without withdrawn ones."""
    source = as_of(feedback, position)
    query = sa.select(source).where(source.c.score.is_not(None)).order_by(source.c.time, source.c.told)
    return [dict(row) for row in connection.execute(query).mappings()]
