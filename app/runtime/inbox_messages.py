"""Messages that wait in the inboxes: an operator lists them and can remove one."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from config import topology
from consumers.intake.inbox_message import Message, claimed_ids
from consumers.intake.validation import Rejection
from consumers.rejections import rejected_entry, rejected_owner, rejected_subject
from consumers.runtime.source_tokens import read_token
from ledger.encryption.keyring import Keyring
from ledger.errors import ConflictError, LedgerError, jetstream_error
from ledger.nats.client import text_of
from ledger.nats.request_reply import RequestReply
from ledger.store.cloudevents import parse_time, stored_decoder
from ledger.store.content_modes import claimed_id, headers_of
from ledger.store.log import Draft
from ledger.store.position_lookup import position_of
from ledger.store.streams import js_api, stream_names
from ledger.store.subject_tokens import fact_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.runtime.session import Session
    from domain.serialization import JsonObject
    from ledger.nats.client import LedgerClient

OPERATOR_CODE = "operator"
"""The code of a rejection by an operator."""
_NO_MESSAGE = 10037
_ANSWER_SECONDS = 5
_IN_FLIGHT_SECONDS = 0.5
"""An intake may need this long to record a message in flight."""
_REPLACED = "\N{REPLACEMENT CHARACTER}"
"""The server's JSON has this character for bytes that are not UTF-8."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCKS_APART = timedelta(minutes=1)
"""The clock of a host is at most so far ahead of the server's."""


class NotWaitingError(LedgerError):
    """The message is not in that inbox, or the intake has handled it."""


class WaitingMessage(NamedTuple):
    """A message of an inbox behind the intake's acknowledgement floor."""

    message: Message
    received: str
    """RFC 3339 time of the server's clock."""

    def document(self) -> JsonObject:
        """Return the message for a list, without its content, which may be personal."""
        stream, sequence, _ = self.message.place
        return {
            "stream": stream,
            "sequence": sequence,
            "subject": self.message.subject.encode("utf-8", "surrogateescape").decode(errors="backslashreplace"),
            "bytes": len(self.message.data),
            "received": self.received,
        }


async def inbox_names(session: Session) -> list[str]:
    """Return the inbox streams of this ledger."""
    return topology.inbox_streams(await stream_names(session.client))


async def waiting_messages(session: Session, at_most: int) -> AsyncIterator[WaitingMessage]:
    """Yield messages that the intake may not have handled, the oldest of each inbox first.

    The first of each inbox is certainly pending; a later one may have been handled.
    """
    found = 0
    for stream in await inbox_names(session):
        after = await _ack_floor(session.client, stream)
        while found < at_most:
            waiting = await _read(session.client, stream, {"seq": after + 1, "next_by_subj": ">"})
            if waiting is None:
                break
            if _REPLACED in waiting.message.subject:
                exact = await _exact_subject(session.client, waiting.message)
                waiting = waiting._replace(message=waiting.message._replace(subject=exact))
            yield waiting
            found += 1
            after = waiting.message.place.sequence


class Removal(NamedTuple):
    """The result of removing a message from its inbox."""

    kept: bool
    """True where the message was copied to REJECTED, which happens unless all its events are recorded."""
    recorded: dict[str, int]
    """Positions by id of its events that were recorded since the message arrived."""


async def reject_message(session: Session, operator: LedgerClient, stream: str, sequence: int, reason: str) -> Removal:
    """Copy a message to REJECTED with its original bytes, then remove it from its inbox.

    A message without acknowledgement whose events are all recorded is only removed. An intake that holds the message at
    this moment may still record it; the returned positions show that.

    Raises:
        NotWaitingError: the message does not exist, or the intake has handled it.

    """
    waiting = await _read(session.client, stream, {"seq": sequence})
    if waiting is None:
        raise NotWaitingError(f"{stream} has no message {sequence}; see `admin inbox list` and `admin rejected list`")
    if sequence <= await _ack_floor(session.client, stream):
        raise NotWaitingError(f"the intake has handled message {sequence} of {stream}; its receipt has the outcome")
    message = waiting.message._replace(subject=await _exact_subject(session.client, waiting.message))
    ids = claimed_ids(waiting.message.data, waiting.message.headers)
    keep = not ids or not set(ids) <= (await _recorded(session, waiting)).keys()
    if keep:
        keys = await Keyring.open(session.client)
        owner = rejected_owner(datetime.now(UTC))
        key = (await keys.ensure([owner]))[owner]
        entry = rejected_entry(Rejection(OPERATOR_CODE, "", reason), message, key)
        subject = rejected_subject(message.sender, claimed_id(message.data, message.headers), message.name)
        with suppress(ConflictError):  # rejected before, by the intake or by an interrupted command
            await session.rejected.append([Draft(subject, entry, 0)])
    answer = await js_api(operator, f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
    if "error" in answer and answer["error"].get("err_code") != _NO_MESSAGE:
        raise jetstream_error(answer["error"], stream)
    if keep and await _is_delivered(session.client, stream, sequence):
        await asyncio.sleep(_IN_FLIGHT_SECONDS)
    return Removal(keep, await _recorded(session, waiting))


async def _is_delivered(client: LedgerClient, stream: str, sequence: int) -> bool:
    """Return whether a message was delivered to an intake, which may hold it."""
    info = await js_api(client, f"CONSUMER.INFO.{stream}.{topology.INTAKE_CONSUMER}")
    return int(info.get("delivered", {}).get("stream_seq", 0)) >= sequence


async def _ack_floor(client: LedgerClient, stream: str) -> int:
    info = await js_api(client, f"CONSUMER.INFO.{stream}.{topology.INTAKE_CONSUMER}")
    return int(info.get("ack_floor", {}).get("stream_seq", 0))


async def _read(client: LedgerClient, stream: str, which: JsonObject) -> WaitingMessage | None:
    answer = await js_api(client, f"STREAM.MSG.GET.{stream}", which)
    if "error" in answer:
        if answer["error"].get("err_code") == _NO_MESSAGE:
            return None
        raise jetstream_error(answer["error"], stream)
    found = answer["message"]
    raw_headers = base64.b64decode(found.get("hdrs", ""))
    acknowledgement = f"$JS.ACK.{stream}.{topology.INTAKE_CONSUMER}.1.{found['seq']}.1.{_nanoseconds(found['time'])}.0"
    message = Message(
        found["subject"],
        base64.b64decode(found.get("data", "")),
        headers_of(raw_headers) if raw_headers else (),
        acknowledgement.encode(),
        raw_headers,
    )
    return WaitingMessage(message, found["time"])


def _nanoseconds(text: str) -> int:
    """Return a time stamp of the server as nanoseconds since 1970, as in the name of an acknowledgement."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = (parse_time(f"{whole}Z") - _EPOCH).total_seconds()
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)


async def _exact_subject(client: LedgerClient, message: Message) -> str:
    """Return the subject with bytes that are not UTF-8 as surrogates, which the server's JSON loses.

    A direct get has the subject in a header, after the headers of the sender.
    """
    stream, sequence, _ = message.place
    replies = await RequestReply.open(client)
    subject = f"$JS.API.DIRECT.GET.{stream}".encode()
    headers, _ = await replies.request(subject, json.dumps({"seq": sequence}).encode(), _ANSWER_SECONDS)
    names = [
        line[len(b"Nats-Subject:") :].strip() for line in headers.split(b"\r\n") if line.startswith(b"Nats-Subject:")
    ]
    return text_of(names[-1]) if names else message.subject


async def _position_before(session: Session, received: str, subject: str) -> int:
    """Return a position before everything that was recorded on a subject since a time."""
    if session.log.earlier is not None:  # the server does not know when retired events were stored
        since = (parse_time(received) - _CLOCKS_APART).isoformat()
        return await position_of(session.log, since, await session.log.last_position(), first=True) - 1
    first = await _read(session.client, topology.LEDGER, {"start_time": received, "next_by_subj": subject})
    return await session.log.last_position() if first is None else first.message.place.sequence - 1


async def _recorded(session: Session, waiting: WaitingMessage) -> dict[str, int]:
    """Return the positions of a message's events by id, if recorded after the inbox received the message.

    The log is read instead of the intake's index, which may be missing or behind.
    """
    message, found = waiting.message, dict[str, int]()
    ids = {identifier for identifier in claimed_ids(message.data, message.headers) if identifier}
    if not ids or message.sender != message.token:
        return found
    source = read_token(message.token).source
    for subject in {f"{topology.FACT_SUBJECT}.{token}" for token in (fact_token(source), message.token)}:
        after = await _position_before(session, waiting.received, subject)
        async for batch in session.log.subject_batches(subject, after):
            stored = [(one.position, stored_decoder.decode(one.data)) for one in batch]
            found |= {event.id: position for position, event in stored if event.id in ids}
    return found
