"""Proof that a data directory's embedded server runs: a lock that the server process itself holds.

The server inherits the folder of its store, ``jetstream``, open and locked. The kernel ties the lock to the folder's
inode and to the process: a copied folder is not locked, a renamed one remains locked, links share the lock, and the
lock is released when the server ends in any way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from ledger.files import write_private

if sys.platform == "win32":  # there is no embedded server on Windows
    LOCK_SH = LOCK_EX = LOCK_NB = 0

    def flock(_file: IO[str] | int, _kind: int) -> None:
        """Raise NotImplementedError."""
        raise NotImplementedError
else:
    import fcntl

    LOCK_SH, LOCK_EX, LOCK_NB, flock = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.flock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROC = Path("/proc")
_POLL_SECONDS = 0.02
_PROBE_SECONDS = 2.0


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``server/address.json``: the server's port, its process while it runs, and the directory it was started for.

    ``folder`` and ``inode`` are missing in records of an earlier version.
    """

    port: int
    routes: bool = False
    folder: str | None = None
    inode: int | None = None
    pid: int | None = None
    """Missing after an orderly stop; a copy made then may be opened beside the original."""
    started: str | None = None
    copied_from: str | None = None

    def is_of(self, data_dir: Path) -> bool:
        """Return whether the record is of this very directory, perhaps under an earlier path."""
        if self.folder is None or not self.has_inode_of(data_dir):
            return False
        recorded = Path(self.folder)
        return not recorded.exists() or recorded.samefile(data_dir)

    def has_inode_of(self, data_dir: Path) -> bool:
        """Return whether this directory has the recorded inode; so has a snapshot of its file system."""
        return self.inode == data_dir.stat().st_ino

    @property
    def is_running(self) -> bool:
        """Return whether the recorded process runs."""
        return self.pid is not None and self.started is not None and process_start(self.pid) == self.started

    def wait_for_exit(self, seconds: float) -> bool:
        """Wait for the end of the recorded process; return whether it ended in time."""
        return wait_until(lambda: not self.is_running, seconds)


def read_record(path: Path) -> ServerRecord | None:
    """Return the record in a file; None if there is none, or it is unreadable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ServerRecord)
    except (OSError, ValueError):
        return None


def write_record(path: Path, record: ServerRecord) -> None:
    """Write a record, readable by its owner only."""
    write_private(path, json.dumps(msgspec.to_builtins(record)))


class ServerLock:
    """The lock on a server's store that the server holds while it runs."""

    def __init__(self, store: Path) -> None:
        self.store = store

    @contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self.store, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def is_held(self) -> bool:
        """Return whether the server runs."""
        with self._opened() as descriptor:
            try:
                flock(descriptor, LOCK_SH | LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def linked_file(self) -> Path | None:
        """Return a hard link in the store, which belongs to another folder, too; None if there is none."""
        for folder, _, names in os.walk(self.store):
            for name in names:
                if (path := Path(folder, name)).lstat().st_nlink > 1:
                    return path
        return None

    def wait_until_free(self, seconds: float) -> bool:
        """Wait for the server's end; return whether it ended in time."""
        return wait_until(lambda: not self.is_held(), seconds)

    @contextmanager
    def acquire(self) -> Iterator[int]:
        """Hold the lock; yield the descriptor that the server inherits.

        Other processes hold it for an instant while they check whether the server runs.
        """
        with self._opened() as descriptor:
            deadline = time.monotonic() + _PROBE_SECONDS
            while True:
                try:
                    flock(descriptor, LOCK_EX | LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_POLL_SECONDS)
            yield descriptor


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition until it is true; return False after a time-out."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def open_locked(path: Path, *, shared: bool = False) -> IO[str]:
    """Return an open file that is locked until it is closed, exclusively or ``shared``."""
    file = path.open("a")
    try:
        flock(file, LOCK_SH if shared else LOCK_EX)
    except BaseException:
        file.close()
        raise
    return file


def process_start(pid: int) -> str | None:
    """Return a text that identifies the start of a process; None if it has ended.

    It tells processes apart that had the same id. A process that has ended and was not reaped is still listed: process
    1 of a container may never reap it.
    """
    if (_PROC / "self" / "stat").exists():
        try:
            boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="utf-8").strip()
            state, *fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else f"{boot} {fields[18]}"
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - only on macOS
    state, _, started = done.stdout.strip().partition(" ")
    return None if state.startswith("Z") else started.strip() or None


def process_command(pid: int) -> list[str]:
    """Return the command line of a process; empty if it has ended."""
    with suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return []
