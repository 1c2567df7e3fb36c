"""The order index: what sources recorded as paid for an order and as given back, in the decider's index file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from domain.decisions.owed import OrderFact
from domain.events import facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from consumers.decisions.state.actions import StateAction
    from domain.money import Money
    from ledger.store.event_id_index import Change, EventIdIndex

_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (position INTEGER PRIMARY KEY, id TEXT NOT NULL, row BLOB);
CREATE INDEX IF NOT EXISTS orders_id ON orders (id) WHERE row IS NOT NULL;
"""

type _Row = tuple[int, str, bytes | None]
"""The position of a fact, the id of its order, and the fact; ``None`` where it does not count."""


class OrderIndex:
    """Facts about orders, by the position of the fact. Memory holds those that are not written yet."""

    def __init__(self, index: EventIdIndex) -> None:
        index.table(_SCHEMA)
        self._index = index
        self._changed: dict[int, _Row] = {}
        self._writing: dict[int, _Row] = {}
        self._unwritten: dict[str, set[int]] = {}  # positions of both, by order

    def of_order(self, order_id: str) -> Sequence[OrderFact]:
        """Return what sources recorded as paid for an order, and as given back."""
        query = "SELECT position, row FROM orders WHERE id = ? AND row IS NOT NULL"
        found = dict(self._index.rows(query, (order_id,)))
        for position in {*found, *self._unwritten.get(order_id, ())}:
            newer = self._changed.get(position) or self._writing.get(position)
            if newer is not None:
                found[position] = newer[2] if newer[1] == order_id else None
        return [_decode(row) for _, row in sorted(found.items()) if row is not None]

    def put(self, position: int, order_id: str | None, fact: OrderFact | None) -> None:
        """Put a fact in the place of the one at its position; ``None`` where it does not count any more."""
        if order_id is not None:
            self._changed[position] = (position, order_id, None if fact is None else _encode(fact))
            self._unwritten.setdefault(order_id, set()).add(position)

    def take_changes(self) -> list[Change]:
        """Return the changes to write; call ``on_written`` after they were written."""
        self._writing, self._changed = self._changed, {}
        rows = list(self._writing.values())
        return [("INSERT OR REPLACE INTO orders VALUES (?, ?, ?)", rows)] if rows else []

    def on_written(self) -> None:
        """Forget the facts that the index has now."""
        self._writing = {}
        if not self._changed:
            self._unwritten.clear()


def paid_or_back(
    fact: facts.PurchaseCompleted | facts.PurchaseReturned, source: str, *, is_proof: bool
) -> OrderFact | None:
    """Return what a fact says about the money of its order; ``None`` where that is nothing.

    ``is_proof``: a payment that its source records shows what is owed.
    """
    if isinstance(fact, facts.PurchaseCompleted):
        return OrderFact("paid", source, fact.total.minor, fact.total.currency) if is_proof else None
    return OrderFact("back", source, fact.total.minor, fact.total.currency)


def refunded_action(
    total: Money, actions: Iterable[StateAction], told: Iterable[OrderFact], before: int
) -> StateAction | None:
    """Return the action that a refund of an order pays, which it does not name; ``None`` where it pays none.

    It pays the smallest hold that reaches, else the first action of exactly this amount. Each action is paid once.
    ``before`` is the position of the refund: later actions of this decider are not looked at.
    """
    paid = {fact.action_id for fact in told}
    rows = [row for row in actions if 0 < row.position < before and row.currency == total.currency]
    rows = sorted((row for row in rows if row.action_id not in paid), key=lambda row: row.position)
    holds = [row for row in rows if row.state == "held" and row.done_minor >= total.minor]
    if holds:
        return min(holds, key=lambda row: row.done_minor)
    return next((row for row in rows if row.state != "held" and row.given_minor == total.minor), None)


_decode = msgspec.json.Decoder(OrderFact).decode
_encode = msgspec.json.Encoder().encode
