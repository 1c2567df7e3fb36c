"""Our own commands as child processes, which end with this process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from config.settings import settings_as_environment, settings_as_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from config.settings import Settings

_log = logging.getLogger(__name__)
_ENTRY = str(Path(__file__).resolve().parents[2] / "resolution_ledger" / "__main__.py")
_RESTART_SECONDS = 1.0
_RESTART_SECONDS_AT_MOST = 15.0
_NICE = 10
_END_SECONDS = 10.0
"""Seconds for the end of a child process; one that takes longer is killed, and loses nothing that was recorded."""


@asynccontextmanager
async def child(
    words: Sequence[str], settings: Settings, *, descriptors: Sequence[int] = (), reads: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one of our commands, and yield its process; end it at the end of the context.

    The child ends when its standard input does, so it never outlives this process. It inherits ``descriptors``. With
    ``reads`` its standard output is a pipe. Nothing is imported from the current folder (``-P``, and our own finder
    after it).
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        _ENTRY,
        *words,
        *settings_as_options(settings),
        "--with-parent",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE if reads else None,
        process_group=0,  # no session of its own: the scheduler would divide processors by session
        pass_fds=descriptors,
        env=os.environ | settings_as_environment(settings),
    )
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        await _wait_or_kill(process)


async def keep_running(words: Sequence[str], settings: Settings, descriptors: Sequence[int] = ()) -> None:
    """Run one of our commands as a child process, and restart it whenever it ends, until cancelled."""
    pause = _RESTART_SECONDS
    while True:
        begun = asyncio.get_running_loop().time()
        async with child(words, settings, descriptors=descriptors) as process:
            await process.wait()
        if asyncio.get_running_loop().time() - begun > _RESTART_SECONDS_AT_MOST:
            pause = _RESTART_SECONDS
        _log.warning("`%s` ended with status %s; starting it again", " ".join(words[:2]), process.returncode)
        await asyncio.sleep(pause)
        pause = min(_RESTART_SECONDS_AT_MOST, 2 * pause)


async def _wait_or_kill(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def end_of_stdin() -> None:
    """Return when standard input is closed, which shows that the parent process has ended."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, name="standard input", daemon=True).start()  # pipes on Windows can only be waited for
    await ended.wait()


async def while_parent_lives(work: Coroutine[None, None, None]) -> None:
    """Run this work of a child process; it is cancelled when the parent process ends."""
    working, parent = asyncio.create_task(work), asyncio.create_task(end_of_stdin())
    await asyncio.wait([working, parent], return_when=asyncio.FIRST_COMPLETED)
    for task in (working, parent):
        if not task.done():
            task.cancel()
    with suppress(asyncio.CancelledError):
        await working


def lower_priority() -> None:
    """Let decisions, the NATS server and answers over HTTP go first where processors are few; views may be late."""
    if sys.platform != "win32":
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
