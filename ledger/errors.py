"""Errors of the log; each message says what to do, and each error carries its facts as attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence


class LedgerError(Exception):
    """The base of all errors of the log."""


def reason_of(error: BaseException) -> str:
    """Return an error's text; that of a time-out is empty, and the name of another error stands for an empty one."""
    return str(error) or ("time-out" if isinstance(error, TimeoutError) else type(error).__name__)


class EventError(ValueError):
    """An unacceptable CloudEvent: a stable code, the field, and a message that says what to do.

    Field and message may quote hostile bytes. Bytes that are not Unicode become ``?``, so that both can be stored.
    """

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field.encode(errors="replace").decode()
        self.message = message.encode(errors="replace").decode()


class ConflictError(LedgerError):
    """One of the subjects was written to since it was read; nothing was stored. Read again."""

    def __init__(self, subjects: list[str]) -> None:
        super().__init__(f"one of {', '.join(subjects[:3])} was written to since it was read: read it again and retry")
        self.subjects = subjects


class UnavailableError(LedgerError):
    """The server gave no answer in time, or cannot store (unreachable, disk full). Try again later.

    After a failed append the event may still have been stored: its expected sequence makes a retry safe.
    """


class LocalFileError(UnavailableError):
    """A file of this machine cannot be written: the disk is full, or the file is damaged. Another machine may go on."""


class StateError(LedgerError):
    """A role's state on disk cannot be used; ``damaged``: its content is wrong, and must be built again."""

    def __init__(self, message: str, *, damaged: bool = False) -> None:
        super().__init__(message)
        self.damaged = damaged


class ClockError(UnavailableError):
    """The host's clock is ahead of the server's; nothing is recorded until it is corrected."""


class TooLargeError(LedgerError):
    """A message is larger than its stream accepts."""


class RefusedError(LedgerError):
    """JetStream will never accept this request as it is; a retry is useless."""


class ApiError(TypedDict, total=False):
    """The ``error`` object in an answer of the JetStream API."""

    code: int
    err_code: int
    description: str


_CONFLICTS = frozenset((10071, 10164))
_TOO_LARGE = frozenset((10054, 10097, 10199))
_GONE = frozenset((10014, 10059))
"""A consumer or a stream is missing. An operator may restore it."""
_PASSING = frozenset((10005, 10158, 10176, 10210))
"""A cluster lacks servers for all copies, for example as it starts; the same message is being stored; a part of a batch
was lost on the way; or too many batches are open."""
_SERVER_ERROR = 500


def jetstream_error(error: ApiError, operation: str, subjects: Sequence[str] = ()) -> LedgerError:
    """Return the exception for the ``error`` object in an answer of JetStream.

    A condition that may pass without a change is an ``UnavailableError``: no leader, a full disk, a missing stream, a
    batch of which a part was lost.
    ``operation`` begins the message: the stream, and the operation on it.
    """
    code, text = error.get("err_code"), f"{operation}: {error.get('description', 'no reason given')}"
    if code in _CONFLICTS:
        return ConflictError(sorted(set(subjects)))
    if code in _TOO_LARGE:
        return TooLargeError(f"too large for {text}")
    if code in _PASSING:
        return UnavailableError(f"{text} ({code}); try again later")
    if code in _GONE or error.get("code", _SERVER_ERROR) >= _SERVER_ERROR:
        return UnavailableError(f"{text} ({code}); see the server's disk and log")
    return RefusedError(f"{text} ({code})")


def status_error(status: bytes, headers: bytes, operation: str) -> LedgerError:
    """Return the exception for an inline status (``b"408"``) of JetStream; a 4xx status will never succeed."""
    text = f"{operation}: {headers.decode(errors='replace').strip()}"
    return RefusedError(text) if status.startswith(b"4") else UnavailableError(text)


class MissingStreamsError(LedgerError):
    """Streams of the ledger are missing on the server; only `admin init` creates them."""

    def __init__(self, streams: Sequence[str]) -> None:
        names = ", ".join(streams)
        some = f"stream {names}" if len(streams) == 1 else f"the streams {names}"
        super().__init__(f"the NATS server lacks {some}: create what is missing with `resolution-ledger admin init`")
        self.streams = tuple(streams)


class DriftError(LedgerError):
    """A stream's configuration differs from the declared one."""

    def __init__(self, stream: str, field: str, wanted: object, found: object) -> None:
        cause = (
            f"add replicas as the operator (nats stream edit {stream} --replicas {wanted})"
            if field == "num_replicas"
            else "it was changed. Find out which user changed it and whether events are missing, then reset it as the "
            f"operator (nats stream edit {stream})"
        )
        super().__init__(f"stream {stream} has {field}={found!r} where {wanted!r} was declared: {cause}")
        self.stream = stream
        self.field = field


class UpgradeNeededError(LedgerError):
    """A stream has the configuration of an earlier version, and only the operator may change it."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"stream {stream} has the configuration of an earlier version. Stop all processes of that version, then "
            "run `resolution-ledger admin upgrade` with the operator's user and password in --nats-url"
        )
        self.stream = stream


class LazyFsyncError(LedgerError):
    """The server acknowledges events before they are on disk, or does not say when it does."""


class LostEventsError(LedgerError):
    """The stream no longer shows an event that was read or stored at a position."""

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(
            f"{problem} at position {position}: the log has changed. Stop all processes that write, see what "
            "`resolution-ledger audit verify` and `admin scrub` say, and start again only from a sound log"
        )
        self.problem, self.position = problem, position


class NoLedgerError(Exception):
    """A command that only reads was given a data directory without a ledger."""


class ServerStartError(LedgerError):
    """The embedded server could not be started."""


class OtherDirectoryError(ServerStartError):
    """A data directory is a copy: its recorded server runs for another directory."""

    def __init__(self, data_dir: object, other: str | None, port: int, *, shared: bool = False) -> None:
        name = other or "another directory"
        if shared:
            text = (
                f"{data_dir} is a copy that shares files with {name} by links, so it is not a separate ledger: "
                "copy the folder with the targets of its links (cp -aL, rsync -aL), while the ledger is stopped"
            )
        else:
            text = (
                f"{data_dir} is a copy of another data directory: its recorded server at 127.0.0.1:{port} "
                f"serves {name}. Name that directory with --data-dir. To back up a ledger, copy its folder while it is "
                "stopped; to open this copy as a separate ledger, delete "
                f"{data_dir}/server/address.json"
            )
        super().__init__(text)
        self.other = other


class DirectoryMovedError(LedgerError):
    """A data directory was moved or replaced while it was in use."""

    def __init__(self, data_dir: object) -> None:
        super().__init__(
            f"{data_dir} was moved or replaced while it was in use: start again with its new path in --data-dir"
        )


class MissingExtraError(LedgerError):
    """An optional library is not installed; the extra that installs it is named."""

    def __init__(self, part: str, extra: str) -> None:
        super().__init__(f"{part} need the extra `{extra}`: pip install 'resolution-ledger[{extra}]'")
        self.extra = extra
