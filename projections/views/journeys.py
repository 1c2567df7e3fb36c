"""View journeys: the path of each interaction through teams and lines, and customers' feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from domain.analytics.service_quality import REPEAT_DAYS
from domain.events import facts
from domain.serialization import encode
from projections.engine.columns import texts
from projections.engine.day_blocks import DayBlocks, DayTable, days_of
from projections.engine.entities import EntityRows, facts_of, last_fact_column, read_fact_positions
from projections.engine.events import types_of
from projections.engine.row_cache import RowCache, dict_rows
from projections.engine.sql_functions import listed_rows, number_text, shifted_time
from projections.engine.temporal_tables import as_of, past_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.engine.entities import KeptFact
    from projections.engine.events import Correction, Event
    from projections.engine.storage import Row

_decode = msgspec.json.Decoder(list[str]).decode
_TOLD_ONCE = ("customer_id", "channel", "reason", "order_id")
"""Fields of an opening that a later one does not replace."""
metadata = sa.MetaData()
journeys = sa.Table(
    "journeys",
    metadata,
    sa.Column("interaction_id", sa.Text, primary_key=True),
    *texts("customer_id", "channel", "reason", "order_id", "first_agent", "first_team", "team"),
    sa.Column("line", sa.Integer),
    sa.Column("highest_line", sa.Integer),
    sa.Column("moved_up", sa.Boolean),
    sa.Column("transfers", sa.Integer),
    sa.Column("left_teams", sa.Text),
    sa.Column("came_back", sa.Boolean),
    sa.Column("repeated_stories", sa.Integer),
    sa.Column("waited_seconds", sa.Float),
    sa.Column("opened", sa.Text, index=True),
    sa.Column("resolved", sa.Text),  # the last resolution; null while it is open
    sa.Column("first_resolved", sa.Text),
    sa.Column("reopened", sa.Integer),
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("journeys_by_customer", "customer_id", "opened"),
)
past_of(journeys)
facts_of(journeys)
feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("told", sa.Text, primary_key=True),
    sa.Column("customer_id", sa.Text),
    sa.Column("interaction_id", sa.Text, index=True),
    sa.Column("instrument", sa.Text),
    sa.Column("score", sa.Float),
    sa.Column("best", sa.Float),
    sa.Column("worst", sa.Float),
    sa.Column("time", sa.Text, index=True),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(feedback)
ANSWERED = {"csat": 1, "nps": 2, "ces": 4, "review": 8}
"""A number for each instrument; sums of them name sets of instruments."""


def followed(source: sa.FromClause, over: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return a condition: the customer opened another interaction in the same matter later, and by ``over``.

    It names the same order, or the same reason if one of them names no order.
    """
    one, other = source.c, journeys.alias("other").c
    no_order = sa.or_(one.order_id.is_(None), other.order_id.is_(None))
    same = sa.or_(other.order_id == one.order_id, sa.and_(no_order, other.reason == one.reason))
    later = (other.customer_id == one.customer_id, other.opened > one.opened, other.opened <= over)
    return sa.select(1).where(*later, same).exists()


def _journey_days() -> DayTable:
    """Return the blocks of interactions.

    ``judged`` is the first resolution of an interaction with a customer; ``alone``: no other contact was needed within
    ``REPEAT_DAYS`` days after it. ``answered`` is the sum of the numbers of instruments with an answer (``ANSWERED``).
    """
    one = journeys.c
    over = shifted_time(one.first_resolved, REPEAT_DAYS)
    judged = sa.case((one.customer_id.is_not(None), one.first_resolved))
    said = feedback.c
    answers = (said.interaction_id == one.interaction_id, said.score.is_not(None))
    instruments = sa.case(ANSWERED, value=said.instrument, else_=0).distinct()
    alone = sa.and_(judged.is_not(None), one.transfers == 0, one.reopened == 0, sa.not_(followed(journeys, over)))
    numbers = {
        "resolved": one.resolved.is_not(None),
        "transferred": one.transfers > 0,
        "transfers": sa.func.coalesce(one.transfers, 0),
        "reopened": sa.func.coalesce(one.reopened, 0) > 0,
        "told": one.repeated_stories.is_not(None),
        "repeated": sa.func.coalesce(one.repeated_stories, 0) > 0,
        "alone": sa.case((alone, 1), else_=0),
        "answered": sa.func.coalesce(sa.select(sa.func.sum(instruments)).where(*answers).scalar_subquery(), 0),
    }
    query = sa.select(
        one.opened,
        one.first_agent.label("agent"),
        one.first_team.label("team"),
        one.reason,
        one.channel,
        judged.label("judged"),
        *(value.label(name) for name, value in numbers.items()),
    )
    changed = listed_rows("touched").c
    earlier = days_of(one.opened).where(
        one.customer_id == changed.c,
        one.opened < changed.a,
        one.first_resolved >= shifted_time(changed.a, -REPEAT_DAYS),
    )
    answered = days_of(one.opened).where(one.interaction_id.in_(sa.select(changed.b)))
    forms = {"judged": "time", **dict.fromkeys(numbers, "number")}
    return DayTable(journeys, query, forms, {"journeys": earlier, "feedback": answered})


def _feedback_days() -> DayTable:
    """Return the blocks of feedback; ``scale``: the worst and the best score, as text."""
    one, of = feedback.c, journeys.c
    query = sa.select(
        one.time,
        of.first_agent.label("agent"),
        of.first_team.label("team"),
        of.reason,
        of.channel,
        one.instrument,
        one.score,
        (number_text(one.worst) + " " + number_text(one.best)).label("scale"),
    )
    query = query.outerjoin(journeys, of.interaction_id == one.interaction_id).where(one.score.is_not(None))
    stale = days_of(one.time).where(one.interaction_id.in_(sa.select(listed_rows("touched").c.b)))
    return DayTable(feedback, query, {"score": "real"}, {"journeys": stale})


JOURNEY_DAYS, FEEDBACK_DAYS = _journey_days(), _feedback_days()


class Journeys:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "journeys"
    version = 9
    metadata = metadata
    prefixes = ("ledger.fact.",)
    types = types_of(
        facts.FeedbackReceived,
        facts.FactCorrected,
        facts.InteractionOpened,
        facts.InteractionTransferred,
        facts.InteractionResolved,
        facts.InteractionReopened,
    )

    def __init__(self) -> None:
        self.day_blocks = DayBlocks(JOURNEY_DAYS, FEEDBACK_DAYS)
        self._journeys = EntityRows(
            journeys,
            {
                facts.InteractionOpened: (*_TOLD_ONCE, "agent_id", "team_id", "line"),
                facts.InteractionTransferred: ("to_team_id", "line", "story_repeated", "waited_seconds"),
                facts.InteractionResolved: (),
                facts.InteractionReopened: (),
            },
            _step,
            openings=1,
            blocks=self.day_blocks,
            watched=("opened", "interaction_id", "customer_id"),
        )
        self._feedback = RowCache(feedback, self.day_blocks, ("time", "interaction_id"))

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Update the rows that these events concern."""
        self._journeys.read_entities(connection, events)
        told = (_told(event) for event in events if isinstance(event.body, facts.FeedbackReceived))
        self._feedback.read_ahead(connection, told)
        for event in events:
            match event.body:
                case facts.FactCorrected():
                    if event.correction:
                        self._journeys.correct(connection, event.correction, event.position)
                        self._correct(connection, event.position, event.correction)
                case facts.FeedbackReceived() as body:
                    self._feedback.put(connection, _told(event), _feedback(event, body), event.position)
                case _:
                    self._journeys.add(connection, event)
        for rows in (self._journeys, self._feedback):
            rows.write(connection)
        self.day_blocks.drop(connection)

    def forget(self) -> None:
        """Drop cached rows."""
        self.day_blocks.forget()
        for rows in (self._journeys, self._feedback):
            rows.forget()

    def _correct(self, connection: sa.Connection, position: int, correction: Correction) -> None:
        """Apply a correction to feedback."""
        before, after = correction.before, correction.after
        if before is not None and isinstance(before.body, facts.FeedbackReceived):
            self._feedback.put(connection, _told(before), {"score": None}, position)
        if after is not None and isinstance(after.body, facts.FeedbackReceived):
            self._feedback.put(connection, _told(after), _feedback(after, after.body), position)


def _told(event: Event) -> str:
    return f"{event.stored.source} {event.stored.id}"


def _feedback(event: Event, body: facts.FeedbackReceived) -> Row:
    names = ("customer_id", "interaction_id", "instrument", "score", "best", "worst")
    return {"time": event.stored.time, **{name: getattr(body, name) for name in names}}


def _step(row: Row, body: msgspec.Struct, fact: KeptFact) -> Row:
    """Return the changes that a fact makes to an interaction's row."""
    match body:
        case facts.InteractionOpened():
            return _opened(row, body, fact.time)
        case facts.InteractionTransferred():
            return _moved(body, row)
        case facts.InteractionResolved():
            return {"resolved": fact.time, "first_resolved": row["first_resolved"] or fact.time}
        case _:
            return {"resolved": None, "reopened": (row["reopened"] or 0) + 1}


def _opened(row: Row, body: facts.InteractionOpened, time: str) -> Row:
    """Return the values of an opening; a second one fills only fields that are blank."""
    values: Row = {name: row[name] or getattr(body, name) for name in _TOLD_ONCE}
    values["first_agent"] = row["first_agent"] or body.agent_id
    if not row["first_team"]:
        values["first_team"] = values["team"] = body.team_id
    if row["line"] is None:
        values["line"] = values["highest_line"] = body.line
    if row["opened"] is None:
        begun = {"moved_up": False, "transfers": 0, "left_teams": "[]", "came_back": False, "waited_seconds": 0.0}
        values |= {"opened": time, "reopened": 0, **begun}
    return values


def _moved(body: facts.InteractionTransferred, row: Row) -> Row:
    before = row["team"]
    values = {
        "transfers": (row["transfers"] or 0) + 1,
        "waited_seconds": (row["waited_seconds"] or 0.0) + (body.waited_seconds or 0.0),
    }
    if body.story_repeated is not None:  # null means not reported
        values["repeated_stories"] = (row["repeated_stories"] or 0) + body.story_repeated
    if body.line is not None:
        known = row["line"]
        values |= {
            "line": body.line,
            "highest_line": max(body.line, row["highest_line"] or 0),
            "moved_up": bool(row["moved_up"]) or (known is not None and body.line > known),
        }
    if body.to_team_id is not None and body.to_team_id != before:
        left = _decode(row["left_teams"] or "[]")
        if before is not None and before not in left:
            left.append(before)
        values |= {
            "team": body.to_team_id,
            "left_teams": encode(left).decode(),
            "came_back": bool(row["came_back"]) or body.to_team_id in left,
        }
    return values


def read_journey(connection: sa.Connection, interaction_id: str, position: int | None = None) -> Row | None:
    """Return an opened interaction as of a position, or ``None``."""
    source = as_of(journeys, position)
    query = sa.select(source).where(source.c.opened.is_not(None), source.c.interaction_id == interaction_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else dict(row)


def read_order(connection: sa.Connection, interaction_id: str) -> list[int]:
    """Return the positions of an interaction's facts in the order in which they happened."""
    return read_fact_positions(connection, journeys, interaction_id)


def read_incomplete(connection: sa.Connection, position: int | None = None) -> int:
    """Return the number of interactions whose opening was not reported, as of a position."""
    source = as_of(journeys, position)
    told = sa.or_(*(source.c[name].is_not(None) for name in ("transfers", "reopened", "resolved")))
    return connection.execute(sa.select(sa.func.count()).where(source.c.opened.is_(None), told)).scalar_one()


def read_feedback(connection: sa.Connection, position: int | None = None) -> list[Row]:
    """Return customers' feedback as of a position, without withdrawn ones."""
    source = as_of(feedback, position)
    query = sa.select(source).where(source.c.score.is_not(None)).order_by(source.c.time, source.c.told)
    return dict_rows(connection, query)
