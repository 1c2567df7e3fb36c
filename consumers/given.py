"""What was given, to whom, on which interaction: the soft state beside the budgets, kept in the decider's index.

One row an action. It is complete up to where the directory has read, and holds what this decider wrote
itself from the moment it was stored.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

import msgspec

from domain.deciding import Gift
from domain.facts import Basis
from domain.money import Money

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ledger.index import Change, NameIndex

State = Literal["taken", "held", "settled", "voided", "reported", "charged"]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS given (position INTEGER PRIMARY KEY, action INTEGER NOT NULL, customer INTEGER,
    interaction INTEGER, expires REAL, row BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS given_action ON given (action);
CREATE INDEX IF NOT EXISTS given_customer ON given (customer) WHERE customer IS NOT NULL;
CREATE INDEX IF NOT EXISTS given_interaction ON given (interaction) WHERE interaction IS NOT NULL;
CREATE INDEX IF NOT EXISTS given_expires ON given (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS links (a TEXT, b TEXT, relation TEXT, PRIMARY KEY (a, b, relation)) WITHOUT ROWID;
"""
_CACHED = 50_000
_KEYS_A_QUERY = 500


class Row(Gift, kw_only=True):
    """An action. ``minor`` is what it counts for: nothing where it is no goodwill or was undone."""

    position: int
    action_id: str
    holder: str
    period: str
    state: State
    basis: Basis
    book: str
    """The currency of the budget it was booked on."""
    done_minor: int
    """What was taken, held or settled."""
    customer_id: str | None = None
    interaction_id: str | None = None
    reversed_minor: int = 0
    expires_at: float | None = None

    @property
    def goodwill(self) -> bool:
        """Whether it draws on budgets and meets limits."""
        return self.basis == "goodwill"

    @property
    def amount(self) -> Money:
        """What was taken, held or settled."""
        return Money(self.done_minor, self.currency)

    @property
    def left(self) -> Money:
        """What may still be reversed."""
        return Money(self.done_minor - self.reversed_minor, self.currency)


class Given:
    """Totals by customer and interaction, and each action by its id."""

    def __init__(self, index: NameIndex) -> None:
        index.table(_SCHEMA)
        self._index = index
        self._customers: OrderedDict[str, list[Row]] = OrderedDict()
        self._interactions: OrderedDict[str, list[Row]] = OrderedDict()
        self._own: dict[int, Row] = {}  # stored, and not read back yet
        self._changed: dict[int, Row] = {}  # read, and not committed yet
        self._by_action: dict[str, Row] = {}
        self._links: list[Change] = []
        self._linked = bool(index.rows("SELECT 1 FROM links LIMIT 1"))
        self._groups: dict[str, frozenset[str]] = {}

    # ------------------------------------------------------------------ asking

    def preload(self, customers: Iterable[str], interactions: Iterable[str]) -> None:
        """Read what a group of requests will ask for, in one go."""
        self._load("customer", self._customers, set(customers), lambda row: row.customer_id)
        self._load("interaction", self._interactions, set(interactions), lambda row: row.interaction_id)

    def on_interaction(self, interaction_id: str) -> Sequence[Gift]:
        """What was given on an interaction."""
        if interaction_id not in self._interactions:
            self.preload((), (interaction_id,))
        return self._interactions[interaction_id]

    def to_group(self, group: frozenset[str]) -> Sequence[Gift]:
        """What was given to these customers."""
        missing = group - self._customers.keys()
        if missing:
            self.preload(missing, ())
        return [row for customer in sorted(group) for row in self._customers[customer]]

    def group_of(self, customer_id: str) -> frozenset[str]:
        """The customer and everybody linked with them, at any remove."""
        if not self._linked:
            return frozenset((customer_id,))
        group = self._groups.get(customer_id)
        if group is None:
            found, todo = {customer_id}, [customer_id]
            while todo:
                one = todo.pop()
                query = "SELECT b FROM links WHERE a = ?"
                new = {row[0] for row in self._index.rows(query, (one,))} - found
                found |= new
                todo += new
            group = frozenset(found)
            if len(self._groups) > _CACHED:
                self._groups.clear()
            self._groups.update(dict.fromkeys(group, group))
        return group

    def action(self, action_id: str) -> Row | None:
        """An action by its id, as far as it was read back from the log."""
        if found := self._by_action.get(action_id):
            return found
        query = "SELECT row FROM given WHERE action = ?"
        for (value,) in self._index.rows(query, (_key(action_id),)):
            row = _decode(value)
            if row.action_id == action_id:
                return row
        return None

    def held_until(self, moment: float) -> list[Row]:
        """Holds that have expired by then."""
        query = "SELECT row FROM given WHERE expires <= ? ORDER BY expires LIMIT 1000"
        return [_decode(value) for (value,) in self._index.rows(query, (moment,))]

    # ------------------------------------------------------------------ learning

    def wrote(self, row: Row) -> None:
        """This decider has stored an action: it counts for the very next request."""
        self._own[row.position] = row
        self._count(row)

    def read_back(self, position: int) -> bool:
        """An event at this position was read: whether it was the decider's own, known already."""
        row = self._own.pop(position, None)
        if row is None:
            return False
        self._changed[position] = self._by_action[row.action_id] = row
        return True

    def add(self, row: Row) -> None:
        """An action was read from the log."""
        self._changed[row.position] = self._by_action[row.action_id] = row
        self._count(row)

    def change(self, action_id: str, change: Callable[[Row], None]) -> None:
        """Something became of an action."""
        row = self.action(action_id)
        if row is None:
            return
        change(row)
        self._changed[row.position] = self._by_action[action_id] = row
        # What is cached are other objects, read at other times: read them again, once this is committed.
        if row.customer_id:
            self._customers.pop(row.customer_id, None)
        if row.interaction_id:
            self._interactions.pop(row.interaction_id, None)

    def link(self, a: str, b: str, relation: str, *, linked: bool) -> None:
        """Two customers are one person or household, or are not."""
        pairs = [(a, b, relation), (b, a, relation)]
        if linked:
            self._links.append(("INSERT OR IGNORE INTO links VALUES (?, ?, ?)", pairs))
        else:
            self._links.append(("DELETE FROM links WHERE a = ? AND b = ? AND relation = ?", pairs))

    def changes(self) -> list[Change]:
        """What to write with the position."""
        rows = [
            (row.position, _key(row.action_id), _optional_key(row.customer_id), _optional_key(row.interaction_id),
             row.expires_at, msgspec.json.encode(row))
            for row in self._changed.values()
        ]  # fmt: skip
        return [*([("INSERT OR REPLACE INTO given VALUES (?, ?, ?, ?, ?, ?)", rows)] if rows else []), *self._links]

    def committed(self) -> None:
        """What ``changes`` gave is written."""
        self._changed.clear()
        self._by_action.clear()
        if self._links:
            self._links.clear()
            self._linked = True
            self._groups.clear()
        for cache in (self._customers, self._interactions):
            while len(cache) > _CACHED:
                cache.popitem(last=False)

    # ------------------------------------------------------------------ inside

    def _count(self, row: Row) -> None:
        if row.customer_id in self._customers:
            self._customers[row.customer_id].append(row)
        if row.interaction_id in self._interactions:
            self._interactions[row.interaction_id].append(row)

    def _load(self, column: str, cache: OrderedDict[str, list[Row]], names: set[str],
              name_of: Callable[[Row], str | None]) -> None:  # fmt: skip
        missing = [name for name in names if name not in cache]
        if not missing:
            return
        rows: dict[int, Row] = {}
        for start in range(0, len(missing), _KEYS_A_QUERY):
            keys = [_key(name) for name in missing[start : start + _KEYS_A_QUERY]]
            marks = ",".join("?" * len(keys))
            query = f"SELECT position, row FROM given WHERE {column} IN ({marks})"  # noqa: S608 - only marks
            rows.update((position, _decode(value)) for position, value in self._index.rows(query, keys))
        rows.update(self._changed)
        rows.update(self._own)
        cache.update((name, []) for name in missing)
        wanted = set(missing)
        for _, row in sorted(rows.items()):
            name = name_of(row)
            if name in wanted:
                cache[name].append(row)


_decode = msgspec.json.Decoder(Row).decode


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)


def _optional_key(name: str | None) -> int | None:
    return None if name is None else _key(name)
