"""The action index: one row for each action, by id, customer and interaction, in the decider's index file.

It is complete up to the position of the decision state. Actions of this decider are in it from their decision on.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec

from domain.actions import change_of, counted_minor, is_reservation
from domain.customers import connected, is_linked_after, unnamed_customer
from domain.decisions.authority import Gift
from domain.events.decisions import ActionHeld, ActionTaken
from domain.events.facts import ActionState, Basis
from domain.money import Money

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from domain.customers import CustomerLink
    from domain.events.decisions import Posting
    from domain.events.facts import ActionReported
    from ledger.store.event_id_index import Change, EventIdIndex

_SCHEMA = """
CREATE TABLE IF NOT EXISTS given (position INTEGER PRIMARY KEY, customer TEXT, interaction TEXT, expires REAL,
    row BLOB NOT NULL, ordered TEXT);
CREATE TABLE IF NOT EXISTS actions (key BLOB PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS given_customer ON given (customer) WHERE customer IS NOT NULL;
CREATE INDEX IF NOT EXISTS given_interaction ON given (interaction) WHERE interaction IS NOT NULL;
CREATE INDEX IF NOT EXISTS given_ordered ON given (ordered) WHERE ordered IS NOT NULL;
CREATE INDEX IF NOT EXISTS given_expires ON given (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS links (a TEXT, b TEXT, relation TEXT, source TEXT, PRIMARY KEY (a, b, relation))
    WITHOUT ROWID;
"""
_COLUMNS = ("customer", "interaction", "ordered")
_CACHED = 50_000
_KEYS_A_QUERY = 500
_ROWS_AT_ONCE = 500
_SPAN_SECONDS = 30 * 86_400
_AHEAD_SECONDS = 86_400
"""The most that a fact's time may lie ahead."""


Name = tuple[str, str]
"""A customer, an interaction or an order: the column, and the id."""


class StateAction(Gift, array_like=True):
    """An action. ``minor`` counts towards limits; it is zero for an action that is no goodwill or was undone."""

    position: int
    action_id: str
    holder: str
    period: str
    state: ActionState
    basis: Basis
    budget_currency: str
    """The currency of the budget that it is booked on."""
    done_minor: int
    """The amount that was taken, held or settled."""
    customer_id: str | None = None
    interaction_id: str | None = None
    reversed_minor: int = 0
    expires_at: float | None = None
    named: bool = True
    """True where the index of requests has its id; otherwise the table ``actions`` does."""
    source: str | None = None
    """The source that requested or reported it; ``None`` in a row of an earlier version."""
    order_id: str | None = None
    owed_minor: int | None = None
    """The part of an entitlement or a correction that draws no budget; ``None`` without proof or for goodwill."""
    recovered_minor: int = 0

    @property
    def is_report(self) -> bool:
        """True for an action that a fact reported, before and after it is charged."""
        return self.state in ("reported", "charged")

    @property
    def goodwill(self) -> bool:
        """True if limits and budgets apply to it."""
        return self.basis == "goodwill"

    @property
    def given_minor(self) -> int:
        """The amount that the customer has of it, in minor units."""
        return self.done_minor - self.recovered_minor

    @property
    def amount(self) -> Money:
        """The amount that was taken, held or settled."""
        return Money(self.done_minor, self.currency)

    @property
    def left(self) -> Money:
        """The amount that may still be reversed."""
        return Money(self.done_minor - self.reversed_minor, self.currency)

    def apply(self, posting: Posting) -> None:
        """Apply a later event to this action."""
        change = change_of(posting)
        self.state = change.state or self.state
        if change.amount_minor is not None:
            self.done_minor, self.expires_at = change.amount_minor, None
            self.minor = self._counted(change.amount_minor)
        if change.state in ("settled", "charged"):
            self.period = posting.period
        if change.state == "charged" and posting.owed is not None:
            self.owed_minor = posting.owed.minor
            self.minor = self._counted(self.done_minor)
        if change.added_minor:
            self.done_minor += change.added_minor
            self.minor += counted_minor(self.basis, posting.amount, posting.owed)
            if self.owed_minor is not None and posting.owed is not None:
                self.owed_minor += posting.owed.minor
        self.reversed_minor += change.reversed_minor
        if change.recovered_minor:
            self.recovered_minor += change.recovered_minor
            self.minor -= counted_minor(self.basis, posting.amount, posting.owed)

    def count_nothing(self) -> None:
        """Let a report count for nothing, because a decision on the same action counts."""
        self.minor = self.done_minor = 0

    def _counted(self, minor: int) -> int:
        """Return the part of an amount that counts as goodwill."""
        if self.goodwill:
            return minor
        return 0 if self.owed_minor is None else max(0, minor - self.owed_minor)


class TakenFields(msgspec.Struct):
    """The fields of an `action.taken` that its row needs, and its source and request."""

    state: ClassVar[ActionState] = ActionTaken.state
    action_id: str
    agent_id: str
    basis: Basis
    amount: Money
    holder: str
    period: str
    source: str
    request_id: str
    request_sha256: str | None = None
    customer_id: str | None = None
    interaction_id: str | None = None
    requested_by_source: str | None = None
    order_id: str | None = None
    owed: Money | None = None


class HeldFields(TakenFields):
    """The fields of an `action.held` that its row needs."""

    state: ClassVar[ActionState] = ActionHeld.state
    expires_at: datetime | None = None
    escalation_id: str | None = None


class ActionIndex:
    """All actions by id, by customer and by interaction, and the links between customers.

    The file holds the actions that were read from the log. Memory holds the others until they are written.
    """

    def __init__(self, index: EventIdIndex) -> None:
        index.table(_SCHEMA)
        self._index = index
        self._caches: dict[str, OrderedDict[str, list[StateAction]]] = {column: OrderedDict() for column in _COLUMNS}
        self.own: dict[int, StateAction] = {}
        """The actions that this decider stored and has not read back yet, by position."""
        self._changed: dict[int, StateAction] = {}  # read, and not written yet
        self._values: dict[int, Sequence[object]] = {}  # the rows to write for them
        self._writing: dict[int, StateAction] = {}
        # The changed and the writing rows by id and position: a decision and a report may have one id.
        self._by_action: dict[str, dict[int, StateAction]] = {}
        self._has_keys = bool(index.rows("SELECT 1 FROM actions LIMIT 1"))
        self._unwritten: dict[tuple[str, str], dict[int, StateAction]] = {}  # all rows in memory, by column and id
        self._links: dict[tuple[str, str, str], str | None] = {}
        self._links_writing: dict[tuple[str, str, str], str | None] = {}
        self._linked = bool(index.rows("SELECT 1 FROM links LIMIT 1"))
        self._groups: dict[str, frozenset[str]] = {}
        self._pending = 0
        self.unstored: dict[str, StateAction] = {}
        """Actions of this decider that are not known to be stored."""
        self._watched = dict.fromkeys(_COLUMNS, False)  # whether any policy needs such totals
        self.counted: set[Name] | None = None
        """While a request is decided: the names that the queries were asked for; ``None`` at other times."""

    # ------------------------------------------------------------------ queries

    def on_interaction(self, interaction_id: str) -> Sequence[Gift]:
        """Return the actions on an interaction."""
        cache = self._caches["interaction"]
        if self.counted is not None:
            self.counted.add(("interaction", interaction_id))
        if interaction_id not in cache:
            self.preload("interaction", (interaction_id,))
        return cache[interaction_id]

    def to_group(self, group: frozenset[str]) -> Sequence[Gift]:
        """Return the actions for these customers."""
        cache = self._caches["customer"]
        if self.counted is not None:
            self.counted.update([("customer", name) for name in group])
        if missing := [name for name in group if name not in cache]:  # ``group - cache.keys()`` reads the whole cache
            self.preload("customer", missing)
        return [row for customer in sorted(group) for row in cache[customer]]

    def unnamed_by(self, agent_id: str, since: float, until: float) -> Sequence[Gift]:
        """Return an agent's actions without a customer, at least those between two moments (seconds since 1970).

        They are kept by spans of thirty days, so that a decision reads no more than its days.
        """
        spans = range(int(max(since, 0) // _SPAN_SECONDS), int((until + _AHEAD_SECONDS) // _SPAN_SECONDS) + 1)
        return self.to_group(frozenset(_unnamed(agent_id, span) for span in spans))

    def on_order(self, order_id: str) -> Sequence[StateAction]:
        """Return the actions that name an order."""
        cache = self._caches["ordered"]
        if self.counted is not None:
            self.counted.add(("ordered", order_id))
        if order_id not in cache:
            self.preload("ordered", (order_id,))
        return cache[order_id]

    def group_of(self, customer_id: str) -> frozenset[str]:
        """Return the customer and all customers that are linked with it, directly or through others."""
        if not self._linked:
            return frozenset((customer_id,))
        group = self._groups.get(customer_id)
        if group is None:
            group = connected(customer_id, self._linked_to)
            if len(self._groups) > _CACHED:
                self._groups.clear()
            self._groups.update(dict.fromkeys(group, group))
        return group

    def action(self, action_id: str) -> StateAction | None:
        """Return an action that was read from the log, or ``None``.

        A report of an action that a decision granted is not an action of its own, unless it was charged as one.
        """
        rows = self._rows_of(action_id)
        report = next((row for row in rows if row.is_report), None)
        decided = next((row for row in rows if not row.is_report), None)
        if report is None or decided is None:
            return report or decided
        return decided if report.state == "reported" and decided.state != "voided" else report

    def reported(self, action_id: str) -> StateAction | None:
        """Return the action that a fact reported under this id, or ``None``."""
        rows = list(self._by_action.get(action_id, {}).values())
        if self._has_keys and (key := _key_of(action_id)) is not None:
            stored = (self._stored_at(position) for (position,) in self._index.rows(_POSITION_OF, (key,)))
            rows += [row for row in stored if row is not None and row.action_id == action_id]
        for row in rows:
            if row.is_report:
                return row
        return None

    def _rows_of(self, action_id: str) -> list[StateAction]:
        """Return the rows with an id that were read from the log: of a decision, of a report, or both."""
        key = _key_of(action_id)
        positions: set[int] = set()
        if key is not None:
            positions.update(position for (position,) in self._index.rows(_POSITION_OF, (key,)))
            positions.update(name.position for name in self._index.find((key,)).values())
        stored = (self._stored_at(position) for position in sorted(positions))
        found = {row.position: row for row in stored if row is not None and row.action_id == action_id}
        return list((found | self._by_action.get(action_id, {})).values())

    def _stored_at(self, position: int) -> StateAction | None:
        """Return the row of a position from the file, or ``None``."""
        rows = self._index.rows("SELECT row FROM given WHERE position = ?", (position,))
        return _decode(rows[0][0]) if rows else None

    def held_until(self, moment: float) -> list[StateAction]:
        """Return the holds that have expired by this moment."""
        query = "SELECT row FROM given WHERE expires <= ? ORDER BY expires LIMIT 1000"
        rows = {row.position: row for row in map(_decode, (value for (value,) in self._index.rows(query, (moment,))))}
        rows.update(self._writing)
        rows.update(self._changed)
        return [row for row in rows.values() if row.expires_at is not None and row.expires_at <= moment]

    # ------------------------------------------------------------------ changes

    def add_pending(self, record: ActionTaken | ActionHeld, at: datetime, budget_currency: str) -> StateAction | None:
        """Add an action that is about to be stored, so that the next request sees it.

        Return its row; ``None`` for an escalation's reservation, which is no action yet.
        """
        self._pending += 1
        row = row_of(record, at, -self._pending, budget_currency)
        if row is not None:
            self.unstored[row.action_id] = row
            if True in self._watched.values():
                self._add_to_totals(row)
        return row

    def discard_pending(self, row: StateAction) -> None:
        """Remove an action that was not stored, or was read from the log in the meantime."""
        self.unstored.pop(row.action_id, None)
        self._remove_unwritten(row)
        for column, name in self._ids_of(row):
            if (cached := self._caches[column].get(name)) is not None:
                self._caches[column][name] = [other for other in cached if other is not row]

    def forget_own(self) -> None:
        """Forget the actions that were confirmed and not read back, because the state goes on for another decider."""
        for row in self.own.values():
            self.discard_pending(row)
        self.own.clear()

    def reconcile(self, position: int) -> bool:
        """Note that the event at this position was read; return whether it is a known action of this decider."""
        row = self.own.pop(position, None)
        if row is None:
            return False
        self._keep(row)
        return True

    def add(self, row: StateAction) -> None:
        """Add an action that was read from the log; it may be read before its storing is acknowledged."""
        if (unstored := self.unstored.get(row.action_id)) is not None:
            self.discard_pending(unstored)
        self._keep(row)
        self._add_to_totals(row)

    def change(self, action_id: str, change: Callable[[StateAction], None]) -> None:
        """Change an action if it is known."""
        row = self.action(action_id)
        if row is not None:
            self._change(row, change)

    def change_report(self, position: int, action_id: str, change: Callable[[StateAction], None]) -> None:
        """Change the action of the report at this position if it is known."""
        row = self._by_action.get(action_id, {}).get(position) or self._stored_at(position)
        if row is not None and row.action_id == action_id:
            self._change(row, change)

    def _change(self, row: StateAction, change: Callable[[StateAction], None]) -> None:
        change(row)
        self._keep(row)
        self._index_unwritten(row)
        # The caches may hold another object for this action, so they read it again.
        for column, name in self._ids_of(row):
            self._caches[column].pop(name, None)

    def link(self, fact: CustomerLink, source: str = "", *, undo: bool = False, by_operator: bool = False) -> None:
        """Apply a fact that links two customers or removes their link, or take it back.

        A link belongs to the first source that made it. Another source neither removes it nor takes it back.
        """
        owner = self._owner_of(fact.a, fact.b, fact.relation)
        linked = is_linked_after(fact, undo=undo)
        if owner is not None and (linked or not (by_operator or owner == source)):
            return
        pairs = (fact.a, fact.b, fact.relation), (fact.b, fact.a, fact.relation)
        self._links.update(dict.fromkeys(pairs, source if linked else None))
        self._linked = True
        self._groups.clear()

    def _owner_of(self, a: str, b: str, relation: str) -> str | None:
        """Return the source that made a link, or ``None`` where there is none."""
        for changes in (self._links, self._links_writing):
            if (a, b, relation) in changes:
                return changes[a, b, relation]
        rows = self._index.rows("SELECT source FROM links WHERE a = ? AND b = ? AND relation = ?", (a, b, relation))
        return rows[0][0] if rows else None

    def take_changes(self) -> list[Change]:
        """Return the changes to write; iterate ``on_written`` after they were written."""
        self._writing, self._changed = self._changed, {}
        self._links_writing, self._links = self._links, {}
        values, self._values = self._values, {}
        # The index of requests has the other actions, because their id is the hash of the request.
        unnamed = [row for row in self._writing.values() if not row.named and _key_of(row.action_id) is not None]
        self._has_keys = self._has_keys or bool(unnamed)
        decided = [(_key_of(row.action_id), row.position) for row in unnamed if not row.is_report]
        told = [(_key_of(row.action_id), row.position) for row in unnamed if row.is_report]
        linked = [(*pair, source) for pair, source in self._links_writing.items() if source is not None]
        unlinked = [pair for pair, source in self._links_writing.items() if source is None]
        changes: list[Change] = [
            ("INSERT OR REPLACE INTO given VALUES (?, ?, ?, ?, ?, ?)", list(values.values())),
            ("INSERT OR REPLACE INTO actions VALUES (?, ?)", decided),
            ("INSERT OR IGNORE INTO actions VALUES (?, ?)", told),  # a decision with the same id keeps the key
            ("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?)", linked),
            ("DELETE FROM links WHERE a = ? AND b = ? AND relation = ?", unlinked),
        ]
        return [change for change in changes if change[1]]

    def on_written(self) -> Iterator[None]:
        """Forget the rows that the index has now, in parts, so that the event loop can run between them."""
        while self._writing:
            for _ in range(min(len(self._writing), _ROWS_AT_ONCE)):
                position, row = self._writing.popitem()
                if position not in self._changed:
                    self._forget_row(row)
                    self._remove_unwritten(row)
            yield
        self._links_writing = {}
        for cache in self._caches.values():
            while len(cache) > _CACHED:
                cache.popitem(last=False)

    # ------------------------------------------------------------------ internals

    def _keep(self, row: StateAction) -> None:
        """Mark a row to be written. It is encoded now, so that writing thousands does not block the event loop."""
        self._changed[row.position] = row
        self._by_action.setdefault(row.action_id, {})[row.position] = row
        customer = _customer_in(row)
        ids = customer, row.interaction_id
        self._values[row.position] = (row.position, *ids, row.expires_at, _encode(row), row.order_id)

    def _forget_row(self, row: StateAction) -> None:
        """Forget a row that the file has."""
        rows = self._by_action[row.action_id]
        del rows[row.position]
        if not rows:
            del self._by_action[row.action_id]

    def _linked_to(self, customer_id: str) -> set[str]:
        known = dict.fromkeys(self._index.rows(_LINKS_OF, (customer_id,)), True)
        for changes in (self._links_writing, self._links):
            known.update(
                {(b, relation): one is not None for (a, b, relation), one in changes.items() if a == customer_id}
            )
        return {b for (b, _), linked in known.items() if linked}

    def _add_to_totals(self, row: StateAction) -> None:
        for key in self._ids_of(row):
            column, name = key
            self._unwritten.setdefault(key, {})[id(row)] = row
            if (cached := self._caches[column].get(name)) is not None:
                cached.append(row)

    def preload(self, column: str, names: Iterable[str]) -> None:
        """Read the actions of customers or interactions into the cache of this column."""
        cache = self._caches[column]
        missing = list({name for name in names if name not in cache})
        if missing and not self._watched[column]:
            self._watched[column] = True
            for row in (*self.unstored.values(), *self.own.values(), *self._writing.values(), *self._changed.values()):
                self._index_unwritten(row)
        stored: dict[int, StateAction] = {}
        for start in range(0, len(missing), _KEYS_A_QUERY):
            keys = missing[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(keys))
            query = f"SELECT position, row FROM given WHERE {column} IN ({marks})"  # noqa: S608 - only marks
            stored.update((position, _decode(value)) for position, value in self._index.rows(query, keys))
        by_name: dict[str | None, dict[int, StateAction]] = {}
        for position, row in stored.items():
            key = _NAMES[column](row)
            by_name.setdefault(key, {})[position] = row
        for name in missing:
            found = by_name.get(name, {})
            found.update((row.position, row) for row in self._unwritten.get((column, name), {}).values())
            cache[name] = list(found.values())

    def _ids_of(self, row: StateAction) -> list[Name]:
        """Return the watched columns of a row with their ids."""
        return [name for name in names_of(row) if self._watched[name[0]]]

    def _index_unwritten(self, row: StateAction) -> None:
        """Find a row by its customer and interaction until it is written."""
        for name in self._ids_of(row):
            self._unwritten.setdefault(name, {})[id(row)] = row

    def _remove_unwritten(self, row: StateAction) -> None:
        for name in self._ids_of(row):
            rows = self._unwritten.get(name, {})
            rows.pop(id(row), None)
            if not rows:
                self._unwritten.pop(name, None)


def names_of(row: StateAction) -> list[Name]:
    """Return the names by which queries find an action."""
    found = [("customer", _customer_in(row))]
    if row.interaction_id is not None:
        found.append(("interaction", row.interaction_id))
    if row.order_id is not None:
        found.append(("ordered", row.order_id))
    return found


def _unnamed(agent_id: str, span: int) -> str:
    return f"{unnamed_customer(agent_id)} {span}"


def _customer_in(row: StateAction) -> str:
    """Return the customer of an action as the index names it."""
    return row.customer_id or _unnamed(row.agent_id, int(row.at // _SPAN_SECONDS))


_NAMES: dict[str, Callable[[StateAction], str | None]] = {
    "customer": _customer_in,
    "interaction": lambda row: row.interaction_id,
    "ordered": lambda row: row.order_id,
}
"""Column -> the name of a row in it."""


def _key_of(action_id: str) -> bytes | None:
    """Return the key of an action in the index; ``None`` for an id that the ledger never gives."""
    try:
        return bytes.fromhex(action_id.removeprefix("act-"))
    except ValueError:
        return None


def row_of(
    record: ActionTaken | ActionHeld | TakenFields, at: datetime, position: int, budget_currency: str
) -> StateAction | None:
    """Return the row of an action; ``None`` for an escalation's reservation, which is no action yet."""
    expires_at = None
    if isinstance(record, (ActionHeld, HeldFields)):
        if is_reservation(record):
            return None
        expires_at = record.expires_at
    amount = record.amount
    return StateAction(
        agent_id=record.agent_id,
        at=at.timestamp(),
        minor=amount.minor if record.basis == "goodwill" else counted_minor(record.basis, amount, record.owed),
        currency=amount.currency,
        budget_currency=budget_currency,
        position=position,
        action_id=record.action_id,
        holder=record.holder,
        period=record.period,
        state=record.state,
        basis=record.basis,
        done_minor=amount.minor,
        customer_id=record.customer_id,
        interaction_id=record.interaction_id,
        expires_at=expires_at.timestamp() if expires_at else None,
        named=record.request_sha256 is not None,
        source=(None if isinstance(record, ActionHeld) else record.requested_by_source) or record.source,
        order_id=record.order_id,
        owed_minor=None if record.owed is None else record.owed.minor,
    )


def row_of_fact(fact: ActionReported, action_id: str, at: datetime, position: int, source: str) -> StateAction:
    """Return the row of a reported action, before it is posted to a budget."""
    return StateAction(
        agent_id=fact.agent_id,
        at=at.timestamp(),
        minor=fact.amount.minor if fact.basis == "goodwill" else 0,
        currency=fact.amount.currency,
        budget_currency=fact.amount.currency,
        position=position,
        action_id=action_id,
        holder=f"agent:{fact.agent_id}",
        period="",
        state=fact.state,
        basis=fact.basis,
        done_minor=fact.amount.minor,
        customer_id=fact.customer_id,
        interaction_id=fact.interaction_id,
        named=False,
        source=source,
        order_id=fact.order_id,
    )


_POSITION_OF = "SELECT position FROM actions WHERE key = ?"
_LINKS_OF = "SELECT b, relation FROM links WHERE a = ?"
_decode = msgspec.json.Decoder(StateAction).decode
_encode = msgspec.json.Encoder().encode
