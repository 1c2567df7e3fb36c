"""loyalty_effects: what each action's customer bought before and after it.

Rung 1 of the ladder (before and after): a description, nothing more. It says how purchases differ, not
why; people are helped when something went wrong, and that alone changes what they buy.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from domain.facts import ActionReported, PurchaseCompleted, PurchaseReturned
from domain.money import Money
from domain.records import ActionTaken
from domain.requests import action_id_of
from ledger.cloudevents import parse_time, time_text
from projections.events import TYPES
from projections.generations import upsert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projections.events import Event

metadata = sa.MetaData()
purchases = sa.Table(
    "purchases",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True),
    sa.Column("customer_id", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("total_minor", sa.BigInteger, nullable=False),
    sa.Column("returned", sa.Boolean, nullable=False),
    sa.Index("purchases_by_customer", "customer_id", "currency", "at"),
)
actions = sa.Table(
    "actions",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True),
    sa.Column("action_id", sa.Text, nullable=False),
    sa.Column("customer_id", sa.Text, nullable=False),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("basis", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("cost_minor", sa.BigInteger, nullable=False),
    sa.Index("actions_by_customer", "customer_id", "at"),
)
span = sa.Table(
    "span",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("first", sa.Text, nullable=False),
    sa.Column("last", sa.Text, nullable=False),
)
WINDOWS_DAYS = (30, 90, 180)
RUNG = 1
CAVEAT = "before and after: a description, not an effect of the action"


class Loyalty:
    """The model (see ``projections.model.Model``)."""

    name = "loyalty_effects"
    version = 1
    metadata = metadata
    prefixes = ("ledger.fact.", "ledger.budget.")
    types = TYPES

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Keep purchases and actions with their customers, and the span of time the log tells of."""
        bought: list[dict[str, Any]] = []
        done: list[dict[str, Any]] = []
        times: list[str] = []
        for event in events:
            body = event.body
            match body:
                case PurchaseCompleted() | PurchaseReturned():
                    at = time_text(event.time)
                    times.append(at)
                    if body.customer_id is not None:
                        bought.append(_purchase_row(event, body, at))
                case ActionTaken() | ActionReported():
                    at = time_text(event.time)
                    times.append(at)
                    if body.customer_id is not None:
                        done.append(_action_row(event, body, at))
                case _:
                    continue
        upsert(connection, purchases, bought)
        upsert(connection, actions, done)
        if times:
            self._widen(connection, min(times), max(times))

    def forget(self) -> None:
        """Nothing is cached."""

    @staticmethod
    def _widen(connection: sa.Connection, first: str, last: str) -> None:
        row = connection.execute(sa.select(span)).one_or_none()
        if row is not None:
            first, last = min(first, row.first), max(last, row.last)
        upsert(connection, span, [{"id": 1, "first": first, "last": last}])


def _purchase_row(event: Event, body: PurchaseCompleted | PurchaseReturned, at: str) -> dict[str, Any]:
    return {
        "position": event.position,
        "customer_id": body.customer_id,
        "at": at,
        "currency": body.total.currency,
        "total_minor": body.total.minor,
        "returned": isinstance(body, PurchaseReturned),
    }


def _action_row(event: Event, body: ActionTaken | ActionReported, at: str) -> dict[str, Any]:
    stored = event.stored
    action_id = body.action_id if isinstance(body, ActionTaken) else action_id_of(stored.source, stored.id)
    return {
        "position": event.position,
        "action_id": action_id,
        "customer_id": body.customer_id,
        "agent_id": body.agent_id,
        "kind": body.kind,
        "basis": body.basis,
        "at": at,
        "currency": body.amount.currency,
        "cost_minor": body.amount.minor,
    }


def read_effects(connection: sa.Connection, limit: int | None = None, after: int = 0) -> list[dict[str, Any]]:
    """For each action with a customer: its cost, and purchases before and after in complete windows.

    A window is complete where the log tells of all its days; what is not complete is null. Revenue is
    what was paid for purchases in the action's currency, ``returned`` what came back of it.
    """
    bounds = connection.execute(sa.select(span)).one_or_none()
    if bounds is None:
        return []
    query = sa.select(actions).where(actions.c.position > after).order_by(actions.c.position).limit(limit)
    return [_effect(connection, row, bounds.first, bounds.last) for row in connection.execute(query).all()]


def _effect(connection: sa.Connection, action: sa.Row[Any], first: str, last: str) -> dict[str, Any]:
    at = parse_time(action.at)
    windows: dict[str, Any] = {}
    for days in WINDOWS_DAYS:
        start, end = time_text(at - timedelta(days=days)), time_text(at + timedelta(days=days))
        before = _bought(connection, action, start, action.at) if start >= first else None
        after = _bought(connection, action, action.at, end) if end <= last else None
        windows[str(days)] = {"before": before, "after": after}
    return {
        "action_id": action.action_id,
        "customer_id": action.customer_id,
        "agent_id": action.agent_id,
        "kind": action.kind,
        "basis": action.basis,
        "time": action.at,
        "cost": Money(action.cost_minor, action.currency).wire(),
        "windows": windows,
        "position": action.position,
    }


_minor_sum = sa.func.coalesce(sa.func.sum(purchases.c.total_minor), 0)
_bought_query = (
    sa.select(purchases.c.returned, sa.func.count().label("n"), _minor_sum.label("minor"))
    .where(
        purchases.c.customer_id == sa.bindparam("customer"),
        purchases.c.currency == sa.bindparam("currency"),
        purchases.c.at > sa.bindparam("start"),
        purchases.c.at <= sa.bindparam("end"),
    )
    .group_by(purchases.c.returned)
)


def _bought(connection: sa.Connection, action: sa.Row[Any], start: str, end: str) -> dict[str, Any]:
    parameters = {"customer": action.customer_id, "currency": action.currency, "start": start, "end": end}
    rows = {row.returned: row for row in connection.execute(_bought_query, parameters)}
    sold, back = rows.get(False), rows.get(True)
    return {
        "purchases": sold.n if sold else 0,
        "revenue": Money(sold.minor if sold else 0, action.currency).wire(),
        "returned": Money(back.minor if back else 0, action.currency).wire(),
    }


def summarise(effects: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per window and currency: mean revenue of customers before and after their first action.

    One index action per customer and window, complete on both sides (domain language: Loyalty).
    """
    sums: dict[tuple[int, str], list[Decimal]] = {}
    seen: set[tuple[int, str]] = set()
    for effect in effects:
        for days in WINDOWS_DAYS:
            window = effect["windows"][str(days)]
            key = (days, effect["customer_id"])
            if key in seen or window["before"] is None or window["after"] is None:
                continue
            seen.add(key)
            total = sums.setdefault((days, effect["cost"]["currency"]), [Decimal(0)] * 4)
            before, after = window["before"]["revenue"], window["after"]["revenue"]
            amounts = (1, before["amount"], after["amount"], effect["cost"]["amount"])
            for place, amount in enumerate(amounts):
                total[place] += Decimal(amount)
    return [
        {
            "days": days,
            "currency": currency,
            "n": int(n),
            "mean_before": _mean(before, n),
            "mean_after": _mean(after, n),
            "mean_cost": _mean(cost, n),
        }
        for (days, currency), (n, before, after, cost) in sorted(sums.items())
    ]


def _mean(total: Decimal, n: Decimal) -> str:
    return str((total / n).quantize(Decimal("0.01")))
