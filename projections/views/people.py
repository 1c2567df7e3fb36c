"""View people: employees with their teams and roles, recognition, courses, ideas, obstacles and morale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import sqlalchemy as sa

from domain.events import facts
from domain.serialization import encode
from domain.staff import brings_back
from ledger.store.cloudevents import parse_time
from projections.engine.columns import texts
from projections.engine.entities import LAST_FACT, EntityRows, facts_of, last_fact_column
from projections.engine.events import types_of
from projections.engine.pages import by_key
from projections.engine.row_cache import plain_rows
from projections.engine.temporal_tables import as_of, past_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from projections.engine.entities import KeptFact, Step
    from projections.engine.events import Event
    from projections.engine.storage import Row

metadata = sa.MetaData()
employees = sa.Table(
    "employees",
    metadata,
    sa.Column("employee_id", sa.Text, primary_key=True),
    *texts("role", "team_ids", "manager_id", "joined", "left"),
    sa.Column("name", sa.Text),  # encrypted, as in the log
    sa.Column("role_since", sa.Text),  # event time of the fact that gave the role
    sa.Column("roles", sa.Text),  # a JSON list of [time, role]
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(employees)
facts_of(employees)
thanks = sa.Table(
    "thanks",
    metadata,
    sa.Column("recognition_id", sa.Text, primary_key=True),
    *texts("time", "giver_id", "giver_kind"),
    sa.Column("receiver_id", sa.Text, index=True),
    sa.Column("reason", sa.Text),
    sa.Column("points", sa.Integer),
    sa.Column("interaction_id", sa.Text),
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
)
THANKS_ORDER = (thanks.c.time, thanks.c.recognition_id)
"""The order of lists of recognition."""
THANKS_COLUMNS = (
    "recognition_id",
    "time",
    "receiver_id",
    "giver_id",
    "giver_kind",
    "reason",
    "points",
    "interaction_id",
)
past_of(thanks)
facts_of(thanks)
courses = sa.Table(
    "courses",
    metadata,
    sa.Column("completion", sa.Text, primary_key=True),
    *texts("employee_id", "course_id", "completed", "valid_until"),
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(courses)
facts_of(courses)
voices = sa.Table(
    "voices",
    metadata,
    sa.Column("voice_id", sa.Text, primary_key=True),
    *texts("what", "employee_id", "said", "text", "kind", "answered", "answered_by", "answer"),
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
)
VOICE_ORDER = (voices.c.said, voices.c.voice_id)
"""The order of lists of ideas and of obstacles."""
past_of(voices)
facts_of(voices)
morale = sa.Table(
    "morale",
    metadata,
    sa.Column("survey", sa.Text, primary_key=True),
    sa.Column("team_id", sa.Text),
    sa.Column("period", sa.Text),
    sa.Column("invited", sa.Integer),
    sa.Column("respondents", sa.Integer),
    sa.Column("score", sa.Float),
    sa.Column("best", sa.Float),
    sa.Column("worst", sa.Float),
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(morale)
facts_of(morale)


class People:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "people"
    version = 6
    metadata = metadata
    prefixes = ("ledger.fact.",)
    types = types_of(
        facts.EmployeeJoined,
        facts.EmployeeChanged,
        facts.EmployeeLeft,
        facts.RecognitionGiven,
        facts.TrainingCompleted,
        facts.IdeaSubmitted,
        facts.ObstacleReported,
        facts.IdeaDecided,
        facts.ObstacleAnswered,
        facts.MoraleSurveyed,
        facts.FactCorrected,
    )

    def __init__(self) -> None:
        joined = ("role", "team_ids", "manager_id", "name")
        said = ("employee_id", "text")
        tables = (
            EntityRows(
                employees,
                {facts.EmployeeJoined: joined, facts.EmployeeChanged: joined, facts.EmployeeLeft: ()},
                _employed,
            ),
            EntityRows(thanks, {facts.RecognitionGiven: _THANKS}, _values_of(_THANKS, "time")),
            EntityRows(
                courses,
                {facts.TrainingCompleted: ("employee_id", "course_id", "valid_until")},
                _completed,
                key_of=lambda event: " ".join((*_fields(event, "employee_id", "course_id"), event.stored.time)),
            ),
            EntityRows(
                voices,
                {
                    facts.IdeaSubmitted: ("idea_id", *said),
                    facts.ObstacleReported: ("obstacle_id", *said, "kind"),
                    facts.IdeaDecided: ("idea_id", "decided_by", "decision"),
                    facts.ObstacleAnswered: ("obstacle_id", "answered_by", "text"),
                },
                _heard,
                openings=2,
                key_of=_voice,
            ),
            EntityRows(
                morale,
                {facts.MoraleSurveyed: _MORALE},
                _values_of(_MORALE),
                key_of=lambda event: " ".join(_fields(event, "team_id", "period")),
            ),
        )
        self._tables = tables
        self._of = {cls: rows for rows in tables for cls in rows.classes}

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Update the rows that these events concern."""
        for rows in self._tables:
            rows.read_entities(connection, events)
        for event in events:
            if not isinstance(event.body, facts.FactCorrected):
                self._of[type(event.body)].add(connection, event)
            elif event.correction:
                for rows in self._tables:
                    rows.correct(connection, event.correction, event.position)
        for rows in self._tables:
            rows.write(connection)

    def forget(self) -> None:
        """Drop cached rows."""
        for rows in self._tables:
            rows.forget()


class VoicePage(NamedTuple):
    """A page of ideas or of obstacles.

    ``after`` is the time and the ``voice_id`` of the last row of the page before. ``at`` is the position of a past
    state. ``begin`` and ``end`` limit the time of submission, as texts: from the first on, and before the second.
    ``first`` and ``behind`` limit the position at which the submission was recorded in the same way.
    """

    limit: int
    after: Sequence[object] | None = None
    newest_first: bool = True
    at: int | None = None
    begin: str | None = None
    end: str | None = None
    first: int | None = None
    behind: int | None = None


_THANKS = ("giver_id", "giver_kind", "receiver_id", "reason", "points", "interaction_id")
_MORALE = ("team_id", "period", "invited", "respondents", "score", "best", "worst")
_decode_roles = msgspec.json.Decoder(list[tuple[str, str]]).decode


def _fields(event: Event, *names: str) -> tuple[str, ...]:
    return tuple(getattr(event.body, name) for name in names)


def _values_of(names: Sequence[str], time: str | None = None) -> Step:
    """Return a step by which the last fact sets these columns, and its event time the column ``time``."""

    def step(_row: Row, body: msgspec.Struct, fact: KeptFact) -> Row:
        values: Row = {name: getattr(body, name) for name in names}
        return values if time is None else values | {time: fact.time}

    return step


def _employed(row: Row, body: msgspec.Struct, fact: KeptFact) -> Row:
    """Return the changes that a fact makes to an employee's row."""
    if not isinstance(body, facts.EmployeeJoined | facts.EmployeeChanged):
        return {"left": fact.time}
    values: Row = {"role": body.role, "team_ids": json.dumps(body.team_ids), "manager_id": body.manager_id}
    if body.name is not None:
        values["name"] = body.name
    if brings_back(body):
        values |= {"joined": fact.time, "left": None}
    elif row["role"] is None and row["left"] is None:
        values["joined"] = fact.time  # the latest possible time
    if row["role"] != body.role:
        roles = [*_decode_roles(row["roles"] or "[]"), (fact.time, body.role)]
        values |= {"role_since": fact.time, "roles": encode(roles).decode()}
    return values


def _completed(_row: Row, body: msgspec.Struct, fact: KeptFact) -> Row:
    """Return the values of a completed course."""
    assert isinstance(body, facts.TrainingCompleted)
    until = body.valid_until
    return {
        "employee_id": body.employee_id,
        "course_id": body.course_id,
        "completed": fact.time,
        "valid_until": until.isoformat() if until else None,
    }


def _heard(_row: Row, body: msgspec.Struct, fact: KeptFact) -> Row:
    """Return the changes that a fact makes to an idea or an obstacle."""
    match body:
        case facts.IdeaSubmitted():
            return {"what": "idea", "employee_id": body.employee_id, "said": fact.time, "text": body.text}
        case facts.ObstacleReported():
            values: Row = {"what": "obstacle", "employee_id": body.employee_id, "said": fact.time, "text": body.text}
            return values | {"kind": body.kind}
        case facts.IdeaDecided():
            return {"answered": fact.time, "answered_by": body.decided_by, "answer": body.decision}
        case _:
            assert isinstance(body, facts.ObstacleAnswered)
            return {"answered": fact.time, "answered_by": body.answered_by, "answer": body.text}


def _voice(event: Event) -> str:
    """Return the key of an idea or an obstacle."""
    body = event.body
    if isinstance(body, facts.IdeaSubmitted | facts.IdeaDecided):
        return f"idea {body.idea_id}"
    assert isinstance(body, facts.ObstacleReported | facts.ObstacleAnswered)
    return f"obstacle {body.obstacle_id}"


def read_people(connection: sa.Connection, position: int | None = None) -> dict[str, Row]:
    """Return all known employees by id, as of a position."""
    return {
        row["employee_id"]: dict(row) for row in connection.execute(sa.select(as_of(employees, position))).mappings()
    }


def read_employee(connection: sa.Connection, employee_id: str) -> Row:
    """Return a known employee; an unknown one has no values."""
    found = (
        connection.execute(sa.select(employees).where(employees.c.employee_id == employee_id)).mappings().one_or_none()
    )
    return {} if found is None else dict(found)


def read_trained(connection: sa.Connection, employee_id: str, now: datetime) -> set[str]:
    """Return the courses that an employee has completed and that are valid now."""
    query = sa.select(courses.c.course_id, courses.c.completed, courses.c.valid_until)
    rows = connection.execute(query.where(courses.c.employee_id == employee_id)).all()
    return {course for course, done, until in rows if done and (until is None or now < parse_time(until))}


def read_thanks(connection: sa.Connection, page: VoicePage, people: Collection[str] | None) -> list[Row]:
    """Return a page of recognition in order of its time, as it was given to these people (``None``: to all)."""
    source = as_of(thanks, page.at)
    query = sa.select(*(source.c[name] for name in THANKS_COLUMNS)).where(source.c.receiver_id.is_not(None))
    if people is not None:
        query = query.where(source.c.receiver_id.in_(people))
    if page.begin is not None:
        query = query.where(source.c.time >= page.begin)
    if page.end is not None:
        query = query.where(source.c.time < page.end)
    query = by_key(query, (source.c[one.name] for one in THANKS_ORDER), page.after, descending=page.newest_first)
    return [dict(row) for row in connection.execute(query.limit(page.limit)).mappings()]


class Membership(NamedTuple):
    """The manager and the teams of an employee; ``team_ids`` is a JSON list."""

    employee_id: str
    manager_id: str | None
    team_ids: str | None


def read_memberships(connection: sa.Connection) -> list[Membership]:
    """Return the manager and the teams of all known employees, which nearly every request needs."""
    one = employees.c
    return [*map(Membership._make, plain_rows(connection, sa.select(one.employee_id, one.manager_id, one.team_ids)))]


class Standing(NamedTuple):
    """The state of a person in the log: announced, a leaver, and with reports."""

    is_announced: bool
    has_left: bool
    has_reports: bool


def read_standing(connection: sa.Connection, employee_id: str) -> Standing:
    """Return the standing of a person."""
    query = sa.select(employees.c.role, employees.c.left).where(employees.c.employee_id == employee_id)
    role, left = connection.execute(query).one_or_none() or (None, None)
    reports = sa.select(employees.c.employee_id).where(
        employees.c.manager_id == employee_id, employees.c.left.is_(None)
    )
    return Standing(role is not None, left is not None, connection.scalar(reports.limit(1)) is not None)


def read_leavers(connection: sa.Connection, people: Collection[str]) -> frozenset[str]:
    """Return the leavers among these people."""
    query = sa.select(employees.c.employee_id).where(employees.c.left.is_not(None))
    return frozenset(connection.scalars(query.where(employees.c.employee_id.in_(people))))


def read_employees(
    connection: sa.Connection,
    people: Collection[str] | None = None,
    position: int | None = None,
    *,
    after: Sequence[object] | None = None,
    limit: int | None = None,
    descending: bool = False,
) -> list[Row]:
    """Return a page of employees by id, with the names of their managers as stored; ``people``: only these."""
    source = as_of(employees, position).alias("employee")
    manager = as_of(employees, position).alias("manager")
    shown = [source.c[name] for name in ("employee_id", "name", "role", "team_ids", "manager_id", "joined", "left")]
    query = (
        sa.select(*shown, manager.c.name.label("manager_name"))
        .select_from(source.outerjoin(manager, manager.c.employee_id == source.c.manager_id))
        .where(source.c.role.is_not(None))
    )
    if people is not None:
        query = query.where(source.c.employee_id.in_(people))
    query = by_key(query, (source.c.employee_id,), after, descending=descending).limit(limit)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return [row | {"team_ids": json.loads(row["team_ids"])} for row in rows]


def read_names(connection: sa.Connection, ids: Collection[str], people: Collection[str] | None = None) -> list[Row]:
    """Return the names of some employees as stored; ``people``: only of these, and of their managers."""
    found = employees.c
    query = sa.select(found.employee_id, found.name).where(found.employee_id.in_(ids), found.role.is_not(None))
    if people is not None:
        managers = sa.select(found.manager_id).where(found.employee_id.in_(people), found.manager_id.is_not(None))
        query = query.where(sa.or_(found.employee_id.in_(people), found.employee_id.in_(managers)))
    return [dict(row) for row in connection.execute(query.order_by(found.employee_id)).mappings()]


def read_careers(connection: sa.Connection, position: int | None = None) -> list[tuple[str, str, str, str]]:
    """Return changes of role as (employee, from, to, time), as of a position."""
    source = as_of(employees, position)
    query = sa.select(source.c.employee_id, source.c.roles).where(source.c.roles.is_not(None))
    return [
        (employee, before, after, time)
        for employee, text in connection.execute(query.order_by(source.c.employee_id))
        for (_, before), (time, after) in pairwise(_decode_roles(text))
    ]


def read_voices(connection: sa.Connection, position: int | None = None, voice_id: str | None = None) -> list[Row]:
    """Return ideas and obstacles with their answers, in order of submission; texts as stored.

    ``voice_id``: only this one, such as ``obstacle O-1``.
    """
    source = as_of(voices, position)
    query = sa.select(source).where(source.c.employee_id.is_not(None)).order_by(source.c.said, source.c.voice_id)
    if voice_id is not None:
        query = query.where(source.c.voice_id == voice_id)
    return [
        {name: value for name, value in row.items() if name not in ("since", LAST_FACT)}
        for row in connection.execute(query).mappings()
    ]


def read_obstacles(
    connection: sa.Connection, page: VoicePage, people: Collection[str] | None, *, answered: bool | None
) -> list[Row]:
    """Return a page of obstacles in order of their reporting, with their answers; texts as stored."""
    return [
        {
            "obstacle_id": row["voice_id"].removeprefix("obstacle "),
            "time": row["said"],
            "answered_at": row["answered"],
            **{name: row[name] for name in ("employee_id", "kind", "text", "answered_by", "answer")},
        }
        for row in _page_of(connection, "obstacle", page, people, answered=answered)
    ]


def read_ideas(
    connection: sa.Connection, page: VoicePage, people: Collection[str] | None, *, answered: bool | None
) -> list[Row]:
    """Return a page of ideas in order of their submission, with their decisions; texts as stored."""
    return [
        {
            "idea_id": row["voice_id"].removeprefix("idea "),
            "time": row["said"],
            "decided_at": row["answered"],
            "decided_by": row["answered_by"],
            "decision": row["answer"],
            **{name: row[name] for name in ("employee_id", "text")},
        }
        for row in _page_of(connection, "idea", page, people, answered=answered)
    ]


def _page_of(
    connection: sa.Connection, what: str, page: VoicePage, people: Collection[str] | None, *, answered: bool | None
) -> list[Row]:
    source = as_of(voices, page.at)
    query = sa.select(source).where(source.c.what == what, source.c.employee_id.is_not(None))
    if people is not None:
        query = query.where(source.c.employee_id.in_(people))
    if answered is not None:
        query = query.where(source.c.answered.is_not(None) if answered else source.c.answered.is_(None))
    if page.begin is not None:
        query = query.where(source.c.said >= page.begin)
    if page.end is not None:
        query = query.where(source.c.said < page.end)
    if page.first is not None:
        query = query.where(source.c.voice_id.not_in(_recorded_before(page.first)))
    if page.behind is not None:
        query = query.where(source.c.voice_id.in_(_recorded_before(page.behind)))
    query = by_key(query, (source.c[one.name] for one in VOICE_ORDER), page.after, descending=page.newest_first)
    return [dict(row) for row in connection.execute(query.limit(page.limit)).mappings()]


def _recorded_before(position: int) -> sa.Select[tuple[str]]:
    """Return a query of the ids of all ideas and obstacles that were recorded before a position."""
    then = as_of(voices, position - 1)
    return sa.select(then.c.voice_id).where(then.c.employee_id.is_not(None))


def read_table(connection: sa.Connection, name: str, position: int | None = None) -> list[Row]:
    """Return all rows of a table in the order of its key; a withdrawn fact leaves a row without values."""
    found = metadata.tables[name]
    (key,), table = found.primary_key.columns, as_of(found, position)
    return [dict(row) for row in connection.execute(sa.select(table).order_by(table.c[key.name])).mappings()]
