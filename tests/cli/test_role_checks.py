"""`admin doctor` about roles: each of its findings is made true for real, and nothing else is named."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.health.examination import examine, examine_roles
from app.health.role_checks import REQUIRED
from app.runtime.roles import running
from app.runtime.session import Session
from config.settings import load_settings
from consumers.intake.lanes import IntakeLanes
from consumers.intake.recorder import Intake
from consumers.seal.archive_service import archive_of
from ledger.errors import UnavailableError
from ledger.nats.client import connect
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from ledger.store.subscription import Follower
from ledger.transparency import alarm
from projections.engine.projector import Projector
from projections.registry import MODELS
from tests.support.builders import event, purchase
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment, long_only
from tests.support.forked_cli import CommandLine
from tests.support.nats_servers import Server
from tests.support.organisations import BASIC_POLICY
from tests.support.up_process import UpProcess
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

Found = dict[str, str]
ALL = (*REQUIRED, "archive")


class Staff:
    """Roles in processes of their own, on a server of their operator's; doctor runs elsewhere."""

    def __init__(self, folder: Path, server: Server, command: CommandLine) -> None:
        self.folder = folder
        self.server = server
        self._command = command
        self._where = ("--nats-url", server.url, "--allow-lazy-fsync")
        done = command("admin", "init", *self._where)
        assert done.returncode == 0, done.stderr
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str, *more: str) -> None:
        words = [sys.executable, "-m", "app", "run", role, "--data-dir", str(self.folder / "data"), *self._where, *more]
        with (self.folder / f"{role}.log").open("ab") as log:
            self.processes[role] = subprocess.Popen(words, cwd=ROOT, env=clean_environment(), stdout=log, stderr=log)

    def send(self, role: str, number: signal.Signals) -> None:
        self.processes[role].send_signal(number)

    def doctor(self, *words: str, wait: float = 1.0, data_dir: Path | None = None) -> tuple[int, list[Document]]:
        """Run `admin doctor`; return its exit status and items. Without ``data_dir`` it runs as on another machine."""
        where = data_dir or self.folder / "another-machine"
        done = self._command("admin", "doctor", "--json", "--wait", str(wait), *words, *self._where, data_dir=where)
        document = json.loads(done.stdout)
        assert document["ok"] == all(one["ok"] for one in document["items"]) == (done.returncode == 0)
        return done.returncode, document["items"]

    def wrong(self, *words: str, **options: Any) -> Found:
        """Return the findings, by check; of two findings of a check, the last."""
        return {one["check"]: one["says"] for one in self.doctor(*words, **options)[1] if not one["ok"]}

    def heals(self) -> None:
        """Wait until nothing is wrong."""
        until = time.monotonic() + 60
        while found := self.wrong():
            assert time.monotonic() < until, found

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            process.wait(30)


@pytest.fixture
def staff(tmp_path: Path, command: CommandLine) -> Iterator[Staff]:
    with Server(tmp_path / "server") as server:
        started = Staff(tmp_path, server, command)
        for role in ALL:
            started.start(role)
        try:
            yield started
        finally:
            started.stop()


def test_each_role_that_hangs_or_is_killed_is_named_alone(staff: Staff, tmp_path: Path) -> None:
    """And a health check of a role never fails for another one's sake."""
    assert staff.wrong(wait=30) == {}
    assert not (tmp_path / "another-machine").exists()  # nothing but NATS was asked
    for role in REQUIRED:
        staff.send(role, signal.SIGSTOP)
        found = staff.wrong()
        assert list(found) == [f"role {role}"]
        assert f"run {role}" in found[f"role {role}"]
        if role in ("decisions", "seal"):
            assert list(staff.wrong("--role", role, "--here")) == [f"role {role}"]
            others = [word for one in ALL if one != role for word in ("--role", one)]
            assert staff.doctor(*others, "--here")[0] == 0
        staff.send(role, signal.SIGCONT)
    staff.heals()
    staff.send("guard", signal.SIGKILL)
    staff.processes["guard"].wait()
    assert list(staff.wrong()) == ["role guard"]
    staff.send("archive", signal.SIGKILL)
    staff.processes["archive"].wait()
    assert list(staff.wrong()) == ["role guard"]  # from another machine an archive that is not there is none
    assert list(staff.wrong("--role", "archive")) == ["role archive"]
    for role in REQUIRED:
        staff.send(role, signal.SIGKILL)
    found = staff.wrong()
    assert list(found) == ["roles"]
    assert all(role in found["roles"] for role in REQUIRED)


def test_a_role_on_another_host_is_no_health_of_this_one(staff: Staff, monkeypatch: pytest.MonkeyPatch) -> None:
    async def asked(here: bool) -> list[bool]:
        settings = load_settings(
            {"data_dir": str(staff.folder / "x"), "nats_url": staff.server.url, "allow_lazy_fsync": True}, {}
        )
        async with Session(settings, examines=True) as session:
            return [one.ok for one in await examine_roles(session, ["guard"], patience=20, here=here)]

    assert asyncio.run(asked(here=True)) == [True]
    monkeypatch.setattr("app.health.examination.HOST", "another")
    assert asyncio.run(asked(here=True)) == [False]
    assert asyncio.run(asked(here=False)) == [True]


# ---------------------------------------------------------------------- what is behind, empty, absent, wrong


@asynccontextmanager
async def ledger(folder: Path, *, history: bool = False) -> AsyncIterator[tuple[Session, Upstream]]:
    """Run all roles in this process on a ledger with a policy, staff and facts; the doctor finds nothing."""
    async with (
        Session(load_settings({"data_dir": str(folder / "data")}, {})) as session,
        running(session, ALL, history=history),
    ):
        upstream = Upstream(session, await session.upstream("test"))
        await upstream.set_up_basics()
        assert await wrong(session) == {}
        yield session, upstream


async def wrong(session: Session) -> Found:
    """Return the findings, by check."""
    return {one.check: one.says for one in await examine(session, patience=5, at_rest=False) if not one.ok}


async def wait_for_findings(session: Session, *checks: str) -> Found:
    """Wait until the findings are exactly these checks; return them."""
    return await eventually(lambda: wrong(session), lambda found: set(found) == set(checks), 40, every_seconds=0.25)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the doctor notice a hang after a second instead of half a minute."""
    monkeypatch.setattr("app.health.role_checks._OTHER_STALL_SECONDS", 1.0)
    monkeypatch.setattr("app.health.role_checks.HANGS_SECONDS", 6.0)
    monkeypatch.setattr("ledger.store.role_status.HANGS_SECONDS", 6.0)
    monkeypatch.setattr("app.health.role_checks._WAITS_SECONDS", 1.0)
    monkeypatch.setattr("app.health.inbox_checks._STUCK_SECONDS", 1.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("reader", "check"), [("guard", "role guard"), ("seal", "role seal"), ("directory", "role decisions")]
)
async def test_a_stalled_reader_is_named_although_its_process_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, check: str
) -> None:
    original = Follower._next_batch

    async def hangs(self: Follower) -> Any:
        if self._name == reader:
            await asyncio.Event().wait()
        return await original(self)

    async with ledger(tmp_path) as (session, upstream):
        monkeypatch.setattr(Follower, "_next_batch", hangs)
        for number in range(4):
            await upstream.record(purchase(number))
            await asyncio.sleep(0.3)
        found = await wait_for_findings(session, check)
        assert "has stopped moving at position" in found[check]


@pytest.mark.usefixtures("impatient")
async def test_a_view_that_hangs_is_named_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, held = Projector._commit, threading.Event()

    def hangs(self: Projector, *arguments: Any) -> None:
        if self.model.name == "people" and self.progress.anchor.position > 0:
            held.wait(60)
        original(self, *arguments)

    monkeypatch.setattr("projections.engine.projector._ONE_THREAD", None)  # others have threads of their own
    async with ledger(tmp_path) as (session, upstream):
        monkeypatch.setattr(Projector, "_commit", hangs)
        await upstream.record(purchase(1))
        found = await wait_for_findings(session, "view people")
        assert "has stopped moving at position" in found["view people"]
        held.set()
        await wait_for_findings(session)


@pytest.mark.usefixtures("impatient")
async def test_an_intake_that_hangs_is_named_and_so_is_a_message_it_cannot_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(*_arguments: Any) -> None:
        await asyncio.Event().wait()

    async def fails(*_arguments: Any) -> None:
        raise UnavailableError("not now")

    async with ledger(tmp_path) as (session, upstream):
        await upstream.record(purchase(1))
        monkeypatch.setattr(Intake, "take", fails)
        await upstream.publish(purchase(2))
        found = await wait_for_any_finding(session)
        assert [name.partition("_")[0] for name in found] == ["inbox INBOX"], found
        monkeypatch.setattr(IntakeLanes, "take", hangs)
        assert "has hung for" in (await wait_for_findings(session, "role intake"))["role intake"]


async def wait_for_any_finding(session: Session) -> Found:
    """Wait for any finding; return all."""
    return await eventually(lambda: wrong(session), timeout_seconds=40, every_seconds=0.25)


@pytest.mark.usefixtures("impatient")
async def test_the_doctor_names_the_resource_a_role_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    async with ledger(tmp_path) as (session, _):
        with monkeypatch.context() as patched:
            patched.setattr("ledger.transparency.sealer.Sealer.sign", full)
            assert "No space left" in (await wait_for_findings(session, "role seal"))["role seal"]
        await wait_for_findings(session)


def gone(data_dir: Path, pattern: str) -> None:
    """Delete files, as a person or a tool might that thinks that they can be made again."""
    paths = list(data_dir.glob(pattern))
    assert paths, pattern
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("pattern", "check", "text"),
    [
        ("index/intake.sqlite*", "role intake", "index/intake.sqlite is missing in"),
        ("index/decisions.sqlite*", "role decisions", "index/decisions.sqlite is missing in"),
        ("views/people.g*", "role projections", "views/people.g1.sqlite is missing in"),
        ("archive/day=*/*.parquet", "archive", "admin archive"),
        ("seal", "seal", "restore the folder `seal`"),
    ],
)
async def test_derived_data_that_are_absent_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, check: str, text: str
) -> None:
    monkeypatch.setattr("consumers.seal.archive_service._EVERY_SECONDS", 0.5)
    async with ledger(tmp_path) as (session, _):
        archive = archive_of(session.data_dir)
        await eventually(session.log.last_position, lambda end: archive.last_position >= end)
        monkeypatch.setattr("consumers.seal.archive_service._EVERY_SECONDS", 60)
        gone(session.data_dir, pattern)
        found = await wait_for_findings(session, check)
        assert text in found[check]


async def test_a_damaged_file_that_a_role_works_with_is_named(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (session, _):
        (session.data_dir / "archive").mkdir(exist_ok=True)
        (session.data_dir / "archive" / "manifest.jsonl").write_bytes(b'{"file')
        found = await wait_for_findings(session, "archive")
        assert "is damaged" in found["archive"]


async def test_a_view_that_has_stopped_is_named_with_the_event(tmp_path: Path) -> None:
    async with ledger(tmp_path) as (session, upstream):
        data = encode_event("crm", "x-1", "resolution.unheard.of.v1", datetime.now(UTC), b"{}")
        position = await session.log.append([Draft("ledger.fact.crm", data)])
        found = await wait_for_findings(
            session,
            *(f"view {name}" for name, model in MODELS.items() if "ledger.fact.crm".startswith(model().prefixes)),
        )
        assert all(f"position {position}" in says and "projections skip" in says for says in found.values())
        del upstream


async def test_history_mode_beside_a_live_source_is_named_and_beside_an_import_is_not(tmp_path: Path) -> None:
    async with ledger(tmp_path, history=True) as (session, upstream):
        await upstream.record(purchase(1))
        assert await wrong(session) == {}
        await upstream.record(purchase(2, "till", time=datetime.now(UTC).isoformat()))
        found = await wait_for_findings(session, "history mode")
        assert "till" in found["history mode"]
        assert "crm" not in found["history mode"]


async def test_staff_without_a_policy_is_named(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, running(session, ALL):
        upstream = Upstream(session, await session.upstream("test"))
        await upstream.record(purchase(1))
        assert await wrong(session) == {}  # facts alone need no policy
        await upstream.record(event("join-a", "employee.joined", employee_id="A-1", role="agent", team_ids=[]))
        assert "no policy is in force" in (await wait_for_findings(session, "role decisions"))["role decisions"]
        await upstream.set_up_basics()
        await wait_for_findings(session)


@pytest.mark.parametrize(("seconds", "way"), [(300, "ahead of"), (-300, "behind")])
async def test_the_clock_of_a_roles_host_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, way: str
) -> None:
    class Wrong:
        now = staticmethod(lambda zone: datetime.now(zone) + timedelta(seconds=seconds))

    async with ledger(tmp_path) as (session, _):
        monkeypatch.setattr("ledger.store.role_status.datetime", Wrong)
        found = await wrong(session)
        assert set(found) == {f"role {role}" for role in ALL}
        # A slow machine takes some seconds between the two readings.
        assert all(re.search(rf"(5 min \d|4 min 5\d) s {way}", says) for says in found.values()), found


async def test_the_alarm_is_named_and_not_the_roles_that_it_ends(tmp_path: Path) -> None:
    settings, roles = (
        load_settings({"data_dir": str(tmp_path / "data")}, {}),
        ("projections", "guard", "seal", "archive"),
    )
    async with Session(settings) as session, running(session, roles):
        await alarm.raise_alarm(session.client, 0, "tried")
        found = {one.check: one.says for one in await examine(session, patience=0.5, at_rest=False) if not one.ok}
        assert list(found) == ["alarm"]


async def test_with_the_alarm_on_the_doctor_does_not_say_to_start_up(tmp_path: Path) -> None:
    """The alarm has ended `up`, which refuses to start until it is cleared."""
    async with Session(load_settings({"data_dir": str(tmp_path / "data")}, {})) as session:
        await alarm.raise_alarm(session.client, 0, "tried")
        found = {one.check: one.says for one in await examine(session, patience=0.2, at_rest=False) if not one.ok}
        assert list(found) == ["alarm"]
        assert "tried" in found["alarm"]
        assert "`resolution-ledger admin alarm --clear`" in found["alarm"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE heads SET digest = 'another'",
        "INSERT INTO begun SELECT subject, position + 1, 'of an event that the log has lost' FROM heads",
    ],
    ids=["cursor", "beyond the cursor"],
)
async def test_an_index_of_another_log_is_named(tmp_path: Path, change: str) -> None:
    async with ledger(tmp_path) as (session, upstream):
        await upstream.record(purchase(1))
        with closing(sqlite3.connect(session.data_dir / "index" / "intake.sqlite", isolation_level=None)) as index:
            index.execute(change)
        assert "the log has changed" in (await wait_for_findings(session, "index intake"))["index intake"]


async def test_little_room_on_the_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger(tmp_path) as (session, _):
        monkeypatch.setattr("app.health.checks._LOW_DISK_BYTES", 1 << 60)
        assert list(await wrong(session)) == ["disk"]


# ---------------------------------------------------------------------- no false finding


@long_only
async def test_under_load_during_a_rebuild_and_right_after_a_restart_nothing_is_named(
    up: UpProcess, command: CommandLine
) -> None:
    def doctor() -> Document:
        document: Document = json.loads(command("admin", "doctor", "--json").stdout)
        return {one["check"]: one["says"] for one in document["items"] if not one["ok"]}

    where = up.wait_until_up()
    assert await asyncio.to_thread(doctor) == {}  # a fresh one
    client = await connect(where["nats_url"], "load")
    stop = asyncio.Event()

    async def load() -> None:
        number = 0
        while not stop.is_set():
            facts = [json.dumps(purchase(number + one)).encode() for one in range(50)]
            await asyncio.gather(*(client.request("resolution.inbox.crm", fact, timeout=30) for fact in facts))
            number += 50

    loading = asyncio.create_task(load())
    try:
        await asyncio.sleep(1)
        assert await asyncio.to_thread(doctor) == {}
        rebuilding = asyncio.create_task(asyncio.to_thread(command, "admin", "projections", "rebuild"))
        assert await asyncio.to_thread(doctor) == {}
        assert (await rebuilding).returncode == 0
        children = Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        assert await asyncio.to_thread(doctor) == {}  # `up` starts them again
    finally:
        stop.set()
        await loading
        await client.close()


def test_a_stopped_ledger_is_reported_as_at_rest(command: CommandLine, policy_of_tests: Path) -> None:
    assert command("decide", "policy", str(policy_of_tests), "--published-by", "o").returncode == 0
    done = command("admin", "doctor", "--json", "--wait", "0")
    assert [one["check"] for one in json.loads(done.stdout)["items"] if not one["ok"]] == ["roles"]
    done = command("admin", "doctor", "--json", "--at-rest")
    assert done.returncode == 0, done.stdout


@pytest.fixture
def policy_of_tests(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(BASIC_POLICY))
    return path


def words_of(process: Path) -> list[bytes]:
    """Return the command line of a process in /proc; none of one that has ended."""
    with suppress(OSError):
        return (process / "cmdline").read_bytes().split(b"\0")
    return []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the dashboard's process is found in /proc")
def test_an_announced_http_server_that_hangs_is_named(command: CommandLine, up: UpProcess) -> None:
    up.wait_until_up()
    (pid,) = [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if b"dashboard" in (words := words_of(folder)) and str(up.data_dir).encode() in words
    ]
    assert command("admin", "doctor", "--wait", "30").returncode == 0
    os.kill(pid, signal.SIGSTOP)
    try:
        done = command("admin", "doctor", "--json", "--wait", "1")
    finally:
        os.kill(pid, signal.SIGCONT)
    wrong = [one["check"] for one in json.loads(done.stdout)["items"] if not one["ok"]]
    assert (done.returncode, wrong) == (1, ["role dashboard"])


@pytest.mark.parametrize("content", ["[" * 200_000, "7", '{"http_url": [1]}', "\x00", ""])
def test_an_announcement_of_any_content_is_no_traceback(command: CommandLine, tmp_path: Path, content: str) -> None:
    assert command("admin", "init").returncode == 0
    (tmp_path / "data" / "connection.json").write_text(content)
    done = command("admin", "doctor", "--json", "--wait", "0.1")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert json.loads(done.stdout)["items"]
