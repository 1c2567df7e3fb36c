"""View people: employees with their teams and roles, recognition, courses, ideas, obstacles and morale."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import sqlalchemy as sa

from domain.events import facts
from projections.engine.events import types_of
from projections.engine.row_cache import RowCache
from projections.engine.storage import texts
from projections.engine.temporal_tables import as_of, past_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.engine.events import Event
    from projections.engine.storage import Row

metadata = sa.MetaData()
employees = sa.Table(
    "employees",
    metadata,
    sa.Column("employee_id", sa.Text, primary_key=True),
    *texts("role", "team_ids", "manager_id", "joined", "left"),
    sa.Column("role_since", sa.Text),  # event time of the fact that gave the role
    sa.Column("since", sa.BigInteger, nullable=False),
)
employees_past = past_of(employees)
thanks = sa.Table(
    "thanks",
    metadata,
    sa.Column("recognition_id", sa.Text, primary_key=True),
    *texts("time", "giver_id", "giver_kind"),
    sa.Column("receiver_id", sa.Text, index=True),
    sa.Column("reason", sa.Text),
    sa.Column("points", sa.Integer),
    sa.Column("interaction_id", sa.Text),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(thanks)
courses = sa.Table(
    "courses",
    metadata,
    sa.Column("completion", sa.Text, primary_key=True),
    *texts("employee_id", "course_id", "completed", "valid_until"),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(courses)
voices = sa.Table(
    "voices",
    metadata,
    sa.Column("voice_id", sa.Text, primary_key=True),
    *texts("what", "employee_id", "said", "text", "kind", "answered", "answered_by", "answer"),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(voices)
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
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(morale)


class People:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "people"
    version = 3
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
        self._rows = {table: RowCache(table) for table in (employees, thanks, courses, voices, morale)}

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Update the rows that these events concern."""
        for event in events:
            correction = event.correction
            if correction:
                if correction.before is not None:
                    self._put(connection, correction.before, event.position, withdrawn=True)
                if correction.after is not None:
                    self._put(connection, correction.after, event.position)
            else:
                self._put(connection, event, event.position)
        for rows in self._rows.values():
            rows.write(connection)

    def _put(self, connection: sa.Connection, fact: Event, position: int, *, withdrawn: bool = False) -> None:
        placed = _row_of(fact)
        if placed is None:
            return
        table, key, values = placed
        if withdrawn:  # the fact never happened, so its values are unknown
            values = dict.fromkeys(values)
        elif table is employees and "role" in values:
            known = self._rows[employees].get(connection, key)
            if known is None and isinstance(fact.body, facts.EmployeeChanged):
                values["joined"] = fact.stored.time  # the latest possible time
            if known is None or known["role"] != values["role"]:
                values["role_since"] = fact.stored.time
        self._rows[table].put(connection, key, values, position)

    def forget(self) -> None:
        """Drop cached rows."""
        for rows in self._rows.values():
            rows.forget()


def _row_of(event: Event) -> tuple[sa.Table, str, Row] | None:  # noqa: C901, PLR0911 - a case for each fact
    body, time = event.body, event.stored.time
    match body:
        case facts.EmployeeJoined() | facts.EmployeeChanged():
            values = {"role": body.role, "team_ids": json.dumps(body.team_ids), "manager_id": body.manager_id}
            if isinstance(body, facts.EmployeeJoined):
                values |= {"joined": time, "left": None}
            return employees, body.employee_id, values
        case facts.EmployeeLeft():
            return employees, body.employee_id, {"left": time}
        case facts.RecognitionGiven():
            names = ("giver_id", "giver_kind", "receiver_id", "reason", "points", "interaction_id")
            return thanks, body.recognition_id, {"time": time, **{name: getattr(body, name) for name in names}}
        case facts.TrainingCompleted():
            until = body.valid_until.isoformat() if body.valid_until else None
            values = {"employee_id": body.employee_id, "course_id": body.course_id, "completed": time}
            return courses, f"{body.employee_id} {body.course_id} {time}", {**values, "valid_until": until}
        case facts.IdeaSubmitted():
            return voices, f"idea {body.idea_id}", _said("idea", body, time)
        case facts.ObstacleReported():
            return voices, f"obstacle {body.obstacle_id}", _said("obstacle", body, time) | {"kind": body.kind}
        case facts.IdeaDecided():
            values = {"answered": time, "answered_by": body.decided_by, "answer": body.decision}
            return voices, f"idea {body.idea_id}", values
        case facts.ObstacleAnswered():
            values = {"answered": time, "answered_by": body.answered_by, "answer": body.text}
            return voices, f"obstacle {body.obstacle_id}", values
        case facts.MoraleSurveyed():
            counted = ("team_id", "period", "invited", "respondents", "score", "best", "worst")
            return morale, f"{body.team_id} {body.period}", {name: getattr(body, name) for name in counted}
    return None


def _said(what: str, body: facts.IdeaSubmitted | facts.ObstacleReported, time: str) -> Row:
    return {"what": what, "employee_id": body.employee_id, "said": time, "text": body.text}


def read_people(connection: sa.Connection, position: int | None = None) -> dict[str, Row]:
    """Return all known employees by id, as of a position."""
    return {
        row["employee_id"]: dict(row) for row in connection.execute(sa.select(as_of(employees, position))).mappings()
    }


def read_careers(connection: sa.Connection, position: int | None = None) -> list[tuple[str, str, str, str]]:
    """Return changes of role as (employee, from, to, time), as of a position."""
    rows: set[tuple[str, str, str]] = set()
    for table in (employees, employees_past):
        known = table.c.role.is_not(None), table.c.role_since.is_not(None)
        query = sa.select(table.c.employee_id, table.c.role_since, table.c.role).where(*known)
        query = query if position is None else query.where(table.c.since <= position)
        rows |= {(employee, time, role) for employee, time, role in connection.execute(query)}
    return [
        (before[0], before[2], after[2], after[1]) for before, after in pairwise(sorted(rows)) if before[0] == after[0]
    ]


def read_voices(connection: sa.Connection, position: int | None = None) -> list[Row]:
    """Return ideas and obstacles with their answers, in order of submission; texts as stored."""
    source = as_of(voices, position)
    query = sa.select(source).where(source.c.employee_id.is_not(None)).order_by(source.c.said, source.c.voice_id)
    return [
        {name: value for name, value in row.items() if name != "since"} for row in connection.execute(query).mappings()
    ]


def read_table(connection: sa.Connection, name: str, position: int | None = None) -> list[Row]:
    """Return all rows of a table in the order of the log; a withdrawn fact leaves a row without values."""
    table = as_of(metadata.tables[name], position)
    return [dict(row) for row in connection.execute(sa.select(table).order_by(table.c.since)).mappings()]
