"""The log: append events with expected sequences, and read them, on one JetStream stream."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import nats.errors

from ledger.errors import (
    ClockError,
    ConflictError,
    LedgerError,
    TooLargeError,
    UnavailableError,
    jetstream_error,
    reason_of,
    status_error,
)
from ledger.nats.client import frame, status_of
from ledger.nats.request_reply import RequestReply, header_of, resolve_with
from ledger.store.atomic_batches import MAX_BATCH
from ledger.store.cloudevents import parse_time, time_text
from ledger.store.server_time import ServerTime, utc_now
from ledger.store.streams import NOTHING_RETIRED, Retired, StreamRemadeError, js_api, retired_in

if TYPE_CHECKING:
    from ledger.nats.client import LedgerClient
    from ledger.store.api_types import ApiAnswer
    from ledger.store.json_text import JsonObject

_NO_MESSAGE = 10037
_ACK_SECONDS = 5.0
_ACK_SECONDS_EXPECTED = 0.3
"""First time-out for events with an expected sequence: they may be sent again, since a stored attempt is found."""
_AGAIN_SECONDS = 0.1
_PAUSE_SECONDS_AT_MOST = 0.2
_LOOKED_SECONDS = 1.0
"""Seconds after a look at the stream's state in which a missing event is not a reason for another one."""
_HEADER_ROOM = 1024  # bytes of our headers in one message; the server includes them in its limit
_EXPECT = b"Nats-Expected-Last-Subject-Sequence: %d\r\n"
_EXPECT_OF = b"Nats-Expected-Last-Subject-Sequence-Subject: %b\r\n"
_BATCH = b"Nats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n"
_COMMIT = b"Nats-Batch-Commit: 1\r\n"


class Draft(NamedTuple):
    """An event to append: its subject, its JSON object, and its expected sequence.

    ``expect`` is the sequence of the subject's last event (0: none); ``None`` accepts any. Headers are for inboxes,
    where
    CloudEvents in binary mode use them; in the log they have no meaning.
    """

    subject: str
    data: bytes
    expect: int | None = None
    headers: Sequence[tuple[str, str]] = ()
    expect_of: str = ""
    """The subjects that ``expect`` is about, by a wildcard; empty: the event's own subject.

    In a cluster, such an event is compared with another one that is stored at once only where both name the same
    wildcard. So it follows, in a batch, an event of its subject with an ``expect`` of its own.
    """


class Recorded(NamedTuple):
    """A stored event: its position, its subject and its bytes."""

    position: int
    subject: str
    data: bytes


class EarlierEvents(Protocol):
    """The events that have left a stream, and are kept elsewhere; positions that were lost are left out."""

    async def check(self) -> None:
        """Check that all of them are there, by an error."""

    async def subjects(self, beginning: str) -> list[str]:
        """Return the subjects with a beginning, in order."""

    async def at(self, position: int) -> Recorded | None:
        """Return the event at a position, None if it was lost."""

    def batches(self, position: int, until: int) -> AsyncIterator[list[Recorded]]:
        """Yield the events after one position up to another, oldest first."""

    async def of_subject(self, subject: str, after: int, at_most: int) -> list[Recorded]:
        """Return events of a subject or wildcard after a position, oldest first; none if there are no more."""

    async def last(self, subject: str) -> Recorded | None:
        """Return the newest event of a subject or wildcard."""


class _RecordedTime(msgspec.Struct):
    recordedtime: str


_STAMP = b',"recordedtime":"'


def digest_of(data: bytes) -> str:
    """Return the hash by which readers recognise the last event they read (SHA-256, hex).

    The closing ``recordedtime`` is left out, so that a writer knows the hash before the log adds that time.
    """
    return hashlib.sha256(data.rpartition(_STAMP)[0] or data[:-1]).hexdigest()


class Log:
    """One stream on one connection. Recorded times never decrease among the events that it appends.

    Stamping and sending happen without an interruption, and the server stores a connection's messages in order. So the
    order of recorded times is the order of positions for all users of one ``Log``. Nothing is stamped while the host's
    clock is ahead of the server's (``ServerTime``).
    """

    def __init__(
        self, replies: RequestReply, stream: str, clock: Callable[[], datetime] = utc_now, *, stamped: bool = True
    ) -> None:
        """Use ``open`` (the ledger's stream) or ``unstamped`` (a stream whose events are stored unchanged)."""
        self._stamped = stamped
        self.client = replies.client
        self.stream = stream
        self._clock = clock
        self.server_time = ServerTime(replies.client, stream, clock, on_info=self._observe_stream)
        self._last_stamp = datetime(1970, 1, 1, tzinfo=UTC)
        self._replies = replies
        self._direct = f"$JS.API.DIRECT.GET.{stream}".encode()
        self.copies = 1
        """The number of servers that store the stream."""
        self.retired: Retired = NOTHING_RETIRED
        """The events that have left the stream."""
        self.earlier: EarlierEvents | None = None
        """Those events, as they are kept elsewhere."""
        self._opened = False
        self._remade: StreamRemadeError | None = None
        self.on_remade: Callable[[LedgerError], None] = lambda _error: None
        """Called once, when events turn out to have left the stream since it was opened."""

    @classmethod
    async def open(cls, client: LedgerClient, stream: str, clock: Callable[[], datetime] = utc_now) -> Log:
        """Open an existing stream, and read its last recorded time."""
        log = cls(await RequestReply.open(client), stream, clock)
        await log.server_time.measure()
        log._opened = True
        if last := await log.last(">"):
            log.observe_recorded_time(last.data)
        return log

    @classmethod
    async def unstamped(cls, client: LedgerClient, stream: str) -> Log:
        """Open a stream whose events are stored unchanged, without a recorded time, such as an inbox."""
        return cls(await RequestReply.open(client), stream, stamped=False)

    async def append(self, drafts: Sequence[Draft], patience_seconds: float = 10) -> int:
        """Append these events in order, all or none; return the position of the first.

        They are durable on return. After a time-out the stream is read to find an earlier attempt, and the append is
        repeated until ``patience_seconds`` have passed; expected sequences make that safe.

        Raises:
            ConflictError: a subject's last event is not the expected one; nothing was stored.
            TooLargeError: an event, or the batch, is larger than the stream accepts.
            RefusedError: the stream will never accept them, for instance because it allows no batches.
            ClockError: the host's clock is ahead of the server's.
            UnavailableError: no answer in time, or no space left on the server's disk.
        """
        if not 0 < len(drafts) <= MAX_BATCH:
            raise ValueError(f"a batch holds 1 to {MAX_BATCH} events, not {len(drafts)}")
        deadline = time.monotonic() + patience_seconds
        pause, wait = 0.05, _ACK_SECONDS_EXPECTED
        while True:
            try:
                await self.check_clock()
                wait = min(2.0, wait * 2) if drafts[0].expect is not None else _ACK_SECONDS
                return await self._attempt(drafts, min(wait, max(pause, deadline - time.monotonic())))
            except ClockError:
                raise
            except ConflictError:
                if (position := await self._stored_before(drafts)) is not None:
                    return position
                raise
            except UnavailableError:
                with suppress(UnavailableError):
                    await self.require_same_stream()
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(_PAUSE_SECONDS_AT_MOST, pause * 2)
            try:
                if (position := await self._stored_before(drafts)) is not None:
                    return position
            except UnavailableError:
                continue

    def append_nowait(self, drafts: Sequence[Draft], on_result: Callable[[int | LedgerError], None]) -> None:
        """Append once, all or none, without waiting; ``on_result`` gets the position of the first event, or an error.

        It is called while the acknowledgement is read from the socket. After an error other than a conflict the events
        may have been stored; ``append`` finds out.
        """
        self._send_at_once([drafts], lambda _number, result: on_result(result))

    def append_singly_nowait(
        self, drafts: Sequence[Draft], on_result: Callable[[int, int | LedgerError], None]
    ) -> None:
        """Append each event by itself, without waiting: some may be stored, and others not.

        ``on_result`` is called for each, with its number (from 0) and its position or an error; see ``append_nowait``.
        """
        self._send_at_once([[draft] for draft in drafts], on_result)

    def _send_at_once(
        self, batches: Sequence[Sequence[Draft]], on_result: Callable[[int, int | LedgerError], None]
    ) -> None:
        """Send batches in one write; ``on_result`` gets the number of each, and its result."""
        loop, waiting = asyncio.get_running_loop(), dict[int, bytes]()

        def on_answer(number: int, _headers: bytes, answer: bytes) -> None:
            try:
                result: int | LedgerError = self._position_in(answer, batches[number])
            except LedgerError as error:
                result = error
            self._replies.release(waiting.pop(number))  # not earlier: an unreadable answer counts as no answer
            if not waiting:
                timer.cancel()
            on_result(number, result)

        def fail(error: LedgerError) -> None:
            timer.cancel()
            unanswered = list(waiting.items())
            waiting.clear()
            for number, reply_subject in unanswered:
                self._replies.release(reply_subject)
                on_result(number, error)

        def on_timeout() -> None:
            fail(UnavailableError(f"{self.stream} did not acknowledge in time; try again later"))

        expects = batches[0][0].expect is not None
        timer = loop.call_later(_ACK_SECONDS_EXPECTED if expects else _ACK_SECONDS, on_timeout)
        for number in range(len(batches)):
            waiting[number] = self._replies.new_reply_subject(partial(on_answer, number))
        try:
            self.client.send(b"".join(map(self._frames, batches, waiting.values())))
        except (nats.errors.Error, LedgerError) as error:
            failure = error if isinstance(error, LedgerError) else UnavailableError(f"{self.stream}: {error}")
            loop.call_soon(fail, failure)

    async def _attempt(self, drafts: Sequence[Draft], seconds: float) -> int:
        future: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        reply_subject = self._replies.new_reply_subject(resolve_with(future))
        try:
            self.client.send(self._frames(drafts, reply_subject))
            await self.client.wait_written()
            _headers, answer = await asyncio.wait_for(future, seconds)
        except (nats.errors.Error, OSError) as error:  # TimeoutError is an OSError
            message = f"{self.stream} did not acknowledge in time ({reason_of(error)}); try again later"
            raise UnavailableError(message) from error
        finally:
            self._replies.release(reply_subject)
        return self._position_in(answer, drafts)

    def _frames(self, drafts: Sequence[Draft], reply_subject: bytes) -> bytes:
        """Return the whole batch, stamped now; to be sent at once, so that no other message comes between.

        Raises:
            StreamRemadeError: events have left the stream since it was opened.
            TooLargeError: an event is larger than the server accepts.
        """
        if self._remade is not None:
            raise self._remade
        retired = self.retired
        stamp = self._stamp() if self._stamped else b""
        count, max_bytes = len(drafts), self.client.max_payload - _HEADER_ROOM
        batch = secrets.token_hex(8).encode() if count > 1 else b""
        frames: list[bytes] = []
        for number, draft in enumerate(drafts, 1):
            headers = b"" if draft.expect is None else _EXPECT % (0 if draft.expect <= retired.until else draft.expect)
            if draft.expect_of:
                headers += _EXPECT_OF % draft.expect_of.encode()
            if draft.headers:
                headers += _header_lines(draft.headers)
            if count > 1:
                headers += _BATCH % (batch, number)
                if number == count:
                    headers += _COMMIT
            data = draft.data[:-1] + stamp if stamp else draft.data
            if len(data) > max_bytes:  # the server closes the connection on a larger message
                message = f"too large for the server: an event of {len(data):,} bytes (max_payload: {max_bytes:,})"
                raise TooLargeError(message)
            subject = retired.published(draft.subject.encode()) if retired.until else draft.subject.encode()
            frames.append(frame(subject, data, reply_subject if number == count else b"", headers))
        return b"".join(frames)

    async def check_clock(self) -> None:
        """Check that the host's clock may stamp events.

        Raises:
            ClockError: it is more than a minute ahead of the server's.
            UnavailableError: the server does not answer.
        """
        if self._stamped:
            await self.server_time.verify()

    def _stamp(self) -> bytes:
        now = self._clock()
        self.server_time.check(now)
        self._last_stamp = max(now, self._last_stamp)
        return _STAMP + time_text(self._last_stamp).encode() + b'"}'

    def observe_recorded_time(self, data: bytes) -> None:
        """Note an event's recorded time, so that no event stamped here gets an earlier one."""
        try:
            recorded_at = parse_time(msgspec.json.decode(data, type=_RecordedTime).recordedtime)
        except (msgspec.MsgspecError, ValueError):
            return
        self._last_stamp = max(recorded_at, self._last_stamp)

    def _position_in(self, reply: bytes, drafts: Sequence[Draft]) -> int:
        if not reply:
            message = f"no stream stores {drafts[0].subject}: the server or its stream is unavailable; try again later"
            raise UnavailableError(message)
        answer = msgspec.json.decode(reply)
        if "error" not in answer:
            return int(answer["seq"]) - len(drafts) + 1
        raise jetstream_error(answer["error"], self.stream, [draft.subject for draft in drafts])

    async def _stored_before(self, drafts: Sequence[Draft]) -> int | None:
        """Return the position at which an earlier attempt stored these events in sequence, None if there is none.

        Another writer may have stored some of the same events in another batch.
        """
        first = drafts[0]
        if first.expect is None:
            return None
        found = await self.read_from_leader(first.subject, first.expect)
        if found is None or not _is_stored(first, found):
            return None
        position, stored = found.position, [found]
        if len(drafts) > 1:
            stored, _ = await self.read_batch(">", position - 1, len(drafts))
            if not all(map(_is_stored, drafts, stored)) or await self.last_position() < position + len(drafts) - 1:
                return None
        if len(stored) < len(drafts):
            raise UnavailableError(f"{self.stream} does not show the stored events yet: a replica is behind its leader")
        return position

    async def last_position(self) -> int:
        """Return the position of the newest event, 0 in an empty log."""
        info = await js_api(self.client, f"STREAM.INFO.{self.stream}")
        self._observe_stream(info)
        if self._remade is not None:
            raise self._remade
        if "error" in info:
            raise jetstream_error(info["error"], self.stream)
        return int(info["state"]["last_seq"])

    async def at(self, position: int) -> Recorded | None:
        """Return the event at a position, None if there is none; positions begin at 1."""
        if 0 < position <= self.retired.until:
            return await self._kept_elsewhere().at(position)
        found = await self._get({"seq": position}) if position > 0 else None
        if found is None:
            await self._renew_stream(_LOOKED_SECONDS)
        return found

    async def last(self, subject: str) -> Recorded | None:
        """Return the newest event of a subject, or of the subjects that match a wildcard."""
        found = await self._get({"last_by_subj": subject})
        return await self._kept_elsewhere().last(subject) if found is None and self.retired.until else found

    async def read_subject(self, subject: str, after: int = 0) -> list[Recorded]:
        """Return all events of one subject after a position, oldest first; for short subjects."""
        return [event async for batch in self.subject_batches(subject, after) for event in batch]

    async def subject_batches(self, subject: str, after: int = 0) -> AsyncIterator[list[Recorded]]:
        """Yield the events of a subject or wildcard after a position, in batches of at most 1000."""
        complete = False
        while not complete:
            batch, complete = await self.read_batch(subject, after, MAX_BATCH)
            if batch:
                after = batch[-1].position
                yield batch

    async def read_batch(self, subject: str, after: int, at_most: int) -> tuple[list[Recorded], bool]:
        """Return events of a subject or wildcard after a position, and whether they are all.

        Any replica may answer, and it may be slightly behind the acknowledged state.
        """
        earlier: list[Recorded] = []
        if after < self.retired.until:
            earlier, after = await self._kept_elsewhere().of_subject(subject, after, at_most), self.retired.until
            if len(earlier) == at_most:
                return earlier, False
            at_most -= len(earlier)
        found, end = await self._get_many({"seq": after + 1, "next_by_subj": subject, "batch": at_most})
        if subject == ">" and found and found[0].position != after + 1:  # they were lost, or have just left
            await self.require_same_stream()
        match status_of(end):
            case b"404":
                return earlier + found, True
            case b"204":
                return earlier + found, header_of(end, b"Nats-Num-Pending") in {None, b"0"} or not found
        raise status_error(status_of(end), end, f"{self.stream} could not be read")

    async def subjects(self, beginning: str) -> list[str]:
        """Return the subjects of events with a beginning that ends with a dot, in order; retired events count.

        Raises:
            UnavailableError: no answer in time.
        """
        info = await js_api(self.client, f"STREAM.INFO.{self.stream}", {"subjects_filter": f"{beginning}>"})
        found = set(info.get("state", {}).get("subjects") or {})
        if self.earlier is not None:
            found |= set(await self.earlier.subjects(beginning))
        return sorted(found)

    async def last_of_each(self, subjects: Sequence[str]) -> dict[str, Recorded]:
        """Return the newest event of each of these subjects that has one; a thousand subjects cost one request."""
        newest: dict[str, Recorded] = {}
        for start in range(0, len(subjects), MAX_BATCH):
            found, end = await self._get_many({"multi_last": subjects[start : start + MAX_BATCH]})
            if status_of(end) not in {b"204", b"404"}:
                raise status_error(status_of(end), end, f"{self.stream} could not be read")
            newest |= {event.subject: event for event in found}
        if self.retired.until:
            older = [await self._kept_elsewhere().last(subject) for subject in subjects if subject not in newest]
            newest |= {event.subject: event for event in older if event is not None}
        return newest

    async def _get_many(self, request: JsonObject) -> tuple[list[Recorded], bytes]:
        """Return the events of a direct get with many answers, and the headers of its end."""
        await self._renew_stream()
        payload = json.dumps(request).encode()
        answers, end = await self._answers_of(payload)
        if status_of(end) == b"503":  # for milliseconds, while the server reloads its configuration
            await asyncio.sleep(_AGAIN_SECONDS)
            answers, end = await self._answers_of(payload)
        return [_as_recorded(*answer) for answer in answers], end

    async def _answers_of(self, payload: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
        answers: list[tuple[bytes, bytes]] = []
        end: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()

        def on_answer(headers: bytes, data: bytes) -> None:
            if not status_of(headers):
                answers.append((headers, data))
            elif not end.done():
                end.set_result((headers, data))

        reply_subject = self._replies.new_reply_subject(on_answer)
        try:
            self.client.send(frame(self._direct, payload, reply_subject))
            headers, _ = await self._await_end(end, answers)
        except (nats.errors.Error, OSError) as error:  # a time-out is an OSError, too
            raise UnavailableError(f"{self.stream} could not be read: {reason_of(error)}") from error
        finally:
            self._replies.release(reply_subject)
        return answers, headers

    @staticmethod
    async def _await_end[T](end: asyncio.Future[T], answers: list[tuple[bytes, bytes]]) -> T:
        """Wait for the end of the batch while events keep arriving."""
        while True:
            count = len(answers)
            done, _ = await asyncio.wait((end,), timeout=_ACK_SECONDS)
            if done:
                return end.result()
            if len(answers) == count:
                raise TimeoutError

    async def read_from_leader(self, subject: str, after: int | None = None) -> Recorded | None:
        """Return a subject's newest event, or its first one after a position, as the stream's leader has it.

        This is slower than other reads, and never behind the acknowledged state.
        """
        if after is not None and after < self.retired.until:
            if earlier := await self._kept_elsewhere().of_subject(subject, after, 1):
                return earlier[0]
            after = self.retired.until
        await self._renew_stream()
        request = {"last_by_subj": subject} if after is None else {"seq": after + 1, "next_by_subj": subject}
        answer = await js_api(self.client, f"STREAM.MSG.GET.{self.stream}", request)
        if answer.get("error", {}).get("err_code") == _NO_MESSAGE:
            return await self._kept_elsewhere().last(subject) if after is None and self.retired.until else None
        if "error" in answer:
            raise jetstream_error(answer["error"], f"{self.stream} could not be read")
        found = answer["message"]
        return Recorded(found["seq"], found["subject"], base64.b64decode(found.get("data", "")))

    def _kept_elsewhere(self) -> EarlierEvents:
        if self.earlier is None:
            raise LedgerError(f"the events of {self.stream} up to position {self.retired.until} are in the archive")
        return self.earlier

    def _observe_stream(self, info: ApiAnswer) -> None:
        """Note which events have left the stream; they may not change while it is open."""
        if not self._stamped or "config" not in info:
            return
        self.copies = info["config"].get("num_replicas", 1)
        retired = retired_in(info["config"])
        if not self._opened:
            self.retired = retired
            return
        is_fenced = retired[:2] == self.retired[:2] and not retired.names  # it may be taken back
        if retired != self.retired and not is_fenced and self._remade is None:
            self._remade = StreamRemadeError(self.stream, retired.until)
            self.on_remade(self._remade)

    async def _renew_stream(self, seconds: float | None = None) -> None:
        """Look again, after half a minute or so many seconds, whether events have left the stream.

        Raises:
            StreamRemadeError: they have.
            UnavailableError: no answer in time.
        """
        if self._opened:
            await self.server_time.renew(seconds)
        if self._remade is not None:
            raise self._remade

    async def require_same_stream(self) -> None:
        """Check that no event has left the stream since it was opened.

        Raises:
            StreamRemadeError: one has.
            UnavailableError: no answer in time.
        """
        if self._opened:
            await self.server_time.measure()
        if self._remade is not None:
            raise self._remade

    async def _get(self, request: JsonObject) -> Recorded | None:
        await self._renew_stream()
        try:
            headers, data = await self._replies.request(self._direct, json.dumps(request).encode(), _ACK_SECONDS)
            if status_of(headers) == b"503":  # for milliseconds, while the server reloads its configuration
                await asyncio.sleep(_AGAIN_SECONDS)
                headers, data = await self._replies.request(self._direct, json.dumps(request).encode(), _ACK_SECONDS)
        except (nats.errors.Error, OSError) as error:  # a time-out is an OSError, too
            raise UnavailableError(f"{self.stream} could not be read: {reason_of(error)}") from error
        match status_of(headers):
            case b"404":
                return None
            case b"":
                return _as_recorded(headers, data)
        raise status_error(status_of(headers), headers, f"{self.stream} could not be read")


def _is_stored(draft: Draft, recorded: Recorded) -> bool:
    return recorded.subject == draft.subject and recorded.data.startswith(draft.data[:-1])


def _as_recorded(headers: bytes, data: bytes) -> Recorded:
    position, subject = header_of(headers, b"Nats-Sequence"), header_of(headers, b"Nats-Subject")
    if position is None or subject is None:
        raise LedgerError(f"an answer of the server lacks its sequence: {headers!r}")
    return Recorded(int(position), subject.decode(), data)


def _header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return headers as lines; line breaks in them become spaces, so that no header can be injected."""
    lines = [f"{' '.join(name.split())}: {' '.join(value.split())}\r\n" for name, value in headers]
    return "".join(lines).encode(errors="surrogateescape")
