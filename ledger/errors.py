"""What can go wrong with the log; each error says what to do and carries its facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class LedgerError(Exception):
    """Base of all errors of the log."""


class EventError(ValueError):
    """Bytes that are no acceptable CloudEvent: a stable code, the field, and what to do.

    Field and message may quote hostile bytes; what is not Unicode stands as ``?``, so that they can be stored.
    """

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field.encode(errors="replace").decode()
        self.message = message.encode(errors="replace").decode()


class ConflictError(LedgerError):
    """Somebody wrote to one of the subjects since it was read; nothing was stored. Read again."""

    def __init__(self, subjects: list[str]) -> None:
        super().__init__(f"written meanwhile: one of {', '.join(subjects[:3])}; read it again and decide anew")
        self.subjects = subjects


class UnavailableError(LedgerError):
    """The server gave no answer in time, or cannot store (away, disk full). Try again later.

    Where an append raises this, the event may still have been stored: its expectation protects a retry.
    """


class ClockError(UnavailableError):
    """The host's clock runs ahead of the server's: nothing was recorded, and nothing is until it is right."""


class TooLargeError(LedgerError):
    """A message is larger than its stream takes."""


class RefusedError(LedgerError):
    """JetStream will never accept this request as it is; trying it again is of no use."""


_CONFLICTS = frozenset((10071, 10164))
_TOO_LARGE = frozenset((10054, 10097, 10199))
_GONE = frozenset((10014, 10059))
"""A consumer or a stream is not there: it may be restored, and with it what it holds."""
_SERVER_ERROR = 500


def jetstream_error(error: Mapping[str, Any], what: str, subjects: Sequence[str] = ()) -> LedgerError:
    """Return the exception for the ``error`` object of an answer of JetStream.

    Only what may pass by itself (no leader, a full disk, a stream that is gone) is an ``UnavailableError``.
    ``what`` begins the message: the stream and what was asked of it.
    """
    code, text = error.get("err_code"), f"{what}: {error.get('description', 'no reason given')}"
    if code in _CONFLICTS:
        return ConflictError(sorted(set(subjects)))
    if code in _TOO_LARGE:
        return TooLargeError(f"too large for {text}")
    if code in _GONE or int(error.get("code", _SERVER_ERROR)) >= _SERVER_ERROR:
        return UnavailableError(f"{text} ({code}); see the server's disk and log")
    return RefusedError(f"{text} ({code})")


def status_error(status: bytes, headers: bytes, what: str) -> LedgerError:
    """Return the exception for an inline status (``b"408"``) of JetStream; 4xx will never succeed."""
    text = f"{what}: {headers.decode(errors='replace').strip()}"
    return RefusedError(text) if status.startswith(b"4") else UnavailableError(text)


class MissingStreamsError(LedgerError):
    """Streams of the ledger are not on the server, and only `admin init` creates them."""

    def __init__(self, streams: Sequence[str]) -> None:
        names = ", ".join(streams)
        some = f"stream {names}" if len(streams) == 1 else f"the streams {names}"
        super().__init__(f"the NATS server lacks {some}: create what is missing with `resolution-ledger admin init`")
        self.streams = tuple(streams)


class DriftError(LedgerError):
    """A stream's configuration is not the one declared."""

    def __init__(self, stream: str, field: str, wanted: object, found: object) -> None:
        cause = (
            f"ask for more as the operator (nats stream edit {stream} --replicas {wanted})"
            if field == "num_replicas"
            else "it was changed. Find out by which user and whether events are missing, then set it back as the "
            f"operator (nats stream edit {stream})"
        )
        super().__init__(f"stream {stream} has {field}={found!r} where {wanted!r} was declared: {cause}")
        self.stream = stream
        self.field = field


class UpgradeNeededError(LedgerError):
    """A stream is as an earlier version made it, and only the operator may change it."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"stream {stream} is as an earlier version made it. Stop everything of that version, then run "
            "`resolution-ledger admin upgrade` with the operator's user and password in --nats-url"
        )
        self.stream = stream


class LazyFsyncError(LedgerError):
    """The server acknowledges before it has written to disk, or does not say."""


class LostEventsError(LedgerError):
    """The stream does not show what was read or stored before at a position."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(
            f"{what} at position {position}: the log is not what it was. Stop everything that writes, see what "
            "`resolution-ledger audit verify` and `admin scrub` say, and start again only from a sound log"
        )
        self.position = position


class ServerStartError(LedgerError):
    """The embedded server could not be started."""


class OtherDirectoryError(ServerStartError):
    """A data directory is a copy: the server that its files name runs for another directory."""

    def __init__(self, data_dir: object, other: str | None, port: int, *, shared: bool = False) -> None:
        name = other or "that other directory"
        if shared:
            text = (
                f"{data_dir} is a copy that shares files with {name} by links, and serves as no ledger of its own: "
                "copy the folder with all that links in it lead to (cp -aL, rsync -aL), while the ledger is stopped"
            )
        else:
            text = (
                f"{data_dir} is a copy of another data directory: the server at 127.0.0.1:{port}, which it names, "
                f"serves {name}. Name that one with --data-dir. To back up a ledger, copy its folder while it is "
                "stopped; to open this copy all the same, as a ledger of its own, delete "
                f"{data_dir}/server/address.json"
            )
        super().__init__(text)
        self.other = other


class DirectoryMovedError(LedgerError):
    """A data directory was moved, or replaced by another, while it was in use."""

    def __init__(self, data_dir: object) -> None:
        super().__init__(
            f"{data_dir} was moved or replaced while it was in use: start again, with --data-dir naming its new place"
        )


class MissingExtraError(LedgerError):
    """A library is not installed that only some roles and commands need, with the extra that brings it."""

    def __init__(self, part: str, extra: str) -> None:
        super().__init__(f"{part} need the extra `{extra}`: pip install 'resolution-ledger[{extra}]'")
        self.extra = extra
