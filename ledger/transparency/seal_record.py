"""The server's record of the seal: that one was begun, with which key, and one of its last checkpoints.

A seal lies in a folder, and a folder can be lost or taken away. Without a trace elsewhere a seal that is begun anew
looks like the first one. The trace is a stream of its own: `seal.begun.<key id>`, one message for each seal ever begun,
and `seal.checkpoint`, one of the last checkpoints, signed. Only the operator can delete them.
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
    """That a seal was begun: when, with which verifier key, at which end of the log, and why a second one was."""

    at: str
    verifier: str
    position: int
    reason: str | None = None


class SealTrace(NamedTuple):
    """The server's record: seals that were begun, the oldest first, and a checkpoint of the newest one."""

    begun: tuple[SealBegin, ...] = ()
    checkpoint: Checkpoint | None = None
    damage: str = ""
    """What the server has lost of this record; the role that seals writes it again."""

    @property
    def verifiers(self) -> list[Verifier]:
        """The keys with which seals were begun."""
        return [Verifier.read(one.verifier) for one in self.begun]


class SealRecord:
    """Reads and writes the trace of the seal."""

    def __init__(self, door: Log) -> None:
        """Use ``open``."""
        self._log = door
        self._kept_at = float("-inf")
        self._waiting: Checkpoint | None = None

    @classmethod
    async def open(cls, client: LedgerClient) -> SealRecord:
        """The trace that this connection's ledger has."""
        return cls(await Log.unstamped(client, STREAM))

    async def read(self) -> SealTrace:
        """Read what is kept.

        Raises:
            NoteError: it cannot be read.
            UnavailableError: the server does not answer.

        """
        try:
            end = await self._log.last_position()
            stored = await self._log.read_subject(f"{_BEGUN}.*")
            begun = tuple(msgspec.json.decode(one.data, type=SealBegin) for one in stored)
            for one in begun:
                Verifier.read(one.verifier)
            last = await self._log.last(_CHECKPOINT)
            note = read_checkpoint(last.data.decode()) if last is not None and last.data else None
            gone = await self._log.at(end) is None and await self._log.last_position() == end  # else one took its place
            lost = end > 0 and (gone or not begun)
        except (msgspec.MsgspecError, ValueError) as error:
            message = f"what the stream {STREAM} keeps of the seal cannot be read: {error}"
            raise NoteError(message) from error
        damage = (
            f"the stream {STREAM} has lost messages of the server's record of the seal: find out what damaged the "
            "server's folder. `up` or `run seal` writes the record again"
        )
        return SealTrace(begun, note, damage if lost else "")

    async def begin(self, verifier: Verifier, position: int, reason: str | None = None) -> None:
        """Keep that a seal was begun; the checkpoint of the one before it counts no more."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        begun = SealBegin(now, verifier.text(), position, reason)
        drafts = [Draft(f"{_BEGUN}.{verifier.key_id.hex()}", msgspec.json.encode(begun)), Draft(_CHECKPOINT, b"")]
        await self._log.append(drafts if reason is not None else drafts[:1])

    async def keep(self, checkpoint: Checkpoint | None) -> None:
        """Keep the newest checkpoint, the first at once and then about one a minute; None: nothing new was signed."""
        self._waiting = checkpoint or self._waiting
        moment = time.monotonic()
        if self._waiting is None or moment - self._kept_at < _KEEP_SECONDS:
            return
        await self._log.append([Draft(_CHECKPOINT, self._waiting.note.encode())])
        self._waiting, self._kept_at = None, moment


async def open_seal(record: SealRecord, folder: SealFolder, log: Log, *, archived: int = 0) -> Checkpoint | None:
    """Check that the seal that was begun is here; begin the first one of a ledger. Returns the checkpoint to be met.

    ``archived`` is up to where the archive goes, which holds only what was sealed.

    Raises:
        SealError: a seal was begun, and it, or a part of it, is not here.
        NoteError: a key or a checkpoint cannot be read.

    """
    kept = await record.read()
    size = kept.checkpoint.size if kept.checkpoint is not None else archived
    if not folder.is_begun:
        if kept.begun or size:
            begun = f", which was begun at {kept.begun[-1].at}," if kept.begun else ""
            raise SealError(f"the seal of this ledger{begun} is not at {folder.folder}", size, RESTORE_ADVICE)
        folder.begin()
    elif size and folder.checkpoint() is None:
        raise SealError(f"{folder.folder / 'checkpoint'} is missing", size, RESTORE_ADVICE)
    first, *_ = folder.verifiers() or [folder.signer().verifier]
    if not kept.begun:
        await record.begin(first, await log.last_position())
    elif first not in kept.verifiers:
        raise SealError(
            f"the seal at {folder.folder} was begun with another key than this ledger's", size, RESTORE_ADVICE
        )
    return kept.checkpoint
