"""What was given, to whom, on which interaction: the soft state beside the budgets, kept in the decider's index.

One row an action. It is complete up to where the directory has read, and holds what this decider wrote
itself from the moment it was stored.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from consumers.decisions.budget_repository import currency_of
from domain.decisions.authority import Gift
from domain.events.decisions import ActionHeld, ActionTaken
from domain.events.facts import Basis
from domain.money import Money

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from domain.events.facts import ActionReported
    from ledger.store.event_id_index import Change, EventIdIndex

State = Literal["taken", "held", "settled", "voided", "reported", "charged"]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS given (position INTEGER PRIMARY KEY, customer TEXT, interaction TEXT, expires REAL,
    row BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS actions (key BLOB PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS given_customer ON given (customer) WHERE customer IS NOT NULL;
CREATE INDEX IF NOT EXISTS given_interaction ON given (interaction) WHERE interaction IS NOT NULL;
CREATE INDEX IF NOT EXISTS given_expires ON given (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS links (a TEXT, b TEXT, relation TEXT, PRIMARY KEY (a, b, relation)) WITHOUT ROWID;
"""
_CACHED = 50_000
_KEYS_A_QUERY = 500
_ROWS_AT_ONCE = 500


class ActionRow(Gift, array_like=True):
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
    named: bool = True
    """Whether the request's name leads to it; else its own id does."""

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


class TakenFields(msgspec.Struct):
    """What is read of an `action.taken`: no more than its row needs, and its name."""

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


class HeldFields(TakenFields):
    """The same of an `action.held`."""

    expires_at: datetime | None = None
    escalation_id: str | None = None


class ActionIndex:
    """Totals by customer and interaction, and each action by its id."""

    def __init__(self, index: EventIdIndex) -> None:
        index.table(_SCHEMA)
        self._index = index
        self._customers: OrderedDict[str, list[ActionRow]] = OrderedDict()
        self._interactions: OrderedDict[str, list[ActionRow]] = OrderedDict()
        self._own: dict[int, ActionRow] = {}  # stored, and not read back yet
        self._changed: dict[int, ActionRow] = {}  # read, and not written yet
        self._values: dict[int, Sequence[Any]] = {}  # what to write of them
        self._writing: dict[int, ActionRow] = {}
        self._by_action: dict[str, ActionRow] = {}  # of both
        self._unwritten: dict[tuple[str, str], dict[int, ActionRow]] = {}  # of all three, by column and name
        self._links: dict[tuple[str, str, str], bool] = {}
        self._links_writing: dict[tuple[str, str, str], bool] = {}
        self._linked = bool(index.rows("SELECT 1 FROM links LIMIT 1"))
        self._groups: dict[str, frozenset[str]] = {}
        self._promised = 0
        self._watched = {"customer": False, "interaction": False}  # whether anybody asks for such totals

    # ------------------------------------------------------------------ asking

    def preload(self, customers: Iterable[str], interactions: Iterable[str]) -> None:
        """Read what a group of requests will ask for, in one go."""
        self._load("customer", self._customers, customers)
        self._load("interaction", self._interactions, interactions)

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
                new = self._linked_to(todo.pop()) - found
                found |= new
                todo += new
            group = frozenset(found)
            if len(self._groups) > _CACHED:
                self._groups.clear()
            self._groups.update(dict.fromkeys(group, group))
        return group

    def action(self, action_id: str) -> ActionRow | None:
        """An action by its id, as far as it was read back from the log."""
        if found := self._by_action.get(action_id):
            return found
        try:
            key = bytes.fromhex(action_id.removeprefix("act-"))
        except ValueError:
            return None
        rows = self._index.rows("SELECT position FROM actions WHERE key = ?", (key,))
        positions = [rows[0][0]] if rows else [name.position for name in self._index.find((key,)).values()]
        for position in positions:
            for (value,) in self._index.rows("SELECT row FROM given WHERE position = ?", (position,)):
                row = _decode(value)
                if row.action_id == action_id:
                    return row
        return None

    def held_until(self, moment: float) -> list[ActionRow]:
        """Holds that have expired by then."""
        query = "SELECT row FROM given WHERE expires <= ? ORDER BY expires LIMIT 1000"
        rows = {row.position: row for row in map(_decode, (value for (value,) in self._index.rows(query, (moment,))))}
        rows.update(self._writing)
        rows.update(self._changed)
        return [row for row in rows.values() if row.expires_at is not None and row.expires_at <= moment]

    # ------------------------------------------------------------------ learning

    def add_pending(self, row: ActionRow) -> None:
        """This decider is about to store an action: it counts for the very next request."""
        self._promised += 1
        row.position = -self._promised
        self._note(row)
        self._count(row)

    def discard_pending(self, row: ActionRow) -> None:
        """It was not stored, or was read back in the meantime."""
        self._unnote(row)
        for cache, name in ((self._customers, row.customer_id), (self._interactions, row.interaction_id)):
            if name is not None and name in cache:
                cache[name] = [other for other in cache[name] if other is not row]

    def confirm(self, row: ActionRow, position: int) -> None:
        """What was promised is stored."""
        row.position = position
        self._own[position] = row

    def reconcile(self, position: int) -> bool:
        """An event at this position was read: whether it was the decider's own, known already."""
        row = self._own.pop(position, None)
        if row is None:
            return False
        self._keep(row)
        return True

    def add(self, row: ActionRow) -> None:
        """An action was read from the log."""
        self._keep(row)
        self._note(row)
        self._count(row)

    def change(self, action_id: str, change: Callable[[ActionRow], None]) -> None:
        """Something became of an action."""
        row = self.action(action_id)
        if row is None:
            return
        change(row)
        self._keep(row)
        self._note(row)
        # What is cached are other objects, read at other times: read them again, once this is committed.
        if row.customer_id:
            self._customers.pop(row.customer_id, None)
        if row.interaction_id:
            self._interactions.pop(row.interaction_id, None)

    def link(self, a: str, b: str, relation: str, *, linked: bool) -> None:
        """Two customers are one person or household, or are not."""
        self._links[a, b, relation] = self._links[b, a, relation] = linked
        self._linked = True
        self._groups.clear()

    def changes(self) -> list[Change]:
        """What to write; it counts as being written until ``written``."""
        self._writing, self._changed = self._changed, {}
        self._links_writing, self._links = self._links, {}
        values, self._values = self._values, {}
        # The other actions are found by the name of their request, which is the same hash.
        unnamed = [(bytes.fromhex(row.action_id[4:]), row.position) for row in self._writing.values() if not row.named]
        joined = [pair for pair, linked in self._links_writing.items() if linked]
        parted = [pair for pair, linked in self._links_writing.items() if not linked]
        changes: list[Change] = [
            ("INSERT OR REPLACE INTO given VALUES (?, ?, ?, ?, ?)", list(values.values())),
            ("INSERT OR REPLACE INTO actions VALUES (?, ?)", unnamed),
            ("INSERT OR IGNORE INTO links VALUES (?, ?, ?)", joined),
            ("DELETE FROM links WHERE a = ? AND b = ? AND relation = ?", parted),
        ]
        return [change for change in changes if change[1]]

    def written(self) -> Iterator[None]:
        """What ``changes`` gave is written; to be iterated to its end, with pauses for those who wait."""
        while self._writing:
            for _ in range(min(len(self._writing), _ROWS_AT_ONCE)):
                position, row = self._writing.popitem()
                if position not in self._changed:
                    self._by_action.pop(row.action_id, None)
                    self._unnote(row)
            yield
        self._links_writing = {}
        for cache in (self._customers, self._interactions):
            while len(cache) > _CACHED:
                cache.popitem(last=False)

    # ------------------------------------------------------------------ inside

    def _keep(self, row: ActionRow) -> None:
        """To be written; put into its form now, so that writing thousands keeps nobody waiting."""
        self._changed[row.position] = self._by_action[row.action_id] = row
        self._values[row.position] = (row.position, row.customer_id, row.interaction_id, row.expires_at, _encode(row))

    def _linked_to(self, one: str) -> set[str]:
        known = dict.fromkeys(self._index.rows(_LINKS_OF, (one,)), True)
        for changes in (self._links_writing, self._links):
            known.update({(b, relation): linked for (a, b, relation), linked in changes.items() if a == one})
        return {b for (b, _), linked in known.items() if linked}

    def _count(self, row: ActionRow) -> None:
        if row.customer_id is not None and row.customer_id in self._customers:
            self._customers[row.customer_id].append(row)
        if row.interaction_id is not None and row.interaction_id in self._interactions:
            self._interactions[row.interaction_id].append(row)

    def _load(self, column: str, cache: OrderedDict[str, list[ActionRow]], names: Iterable[str]) -> None:
        missing = list({name for name in names if name not in cache})
        if missing and not self._watched[column]:
            self._watched[column] = True
            for row in (*self._own.values(), *self._writing.values(), *self._changed.values()):
                self._note(row)
        stored: dict[int, ActionRow] = {}
        for start in range(0, len(missing), _KEYS_A_QUERY):
            keys = missing[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(keys))
            query = f"SELECT position, row FROM given WHERE {column} IN ({marks})"  # noqa: S608 - only marks
            stored.update((position, _decode(value)) for position, value in self._index.rows(query, keys))
        by_name: dict[str | None, dict[int, ActionRow]] = {}
        for position, row in stored.items():
            by_name.setdefault(getattr(row, f"{column}_id"), {})[position] = row
        for name in missing:
            found = by_name.get(name, {})
            found.update((row.position, row) for row in self._unwritten.get((column, name), {}).values())
            cache[name] = list(found.values())

    def _names_of(self, row: ActionRow) -> Iterator[tuple[str, str]]:
        if row.customer_id is not None and self._watched["customer"]:
            yield "customer", row.customer_id
        if row.interaction_id is not None and self._watched["interaction"]:
            yield "interaction", row.interaction_id

    def _note(self, row: ActionRow) -> None:
        """Remember a row until it is written."""
        for name in self._names_of(row):
            self._unwritten.setdefault(name, {})[id(row)] = row

    def _unnote(self, row: ActionRow) -> None:
        for name in self._names_of(row):
            noted = self._unwritten.get(name, {})
            noted.pop(id(row), None)
            if not noted:
                self._unwritten.pop(name, None)


def row_of(
    record: ActionTaken | ActionHeld | TakenFields, at: datetime, position: int, subject: str
) -> ActionRow | None:
    """What to know of an action; nothing of an escalation's reservation, which gives nothing yet."""
    expires_at = None
    if held := isinstance(record, (ActionHeld, HeldFields)):
        if record.escalation_id is not None:
            return None
        expires_at = record.expires_at
    amount = record.amount
    return ActionRow(
        agent_id=record.agent_id,
        at=at.timestamp(),
        minor=amount.minor if record.basis == "goodwill" else 0,
        currency=amount.currency,
        book=currency_of(subject),
        position=position,
        action_id=record.action_id,
        holder=record.holder,
        period=record.period,
        state="held" if held else "taken",
        basis=record.basis,
        done_minor=amount.minor,
        customer_id=record.customer_id,
        interaction_id=record.interaction_id,
        expires_at=expires_at.timestamp() if expires_at else None,
        named=record.request_sha256 is not None,
    )


def row_of_fact(fact: ActionReported, action_id: str, at: datetime, position: int) -> ActionRow:
    """What to know of an action that was reported, before it is posted to a budget."""
    return ActionRow(
        agent_id=fact.agent_id,
        at=at.timestamp(),
        minor=fact.amount.minor if fact.basis == "goodwill" else 0,
        currency=fact.amount.currency,
        book=fact.amount.currency,
        position=position,
        action_id=action_id,
        holder=f"agent:{fact.agent_id}",
        period="",
        state="reported",
        basis=fact.basis,
        done_minor=fact.amount.minor,
        customer_id=fact.customer_id,
        interaction_id=fact.interaction_id,
        named=False,
    )


_LINKS_OF = "SELECT b, relation FROM links WHERE a = ?"
_decode = msgspec.json.Decoder(ActionRow).decode
_encode = msgspec.json.Encoder().encode
