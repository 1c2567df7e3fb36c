"""View budget_balances: granted, spent, reserved and remaining of every holder in every period."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa

from domain.actions import counted_minor
from domain.events.decisions import BudgetOpened
from domain.events.facts import Basis
from domain.money import Money, wire_of
from domain.periods import bounds_of
from domain.serialization import encode
from ledger.store.cloudevents import time_text
from projections.engine.pages import by_key
from projections.engine.row_cache import LIMIT, PreparedQuery, at_most, plain_rows
from projections.engine.sql_functions import listed_values
from projections.engine.storage import upsert
from projections.engine.temporal_tables import SINCE, Replaced, as_of, as_of_by_key, past_of, versions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from projections.engine.events import Event
    from projections.engine.storage import Row

metadata = sa.MetaData()
balances = sa.Table(
    "balances",
    metadata,
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("granted_minor", sa.BigInteger, nullable=False),
    sa.Column("spent_minor", sa.BigInteger, nullable=False),
    sa.Column("reserved_minor", sa.BigInteger, nullable=False),
    sa.Column("lapsed_minor", sa.BigInteger, nullable=False),  # unused at the closing: lapsed or carried over
    sa.Column("opened", sa.Text, nullable=False),
    sa.Column("closed", sa.Boolean, nullable=False),
    sa.Column("happened", sa.Text, nullable=False),  # event time of the last event
    sa.Column("since", sa.BigInteger, nullable=False),
)
balances_past = past_of(balances)
holds = sa.Table(
    "holds",
    metadata,
    sa.Column("action_id", sa.Text, primary_key=True),
    sa.Column("minor", sa.BigInteger, nullable=False),
)
_CACHED_ROWS = 20_000
_LAST_ZONE = ZoneInfo("Etc/GMT+12")
"""The time zone in which a day ends last."""


class _Change(msgspec.Struct):
    """The fields of an event on a budget's subject that change its balance; most events have only some of them."""

    holder: str
    period: str
    amount: Money | None = None
    action_id: str = ""
    basis: Basis = "goodwill"
    owed: Money | None = None
    direction: str = ""
    recovered: bool = False
    late: bool = False
    held: Money | None = None
    lapsed: Money | None = None
    carried_over: Money | None = None
    escalation_id: str | None = None


_TYPES: Mapping[str, type[msgspec.Struct]] = {
    "resolution.budget.opened.v1": BudgetOpened,
    **{
        f"resolution.{name}.v1": _Change
        for name in (
            "budget.granted",
            "budget.transferred",
            "budget.drawn",
            "budget.closed",
            "action.taken",
            "action.held",
            "action.settled",
            "action.voided",
            "action.charged",
            "action.reversed",
        )
    },
}


class Balances:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "budget_balances"
    version = 5
    metadata = metadata
    prefixes = ("ledger.budget.",)
    types = _TYPES

    def __init__(self) -> None:
        self._rows: dict[_Key, Row] = {}
        self._holds: dict[str, int] = {}
        self._replaced = Replaced(balances)

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Add the events' amounts to the balances."""
        changed: dict[_Key, Row] = {}
        holding: dict[str, int] = {}
        for event in events:
            match event.body:
                case BudgetOpened(reopened=True) as opened:
                    row = self._row(connection, opened.holder, opened.period, opened.currency)
                    self._replaced.keep(row, event.position)
                    _reopen(row, opened, event)
                case BudgetOpened() as opened:
                    row = _opened_row(opened, event)
                    self._rows[_key(row)] = row
                case _Change() as change:
                    row = self._row(connection, change.holder, change.period, event.subject.rsplit(".", 2)[1])
                    self._replaced.keep(row, event.position)
                    row["happened"] = time_text(event.time)
                    self._apply(connection, row, event.type[11:-3], change, holding)
                case _:
                    continue
            changed[_key(row)] = row
        self._replaced.write(connection)
        upsert(connection, balances, list(changed.values()))
        upsert(connection, holds, [{"action_id": name, "minor": minor} for name, minor in holding.items()])
        self._holds |= holding
        if len(self._rows) + len(self._holds) > _CACHED_ROWS:
            self.forget()

    def _apply(self, connection: sa.Connection, row: Row, name: str, change: _Change, holding: dict[str, int]) -> None:
        """Apply one event to the balance's columns."""
        minor = 0 if change.amount is None else counted_minor(change.basis, change.amount, change.owed)
        if name in ("action.settled", "action.voided") or (name == "action.taken" and change.escalation_id):
            held = holding.get(change.action_id)
            row["reserved_minor"] -= self._held(connection, change.action_id) if held is None else held
            holding[change.action_id] = 0
        match name:
            case "action.taken" | "action.charged" | "action.settled":
                row["spent_minor"] += minor
            case "action.held":
                row["reserved_minor"] += minor
                holding[change.action_id] = minor
            case "action.reversed" if change.recovered:
                row["granted_minor" if change.late else "spent_minor"] += minor if change.late else -minor
            case "budget.granted":
                row["granted_minor"] += minor
            case "budget.transferred" | "budget.drawn":
                row["granted_minor"] += minor if change.direction == "in" else -minor
            case "budget.closed":
                assert change.lapsed is not None
                assert change.carried_over is not None
                unused = change.lapsed.minor + change.carried_over.minor
                row["granted_minor"] -= unused + row["reserved_minor"]
                row["lapsed_minor"] += unused
                row["reserved_minor"] = 0
                row["closed"] = True

    def _held(self, connection: sa.Connection, action_id: str) -> int:
        """Return the amount that is reserved for an action, in minor units."""
        if action_id not in self._holds:
            found = connection.execute(sa.select(holds.c.minor).where(holds.c.action_id == action_id)).scalar()
            self._holds[action_id] = found or 0
        return self._holds[action_id]

    def forget(self) -> None:
        """Drop cached rows."""
        self._rows.clear()
        self._holds.clear()
        self._replaced.forget()

    def _row(self, connection: sa.Connection, *key: str) -> Row:
        row = self._rows.get(key)
        if row is None:
            named = sa.tuple_(balances.c.holder, balances.c.period, balances.c.currency) == sa.tuple_(*key)
            row = dict(connection.execute(sa.select(balances).where(named)).mappings().one())
            self._rows[_key(row)] = row
        return row


_Key = tuple[str, ...]


def _key(row: Row) -> _Key:
    return row["holder"], row["period"], row["currency"]


def _reopen(row: Row, opened: BudgetOpened, event: Event) -> None:
    """Reopen a period that a fast clock had closed."""
    reserved_minor = sum(hold.amount.minor for hold in opened.holds)
    again = opened.granted.minor + opened.carried_over.minor
    row["granted_minor"] += again + reserved_minor
    row["lapsed_minor"] = max(0, row["lapsed_minor"] - again)
    row["reserved_minor"] += reserved_minor
    row["closed"], row["happened"] = False, time_text(event.time)


def _opened_row(opened: BudgetOpened, event: Event) -> Row:
    reserved_minor = sum(hold.amount.minor for hold in opened.holds)
    return {
        "holder": opened.holder,
        "period": opened.period,
        "currency": opened.currency,
        "granted_minor": opened.granted.minor + opened.carried_over.minor + reserved_minor,
        "spent_minor": 0,
        "reserved_minor": reserved_minor,
        "lapsed_minor": 0,
        "opened": event.stored.time,
        "closed": False,
        "happened": time_text(event.time),
        "since": event.position,
    }


def read_balances(
    connection: sa.Connection, holder: str | None = None, period: str | None = None, position: int | None = None
) -> list[Row]:
    """Return balances by holder, period and currency, as of a position."""
    return read_balances_page(connection, {"holder": holder, "period": period}, position)


def read_balances_page(
    connection: sa.Connection,
    equal: Mapping[str, str | None],
    position: int | None = None,
    *,
    holders: Collection[str] | None = None,
    periods: Collection[str] | None = None,
    closed: bool | None = None,
    after: Sequence[object] | None = None,
    limit: int | None = None,
    descending: bool = False,
) -> list[Row]:
    """Return a page of balances by holder, period and currency, as of a position.

    ``holders`` and ``periods`` are the ones to list, all where they are ``None``. ``after`` is the key of the last
    balance of the page before.
    """
    some = {"holders": holders, "periods": periods}
    last = dict(zip(_KEY, after or (), strict=bool(after)))
    values: dict[str, object] = {
        **equal,
        "position": position,
        "closed": closed,
        **{name: None if listed is None else encode(sorted(listed)).decode() for name, listed in some.items()},
        **{f"last_{name}": value for name, value in last.items()},
    }
    given = frozenset(name for name, value in values.items() if value is not None)
    found = _listing(given, limit is not None, descending).rows(connection, values | {"limit": at_most(limit)})
    return [_shown(row) for row in found]


def read_current_totals(connection: sa.Connection, now: datetime) -> dict[str, tuple[int, int]]:
    """Return what is spent and what remains in the open budgets of current periods, by currency, in minor units.

    A budget stays open until its holder needs the next one; it is left out once its period has ended everywhere.
    """
    one = balances.c
    spent, left = sa.func.sum(one.spent_minor), sa.func.sum(one.granted_minor - one.spent_minor - one.reserved_minor)
    query = sa.select(one.currency, one.period, spent, left).where(~one.closed).group_by(one.currency, one.period)
    found: dict[str, tuple[int, int]] = {}
    for currency, period, spent_minor, left_minor in connection.execute(query):
        if bounds_of(period, _LAST_ZONE)[1] > now:
            before = found.get(currency, (0, 0))
            found[currency] = before[0] + int(spent_minor), before[1] + int(left_minor)
    return found


def read_thin(connection: sa.Connection, share: float, after: int) -> list[Row]:
    """Return the open budgets with less than a share of their grant left, which had more at the position ``after``."""
    one = balances.c
    left = one.granted_minor - one.spent_minor - one.reserved_minor
    thin = sa.and_(one.granted_minor > 0, left < share * one.granted_minor)
    query = sa.select(balances).where(one.since > after, ~one.closed, thin).order_by(*(one[name] for name in _KEY))
    found: list[Row] = []
    for row in map(dict, connection.execute(query).mappings()):
        earlier = as_of(balances, after).c
        left = earlier.granted_minor - earlier.spent_minor - earlier.reserved_minor
        was_thin = sa.and_(earlier.granted_minor > 0, left < share * earlier.granted_minor)
        same = (earlier[name] == row[name] for name in _KEY)
        if connection.execute(sa.select(earlier.holder).where(*same, was_thin)).first() is None:
            found.append(_shown(row) | {"position": row[SINCE], "happened": row["happened"]})
    return found


def read_periods(connection: sa.Connection) -> list[str]:
    """Return the periods that any budget was opened for."""
    return list(connection.execute(sa.select(balances.c.period).distinct()).scalars())


_KEY = ("holder", "period", "currency")


@cache
def _listing(given: frozenset[str], paged: bool, descending: bool) -> PreparedQuery:
    source: sa.FromClause = balances
    if "position" in given:
        source = (as_of_by_key if paged else as_of)(balances, sa.bindparam("position"))
    after: list[object] | None = [sa.bindparam(f"last_{name}") for name in _KEY] if "last_holder" in given else None
    query = by_key(sa.select(source), (source.c[name] for name in _KEY), after, descending=descending)
    where = [source.c[name] == sa.bindparam(name) for name in ("holder", "period", "closed") if name in given]
    where += [source.c[name].in_(listed_values(f"{name}s")) for name in ("holder", "period") if f"{name}s" in given]
    return PreparedQuery(query.where(*where).limit(LIMIT))


def read_happened(
    connection: sa.Connection, until: str, holder: str | None = None, period: str | None = None
) -> list[Row]:
    """Return balances that count only changes up to the event time ``until``, even those reported later."""
    sums: dict[_Key, Row] = {}
    before: dict[_Key, Row] = {}
    both = sa.union_all(sa.select(balances), sa.select(balances_past)).subquery()
    query = sa.select(both).order_by(both.c[SINCE])
    for column, value in (("holder", holder), ("period", period)):
        query = query.where(both.c[column] == value) if value is not None else query
    for row in map(dict, connection.execute(query).mappings()):
        previous, before[_key(row)] = before.get(_key(row)), row
        if row["happened"] > until:
            continue
        total = sums.setdefault(_key(row), dict(row) | dict.fromkeys(_AMOUNTS, 0))
        for name in _AMOUNTS:
            total[name] += row[name] - (previous[name] if previous is not None else 0)
        total["closed"] = row["closed"]
    return [_shown(sums[key]) for key in sorted(sums)]


def read_closed(connection: sa.Connection, position: int | None = None) -> list[tuple[str, int, int]]:
    """Return each closed budget as of a position: its holder, and what was spent and granted of it in minor units."""
    one = as_of(balances, position).c
    query = sa.select(one.holder, one.spent_minor, (one.granted_minor + one.lapsed_minor).label("granted"))
    return plain_rows(connection, query.where(one.closed).order_by(one.holder, one.period, one.currency))


_AMOUNTS = ("granted_minor", "spent_minor", "reserved_minor", "lapsed_minor")


def read_making(connection: sa.Connection, holder: str, period: str) -> list[Row]:
    """Return a holder's balance after each event of a period, with the event's position."""
    found = versions(connection, balances, {"holder": holder, "period": period})
    return [_shown(row) | {"position": row[SINCE], "happened": row["happened"]} for row in found]


def _shown(row: Row) -> Row:
    """Return a balance as answers show it.

    ``granted`` is spent, reserved and remaining; ``granted_in_period`` also counts what lapsed or was carried over when
    the period was closed.
    """
    granted, spent, reserved, lapsed, currency = (row[name] for name in (*_AMOUNTS, "currency"))
    return {
        "holder": row["holder"],
        "period": row["period"],
        "granted": wire_of(granted, currency),
        "spent": wire_of(spent, currency),
        "reserved": wire_of(reserved, currency),
        "remaining": wire_of(granted - spent - reserved, currency),
        "granted_in_period": wire_of(granted + lapsed, currency),
        "opened": row["opened"],
        "closed": bool(row["closed"]),
    }
