"""A process that hangs keeps its connection; the server ends it, and the processes beside it answer everything."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nats.errors
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from config.settings import load_settings
from tests.support.builders import purchase
from tests.support.environment import ROOT, clean_environment
from tests.support.forked_cli import CommandLine
from tests.support.nats_servers import Server
from tests.support.up_process import UpProcess
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import block_until, wait_for_processes

LIMIT_SECONDS = 45.0
"""The server sends a PING every 10 seconds and ends a connection after two without an answer."""


@contextlib.contextmanager
def second_decider(url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-m", "app", "run", "decisions", "--data-dir", str(folder)]
    environment = clean_environment() | {
        "RESOLUTION_LEDGER_NATS_URL": url,
        "RESOLUTION_LEDGER_UNREGISTERED_SOURCES": "desk",
    }
    with (folder.parent / "second.log").open("ab") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)


async def answered(upstream: Upstream, times: int) -> int:
    """Return how many of so many requests had an answer within a second; they go to a decider at random."""

    async def ask() -> bool:
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await upstream.client.request("resolution.decide.test.preview", b"{}", timeout=1)
            return True
        return False

    return sum([await ask() for _ in range(times)])


@pytest.mark.timeout(120)
async def test_requests_reach_the_other_decider_soon_after_one_hangs(session: Session, tmp_path: Path) -> None:
    async with upstream_of(session, "intake", "decisions") as upstream:
        await upstream.set_up_basics()
        with second_decider(session.url, tmp_path / "second") as process:
            await wait_for_processes(session, "decisions", 2)
            assert await answered(upstream, 20) == 20
            process.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            while await answered(upstream, 10) < 10:
                assert time.monotonic() - begun < LIMIT_SECONDS, "requests still go to the process that hangs"
            assert (await upstream.action())["outcome"] == "taken"
            await asyncio.to_thread(process.send_signal, signal.SIGCONT)


@pytest.mark.integration
async def test_services_stop_in_good_order_while_their_server_is_away(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:
        settings = load_settings(
            {"data_dir": str(tmp_path / "data"), "nats_url": server.url, "allow_lazy_fsync": True}, {}
        )
        async with Session(settings, creates=True) as session:
            async with running(session, ("intake", "decisions", "projections")):
                await asyncio.to_thread(server.stop, signal.SIGKILL)
                while not session.client.is_reconnecting:  # noqa: ASYNC110 - nothing says so
                    await asyncio.sleep(0.01)
            assert (session.data_dir / "index" / "intake.sqlite").exists()


def test_up_ends_soon_while_its_server_is_suspended(up: UpProcess, command: CommandLine) -> None:
    """It took 52 seconds. The server ends once it goes on, and has all that it acknowledged."""
    up.wait_until_up()
    done = command("publish", "-", stdin=json.dumps(purchase(1)))
    assert done.returncode == 0, done.stderr
    server = int((up.data_dir / "server" / "server.pid").read_text())
    os.kill(server, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        up.process.terminate()
        assert up.process.wait(60) == 0
        assert time.monotonic() - begun < 20  # 15, and a machine that is busy
    finally:
        os.kill(server, signal.SIGCONT)
    block_until(lambda: not process_runs(server), 20)
    (recorded,) = command("audit", "replay").stdout.splitlines()
    assert json.loads(recorded)["id"] == purchase(1)["id"]


@pytest.mark.integration
def test_the_dashboard_ends_in_good_order_where_its_server_was_killed(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    words = [sys.executable, "-m", "app", "run", "dashboard", "--port", "0", "--data-dir", str(data_dir)]
    begun = subprocess.run(
        [*words[:3], "admin", "init", *words[-2:]], cwd=ROOT, env=clean_environment(), capture_output=True, check=False
    )
    assert begun.returncode == 0
    with (tmp_path / "dashboard.log").open("ab") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=clean_environment(), stdout=log, stderr=log)
    pid_file = data_dir / "server" / "server.pid"
    try:
        block_until(lambda: "dashboard runs" in (tmp_path / "dashboard.log").read_text(), 60)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    finally:
        process.terminate()
    assert process.wait(30) == 0, (tmp_path / "dashboard.log").read_text()
    assert "Traceback" not in (tmp_path / "dashboard.log").read_text()
    assert not pid_file.exists() or not process_runs(int(pid_file.read_text()))


def process_runs(pid: int) -> bool:
    """Return whether a process with this id runs; a killed one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
