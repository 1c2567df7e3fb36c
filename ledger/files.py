"""Durable and atomic file writes, and bounded reads."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


_DAMAGED = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENAMETOOLONG}


_NONBLOCKING, _BINARY = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_BINARY", 0)
"""Open flags that some platforms lack: Windows translates line endings without ``O_BINARY``."""


class UnreadableFileError(ValueError):
    """A path is not a readable regular file: a folder, a pipe, too large, or without read permission."""


def read_bounded(path: Path, at_most: int) -> bytes:
    """Return the bytes of a regular file, without blocking on pipes or devices.

    Raises:
        FileNotFoundError: the file does not exist.
        UnreadableFileError: it is not a regular file, is larger than ``at_most`` bytes, or cannot be opened.
        OSError: reading fails temporarily.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NONBLOCKING | _BINARY)
    except OSError as error:
        if error.errno in _DAMAGED:
            raise UnreadableFileError(f"{path} cannot be read: {error.strerror}") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableFileError(f"{path} is not a file")
        if found.st_size > at_most:
            raise UnreadableFileError(f"{path} holds {found.st_size:,} bytes; the limit is {at_most:,}")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(at_most)
    finally:
        os.close(descriptor)


def try_lock(file: IO[str] | IO[bytes]) -> bool:
    """Lock an open file for this process until it is closed; return False if another process holds the lock."""
    from filelock import lock_descriptor

    return lock_descriptor(file.fileno(), blocking=False)


def wait_for_lock(file: IO[str] | IO[bytes]) -> None:
    """Lock an open file until it is closed; wait while another process or thread holds the lock."""
    from filelock import lock_descriptor

    lock_descriptor(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step; the new content is on disk on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_to_disk(path.parent)


def sync_to_disk(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    if sys.platform == "win32":  # Windows cannot open folders, and stores names without a flush
        if path.is_dir():
            return
        descriptor = os.open(path, os.O_RDWR | _BINARY)
    else:
        descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only."""
    _private(path, text).replace(path)


def create_private(path: Path, text: str) -> None:
    """Write a file, readable by its owner only, unless it exists; of several processes, one writes it."""
    temporary = _private(path, text)
    try:
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def _private(path: Path, text: str) -> Path:
    """Write a temporary file beside a path, readable by its owner only; return its path.

    Its name is random, since two containers that share a volume may have one process id.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return temporary
