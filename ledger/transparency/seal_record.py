"""The server's record of the seal: each seal that was begun, with its key, and one of its last checkpoints.

A seal is a folder, which can be lost or removed. Without a record elsewhere, a seal that is begun again looks like the
first one. The record is a stream of its own: `seal.begun.<key id>`, one message for each seal ever begun, and
`seal.checkpoint`, one of the last checkpoints, signed. Only the operator can delete them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ledger.store.log import Draft, Log
from ledger.transparency.sealer import RESTORE_ADVICE, SealError
from ledger.transparency.signed_notes import Checkpoint, NoteError, Verifier, read_checkpoint

if TYPE_CHECKING:
    from ledger.nats.client import LedgerClient
    from ledger.transparency.sealer import SealFolder

STREAM = "SEAL"
_BEGUN = "seal.begun"
_CHECKPOINT = "seal.checkpoint"
_KEEP_SECONDS = 60.0


class SealBegin(msgspec.Struct, frozen=True):
    """The begin of a seal: its time, its verifier key, the log's end, and the reason if it is not the first seal."""

    at: str
    verifier: str
    position: int
    reason: str | None = None


class SealTrace(NamedTuple):
    """The server's record: seals that were begun, oldest first, and a checkpoint of the newest one."""

    begun: tuple[SealBegin, ...] = ()
    checkpoint: Checkpoint | None = None
    damage: str = ""
    """A sentence if the server has lost parts of this record; the role `seal` writes it again."""

    @property
    def verifiers(self) -> list[Verifier]:
        """The keys with which seals were begun."""
        return [Verifier.read(one.verifier) for one in self.begun]


class SealRecord:
    """Reads and writes the server's record of the seal."""

    def __init__(self, log: Log) -> None:
        """Use ``open``."""
        self._log = log
        self._recorded_at = float("-inf")
        self._unrecorded: Checkpoint | None = None

    @property
    def log(self) -> Log:
        """The stream of the record."""
        return self._log

    @classmethod
    async def open(cls, client: LedgerClient) -> SealRecord:
        """Open the record of this connection's ledger."""
        return cls(await Log.unstamped(client, STREAM))

    async def read(self) -> SealTrace:
        """Return the record.

        Raises:
            NoteError: it is not readable.
            UnavailableError: the server does not answer.
        """
        try:
            end = await self._log.last_position()
            stored = await self._log.read_subject(f"{_BEGUN}.*")
            begun = tuple(msgspec.json.decode(one.data, type=SealBegin) for one in stored)
            for seal in begun:
                Verifier.read(seal.verifier)
            last = await self._log.last(_CHECKPOINT)
            note = read_checkpoint(last.data.decode()) if last is not None and last.data else None
            # if the end has moved meanwhile, a new message replaced the newest one
            newest_is_missing = await self._log.at(end) is None and await self._log.last_position() == end
            is_damaged = end > 0 and (newest_is_missing or not begun)
        except (msgspec.MsgspecError, ValueError) as error:
            raise NoteError(f"the record of the seal in the stream {STREAM} cannot be read: {error}") from error
        damage = (
            f"the stream {STREAM} has lost messages of the server's record of the seal: find the cause of the "
            "damage in the server's folder. `up` or `run seal` writes the record again"
        )
        return SealTrace(begun, note, damage if is_damaged else "")

    async def begin(self, verifier: Verifier, position: int, reason: str | None = None) -> None:
        """Record the begin of a seal; with a reason, the checkpoint of the previous seal becomes invalid."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        begun = SealBegin(now, verifier.text(), position, reason)
        drafts = [Draft(f"{_BEGUN}.{verifier.key_id.hex()}", msgspec.json.encode(begun)), Draft(_CHECKPOINT, b"")]
        await self._log.append(drafts if reason is not None else drafts[:1])

    async def keep(self, checkpoint: Checkpoint | None) -> None:
        """Record the newest checkpoint, the first at once and then about one a minute; None: no new one was signed."""
        self._unrecorded = checkpoint or self._unrecorded
        moment = time.monotonic()
        if self._unrecorded is None or moment - self._recorded_at < _KEEP_SECONDS:
            return
        await self._log.append([Draft(_CHECKPOINT, self._unrecorded.note.encode())])
        self._unrecorded, self._recorded_at = None, moment


async def open_seal(record: SealRecord, folder: SealFolder, log: Log, *, archived: int = 0) -> Checkpoint | None:
    """Check that the begun seal is in its folder, or begin a ledger's first one; return the checkpoint to be reached.

    ``archived`` is the archive's last position; the archive holds only sealed events. Where the
    copied key was taken over, the tiles are made again from the log.

    Raises:
        SealError: a seal was begun, and it or a part of it is missing.
        NoteError: a key or a checkpoint cannot be read.
    """
    trace = await record.read()
    size = trace.checkpoint.size if trace.checkpoint is not None else archived
    if not folder.is_begun:
        if trace.begun or size:
            description = f", which was begun at {trace.begun[-1].at}," if trace.begun else ""
            raise SealError(f"the seal of this ledger{description} is not at {folder.folder}", size, RESTORE_ADVICE)
        folder.begin()
    elif size and folder.checkpoint() is None and not folder.is_taken_over:
        raise SealError(f"{folder.folder / 'checkpoint'} is missing", size, RESTORE_ADVICE)
    first, *_ = folder.verifiers() or [folder.signer().verifier]
    if not trace.begun:
        await record.begin(first, await log.last_position())
    elif first not in trace.verifiers:
        raise SealError(
            f"the seal at {folder.folder} was begun with another key than this ledger's", size, RESTORE_ADVICE
        )
    return trace.checkpoint
