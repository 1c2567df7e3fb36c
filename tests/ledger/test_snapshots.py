"""Copies of roles' state in the server: a fresh machine goes on from one, and no fault of a copy stops a role."""

import asyncio
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from nats.js.api import ObjectMeta
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from app.runtime.session import Session
from consumers.guard import service as guard
from ledger.store import snapshots
from ledger.store.event_id_index import EventIdEntry, EventIdIndex
from ledger.store.snapshots import Snapshots
from ledger.store.streams import js_api
from ledger.store.subscription import ReadCursor
from tests.support.builders import event
from tests.support.forked_cli import CommandLine
from tests.support.upstreams import upstream_of
from tests.support.waiting import eventually

ROLES = ("decisions", "guard", "intake")


@pytest.fixture(autouse=True)
def worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a copy be worth its cost after ten events, and look for one ten times a second."""
    monkeypatch.setattr(snapshots, "_FEWEST_EVENTS", 10)
    monkeypatch.setattr(snapshots, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(guard, "_COMMIT_EVENTS", 10)


def filled(path: Path, entries: int) -> EventIdIndex:
    index = EventIdIndex(path)
    rows = [EventIdEntry(b"key %d" % number, number, b"content") for number in range(1, entries + 1)]
    index.commit(rows, {"*": ReadCursor(entries, "digest")})
    return index


async def test_a_copy_of_a_file_in_use_is_what_was_committed(session: Session, tmp_path: Path) -> None:
    copies = Snapshots(session.client, "test", "1")
    with closing(filled(tmp_path / "a.sqlite", 3_000)) as index:
        index._writer.execute("BEGIN")
        index._writer.execute("DELETE FROM names")
        await copies.keep(index.path, lambda: 3_000)
        index._writer.execute("ROLLBACK")
    assert await copies.restore(tmp_path / "b" / "b.sqlite")
    with closing(EventIdIndex(tmp_path / "b" / "b.sqlite")) as found:
        assert found.rows("SELECT count(*) FROM names") == [(3_000,)]
        assert found.head("*") == ReadCursor(3_000, "digest")
    assert [path.name for path in (tmp_path / "b").iterdir() if "copy" in path.name] == []


async def test_a_file_that_is_near_the_copy_or_of_another_form_stays(session: Session, tmp_path: Path) -> None:
    copies = Snapshots(session.client, "test", "1")
    with closing(filled(tmp_path / "a.sqlite", 30)) as index:
        await copies.keep(index.path, lambda: 30)
    assert not await copies.restore(tmp_path / "b.sqlite", 21)
    assert not await Snapshots(session.client, "test", "2").restore(tmp_path / "b.sqlite")
    assert not (tmp_path / "b.sqlite").exists()
    assert await copies.restore(tmp_path / "b.sqlite", 20)


async def test_a_copy_is_due_after_a_tenth_of_the_history(session: Session, tmp_path: Path) -> None:
    copies = Snapshots(session.client, "test", "1")
    assert not await copies.is_due(9)
    assert await copies.is_due(10)
    with closing(filled(tmp_path / "a.sqlite", 10)) as index:
        await copies.keep(index.path, lambda: 4_000)
    for one in (copies, Snapshots(session.client, "test", "1")):
        assert not await one.is_due(4_440)
        assert await one.is_due(4_445)
    with closing(EventIdIndex(tmp_path / "a.sqlite")) as index:  # another process stores one meanwhile
        await Snapshots(session.client, "test", "1").keep(index.path, lambda: 4_440)
    assert not await copies.is_due(4_445)


@pytest.mark.parametrize("damage", ["no position", "no database", "a chunk is gone", "a chunk is changed", "no stream"])
async def test_a_damaged_copy_is_passed_over(session: Session, tmp_path: Path, damage: str) -> None:
    operator = await session.connection("operator", user="operator")
    copies = Snapshots(session.client, "test", "1")
    store = ObjectStore(snapshots.BUCKET, snapshots.STREAM, session.client.jetstream())
    with closing(filled(tmp_path / "a.sqlite", 20_000)) as index:
        await copies.keep(index.path, lambda: 20_000)
    info = await store.get_info("test-1")
    match damage:
        case "no position":
            await store.put("test-1", b"bytes", ObjectMeta("test-1", description="-1"))
        case "no database":
            await store.put("test-1", b"bytes" * 1000, ObjectMeta("test-1", description="20000"))
        case "a chunk is gone":
            await js_api(operator, f"STREAM.MSG.DELETE.{snapshots.STREAM}", {"seq": 1, "no_erase": True})
        case "a chunk is changed":
            subject = f"$O.{snapshots.BUCKET}.C.{info.nuid}"
            await js_api(operator, f"STREAM.PURGE.{snapshots.STREAM}", {"filter": subject})
            await session.client.jetstream().publish(subject, b"other bytes")
        case _:
            await js_api(operator, f"STREAM.DELETE.{snapshots.STREAM}", {})
    (tmp_path / "b.sqlite").write_bytes(b"as it was")
    assert not await copies.restore(tmp_path / "b.sqlite")
    assert (tmp_path / "b.sqlite").read_bytes() == b"as it was"
    if damage in {"no position", "a chunk is gone"}:
        assert await copies.is_due(20_001)


async def test_a_file_that_is_replaced_while_it_is_copied_is_not_stored(session: Session, tmp_path: Path) -> None:
    """Its label would be a position that it does not contain: that of the file before."""
    copies, positions = Snapshots(session.client, "test", "1"), [30, 0]
    with closing(filled(tmp_path / "a.sqlite", 30)) as index, pytest.raises(OSError, match="replaced"):
        await copies.keep(index.path, lambda: positions.pop(0))
    assert await copies.is_due(10)


async def test_what_a_killed_process_left_is_removed_once_it_is_old(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = session.client.jetstream()
    store = ObjectStore(snapshots.BUCKET, snapshots.STREAM, stream)
    left = f"$O.{snapshots.BUCKET}.C.left"
    await stream.publish(left, b"a chunk of a copy that was never finished")
    other, earlier, now = (Snapshots(session.client, *name) for name in (("other", "1"), ("test", "0"), ("test", "1")))
    with closing(filled(tmp_path / "a.sqlite", 20)) as index:
        for copies in (other, earlier, now):
            await copies.keep(index.path, lambda: 20)
        assert len(await store.list()) == 3
        monkeypatch.setattr(snapshots, "_LEFT_SECONDS", -1.0)
        monkeypatch.setattr(snapshots, "_OLD_FORM_SECONDS", -1.0)
        await now.keep(index.path, lambda: 20)
    assert {info.name for info in await store.list(ignore_deletes=True)} == {"other-1", "test-1"}
    subjects = (await js_api(session.client, f"STREAM.INFO.{snapshots.STREAM}", {"subjects_filter": ">"}))["state"]
    assert left not in subjects["subjects"]
    assert await other.restore(tmp_path / "b.sqlite")


async def test_a_fresh_machine_goes_on_from_the_copies(
    session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It knows names and first answers from before the copy, and from after it; nothing is recorded twice."""
    facts = [event(f"e-{n}", "interaction.opened", interaction_id=f"I-{n}", customer_id="C-1") for n in range(40)]
    async with upstream_of(session, *ROLES) as upstream:
        await upstream.set_up_basics()
        first = await upstream.action("early", "1.00")
        for fact in facts[:39]:
            await upstream.record(fact)
        await eventually(
            partial(_copied, session), lambda found: len(found) == len(ROLES) and min(found.values()) > 30, 30
        )
        await upstream.record(facts[39])
        late = await upstream.action("late", "1.00")
        assert (first["outcome"], late["outcome"]) == ("taken", "taken")
    end = await session.log.last_position()
    session.data_dir = tmp_path / "fresh"
    caplog.set_level("INFO", "ledger.store.snapshots")
    async with upstream_of(session, *ROLES) as upstream:
        assert await upstream.action("early", "1.00") == first
        assert await upstream.action("late", "1.00") == late
        for fact in facts:
            await upstream.record(fact)
        assert await session.log.last_position() == end

        async def restored() -> list[str]:
            return sorted(record.getMessage().partition("-")[0] for record in caplog.records)

        await eventually(restored, lambda roles: roles == sorted(ROLES))


async def _copied(session: Session) -> dict[str, int]:
    """Return the positions of the copies by role."""
    store = ObjectStore(snapshots.BUCKET, snapshots.STREAM, session.client.jetstream())
    with suppress(NotFoundError):
        found = await store.list(ignore_deletes=True)
        return {info.name.partition("-")[0]: int(info.description or 0) for info in found}
    return {}


async def test_clearing_the_alarm_removes_all_copies_although_none_is_on(
    session: Session, command: CommandLine, tmp_path: Path
) -> None:
    copies = Snapshots(session.client, "test", "1")
    with closing(filled(tmp_path / "a.sqlite", 30)) as index:
        await copies.keep(index.path, lambda: 30)
    done = await asyncio.to_thread(command, "admin", "alarm", "--clear", "--data-dir", str(session.data_dir))
    assert done.returncode == 0, done.stderr
    assert not await copies.restore(tmp_path / "b.sqlite")


async def test_a_copy_that_is_replaced_while_it_is_read_delays_no_start(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_SILENT_SECONDS", 0.3)
    copies = Snapshots(session.client, "test", "1")
    with closing(filled(tmp_path / "a.sqlite", 30)) as index:
        await copies.keep(index.path, lambda: 30)
    find = copies._find

    async def found_and_gone() -> object:
        found = await find()
        await js_api(session.client, f"STREAM.PURGE.{snapshots.STREAM}", {"filter": f"$O.{snapshots.BUCKET}.C.>"})
        return found

    monkeypatch.setattr(copies, "_find", found_and_gone)
    begun = time.monotonic()
    assert not await copies.restore(tmp_path / "b.sqlite")
    assert time.monotonic() - begun < 10


async def test_no_copy_is_made_where_the_disk_is_too_full(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_ROOM", 1e12)
    with closing(filled(tmp_path / "a.sqlite", 30)) as index, pytest.raises(OSError, match="too full"):
        await Snapshots(session.client, "test", "1").keep(index.path, lambda: 30)


async def test_what_a_killed_process_left_beside_the_file_is_removed(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-copy-left").mkdir()
    (tmp_path / "a-copy-left" / "copy.sqlite").write_bytes(b"half")
    monkeypatch.setattr(snapshots, "_LEFT_SECONDS", -1.0)
    with closing(filled(tmp_path / "a.sqlite", 30)) as index:
        await Snapshots(session.client, "test", "1").keep(index.path, lambda: 30)
    assert not list(tmp_path.glob("a-copy-*"))
