"""budget_balances: granted, spent, reserved and remaining of every holder in every period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from domain.money import Money
from domain.records import BudgetOpened
from projections.generations import upsert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from projections.events import Event

metadata = sa.MetaData()
balances = sa.Table(
    "balances",
    metadata,
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("granted_minor", sa.BigInteger, nullable=False),
    sa.Column("spent_minor", sa.BigInteger, nullable=False),
    sa.Column("reserved_minor", sa.BigInteger, nullable=False),
    sa.Column("opened", sa.Text, nullable=False),
    sa.Column("closed", sa.Boolean, nullable=False),
)
_CACHED_ROWS = 200_000


class _Spending(msgspec.Struct):
    """What an action means to a balance."""

    holder: str
    period: str
    basis: str
    amount: Money


class _Grant(msgspec.Struct):
    holder: str
    period: str
    amount: Money


class _Closing(msgspec.Struct):
    holder: str
    period: str
    lapsed: Money
    carried_over: Money


class _NoMoney(msgspec.Struct):
    """Recorded on a budget's subject, but moves nothing."""


_TYPES: Mapping[str, type[Any]] = {
    "resolution.budget.opened.v1": BudgetOpened,
    "resolution.budget.granted.v1": _Grant,
    "resolution.budget.closed.v1": _Closing,
    "resolution.action.taken.v1": _Spending,
    "resolution.authority.fell_short.v1": _NoMoney,
}


class Balances:
    """The model (see ``projections.model.Model``)."""

    name = "budget_balances"
    version = 1
    metadata = metadata
    prefixes = ("ledger.budget.",)
    types = _TYPES

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Add up."""
        changed: dict[tuple[str, str], dict[str, Any]] = {}
        for event in events:
            match event.body:
                case _Spending(holder=holder, period=period, basis=basis, amount=amount):
                    if basis != "goodwill":
                        continue
                    row = self._row(connection, holder, period)
                    row["spent_minor"] += amount.minor
                case BudgetOpened() as opened:
                    row = _opened_row(opened, event.stored.time)
                    self._rows[opened.holder, opened.period] = row
                case _Grant(holder=holder, period=period, amount=amount):
                    row = self._row(connection, holder, period)
                    row["granted_minor"] += amount.minor
                case _Closing(holder=holder, period=period) as closing:
                    row = self._row(connection, holder, period)
                    row["granted_minor"] -= closing.lapsed.minor + closing.carried_over.minor
                    row["closed"] = True
                case _:
                    continue
            changed[row["holder"], row["period"]] = row
        upsert(connection, balances, list(changed.values()))
        if len(self._rows) > _CACHED_ROWS:
            self._rows.clear()

    def forget(self) -> None:
        """Drop cached rows."""
        self._rows.clear()

    def _row(self, connection: sa.Connection, holder: str, period: str) -> dict[str, Any]:
        row = self._rows.get((holder, period))
        if row is None:
            query = sa.select(balances).where(balances.c.holder == holder, balances.c.period == period)
            row = dict(connection.execute(query).mappings().one())
            self._rows[holder, period] = row
        return row


def _opened_row(opened: BudgetOpened, time: str) -> dict[str, Any]:
    return {
        "holder": opened.holder,
        "period": opened.period,
        "currency": opened.currency,
        "granted_minor": opened.granted.minor + opened.carried_over.minor,
        "spent_minor": 0,
        "reserved_minor": 0,
        "opened": time,
        "closed": False,
    }


def read_balances(connection: sa.Connection, holder: str | None = None, period: str | None = None,
                  after: tuple[str, str] | None = None, limit: int | None = None) -> list[dict[str, Any]]:  # fmt: skip
    """Balances by holder and period, as answers show them; ``after`` is the last (holder, period) seen."""
    query = sa.select(balances).order_by(balances.c.holder, balances.c.period).limit(limit)
    if holder is not None:
        query = query.where(balances.c.holder == holder)
    if period is not None:
        query = query.where(balances.c.period == period)
    if after is not None:
        query = query.where(sa.tuple_(balances.c.holder, balances.c.period) > sa.tuple_(*after))
    return [_shown(row) for row in connection.execute(query)]


def _shown(row: sa.Row[Any]) -> dict[str, Any]:
    def money(minor: int) -> dict[str, str]:
        return Money(minor, row.currency).wire()

    return {
        "holder": row.holder,
        "period": row.period,
        "granted": money(row.granted_minor),
        "spent": money(row.spent_minor),
        "reserved": money(row.reserved_minor),
        "remaining": money(row.granted_minor - row.spent_minor - row.reserved_minor),
        "opened": row.opened,
        "closed": row.closed,
    }
