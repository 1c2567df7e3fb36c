"""The context of a benchmark: an open ledger, the rivals' settings, and the scale."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nats.aio.client import Client

from app.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


@dataclass
class BenchmarkContext:
    """One run of the benchmarks."""

    session: Session
    raw: Client  # an unmodified client of nats-py
    envs: dict[str, dict[str, str]]
    uma: str | None  # the URL of UmaDB, if it is installed
    folder: Path
    scale: float

    def scaled(self, number: int) -> int:
        """Return a number, reduced in a quick run."""
        return max(1, int(number * self.scale))

    @property
    def cpu(self) -> dict[str, list[int]]:
        """The processes that our runs use."""
        return {"this process": [os.getpid()], "nats-server": [self.server_pid]}

    @property
    def server_pid(self) -> int:
        """The process id of the embedded server."""
        return int((self.session.data_dir / "server" / "server.pid").read_text())

    def role(self, name: str) -> contextlib.AbstractAsyncContextManager[int]:
        """Run a role in its own process; yield its process id."""
        return role(self.session.data_dir, name)


@contextlib.asynccontextmanager
async def role(data_dir: Path, *words: str, descriptors: Sequence[int] = ()) -> AsyncIterator[int]:
    """Run a role with options in its own process; yield its process id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app",
        "run",
        *words,
        "--with-parent",
        "--data-dir",
        str(data_dir),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        pass_fds=descriptors,
    )
    assert process.stdin
    try:
        yield process.pid
    finally:
        process.stdin.close()
        await process.wait()
