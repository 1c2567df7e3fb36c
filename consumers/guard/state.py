"""The guard's state in its data directory: `guard/state.sqlite`."""

from __future__ import annotations

import hashlib
import logging
from importlib.resources import files
from typing import TYPE_CHECKING

from domain.abuse.stored_bodies import from_stored, to_stored
from ledger.errors import LostEventsError
from ledger.store.state_file import StateFile
from ledger.store.subscription import verify_cursor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_CODE = ("domain.abuse", "consumers.guard")


def guard_folder(data_dir: Path) -> Path:
    """Return the folder of the guard's state."""
    return data_dir / "guard"


def state_file(folder: Path) -> Path:
    """Return the path of the state's file."""
    return folder / "state.sqlite"


def state_version(*, event_times: bool) -> str:
    """Return the version of the guard's state: another form or meaning of any value has another one.

    It is a hash of the rules' source code, so no developer has to remember to raise a number.
    """
    digest = hashlib.sha256(f"event times: {event_times}".encode())
    for package in _CODE:
        for source in _sources(files(package)):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _sources(folder: Traversable) -> Iterator[Traversable]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            yield from _sources(entry)
        elif entry.name.endswith(".py"):
            yield entry


async def open_state(folder: Path, log: Log, *, event_times: bool) -> StateFile:
    """Open the guard's state; one that does not fit the log or this version is thrown away, and the reason is logged.

    Raises:
        StateError: the file cannot be opened now.
        UnavailableError: the server does not answer.
    """
    state = StateFile(
        state_file(folder),
        state_version(event_times=event_times),
        enc_hook=to_stored,
        dec_hook=from_stored,
    )
    try:
        await verify_cursor(log, state.cursor, "the guard")
    except LostEventsError as error:
        state.discard(str(error))
    except BaseException:
        state.close()
        raise
    if state.discarded:
        _log.warning("the guard's state is built again from the whole log: %s", state.discarded)
    return state
