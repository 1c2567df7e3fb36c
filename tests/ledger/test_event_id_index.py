"""The index of event ids: batches are complete, and the first entry of an id stays."""

import hashlib
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from itertools import batched
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import LocalFileError, UnavailableError
from ledger.store import event_id_index
from ledger.store.event_id_index import EventIdEntry, EventIdIndex, PackedEntries
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


def hashed(keys: list[int]) -> list[EventIdEntry]:
    """Return entries as the intake makes them: keys and contents are hashes of 16 bytes."""
    texts = ((b"key %d" % key, b"content %d" % position) for position, key in enumerate(keys, 1))
    digests = ([hashlib.blake2b(text, digest_size=16).digest() for text in two] for two in texts)
    return [EventIdEntry(key, position, content) for position, (key, content) in enumerate(digests, 1)]


def packed(entries: list[EventIdEntry]) -> PackedEntries:
    found = PackedEntries()
    found.extend(entries)
    return found


def everything(index: EventIdIndex) -> list[object]:
    names = index.rows("SELECT * FROM names ORDER BY key")
    return [names, index.heads(), index.sources_with_token("t"), index.begun()]


@given(
    keys=st.lists(st.integers(0, 300), max_size=500),
    cut=st.integers(0, 500),
    small=st.integers(1, 60),
    at_once=st.integers(0, 60),
    a_part=st.integers(1, 60),
)
def test_an_index_of_large_commits_equals_one_of_small_commits(
    keys: list[int], cut: int, small: int, at_once: int, a_part: int
) -> None:
    """Keys come again, within one commit and in a later one."""
    entries, sources = hashed(keys), [("t", "source")]
    cursors = {entry.position: {"s": ReadCursor(entry.position, f"digest {entry.position}")} for entry in entries}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_id_index, "_ENTRIES_AT_ONCE", at_once)
        patch.setattr(event_id_index, "_ENTRIES_A_PART", a_part)
        with closing(EventIdIndex(Path(folder) / "a.sqlite")) as one, closing(EventIdIndex(Path(folder) / "b")) as two:
            for part in batched(entries, small):
                one.commit(part, cursors[part[-1].position], sources)
            for whole in filter(None, (entries[:cut], entries[cut:])):
                collected = packed(whole)
                assert len(collected) == len(whole)
                for _ in two.commit_in_parts(collected, cursors[whole[-1].position], sources):
                    assert two.head("s").position in {0, cut}  # only the last part moves it
                assert len(collected) == 0
            assert everything(one) == everything(two)


def test_entries_of_another_length_are_refused() -> None:
    for wrong in (EventIdEntry(b"short", 1, b"c" * 16), EventIdEntry(b"k" * 16, 1, b"c" * 17)):
        with pytest.raises(ValueError, match="position=1"):
            packed([wrong])


_MANY = 100_000
_WRITER = f"""
import sys
from pathlib import Path
from tests.ledger.test_event_id_index import hashed, packed
from ledger.store.event_id_index import EventIdIndex
from ledger.store.subscription import ReadCursor
index = EventIdIndex(Path(sys.argv[1]))
for _ in index.commit_in_parts(packed(hashed(list(range({_MANY})))), {{"s": ReadCursor({_MANY}, "digest")}}):
    print("a part", flush=True)
"""


@pytest.mark.integration
def test_a_process_that_is_killed_in_a_large_commit_leaves_an_index_that_goes_on(tmp_path: Path) -> None:
    path, entries, end = tmp_path / "x.sqlite", hashed(list(range(_MANY))), {"s": ReadCursor(_MANY, "digest")}
    with subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            assert writer.stdout.readline()
        writer.kill()
    with closing(EventIdIndex(path)) as index:
        ((stored,),) = index.rows("SELECT count(*) FROM names")
        assert 0 < stored < _MANY
        assert (index.heads(), index.begun()) == ({}, end)
        for _ in index.commit_in_parts(packed(entries[:30_000]), {"s": ReadCursor(30_000, "earlier")}):
            pass
        assert index.begun() == end  # entries up to there are stored still
        index.commit(entries[30_000:], end)
        assert (index.heads(), index.begun()) == (end, {})
        assert index.rows("SELECT * FROM names ORDER BY key") == sorted(entries)


def test_a_disk_that_is_full_in_a_large_commit_loses_nothing(tmp_path: Path) -> None:
    entries, end = hashed(list(range(50_000))), {"s": ReadCursor(50_000, "digest")}
    with closing(EventIdIndex(tmp_path / "x.sqlite")) as index:
        index._writer.execute("PRAGMA max_page_count=200")
        with pytest.raises(LocalFileError, match="disk"):
            list(index.commit_in_parts(packed(entries), end))
        assert (index.heads(), index.begun()) == ({}, end)
        index._writer.execute("PRAGMA max_page_count=100000")
        list(index.commit_in_parts(packed(entries), end))
        assert (index.heads(), index.begun()) == (end, {})
        assert index.rows("SELECT * FROM names ORDER BY key") == sorted(entries)
