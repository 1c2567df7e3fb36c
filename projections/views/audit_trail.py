"""View audit_trail: one line for each event, found by any id that the event names."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from domain.commands import action_id_of
from domain.events.administration import AccessRecorded, TrailRead
from domain.events.decisions import ActionHeld, ActionTaken, OrderCharged
from domain.events.facts import (
    ActionReported,
    FactCorrected,
    PurchaseCompleted,
    PurchaseReturned,
    RecognitionGiven,
    RefundSettled,
)
from domain.money import Money
from domain.serialization import encode
from projections.amount_ranges import amount_name
from projections.engine.columns import position_key, texts
from projections.engine.day_spans import DaySpans, at_positions, is_far, positions_of, spans_of
from projections.engine.events import TYPES
from projections.engine.pages import WHOLE, PageRequest, count_rows, page_rows, paged
from projections.engine.row_cache import LIMIT, PreparedQuery, at_most, dict_rows, plain_rows
from projections.engine.storage import prepare_insert, upsert
from projections.views.event_summaries import describe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import msgspec

    from projections.amount_ranges import AmountRange
    from projections.engine.events import Correction, Event
    from projections.engine.storage import Progress, Row
    from projections.reading import Reader

metadata = sa.MetaData()
trail = sa.Table(
    "trail",
    metadata,
    position_key(),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("recorded", sa.Text, nullable=False),
    *texts("who", "whom", "interaction_id", "action_id"),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("corrected_by", sa.BigInteger),
    sa.Index("trail_by_time", "time", "position"),
    sa.Index("trail_by_source", "source", "position"),
)
spans_of(trail)
mentions = sa.Table(
    "mentions",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True),
    sqlite_with_rowid=False,  # each mention is stored once
)
accesses = sa.Table(
    "accesses",
    metadata,
    position_key(),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("recorded", sa.Text, nullable=False),
    *texts("who", "what", "via", "about"),
    sa.Column("up_to", sa.BigInteger),
    sa.Index("accesses_by_person", "who", "position"),
)
contacts = sa.Table(
    "contacts",
    metadata,
    sa.Column("agent_id", sa.Text, primary_key=True),
    sa.Column("interaction_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),  # the first event of the interaction that names the agent
    sqlite_with_rowid=False,
)
_CONTACTING = prepare_insert(contacts, ("agent_id", "interaction_id", "position"), replaces=False)
_OF_INTERACTIONS = "resolution.interaction."
_MENTIONING = prepare_insert(mentions, ("kind", "id", "position"), replaces=False)

_AGENTS = (
    "agent_id",
    "employee_id",
    "to_agent_id",
    "from_agent_id",
    "giver_id",
    "receiver_id",
    "requested_by",
    "decided_by",
    "answered_by",
    "granted_by",
    "published_by",
    "from_employee_id",
    "to_employee_id",
    "by",
    "reversed_by",
    "on_behalf_of",
    "read_by",
)
_OF_ORDERS = (
    *(PurchaseCompleted, PurchaseReturned, RefundSettled, ActionReported),
    *(ActionTaken, ActionHeld, OrderCharged),
)
"""The events that change the account of an order, on which a decision may rest."""
_AMOUNTS = ("amount", "asked", "total")
_CUSTOMERS = ("customer_id", "referred_customer_id", "a", "b")


class Trail:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "audit_trail"
    version = 10
    metadata = metadata
    prefixes = ("ledger.",)
    types = TYPES

    def __init__(self) -> None:
        self._spans = DaySpans(trail)

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Write one line for each event, one mention for each id that it names, new contacts, and the accesses."""
        rows: list[Row] = []
        named: list[tuple[str, str, int]] = []
        met: dict[tuple[str, str], int] = {}
        for event in events:
            known = event.correction
            about = [event] if known is None else [fact for fact in (known.after, known.before) if fact is not None]
            ids = list(dict.fromkeys(name for one in about for name in _mentioned(one)))
            line = _row(event, ids)
            rows.append(line)
            if event.type.startswith(_OF_INTERACTIONS) and (interaction := line["interaction_id"]) is not None:
                for kind, name in ids:
                    if kind == "agent":
                        met.setdefault((name, interaction), event.position)
            self._spans.note(event.stored.time, event.position)
            named += [(kind, name, event.position) for kind, name in ids]
        upsert(connection, trail, rows, are_new=True)
        for event in events:
            if isinstance(event.body, FactCorrected) and event.correction is not None:
                mark = trail.update().where(trail.c.position == event.correction.position)
                connection.execute(mark.values(corrected_by=event.position))
        _MENTIONING.write(connection, named, are_new=True)
        _CONTACTING.write(connection, [(*of, position) for of, position in met.items()])
        upsert(connection, accesses, [row for event in events if (row := _access(event)) is not None], are_new=True)
        self._spans.write(connection)

    def forget(self) -> None:
        """Drop cached spans."""
        self._spans.forget()


def _mentioned(event: Event) -> Iterator[tuple[str, str]]:
    """Yield the ids and amounts that an event names, as (kind, id), e.g. ("agent", "A-7"); the actor's comes first."""
    body = event.body
    for kind, field in _naming(type(body)):
        name = getattr(body, field)
        if kind == "amount":
            if isinstance(name, Money):
                yield kind, amount_name(name.minor, name.currency)
        elif name:
            if field == "giver_id" and isinstance(body, RecognitionGiven) and body.giver_kind == "customer":
                yield "customer", name
            else:
                yield kind, name
    if isinstance(body, ActionReported):
        yield "action", action_id_of(event.stored.source, event.stored.id)
    holder = getattr(body, "holder", None)
    if holder and holder.startswith("agent:"):
        yield "agent", holder.removeprefix("agent:")


@cache
def _naming(cls: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """Return the fields of a type of event that name something, with their kind, in the order of the mentions."""
    names = [("agent", one) for one in _AGENTS] + [("customer", one) for one in _CUSTOMERS]
    names.append(("interaction", "interaction_id"))
    if issubclass(cls, _OF_ORDERS):
        names.append(("order", "order_id"))
    names.append(("escalation", "escalation_id"))
    names += [("amount", one) for one in _AMOUNTS]
    if not issubclass(cls, ActionReported):
        names.append(("action", "action_id"))
    return tuple((kind, field) for kind, field in names if hasattr(cls, field))


def _row(event: Event, ids: Sequence[tuple[str, str]]) -> Row:
    first: dict[str, str] = {}
    for kind, name in ids:
        first.setdefault(kind, name)
    return {
        "position": event.position,
        "type": event.type,
        "source": event.stored.source,
        "event_id": event.stored.id,
        "time": event.stored.time,
        "recorded": event.stored.recordedtime,
        "who": first.get("agent"),
        "whom": first.get("customer"),
        "interaction_id": first.get("interaction"),
        "action_id": first.get("action"),
        "what": describe(event.body) if event.correction is None else _correction_text(event.correction),
        "corrected_by": None,
    }


def _access(event: Event) -> Row | None:
    """Return the row of a sign-in, an export or another access, or of a read about a named person."""
    body = event.body
    row: Row = {"position": event.position, "time": event.stored.time, "recorded": event.stored.recordedtime}
    if isinstance(body, AccessRecorded):
        return row | {"who": body.who, "what": body.what, "via": body.via, "about": None, "up_to": None}
    if isinstance(body, TrailRead):
        about = encode(body.about).decode()
        return row | {"who": body.read_by, "what": "read", "via": None, "about": about, "up_to": body.up_to}
    return None


def _correction_text(correction: Correction) -> str:
    now = describe(correction.after.body) if correction.after else "it never happened"
    return f"position {correction.position} corrected: {now} ({correction.reason})"


def read_trail(
    connection: sa.Connection,
    named: Sequence[tuple[str, str]] = (),
    page: PageRequest = WHOLE,
    happened: str | None = None,
    amounts: AmountRange | None = None,
) -> list[Row]:
    """Return a page of the audit trail, of events that name all of ``named``, (kind, id) each.

    ``happened``: only events with an event time up to it. ``amounts``: only events with such an amount.
    """
    kinds = (*(kind for kind, _ in named), *([] if amounts is None else ["amount"]))
    values = {f"name_{number}": name for number, (_, name) in enumerate(named)}
    if amounts is not None:
        values["least"], values["most"] = amounts.names
    given = page.given() | ({} if happened is None else {"happened": happened})
    if not kinds and happened is None and is_far(connection, trail, page):
        positions = positions_of(connection, trail, page) or ()
        far = at_positions(sa.select(trail), trail, positions, newest_first=page.newest_first)
        return dict_rows(connection, far)
    rows = _lines(kinds, frozenset(given), page.newest_first).rows(
        connection, {**values, **given, "limit": at_most(page.limit)}
    )
    for row in rows:
        if page.at is not None and (row["corrected_by"] or 0) > page.at:
            row["corrected_by"] = None
    return rows


def count_trail(
    connection: sa.Connection,
    named: Sequence[tuple[str, str]] = (),
    page: PageRequest = WHOLE,
    amounts: AmountRange | None = None,
) -> int:
    """Return the number of events in a list of the audit trail; the parameters are those of ``read_trail``."""
    where = [] if page.at is None else [trail.c.position <= page.at]
    where += [_names(mentions.c.kind == kind, mentions.c.id == name) for kind, name in named]
    if amounts is not None:
        where.append(_names(mentions.c.kind == "amount", mentions.c.id.between(*amounts.names)))
    return count_rows(connection, trail, page._replace(at=None), where, source=trail)


def _names(*of: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return the condition that an event has such a mention."""
    return trail.c.position.in_(sa.select(mentions.c.position).where(*of))


@cache
def _lines(kinds: tuple[str, ...], given: frozenset[str], newest_first: bool) -> PreparedQuery:
    bounds: dict[str, sa.BindParameter[object]] = {name: sa.bindparam(name) for name in given}
    query = paged(sa.select(trail), trail, bounds, newest_first=newest_first)
    if "at" in given:
        query = query.where(trail.c.position <= bounds["at"])
    if "happened" in given:
        query = query.where(trail.c.time <= bounds["happened"])
    for number, kind in enumerate(kinds):
        name: sa.ColumnElement[bool] = mentions.c.id == sa.bindparam(f"name_{number}")
        if kind == "amount":
            name = mentions.c.id.between(sa.bindparam("least"), sa.bindparam("most"))
        query = query.where(_names(mentions.c.kind == kind, name))
    return PreparedQuery(query.limit(LIMIT))


def read_accesses(connection: sa.Connection, page: PageRequest = WHOLE, **equal: str | None) -> list[Row]:
    """Return a page of accesses and of reads about named people, in the order of the log."""
    where = [] if page.at is None else [accesses.c.position <= page.at]
    rows = page_rows(connection, accesses, page._replace(at=None), where, equal, source=accesses)
    return [row | {"about": json.loads(row["about"] or "[]")} for row in rows]


def count_accesses(connection: sa.Connection, page: PageRequest = WHOLE, **equal: str | None) -> int:
    """Return the number of accesses in a list; the parameters are those of ``read_accesses``."""
    where = [] if page.at is None else [accesses.c.position <= page.at]
    return count_rows(connection, accesses, page._replace(at=None), where, equal, source=accesses)


def read_contacts(
    connection: sa.Connection, position: int | None = None, agents: Collection[str] | None = None
) -> dict[str, int]:
    """Return, by agent, the number of interactions that name the agent in an event of the interaction's own.

    ``agents``: only these.
    """
    query = sa.select(contacts.c.agent_id, sa.func.count()).group_by(contacts.c.agent_id)
    query = query if position is None else query.where(contacts.c.position <= position)
    query = query if agents is None else query.where(contacts.c.agent_id.in_(agents))
    return dict(plain_rows(connection, query))


def read_recorded(connection: sa.Connection, position: int) -> str | None:
    """Return the recorded time of the last event up to a position, or ``None`` before the first one."""
    query = sa.select(trail.c.recorded).where(trail.c.position <= position).order_by(trail.c.position.desc()).limit(1)
    return connection.execute(query).scalar_one_or_none()


class Between(NamedTuple):
    """The events that were recorded between two positions, and those of them that had happened before the first."""

    events: int
    late: int


def read_between(connection: sa.Connection, first: int, last: int) -> Between:
    """Return the number of events behind ``first`` and up to ``last``, and how many of them came late."""
    recorded = read_recorded(connection, first) or ""
    query = sa.select(sa.func.count(), sa.func.count(sa.case((trail.c.time <= recorded, 1))))
    row = connection.execute(query.where(trail.c.position > first, trail.c.position <= last)).one()
    return Between(*row)


async def recorded_until(read: Reader, progress: Progress, position: int | None) -> str | None:
    """Return the recorded time up to which a view was read: that of its progress, or that of a ``position``."""
    if position is None:
        return progress.recorded or None
    return (await read("audit_trail", lambda c: read_recorded(c, position))).result
