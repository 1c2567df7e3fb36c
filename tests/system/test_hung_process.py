"""A process that hangs keeps its connection; the server ends it, and the processes beside it answer everything."""

import asyncio
import contextlib
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
from tests.support.environment import ROOT, clean_environment
from tests.support.nats_servers import Server
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import wait_for_processes

LIMIT_SECONDS = 45.0
"""The server sends a PING every 10 seconds and ends a connection after two without an answer."""


@contextlib.contextmanager
def second_decider(url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-m", "app", "run", "decisions", "--data-dir", str(folder)]
    environment = clean_environment() | {"RESOLUTION_LEDGER_NATS_URL": url}
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
