"""Receipts: the outcome of an event, by its id, and of a message, by its place in the inbox.

A message leaves the inbox's unacknowledged part only after its outcome is stored. So that part is read first, and the
outcomes afterwards: an event in neither was never sent.
"""

from __future__ import annotations

import asyncio
import base64
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from config import topology
from consumers.intake.inbox_message import batch_in, claimed_ids
from consumers.intake.inboxes import ack_floor
from consumers.intake.validation import wrong_token
from consumers.rejections import RejectedEntry, id_token
from consumers.runtime.request_form import read_query
from consumers.runtime.source_tokens import read_token, request_refusal
from domain.commands import ReceiptRequest, RequestError
from domain.serialization import encode
from ledger.errors import UnavailableError
from ledger.store.cloudevents import event_key, stored_decoder
from ledger.store.content_modes import Headers, claimed_id, headers_of
from ledger.store.streams import js_api
from ledger.store.subject_tokens import NO_SOURCE, fact_token, is_source_token, token_of_source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumers.intake.recorder import Intake
    from domain.serialization import JsonObject
    from ledger.encryption.keyring import Keyring
    from ledger.nats.client import LedgerClient
    from ledger.store.event_id_index import EventIdIndex
    from ledger.store.log import Log

_IDS_AT_MOST = 1000
_READ_AT_MOST = 100
"""Unacknowledged messages of one source to read for one receipt, of at most 48 KiB each."""
_SEQUENCE_AT_MOST = 2**63 - 1
_PART = 6
"""Index of the subject token with the number in a batch, in the stream REJECTED."""


class _Requester(NamedTuple):
    """The source of a request for receipts, and the tokens that only its messages have."""

    source: str
    tokens: frozenset[str]

    @property
    def subjects(self) -> frozenset[str]:
        """The subjects of its messages in each inbox."""
        return frozenset(f"{topology.INBOX_SUBJECT}.{token}" for token in self.tokens)

    @property
    def inboxes(self) -> tuple[str, ...]:
        """The streams that may hold its messages; some may not exist."""
        return topology.INBOX, topology.source_stream_name(token_of_source(self.source)), topology.IMPORT


class _Unacknowledged(NamedTuple):
    """The ids of unacknowledged messages; ``more``: there may be others."""

    ids: frozenset[str]
    more: bool


class _InboxMessage(NamedTuple):
    """A message that is still in an inbox."""

    sequence: int
    subject: str
    data: bytes
    headers: Headers


_ALL_ACKNOWLEDGED = _Unacknowledged(frozenset(), more=False)


class Receipts:
    """Answers requests for receipts."""

    def __init__(
        self, client: LedgerClient, log: Log, rejected: Log, index: EventIdIndex, keys: Keyring, intake: Intake
    ) -> None:
        self._client = client
        self._log = log
        self._rejected = rejected
        self._index = index
        self._keys = keys
        self._intake = intake

    async def answer(self, token: str, body: bytes) -> bytes:
        """Return the receipts that a request of a source asks for.

        Raises:
            RequestError, FieldError: the request names no event, or another source's.
            UnavailableError: the server does not answer.

        """
        request = read_query(ReceiptRequest, body)
        ids = request.ids or ((request.id,) if request.id is not None else ())
        by_place = request.stream is not None and request.seq is not None
        if by_place == bool(ids) or (not by_place and not 0 < len(ids) <= _IDS_AT_MOST):
            rule = f"name one `id`, up to {_IDS_AT_MOST} `ids`, or `stream` and `seq` as the PubAck has them"
            raise RequestError("invalid", rule, "id")
        requester = await self._requester(token, request.source, by_place=by_place)
        if request.stream is not None and request.seq is not None:
            return encode(await self._of_message(requester, request.stream, request.seq))
        outcomes = await self._of_events(requester, ids)
        items = [{"id": identifier} | outcomes[identifier] for identifier in ids]
        return encode({"items": items} if request.ids else items[0])

    async def _requester(self, token: str, source: str | None, *, by_place: bool) -> _Requester:
        if (refusal := request_refusal(token)) is not None and not await self._is_known(token):
            if by_place and source is None and is_source_token(token) and token != NO_SOURCE:
                return _Requester(token, frozenset({token}))  # its messages are rejected, and their receipts say so
            raise refusal
        if source is not None and token not in (token_of_source(source), fact_token(source)):
            raise RequestError("source_mismatch", wrong_token(token, source), "source")
        sources = [source] if source is not None else await self._intake.sources_behind(token)
        if len(sources) > 1:  # earlier versions shared this token; now it belongs to one of them
            sources = [read_token(token).source]
        tokens = {token, token_of_source(sources[0])}
        old = fact_token(sources[0])
        if not read_token(old).is_own and self._index.sources_with_token(old) == sources:
            tokens.add(old)  # no other source has it, or will have it
        return _Requester(sources[0], frozenset(tokens))

    async def _is_known(self, token: str) -> bool:
        """Return whether this is the token of a source with an event from an earlier version."""
        return is_source_token(token) and bool(
            self._intake.known.intersection(await self._intake.sources_behind(token))
        )

    # ------------------------------------------------------------------ by id

    async def _of_events(self, requester: _Requester, ids: Iterable[str]) -> dict[str, JsonObject]:
        """Return the receipt of each id."""
        wanted = tuple(dict.fromkeys(ids))
        found = self._recorded(requester, wanted)
        missing = [identifier for identifier in wanted if identifier not in found]
        if missing:
            waiting = await self._waiting(requester)
            await self._intake.catch_up(f"{topology.FACT_SUBJECT}.{fact_token(requester.source)}")
            found |= self._recorded(requester, missing)
            rest = [identifier for identifier in missing if identifier not in found]
            outcomes = await asyncio.gather(
                *(
                    self._unrecorded(requester, identifier, waits=identifier in waiting.ids, may_wait=waiting.more)
                    for identifier in rest
                )
            )
            found |= zip(rest, outcomes, strict=True)
        return found

    def _recorded(self, requester: _Requester, ids: Iterable[str]) -> dict[str, JsonObject]:
        keys = {event_key(requester.source, identifier): identifier for identifier in ids}
        return {
            keys[key]: {"status": "recorded", "position": entry.position}
            for key, entry in self._index.find(list(keys)).items()
        }

    async def _unrecorded(self, requester: _Requester, identifier: str, *, waits: bool, may_wait: bool) -> JsonObject:
        if waits:
            return {"status": "pending"}
        if not identifier:  # all rejections without a readable id have the empty id
            return {"status": "unknown"}
        subjects = [f"{topology.REJECTED_SUBJECT}.{token}.{id_token(identifier)}.>" for token in requester.tokens]
        rejections = [one for subject in subjects if (one := await self._rejected.last(subject)) is not None]
        if not rejections and not may_wait:  # the replica may be behind its leader
            rejections = [
                one for subject in subjects if (one := await self._rejected.read_from_leader(subject)) is not None
            ]
        if rejections:
            return _rejected(max(rejections).data)
        return {"status": "pending" if may_wait else "unknown"}

    async def _waiting(self, requester: _Requester) -> _Unacknowledged:
        found = [
            await self._waiting_in(stream, subject) for stream in requester.inboxes for subject in requester.subjects
        ]
        return _Unacknowledged(frozenset[str]().union(*(one.ids for one in found)), any(one.more for one in found))

    async def _waiting_in(self, stream: str, subject: str) -> _Unacknowledged:
        last = await self._message(stream, {"last_by_subj": subject})
        if last is None:
            return _ALL_ACKNOWLEDGED
        after, ids = await ack_floor(self._client, stream), set[str]()
        for _ in range(_READ_AT_MOST):
            if after >= last.sequence:
                return _Unacknowledged(frozenset(ids), more=False)
            found = await self._message(stream, {"seq": after + 1, "next_by_subj": subject})
            if found is None:  # trimmed meanwhile
                return _Unacknowledged(frozenset(ids), more=False)
            ids.update(claimed_ids(found.data, found.headers))
            after = found.sequence
        return _Unacknowledged(frozenset(ids), more=after < last.sequence)

    async def _message(self, stream: str, query: JsonObject) -> _InboxMessage | None:
        """Return a message of an inbox from the stream's leader, or ``None``.

        A direct get is no option, because the sender's headers precede the server's in its answer.
        """
        answer = await js_api(self._client, f"STREAM.MSG.GET.{stream}", query)
        if "error" in answer:
            if answer["error"].get("code") == HTTPStatus.NOT_FOUND:
                return None
            message = f"{stream} could not be read: {answer['error'].get('description')}"
            raise UnavailableError(message)
        found = answer["message"]
        headers = headers_of(base64.b64decode(found.get("hdrs", "")))
        return _InboxMessage(found["seq"], found["subject"], base64.b64decode(found.get("data", "")), headers)

    # ------------------------------------------------------------------ by place

    async def _of_message(self, requester: _Requester, stream: str, sequence: int) -> JsonObject:
        """Return the receipt of a message: of its event, or of each event of its batch."""
        place = {"stream": stream, "seq": sequence}
        if stream not in requester.inboxes or not 0 < sequence <= _SEQUENCE_AT_MOST:
            return place | {"status": "unknown"}
        message = await self._message(stream, {"seq": sequence})
        floor = await ack_floor(self._client, stream)
        found, complete = await self._stored(requester, stream, sequence)
        own = message is not None and message.subject in requester.subjects
        if own and sequence > floor and not complete:
            return place | {"status": "pending"}
        if found is None and own and message is not None:  # another intake recorded it
            found = await self._of_inbox_message(requester, message)
        return place | (found or {"status": "unknown"})

    async def _of_inbox_message(self, requester: _Requester, message: _InboxMessage) -> JsonObject:
        """Return the receipt of a message that is still in the inbox, by the ids in it."""
        ids = claimed_ids(message.data, message.headers)
        outcomes = await self._of_events(requester, ids)
        items = [{"id": identifier} | outcomes[identifier] for identifier in ids]
        return items[0] if batch_in(message.data, message.headers) is None else _together(items)

    async def _stored(self, requester: _Requester, stream: str, sequence: int) -> tuple[JsonObject | None, bool]:
        """Return the stored receipt of a message, or ``None``, and whether it is complete.

        The intake stores rejections, then places, then the size of a batch. So this reads them in reverse order.
        """
        batch = self._intake.places.batch_of(stream, sequence)
        keys = self._intake.places.keys_of(stream, sequence)
        recorded = self._index.find(list(keys.values()))
        items = {} if 0 in keys else await self._rejections(requester, stream, sequence)
        for part, key in keys.items():
            if part not in items and key in recorded:
                stored = await self._log.at(recorded[key].position)
                event = stored_decoder.decode(stored.data) if stored is not None else None
                if event is not None and event.source == requester.source:
                    items[part] = {"id": event.id, "status": "recorded", "position": recorded[key].position}
        if batch is not None and batch.token in requester.tokens:
            return _together([items.get(part, {"status": "unknown"}) for part in range(1, batch.events + 1)]), True
        if not items:
            return None, False
        return items.get(0) or _together([items[part] for part in sorted(items)]), 0 in items

    async def _rejections(self, requester: _Requester, stream: str, sequence: int) -> dict[int, JsonObject]:
        """Return the receipts of a message's rejected events, by their number in the batch."""
        found: dict[int, JsonObject] = {}
        noted = self._intake.places.rejections_of(stream, sequence)
        for number, subject in noted.items():
            if subject.split(".")[1] in requester.tokens:
                entry = await self._rejected.last(subject) or await self._rejected.read_from_leader(subject)
                if entry is not None:
                    found[number] = await self._claimed(entry.data) | _rejected(entry.data)
        for token in () if noted else requester.tokens:  # another intake rejected it, or its place is no longer kept
            subject = f"{topology.REJECTED_SUBJECT}.{token}.*.{stream}.{sequence}.>"
            entries = await self._rejected.read_subject(subject)
            if (
                not entries and (last := await self._rejected.read_from_leader(subject)) is not None
            ):  # a replica was behind
                entries = await self._rejected.read_subject(subject) or [last]
            for one in entries:
                part = one.subject.split(".")[_PART:]
                found[int(part[0]) if part else 0] = await self._claimed(one.data) | _rejected(one.data)
        return found

    async def _claimed(self, data: bytes) -> JsonObject:
        """Return the id that a rejected event claims to have, if it can be read."""
        entry = msgspec.json.decode(await self._keys.decrypt_fields(data), type=RejectedEntry)
        try:
            identifier = claimed_id(base64.b64decode(entry.data, validate=True), entry.original_headers)
        except ValueError:  # its key is destroyed
            return {}
        return {"id": identifier} if identifier else {}


def _rejected(data: bytes) -> JsonObject:
    """Return the receipt of an entry of the stream REJECTED."""
    entry = msgspec.json.decode(data, type=RejectedEntry)
    return {"status": "rejected", "error": {"code": entry.code, "message": entry.message, "field": entry.field}}


def _together(items: list[JsonObject]) -> JsonObject:
    """Return the receipt of a batch: recorded if all of its events are, rejected if one of them is."""
    statuses = {item["status"] for item in items}
    status = next((one for one in ("rejected", "unknown", "pending") if one in statuses), "recorded")
    return {"status": status, "items": items}
