"""The log: append with expectations, read, all on one JetStream stream."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import nats.errors

from ledger.cloudevents import parse_time, time_text
from ledger.connection import frame
from ledger.errors import ConflictError, LedgerError, TooLargeError, UnavailableError
from ledger.streams import js_api

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from ledger.connection import LedgerClient

MAX_BATCH = 1000
MAX_BATCH_BYTES = 8 * 1024 * 1024
_CONFLICTS = {10071, 10164}
_TOO_LARGE = {10054, 10199}
_ACK_SECONDS = 5.0
_EXPECT = b"Nats-Expected-Last-Subject-Sequence: %d\r\n"
_BATCH = b"Nats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n"
_COMMIT = b"Nats-Batch-Commit: 1\r\n"


class Draft(NamedTuple):
    """An event to append: its subject, its JSON object, and what must hold.

    ``expect`` is the sequence of the subject's last event (0: none yet); ``None`` takes any. Headers are
    for the inbox, where CloudEvents in binary mode have some; in the log they carry no meaning.
    """

    subject: str
    data: bytes
    expect: int | None = None
    headers: Mapping[str, str] | None = None


class Recorded(NamedTuple):
    """An event as it stands in the log."""

    position: int
    subject: str
    data: bytes


class _RecordedTime(msgspec.Struct):
    recordedtime: str


_STAMP = b',"recordedtime":"'


def digest_of(data: bytes) -> str:
    """The hash by which readers recognise the last event they took (SHA-256, hex).

    Over the event without its closing ``recordedtime``, so that a writer knows it before the log does.
    """
    return hashlib.sha256(data.rpartition(_STAMP)[0] or data[:-1]).hexdigest()


def in_batches[T](items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut into lists that one batch takes: at most 1000 events and 8 MiB."""
    batch: list[T] = []
    room = MAX_BATCH_BYTES
    for item in items:
        size = size_of(item)
        if batch and (size > room or len(batch) == MAX_BATCH):
            yield batch
            batch, room = [], MAX_BATCH_BYTES
        batch.append(item)
        room -= size
    if batch:
        yield batch


def _now() -> datetime:
    return datetime.now(UTC)


class Log:
    """One stream, one connection. Recorded times never decrease along what is appended here.

    Stamping and sending happen in one go, and the server takes a connection's messages in order; so the
    order of recorded times is the order of positions for all who share a ``Log``.
    """

    def __init__(self, client: LedgerClient, stream: str, clock: Callable[[], datetime] = _now, *,
                 stamped: bool = True) -> None:  # fmt: skip
        """Use ``open`` (our stream) or ``door`` (a stream that we only publish to)."""
        self._stamped = stamped
        self.client = client
        self.stream = stream
        self._clock = clock
        self._last_stamp = datetime(1970, 1, 1, tzinfo=UTC)
        self._replies: dict[str, asyncio.Future[Msg]] = {}
        self._inbox = client.new_inbox()
        self._tokens = 0
        self._direct = f"$JS.API.DIRECT.GET.{stream}"

    @classmethod
    async def open(cls, client: LedgerClient, stream: str, clock: Callable[[], datetime] = _now) -> Log:
        """The log of an existing stream; learns the last recorded time."""
        log = cls(client, stream, clock)
        await client.subscribe(f"{log._inbox}.*", cb=log._on_reply)
        if last := await log.last(">"):
            log.saw(last.data)
        return log

    @classmethod
    async def door(cls, client: LedgerClient, stream: str) -> Log:
        """To publish to a stream as an upstream does: events go as they are, without a recorded time."""
        log = cls(client, stream, stamped=False)
        await client.subscribe(f"{log._inbox}.*", cb=log._on_reply)
        return log

    # ------------------------------------------------------------------ writing

    async def append(self, drafts: Sequence[Draft], patience_seconds: float = 10) -> int:
        """Append these events in order, all or none; returns the position of the first.

        Durable when it returns. A time-out is resolved by reading back, and tried again until
        ``patience_seconds`` have passed; expectations make that safe.

        Raises:
            ConflictError: a subject's last event is not the expected one; nothing was stored.
            TooLargeError: an event, or the batch, is larger than the stream takes.
            UnavailableError: no answer in time, or no space left on the server's disk.

        """
        if not 0 < len(drafts) <= MAX_BATCH:
            message = f"a batch holds 1 to {MAX_BATCH} events, not {len(drafts)}"
            raise ValueError(message)
        deadline = time.monotonic() + patience_seconds
        pause = 0.05
        while True:
            try:
                return await self._attempt(drafts)
            except ConflictError:
                if (position := await self._stored_before(drafts)) is not None:
                    return position
                raise
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)
            try:
                if (position := await self._stored_before(drafts)) is not None:
                    return position
            except UnavailableError:
                continue

    async def _attempt(self, drafts: Sequence[Draft]) -> int:
        token, future = self._expect_reply()
        try:
            await self._send(drafts, f"{self._inbox}.{token}")
            reply = await asyncio.wait_for(future, _ACK_SECONDS)
        except (nats.errors.Error, TimeoutError) as error:
            message = f"{self.stream} did not acknowledge in time ({error or 'time-out'}); try again later"
            raise UnavailableError(message) from error
        finally:
            self._replies.pop(token, None)
        return self._position_in(reply, drafts)

    async def _send(self, drafts: Sequence[Draft], reply: str) -> None:
        """Stamp and write the whole batch without a pause, so that nothing comes between."""
        stamp = self._stamp() if self._stamped else b""
        batch, last, answer_to = secrets.token_hex(8).encode(), len(drafts), reply.encode()
        frames: list[bytes] = []
        for number, draft in enumerate(drafts, 1):
            headers = b"" if draft.expect is None else _EXPECT % draft.expect
            if draft.headers:
                headers += _header_lines(draft.headers)
            if last > 1:
                headers += _BATCH % (batch, number)
                if number == last:
                    headers += _COMMIT
            data = draft.data[:-1] + stamp if stamp else draft.data
            frames.append(frame(draft.subject.encode(), data, answer_to if number == last else b"", headers))
        self.client.send(b"".join(frames))
        await self.client.drained()

    def _stamp(self) -> bytes:
        self._last_stamp = max(self._clock(), self._last_stamp)
        return _STAMP + time_text(self._last_stamp).encode() + b'"}'

    def saw(self, data: bytes) -> None:
        """Take note of an event's recorded time, so that none stamped here is earlier."""
        try:
            seen = parse_time(msgspec.json.decode(data, type=_RecordedTime).recordedtime)
        except (msgspec.MsgspecError, ValueError):
            return
        self._last_stamp = max(seen, self._last_stamp)

    def _position_in(self, reply: Msg, drafts: Sequence[Draft]) -> int:
        if not reply.data:
            message = f"nobody stores {drafts[0].subject}: the server or its stream is away; try again later"
            raise UnavailableError(message)
        answer = json.loads(reply.data)
        if "error" not in answer:
            return int(answer["seq"]) - len(drafts) + 1
        code = answer["error"].get("err_code")
        text = answer["error"].get("description", "")
        if code in _CONFLICTS:
            raise ConflictError(sorted({draft.subject for draft in drafts}))
        if code in _TOO_LARGE:
            message = f"too large for {self.stream}: {text}"
            raise TooLargeError(message)
        message = f"{self.stream} could not store: {text} ({code}); see the server's disk and log"
        raise UnavailableError(message)

    async def _stored_before(self, drafts: Sequence[Draft]) -> int | None:
        """The position where an earlier attempt put the first draft, if it did."""
        first = drafts[0]
        if first.expect is None:
            return None
        found = await self._get({"seq": first.expect + 1, "next_by_subj": first.subject})
        same = found is not None and found.data.startswith(first.data[:-1])
        return found.position if found is not None and same else None

    # ------------------------------------------------------------------ reading

    async def last_position(self) -> int:
        """The position of the newest event, 0 in an empty log."""
        info = await js_api(self.client, f"STREAM.INFO.{self.stream}")
        if "error" in info:
            message = f"stream {self.stream}: {info['error'].get('description')}"
            raise UnavailableError(message)
        return int(info["state"]["last_seq"])

    async def at(self, position: int) -> Recorded | None:
        """The event at a position, if there is one."""
        return await self._get({"seq": position})

    async def last(self, subject: str) -> Recorded | None:
        """The newest event of a subject or of subjects matching a wildcard."""
        return await self._get({"last_by_subj": subject})

    async def read_subject(self, subject: str, after: int = 0) -> list[Recorded]:
        """All events of one subject behind a position, oldest first; for short subjects."""
        return [event async for batch in self.subject_batches(subject, after) for event in batch]

    async def subject_batches(self, subject: str, after: int = 0) -> AsyncIterator[list[Recorded]]:
        """The same in batches of at most 1000."""
        complete = False
        while not complete:
            request = {"seq": after + 1, "next_by_subj": subject, "batch": MAX_BATCH}
            batch, complete = await self._get_batch(request)
            if batch:
                after = batch[-1].position
                yield batch

    async def _get(self, request: dict[str, Any]) -> Recorded | None:
        try:
            reply = await self.client.request(self._direct, json.dumps(request).encode(), timeout=_ACK_SECONDS)
        except (nats.errors.Error, TimeoutError) as error:
            message = f"{self.stream} could not be read: {error or 'time-out'}"
            raise UnavailableError(message) from error
        headers = reply.headers or {}
        if headers.get("Status") == "404":
            return None
        return self._recorded(reply)

    async def _get_batch(self, request: dict[str, Any]) -> tuple[list[Recorded], bool]:
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        found: list[Recorded] = []
        try:
            await self.client.publish(self._direct, json.dumps(request).encode(), reply=inbox)
            while True:
                reply = await subscription.next_msg(timeout=_ACK_SECONDS)
                headers = reply.headers or {}
                match headers.get("Status"):
                    case "404":
                        return found, True
                    case "204":
                        return found, headers.get("Nats-Num-Pending", "0") == "0" or not found
                    case None:
                        found.append(self._recorded(reply))
                    case status:
                        message = f"{self.stream} could not be read: {status} {headers.get('Description')}"
                        raise UnavailableError(message)
        except (nats.errors.Error, TimeoutError) as error:
            message = f"{self.stream} could not be read: {error or 'time-out'}"
            raise UnavailableError(message) from error
        finally:
            await subscription.unsubscribe()

    @staticmethod
    def _recorded(reply: Msg) -> Recorded:
        headers = reply.headers
        if not headers or "Nats-Sequence" not in headers:
            message = f"an answer without its sequence: {headers}"
            raise LedgerError(message)
        return Recorded(int(headers["Nats-Sequence"]), headers["Nats-Subject"], reply.data)

    # ------------------------------------------------------------------ replies

    def _expect_reply(self) -> tuple[str, asyncio.Future[Msg]]:
        self._tokens += 1
        token = str(self._tokens)
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._replies[token] = future
        return token, future

    async def _on_reply(self, message: Msg) -> None:
        future = self._replies.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(message)


def _header_lines(headers: Mapping[str, str]) -> bytes:
    """Headers as lines; line breaks in them become spaces, so that none can be smuggled in."""
    lines = [f"{' '.join(name.split())}: {' '.join(str(value).split())}\r\n" for name, value in headers.items()]
    return "".join(lines).encode()
