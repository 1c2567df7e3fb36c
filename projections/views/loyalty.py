"""View loyalty_effects: the purchases of each action's customer before and after it.

This is evidence level 1 (before/after), a description only. It shows how purchases differ, and not why. Customers are
helped after a problem, and the problem alone changes their purchases.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from domain.commands import action_id_of
from domain.events.decisions import ActionTaken, AuthorityFellShort
from domain.events.facts import ActionReported, FactCorrected, PurchaseCompleted, PurchaseReturned
from domain.money import Money
from domain.serialization import encode
from ledger.store.cloudevents import parse_time, time_text
from projections.engine.columns import position_key
from projections.engine.events import types_of
from projections.engine.pages import WHOLE, PageRequest, paged
from projections.engine.row_cache import PreparedQuery
from projections.engine.sql_functions import listed_values
from projections.engine.storage import upsert
from projections.engine.temporal_tables import Replaced, as_of, past_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from projections.engine.events import Correction, Event
    from projections.engine.storage import Row

metadata = sa.MetaData()
purchases = sa.Table(
    "purchases",
    metadata,
    position_key(),
    sa.Column("customer_id", sa.Text),
    sa.Column("at", sa.Text, nullable=False, index=True),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("total_minor", sa.BigInteger, nullable=False),
    sa.Column("margin_minor", sa.BigInteger),  # null if not reported
    sa.Column("returned", sa.Boolean, nullable=False),
    sa.Column("withdrawn", sa.Boolean, nullable=False),  # corrected: it never happened
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("purchases_by_customer", "customer_id", "currency", "at"),
)
actions = sa.Table(
    "actions",
    metadata,
    position_key(),
    sa.Column("action_id", sa.Text, nullable=False, index=True),
    sa.Column("reported", sa.Boolean, nullable=False),  # by a fact
    sa.Column("customer_id", sa.Text),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("basis", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False, index=True),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("cost_minor", sa.BigInteger, nullable=False),
    sa.Column("withdrawn", sa.Boolean, nullable=False),  # corrected, or a report of an action that has a row already
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("actions_by_customer", "customer_id", "at"),
)
requests = sa.Table(  # goodwill requests to which a limit for one action applied
    "requests",
    metadata,
    position_key(),
    sa.Column("customer_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("asked_minor", sa.BigInteger, nullable=False),
    sa.Column("limit_minor", sa.BigInteger, nullable=False),
    sa.Column("at_once", sa.Boolean, nullable=False),  # within the limit, and taken
)
purchases_past = past_of(purchases)
actions_past = past_of(actions)
WINDOWS_DAYS = (30, 90, 180)
_TICK = timedelta(microseconds=1)
"""Shifts the bounds of windows, so that a purchase at the moment of an action counts as after it."""


class Loyalty:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "loyalty_effects"
    version = 5
    metadata = metadata
    prefixes = ("ledger.fact.", "ledger.budget.")
    types = types_of(
        PurchaseCompleted, PurchaseReturned, ActionTaken, ActionReported, AuthorityFellShort, FactCorrected
    )

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Store purchases and actions with their customers."""
        bought: list[Row] = []
        done: list[Row] = []
        corrected: list[tuple[int, Correction]] = []
        asked: list[Row] = []
        for event in events:
            asked += _request_rows(event)
            match event.body:
                case PurchaseCompleted() | PurchaseReturned() as body:
                    bought.append(_purchase_row(event, body))
                case ActionTaken() | ActionReported() as body:
                    done.append(_action_row(event, body))
                case FactCorrected() if event.correction:
                    corrected.append((event.position, event.correction))
                case _:
                    continue
        upsert(connection, purchases, bought, are_new=True)
        upsert(connection, actions, done, are_new=True)
        _withdraw_reports(connection, done)
        upsert(connection, requests, asked, are_new=True)
        for position, correction in corrected:
            _correct(connection, position, correction)

    def forget(self) -> None:
        """Do nothing, because nothing is cached."""


_one, _other = actions.alias("one"), actions.alias("other")
_TAKEN = PreparedQuery(
    sa.select(_one.c.action_id, _one.c.position)
    .join(_other, _one.c.action_id == _other.c.action_id)
    .where(_one.c.action_id.in_(listed_values("ids")), ~_one.c.reported, _other.c.reported)
)
"""Actions that a decision took and a fact reported, with the position of the decision."""


def _withdraw_reports(connection: sa.Connection, done: Sequence[Row]) -> None:
    """Withdraw the reports of these actions that a decision took too: they are one action each."""
    if not done:
        return
    ids = encode(sorted({row["action_id"] for row in done})).decode()
    taken: dict[str, int] = dict(_TAKEN.execute(connection, {"ids": ids}).fetchall())
    if not taken:
        return
    replaced = Replaced(actions)
    query = sa.select(actions).where(actions.c.action_id.in_(list(taken)), actions.c.reported)
    changed = []
    for row in connection.execute(query).mappings().all():
        since = max(row["since"], taken[row["action_id"]])
        replaced.keep(dict(row), since)  # where the report came first, it counted until then
        changed.append(dict(row) | {"withdrawn": True, "since": since})
    replaced.write(connection)
    upsert(connection, actions, changed)


def _is_taken(connection: sa.Connection, action_id: str) -> bool:
    """Return whether a decision took the action."""
    query = sa.select(actions.c.position).where(actions.c.action_id == action_id, sa.not_(actions.c.reported))
    return connection.execute(query).first() is not None


def _correct(connection: sa.Connection, position: int, correction: Correction) -> None:
    """Replace the row of a corrected fact."""
    fact = correction.after or correction.before
    if fact is None:
        return
    match fact.body:
        case PurchaseCompleted() | PurchaseReturned() as body:
            table, row = purchases, _purchase_row(fact, body)
        case ActionReported() as body:
            table, row = actions, _action_row(fact, body)
        case _:
            return
    replaced = Replaced(table)
    old = connection.execute(sa.select(table).where(table.c.position == correction.position)).mappings().one()
    replaced.keep(dict(old), position)
    replaced.write(connection)
    is_gone = correction.after is None or (table is actions and _is_taken(connection, row["action_id"]))
    upsert(connection, table, [row | {"withdrawn": is_gone, "since": position}])


def _purchase_row(event: Event, body: PurchaseCompleted | PurchaseReturned) -> Row:
    return {
        "position": event.position,
        "customer_id": body.customer_id,
        "at": time_text(event.time),
        "currency": body.total.currency,
        "total_minor": body.total.minor,
        "margin_minor": body.margin.minor if isinstance(body, PurchaseCompleted) and body.margin else None,
        "returned": isinstance(body, PurchaseReturned),
        "withdrawn": False,
        "since": event.position,
    }


def _action_row(event: Event, body: ActionTaken | ActionReported) -> Row:
    stored = event.stored
    action_id = body.action_id if isinstance(body, ActionTaken) else action_id_of(stored.source, stored.id)
    return {
        "position": event.position,
        "action_id": action_id,
        "reported": isinstance(body, ActionReported),
        "customer_id": body.customer_id,
        "agent_id": body.agent_id,
        "kind": body.kind,
        "basis": body.basis,
        "at": time_text(event.time),
        "currency": body.amount.currency,
        "cost_minor": body.amount.minor,
        "withdrawn": False,
        "since": event.position,
    }


def _request_rows(event: Event) -> list[Row]:
    """Return a row for a request that the limit for one action allowed or sent to an approver."""
    body = event.body
    if isinstance(body, ActionTaken) and body.authority == "own":
        limit = next((met.limit for met in body.limits if met.name == "per_action"), None)
    elif isinstance(body, AuthorityFellShort) and not body.preview:
        limit = next((met.limit for met in body.reasons if met.rule == "per_action"), None)
    else:
        return []
    if limit is None or body.customer_id is None or body.basis != "goodwill":
        return []
    return [
        {
            "position": event.position,
            "customer_id": body.customer_id,
            "kind": body.kind,
            "at": time_text(event.time),
            "currency": limit.currency,
            "asked_minor": body.amount.minor,
            "limit_minor": limit.minor,
            "at_once": isinstance(body, ActionTaken),
        }
    ]


def read_effects(
    connection: sa.Connection,
    page: PageRequest = WHOLE,
    until: str | None = None,
    people: Collection[str] | None = None,
) -> list[Row]:
    """Return each action for a customer: its cost, and purchases before and after in complete windows.

    A window is complete if all its days lie within the recorded time; otherwise it is null. Revenue is the amount paid
    for purchases in the action's currency, ``returned`` the amount of returns. ``until`` limits the event time, and
    counts facts reported later. ``people`` limits the result to these agents' actions.
    """
    bought, done = (_happened(as_of(table, page.at), until) for table in (purchases, actions))
    first, last = (_extreme(connection, which, (bought, done)) for which in (min, max))
    named = [done.c.customer_id.is_not(None), sa.not_(done.c.withdrawn)]
    if people is not None:
        named.append(done.c.agent_id.in_(people))
    query = paged(sa.select(done).where(*named), done, page.given(), newest_first=page.newest_first, time="at")
    reading = _purchases_between(bought)
    return [
        _effect(connection, reading, row, first, last) for row in connection.execute(query.limit(page.limit)).mappings()
    ]


def _extreme(connection: sa.Connection, which: Callable[[list[str]], str], tables: Sequence[sa.FromClause]) -> str:
    """Return the first or the last time of tables, by their indexes; a text before all times if they are empty."""
    of = sa.func.min if which is min else sa.func.max
    times = [connection.scalar(sa.select(of(one.c.at)).where(sa.not_(one.c.withdrawn))) for one in tables]
    return which([time for time in times if time is not None] or [""])


def _happened(source: sa.FromClause, until: str | None) -> sa.FromClause:
    if until is None:
        return source
    return sa.select(source).where(source.c.at <= until).subquery(source.description)


def _effect(connection: sa.Connection, reading: sa.Executable, action: sa.RowMapping, first: str, last: str) -> Row:
    at = parse_time(action["at"])
    windows: Row = {}
    for days in WINDOWS_DAYS:
        start, end = time_text(at - timedelta(days=days)), time_text(at + timedelta(days=days))
        before = _bought(connection, reading, action, start, action["at"]) if start >= first else None
        since, until = time_text(at - _TICK), time_text(at + timedelta(days=days) + _TICK)
        after = _bought(connection, reading, action, since, until) if end <= last else None
        windows[str(days)] = {"before": before, "after": after}
    return {
        "action_id": action["action_id"],
        "customer_id": action["customer_id"],
        "agent_id": action["agent_id"],
        "kind": action["kind"],
        "basis": action["basis"],
        "time": action["at"],
        "cost": Money(action["cost_minor"], action["currency"]).wire(),
        "windows": windows,
        "position": action["position"],
    }


def _purchases_between(source: sa.FromClause) -> sa.Executable:
    return (
        sa.select(
            source.c.returned,
            sa.func.count().label("n"),
            sa.func.coalesce(sa.func.sum(source.c.total_minor), 0).label("minor"),
        )
        .where(
            source.c.customer_id == sa.bindparam("customer"),
            source.c.currency == sa.bindparam("currency"),
            source.c.at > sa.bindparam("start"),
            source.c.at < sa.bindparam("end"),
            sa.not_(source.c.withdrawn),
        )
        .group_by(source.c.returned)
    )


def _bought(connection: sa.Connection, reading: sa.Executable, action: sa.RowMapping, start: str, end: str) -> Row:
    parameters = {"customer": action["customer_id"], "currency": action["currency"], "start": start, "end": end}
    rows = {row.returned: row for row in connection.execute(reading, parameters)}
    sold, back = rows.get(False), rows.get(True)
    return {
        "purchases": sold.n if sold else 0,
        "revenue": Money(sold.minor if sold else 0, action["currency"]).wire(),
        "returned": Money(back.minor if back else 0, action["currency"]).wire(),
    }
