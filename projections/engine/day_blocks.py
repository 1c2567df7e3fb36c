"""Day blocks: the values of a table's rows by day of event time, as arrays, so that totals of years are read fast.

A block is a copy of the rows of one day of UTC, made when the day has been quiet for a while. A change to a row of the
day deletes the block. A reader takes the rows themselves for days without a block. So a total is a function of the rows
alone, whichever days have a block.
"""

from __future__ import annotations

import time
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from domain.serialization import encode
from projections.engine.row_cache import PreparedQuery
from projections.engine.storage import driver, names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    type Values = Sequence[object]

type Array = NDArray[Any]
NEVER = np.iinfo(np.int64).max
"""The time of an event that did not happen, in a column of times."""
_CHUNK_ROWS = 1 << 17
_QUIET_SECONDS = 30.0
_DAY_DIGITS = len("2026-11-21")
_LATEST = "9999-12-31"
_WORDS = "words_of_days"


def _moments(values: Values) -> NDArray[np.int64]:
    texts = [None if one is None else str(one)[:-1] for one in values]
    found = np.array(texts, dtype="datetime64[us]")
    return np.where(np.isnat(found), NEVER, found.astype(np.int64))


_FORMS: Mapping[str, Callable[[Values], Array]] = {
    "time": _moments,
    "number": lambda values: np.array(values, dtype=np.int64),
    "real": lambda values: np.array(values, dtype=np.float64),
}
"""How a column is stored: a time as microseconds since 1970, a whole number, or a real number."""


class DayTable:
    """The blocks of a table: the time that places a row, and a query of the values that they hold.

    The query's first column is the time. The others are words (texts that occur often, stored as numbers) but for those
    in ``forms``. ``stale`` has a query by table: from the rows of that table that a batch changed
    (``listed_rows("touched")``: their watched columns), it returns days whose blocks hold values of them.
    """

    def __init__(
        self,
        table: sa.Table,
        query: sa.Select[*tuple[object, ...]],
        forms: Mapping[str, str],
        stale: Mapping[str, sa.Select[tuple[str]]] | None = None,
    ) -> None:
        self.name = str(table.name)
        moment, *values = query.selected_columns
        self.columns = tuple(str(column.name) for column in values)
        self.forms = forms
        self.stale = {of: PreparedQuery(days) for of, days in (stale or {}).items()}
        within = query.where(moment >= sa.bindparam("begin"), moment < sa.bindparam("end")).order_by(moment)
        self.query = PreparedQuery(within)
        self.first = f"SELECT min({moment.name}) FROM {self.name} WHERE {moment.name} >= ? AND {moment.name} < ?"  # noqa: S608
        self.blocks = sa.Table(
            f"{self.name}_days",
            table.metadata,
            sa.Column("day", sa.Text, primary_key=True),
            *(sa.Column(name, sa.LargeBinary) for name in ("moment", *self.columns)),
        )
        if _WORDS not in table.metadata.tables:
            sa.Table(
                _WORDS,
                table.metadata,
                sa.Column("name", sa.Text, primary_key=True),
                sa.Column("number", sa.Integer, primary_key=True),
                sa.Column("word", sa.Text, nullable=False),
            )


def days_of(time: sa.ColumnElement[str]) -> sa.Select[tuple[str]]:
    """Return a query of the days of times."""
    return sa.select(sa.func.substr(time, 1, _DAY_DIGITS)).distinct()


class Words:
    """Numbers of words by column; 0 is NULL. A reader numbers words that no block has yet for itself."""

    def __init__(self, connection: sa.Connection, names: Iterable[str]) -> None:
        query = "SELECT word FROM words_of_days WHERE name = ? ORDER BY number"
        self._words: dict[str, list[str | None]] = {
            name: [None, *(word for (word,) in driver(connection).execute(query, (name,)))] for name in names
        }
        self._numbers = {name: {word: at for at, word in enumerate(words)} for name, words in self._words.items()}
        self._stored = {name: len(words) for name, words in self._words.items()}

    def of(self, name: str) -> list[str | None]:
        """Return the words of a column by number."""
        return self._words[name]

    def numbers(self, name: str, values: Values) -> NDArray[np.int32]:
        """Return the numbers of words; new ones get the next."""
        known, words = self._numbers[name], self._words[name]
        for word in set(values).difference(known):
            assert word is None or isinstance(word, str)
            known[word] = len(words)
            words.append(word)
        return np.array([known[word] for word in values], dtype=np.int32)  # type: ignore[index]

    def store(self, connection: sa.Connection) -> None:
        """Write the new words."""
        for name, words in self._words.items():
            new = [(name, at, words[at]) for at in range(self._stored[name], len(words))]
            driver(connection).executemany("INSERT INTO words_of_days (name, number, word) VALUES (?, ?, ?)", new)
            self._stored[name] = len(words)


def _arrays(of: DayTable, names: Iterable[str], rows: Sequence[Sequence[object]], words: Words) -> dict[str, Array]:
    """Return rows of a table's query as arrays by column."""
    columns = list(zip(*rows, strict=True))
    found: dict[str, Array] = {"moment": _moments(columns[0])}
    for name in names:
        values = columns[1 + of.columns.index(name)]
        form = of.forms.get(name)
        found[name] = words.numbers(name, values) if form is None else _FORMS[form](values)
    return found


def _day_after(day: str, days: int = 1) -> str:
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat() if day < _LATEST else f"{_LATEST}Z"


class DayBlocks:
    """The blocks of a view's tables, as its projection keeps them."""

    def __init__(self, *tables: DayTable) -> None:
        self._tables = {one.name: one for one in tables}
        self._words: Words | None = None
        self._kept: dict[str, set[str]] = {}
        self._touched: dict[str, set[tuple[object, ...]]] = {}
        self._waiting: dict[tuple[str, str], float] = {}
        self.quiet_seconds = _QUIET_SECONDS
        self._is_complete = False
        """True after all days had a block once; from then on, only days that changed need one."""

    def watches(self, connection: sa.Connection) -> bool:
        """Return whether changes of rows must be told: there are blocks, or days wait for one."""
        if not self._kept:
            for name in self._tables:
                days = driver(connection).execute(f"SELECT day FROM {name}_days")  # noqa: S608 - a name of ours
                self._kept[name] = {day for (day,) in days}
        return self._is_complete or any(self._kept.values())

    def touch(self, name: str, rows: set[tuple[object, ...]]) -> None:
        """Note rows that a batch changes, as they were and as they are: each its time, then other watched columns."""
        self._touched.setdefault(name, set()).update(rows)

    def drop(self, connection: sa.Connection) -> None:
        """Delete the blocks that hold values of the rows that this batch has changed."""
        touched, self._touched = self._touched, {}
        if not touched:
            return
        now = time.monotonic()
        for name, table in self._tables.items():
            days = {str(row[0])[:_DAY_DIGITS] for row in touched.get(name, ()) if row[0] is not None}
            for of, query in table.stale.items():
                if rows := touched.get(of):
                    listed = encode([*rows]).decode()
                    days.update(day for (day,) in query.execute(connection, {"touched": listed}) if day)
            self._waiting.update(((name, day), now) for day in days)
            if stale := days & self._kept[name]:
                delete = f"DELETE FROM {name}_days WHERE day = ?"  # noqa: S608 - a name of ours
                driver(connection).executemany(delete, [(day,) for day in stale])
                self._kept[name] -= stale

    def forget(self) -> None:
        """Drop the cache, because a transaction was rolled back."""
        self._words = None
        self._kept.clear()
        self._touched.clear()
        self._is_complete = False

    def settle(self, connection: sa.Connection, rows: int) -> bool:
        """Make blocks of days without one, of about so many rows; return whether all quiet days have one."""
        self.watches(connection)
        made = 0
        for name, day in self._due(connection):
            if made >= rows:
                return False
            made += self._make(connection, self._tables[name], day)
        self._is_complete = True
        return True

    def _due(self, connection: sa.Connection) -> Iterator[tuple[str, str]]:
        """Yield the days that need a block."""
        if self._is_complete:
            before = time.monotonic() - self.quiet_seconds
            yield from [place for place, at in self._waiting.items() if at <= before]
            return
        for table in self._tables.values():
            for begin, end in _gaps(sorted(self._kept[table.name]), "", f"{_LATEST}Z"):
                at = begin
                while (found := driver(connection).execute(table.first, (at, end)).fetchone()[0]) is not None:
                    yield table.name, found[:_DAY_DIGITS]
                    at = _day_after(found[:_DAY_DIGITS])

    def _make(self, connection: sa.Connection, table: DayTable, day: str) -> int:
        """Make the block of a day; return the number of its rows."""
        if self._words is None:
            names = [name for of in self._tables.values() for name in of.columns if name not in of.forms]
            self._words = Words(connection, dict.fromkeys(names))
        limits = {"begin": day, "end": _day_after(day)}
        rows = table.query.execute(connection, limits).fetchall()
        if rows:
            found = _arrays(table, table.columns, rows, self._words)
            self._words.store(connection)
            places = ", ".join("?" * (len(found) + 1))
            delete = f"DELETE FROM {table.name}_days WHERE day = ?"  # noqa: S608 - a name of ours
            driver(connection).execute(delete, (day,))
            insert = f"INSERT INTO {table.name}_days ({names_of(('day', *found))}) VALUES ({places})"  # noqa: S608
            driver(connection).execute(insert, (day, *(column.tobytes() for column in found.values())))
            self._kept[table.name].add(day)
        self._waiting.pop((table.name, day), None)
        return len(rows)


def _gaps(days: Sequence[str], begin: str, end: str) -> Iterator[tuple[str, str]]:
    """Yield the ranges of days between these days, from the first on and before the second."""
    for day in days:
        if begin < day:
            yield begin, day
        begin = max(begin, _day_after(day))
    if begin < end:
        yield begin, end


class DayColumns(NamedTuple):
    """Columns of the rows within a range of times."""

    table: DayTable
    names: tuple[str, ...]
    words: Words

    @classmethod
    def of(cls, connection: sa.Connection, table: DayTable, names: Iterable[str]) -> DayColumns:
        """Return the columns of these names."""
        listed = tuple(dict.fromkeys(names))
        return cls(table, listed, Words(connection, [name for name in listed if name not in table.forms]))

    def read(self, connection: sa.Connection, begin: str | None, end: str | None) -> Iterator[dict[str, Array]]:
        """Yield the columns by name in chunks of bounded size; ``moment`` is the time in microseconds since 1970."""
        first, last = _moments([begin, end]).tolist()
        lower = -NEVER if begin is None else first
        for chunk in self._chunks(connection, begin or "", end or f"{_LATEST}Z"):
            moments = chunk["moment"]
            if begin is not None or end is not None:
                within = (moments >= lower) & (moments < last)
                if not within.all():
                    yield {name: column[within] for name, column in chunk.items()}
                    continue
            yield chunk

    def _chunks(self, connection: sa.Connection, begin: str, end: str) -> Iterator[dict[str, Array]]:
        names, table = ("moment", *self.names), self.table
        query = f"SELECT day, {names_of(names)} FROM {table.name}_days WHERE day >= ? AND day <= ? ORDER BY day"  # noqa: S608
        days: list[str] = []
        parts: list[list[bytes]] = [[] for _ in names]
        size = 0
        for day, *blobs in driver(connection).execute(query, (begin[:_DAY_DIGITS], end)):
            days.append(day)
            for part, blob in zip(parts, blobs, strict=True):
                part.append(blob)
            size += len(blobs[0]) // 8
            if size >= _CHUNK_ROWS:
                yield self._joined(parts)
                size = 0
                for part in parts:
                    part.clear()
        if size:
            yield self._joined(parts)
        for gap in _gaps(days, begin, end):
            found = table.query.execute(connection, {"begin": gap[0], "end": gap[1]})
            while rows := found.fetchmany(_CHUNK_ROWS):
                yield _arrays(table, self.names, rows, self.words)

    def _joined(self, parts: Sequence[Sequence[bytes]]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for name, part in zip(("moment", *self.names), parts, strict=True):
            form = "time" if name == "moment" else self.table.forms.get(name)
            kind = np.int32 if form is None else np.float64 if form == "real" else np.int64
            found[name] = np.frombuffer(b"".join(part), dtype=kind)
        return found
