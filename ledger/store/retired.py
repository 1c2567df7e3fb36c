"""Retired events: those that left a stream by an operator's word. The stream's metadata names the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ledger.errors import LedgerError

if TYPE_CHECKING:
    from ledger.store.api_types import StreamConfig

RETIRED_UNTIL = "resolution-ledger-retired-until"
"""Metadata of a stream: the last position that has left it; the archive has it."""
RETIRED_DIGEST = "resolution-ledger-retired-digest"
"""Metadata of a stream: the digest of that event, by which the archive of another ledger is noticed."""


class Retired(NamedTuple):
    """What has left a stream: the last position (0: nothing) and that event's digest.

    ``names`` is the beginning of the stored subjects, and ``taken_at`` the beginning of the subjects on which the
    server takes new events: it changes with each retirement, so that the server takes nothing of an older process.
    """

    until: int = 0
    digest: str = ""
    names: bytes = b""
    taken_at: bytes = b""

    def published(self, subject: bytes) -> bytes:
        """Return the subject on which the server takes an event with a subject."""
        if not self.names:
            return subject
        if not subject.startswith(self.names):
            raise ValueError(f"{subject!r} is no subject of this stream")
        return self.taken_at + subject[len(self.names) :]


NOTHING_RETIRED = Retired()


class StreamRemadeError(LedgerError):
    """Old events have left the stream since this process opened it, which ends the process."""

    def __init__(self, stream: str, until: int) -> None:
        super().__init__(
            f"the events of {stream} up to position {until} were retired while this process ran: start it again, with "
            "a copy of the archive in its data directory"
        )


def retired_in(config: StreamConfig) -> Retired:
    """Return what a stream's configuration says has left it."""
    metadata = config.get("metadata") or {}
    until = int(metadata.get(RETIRED_UNTIL, 0))
    if not until:
        return NOTHING_RETIRED
    transform = config.get("subject_transform") or {}
    names, taken_at = (transform.get(one, "").removesuffix(">").encode() for one in ("dest", "src"))
    return Retired(until, metadata.get(RETIRED_DIGEST, ""), names, taken_at)
