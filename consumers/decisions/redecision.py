"""Decisions made again from the log alone: each must equal the recorded one, byte for byte.

A `Redecider` reads events in order. For each decision it brings the decision state to the position that the decider
had read (``seen_position``), adds that decider's own later actions, rebuilds the command and decides it with the same
functions as the decider. Differences are found without any key.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from config import topology
from consumers.decisions.budget_repository import (
    BudgetStream,
    budget_of,
    currency_of,
    known_flag,
    subject_of,
    subject_of_stream,
)
from consumers.decisions.unit_of_work import PendingDraft, UnitOfWork, stored_form
from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext
from domain.commands import RequestError, action_id_of
from domain.decisions.decide import NO_HOLDER, decide
from domain.decisions.decision import Decision, Retry
from domain.decisions.escalations import OverdueEscalation
from domain.decisions.fact_postings import DuePosting, PostingCommand
from domain.decisions.holds import OverdueHold
from domain.decisions.policies import OverdueProposal
from domain.decisions.recorded_commands import command_of, preview_of
from domain.decisions.streams import BudgetKey, BudgetPeriod, FlagStream, StreamNotLoadedError
from domain.events import decisions, facts, flags
from domain.events.causes import NO_COMMAND, RULES_VERSION, Caused
from domain.serialization import FieldError, Json
from ledger.store.cloudevents import without_traceparent
from ledger.store.event_id_index import EventIdEntry
from ledger.store.log import Recorded
from projections.engine.corrections import CORRECTED
from projections.engine.events import TYPES, Event, UnknownEventError, read_event, type_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from consumers.decisions.state.follower import DecisionState
    from domain.decisions.decide import Command, InternalCommand, Outcome
    from domain.decisions.streams import LoadableStream

_DECIDED = {
    name.encode(): cls
    for name, cls in TYPES.items()
    if issubclass(cls, (decisions.Record, flags.FlagReviewed, flags.FlagAnswered, flags.FlagUnmasked))
}
_ACTIONS = (decisions.ActionTaken, decisions.ActionHeld)
_RAISED = frozenset((b"resolution.flag.raised.v1", b"resolution.flag.updated.v1"))
_WINDOW = 100_000
"""Events that are kept for deciders whose ``seen_position`` is behind."""
_CLOCK_TOLERANCE = timedelta(minutes=5, seconds=10)
_STAMP = b',"recordedtime":"'
_WRITE_EVERY = 20_000
_SHOWN = 200
"""Characters of a value that a difference shows."""


class RedecisionDifference(NamedTuple):
    """A decision that comes out otherwise than it was recorded."""

    position: int
    """The position of its first event."""
    source: str
    request_id: str
    rule: str
    """The rule, the error code or the field that differs."""
    recorded: str
    """The recorded outcome in words."""
    redecided: str
    """The outcome by the log and the rules."""


class RecordedLog(Protocol):
    """The log, an archive of it, or the events of a case file."""

    async def at(self, position: int) -> Recorded | None:
        """Return the event at a position, or ``None``."""

    async def read_subject(self, subject: str, after: int = 0) -> list[Recorded]:
        """Return the events of a subject after a position, oldest first."""


class _Mismatch(Exception):
    """A decision that its own record contradicts, before it can be decided again."""

    def __init__(self, rule: str, recorded: str, redecided: str) -> None:
        super().__init__(rule)
        self.rule, self.recorded, self.redecided = rule, recorded, redecided


class _AnyStream:
    """A set that contains every stream: the period after a budget's may have been opened before."""

    def __contains__(self, _stream: object) -> bool:
        return True


class RecordedBudgets:
    """The budgets after the events read so far. Takes the place of the decider's ``BudgetRepository``."""

    opened_by_others = _AnyStream()

    def __init__(self, log: RecordedLog) -> None:
        self._log = log
        self._newest: dict[BudgetKey, BudgetStream] = {}
        self._by_subject: dict[str, BudgetStream] = {}
        self._closed: set[str] = set()
        self._loaded: dict[str, BudgetStream] = {}  # closed budgets, until they are opened again
        self._flags: set[str] = set()
        self.older: dict[BudgetKey, BudgetStream] = {}
        """Older versions, which one decision may have read."""

    def get(self, key: LoadableStream) -> BudgetStream:
        """Return a stream as it is now.

        Raises:
            StreamNotLoadedError: a closed budget must be loaded first.

        """
        if isinstance(key, BudgetKey):
            stream = self.older.get(key) or self._newest.get(key)
            return BudgetStream(key, "", None, 0) if stream is None else stream
        if isinstance(key, BudgetPeriod):
            subject = subject_of(key.holder, key.currency, key.period)
            if subject in self._closed and subject not in self._loaded:
                raise StreamNotLoadedError(key)
            return self._loaded.get(subject) or BudgetStream(key, subject, None, 0)
        subject = subject_of_stream(key)
        if isinstance(key, FlagStream) and subject in self._flags:
            if (stream := self._loaded.get(subject)) is None:
                raise StreamNotLoadedError(key)
            return stream
        return BudgetStream(key, subject, None, 0)

    def forget(self, stream: BudgetStream) -> None:
        """Do nothing: a stream is read again only after a difference (``restore``)."""

    async def load(self, place: BudgetPeriod | FlagStream, before: int) -> None:
        """Load a flag or the closed budget of a period, as it was before a position."""
        if isinstance(place, FlagStream):
            subject = subject_of_stream(place)
            stored = [one for one in await self._log.read_subject(subject) if one.position < before]
            flag = await known_flag(self._log, stored)
            self._loaded[subject] = BudgetStream(place, subject, None, stored[-1].position if stored else 0, flag=flag)
            return
        subject = subject_of(place.holder, place.currency, place.period)
        self._loaded[subject] = BudgetStream(place, subject, await self._budget(subject, before), 0)

    def note_flag(self, subject: str) -> None:
        """Note that a flag was raised, or that more evidence was found for it."""
        self._flags.add(subject)
        self._loaded.pop(subject, None)

    def note(self, draft: PendingDraft, changed: Mapping[BudgetKey, Budget]) -> None:
        """Take over a recorded event of a decision; ``changed`` are the budgets after the decision."""
        draft.stream.unstored, record = 0, draft.record
        if isinstance(record, decisions.BudgetClosed):
            self._close(draft.subject)
        elif isinstance(record, decisions.BudgetOpened):
            self._open(draft.subject, changed[BudgetKey(record.holder, record.currency)])

    async def apply(self, events: Sequence[Event]) -> None:
        """Apply the recorded events of a decision that is not made again."""
        for event in events:
            record = event.body
            if isinstance(record, decisions.BudgetClosed):
                self._close(event.subject)
            elif isinstance(record, decisions.BudgetOpened):
                opened = await self._budget(event.subject, event.position) if record.reopened else None
                if opened is None:
                    opened = Budget.open(record, event.time)
                else:
                    opened.record(record, event.time)
                self._open(event.subject, opened)
            elif (stream := self._by_subject.get(event.subject)) is not None and stream.budget is not None:
                stream.budget.record(record, event.time)

    async def restore(self, subjects: set[str], until: int) -> None:
        """Read the budgets of these subjects again, up to a position, after a decision that came out otherwise."""
        for subject in subjects:
            if subject.startswith(topology.BUDGET_SUBJECT):
                budget = await self._budget(subject, until + 1)
                if budget is None or budget.closed:
                    self._close(subject)
                else:
                    self._open(subject, budget)

    async def _budget(self, subject: str, before: int) -> Budget | None:
        """Return the budget of a subject before a position; ``None`` where it cannot be read, which was reported."""
        stored = [one for one in await self._log.read_subject(subject) if one.position < before]
        try:
            return budget_of(stored) if stored else None
        except Exception:  # noqa: BLE001 - any event that is no longer one of the ledger's
            return None

    def _open(self, subject: str, budget: Budget) -> None:
        key = BudgetKey(budget.holder, budget.currency)
        self._closed.discard(subject)
        self._loaded.pop(subject, None)
        self._newest[key] = self._by_subject[subject] = BudgetStream(key, subject, budget, 0)

    def _close(self, subject: str) -> None:
        self._closed.add(subject)
        self._loaded.pop(subject, None)
        stream = self._by_subject.pop(subject, None)
        if stream is not None and isinstance(stream.key, BudgetKey) and self._newest.get(stream.key) is stream:
            del self._newest[stream.key]


class _Reader:
    """The decision state as one decider had read it."""

    def __init__(self, state: DecisionState, read: int) -> None:
        self.state = state
        self.read = read
        """The number of events that were read into it."""
        self.decider_id = ""
        self.used = 0
        self.written = 0


class _Group(NamedTuple):
    """The events of one decision."""

    events: list[Event]
    recorded: list[Recorded]

    @property
    def first(self) -> Caused:
        """The first record; all of them have the same cause."""
        body = self.events[0].body
        assert isinstance(body, Caused)
        return body

    @property
    def command(self) -> msgspec.Raw:
        """The request's body, where one of the records carries it."""
        texts = (event.body.command for event in self.events if isinstance(event.body, Caused))
        return next((text for text in texts if bytes(text)), NO_COMMAND)

    @property
    def via(self) -> str | None:
        """The way of the request, where one of the records names it."""
        ways = (event.body.via for event in self.events if isinstance(event.body, Caused))
        return next((way for way in ways if way is not None), None)

    @property
    def answer(self) -> Caused | None:
        """The record that answers a request, or ``None`` where a timer, a fact or a preview caused the decision."""
        for event in self.events:
            if isinstance(event.body, Caused) and event.body.request_sha256 is not None:
                return event.body
        return None


class Redecider:
    """Reads the log in order by ``read`` and makes its decisions again; ``differences`` are those that differ."""

    def __init__(
        self,
        log: RecordedLog,
        new_state: Callable[[], DecisionState],
        replay: Callable[[int], AsyncIterator[Sequence[Recorded]]],
        first: int = 1,
        last: float = math.inf,
    ) -> None:
        """``new_state`` returns an empty decision state.

        ``replay`` yields the events up to a position again, for the state of a second decider. Decisions that
        begin before ``first`` or after ``last`` are only read.
        """
        self.decisions = 0
        """Decisions made again."""
        self.out_of_reach = 0
        """Decisions of versions of the product whose rules this version does not have."""
        self.differences: list[RedecisionDifference] = []
        self._log = log
        self._new_state = new_state
        self._replay = replay
        self._first = first
        self._last = last
        self._budgets = RecordedBudgets(log)
        self._buffer: deque[Recorded] = deque()
        self._dropped = 0
        self._readers: list[_Reader] = []
        self._group = _Group([], [])

    async def read(self, batch: Sequence[Recorded]) -> None:
        """Read the next events."""
        for recorded in batch:
            cls = _DECIDED.get(type_in(recorded.data))
            if cls is None:
                await self._end_group()
                if type_in(recorded.data) in _RAISED:
                    self._budgets.note_flag(recorded.subject)
            else:
                try:
                    event = read_event(recorded)
                except UnknownEventError as error:
                    await self._end_group()
                    self._report(recorded, "event", error.type, error.reason)
                    continue
                if self._group.events and not _same_cause(self._group.events[-1].body, event.body):
                    await self._end_group()
                self._group.events.append(event)
                self._group.recorded.append(recorded)
            self._buffer.append(recorded)
        if len(self._buffer) > _WINDOW:
            await self._trim()

    async def end(self) -> None:
        """Make the last decision again, and close the states."""
        await self._end_group()
        for reader in self._readers:
            await reader.state.close()

    def _report(self, recorded: Recorded, rule: str, then: str, now: str) -> None:
        self.differences.append(RedecisionDifference(recorded.position, "", "", rule, then, now))

    # ------------------------------------------------------------------ one decision

    async def _end_group(self) -> None:
        group, self._group = self._group, _Group([], [])
        if not group.events:
            return
        record, position = group.first, group.recorded[0].position
        wanted = self._first <= position <= self._last
        if not wanted or not 1 <= record.rules_version <= RULES_VERSION:
            self.out_of_reach += wanted
            await self._budgets.apply(group.events)
            return
        self.decisions += 1
        difference = await self._difference(group, record, position)
        if difference is not None:
            self.differences.append(difference)
            await self._budgets.restore({one.subject for one in group.recorded}, group.recorded[-1].position)

    async def _difference(self, group: _Group, record: Caused, position: int) -> RedecisionDifference | None:
        try:
            reader = await self._reader(record, position)
            await self._decide(group, record, reader)
        except _Mismatch as found:
            return RedecisionDifference(
                position, record.source, record.request_id, found.rule, found.recorded, found.redecided
            )
        return None

    async def _decide(self, group: _Group, record: Caused, reader: _Reader) -> None:
        state, answer, now = reader.state, group.answer, group.events[0].time
        state.staff.judge_by(record.rules_version)
        sha256 = None
        if answer is not None:
            command: Command | InternalCommand = _command_of(answer)
            sha256 = answer.request_sha256
            self._check_first(reader, record, group)
        else:
            command = await self._caused(group, reader)
        _check_time(command, group.events[0])
        cause = RequestContext(
            source=record.source,
            request_id=record.request_id,
            seen_position=record.seen_position,
            request_sha256=sha256,
            action_id=action_id_of(record.source, record.request_id),
            decider_id=record.decider_id,
            rules_version=record.rules_version,
            command=group.command,
            via=group.via,
        )
        unit = UnitOfWork(self._budgets, state)
        try:
            decision, drafts = await self._made_again(command, cause, now, unit, group)
        except _Mismatch as newest:
            async for _ in self._older_budgets(unit, group):
                with suppress(_Mismatch):
                    decision, drafts = await self._made_again(
                        command, cause, now, UnitOfWork(self._budgets, state), group
                    )
                    break
            else:
                raise newest from None
        for draft, event in zip(drafts, group.recorded, strict=True):
            self._budgets.note(draft, decision.changed)
            _note_action(state, draft.record, now, event)
        if sha256 is not None:
            at = next(event.position for event in group.events if event.body is answer)
            state.remember([EventIdEntry(bytes.fromhex(cause.action_id[4:]), at, bytes.fromhex(sha256))], ())

    async def _made_again(
        self, command: Command | InternalCommand, cause: RequestContext, now: datetime, unit: UnitOfWork, group: _Group
    ) -> tuple[Decision, list[PendingDraft]]:
        """Return the decision and its events, which equal the recorded ones.

        Raises:
            _Mismatch: they do not.

        """
        while True:
            decision = Decision(unit.state, unit, cause, now, state_is_current=True)
            try:
                outcome = decide(command, decision)
            except Exception as error:  # noqa: BLE001 - the state holds what was forged, and no rule expects it
                raise _Mismatch("state", _outcome(group.events), f"undecided: {error}") from None
            if not isinstance(outcome, BudgetPeriod | FlagStream):
                break
            await self._budgets.load(outcome, group.recorded[0].position)
        if not isinstance(outcome, Decision):
            raise _Mismatch(*_refusal(outcome, group))
        drafts = unit.drafts(decision)
        _compare(drafts, group)
        return decision, drafts

    async def _older_budgets(self, unit: UnitOfWork, group: _Group) -> AsyncIterator[None]:
        """Put older versions in the place of budgets that a decision has only read, one after the other.

        Expected sequences make the budgets exact to which a decision writes. Of another one, such as a pool that does
        not reach, the decider has seen at least what was recorded up to ``seen_position``.
        """
        written, position = {one.subject for one in group.recorded}, group.recorded[0].position
        read = {stream.subject: stream for stream in unit.read if stream.budget and stream.subject not in written}
        stored = {subject: await self._log.read_subject(subject) for subject in read}
        newer = {one.position for events in stored.values() for one in events if one.position < position}
        try:
            for cut in sorted((one for one in newer if one > group.first.seen_position), reverse=True):
                await self._budgets.restore(written, position - 1)
                for subject, stream in read.items():
                    budget = budget_of([one for one in stored[subject] if one.position < cut])
                    if isinstance(stream.key, BudgetKey):
                        self._budgets.older[stream.key] = BudgetStream(stream.key, subject, budget, 0)
                yield
        finally:
            self._budgets.older.clear()

    def _check_first(self, reader: _Reader, record: Caused, group: _Group) -> None:
        key = bytes.fromhex(action_id_of(record.source, record.request_id)[4:])
        earlier = reader.state.find([key]).get(key)
        if earlier is not None and earlier.position < group.recorded[0].position:
            raise _Mismatch("request_id", _outcome(group.events), f"answered at position {earlier.position}")

    async def _caused(self, group: _Group, reader: _Reader) -> Command | InternalCommand:
        """Return the command of a decision that a timer or a fact caused, or a preview."""
        for event in group.events:
            match event.body:
                case decisions.AuthorityFellShort() as short if short.preview:
                    return preview_of(short)
                case decisions.EscalationExpired() | decisions.EscalationForwarded() as step:
                    found = reader.state.pending.open.get(step.escalation_id)
                    due = event.time.timestamp() if found is None else found.due.timestamp()
                    return OverdueEscalation(f"agent:{step.agent_id}", step.escalation_id, due)
                case decisions.PolicyPublished() as published:
                    proposal = reader.state.proposals.get(published.sha256)
                    ended = event.time if proposal is None or proposal.due is None else proposal.due
                    return OverdueProposal(NO_HOLDER, published.sha256, ended.timestamp())
                case decisions.ActionVoided() as voided if voided.escalation_id is None:
                    action = reader.state.actions.action(voided.action_id)
                    expires = action.expires_at if action is not None else None
                    return OverdueHold(voided.holder, voided.action_id, expires or event.time.timestamp())
                case decisions.ActionCharged() as charged:
                    return await self._posting(charged.relates_to, "charge", charged, reader)
                case decisions.ActionSettled() as settled if settled.relates_to is not None:
                    return await self._posting(settled.relates_to, "settle", settled, reader)
        raise _Mismatch("cause", _outcome(group.events), "no request, fact or timer causes this")

    async def _posting(self, position: int, kind: str, record: decisions.Posting, reader: _Reader) -> PostingCommand:
        stored = await self._log.at(position)
        fact = read_event(stored).body if stored is not None else None
        if not isinstance(fact, (facts.ActionReported, facts.RefundSettled)):
            raise _Mismatch("relates_to", f"position {position}", "no reported action or refund is there")
        due = reader.state.pending.dues.get(position)
        return PostingCommand(due or DuePosting(position, kind, record.action_id, record.holder), fact)

    # ------------------------------------------------------------------ the state that a decider had read

    async def _reader(self, record: Caused, position: int) -> _Reader:
        """Return the state with all events up to the record's ``seen_position``, and its decider's own actions."""
        seen = record.seen_position
        if seen >= position:
            raise _Mismatch("seen_position", f"position {seen} was seen", f"it must be before {position}")
        able = [one for one in self._readers if one.state.position <= seen]
        own = [one for one in able if one.decider_id == record.decider_id]
        reader = min(own or able, key=lambda one: one.used, default=None)
        if reader is None:
            reader = await self._new_reader(seen)
        reader.used = self.decisions
        await self._advance(reader, seen)
        if reader.decider_id != record.decider_id:
            reader.decider_id = record.decider_id
            self._take_over(reader, position)
        return reader

    def _take_over(self, reader: _Reader, until: int) -> None:
        """Let a state go on for another decider: with the actions of that one which it has not read yet."""
        reader.state.actions.forget_own()
        for recorded in self._unread(reader):
            if recorded.position >= until:
                break
            if _DECIDED.get(type_in(recorded.data)) in _ACTIONS:
                event = read_event(recorded)
                if isinstance(event.body, Caused) and event.body.decider_id == reader.decider_id:
                    _note_action(reader.state, event.body, event.time, recorded)

    async def _new_reader(self, seen: int) -> _Reader:
        reader = _Reader(self._new_state(), self._dropped)
        self._readers.append(reader)
        if self._dropped:
            before = self._buffer[0].position - 1 if self._buffer else 0
            async for batch in self._replay(min(before, seen)):
                await self._apply(reader, list(batch))
        return reader

    async def _advance(self, reader: _Reader, until: int) -> None:
        batch: list[Recorded] = []
        for recorded in self._unread(reader):
            if recorded.position > until:
                break
            batch.append(recorded)
        reader.read += len(batch)
        if batch:
            await self._apply(reader, batch)

    def _unread(self, reader: _Reader) -> Iterator[Recorded]:
        for index in range(reader.read - self._dropped, len(self._buffer)):
            yield self._buffer[index]

    async def _apply(self, reader: _Reader, batch: list[Recorded]) -> None:
        originals: dict[int, Recorded] = {}
        for recorded in batch:
            if CORRECTED in recorded.data and (at := read_event(recorded).stored.corrects) is not None:
                original = await self._log.at(at)
                if original is not None:
                    originals[at] = original
        self._apply_all(reader.state, batch, originals)
        reader.written += len(batch)
        if reader.written > _WRITE_EVERY:
            reader.written = 0
            await reader.state.write()

    def _apply_all(self, state: DecisionState, batch: list[Recorded], originals: dict[int, Recorded]) -> None:
        """Apply events to a state; report each that it cannot take, and go on after it."""
        while rest := [recorded for recorded in batch if recorded.position > state.position]:
            try:
                state.apply(rest, originals)
            except Exception as error:  # noqa: BLE001 - any event that is no longer one of the ledger's
                position = state.position + 1
                failed = next(recorded for recorded in rest if recorded.position >= position)
                if failed.position not in {one.position for one in self.differences}:
                    self._report(failed, "event", type_in(failed.data).decode(), str(error))
                state.position = failed.position

    async def _trim(self) -> None:
        """Drop events that all deciders have read; bring a decider that is far behind up to half of the window."""
        newest = self._buffer[-1].position
        for reader in self._readers:
            await self._advance(reader, newest - _WINDOW // 2)
        drop = min((one.read for one in self._readers), default=self._dropped) - self._dropped
        for _ in range(drop):
            self._buffer.popleft()
        self._dropped += drop


def _same_cause(one: msgspec.Struct, other: msgspec.Struct) -> bool:
    assert isinstance(one, Caused)
    assert isinstance(other, Caused)
    ends_preview = isinstance(one, decisions.AuthorityFellShort) and not one.request_id
    if ends_preview:
        return False
    return (one.source, one.request_id, one.seen_position) == (other.source, other.request_id, other.seen_position)


def _command_of(answer: Caused) -> Command:
    try:
        command, text = command_of(answer)
    except (ValueError, KeyError, msgspec.MsgspecError, FieldError) as error:
        raise _Mismatch("command", type(answer).__name__, str(error)) from None
    digest = hashlib.sha256(text).hexdigest()[:32]
    if digest != answer.request_sha256:
        raise _Mismatch("request_sha256", f"the hash {answer.request_sha256}", f"the command has the hash {digest}")
    if getattr(command, "request_id", None) != answer.request_id:
        raise _Mismatch("request_id", answer.request_id, "the command has another request_id")
    return command


def _check_time(command: Command | InternalCommand, event: Event) -> None:
    """Require the ledger's clock as the time of a decision, or the time that the request names."""
    now = event.time
    if isinstance(command, (OverdueEscalation, OverdueHold, OverdueProposal)):
        if now.timestamp() < command.due:
            raise _Mismatch("time", event.stored.time, "before its deadline")
        return
    clock = abs(event.recorded - now) <= _CLOCK_TOLERANCE
    if clock or isinstance(command, PostingCommand) or now == getattr(command, "time", None):
        return
    raise _Mismatch("time", event.stored.time, f"recorded at {event.stored.recordedtime}")


def _refusal(outcome: Outcome, group: _Group) -> tuple[str, str, str]:
    recorded = _outcome(group.events)
    match outcome:
        case RequestError():
            return outcome.code, recorded, f"an error: {outcome.message}"
        case Retry():
            return "state", recorded, f"undecided: {outcome.value}"
    return "state", recorded, "undecided: a stream is missing"


def _compare(drafts: list[PendingDraft], group: _Group) -> None:
    """Require equal events.

    Raises:
        _Mismatch: with the first difference.

    """
    for draft, recorded in zip(drafts, group.recorded, strict=False):
        stored = without_traceparent(recorded.data.rpartition(_STAMP)[0] + b"}")
        equal = draft.data == stored or stored_form(_as_earlier(draft.record), group.events[0].time) == stored
        if not equal or draft.subject != recorded.subject:
            raise _Mismatch(*_first_difference(draft, recorded, drafts, group))
    if len(drafts) != len(group.recorded):
        names = [type(draft.record).__name__ for draft in drafts]
        raise _Mismatch("events", _outcome(group.events), ", ".join(names) or "nothing is recorded")


def _as_earlier(record: decisions.Record | flags.FlagEvent) -> decisions.Record | flags.FlagEvent:
    """Return a record as earlier versions wrote it: without the fields about its agent that decisions do not need."""
    match record:
        case decisions.Done() | decisions.AuthorityFellShort() | decisions.EscalationRequested():
            team_id = None if record.team_filled else record.team_id
            return replace(record, team_id=team_id, team_filled=False, manager_id=None, agent_kind="human")
        case decisions.EscalationStep():
            return replace(record, team_id=None, requested_by_source=None)
    return record


def _first_difference(
    draft: PendingDraft, recorded: Recorded, drafts: list[PendingDraft], group: _Group
) -> tuple[str, str, str]:
    now, then = (msgspec.json.decode(text, type=dict[str, Json]) for text in (draft.data, recorded.data))
    if now["type"] == then["type"]:
        del then["recordedtime"]
        then.pop("traceparent", None)
        found = _first_unequal(then, now)
        return ("subject", recorded.subject, draft.subject) if found is None else found
    reasons = [
        reason.rule
        for one in drafts
        if isinstance(one.record, decisions.AuthorityFellShort)
        for reason in one.record.reasons
    ]
    names = ", ".join(type(one.record).__name__ for one in drafts)
    return (reasons[0] if reasons else "outcome"), _outcome(group.events), names


def _first_unequal(then: Json, now: Json, path: str = "") -> tuple[str, str, str] | None:
    """Return the path of the first unequal value in two documents, with both values; ``None`` if there is none."""
    match then, now:
        case dict(), dict():
            pairs = [(name, then.get(name), now.get(name)) for name in {**then, **now}]
        case list(), list() if len(then) == len(now):
            pairs = [(str(index), *pair) for index, pair in enumerate(zip(then, now, strict=True))]
        case _:
            return None if then == now and type(then) is type(now) else (path, _shown(then), _shown(now))
    unequal = (
        _first_unequal(one, other, f"{path}.{name}".removeprefix(".data").lstrip(".")) for name, one, other in pairs
    )
    return next((found for found in unequal if found is not None), None)


def _shown(value: Json) -> str:
    return "absent" if value is None else msgspec.json.encode(value).decode()[:_SHOWN]


def _outcome(events: Sequence[Event]) -> str:
    return ", ".join(type(event.body).__name__ for event in events)


def _note_action(state: DecisionState, record: msgspec.Struct, now: datetime, recorded: Recorded) -> None:
    """Let the decider's next decisions see an action that it has just taken, before it is read from the log."""
    if isinstance(record, _ACTIONS):
        row = state.actions.add_pending(record, now, currency_of(recorded.subject))
        if row is not None:
            row.position = recorded.position
            state.remember((), (row,))
