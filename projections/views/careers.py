"""Careers: the role and the team that each employee had at any time, and the rows of reported facts that carry them.

A fact that another system reports names an employee, and no role. Its row belongs to the role and the team that the
employee had when it happened. Facts about employees may come later than the report, and may be corrected: then the rows
of that time get the other role and team, from the position of that fact on.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import sqlalchemy as sa

from domain.events import facts
from domain.serialization import encode
from projections.engine.entities import EntityRows, facts_of, last_fact_column
from projections.engine.storage import driver
from projections.engine.temporal_tables import past_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from projections.engine.entities import Completed, KeptFact
    from projections.engine.events import Correction, Event
    from projections.engine.row_cache import RowCache
    from projections.engine.storage import Row

type Move = facts.EmployeeJoined | facts.EmployeeChanged | facts.EmployeeLeft
MOVES = (facts.EmployeeJoined, facts.EmployeeChanged, facts.EmployeeLeft)


class Post(NamedTuple):
    """The role and the team of an employee from a time on: the first of the teams; none after leaving."""

    begin: str
    role: str | None
    team: str | None


_decode = msgspec.json.Decoder(list[Post]).decode


def careers_in(metadata: sa.MetaData) -> sa.Table:
    """Return the table of careers of a view."""
    table = sa.Table(
        "careers",
        metadata,
        sa.Column("employee_id", sa.Text, primary_key=True),
        sa.Column("posts", sa.Text),  # a JSON list of [time, role, team]
        last_fact_column(),
        sa.Column("since", sa.BigInteger, nullable=False),
    )
    past_of(table)
    facts_of(table)
    return table


class ReportedRows:
    """The rows of a table that reported facts made: ``agent_id``, ``role`` and ``team_id`` at the time ``time``.

    ``reported`` is the condition of SQL that tells them from the ledger's own. The table has an index by ``agent_id``.
    """

    def __init__(self, rows: RowCache, table: sa.Table, time: str, reported: str) -> None:
        self.rows = rows
        self._key, self._time = next(iter(table.primary_key.columns)).name, time
        some = f"agent_id = ? AND {time} >= ? AND {time} < ? AND {reported}"
        self._query = f"SELECT {self._key} FROM {table.name} WHERE {some}"  # noqa: S608 - names of ours

    def stamp(self, connection: sa.Connection, careers: Careers, change: Change, position: int) -> None:
        """Give the written rows of a changed part of a career their role and team."""
        for (key,) in driver(connection).execute(self._query, change).fetchall():
            row = self.rows.get(connection, key)
            assert row is not None
            values = careers.fields(connection, row, self._time)
            if any(row[name] != value for name, value in values.items()):
                self.rows.put(connection, key, values, position, row[self._time])


class Change(NamedTuple):
    """A part of a career that a fact has changed: from a time on, and before another."""

    employee_id: str
    begin: str
    end: str


_CACHED = 10_000
_NO_END = "~"
"""Is behind every time as text."""


class Careers:
    """The careers of a view, in its table of careers; ``reported`` are the rows that follow them."""

    def __init__(self, table: sa.Table) -> None:
        fields = ("role", "team_ids")
        self.rows = EntityRows(
            table, {facts.EmployeeJoined: fields, facts.EmployeeChanged: fields, facts.EmployeeLeft: ()}, _moved
        )
        self.reported: tuple[ReportedRows, ...] = ()
        self._posts: dict[str, list[Post]] = {}

    def add(self, connection: sa.Connection, event: Event) -> None:
        """Add a fact about an employee, and give the rows of its time their role and team."""
        assert isinstance(event.body, MOVES)
        self._change(connection, [event.body.employee_id], event.position, lambda: self.rows.add(connection, event))

    def correct(self, connection: sa.Connection, correction: Correction, position: int) -> None:
        """Correct a fact about an employee."""
        told = [event.body for event in (correction.before, correction.after) if event is not None]
        if employees := list(dict.fromkeys(body.employee_id for body in told if isinstance(body, MOVES))):
            self._change(connection, employees, position, lambda: self.rows.correct(connection, correction, position))

    def fields(self, connection: sa.Connection, row: Row, time: str) -> Row:
        """Return the role and the team of a row of a reported fact; ``time`` is the column of its time."""
        posts = self._posts_of(connection, row["agent_id"]) if row["agent_id"] and row[time] else []
        place = bisect_right(posts, row[time], key=lambda post: post.begin) if posts else 0
        post = posts[place - 1] if place else Post("", None, None)
        return {"role": post.role, "team_id": row["named_team"] or post.team}

    def completes(self, time: str) -> Completed:
        """Return ``fields`` for rows whose time is in this column; facts that name no employee change nothing."""
        return lambda connection, row, changes: (
            self.fields(connection, {**row, **changes}, time) if "agent_id" in changes else {}
        )

    def forget(self) -> None:
        """Drop the cache."""
        self._posts.clear()
        self.rows.forget()

    def write(self, connection: sa.Connection) -> None:
        """Write the careers."""
        self.rows.write(connection)
        if len(self._posts) > _CACHED:
            self._posts.clear()

    def _change(
        self, connection: sa.Connection, employees: Iterable[str], position: int, change: Callable[[], None]
    ) -> None:
        """Make a change to careers, and give the rows of the changed times their role and team."""
        for reported in self.reported:
            reported.rows.write(connection)  # late facts before this one count with the careers known then
        before = {employee: self._posts_of(connection, employee) for employee in employees}
        change()
        self.rows.fold_late(connection)
        for employee, posts in before.items():
            self._posts.pop(employee, None)
            if (found := _changed(employee, posts, self._posts_of(connection, employee))) is not None:
                for reported in self.reported:
                    reported.stamp(connection, self, found, position)

    def _posts_of(self, connection: sa.Connection, employee_id: str) -> list[Post]:
        posts = self._posts.get(employee_id)
        if posts is None:
            row = self.rows.get(connection, employee_id) or {}
            posts = self._posts[employee_id] = _decode(row.get("posts") or "[]")
        return posts


def _moved(row: Row, body: msgspec.Struct, fact: KeptFact) -> Row:
    """Return the changes that a fact makes to a career."""
    post = Post(fact.time, None, None)
    if isinstance(body, facts.EmployeeJoined | facts.EmployeeChanged):
        post = Post(fact.time, body.role, body.team_ids[0] if body.team_ids else None)
    posts = _decode(row["posts"] or "[]")
    if posts and posts[-1] == post._replace(begin=posts[-1].begin):  # some systems tell the posts of all each day
        return {}
    return {"posts": encode([*posts, post]).decode()}


def _changed(employee_id: str, before: Sequence[Post], after: Sequence[Post]) -> Change | None:
    """Return the part in which two careers differ; ``None`` if there is none."""
    if before == after:
        return None
    same = sum(1 for _ in takewhile(_equal, zip(before, after, strict=False)))
    one, other = before[same:], after[same:]
    ends = sum(1 for _ in takewhile(_equal, zip(reversed(one), reversed(other), strict=False)))
    begin = min(post.begin for post in (*one, *other))
    return Change(employee_id, begin, one[-ends].begin if ends else _NO_END)


def _equal(pair: tuple[Post, Post]) -> bool:
    return pair[0] == pair[1]
