"""What the decider knows besides budgets: who works here, the policies, which requests were answered.

It follows the log and keeps what it learned in an index, committed with the position; so it is
complete up to ``position`` and can be thrown away.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from config import topology
from consumers.decisions.state.actions import ActionIndex, ActionRow, HeldFields, TakenFields, row_of, row_of_fact
from consumers.decisions.state.pending import DuePosting, PendingWork
from domain.commands import action_id_of
from domain.events.decisions import (
    RECORDS,
    ActionCharged,
    ActionReversed,
    ActionSettled,
    ActionVoided,
    EscalationRequested,
    EscalationStep,
    PolicyPublished,
)
from domain.events.facts import (
    ActionReported,
    CustomerLinked,
    CustomerUnlinked,
    DelegationDeclared,
    EmployeeChanged,
    EmployeeJoined,
    EmployeeLeft,
    Fact,
    FactCorrected,
    RefundSettled,
    RelationshipDeclared,
    TrainingCompleted,
)
from domain.policy.history import PolicyHistory, rules_of
from domain.policy.model import Rules
from domain.policy.parsing import read_policy
from domain.staff import Staff
from ledger.errors import LedgerError, UnavailableError
from ledger.nats.incidents import report
from ledger.store.event_id_index import Change, EventIdEntry, EventIdIndex
from ledger.store.log import digest_of
from ledger.store.subscription import Follower, ReadCursor
from projections.engine.corrections import correction_of, originals_of
from projections.engine.events import TYPES, Event, UnknownEventError, read_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log, Recorded
    from projections.engine.events import Correction

_log = logging.getLogger(__name__)
_WHOLE_LOG = "*"
_WRITE_SECONDS = 1.0
_TRIES, _AGAIN_SECONDS = 5, 0.5
"""An event that is not learned of is tried so often, with a pause in between."""
_NAMES_AT_ONCE = 500


class _Writing(NamedTuple):
    """What is on its way into the index."""

    names: list[EventIdEntry]
    anchor: ReadCursor
    notes: list[tuple[str, int, bytes]]
    also: list[Change]


class DecisionState:
    """Answers from memory; ``follow`` keeps it up to date."""

    def __init__(self, index: EventIdIndex) -> None:
        self.index = index
        self.given = ActionIndex(index)
        self.matters = PendingWork(index)
        self.staff = Staff()
        self.policies = PolicyHistory()
        anchor = index.head(_WHOLE_LOG)
        self._begin = anchor
        self.read_to = anchor.position
        self._last: Recorded | None = None
        self._writing: _Writing | None = None
        self._thread = ThreadPoolExecutor(1, "directory")  # one: what was cancelled goes on, and comes first
        self._names: list[EventIdEntry] = []
        self._notes: dict[str, tuple[int, bytes]] = {}
        self._moved = asyncio.Condition()
        self._recent: dict[bytes, EventIdEntry] = {}
        self._own: dict[int, EventIdEntry] = {}
        for key, value in index.notes().items():
            kind, _, name = key.partition(" ")
            if kind == "employee":
                self.staff.restore(name, value)
            else:
                wanted = tuple[int, dict[str, object], tuple[str, ...]]
                _, document, trial_teams = msgspec.json.decode(value, type=wanted)
                self.policies.add(Rules(int(name), read_policy(document), trial_teams))

    @property
    def position(self) -> int:
        """Up to where this directory has read the log."""
        return self.read_to

    def find(self, keys: Sequence[bytes]) -> dict[bytes, EventIdEntry]:
        """Requests that were answered, by key, as far as this directory knows."""
        found = self.index.find(keys)
        found.update((key, self._recent[key]) for key in keys if key in self._recent)
        return found

    def remember(self, names: Sequence[EventIdEntry]) -> None:
        """Know of answers that were just recorded, before they are read back from the log."""
        for name in names:
            if name.key and name.position > self.read_to:  # else it has been read back already
                self._recent[name.key] = self._own[name.position] = name

    def confirm(self, row: ActionRow, position: int) -> None:
        """Know of an action that was just recorded, before it is read back."""
        if position > self.read_to:
            self.given.confirm(row, position)
        else:
            self.given.discard_pending(row)

    async def follow(self, client: LedgerClient, log: Log, *, until: int | None = None) -> None:
        """Read on from where the index ends; for ever, or up to a position."""
        follower = Follower(client, log, "directory", self._begin)
        async for batch in follower.batches(until=until):
            await self._learn_all(batch, log)
            log.observe_recorded_time(batch[-1].data)
            async with self._moved:
                self._moved.notify_all()
        if until is not None:
            await self.write()

    async def _learn_all(self, batch: Sequence[Recorded], log: Log) -> None:
        """Learn from a batch; after an error, go on with the event that met it.

        Raises:
            Exception: an error of ours met one event again and again: no decision is safe without it.

        """
        tries = 0
        while rest := [recorded for recorded in batch if recorded.position > self.read_to]:
            try:
                self.learn(rest, await originals_of(log, rest))
            except UnavailableError as error:
                _log.warning("the directory waits: %s", error)
            except Exception as error:
                tries += 1
                if isinstance(error, LedgerError) or tries == _TRIES:
                    raise
                report("the directory could not learn of an event", self.read_to + 1, error)
            else:
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    async def keep_writing(self) -> None:
        """Write what was learned about once a second: rows that come together share their pages."""
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            try:
                await self.write()
            except UnavailableError as error:  # what was learned is known; only its file waits
                _log.warning("the directory waits: %s", error)
            except Exception as error:  # noqa: BLE001 - written with the next attempt
                report("the directory could not be written", error, error)

    async def write(self) -> None:
        """Write what was learned, with the position.

        Raises:
            UnavailableError: the index cannot be written; what was learned is known all the same.

        """
        if self._last is None and self._writing is None:
            return
        if self._writing is None:
            assert self._last is not None
            anchor = ReadCursor(self._last.position, digest_of(self._last.data))
            also = [*self.given.changes(), *self.matters.changes()]
            notes = [(key, *note) for key, note in self._notes.items()]
            self._writing = _Writing(self._names, anchor, notes, also)
            self._names, self._notes, self._last = [], {}, None
        writing = self._writing
        work = partial(
            self.index.commit, writing.names, {_WHOLE_LOG: writing.anchor}, notes=writing.notes, also=writing.also
        )
        await asyncio.get_running_loop().run_in_executor(self._thread, work)
        for _ in chain(self.given.written(), self._written(writing.names)):
            await asyncio.sleep(0)
        self.matters.written()
        self._writing, self._begin = None, writing.anchor

    def _written(self, names: list[EventIdEntry]) -> Iterator[None]:
        """Names that the index has now; a part at a time."""
        while names:
            for name in names[-_NAMES_AT_ONCE:]:
                self._recent.pop(name.key, None)
            del names[-_NAMES_AT_ONCE:]
            yield

    async def close(self) -> None:
        """Write what is left, where that can be, and close the index."""
        with suppress(LedgerError):  # else it is read from the log again
            await self.write()
        await asyncio.to_thread(self._thread.shutdown)
        self.index.close()

    async def reach(self, position: int, patience_seconds: float = 2) -> bool:
        """Wait until this directory has read up to a position; false where it takes too long."""
        try:
            async with asyncio.timeout(patience_seconds), self._moved:
                await self._moved.wait_for(lambda: self.position >= position)
        except TimeoutError:
            return False
        return True

    def learn(self, batch: Sequence[Recorded], originals: Mapping[int, Recorded] = MappingProxyType({})) -> None:
        """Learn from events, in order; ``originals`` are the facts that are corrected among them, by position."""
        for recorded in batch:
            if not self.given.reconcile(recorded.position):
                self._learn_one(recorded, originals)
            if (own := self._own.pop(recorded.position, None)) is not None:
                self._names.append(own)
            self.read_to, self._last = recorded.position, recorded

    def _learn_one(self, recorded: Recorded, originals: Mapping[int, Recorded]) -> None:
        try:
            self._read(recorded, originals, self._own.get(recorded.position))
        except UnknownEventError:
            return  # nothing that a decision depends on
        except Exception as error:
            if not recorded.subject.startswith(topology.FACT_SUBJECT):
                raise  # our own record: no decision is safe without it
            report("a fact that decisions do not know of, since it could not be read", recorded.position, error)

    def _read(self, recorded: Recorded, originals: Mapping[int, Recorded], own: EventIdEntry | None) -> None:
        event = read_event(recorded, _TYPES)
        if getattr(event.body, "request_sha256", None) is not None and own is None:
            name = _answered(event.body, recorded.position)
            self._names.append(name)
            self._recent[name.key] = name
        if (position := event.stored.corrects) in originals and position is not None:
            self._correct(correction_of(event, originals[position]))
        else:
            self._learn_event(event, recorded.subject)

    def _learn_event(self, event: Event, subject: str) -> None:  # noqa: C901 - a case for each kind of event
        position, body = event.position, event.body
        match body:
            case PolicyPublished():
                self.policies.add(rules_of(body))
                note = msgspec.json.encode((position, body.policy, body.trial_teams))
                self._notes[f"policy {body.version}"] = position, note
            case TakenFields():
                if row := row_of(body, event.time, position, subject):
                    self.given.add(row)
            case ActionSettled() | ActionVoided() | ActionCharged() | ActionReversed():
                self._became(body)
            case EscalationRequested():
                self.matters.asked(body, event.time)
            case EscalationStep():
                self.matters.stepped(body)
            case ActionReported():
                self._reported(event, body)
            case RefundSettled():
                row = self.given.action(body.action_id)
                if row is not None and row.state == "held":
                    self.matters.owe(DuePosting(position, "settle", body.action_id, row.holder))
            case CustomerLinked() | CustomerUnlinked():
                self.given.link(body.a, body.b, body.relation, linked=isinstance(body, CustomerLinked))
            case Fact() if employee_id := self.staff.learn(body):
                self._notes[f"employee {employee_id}"] = position, self.staff.note(employee_id)

    def _correct(self, correction: Correction) -> None:
        """Know better from now on; what was decided meanwhile stays decided."""
        for event, undo in ((correction.before, True), (correction.after, False)):
            match event.body if event is not None else None:
                case CustomerLinked() | CustomerUnlinked() as fact:
                    linked = isinstance(fact, CustomerLinked) is not undo
                    self.given.link(fact.a, fact.b, fact.relation, linked=linked)
                case EmployeeJoined() | EmployeeChanged() if undo and correction.after is not None:
                    continue  # the right one takes its place, and what else is known of somebody stays
                case Fact() as fact:
                    employee_id = self.staff.unlearn(fact) if undo else self.staff.learn(fact)
                    if employee_id is not None:
                        self._notes[f"employee {employee_id}"] = correction.position, self.staff.note(employee_id)

    def _reported(self, event: Event, fact: ActionReported) -> None:
        action_id = action_id_of(event.stored.source, event.stored.id)
        self.given.add(row_of_fact(fact, action_id, event.time, event.position))
        if fact.basis == "goodwill":
            self.matters.owe(DuePosting(event.position, "charge", action_id, f"agent:{fact.agent_id}"))

    def _became(self, body: ActionSettled | ActionVoided | ActionCharged | ActionReversed) -> None:
        def change(row: ActionRow) -> None:
            match body:
                case ActionSettled():
                    row.state, row.expires_at, row.done_minor = "settled", None, body.amount.minor
                    row.period = body.period
                    row.minor = body.amount.minor if row.goodwill else 0
                case ActionVoided():
                    row.state, row.expires_at, row.done_minor, row.minor = "voided", None, 0, 0
                case ActionCharged():
                    row.state, row.period = "charged", body.period
                case ActionReversed():
                    row.reversed_minor += body.amount.minor
                    if body.recovered and row.goodwill:
                        row.minor -= body.amount.minor

        self.given.change(body.action_id, change)
        if isinstance(body, (ActionSettled, ActionCharged)) and body.relates_to is not None:
            self.matters.paid(body.relates_to)
        elif isinstance(body, (ActionVoided, ActionSettled)):
            for due in [due for due in self.matters.dues.values() if due.action_id == body.action_id]:
                self.matters.paid(due.position)


class _Answer(msgspec.Struct):
    """What the directory needs of an event that it only names."""

    source: str
    request_id: str
    request_sha256: str | None = None


_LEARNT = (
    PolicyPublished,
    ActionSettled,
    ActionVoided,
    ActionCharged,
    ActionReversed,
    EscalationRequested,
    EscalationStep,
    ActionReported,
    RefundSettled,
    CustomerLinked,
    CustomerUnlinked,
    EmployeeJoined,
    EmployeeChanged,
    EmployeeLeft,
    RelationshipDeclared,
    TrainingCompleted,
    DelegationDeclared,
    FactCorrected,
)
_NAMED = ("authority.fell_short", "budget.granted", "budget.transferred")
_BRIEF: dict[str, type[Any]] = dict.fromkeys(_NAMED, _Answer) | {"action.taken": TakenFields, "action.held": HeldFields}
_TYPES: dict[str, type[Any]] = {f"resolution.{name}.v1": cls for name, cls in _BRIEF.items()} | {
    name: cls for name, cls in {**TYPES, **RECORDS}.items() if issubclass(cls, _LEARNT)
}


def request_key(source: str, request_id: str) -> bytes:
    """The key of a request's name: the hash that is the id of its action, too."""
    return bytes.fromhex(action_id_of(source, request_id)[4:])


def _answered(record: Any, position: int) -> EventIdEntry:
    return EventIdEntry(request_key(record.source, record.request_id), position, bytes.fromhex(record.request_sha256))
