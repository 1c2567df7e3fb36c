"""What can go wrong with the log; each error says what to do and carries its facts."""

from __future__ import annotations


class LedgerError(Exception):
    """Base of all errors of the log."""


class ConflictError(LedgerError):
    """Somebody wrote to one of the subjects since it was read; nothing was stored. Read again."""

    def __init__(self, subjects: list[str]) -> None:
        super().__init__(f"written meanwhile: one of {', '.join(subjects[:3])}; read it again and decide anew")
        self.subjects = subjects


class UnavailableError(LedgerError):
    """The server gave no answer in time, or cannot store (away, disk full). Try again later.

    Where an append raises this, the event may still have been stored: its expectation protects a retry.
    """


class TooLargeError(LedgerError):
    """A message is larger than its stream takes."""


class DriftError(LedgerError):
    """A stream's configuration is not the one declared."""

    def __init__(self, stream: str, field: str, wanted: object, found: object) -> None:
        super().__init__(
            f"stream {stream} has {field}={found!r} where {wanted!r} was declared: somebody changed it. "
            f"Find out who and whether events are missing, then set it back as the operator "
            f"(nats stream edit {stream})"
        )
        self.stream = stream
        self.field = field


class LazyFsyncError(LedgerError):
    """The server acknowledges before it has written to disk, or does not say."""


class LostEventsError(LedgerError):
    """The stream does not show what was read or stored before at a position."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(
            f"{what} at position {position}: the log is not what it was. Stop writing, compare with a "
            "backup, and start again only when somebody has looked"
        )
        self.position = position


class ServerStartError(LedgerError):
    """The embedded server could not be started."""
