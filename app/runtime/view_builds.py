"""Views that are far behind, each built in a process of its own: Python folds on one processor in each process."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from app.runtime.child_processes import child
from consumers.seal.archive_service import archive_of
from domain.serialization import encode
from ledger.archive.history import ArchivedHistory
from ledger.errors import LostEventsError, UnavailableError
from projections.engine.projector import StoppedError, catch_up, rebuild
from projections.engine.storage import Stop
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.runtime.session import Session
    from config.settings import Settings

_REPORT_SECONDS = 0.5
_AT_ONCE = 4
"""Each process takes up to 400 MB."""
_LONGEST_REASON = 4000
"""Characters of a reason, so that a line stays below the limit of a reader of lines."""


class _Line(msgspec.Struct, omit_defaults=True):
    """A line that the process of a build writes: the position that it has reached, or what ended it."""

    position: int
    stopped: Stop | None = None
    lost: str = ""
    """The problem with the log at the position."""
    is_end: bool = False


class ViewBuilds:
    """Builds views in processes of their own, as many at a time as there are processors, and four at most."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(min(_AT_ONCE, os.cpu_count() or 1))

    async def build(self, name: str, progressed: Callable[[int], Awaitable[None]], *, anew: bool) -> int:
        """Bring a view to the end of the log, or build it ``anew`` and switch to that; return the last position.

        ``progressed`` is called with the position that was reached.

        Raises:
            StoppedError: the view cannot process an event.
            LostEventsError: the log has changed behind the view.
            UnavailableError: the process ended for another reason, which it has logged.
        """
        words = ["admin", "projections", "build", name, *(["--anew"] if anew else [])]
        async with self._turns, child(words, self._settings, reads=True) as process:
            assert process.stdout is not None
            async for text in process.stdout:
                line = msgspec.json.decode(text, type=_Line)
                if line.stopped is not None:
                    raise StoppedError(name, line.stopped)
                if line.lost:
                    raise LostEventsError(line.lost, line.position)
                await progressed(line.position)
                if line.is_end:
                    return line.position
        raise UnavailableError(f"the process that builds {name} has ended with status {process.returncode}")


async def build_here(session: Session, name: str, *, anew: bool) -> None:
    """Bring a view to the end of the log in this process, and write lines for ``ViewBuilds.build``."""
    lines, written = _own_output(), 0.0

    def write(line: _Line) -> None:
        lines.write(encode(line) + b"\n")
        lines.flush()

    async def progressed(position: int) -> None:
        nonlocal written
        if time.monotonic() - written > _REPORT_SECONDS:
            written = time.monotonic()
            write(_Line(position))

    work, reader = rebuild if anew else catch_up, await session.connection(f"view {name}")
    history = archived_history(session)
    try:
        reached = await work(MODELS[name](), session.views, reader, session.log, history, progressed)
    except StoppedError as error:
        stop = error.stop._replace(reason=error.stop.reason[:_LONGEST_REASON])
        write(_Line(stop.position, stop))
    except LostEventsError as error:
        write(_Line(error.position, lost=error.problem))
    else:
        write(_Line(reached.anchor.position, is_end=True))


def _own_output() -> BinaryIO:
    """Return standard output for lines alone; what a view of a package prints goes to standard error."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


def archived_history(session: Session) -> ArchivedHistory:
    """Return the archive of the data directory as a source of old events."""
    return ArchivedHistory(archive_of(session.data_dir), session.log)
