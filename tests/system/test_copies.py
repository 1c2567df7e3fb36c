"""A data directory that was copied, renamed or linked: commands never touch the server of another directory."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from ledger.errors import DirectoryMovedError, OtherDirectoryError, ServerStartError
from ledger.nats.embedded_server import EmbeddedServer, find_binary, server_environment
from ledger.nats.server_lock import ServerLock, process_start
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.nats_servers import free_ports
from tests.support.up_process import UpProcess

pytestmark = pytest.mark.integration

CONFIG = Path(str(resources.files("config") / "nats" / "nats-server.conf"))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Run the server of the data directory `original`."""
    with EmbeddedServer(tmp_path / "original", CONFIG) as server:
        yield server


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that belongs to no ledger."""
    process = subprocess.Popen(["sleep", "120"])
    yield process
    process.kill()
    process.wait()


def alive(pid: int | None) -> bool:
    return pid is not None and process_start(pid) is not None


def copied(data_dir: Path, name: str) -> Path:
    """Copy a data directory like `cp -a`."""
    return Path(shutil.copytree(data_dir, data_dir.with_name(name), symlinks=True))


def record(data_dir: Path) -> Document:
    found: Document = json.loads((data_dir / "server" / "address.json").read_text())
    return found


def test_a_backup_that_is_put_back_in_place_of_its_original_opens(command: CommandLine, tmp_path: Path) -> None:
    """With the original moved away, and without it; `cp -a` keeps all but the folder's inode."""
    data = tmp_path / "data"
    file = tmp_path / "events.jsonl"
    file.write_text(
        json.dumps(event("e-1", "purchase.completed", order_id="O-1", total={"amount": "1.00", "currency": "GBP"}))
    )
    assert command("publish", str(file), "--data-dir", str(data)).returncode == 0
    shutil.move(data, tmp_path / "old")
    copied(tmp_path / "old", "data")
    for _ in range(2):
        done = command("publish", str(file), "--data-dir", str(data))
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "old", ignore_errors=True)


def test_a_copy_of_a_running_ledger_is_refused_by_every_command(
    command: CommandLine, up: UpProcess, tmp_path: Path
) -> None:
    up.wait_until_up()
    server = EmbeddedServer(up.data_dir, CONFIG)
    pid = server.pid()
    copy = copied(up.data_dir, "copy")
    (copy / "fact.json").write_text(
        json.dumps(event("ev-1", "employee.joined", employee_id="A-7", role="agent", team_ids=["t-1"]))
    )
    for words in (
        ("publish", str(copy / "fact.json")),
        ("up", "--port", "0"),
        ("run", "seal"),
        ("audit", "verify"),
        ("report", "balances"),
        ("admin", "seal", "rotate"),
        ("admin", "archive"),
        ("demo", "--no-serve", "--days", "1"),
        (
            "decide",
            "budget",
            "--operation",
            "grant",
            "--holder",
            "agent:A-7",
            "--amount",
            "5.00",
            "--granted-by",
            "M-1",
            "--reason",
            "x",
        ),
    ):
        done = command(*words, data_dir=copy)
        assert done.returncode == 1, (words, done)
        assert "serves" in done.stderr, (words, done.stderr)
        assert str(up.data_dir) in done.stderr, (words, done.stderr)
        assert done.stderr.count("\n") == 1
    doctor = command("admin", "doctor", "--json", data_dir=copy)
    assert doctor.returncode == 1
    (found,) = json.loads(doctor.stdout)["items"]
    assert (found["check"], found["ok"]) == ("data directory", False)
    assert str(up.data_dir) in found["says"]
    assert not (copy / "connection.json").exists()  # `up` took the original's away, before anything was ready
    assert alive(pid)
    assert server.pid() == pid
    assert command("audit", "replay", data_dir=up.data_dir).stdout == ""


def test_a_copy_of_a_stopped_ledger_opens_also_beside_the_original(command: CommandLine, tmp_path: Path) -> None:
    fact = json.dumps(event("ev-1", "employee.joined", employee_id="A-7", role="agent", team_ids=["t-1"]))
    original = tmp_path / "data"
    assert command("publish", "-", stdin=fact).returncode == 0
    copy = copied(original, "copy")
    with EmbeddedServer(original, CONFIG) as server:
        pid = server.pid()
        assert command("publish", "-", stdin=fact.replace("ev-1", "ev-2"), data_dir=copy).returncode == 0
        assert alive(pid)
        doctor = json.loads(command("admin", "doctor", "--json", data_dir=copy).stdout)
    assert command("audit", "replay").stdout.count("\n") == 1
    assert command("audit", "replay", data_dir=copy).stdout.count("\n") == 2
    (twin,) = [item for item in doctor["items"] if item["check"] == "data directory"]
    assert not twin["ok"]
    assert str(original) in twin["says"]
    shutil.rmtree(original)
    doctor = json.loads(command("admin", "doctor", "--json", data_dir=copy).stdout)
    assert [item["ok"] for item in doctor["items"] if item["check"] == "data directory"] == [True]


@pytest.mark.parametrize("runs", [True, False])
def test_a_copy_without_the_address_of_its_original_is_known_as_a_copy(tmp_path: Path, *, runs: bool) -> None:
    """The refusal of a copy says to delete that file; both ledgers record under one name all the same."""
    original = tmp_path / "original"
    with EmbeddedServer(original, CONFIG) as server:
        if not runs:
            server.stop()
        copy = copied(original, "copy")
        (copy / "server" / "address.json").unlink()
        for _ in range(2):
            with EmbeddedServer(copy, CONFIG) as opened:
                assert opened.copy_source() == original
            (copy / "server" / "address.json").unlink()
    shutil.move(original, tmp_path / "moved")
    (tmp_path / "moved" / "server" / "address.json").unlink()
    with EmbeddedServer(tmp_path / "moved", CONFIG) as moved:
        assert moved.copy_source() is None
    with EmbeddedServer(copy, CONFIG) as opened:
        assert opened.copy_source() is None  # the original is at another place now, and this one does not know it


def test_a_copy_made_while_it_ran_opens_once_the_original_has_ended(running: EmbeddedServer, tmp_path: Path) -> None:
    copy = copied(tmp_path / "original", "copy")
    with pytest.raises(OtherDirectoryError, match="original"):
        EmbeddedServer(copy, CONFIG).start()
    running.stop()
    with EmbeddedServer(copy, CONFIG) as server:
        assert server.copy_source() == tmp_path / "original"


def test_a_copy_that_took_the_originals_place_is_refused_while_that_runs(
    running: EmbeddedServer, tmp_path: Path
) -> None:
    original = tmp_path / "original"
    kept = original.rename(tmp_path / "kept")
    copied(kept, "original")
    with pytest.raises(OtherDirectoryError):
        EmbeddedServer(original, CONFIG).start()
    with pytest.raises(DirectoryMovedError, match="moved or replaced"):
        running.revive()
    assert alive(EmbeddedServer(kept, CONFIG).pid())
    with EmbeddedServer(kept, CONFIG):
        running.stop()  # its lock file is in the other place: it leaves the server to those who use it there
    assert not ServerLock(kept / "jetstream").is_held()


def test_a_crashed_ledger_whose_port_a_copy_took_starts_again(running: EmbeddedServer, tmp_path: Path) -> None:
    copy, pid = copied(tmp_path / "original", "copy"), running.pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert ServerLock(tmp_path / "original" / "jetstream").wait_until_free(10)
    port = running.port
    with EmbeddedServer(copy, CONFIG) as other:
        assert other.port == port
        other_pid = other.pid()
        assert running.revive()
        assert running.port != port
        assert alive(other_pid)


@pytest.mark.parametrize("running", [False, True])
def test_a_copy_that_shares_files_by_links_is_refused(tmp_path: Path, *, running: bool) -> None:
    original = tmp_path / "original"
    with EmbeddedServer(original, CONFIG) as server:
        (original / "jetstream" / "some.blk").write_text("a block of a stream")
        if not running:
            server.stop()
        hard = Path(shutil.copytree(original, tmp_path / "hard", copy_function=os.link))
        linked = tmp_path / "linked"
        linked.mkdir()
        shutil.copytree(original / "server", linked / "server")
        (linked / "jetstream").symlink_to(original / "jetstream")
        whole = tmp_path / "whole"
        whole.symlink_to(original)
        bare = Path(shutil.copytree(hard, tmp_path / "bare", copy_function=os.link))
        (bare / "server" / "address.json").unlink()
        for copy in (hard, linked, bare):
            with pytest.raises(OtherDirectoryError):
                EmbeddedServer(copy, CONFIG).start()
        if running:
            assert alive(server.pid())
            with EmbeddedServer(whole.resolve(), CONFIG) as same:
                assert same.pid() == server.pid()
    with EmbeddedServer(original, CONFIG) as server:  # the original works on, though a copy links to its files
        assert alive(server.pid())
        with pytest.raises(OtherDirectoryError):
            EmbeddedServer(linked, CONFIG).start()


def test_a_server_whose_store_was_removed_is_named(running: EmbeddedServer, tmp_path: Path) -> None:
    store = tmp_path / "original" / "jetstream"
    store.rename(tmp_path / "lost")
    store.mkdir()
    pid = running.pid()
    with pytest.raises(ServerStartError, match=f"end process {pid}"):
        running.revive()
    with pytest.raises(ServerStartError, match="removed or replaced"):
        EmbeddedServer(tmp_path / "original", CONFIG).start()
    store.rmdir()
    (tmp_path / "lost").rename(store)
    assert not running.revive()


def test_a_renamed_and_a_linked_directory_work(running: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "original")
    with EmbeddedServer((tmp_path / "link").resolve(), CONFIG) as linked:
        assert linked.pid() == running.pid()
    moved = (tmp_path / "original").rename(tmp_path / "moved")
    pid = EmbeddedServer(moved, CONFIG).pid()
    with EmbeddedServer(moved, CONFIG) as found:  # while it runs: the same server is found
        assert found.pid() == pid
        assert found.copy_source() is None
        running.stop()
    assert not alive(pid)
    again = moved.rename(tmp_path / "again")  # while it is stopped
    with EmbeddedServer(again, CONFIG) as server:
        assert alive(server.pid())
        assert server.copy_source() is None


def test_up_ends_where_its_directory_is_moved(up: UpProcess, tmp_path: Path) -> None:
    up.wait_until_up()
    pid = EmbeddedServer(up.data_dir, CONFIG).pid()
    moved = up.data_dir.rename(tmp_path / "moved")
    said, _ = up.process.communicate(timeout=60)
    assert up.process.returncode == 1
    assert "was moved or replaced" in said
    assert not (up.data_dir / "server" / "passwords.json").exists()  # no child began another ledger there
    with EmbeddedServer(moved, CONFIG) as server:
        assert server.pid() == pid
    assert not alive(pid)


@pytest.mark.parametrize("held", [False, True])
def test_no_other_process_is_signalled_where_a_process_id_is_used_again(
    tmp_path: Path, bystander: subprocess.Popen[bytes], *, held: bool
) -> None:
    data_dir = tmp_path / "data"
    with EmbeddedServer(data_dir, CONFIG):
        before = record(data_dir)
    other = before | {"pid": bystander.pid, "started": "long ago"}
    (data_dir / "server" / "server.pid").write_text(str(bystander.pid))
    (data_dir / "server" / "address.json").write_text(json.dumps(other))
    if held:  # as where the server belongs to another container, whose process ids mean nothing here
        server = EmbeddedServer(data_dir, CONFIG)
        with (
            ServerLock(data_dir / "jetstream").acquire(),
            pytest.raises(ServerStartError, match="is not visible here"),
        ):
            server._end_server()
    else:
        with EmbeddedServer(data_dir, CONFIG):
            pass
    assert bystander.poll() is None


class EarlierVersion:
    """A server as the version before this one started it: it holds no lock, and its record names no directory."""

    def __init__(self, data_dir: Path) -> None:
        with EmbeddedServer(data_dir, CONFIG) as server:
            passwords = server.passwords
        folder = data_dir / "server"
        (port,) = free_ports(1)
        command: list[str | Path] = [
            find_binary(None),
            "-c",
            folder / "nats-server.conf",
            "-a",
            "127.0.0.1",
            "-p",
            str(port),
            "-sd",
            data_dir,
            "-P",
            folder / "server.pid",
        ]
        with (folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=server_environment(passwords)
            )
        (folder / "address.json").write_text(json.dumps({"port": port, "routes": True}))
        self.server = server
        server.port = port
        deadline = time.monotonic() + 20
        while not server._answers() and time.monotonic() < deadline:
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def test_a_server_that_an_earlier_version_left_is_ended_for_its_own_directory_alone(tmp_path: Path) -> None:
    earlier = EarlierVersion(tmp_path / "original")
    try:
        copy = copied(tmp_path / "original", "copy")
        with pytest.raises(OtherDirectoryError):
            EmbeddedServer(copy, CONFIG).start()
        assert earlier.process.poll() is None
        with EmbeddedServer(tmp_path / "original", CONFIG) as server:
            assert earlier.process.wait(20) is not None
            assert alive(server.pid())
    finally:
        earlier.stop()
