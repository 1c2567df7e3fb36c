"""The state file: one position for all its values, lost changes after a kill, and files that do not fit."""

import os
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.keyed_state import LostRowError, MemoryState, Queue
from ledger.errors import StateError
from ledger.store.state_file import StateFile
from ledger.store.subscription import START, ReadCursor
from tests.support.environment import ROOT


def opened(folder: Path, version: str = "1") -> StateFile:
    return StateFile(folder / "role" / "state.sqlite", version)


def test_a_commit_holds_tables_records_and_position(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        assert (state.cursor, state.discarded) == (START, "")
        state.table("paid", int).put("O-1", 500)
        state.record("seen", dict[str, int])["A-1"] = 1
        state.commit(ReadCursor(7, "digest"))
    with opened(tmp_path) as state:
        assert (state.cursor, state.discarded) == (ReadCursor(7, "digest"), "")
        assert state.table("paid", int).get("O-1") == 500
        assert state.record("seen", dict[str, int]) == {"A-1": 1}


def test_changes_after_the_last_commit_are_lost_together(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        paid, seen = state.table("paid", int), state.record("seen", dict[str, int])
        paid.put("O-1", 500)
        state.commit(ReadCursor(1, "one"))
        paid.put("O-2", 700)
        paid.drop("O-1")
        seen["A-1"] = 1
    with opened(tmp_path) as state:
        paid = state.table("paid", int)
        assert (paid.get("O-1"), paid.get("O-2")) == (500, None)
        assert (state.record("seen", dict[str, int]), state.cursor.position) == ({}, 1)


def test_values_that_left_the_cache_are_read_again(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        table = state.table("numbers", int, cached=3)
        for number in range(20):
            table.put(str(number), number)
            state.commit(ReadCursor(number, ""))
        table.drop("4")
        state.commit(ReadCursor(20, ""))
        assert [table.get(str(number)) for number in range(20)] == [None if one == 4 else one for one in range(20)]


def test_long_values_leave_the_cache_earlier(tmp_path: Path) -> None:
    long = 20_000
    with opened(tmp_path) as state:
        table = state.table("texts", str)
        tracemalloc.start()
        for number in range(1_000):
            table.put(str(number), "x" * long)
            if number % 50 == 0:
                state.commit(ReadCursor(number, ""))
        state.commit(ReadCursor(1_000, ""))
        written, _ = tracemalloc.get_traced_memory()
        for number in range(1_000):
            assert table.get(str(number)) == "x" * long
            if number % 50 == 0:
                state.commit(ReadCursor(number, ""))
        state.commit(ReadCursor(1_000, ""))
        read, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert max(written, read) < 6_000_000  # of 20 million


@pytest.mark.parametrize("restarts", [False, True])
def test_a_queue_returns_items_in_their_order(tmp_path: Path, *, restarts: bool) -> None:
    state = opened(tmp_path) if restarts else MemoryState()
    queue = Queue(state, "queue", list[int])
    expected = list[int]()
    for number in range(1_500):
        queue.append(number)
        expected.append(number)
        if number % 3 == 0:
            assert queue.first() == expected[0]
            assert queue.pop_first() == expected.pop(0)
        if isinstance(state, StateFile) and number % 100 == 0:
            state.commit(ReadCursor(number, ""))
            state.close()
            state = opened(tmp_path)
            queue = Queue(state, "queue", list[int])
    assert (list(queue), len(queue)) == (expected, len(expected))


def test_a_file_of_another_version_is_replaced(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.table("paid", int).put("O-1", 500)
        state.commit(ReadCursor(7, "digest"))
    with opened(tmp_path, "2") as state:
        assert state.discarded == "it was written by another version, or with other settings"
        assert (state.cursor, state.table("paid", int).get("O-1")) == (START, None)


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "role" / "state.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 500)
    with opened(tmp_path) as state:
        assert "damaged" in state.discarded
        state.commit(ReadCursor(1, "digest"))


def test_a_value_of_another_form_is_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.table("paid", int).put("O-1", 500)
        state.commit(ReadCursor(1, "digest"))
    with opened(tmp_path) as state, pytest.raises(StateError) as caught:
        state.table("paid", str).get("O-1")
    assert caught.value.damaged


def filled(folder: Path) -> Path:
    """Return a state file with a table of several pages and a record."""
    with opened(folder) as state:
        table, seen = state.table("paid", int), state.record("seen", dict[str, int])
        for number in range(400):
            table.put(f"O-{number}", number)
        seen["A-1"] = 1
        state.commit(ReadCursor(7, "digest"))
    return folder / "role" / "state.sqlite"


def read_all(folder: Path) -> str:
    """Read each value; return the reason for a state that was thrown away. No value may be another than was written."""
    with opened(folder) as state:
        try:
            if not state.discarded:
                table, seen = state.table("paid", int), state.record("seen", dict[str, int])
                assert seen in ({}, {"A-1": 1})
                assert all(table.get(f"O-{number}") in {number, None} for number in range(400))
        except StateError as error:
            if not error.damaged:
                raise
            state.discard(str(error))
        if state.discarded:
            state.table("paid", int).put("O-1", 1)
            state.commit(ReadCursor(1, "new"))
        return state.discarded


def sql(statement: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    return run


def byte(place: int, value: int) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[place] = value
        path.write_bytes(data)

    return run


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:4_500]),
        lambda path: path.write_bytes(b""),
        byte(47, 9),
        sql("ALTER TABLE progress RENAME COLUMN digest TO other"),
        sql("UPDATE progress SET digest = CAST(X'FF' AS TEXT)"),
        sql("UPDATE progress SET position = 'x'"),
        sql("UPDATE records SET value = 'x'"),
        sql("UPDATE paid SET value = X'00' WHERE key = 'O-7'"),
        sql("UPDATE paid SET value = (SELECT value FROM paid WHERE key = 'O-8') WHERE key = 'O-7'"),
    ],
    ids=["cut off", "empty", "format", "schema", "digest", "position", "record", "value", "other key"],
)
def test_a_file_that_was_harmed_is_replaced(
    tmp_path: Path, harm: Callable[[Path], None], request: pytest.FixtureRequest
) -> None:
    harm(filled(tmp_path))
    assert read_all(tmp_path) or request.node.callspec.id == "empty"
    assert not read_all(tmp_path)


@settings(max_examples=80, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
@example(0.9375, 0)  # a value becomes a text, whose bytes the driver cannot read as one
def test_a_flipped_bit_gives_no_wrong_value_and_no_wait(place: float, bit: int) -> None:
    with TemporaryDirectory() as folder:
        path = filled(Path(folder))
        data = bytearray(path.read_bytes())
        data[int(place * len(data))] ^= 1 << bit
        path.write_bytes(data)
        read_all(Path(folder))


@pytest.mark.parametrize("row", ["0", "1"])
def test_a_row_that_a_queue_misses_is_damage(tmp_path: Path, row: str) -> None:
    with opened(tmp_path) as state:
        queue = Queue(state, "queue", list[int])
        for number in range(300):
            queue.append(number)
        state.commit(ReadCursor(1, "digest"))
    sql(f"DELETE FROM queue WHERE key = '{row}'")(tmp_path / "role" / "state.sqlite")
    with opened(tmp_path) as state, pytest.raises(LostRowError):
        list(Queue(state, "queue", list[int]))


def test_a_failed_commit_can_be_repeated(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        table = state.table("paid", int)
        table.put("O-1", 500)
        state.execute("PRAGMA query_only=1")
        with pytest.raises(StateError) as caught:
            state.commit(ReadCursor(1, "digest"))
        assert not caught.value.damaged
        state.execute("PRAGMA query_only=0")
        state.commit(ReadCursor(1, "digest"))
    with opened(tmp_path) as state:
        assert (state.cursor.position, state.table("paid", int).get("O-1")) == (1, 500)


_KILLED = """
import os, signal, sys
from pathlib import Path
from ledger.store.state_file import StateFile
from ledger.store.subscription import ReadCursor
state = StateFile(Path(sys.argv[1]), "1")
table = state.table("numbers", int)
for number in range(1, 100_000):
    table.put(str(number % 50), number)
    state.commit(ReadCursor(number, str(number)))
    print(number, flush=True)
"""


@pytest.mark.integration
def test_a_killed_process_leaves_one_position(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        for _ in range(30):
            process.stdout.readline()
        process.kill()
    with StateFile(path, "1") as state:
        last = state.cursor.position
        assert last >= 30
        table = state.table("numbers", int)
        assert [table.get(str(number % 50)) for number in range(last - 20, last + 1)] == [*range(last - 20, last + 1)]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
