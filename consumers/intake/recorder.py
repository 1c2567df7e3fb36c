"""The recorder of the intake: appends each valid event of a message once, and rejected events to REJECTED."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from config import topology
from consumers.intake.inbox_message import events_in, is_from_operator
from consumers.intake.places import EventPlaces
from consumers.intake.validation import Accepted, Rejection, accept, check_correction, mismatch
from consumers.privacy.field_encryption import encrypt_correction, encrypt_facts, encrypted_texts
from consumers.rejections import rejected_entry, rejected_owner, rejected_subject
from consumers.runtime.precedence import Precedence
from consumers.runtime.source_tokens import read_token
from domain.sources import SIGNED_IN_SOURCE
from ledger.errors import ConflictError, LedgerError, LostEventsError, TooLargeError, UnavailableError
from ledger.store.atomic_batches import in_batches
from ledger.store.cloudevents import event_key, stored_decoder, with_corrects, with_via
from ledger.store.content_modes import IMPORT_HEADER, claimed_id
from ledger.store.duplicate_events import content_hash, same_event
from ledger.store.event_id_index import EventIdEntry, EventIdIndex, PackedEntries
from ledger.store.log import Draft, Log, Recorded, digest_of
from ledger.store.role_totals import LabelledTotals
from ledger.store.subject_tokens import fact_token, is_source_token
from ledger.store.subscription import START, ReadCursor, verify_cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from consumers.intake.inbox_message import Message
    from consumers.intake.places import BatchPlace, EventPlace
    from consumers.runtime.source_watch import SourceWatch
    from domain.events.facts import FactCorrected
    from ledger.encryption.keyring import Key, Keyring

_log = logging.getLogger(__name__)
_RUN = re.compile(r"[0-9a-f]{12}", re.ASCII)
"""The id of an import."""
_AT_ONCE = 250
"""Events that are recorded together; decisions in this process wait while they are compared, sent and indexed."""
EVENTS_A_TURN = 25
"""Events that are validated before the event loop turns to others, such as decisions."""
_ENTRIES_A_COMMIT = 1_000_000
"""Entries that catch-ups hold at most, 40 MB of them. Their keys are random, so that more of them share each page of
the index: in ten million entries a page is written once for a dozen new ones."""
_REPLICA_BEHIND_SECONDS = (0, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 1, 0)


class Intake:
    """Records facts from messages, in their order. `consumers/intake/lanes.py` handles its errors."""

    def __init__(
        self,
        log: Log,
        rejected: Log,
        index: EventIdIndex,
        keys: Keyring,
        sources: SourceWatch,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._rejected = rejected
        self._index = index
        self._keys = keys
        self._sources = sources
        self._clock = clock
        self.places = EventPlaces(index)
        self.precedence = Precedence()
        self.recorded = LabelledTotals("facts_recorded")
        """Facts that this process has recorded."""
        self.rejected = LabelledTotals("facts_rejected")
        """Events that this process has rejected, by code; a message that is delivered again is counted again."""
        self._current: set[str] = set()
        self._catching_up = WeakValueDictionary[str, asyncio.Lock]()
        self._readings = 0
        self.known = set(index.sources(f"{topology.FACT_SUBJECT}."))
        """Sources with at least one recorded event."""
        self.on_source: Callable[[str], None] = lambda _source: None
        """Called with each new known source."""

    async def take(self, messages: Sequence[Message]) -> None:
        """Record or reject each of these messages, in their order; then all may be acknowledged.

        Raises:
            ConflictError: another intake has written; retry.
            UnavailableError: the server does not answer, a disk is full, or the host's clock is wrong; retry later.
            LostEventsError: the log has lost recorded events; nothing more of that source is recorded.
            LedgerError: one of them can never be recorded; ``take_singly`` finds it.

        """
        await self._log.check_clock()  # the validation depends on the time
        events: list[Message] = []
        batches: list[tuple[EventPlace, BatchPlace]] = []
        for message in messages:
            found, batch = events_in(message)
            events += found
            if batch is not None:
                batches.append((message.place, batch))
            if len(events) >= _AT_ONCE:
                await self._take_and_rest(events)
                events = []
        await self._take_and_rest(events)
        self.places.note_batches(batches)

    async def _take_and_rest(self, events: Sequence[Message]) -> None:
        begun = time.monotonic()
        await self._take(events)
        await self.precedence.give_way(time.monotonic() - begun)

    async def take_singly(self, message: Message) -> None:
        """Record a message event by event; reject an event that can never be recorded, and continue with the next.

        Raises:
            ConflictError, UnavailableError, LostEventsError: as in ``take``.
            Exception: an event could be neither recorded nor rejected.

        """
        events, batch = events_in(message)
        for event in events:
            await self._take_alone(event)
        if batch is not None:
            self.places.note_batches([(message.place, batch)])

    async def _take_alone(self, event: Message) -> None:
        try:
            await self._take([event])
        except (ConflictError, UnavailableError, LostEventsError):
            raise
        except TooLargeError as error:
            await self._reject([(Rejection("too_large", "", str(error)), event)])
        except Exception as error:  # noqa: BLE001 - recorded as a rejection; later events must not wait for it
            _log.exception("a message of %s could not be recorded", event.subject)
            text = f"an error of ours ({type(error).__name__}: {error}); see the log, and retry after an upgrade"
            await self._reject([(Rejection("internal", "", text), event)])

    async def _take(self, events: Sequence[Message]) -> None:
        accepted: list[tuple[Accepted, Message]] = []
        rejected: list[tuple[Rejection, Message]] = []
        now = self._clock()
        for number, message in enumerate(events):
            if number % EVENTS_A_TURN == EVENTS_A_TURN - 1:
                await asyncio.sleep(0)  # decisions in this process come first
            result = _validated(message, now)
            if isinstance(result, Rejection):
                rejected.append((result, message))
            else:
                accepted.append((result, message))
        try:
            refused = await self._record(await self._encrypted(accepted))
        except ConflictError as error:  # read the other intake's events before the next attempt
            self._current.difference_update(error.subjects)
            raise
        except LedgerError:
            self._current.clear()
            raise
        await self._reject([*rejected, *refused])
        unrecorded = {message.place for _, message in refused}
        recorded = ((message.place, fact.key) for fact, message in accepted)
        self.places.note([(place, key) for place, key in recorded if place not in unrecorded])

    async def _record(self, accepted: list[tuple[Accepted, Message]]) -> list[tuple[Rejection, Message]]:
        subjects = {f"{topology.FACT_SUBJECT}.{fact.token}" for fact, _ in accepted}
        for subject in subjects - self._current:
            await self.catch_up(subject)
        known = dict(self._index.find([fact.key for fact, _ in accepted]))
        fresh: list[Accepted] = []
        first: dict[bytes, Accepted] = {}  # of each key in this batch
        refused: list[tuple[Rejection, Message]] = []
        for fact, message in accepted:
            if fact.by_old_token and not self._is_sole_owner(fact):
                refused.append((mismatch(message.token, fact.source), message))
                continue
            if len(fact.json) > topology.MAX_ENCRYPTED_BYTES:
                text = "with its personal data encrypted the event is too large; send less of it"
                refused.append((Rejection("too_large", "data", text), message))
                continue
            entry = known.get(fact.key)
            differs = entry is not None and (fact.rounded or entry.content != fact.content)
            if differs and entry is not None and not await self._is_same(fact, entry, first):
                text = f"{fact.source} has sent another event with the id {fact.id!r}; give this one a new id"
                refused.append((Rejection("id_reused", "id", text), message))
            if entry is not None:
                continue
            rejection = fact.flaw or (None if fact.by_operator else await self._source_rejection(fact, fact.type))
            if rejection is not None:
                refused.append((rejection, message))
                continue
            known[fact.key], first[fact.key] = EventIdEntry(fact.key, 0, fact.content), fact
            if fact.corrects is None:
                fresh.append(fact)
                continue
            await self._append_all(fresh)  # the corrected fact may be among them
            fresh.clear()
            if (rejection := await self._correct(fact, fact.corrects)) is not None:
                del known[fact.key]
                refused.append((rejection, message))
        await self._append_all(fresh)
        return refused

    async def _encrypted(self, accepted: list[tuple[Accepted, Message]]) -> list[tuple[Accepted, Message]]:
        """Return the facts with their personal data encrypted."""
        if not any(fact.personal for fact, _ in accepted):
            return accepted
        facts = await encrypt_facts(self._keys, [fact for fact, _ in accepted])
        return [(fact, message) for fact, (_, message) in zip(facts, accepted, strict=True)]

    async def _is_same(self, fact: Accepted, entry: EventIdEntry, first: Mapping[bytes, Accepted]) -> bool:
        """Return whether an event with another hash is the same as the first event with its id, as far as known.

        It may be written in another content mode, or be recorded before attributes were encrypted. ``first`` holds the
        events of this batch.
        """
        if entry.position == 0:
            known = first[fact.key].json
        else:
            stored = await self._log.at(entry.position)
            if stored is None or stored_decoder.decode(stored.data).type != fact.type:
                return False
            known = stored.data
            if await self._keys.has_destroyed_key(encrypted_texts(known)):
                return True  # the person was forgotten, so nothing is left to compare
        return same_event(await self._keys.decrypt_fields(known), await self._keys.decrypt_fields(fact.json))

    def _is_sole_owner(self, fact: Accepted) -> bool:
        """Return whether a fact under an old token is certainly of its source; registered ones use their own token."""
        if self._sources.registry.source(fact.source) is not None:
            return False
        return self._index.sources_with_token(fact.token) == [fact.source]

    async def _source_rejection(self, fact: Accepted, type_name: str) -> Rejection | None:
        """Return the rejection of a type of fact that its source may not send; it can be retried later."""
        if self._sources.registry.fact_refusal(fact.source, type_name) is None:
            return None
        await self._sources.read_again()  # its rights may have been widened a moment ago
        refusal = self._sources.registry.fact_refusal(fact.source, type_name)
        return None if refusal is None else Rejection("source_not_allowed", "type", refusal)

    async def _correct(self, fact: Accepted, correction: FactCorrected) -> Rejection | None:
        """Record a correction with the position of the corrected fact; return a rejection if that is impossible."""
        key = event_key(correction.source_of, correction.id_of)
        found = self._index.find([key]).get(key)
        if found is None:
            text = f"no fact {correction.id_of!r} of yours is recorded; it must be, before it can be corrected"
            return Rejection("unknown_fact", "data.id_of", text)
        original = await self._log.at(found.position)
        if original is None:
            raise LostEventsError("a fact that was recorded is gone", found.position)
        if (rejection := check_correction(correction, original.data)) is not None:
            return rejection
        if not fact.by_operator:
            corrected = stored_decoder.decode(original.data).type
            if (rejection := await self._source_rejection(fact, corrected)) is not None:
                return rejection
        fact = await encrypt_correction(self._keys, fact, original.data)
        await self._append([fact._replace(json=with_corrects(fact.json, found.position))])
        return None

    async def _append_all(self, facts: list[Accepted]) -> None:
        for batch in in_batches(facts, lambda fact: len(fact.json)):
            await self._append(batch)

    async def _append(self, facts: list[Accepted]) -> None:
        drafts: list[Draft] = []
        begun: set[str] = set()
        for fact in facts:
            subject = f"{topology.FACT_SUBJECT}.{fact.token}"
            expect = None if subject in begun else self._index.head(subject).position
            begun.add(subject)
            via = "http" if fact.source == SIGNED_IN_SOURCE else "cli"
            drafts.append(Draft(subject, with_via(fact.json, via, fact.run) if fact.by_operator else fact.json, expect))
        first = await self._log.append(drafts)
        last_of = {draft.subject: number for number, draft in enumerate(drafts)}
        heads = {
            subject: ReadCursor(first + number, digest_of(drafts[number].data)) for subject, number in last_of.items()
        }
        entries = [EventIdEntry(fact.key, first + number, fact.content) for number, fact in enumerate(facts)]
        sources = {(fact.token, fact.source) for fact in facts if fact.source not in self.known}
        self._index.commit(entries, heads, sources)
        self.recorded.counts[()] += len(facts)
        self._know({fact.source for fact in facts})

    async def catch_up(self, subject: str) -> None:
        """Read a subject into the index, up to the end that the stream's leader knows.

        Raises:
            UnavailableError: the server does not answer, or a replica stays behind.
            LostEventsError: the log has lost events that were read before.

        """
        lock = self._catching_up.setdefault(subject, asyncio.Lock())
        async with lock:  # a receipt that is asked for meanwhile waits, instead of reading the same again
            await self._catch_up(subject)

    async def _catch_up(self, subject: str) -> None:
        for cursor in (self._index.head(subject), self._index.begun().get(subject, START)):
            await verify_cursor(self._log, cursor, "intake")
        last = await self._log.read_from_leader(subject)
        end = last.position if last is not None else 0
        for pause in _REPLICA_BEHIND_SECONDS:
            if end <= self._index.head(subject).position:
                break
            await asyncio.sleep(pause)
            await self._read_on(subject)
        else:
            message = f"{subject} cannot be read up to position {end}: a replica is behind its leader"
            raise UnavailableError(message)
        if self._index.head(subject).position:  # requests may name any source, so sources without facts are not kept
            self._current.add(subject)

    async def _read_on(self, subject: str) -> None:
        """Read what is new on a subject into the index."""
        self._readings += 1
        entries, sources, heads = PackedEntries(), set[tuple[str, str]](), dict[str, ReadCursor]()
        try:
            async for batch in self._log.subject_batches(subject, self._index.head(subject).position):
                read, heads, read_sources = _entries(subject, batch)
                entries.extend(read)
                sources |= read_sources
                if len(entries) * self._readings >= _ENTRIES_A_COMMIT:
                    await self._write(entries, heads, sources)
        finally:
            self._readings -= 1
            if entries:  # also where the server became unreachable: the next attempt goes on from here
                await self._write(entries, heads, sources)
        self._know({source for _, source in sources})

    async def _write(
        self, entries: PackedEntries, heads: dict[str, ReadCursor], sources: Iterable[tuple[str, str]]
    ) -> None:
        for _ in self._index.commit_in_parts(entries, heads, sources):
            await asyncio.sleep(0)

    def read_again(self) -> None:
        """Read every subject again before its next use, because another intake may have written."""
        self._current.clear()

    def _know(self, sources: set[str]) -> None:
        for source in sources - self.known:
            self.known.add(source)
            self.on_source(source)

    async def sources_behind(self, token: str) -> list[str]:
        """Return the sources of a token: one, or all that share an old token."""
        own = read_token(token).source
        for shared in {fact_token(own), token}:
            await self.catch_up(f"{topology.FACT_SUBJECT}.{shared}")
        if own in self._index.sources_with_token(fact_token(own)):
            return [own]
        return self._index.sources_with_token(token) or [own]

    async def _reject(self, entries: Iterable[tuple[Rejection, Message]]) -> None:
        drafts: list[Draft] = []
        places: list[EventPlace] = []
        for rejection, message in entries:
            subject = rejected_subject(message.sender, claimed_id(message.data, message.headers), message.name)
            drafts.append(Draft(subject, rejected_entry(rejection, message, await self._day_key()), 0))
            places.append(message.place)
            self.rejected.counts[rejection.code,] += 1
        for batch in in_batches(drafts, lambda draft: len(draft.data)):
            with suppress(ConflictError):
                await self._rejected.append(batch)
                continue
            for draft in batch:  # some are rejected already, because this is a redelivery
                with suppress(ConflictError):
                    await self._rejected.append([draft])
        self.places.note_rejections(zip(places, (draft.subject for draft in drafts), strict=True))

    async def _day_key(self) -> Key:
        """Return the key of the day, which is destroyed when its rejections expire."""
        owner = rejected_owner(self._clock())
        return (await self._keys.ensure([owner]))[owner]


def _validated(message: Message, now: datetime) -> Accepted | Rejection:
    if not is_source_token(message.token) and (fault := read_token(message.token).fault):
        return Rejection(fault.code, "subject", fault.message)
    found = accept(message.data, now, message.headers, message.token, message.received)
    if isinstance(found, Accepted) and is_from_operator(message):
        run = next((value for name, value in message.headers if name == IMPORT_HEADER), "")
        return found._replace(by_operator=True, run=run if _RUN.fullmatch(run) else "")
    return found


def _entries(
    subject: str, batch: Sequence[Recorded]
) -> tuple[list[EventIdEntry], dict[str, ReadCursor], set[tuple[str, str]]]:
    token = subject.rpartition(".")[2]
    entries: list[EventIdEntry] = []
    sources: set[tuple[str, str]] = set()
    for recorded in batch:
        stored = stored_decoder.decode(recorded.data)
        entries.append(
            EventIdEntry(event_key(stored.source, stored.id), recorded.position, content_hash(recorded.data))
        )
        sources.add((token, stored.source))
    last = batch[-1]
    return entries, {subject: ReadCursor(last.position, digest_of(last.data))}, sources
