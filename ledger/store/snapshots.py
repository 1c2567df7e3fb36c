"""Copies of roles' state files in an object store of the server: a fresh machine starts nearly as fast as an old one.

A copy is derived like the file itself, and may be missing, old or unreadable at any time: the log is read instead. A
reader of the file checks its position against the log, as after any start. Digests (SHA-256), chunks and the replacing
of an object are those of nats-py's object store.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import nats.errors
from nats.js.api import ObjectMeta, ObjectMetaOptions
from nats.js.errors import BadObjectMetaError, DigestMismatchError, NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore

from ledger.errors import LedgerError, reason_of
from ledger.files import try_lock
from ledger.nats.incidents import report
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ledger.nats.client import LedgerClient

_log = logging.getLogger(__name__)
BUCKET = "ledger-snapshots"
STREAM = f"OBJ_{BUCKET}"
_SUBJECTS = f"$O.{BUCKET}"
_FEWEST_EVENTS = 50_000
"""Events that a role reads again in seconds; no copy is worth less."""
_SHARE, _MOST_EVENTS = 10, 1_000_000
"""A copy is due after a tenth of the history, so that copies cost the same for each event however long it is. Above ten
million events it is due after a million, which a role reads in half a minute."""
_LOOK_SECONDS = 30.0
_LOCK_SECONDS = 0.05
_SILENT_SECONDS = 5.0
_ROOM = 4
"""A copy is made where the free space is this many times its file: the server may store it on the same disk."""
_RESTORE_SECONDS = 120.0
_CHUNK_BYTES = 512 * 1024
_LEFT_SECONDS = 3600.0
"""After this time a chunk without an object was left by a process that was killed."""
_OLD_FORM_SECONDS = 7 * 24 * 3600.0
_FAULTS = (LedgerError, nats.errors.Error, OSError, TimeoutError, sqlite3.Error, ValueError)


class _Copy(NamedTuple):
    """A stored copy: the position that its file contains, and its size in bytes."""

    position: int
    size: int


class Snapshots:
    """The copies of one role's state file, for one form of that file."""

    def __init__(self, client: LedgerClient, role: str, form: str) -> None:
        """``form`` names the layout of the file: another version of the program neither reads nor replaces the copy."""
        self._client = client
        self._role, self._name = role, f"{role}-{form}"
        self._store = ObjectStore(BUCKET, STREAM, client.jetstream())

    async def restore(self, path: Path, position: int = 0) -> bool:
        """Put the copy in the place of a missing file, or of one that is far behind it; return whether it was.

        ``position`` is the file's. No process may have the file open. A fault is logged, and leaves the file as it was.
        """
        try:
            async with asyncio.timeout(_RESTORE_SECONDS):
                copy = await self._find()
                if copy is None or copy.position < position + _FEWEST_EVENTS:
                    return False
                begun = time.monotonic()
                path.parent.mkdir(parents=True, exist_ok=True)
                with _beside(path) as fetched:
                    await self._fetch(fetched)
                    await asyncio.to_thread(_require_sound, fetched)
                    for suffix in ("-wal", "-shm"):
                        path.with_name(path.name + suffix).unlink(missing_ok=True)
                    fetched.replace(path)
        except Exception as error:  # noqa: BLE001 - a copy that anybody wrote must not stop a start
            _log.warning("no copy of %s could be used, so the log is read: %s", path.name, reason_of(error))
            return False
        seconds = time.monotonic() - begun
        _log.info("%s: %d bytes up to position %d in %.1f s", self._name, copy.size, copy.position, seconds)
        return True

    async def _fetch(self, into: Path) -> None:
        """Read the object; nats-py waits without end for a part that was removed meanwhile."""
        with into.open("wb") as file:
            reading = asyncio.create_task(self._store.get(self._name, file))
            before = -1
            try:
                while not reading.done():
                    await asyncio.wait([reading], timeout=_SILENT_SECONDS)
                    if not reading.done() and file.tell() == before:
                        raise TimeoutError("the copy ends early")
                    before = file.tell()
                reading.result()
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def keep(self, path: Path, position: Callable[[], int]) -> None:
        """Store a copy of a file that may be in use; ``position`` returns what it contains at least.

        Raises:
            OSError, sqlite3.Error: the file cannot be copied, for example because the disk is full.
            nats.errors.Error: the server does not take the copy.
        """
        if shutil.disk_usage(path.parent).free < _ROOM * path.stat().st_size:
            raise OSError(f"the disk of {path.parent} is too full for a copy")
        with _beside(path) as copied:
            contained = position()
            await asyncio.to_thread(_copy, path, copied)
            if position() < contained:
                raise OSError(f"{path} was replaced while it was copied")
            await self._remove_left()
            options = ObjectMetaOptions(max_chunk_size=_CHUNK_BYTES)
            meta = ObjectMeta(self._name, description=str(contained), options=options)
            with copied.open("rb") as file:
                await self._store.put(self._name, file, meta)

    async def is_due(self, position: int) -> bool:
        """Return whether so much was read since the last copy, of any process, that another one is worth its cost."""
        try:
            copy = await self._find()
        except (BadObjectMetaError, DigestMismatchError):
            copy = None  # a damaged copy is replaced
        kept = 0 if copy is None else copy.position
        return position - kept >= due_after(position)

    async def keep_going(self, path: Path, position: Callable[[], int], ours: Callable[[], bool]) -> None:
        """Store a copy whenever one is due, as long as ``ours`` says that this process does it, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not ours():
                continue  # another process stores copies
            try:
                if await self.is_due(position()):
                    await self.keep(path, position)
            except _FAULTS as error:
                _log.warning("a copy of %s is stored the next time: %s", path.name, reason_of(error))
            except Exception as error:  # noqa: BLE001 - the role goes on without a copy
                report("a copy of the state could not be stored", error, error)

    async def _find(self) -> _Copy | None:
        try:
            info = await self._store.get_info(self._name)
        except ObjectNotFoundError:
            return None
        if not (info.description or "").isdecimal():
            raise BadObjectMetaError
        chunks = f"{_SUBJECTS}.C.{info.nuid}"
        if (await self._messages(chunks)).get(chunks, 0) != info.chunks:
            raise DigestMismatchError
        return _Copy(int(info.description or 0), info.size or 0)

    async def _remove_left(self) -> None:
        """Remove copies of other forms that no version has replaced for days, and chunks that belong to no object.

        Such chunks were left by a process that was killed while it stored them.
        """
        now = time.time()
        used: set[str] = set()
        for subject in await self._messages(f"{_SUBJECTS}.M.>"):
            name = base64.urlsafe_b64decode(subject.rpartition(".")[2]).decode()
            with suppress(ObjectNotFoundError):
                info = await self._store.get_info(name)
                used.add(f"{_SUBJECTS}.C.{info.nuid}")
                age = now - datetime.fromisoformat(info.mtime or "").timestamp()
                if name != self._name and name.rpartition("-")[0] == self._role and age > _OLD_FORM_SECONDS:
                    await self._store.delete(name)
        for subject in set(await self._messages(f"{_SUBJECTS}.C.>")) - used:
            with suppress(NotFoundError):  # another process has removed it
                last = await self._client.jetstream().get_last_msg(STREAM, subject)
                if last.time is not None and now - last.time.timestamp() > _LEFT_SECONDS:
                    await js_api(self._client, f"STREAM.PURGE.{STREAM}", {"filter": subject})

    async def _messages(self, subjects: str) -> dict[str, int]:
        """Return the number of messages of each subject, of all that match ``subjects``."""
        answer = await js_api(self._client, f"STREAM.INFO.{STREAM}", {"subjects_filter": subjects})
        return answer.get("state", {}).get("subjects") or {}


def due_after(position: int) -> int:
    """Return after how many events a copy is due again, in a history of this length."""
    return max(_FEWEST_EVENTS, min(position // _SHARE, _MOST_EVENTS))


async def remove_all(client: LedgerClient) -> None:
    """Remove all copies: an operator has accepted a log that lost events, which the copies may still contain.

    Raises:
        UnavailableError: the server does not answer.
    """
    await js_api(client, f"STREAM.PURGE.{STREAM}", {})


async def restore_alone(snapshots: Snapshots, path: Path) -> None:
    """Restore a file that several processes of one data directory open, before any of them has it open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".restore.lock").open("a") as lock:
        while not try_lock(lock):  # noqa: ASYNC110 - another process has the lock
            await asyncio.sleep(_LOCK_SECONDS)
        if not path.exists():
            await snapshots.restore(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file on the same disk, which is gone afterwards."""
    for left in path.parent.glob(f"{path.stem}-copy-*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{path.stem}-copy-", dir=path.parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder) / "copy.sqlite"


def _copy(path: Path, to: Path) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("VACUUM INTO ?", (str(to),))


def _require_sound(path: Path) -> None:
    """Raise sqlite3.Error for bytes that are no database."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA schema_version").fetchone()
