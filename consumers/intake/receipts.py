"""Receipts: the outcome of an event, by its id, and of a message, by its place in the inbox.

An answer that is not final rests on the inbox itself: its messages behind the intake's ack floor are read before
anything else is looked up. A message leaves that part of the inbox only after its outcome is stored; so an event that
is in neither was never sent.
"""

from __future__ import annotations

import asyncio
import base64
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from config import topology
from consumers.intake.inbox_message import batch_in, claimed_ids
from consumers.intake.validation import wrong_token
from consumers.rejections import RejectedEntry, id_token
from consumers.runtime.request_form import read_question
from consumers.runtime.source_tokens import read_token, request_refusal
from domain.commands import RequestError
from domain.serialization import encode
from ledger.errors import UnavailableError
from ledger.store.cloudevents import event_key, stored_decoder
from ledger.store.content_modes import Headers, claimed_id, headers_of
from ledger.store.streams import js_api
from ledger.store.subject_tokens import NO_SOURCE, fact_token, is_source_token, token_of_source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumers.intake.recorder import Intake
    from ledger.encryption.keyring import Keyring
    from ledger.nats.client import LedgerClient
    from ledger.store.event_id_index import EventIdIndex
    from ledger.store.log import Log

_IDS_AT_MOST = 1000
_READ_AT_MOST = 100
"""Waiting messages of one source that are read for one receipt: 48 KiB each at most."""
_SEQUENCE_AT_MOST = 2**63 - 1
_PART = 6
"""Index of the token with the number in a batch, in a subject of REJECTED."""


class ReceiptRequest(msgspec.Struct, frozen=True):
    """Which events or message: one ``id``, up to 1000 ``ids``, or ``stream`` and ``seq`` as the PubAck names them.

    ``source`` tells which is meant where sources share an old token. Any text may be asked for: also an id that no
    event may have has a receipt, which says so.
    """

    id: str | None = None
    ids: tuple[str, ...] = ()
    source: str | None = None
    stream: str | None = None
    seq: int | None = None


class _Asker(NamedTuple):
    """The source that asks, and the tokens that only its messages have."""

    source: str
    tokens: frozenset[str]

    @property
    def subjects(self) -> frozenset[str]:
        """The subjects of its messages in every inbox."""
        return frozenset(f"{topology.INBOX_SUBJECT}.{token}" for token in self.tokens)

    @property
    def inboxes(self) -> tuple[str, ...]:
        """The streams in which its messages wait; one that is not there holds nothing."""
        return topology.INBOX, topology.source_stream_name(token_of_source(self.source)), topology.IMPORT


class _Waiting(NamedTuple):
    """Ids of messages that the intake has not dealt with; ``more`` where there may be others."""

    ids: frozenset[str]
    more: bool


class _Held(NamedTuple):
    """A message that the inbox still has."""

    sequence: int
    subject: str
    data: bytes
    headers: Headers


_NONE_WAITING = _Waiting(frozenset(), more=False)


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
            RequestError, FieldError: it asks for nothing, or for another source's.
            UnavailableError: the server is away.

        """
        request = read_question(ReceiptRequest, body)
        ids = request.ids or ((request.id,) if request.id is not None else ())
        by_place = request.stream is not None and request.seq is not None
        if by_place == bool(ids) or (not by_place and not 0 < len(ids) <= _IDS_AT_MOST):
            rule = f"name one `id`, up to {_IDS_AT_MOST} `ids`, or `stream` and `seq` as the PubAck has them"
            raise RequestError("invalid", rule, "id")
        asker = await self._asker(token, request.source, by_place=by_place)
        if request.stream is not None and request.seq is not None:
            return encode(await self._of_message(asker, request.stream, request.seq))
        outcomes = await self._of_events(asker, ids)
        items = [{"id": identifier} | outcomes[identifier] for identifier in ids]
        return encode({"items": items} if request.ids else items[0])

    async def _asker(self, token: str, source: str | None, *, by_place: bool) -> _Asker:
        if (refusal := request_refusal(token)) is not None and not await self._is_known(token):
            if by_place and source is None and is_source_token(token) and token != NO_SOURCE:
                return _Asker(token, frozenset({token}))  # the messages under it are rejected: their sender hears so
            raise refusal
        if source is not None and token not in (token_of_source(source), fact_token(source)):
            raise RequestError("source_mismatch", wrong_token(token, source), "source")
        sources = [source] if source is not None else await self._intake.sources_behind(token)
        if len(sources) > 1:  # earlier versions gave several sources this token; now it is that of one, known or not
            sources = [read_token(token).source]
        tokens = {token, token_of_source(sources[0])}
        if self._index.sources_with_token(fact_token(sources[0])) == sources:
            tokens.add(fact_token(sources[0]))  # no other source's messages can be there
        return _Asker(sources[0], frozenset(tokens))

    async def _is_known(self, token: str) -> bool:
        """Return whether a source, of which an earlier version took an event, has this token."""
        return is_source_token(token) and bool(
            self._intake.known.intersection(await self._intake.sources_behind(token))
        )

    # ------------------------------------------------------------------ by id

    async def _of_events(self, asker: _Asker, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the outcome of each id."""
        wanted = tuple(dict.fromkeys(ids))
        found = self._recorded(asker, wanted)
        missing = [identifier for identifier in wanted if identifier not in found]
        if missing:
            waiting = await self._waiting(asker)
            await self._intake.catch_up(f"{topology.FACT_SUBJECT}.{fact_token(asker.source)}")
            found |= self._recorded(asker, missing)
            rest = [identifier for identifier in missing if identifier not in found]
            outcomes = await asyncio.gather(
                *(
                    self._unrecorded(asker, identifier, waits=identifier in waiting.ids, may_wait=waiting.more)
                    for identifier in rest
                )
            )
            found |= zip(rest, outcomes, strict=True)
        return found

    def _recorded(self, asker: _Asker, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        keys = {event_key(asker.source, identifier): identifier for identifier in ids}
        return {
            keys[key]: {"status": "recorded", "position": entry.position}
            for key, entry in self._index.find(list(keys)).items()
        }

    async def _unrecorded(self, asker: _Asker, identifier: str, *, waits: bool, may_wait: bool) -> dict[str, Any]:
        if waits:
            return {"status": "pending"}
        if not identifier:  # all that has no readable id is kept under it
            return {"status": "unknown"}
        subjects = [f"{topology.REJECTED_SUBJECT}.{token}.{id_token(identifier)}.>" for token in asker.tokens]
        rejections = [one for subject in subjects if (one := await self._rejected.last(subject)) is not None]
        if not rejections and not may_wait:  # a replica may be behind what another intake stored
            rejections = [
                one for subject in subjects if (one := await self._rejected.read_from_leader(subject)) is not None
            ]
        if rejections:
            return _rejected(max(rejections).data)
        return {"status": "pending" if may_wait else "unknown"}

    async def _waiting(self, asker: _Asker) -> _Waiting:
        found = [await self._waiting_in(stream, subject) for stream in asker.inboxes for subject in asker.subjects]
        return _Waiting(frozenset[str]().union(*(one.ids for one in found)), any(one.more for one in found))

    async def _waiting_in(self, stream: str, subject: str) -> _Waiting:
        last = await self._message(stream, {"last_by_subj": subject})
        if last is None:
            return _NONE_WAITING
        after, ids = await self._floor(stream), set[str]()
        for _ in range(_READ_AT_MOST):
            if after >= last.sequence:
                return _Waiting(frozenset(ids), more=False)
            found = await self._message(stream, {"seq": after + 1, "next_by_subj": subject})
            if found is None:  # trimmed meanwhile
                return _Waiting(frozenset(ids), more=False)
            ids.update(claimed_ids(found.data, found.headers))
            after = found.sequence
        return _Waiting(frozenset(ids), more=after < last.sequence)

    async def _floor(self, stream: str) -> int:
        """Return the sequence up to which the intake has dealt with all messages of an inbox."""
        info = await js_api(self._client, f"CONSUMER.INFO.{stream}.{topology.INTAKE_CONSUMER}")
        return int(info.get("ack_floor", {}).get("stream_seq", 0))

    async def _message(self, stream: str, which: dict[str, Any]) -> _Held | None:
        """Return a message of an inbox as its leader has it; None where there is none.

        Not by direct get: among its answer's headers those of the sender come first.
        """
        answer = await js_api(self._client, f"STREAM.MSG.GET.{stream}", which)
        if "error" in answer:
            if answer["error"].get("code") == HTTPStatus.NOT_FOUND:
                return None
            message = f"{stream} could not be read: {answer['error'].get('description')}"
            raise UnavailableError(message)
        message = answer["message"]
        headers = headers_of(base64.b64decode(message.get("hdrs", "")))
        return _Held(message["seq"], message["subject"], base64.b64decode(message.get("data", "")), headers)

    # ------------------------------------------------------------------ by place

    async def _of_message(self, asker: _Asker, stream: str, sequence: int) -> dict[str, Any]:
        """Return the outcome of a message: of its event, or of each event of its batch."""
        place = {"stream": stream, "seq": sequence}
        if stream not in asker.inboxes or not 0 < sequence <= _SEQUENCE_AT_MOST:
            return place | {"status": "unknown"}
        held = await self._message(stream, {"seq": sequence})
        floor = await self._floor(stream)
        found, complete = await self._stored(asker, stream, sequence)
        own = held is not None and held.subject in asker.subjects
        if own and sequence > floor and not complete:
            return place | {"status": "pending"}
        if found is None and own and held is not None:  # another intake took it
            found = await self._of_held(asker, held)
        return place | (found or {"status": "unknown"})

    async def _of_held(self, asker: _Asker, held: _Held) -> dict[str, Any]:
        """Return the outcome of a message that the inbox still has, by the ids in it."""
        ids = claimed_ids(held.data, held.headers)
        outcomes = await self._of_events(asker, ids)
        items = [{"id": identifier} | outcomes[identifier] for identifier in ids]
        return items[0] if batch_in(held.data, held.headers) is None else _together(items)

    async def _stored(self, asker: _Asker, stream: str, sequence: int) -> tuple[dict[str, Any] | None, bool]:
        """Return the stored outcome of a message, None where there is none, and whether it is complete.

        The intake stores rejections, then recorded places, then the size of a batch. They are read in reverse.
        """
        batch = self._intake.places.batch_of(stream, sequence)
        keys = self._intake.places.keys_of(stream, sequence)
        recorded = self._index.find(list(keys.values()))
        items = {} if 0 in keys else await self._rejections(asker, stream, sequence)
        for part, key in keys.items():
            if part not in items and key in recorded:
                stored = await self._log.at(recorded[key].position)
                event = stored_decoder.decode(stored.data) if stored is not None else None
                if event is not None and event.source == asker.source:
                    items[part] = {"id": event.id, "status": "recorded", "position": recorded[key].position}
        if batch is not None and batch.token in asker.tokens:
            return _together([items.get(part, {"status": "unknown"}) for part in range(1, batch.events + 1)]), True
        if not items:
            return None, False
        return items.get(0) or _together([items[part] for part in sorted(items)]), 0 in items

    async def _rejections(self, asker: _Asker, stream: str, sequence: int) -> dict[int, dict[str, Any]]:
        """Return the rejected events of a message, by their number in the batch."""
        found: dict[int, dict[str, Any]] = {}
        noted = self._intake.places.rejections_of(stream, sequence)
        for number, subject in noted.items():
            if subject.split(".")[1] in asker.tokens:
                entry = await self._rejected.last(subject) or await self._rejected.read_from_leader(subject)
                if entry is not None:
                    found[number] = await self._claimed(entry.data) | _rejected(entry.data)
        for token in () if noted else asker.tokens:  # another intake took it, or it is long ago
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

    async def _claimed(self, data: bytes) -> dict[str, Any]:
        """Return the id that a rejected event claims to have, where one can be read."""
        entry = msgspec.json.decode(await self._keys.decrypt_fields(data), type=RejectedEntry)
        try:
            identifier = claimed_id(base64.b64decode(entry.data, validate=True), entry.original_headers)
        except ValueError:  # its key is gone
            return {}
        return {"id": identifier} if identifier else {}


def _rejected(data: bytes) -> dict[str, Any]:
    """Return the receipt in an entry of the stream REJECTED."""
    entry = msgspec.json.decode(data, type=RejectedEntry)
    return {"status": "rejected", "error": {"code": entry.code, "message": entry.message, "field": entry.field}}


def _together(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the receipt of a batch: recorded where all of its events are, rejected where one of them is."""
    statuses = {item["status"] for item in items}
    status = next((one for one in ("rejected", "unknown", "pending") if one in statuses), "recorded")
    return {"status": status, "items": items}
