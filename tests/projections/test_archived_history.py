"""Views built from the archive and, when far behind, in processes of their own: the rows are those of the log."""

import asyncio
import hashlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.runtime import child_processes, view_builds
from app.runtime.archive import archive_to_the_end
from app.runtime.session import Session
from app.runtime.view_builds import ViewBuilds, archived_history
from consumers.projections import service
from consumers.seal.archive_service import archive_of
from ledger.archive import parquet
from ledger.archive.event_archive import ArchiveFile, gap_marker
from ledger.errors import LostEventsError, UnavailableError
from ledger.files import write_atomically
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft, Recorded
from ledger.store.subscription import Follower
from projections.engine import projector, storage
from projections.engine.projector import StoppedError, rebuild
from projections.registry import MODELS
from projections.views.balances import Balances
from tests.support.builders import corrected, event
from tests.support.forked_cli import CommandLine
from tests.support.upstreams import Upstream, upstream_of
from tests.support.view_rows import record_history, rows_of
from tests.support.waiting import eventually, wait_until

type Rows = dict[str, dict[str, list[str]]]


def nothing(_done: int, _of: int) -> None:
    """Ignore progress."""


async def ignored(_position: int) -> None:
    """Ignore a position."""


@pytest.fixture
async def stopped(session: Session, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """Return the upstream of a ledger with a history, two corrections among it, on which no role runs any more."""
    monkeypatch.setattr(projector, "_FAR", 0)
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 3)
    async with upstream_of(session, history=True) as upstream:
        await record_history(upstream)
        await upstream.record(
            event("o-2", "interaction.opened", time="2026-01-06T10:00:00Z", interaction_id="I-2", customer_id="C-2")
        )
        await upstream.record(
            corrected("c-1", "o-2", {"interaction_id": "I-2", "customer_id": "C-3"}, time="2026-01-06T10:00:00Z")
        )
        await upstream.record(corrected("c-2", "b-1", None))
    return upstream


async def rows_from(session: Session, *, archive: bool) -> Rows:
    """Return the rows of all views, built anew from the archive, or from the log alone."""
    history = archived_history(session) if archive else None
    for name, make in MODELS.items():
        reader = await session.connection(name)
        reached = await rebuild(make(), session.views, reader, session.log, history)
        assert reached.anchor.position == await session.log.last_position()
    return {name: rows_of(session.views, make()) for name, make in MODELS.items()}


async def test_views_from_the_archive_are_those_of_the_log(stopped: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    session = stopped.session
    of_the_log = await rows_from(session, archive=False)
    await archive_to_the_end(session, nothing)

    async def refused(_self: Follower) -> list[object]:
        raise AssertionError("the log was read")

    monkeypatch.setattr(Follower, "_next_batch", refused)
    assert await rows_from(session, archive=True) == of_the_log


async def test_events_after_the_end_of_the_archive_are_read_from_the_log(stopped: Upstream) -> None:
    session = stopped.session
    await archive_to_the_end(session, nothing)
    async with upstream_of(session, history=True) as upstream:
        await upstream.action("r-9", "1.00", time="2026-02-12T12:00:00Z")
    assert await rows_from(session, archive=True) == await rows_from(session, archive=False)


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def of_another_ledger(file: Path) -> None:
    """Let the file and its manifest show another last event, as those of another ledger would."""
    (events,) = [[event for batch in parquet.read_batches(file) for event in batch]]
    events[-1] = events[-1]._replace(data=events[-1].data.replace(b'"', b'"x', 1))
    rewrite(file, events)


def rewrite(file: Path, events: list[Recorded]) -> None:
    """Replace an archive's only file, and let the manifest name its bytes."""
    data = parquet.parquet_bytes(events)
    file.write_bytes(data)
    manifest = file.parent.parent / "manifest.jsonl"
    (part,) = [msgspec.json.decode(line, type=ArchiveFile) for line in manifest.read_bytes().splitlines()]
    sha256 = hashlib.sha256(data).hexdigest()
    write_atomically(manifest, msgspec.json.encode(msgspec.structs.replace(part, sha256=sha256)))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [flipped, of_another_ledger, Path.unlink, emptied])
async def test_the_log_is_read_instead_of_a_damaged_archive(
    stopped: Upstream, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], object]
) -> None:
    session = stopped.session
    await archive_to_the_end(session, nothing)
    (file,) = archive_of(session.data_dir).folder.rglob("*.parquet")
    harm(file)
    caplog.set_level(logging.WARNING)
    assert await rows_from(session, archive=True) == await rows_from(session, archive=False)
    assert "the log is read instead of the archive" in caplog.text


def with_a_gap(file: Path) -> None:
    """Let the file and its manifest show an event as lost, as an archive of a damaged log does."""
    (events,) = [[event for batch in parquet.read_batches(file) for event in batch]]
    events[7] = gap_marker(8, "2026-01-05T10:00:00.000000Z")
    rewrite(file, events)


async def test_from_an_event_on_that_the_archive_lacks_the_log_is_read(stopped: Upstream) -> None:
    session = stopped.session
    await archive_to_the_end(session, nothing)
    (file,) = archive_of(session.data_dir).folder.rglob("*.parquet")
    with_a_gap(file)
    end = await session.log.last_position()
    read = [event async for batch in archived_history(session).batches(0, end) for event in batch]
    assert [event.position for event in read] == list(range(1, 8))
    assert await rows_from(session, archive=True) == await rows_from(session, archive=False)


async def test_a_damaged_manifest_is_as_no_archive(stopped: Upstream) -> None:
    session = stopped.session
    await archive_to_the_end(session, nothing)
    (archive_of(session.data_dir).folder / "manifest.jsonl").write_bytes(b"\xff{")
    assert archived_history(session).end() == 0
    assert await rows_from(session, archive=True) == await rows_from(session, archive=False)


async def test_a_view_is_built_in_another_process_which_reports_its_positions(stopped: Upstream) -> None:
    session, reported = stopped.session, list[int]()
    model, end = Balances(), await session.log.last_position()
    await rows_from(session, archive=False)
    before = rows_of(session.views, model)

    async def note(position: int) -> None:
        reported.append(position)

    assert await ViewBuilds(session.settings).build(model.name, note, anew=True) == end
    assert (reported[-1], session.views.live_generation(model)) == (end, 2)
    assert rows_of(session.views, model) == before


async def test_an_event_that_stops_a_build_is_reported(stopped: Upstream) -> None:
    session = stopped.session
    strange = encode_event("resolution-ledger", "x", "resolution.budget.exploded.v1", datetime.now(UTC), b"{}")
    position = await session.log.append([Draft("ledger.budget.x.2026-01", strange)])
    builds = ViewBuilds(session.settings)
    for anew in (False, True):
        with pytest.raises(StoppedError) as caught:
            await builds.build("budget_balances", ignored, anew=anew)
        assert (caught.value.stop.position, caught.value.stop.type) == (position, "resolution.budget.exploded.v1")
    progress = session.views.progress_of(Balances())
    assert progress is not None
    assert progress.stopped == caught.value.stop


async def test_a_log_that_has_changed_behind_a_view_ends_its_build_for_good(stopped: Upstream) -> None:
    session, model = stopped.session, Balances()
    await rows_from(session, archive=False)
    engine = session.views.open_generation(model, 1)
    with engine.begin() as connection:
        progress = storage.read_progress(connection)
        changed = progress._replace(anchor=progress.anchor._replace(digest="other"))
        storage.write_progress(connection, changed, progress.anchor.position)
    engine.dispose()
    with pytest.raises(LostEventsError, match="budget_balances has read another event at position"):
        await ViewBuilds(session.settings).build(model.name, ignored, anew=False)


async def test_one_process_builds_a_view_and_removes_what_interrupted_ones_left(stopped: Upstream) -> None:
    session, model = stopped.session, Balances()
    views, reader = session.views, await session.connection("views")
    await rebuild(model, views, reader, session.log)
    views.open_generation(model, 2).dispose()  # as a process that was killed leaves it
    with views.claim(f"{model.name}.build") as claimed:
        assert claimed
        with pytest.raises(UnavailableError, match="another process builds budget_balances"):
            await rebuild(model, views, reader, session.log)
    await rebuild(model, views, reader, session.log)
    folder = session.data_dir / "views"
    assert [path.name for path in folder.glob(f"{model.name}.g*.sqlite")] == [f"{model.name}.g2.sqlite"]
    assert rows_of(views, model)
    (folder / f"{model.name}.json").write_text("damaged")
    views.drop_unfinished(model)
    assert [path.name for path in folder.glob(f"{model.name}.g*.sqlite")] == [f"{model.name}.g2.sqlite"]


@pytest.mark.integration
def test_what_a_view_prints_is_not_among_the_lines_of_its_build() -> None:
    program = "from app.runtime.view_builds import _own_output; own = _own_output(); print('noise', flush=True); own.write(b'line'); own.close()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"line", b"noise\n")


async def test_views_are_rebuilt_by_a_command_though_one_of_them_stops(stopped: Upstream, command: CommandLine) -> None:
    session = stopped.session
    strange = encode_event("resolution-ledger", "x", "resolution.budget.exploded.v1", datetime.now(UTC), b"{}")
    await session.log.append([Draft("ledger.budget.x.2026-01", strange)])
    words = ("admin", "projections", "rebuild", "budget_balances", "flags", "flags", "budget_balances")
    done = await asyncio.to_thread(command, *words, data_dir=session.data_dir)
    assert done.returncode == 1
    assert done.stdout.startswith("flags rebuilt up to position")
    assert done.stderr.splitlines()[-1].startswith("resolution-ledger: budget_balances stopped at position")


async def test_a_view_that_waits_for_a_processor_has_not_stalled(
    stopped: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, model = stopped.session, Balances()
    monkeypatch.setattr(service, "MODELS", {model.name: Balances})
    may_begin = asyncio.Event()

    async def build(name: str, progressed: Callable[[int], Awaitable[None]], *, anew: bool) -> int:
        await may_begin.wait()
        await progressed(1)
        return await ViewBuilds(session.settings).build(name, progressed, anew=anew)

    projections = service.ProjectionService(session.server, session.log, session.views, build)
    await projections.start()
    try:
        await wait_until(lambda: [one.is_queued for one in projections.status().readings] == [True])
        may_begin.set()
        end = await session.log.last_position()
        await wait_until(lambda: [one.position for one in projections.status().readings] == [end])
        assert [one.is_queued for one in projections.status().readings] == [False]
    finally:
        await projections.stop()


async def test_a_build_that_is_killed_is_an_error_and_a_later_one_goes_on(
    stopped: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = stopped.session
    builds = ViewBuilds(session.settings)

    @asynccontextmanager
    async def killed(*given: Any, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
        async with child_processes.child(*given, **options) as process:
            process.kill()
            yield process

    with monkeypatch.context() as patch:
        patch.setattr(view_builds, "child", killed)
        with pytest.raises(UnavailableError, match="ended with status -9"):
            await builds.build("budget_balances", ignored, anew=False)
    assert await builds.build("budget_balances", ignored, anew=False) == await session.log.last_position()


async def test_the_role_lets_views_that_are_far_behind_be_built_elsewhere(
    stopped: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, model = stopped.session, Balances()
    built = list[tuple[str, bool]]()
    build = ViewBuilds.build

    async def noted(self: ViewBuilds, name: str, progressed: Callable[[int], Awaitable[None]], *, anew: bool) -> int:
        built.append((name, anew))
        return await build(self, name, progressed, anew=anew)

    monkeypatch.setattr(ViewBuilds, "build", noted)
    monkeypatch.setattr(service, "MODELS", {model.name: Balances})
    monkeypatch.setattr(projector, "_FAR", 5)
    async with upstream_of(session, "intake", "decisions", "projections", history=True) as upstream:

        async def reached() -> int:
            progress = session.views.progress_of(model)
            return 0 if progress is None else progress.anchor.position

        end = await session.log.last_position()
        await eventually(reached, lambda position: position >= end)
        await upstream.action("r-9", "1.00", time="2026-02-12T12:00:00Z")
        end = await session.log.last_position()
        await eventually(reached, lambda position: position >= end)
    assert built == [(model.name, False)]
    assert rows_of(session.views, model) == (await rows_from(session, archive=False))[model.name]
