"""Entities: rows that are folded from the facts about one thing, in the order in which these facts happened.

A view declares the facts of an entity (an interaction, an escalation, an employee) in the order of its life, and a step
that applies one fact to its row. A fact that is the last in the order is applied to the row. After a fact that comes
late, and after a correction, the row is folded again from all facts of the entity. So a row depends on the set of facts
recorded up to its position, and not on the order in which they were recorded.

The facts of a table's rows are kept in a table ``<name>_facts``, by position. Each names the one before it, and the row
names the last. So a fact in order is appended, and costs one short row, however long its entity's story is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from heapq import heapify, heappop, heapreplace
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import sqlalchemy as sa

from domain.money import Money
from domain.serialization import convert, encode, plain
from ledger.store.cloudevents import parse_time, sequence_of
from projections.engine.columns import position_key
from projections.engine.row_cache import PreparedQuery, RowCache
from projections.engine.sql_functions import listed_positions
from projections.engine.storage import prepare_insert
from projections.engine.temporal_tables import HAPPENED, SINCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from projections.engine.day_blocks import DayBlocks
    from projections.engine.events import Correction, Event
    from projections.engine.storage import Row

type Step = Callable[[Row, msgspec.Struct, KeptFact], Row]
"""Returns the changes that a fact makes to a row; the fact is given as its body, and as its place in the order."""
type Completed = Callable[[sa.Connection, Row, Row], Row]
"""Returns values of a row that do not come from its facts alone; it is given the row, and what facts have changed."""
LAST_FACT = "last_fact"
_MANY = 64
"""A longer story is folded again once a commit, not once for each late fact, so that its cost stays bounded."""


class KeptFact(NamedTuple):
    """A fact as it is kept: its place in the order, and the values of the fields that the view needs.

    ``later`` is 0 for an opening, which leads the order, and 1 for any other fact. ``kind`` is the index of its class
    in the entity's declaration. Facts compare in their order, apart from their sequences.
    """

    later: int
    time: str
    kind: int
    source: str
    id: str
    position: int
    sequence: int | None
    values: tuple[object, ...]


_decoder = msgspec.json.Decoder(KeptFact)
_moment = itemgetter(0, 1)
_in_source = attrgetter("sequence", "kind", "id", "position")
_in_life = itemgetter(2, 3, 4, 5)


def last_fact_column() -> sa.Column[int]:
    """Return the column that names the last fact of a row, for a table of entities."""
    return sa.Column(LAST_FACT, sa.BigInteger)


def facts_of(table: sa.Table) -> sa.Table:
    """Return the table of the facts that the rows of a table are folded from."""
    return sa.Table(
        f"{table.name}_facts",
        table.metadata,
        position_key(),
        sa.Column("previous", sa.BigInteger),
        sa.Column("fact", sa.Text, nullable=False),
    )


def ordered(facts: Iterable[KeptFact]) -> list[KeptFact]:
    """Return facts in their order: openings first, then by event time, sequence in a source, life cycle, source and id.

    Of facts with one event time, those with a sequence keep the order of their source. The sources, and facts without
    a sequence, are merged by life cycle, source and id.
    """
    found = sorted(facts)
    if len(set(map(_moment, found))) == len(found):
        return found
    return [fact for _, some in groupby(found, _moment) for fact in _merged(list(some))]


def _merged(facts: list[KeptFact]) -> list[KeptFact]:
    """Return facts with one event time in their order."""
    by_source: dict[str, list[KeptFact]] = {}
    streams: list[list[KeptFact]] = []
    for fact in facts:
        if fact.sequence is None:
            streams.append([fact])
        else:
            by_source.setdefault(fact.source, []).append(fact)
    if not by_source:
        return facts
    streams += [sorted(some, key=_in_source, reverse=True) for some in by_source.values()]
    heads = [(_in_life(stream[-1]), number) for number, stream in enumerate(streams)]
    heapify(heads)
    found: list[KeptFact] = []
    while heads:
        number = heads[0][1]
        found.append(streams[number].pop())
        if streams[number]:
            heapreplace(heads, (_in_life(streams[number][-1]), number))
        else:
            heappop(heads)
    return found


def _follows(fact: KeptFact, last: KeptFact) -> bool:
    """Return whether a fact certainly comes behind the last one of a story."""
    if fact.later != last.later or fact.time != last.time or fact.sequence is last.sequence is None:
        return fact > last
    if fact.sequence is not None and last.sequence is not None and fact.source == last.source:
        return bool(_in_source(fact) > _in_source(last))
    return False


def read_fact_positions(connection: sa.Connection, table: sa.Table, key: str) -> list[int]:
    """Return the positions of the facts that a row is folded from, in their order."""
    (name,) = table.primary_key.columns
    last = connection.execute(sa.select(table.c[LAST_FACT]).where(name == key)).scalar()
    found = _chain(table.metadata.tables[f"{table.name}_facts"]).execute(connection, {"position": last})
    return [_decoder.decode(text).position for (text,) in found][::-1]


class EntityRows(RowCache):
    """The rows of one table, each folded from the facts of one entity.

    ``fields`` lists the classes of facts in the order of the entity's life, with the fields that the step reads. The
    first ``openings`` of them begin an entity: all of these are folded before other facts. The table's key is the field
    ``key`` of a fact; ``key_of`` returns it where it is not a field of that name. A row that is folded again keeps its
    values of the columns ``kept``. ``completed`` is called with each row that facts have changed.
    """

    def __init__(
        self,
        table: sa.Table,
        fields: Mapping[type[msgspec.Struct], tuple[str, ...]],
        step: Step,
        *,
        openings: int = 0,
        key_of: Callable[[Event], str] | None = None,
        kept: Sequence[str] = (),
        completed: Completed | None = None,
        blocks: DayBlocks | None = None,
        watched: Sequence[str] = (),
    ) -> None:
        super().__init__(table, blocks, watched)
        self._step = step
        self._key_of = key_of or attrgetter(f"body.{self._key.name}")
        fields = {cls: _money_last(cls, names) for cls, names in fields.items()}
        self._kinds = {
            cls: (kind, min(1, kind // openings) if openings else 1, _picker(cls, names))
            for kind, (cls, names) in enumerate(fields.items())
        }
        self.classes = tuple(fields)
        self._bodies = [_builder(cls, names, str(self._key.name)) for cls, names in fields.items()]
        self._blank: Row = {name: None for name in self._empty if name not in (self._key.name, SINCE, HAPPENED)}
        self._kept_columns = tuple(kept)
        self._completed = completed
        facts = table.metadata.tables[f"{table.name}_facts"]
        self._insert = prepare_insert(facts, ("position", "previous", "fact"))
        self._chain = _chain(facts)
        self._read_facts = PreparedQuery(
            sa.select(facts.c.position, facts.c.fact).where(facts.c.position.in_(listed_positions("positions")))
        )
        self._new: dict[int, tuple[int, int | None, str]] = {}
        self._placed: dict[int, tuple[int, int | None, str]] = {}
        """Facts to write, by position: those that were appended to their story, then those with another place in it."""
        self._last: dict[str, KeptFact] = {}
        self._stories: dict[str, list[KeptFact]] = {}
        self._late: dict[str, list[KeptFact]] = {}

    def read_entities(self, connection: sa.Connection, events: Iterable[Event]) -> None:
        """Read together what ``add`` needs for these events: the rows of their entities, and their last facts."""
        keys = {self._key_of(event) for event in events if type(event.body) in self._kinds}
        self.read_ahead(connection, keys)
        unread = keys.difference(self._last)
        rows = ((key, row) for key in unread if (row := self._cached.get(key)) and row[LAST_FACT] is not None)
        last = {row[LAST_FACT]: key for key, row in rows}
        if last:
            listed = encode(list(last)).decode()
            for position, text in self._read_facts.execute(connection, {"positions": listed}).fetchall():
                self._last[last[position]] = _decoder.decode(text)

    def add(self, connection: sa.Connection, event: Event) -> None:
        """Add a fact to its entity."""
        key, fact = self._key_of(event), self._kept(event)
        row = self.get(connection, key)
        last = self._last.get(key) or self._last_of(connection, key, row)
        if last is None or (_follows(fact, last) and key not in self._late):
            known = self._blank if row is None else row
            changes = self._step(known, event.body, fact)
            if self._completed is not None:
                changes |= self._completed(connection, known, changes)
            changes[LAST_FACT] = event.position
            self._change(key, row, changes, event.position, fact.time)
            self._new[event.position] = (event.position, last and last.position, encode(fact).decode())
            self._last[key] = fact
            if key in self._stories:
                self._stories[key].append(fact)
        elif key in self._late:
            self._late[key].append(fact)
        elif len(story := self._story(connection, key)) < _MANY:
            self._fold(connection, key, story, [*story, fact], event.position)
        else:
            self._late[key] = [fact]

    def correct(self, connection: sa.Connection, correction: Correction, position: int) -> None:
        """Replace a corrected fact in its entity, or move it to another."""
        self.fold_late(connection)
        for event, is_right in ((correction.before, False), (correction.after, True)):
            if event is None or type(event.body) not in self._kinds:
                continue
            key = self._key_of(event)
            story = self._story(connection, key)
            facts = [one for one in story if one.position != correction.position]
            if is_right:
                facts.append(self._kept(event))
            self._fold(connection, key, story, facts, position)

    def write(self, connection: sa.Connection) -> None:
        """Fold the long stories that had late facts, then write the changed rows and the facts."""
        self.fold_late(connection)
        self._write_facts(connection)
        super().write(connection)

    def _write_facts(self, connection: sa.Connection) -> None:
        self._insert.write(connection, list(self._new.values()), are_new=True)
        self._insert.write(connection, list(self._placed.values()))
        self._new.clear()
        self._placed.clear()

    def forget(self) -> None:
        """Drop the cache."""
        self._new.clear()
        self._placed.clear()
        self._last.clear()
        self._stories.clear()
        self._late.clear()
        super().forget()

    def _kept(self, event: Event) -> KeptFact:
        stored = event.stored
        kind, later, pick = self._kinds[type(event.body)]
        sequence = sequence_of(stored) if stored.sequence else None
        return KeptFact(later, stored.time, kind, stored.source, stored.id, event.position, sequence, pick(event.body))

    def _last_of(self, connection: sa.Connection, key: str, row: Row | None) -> KeptFact | None:
        if row is None or row[LAST_FACT] is None:
            return None
        self._last[key] = self._story(connection, key)[-1]
        return self._last[key]

    def _story(self, connection: sa.Connection, key: str) -> list[KeptFact]:
        """Return the facts of an entity in their order."""
        story = self._stories.get(key)
        if story is None:
            row = self.get(connection, key)
            self._write_facts(connection)
            last = None if row is None else row[LAST_FACT]
            found = self._chain.execute(connection, {"position": last}).fetchall()
            story = self._stories[key] = [_decoder.decode(text) for (text,) in reversed(found)]
        return story

    def until(self, connection: sa.Connection, moment: str) -> list[Row]:
        """Return the rows with facts, each folded from its facts up to an event time alone."""
        last_fact = self._table.c[LAST_FACT]
        told = connection.execute(sa.select(self._key, last_fact).where(last_fact.is_not(None)))
        found: list[Row] = []
        for key, last in told.cursor.fetchall():
            chain = self._chain.execute(connection, {"position": last}).fetchall()
            facts = [fact for (text,) in reversed(chain) if (fact := _decoder.decode(text)).time <= moment]
            found.append({**self._empty, self._key.name: key, **self._folded(connection, key, facts, {})})
        return found

    def _folded(self, connection: sa.Connection, key: str, facts: Iterable[KeptFact], begin: Row) -> Row:
        row = self._blank | begin
        for fact in facts:
            row.update(self._step(row, self._bodies[fact.kind](fact.values, key), fact))
        return row if self._completed is None else row | self._completed(connection, row, row)

    def fold_late(self, connection: sa.Connection) -> None:
        """Fold the long stories that had late facts."""
        late, self._late = self._late, {}
        for key, facts in late.items():
            story = self._story(connection, key)
            self._fold(connection, key, story, [*story, *facts], facts[-1].position)

    def _fold(
        self, connection: sa.Connection, key: str, before: list[KeptFact], facts: list[KeptFact], position: int
    ) -> None:
        """Fold a row from all its facts; the new version is valid from a position on."""
        known, facts = self.get(connection, key) or self._blank, ordered(facts)
        row = self._folded(connection, key, facts, {name: known[name] for name in self._kept_columns})
        row[LAST_FACT] = facts[-1].position if facts else None
        self.put(connection, key, row, position, facts[-1].time if facts else None)
        kept = {fact.position: (previous, fact) for previous, fact in _linked(before)}
        for previous, fact in _linked(facts):
            if kept.get(fact.position) != (previous, fact):
                self._placed[fact.position] = (fact.position, previous, encode(fact).decode())
        self._stories[key] = facts
        if facts:
            self._last[key] = facts[-1]
        else:
            self._last.pop(key, None)


def waited_seconds(begin: str, end: str) -> float:
    """Return the seconds between two times, at least 0."""
    return max(0.0, (parse_time(end) - parse_time(begin)).total_seconds())


def _linked(facts: Sequence[KeptFact]) -> Iterator[tuple[int | None, KeptFact]]:
    """Return facts, each behind the position of the one before it."""
    return zip([None, *(fact.position for fact in facts)], facts, strict=False)


@cache
def _chain(facts: sa.Table) -> PreparedQuery:
    """Return a query of an entity's facts from a position on, the last one first."""
    last = sa.select(facts.c.previous, facts.c.fact).where(facts.c.position == sa.bindparam("position"))
    chain = last.cte("chain", recursive=True)
    before = sa.select(facts.c.previous, facts.c.fact).join(chain, facts.c.position == chain.c.previous)
    return PreparedQuery(sa.select(chain.union_all(before).c.fact))


@cache
def _fields_of(cls: type[msgspec.Struct], names: tuple[str, ...], word: str) -> frozenset[str]:
    """Return the fields whose type has this word."""
    return frozenset(
        field.name for field in msgspec.structs.fields(cls) if field.name in names and word in str(field.type)
    )


def _money_last(cls: type[msgspec.Struct], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return fields with those of money behind the others."""
    money = _fields_of(cls, names, "Money")
    return (*(name for name in names if name not in money), *(name for name in names if name in money))


def _picker(cls: type[msgspec.Struct], names: tuple[str, ...]) -> Callable[[msgspec.Struct], tuple[object, ...]]:
    """Return a function that gives the values of these fields of a fact, money as minor units and currency."""
    money = _fields_of(cls, names, "Money")
    pick = _tuple_of(names[: len(names) - len(money)])
    if not money:
        return pick
    amounts = _tuple_of(names[len(names) - len(money) :])
    return lambda body: (
        *pick(body),
        *[(one.minor, one.currency) if isinstance(one, Money) else one for one in amounts(body)],
    )


def _tuple_of(names: tuple[str, ...]) -> Callable[[msgspec.Struct], tuple[object, ...]]:
    if len(names) < 2:  # noqa: PLR2004 - a getter of one name returns no tuple
        return lambda body: tuple([getattr(body, name) for name in names])
    return attrgetter(*names)


@cache
def _builder(
    cls: type[msgspec.Struct], names: tuple[str, ...], key: str
) -> Callable[[tuple[object, ...], str], msgspec.Struct]:
    """Return a function that makes a fact of these values of its fields, and of its key."""
    known = {field.name for field in msgspec.structs.fields(cls)}
    money = tuple(name in _fields_of(cls, names, "Money") for name in names)
    if _fields_of(cls, names, "datetime"):
        return lambda values, entity: convert(cls, plain({key: entity, **dict(zip(names, values, strict=True))}))
    if any(money):

        def build(values: tuple[object, ...], entity: str) -> msgspec.Struct:
            given: dict[str, object] = {key: entity} if key in known else {}
            for name, is_money, value in zip(names, money, values, strict=True):
                given[name] = Money(*value) if is_money and isinstance(value, Sequence) else value
            return cls(**given)

        return build
    if key in known:
        return lambda values, entity: cls(**{key: entity}, **dict(zip(names, values, strict=True)))
    return lambda values, _: cls(**dict(zip(names, values, strict=True)))
