"""Damages of the server's store and of the seal: each ends within seconds in a finding that says where, and status 1."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import pytest

from app.runtime.seal import VERIFY_STATE, seal_to_the_end
from app.runtime.session import Session
from config import topology
from consumers.seal.archive_service import archive_log, archive_of
from ledger.errors import LostEventsError
from ledger.store.log import Draft
from ledger.store.streams import js_api
from ledger.store.subscription import Follower, ReadCursor
from ledger.transparency.sealer import seal_folder
from ledger.transparency.verification import Verification
from tests.support import forked_cli
from tests.support.builders import event
from tests.support.environment import ROOT, clean_environment
from tests.support.golden_ledger import golden_server
from tests.support.sealed_logs import settings_in

pytestmark = pytest.mark.integration

EVENTS = 600
_STREAMS = "jetstream/LEDGER/streams"
_BLOCK, _INDEX, _RECORD = (
    f"{_STREAMS}/{name}" for name in ("LEDGER/msgs/1.blk", "LEDGER/msgs/index.db", "SEAL/msgs/1.blk")
)
_RESULT_SECONDS = 60
"""Far more than it takes, on a machine that is busy with other tests."""
_COMMANDS = (("audit", "verify"), ("audit", "verify", "--resume"), ("admin", "doctor"))

Damage = Callable[[Path], object]
Run = Callable[..., CompletedProcess[str]]


def flipped(name: str, *texts: str, last: bool = False) -> Damage:
    """Flip one bit in a file: behind each of these texts, else in the middle."""

    def damage(data_dir: Path) -> None:
        content = bytearray((data_dir / name).read_bytes())
        for text in texts:
            found = content.rfind(text.encode()) if last else content.find(text.encode())
            assert found >= 0, text
            content[found + len(text)] ^= 8
        if not texts:
            content[len(content) // 2] ^= 8
        (data_dir / name).write_bytes(content)

    return damage


def events_flipped(*positions: int) -> Damage:
    """Flip one bit in these events of the log."""
    return flipped(_BLOCK, *(f'"id":"e-{position}' for position in positions))


def shortened(name: str, by: int | None, zeros: int = 0) -> Damage:
    """Cut bytes off a file's end (None: all); ``zeros`` take their place."""

    def damage(data_dir: Path) -> None:
        content = (data_dir / name).read_bytes()
        (data_dir / name).write_bytes((content[:-by] if by else b"") + bytes(zeros))

    return damage


def removed(*names: str) -> Damage:
    """Remove files or folders."""

    def damage(data_dir: Path) -> None:
        for name in names:
            path = data_dir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def both(*damages: Damage) -> Damage:
    """Do several damages."""
    return lambda data_dir: [damage(data_dir) for damage in damages]


class Case(NamedTuple):
    """A damage, with the expected finding of a verification and the expected texts of verification and doctor."""

    damage: Damage
    finding: tuple[str, int, int]
    text: str
    doctor: str


_gone = "a sealed event is gone (position {})".format
_ends = "the log ends at position {}, and 600 positions were sealed".format
_nothing = "the stream has nothing there"
_without_index = removed(_INDEX)

CASES = {
    # the store of the log
    "last event": Case(events_flipped(600), ("removed", 600, 600), _nothing, _gone(600)),
    "last event, no index": Case(
        both(events_flipped(600), _without_index), ("cut", 600, 600), "ends before", _ends(599)
    ),
    "last three": Case(events_flipped(598, 599, 600), ("removed", 598, 600), _nothing, "a sealed event is gone"),
    "last three, no index": Case(
        both(events_flipped(598, 599, 600), _without_index), ("cut", 598, 600), "ends before", _ends(597)
    ),
    "first event": Case(events_flipped(1), ("removed", 1, 1), _nothing, _gone(1)),
    "event in the middle": Case(events_flipped(301), ("removed", 301, 301), _nothing, _gone(301)),
    "event in the middle, no index": Case(
        both(events_flipped(301), _without_index), ("cut", 301, 600), "ends before", _ends(300)
    ),
    "checksum of the last event": Case(shortened(_BLOCK, 1, 1), ("removed", 600, 600), _nothing, _gone(600)),
    "block cut within the last event": Case(shortened(_BLOCK, 5), ("removed", 600, 600), _nothing, _gone(600)),
    "block cut, no index": Case(
        both(shortened(_BLOCK, 5), _without_index), ("cut", 600, 600), "ends before", _ends(599)
    ),
    "end of the block zeroed": Case(shortened(_BLOCK, 60, 60), ("removed", 600, 600), _nothing, _gone(600)),
    "block emptied": Case(shortened(_BLOCK, None), ("removed", 1, 600), _nothing, "a sealed event is gone"),
    "block missing": Case(removed(_BLOCK), ("removed", 1, 600), _nothing, "a sealed event is gone"),
    "stream empty": Case(both(removed(_BLOCK), _without_index), ("cut", 1, 600), "ends before", _ends(0)),
    # the server's record of the seal
    "end of the record of the seal": Case(
        flipped(_RECORD, "resolution-ledger/", last=True), ("evidence damaged", 1, 600), "stream SEAL", "stream SEAL"
    ),
    "record of the seal's begin": Case(
        flipped(_RECORD, '"verifier":"'), ("evidence damaged", 1, 600), "stream SEAL", "stream SEAL"
    ),
    "record of the seal emptied": Case(
        shortened(_RECORD, None), ("evidence damaged", 1, 600), "stream SEAL", "stream SEAL"
    ),
    # the files of the seal
    "no verifiers": Case(
        removed("seal/verifiers"),
        ("evidence damaged", 1, 600),
        "seal/verifiers is missing",
        "seal/verifiers is missing",
    ),
    "verifiers emptied": Case(
        shortened("seal/verifiers", None),
        ("evidence damaged", 1, 600),
        "from a backup",
        "seal/verifiers is missing or empty",
    ),
    "no verifiers, no key": Case(
        removed("seal/verifiers", "seal/key"),
        ("evidence damaged", 1, 600),
        "seal/verifiers is missing",
        "seal/verifiers is missing",
    ),
    "no key": Case(removed("seal/key"), ("evidence damaged", 1, 600), "seal/key is missing", "seal/key is missing"),
    "no checkpoint": Case(removed("seal/checkpoint"), ("evidence missing", 1, 600), "no checkpoint in", "is not at"),
    "no seal": Case(removed("seal"), ("evidence missing", 1, 600), "no checkpoint in", "is not at"),
    "full bundle": Case(
        flipped("seal/tile/entries/000", "e-77"),
        ("tile edited", 1, 256),
        "tile/entries/000 was edited",
        "bundle tile/entries/000 was changed (position 77)",
    ),
    "last bundle": Case(
        flipped("seal/tile/entries/002.p/88", "e-590"),
        ("tile edited", 513, 600),
        "tile/entries/002.p/88 was edited",
        "tile/entries/002.p/88 was changed (position 590)",
    ),
    "full bundle missing": Case(
        removed("seal/tile/entries/001"), ("tile missing", 257, 512), "tile/entries/001", "tile/entries/001 is missing"
    ),
    "full tile": Case(flipped("seal/tile/0/000"), ("tile edited", 1, 256), "tile/1/000", "tile/0/000"),
    "full tile missing": Case(
        removed("seal/tile/0/001"), ("tile missing", 257, 512), "tile/0/001", "tile/0/001 is missing"
    ),
    "last tile": Case(
        flipped("seal/tile/0/002.p/88"), ("tile edited", 557, 557), "tile/0/002", "the last tiles are not those"
    ),
    "upper tile": Case(
        flipped("seal/tile/1/000.p/2"), ("tile edited", 257, 512), "tile/1/000", "the last tiles are not those"
    ),
}


def stored(number: int) -> Draft:
    fact = event(f"e-{number}", "interaction.opened", interaction_id=f"I-{number}")
    return Draft(f"{topology.FACT_SUBJECT}.crm.interaction.opened", json.dumps(fact, separators=(",", ":")).encode())


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a sealed ledger whose server has ended, for copying."""
    data = tmp_path_factory.mktemp("damage") / "data"

    async def made() -> None:
        async with Session(settings_in(data)) as session:
            await session.log.append([stored(number) for number in range(1, EVENTS + 1)])
            await seal_to_the_end(session)

    asyncio.run(made())
    return data


@pytest.fixture
def data_dir(pattern: Path, tmp_path: Path) -> Path:
    """Copy the sealed ledger for one test."""
    left = shutil.ignore_patterns("*.lock", "address.json", "origin.json", "server.pid")
    return Path(shutil.copytree(pattern, tmp_path / "data", ignore=left))


def results(data_dir: Path, *commands: tuple[str, ...]) -> list[tuple[int, Any]]:
    """Return status and document of commands that run side by side on one server."""

    def run(words: tuple[str, ...]) -> tuple[int, Any]:
        words = (*words, "--data-dir", str(data_dir), "--json")
        done = forked_cli.run(list(words), ROOT, clean_environment(), None, timeout=_RESULT_SECONDS)
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout)

    with golden_server(data_dir), ThreadPoolExecutor(len(commands)) as threads:
        return list(threads.map(run, commands))


@pytest.mark.parametrize("name", CASES)
def test_each_damage_is_found_by_verify_and_by_the_doctor(data_dir: Path, name: str) -> None:
    case = CASES[name]
    case.damage(data_dir)
    *verified, (status, checks) = results(data_dir, *_COMMANDS)
    for returned, document in verified:
        found = {(one["kind"], one["first"], one["last"]): one["text"] for one in document["findings"]}
        assert case.finding in found, document
        assert case.text in found[case.finding] or "evidence" in case.finding[0]
        assert any(case.text in one["text"] for one in document["findings"])
        assert returned == 1
    wrong = [check["says"] for check in checks["items"] if not check["ok"] and check["check"] == "seal"]
    assert case.doctor in " ".join(wrong), checks
    assert status == 1


def test_nothing_is_found_in_a_sound_ledger_nor_in_one_without_an_index(data_dir: Path) -> None:
    (data_dir / _INDEX).write_bytes(b"damaged")  # the server reads its blocks instead
    (status, document), (_, checks) = results(data_dir, *_COMMANDS[::2])
    assert (status, document["findings"]) == (0, [])
    says = {check["check"]: check for check in checks["items"]}
    assert says["seal"]["ok"]
    assert "checked 3 of 3 tiles and 600 events of the log; `audit verify` checks all" in says["seal"]["says"]
    assert "log" not in says


READERS = (
    ("audit", "replay"),
    ("audit", "export", "/dev/null/x"),
    ("audit", "trail"),
    ("audit", "checkpoint"),
    ("audit", "prove", "3"),
    ("audit", "flags", "--backtest", "R10"),
    ("admin", "projections", "rebuild"),
    ("admin", "archive"),
    ("admin", "scrub"),
    ("report", "balances", "--as-of", "2100-01-01T00:00:00Z"),
)
"""Commands that read the log up to its end."""


@pytest.mark.parametrize("name", ["last three", "block missing"])
def test_every_command_that_reads_to_the_end_of_the_log_ends(data_dir: Path, tmp_path: Path, name: str) -> None:
    CASES[name].damage(data_dir)
    first = CASES[name].finding[1]

    def run(words: tuple[str, ...]) -> tuple[int, str]:
        words = tuple(word.replace("/dev/null/x", str(tmp_path / "x.parquet")) for word in words)
        data = ("--data-dir", str(data_dir))
        done = forked_cli.run([*words, *data], ROOT, clean_environment(), None, timeout=_RESULT_SECONDS)
        return done.returncode, done.stdout + done.stderr

    with golden_server(data_dir), ThreadPoolExecutor(4) as threads:
        said = dict(zip(READERS, threads.map(run, READERS), strict=True))
    for words, (status, text) in said.items():
        assert status == 1, (words, text)
        assert "Traceback" not in text
        assert any(f"position {position}" in text for position in (first, EVENTS)) or words == ("admin", "scrub"), text
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize("words", _COMMANDS)
def test_a_lost_stream_of_a_sealed_log_is_not_to_be_created(data_dir: Path, words: tuple[str, ...]) -> None:
    flipped(f"{_STREAMS}/LEDGER/meta.inf")(data_dir)
    with golden_server(data_dir):
        where = ("--data-dir", str(data_dir))
        done = forked_cli.run([*words, *where], ROOT, clean_environment(), None, timeout=_RESULT_SECONDS)
    assert done.returncode == 1
    assert "has no stream LEDGER, though a log was sealed in" in done.stderr
    assert "admin restore" in done.stderr
    assert "admin init" not in done.stderr


def test_a_damaged_archive_is_not_taken_for_a_damaged_seal(data_dir: Path) -> None:
    (data_dir / "archive").mkdir()
    (data_dir / "archive" / "manifest.jsonl").write_bytes(b'{"file')
    ((status, checks),) = results(data_dir, _COMMANDS[2])
    says = {check["check"]: check for check in checks["items"]}
    assert says["seal"]["ok"]
    assert not says["archive"]["ok"]
    assert f"{data_dir / 'archive'} is damaged" in says["archive"]["says"]
    assert status == 1


@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_a_file_of_the_archive_that_is_gone_or_changed_is_a_finding_of_the_doctor(data_dir: Path, how: str) -> None:
    pytest.importorskip("pyarrow")
    where = ("--data-dir", str(data_dir))
    with golden_server(data_dir):
        done = forked_cli.run(["admin", "archive", *where], ROOT, clean_environment(), None, timeout=_RESULT_SECONDS)
    assert done.returncode == 0, done.stderr
    ((status, checks),) = results(data_dir, ("admin", "doctor", "--at-rest"))
    assert [check["says"] for check in checks["items"] if not check["ok"]] == []
    (file, *_) = (data_dir / "archive").rglob("*.parquet")
    if how == "deleted":
        file.unlink()
    else:
        flipped(str(file.relative_to(data_dir)))(data_dir)
    ((status, checks),) = results(data_dir, ("admin", "doctor", "--at-rest"))
    (wrong,) = [check for check in checks["items"] if not check["ok"]]
    assert (wrong["check"], status) == ("archive", 1)
    assert file.name in wrong["says"]


@pytest.mark.parametrize("name", ["key", "verifiers", "checkpoint"])
def test_a_damaged_file_of_the_seal_is_named_with_its_remedy(data_dir: Path, name: str) -> None:
    (data_dir / "seal" / name).write_text("damaged\n")
    *verified, (status, checks) = results(data_dir, *_COMMANDS)
    says = [check["says"] for check in checks["items"] if check["check"] == "seal"]
    for texts in (says, *([one["text"] for one in document["findings"]] for _, document in verified)):
        assert any(f"seal/{name} is damaged" in text and "from a backup" in text for text in texts), texts
    assert (status, *(returned for returned, _ in verified)) == (1, 1, 1)


def test_nothing_is_recorded_behind_a_log_that_lost_its_end(data_dir: Path) -> None:
    CASES["last event"].damage(data_dir)
    fact = json.dumps(event("after", "interaction.opened", interaction_id="I-9"))
    words = ["publish", "-", "--data-dir", str(data_dir)]
    with golden_server(data_dir):
        done = forked_cli.run(words, ROOT, clean_environment(), fact, timeout=_RESULT_SECONDS)
    assert done.returncode == 1
    assert "a sealed event is gone (position 600)" in done.stderr
    assert '"after"' not in (data_dir / _BLOCK).read_bytes().decode(errors="replace")


def test_a_lost_event_that_was_not_sealed_yet_is_a_finding(data_dir: Path) -> None:
    async def more() -> None:
        async with Session(settings_in(data_dir)) as session:
            await session.log.append([stored(number) for number in range(601, 611)])

    asyncio.run(more())
    events_flipped(604, 609, 610)(data_dir)
    *verified, (status, checks) = results(data_dir, *_COMMANDS)
    for returned, document in verified:
        assert returned == 1
        assert [(one["kind"], one["first"], one["last"]) for one in document["findings"]] == [
            ("removed", 604, 604),
            ("removed", 609, 610),
        ]
        assert document["not_sealed"] == 10
    assert status == 1
    (says,) = [check["says"] for check in checks["items"] if check["check"] == "log"]
    assert says.startswith("3 events from position 604 on are not sealed yet and cannot be read")


async def test_a_resumed_verification_names_the_positions_it_did_not_read_again(data_dir: Path) -> None:
    async with Session(settings_in(data_dir)) as session:
        log_id = str((await js_api(session.client, f"STREAM.INFO.{topology.LEDGER}"))["created"])
        work = Verification(seal_folder(data_dir), (), ())
        async for batch in Follower(session.client, session.log, "test").batches(until=512):
            work.take(batch)
        work.save(data_dir / VERIFY_STATE, log_id)
    events_flipped(600)(data_dir)
    ((status, document),) = await asyncio.to_thread(results, data_dir, _COMMANDS[1])
    assert (status, document["resumed_from"]) == (1, 512)
    assert [(one["kind"], one["first"]) for one in document["findings"]] == [("removed", 600)]


async def test_a_log_and_a_seal_put_back_together_are_shorter_than_the_archive(data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(data_dir, tmp_path / "longer")
    async with Session(settings_in(tmp_path / "longer")) as session:
        await session.log.append([stored(number) for number in range(601, 701)])
        await seal_to_the_end(session)
        archive, seal = archive_of(session.data_dir), seal_folder(session.data_dir)
        await archive_log(await session.connection("archive"), session.log, archive, seal)
    shutil.copytree(tmp_path / "longer" / "archive", data_dir / "archive")
    *verified, (status, checks) = await asyncio.to_thread(results, data_dir, *_COMMANDS)
    for returned, document in verified:
        assert returned == 1
        (found,) = document["findings"]
        assert (found["kind"], found["first"], found["last"]) == ("history shortened", 601, 700)
        assert "the archive's checkpoint" in found["text"]
    assert status == 1
    (says,) = [check["says"] for check in checks["items"] if check["check"] == "seal"]
    assert "the archive goes to position 700, and the seal only to 600" in says


async def test_a_reader_with_an_end_ends_though_nothing_comes(session: Session) -> None:
    async def read(until: int, anchor: ReadCursor, *, gaps: bool) -> list[int]:
        follower = Follower(await session.connection("reader"), session.log, "reader", anchor, gaps=gaps)
        return [event.position async for batch in follower.batches(until=until) for event in batch]

    await session.log.append([stored(number) for number in range(1, 11)])
    begun = time.monotonic()
    for gaps in (False, True):
        with pytest.raises(LostEventsError, match="an event is missing at position 11") as caught:
            await read(12, ReadCursor(8), gaps=gaps)
        assert caught.value.position == 11
    assert await read(10, ReadCursor(8), gaps=False) == [9, 10]
    assert time.monotonic() - begun < 30


async def test_events_that_a_consumer_does_not_deliver_are_read_from_the_leader(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.log.append([stored(number) for number in range(1, 4)])
    follower = Follower(await session.connection("reader"), session.log, "reader")

    async def silent() -> list[Any]:
        return []

    monkeypatch.setattr(follower, "_next_batch", silent)
    assert [one.position async for batch in follower.batches(until=3) for one in batch] == [1, 2, 3]
