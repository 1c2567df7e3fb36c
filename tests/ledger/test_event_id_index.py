"""The index of event ids: batches are complete, and the first entry of an id stays."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import UnavailableError
from ledger.store.event_id_index import EventIdEntry, EventIdIndex
from ledger.store.subscription import ReadCursor


def named(*keys: int, begin: int = 1) -> list[EventIdEntry]:
    return [EventIdEntry(b"%04d" % key, position, b"content %d" % position) for position, key in enumerate(keys, begin)]


@given(st.lists(st.integers(0, 400), max_size=600), st.lists(st.integers(0, 400), max_size=600))
def test_the_first_of_a_name_stays(one: list[int], two: list[int]) -> None:
    index = EventIdIndex(Path(":memory:"))
    index._db.close()
    index._db = index._writer  # a database in memory is each connection's own
    names = [*named(*one), *named(*two, begin=len(one) + 1)]
    for part in (names[: len(one)], names[len(one) :], names[: len(one)]):
        index.commit(part, {"*": ReadCursor(len(names), "digest")})
    first: dict[bytes, EventIdEntry] = {}
    for name in names:
        first.setdefault(name.key, name)
    assert index.find([b"%04d" % key for key in range(401)]) == first
    index.close()


@pytest.mark.parametrize("many", [0, 1, 199, 200, 201, 1000])
def test_other_tables_take_as_many_rows_as_there_are(tmp_path: Path, many: int) -> None:
    index = EventIdIndex(tmp_path / "x.sqlite")
    index.table("CREATE TABLE IF NOT EXISTS kept (a INTEGER PRIMARY KEY, b TEXT)")
    put, drop = "INSERT OR REPLACE INTO kept VALUES (?, ?)", "DELETE FROM kept WHERE a = ?"
    index.commit([], {}, changes=[(put, [(number, "old") for number in range(many)])])
    index.commit([], {}, changes=[(put, [(number, "new") for number in range(many)]), (drop, [(0,)])])
    assert index.rows("SELECT a, b FROM kept ORDER BY a") == [(number, "new") for number in range(1, many)]
    index.close()


def test_a_commit_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """And the next one finds the index as it was."""
    index = EventIdIndex(tmp_path / "x.sqlite")
    index.commit(named(1), {"*": ReadCursor(1, "one")})
    with pytest.raises(UnavailableError):
        index.commit(named(1, 2), {"*": ReadCursor(2, "two")}, changes=[("INSERT INTO absent VALUES (?)", [(1,)])])
    assert (index.head("*"), index.find([b"0002"])) == (ReadCursor(1, "one"), {})
    index.commit(named(1, 2), {"*": ReadCursor(2, "two")})
    assert index.find([b"0001", b"0002"]).keys() == {b"0001", b"0002"}
    with pytest.raises(sqlite3.OperationalError):
        index.rows("SELECT * FROM absent")
    index.close()
