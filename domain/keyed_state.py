"""State that a fold keeps between runs: keyed tables, queues and small records.

A fold, such as the guard, is given a ``State`` and keeps all that it must remember in it. ``MemoryState`` serves
simulations and tests; ``ledger.store.state_file`` keeps the same on disk, together with the position in the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


class LostRowError(Exception):
    """A row that was written is not there: the state is damaged."""


_CHUNK = 256
"""Items of a queue in one row."""


class Table[V](Protocol):
    """Values by key. A value that was changed in place must be ``put`` again, otherwise the change is lost."""

    def get(self, key: str, /) -> V | None:
        """Return the value, or ``None``."""

    def put(self, key: str, value: V, /) -> None:
        """Set a value."""

    def drop(self, key: str, /) -> None:
        """Remove a value; a key without one is fine."""


class State(Protocol):
    """A set of tables and records by name; each name is used once."""

    def table[V](self, name: str, kind: type[V], *, cached: int = ...) -> Table[V]:
        """Return a table. ``cached``: how many values stay in memory, where the table lies on disk."""

    def record[V](self, name: str, kind: type[V]) -> V:
        """Return a small mutable object, ``kind()`` at first. It is kept whole, so it must not grow with history."""


class MemoryTable[V]:
    """A table in memory."""

    __slots__ = ("_values", "get", "put")

    def __init__(self) -> None:
        self._values: dict[str, V] = {}
        self.get = self._values.get
        self.put = self._values.__setitem__

    def drop(self, key: str, /) -> None:
        """Remove a value."""
        self._values.pop(key, None)


class MemoryState:
    """A state that ends with the process."""

    def table[V](self, name: str, kind: type[V], *, cached: int = 0) -> MemoryTable[V]:
        """Return an empty table."""
        del name, kind, cached
        return MemoryTable[V]()

    def record[V](self, name: str, kind: type[V]) -> V:
        """Return an empty record."""
        del name
        return kind()


class _Ends(msgspec.Struct):
    first: int = 0
    end: int = 0


class Queue[V]:
    """A queue in rows of 256 items, of which the first and the last stay in memory."""

    def __init__(self, state: State, name: str, kind: type[list[V]]) -> None:
        """``kind`` is the type of a row, such as ``list[int]``."""
        self._ends = state.record(f"{name} ends", _Ends)
        self._rows = state.table(name, kind, cached=2)
        number, filled = divmod(self._ends.end, _CHUNK)
        self._last = self._stored(number) if filled else []

    def append(self, item: V) -> None:
        """Add an item at the end."""
        self._last.append(item)
        self._ends.end += 1
        self._rows.put(str((self._ends.end - 1) // _CHUNK), self._last)
        if self._ends.end % _CHUNK == 0:
            self._last = []

    def first(self) -> V | None:
        """Return the oldest item, or ``None``."""
        ends = self._ends
        return self._row(ends.first // _CHUNK)[ends.first % _CHUNK] if ends.first < ends.end else None

    def pop_first(self) -> V:
        """Remove the oldest item and return it."""
        number, place = divmod(self._ends.first, _CHUNK)
        item = self._row(number)[place]
        self._ends.first += 1
        if self._ends.first % _CHUNK == 0:
            self._rows.drop(str(number))
        return item

    def __iter__(self) -> Iterator[V]:
        number, place = divmod(self._ends.first, _CHUNK)
        while number * _CHUNK + place < self._ends.end:
            yield from self._row(number)[place:]
            number, place = number + 1, 0

    def __len__(self) -> int:
        return self._ends.end - self._ends.first

    def _row(self, number: int) -> list[V]:
        if number == self._ends.end // _CHUNK:
            return self._last
        return self._stored(number)

    def _stored(self, number: int) -> list[V]:
        found = self._rows.get(str(number))
        if found is None:
            message = f"a queue has no row {number}, between its first and its last item"
            raise LostRowError(message)
        return found


def keyed(*names: str) -> str:
    """Return one key of several names."""
    return "\0".join(names)
