"""Files written whole or not at all, and durably."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


_DAMAGED = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENAMETOOLONG}


_NONBLOCKING, _BINARY = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_BINARY", 0)
"""Windows has no pipes among its files, and translates the ends of lines where it is not told to leave them."""


class UnreadableFileError(ValueError):
    """Something else stands where a file should: a folder, a pipe, far too many bytes, or what we may not read."""


def read_bounded(path: Path, at_most: int) -> bytes:
    """Return the bytes of a regular file; nothing else is waited for or read.

    Raises:
        FileNotFoundError: nothing is there.
        UnreadableFileError: it is no regular file, larger than ``at_most`` bytes, or not ours to read.
        OSError: it cannot be read just now.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NONBLOCKING | _BINARY)
    except OSError as error:
        if error.errno in _DAMAGED:
            message = f"{path} cannot be read: {error.strerror}"
            raise UnreadableFileError(message) from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            message = f"{path} is no file"
            raise UnreadableFileError(message)
        if found.st_size > at_most:
            message = f"{path} holds {found.st_size:,} bytes, where at most {at_most:,} belong"
            raise UnreadableFileError(message)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(at_most)
    finally:
        os.close(descriptor)


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file for this process alone, until it is closed; return whether no other process holds it."""
    from filelock import lock_descriptor

    return lock_descriptor(file.fileno(), blocking=False)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; it is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_to_disk(path.parent)


def sync_to_disk(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    if sys.platform == "win32":  # which opens no folders, and keeps names by itself
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
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
