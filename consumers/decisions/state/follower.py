"""The decision state beside budgets: staff, policies, answered requests, actions and pending work.

It follows the log and stores its state in an index, in one transaction with its position. So it is complete up to
``position``, and can be derived again from the log.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, date, datetime
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from config import topology
from consumers.decisions.budget_repository import currency_of
from consumers.decisions.state.actions import ActionIndex, HeldFields, StateAction, TakenFields, row_of, row_of_fact
from consumers.decisions.state.orders import OrderIndex, paid_or_back, refunded_action
from consumers.decisions.state.pending import PendingWork
from domain.commands import action_id_of
from domain.decisions.fact_postings import GRANTED, DuePosting
from domain.decisions.owed import OrderFact
from domain.events import administration, decisions, facts
from domain.policy.history import PolicyHistory, rules_of
from domain.policy.model import Rules
from domain.policy.parsing import read_policy
from domain.policy.proposals import Proposals
from domain.serialization import JsonObject
from domain.source_registry import SourceRegistry
from domain.staff import Staff
from ledger.errors import LedgerError, UnavailableError
from ledger.nats.incidents import report
from ledger.store.atomic_batches import MAX_BATCH
from ledger.store.event_id_index import Change, EventIdEntry, EventIdIndex, claim_file
from ledger.store.log import digest_of
from ledger.store.snapshots import Snapshots
from ledger.store.subscription import Follower, ReadCursor
from projections.engine.corrections import correction_of, originals_of
from projections.engine.events import Correction, Event, UnknownEventError, read_event, types_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log, Recorded

_log = logging.getLogger(__name__)
_WHOLE_LOG = "*"
_WRITE_SECONDS = 1.0
_WRITE_EVENTS = 20_000
"""Events between two writes of the state during a start: a long log makes neither memory nor a repeat larger."""
_READER_SECONDS = 0.3
"""Seconds for which a request waits for the reader; then the log is read for all that wait."""
_READ_ON_SECONDS, _REPLICA_PAUSE_SECONDS = 2.0, 0.05
_TRIES, _PAUSE_SECONDS = 5, 0.5
"""Attempts to apply one event, and the pause between them."""
_ENTRIES_AT_ONCE = 500
_LAYOUT = 5
"""The layout of the index; it grows with each change that needs the whole log to be read again."""


INDEX_NAME = "decisions"


def snapshots_of(client: LedgerClient) -> Snapshots:
    """Return the copies of the index in this layout."""
    return Snapshots(client, INDEX_NAME, str(_LAYOUT))


async def restore_index(client: LedgerClient, folder: Path) -> None:
    """Bring the index that this process is about to open near the log's end by a copy, where it is far behind."""
    path, lock = claim_file(folder, INDEX_NAME)
    with lock:
        with closing(EventIdIndex(path)) as index:
            index.require_layout(_LAYOUT)
            position = index.head(_WHOLE_LOG).position
        await snapshots_of(client).restore(path, position)


class _PolicyNote(msgspec.Struct, array_like=True):
    """A published policy as the index keeps it."""

    position: int
    policy: JsonObject
    trial_teams: tuple[str, ...]
    rules_version: int = 0


class _Transaction(NamedTuple):
    """Changes that are being written to the index."""

    entries: list[EventIdEntry]
    cursor: ReadCursor
    notes: list[tuple[str, int, bytes]]
    changes: list[Change]


class DecisionState:
    """The state in memory and in the index; ``follow`` keeps it up to date."""

    def __init__(self, index: EventIdIndex, *, admits_unregistered: bool = True) -> None:
        """``admits_unregistered``: sources that no operator registered may request actions."""
        index.require_layout(_LAYOUT)
        self.index = index
        self.actions = ActionIndex(index)
        self.pending = PendingWork(index)
        self.orders = OrderIndex(index)
        self.staff = Staff()
        self.policies = PolicyHistory()
        self.proposals = Proposals()
        self.sources = SourceRegistry(admits_others=admits_unregistered)
        self._written_to = index.head(_WHOLE_LOG)
        self.position = self._written_to.position
        """The position up to which the log was read."""
        self.on_read: Callable[[Sequence[Recorded]], None] = lambda _batch: None
        """Called with the events that were applied."""
        self.on_escalation: Callable[[Event, decisions.EscalationRequested | None], None] = lambda _event, _asked: None
        """Called with each step of an escalation, and with its first step as far as that is known."""
        self.notified: Callable[[], int] | None = None
        """Returns the position up to which all steps were told; it is written with the state."""
        self.notified_to: int | None = None
        """That position as it was read from the index; ``None``: the index has none."""
        self._last: Recorded | None = None
        self._writing: _Transaction | None = None
        self._thread = ThreadPoolExecutor(1, "directory")  # one thread: a cancelled write still ends before the next
        self._entries: list[EventIdEntry] = []
        self._notes: dict[str, tuple[int, bytes]] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []  # the positions that others wait for
        self._applying, self._reading_on = asyncio.Lock(), asyncio.Lock()
        self._recent: dict[bytes, EventIdEntry] = {}
        self._own: dict[int, EventIdEntry] = {}
        for key, value in index.notes().items():
            kind, _, name = key.partition(" ")
            if kind == "employee":
                self.staff.restore(name, value)
            elif kind == "source":
                self.sources.restore(value)
            elif kind == "notified":
                self.notified_to = int(value)
            elif kind == "proposal":
                self.proposals.restore(value)
            elif kind == "spent":
                self.sources.restore_spent(name, *msgspec.json.decode(value, type=tuple[date, int]))
            else:
                note = msgspec.json.decode(value, type=_PolicyNote)
                self.policies.add(Rules(int(name), read_policy(note.policy), note.trial_teams, note.rules_version))

    @property
    def written_to(self) -> int:
        """The position up to which the index contains the log."""
        return self._written_to.position

    def find(self, keys: Sequence[bytes]) -> dict[bytes, EventIdEntry]:
        """Return the answered requests with these keys, as far as they are known."""
        found, recent = self.index.find(keys), self._recent
        for key in keys:
            if key in recent:
                found[key] = recent[key]
        return found

    def remember(self, entries: Sequence[EventIdEntry], actions: Sequence[StateAction]) -> None:
        """Add requests that were just answered, and their actions, before they are read from the log."""
        for entry in entries:
            if entry.key and entry.position > self.position:  # otherwise it was read already
                self._recent[entry.key] = self._own[entry.position] = entry
        for row in actions:
            if row.position > self.position:
                self.actions.own[row.position] = row
                self.actions.unstored.pop(row.action_id, None)
                self._count_for_source(row, row.position)
            else:
                self.actions.discard_pending(row)

    async def follow(self, client: LedgerClient, log: Log, *, until: int | None = None) -> None:
        """Read the log from the end of the index on, for ever or up to a position."""
        follower = Follower(client, log, "directory", self._written_to)
        async for batch in follower.batches(until=until):
            await self._take(batch, log)
            if until is not None and self.position - self._written_to.position >= _WRITE_EVENTS:
                await self.write()
        if until is not None:
            await self.write()

    async def reach_or_read_on(self, log: Log, position: int) -> None:
        """Wait until the log was read up to a position; where ``follow`` is late, read it here.

        Raises:
            UnavailableError: the log cannot be read so far.

        """
        if not await self.reach(position, _READER_SECONDS):
            await self.read_on(log, position)

    async def read_on(self, log: Log, position: int) -> None:
        """Read up to a position by plain requests, where ``follow`` is late: its consumer may have ended with a server.

        All that wait share one reading.

        Raises:
            UnavailableError: the log cannot be read so far within ``_READ_ON_SECONDS``.

        """
        try:
            async with asyncio.timeout(_READ_ON_SECONDS), self._reading_on:
                while self.position < position:
                    batch, _ = await log.read_batch(">", self.position, MAX_BATCH)
                    if not batch or batch[-1].position - self.position > len(batch):
                        await asyncio.sleep(_REPLICA_PAUSE_SECONDS)  # this replica is behind
                        continue
                    await self._take(batch, log)
        except TimeoutError:
            message = f"{log.stream} could be read up to position {self.position} of {position} only"
            raise UnavailableError(message) from None

    async def _take(self, batch: Sequence[Recorded], log: Log) -> None:
        """Apply the new events of a batch, and wake the tasks that wait for them."""
        async with self._applying:
            await self._apply_all(batch, log)
        log.observe_recorded_time(batch[-1].data)
        if self._waiting:
            self._wake_waiting()

    async def _apply_all(self, batch: Sequence[Recorded], log: Log) -> None:
        """Apply a batch; after an error, continue with the event that failed.

        Raises:
            Exception: the event failed repeatedly, and no decision is safe without it.

        """
        tries = 0
        while rest := [recorded for recorded in batch if recorded.position > self.position]:
            try:
                self.apply(rest, await originals_of(log, rest))
            except UnavailableError as error:
                _log.warning("the decision state waits: %s", error)
            except Exception as error:
                tries += 1
                if isinstance(error, LedgerError) or tries == _TRIES:
                    raise
                report("an event could not be applied to the decision state", self.position + 1, error)
            else:
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def keep_writing(self) -> None:
        """Write the changes about once a second, so that rows that arrive together share their pages."""
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            try:
                await self.write()
            except UnavailableError as error:  # the state in memory is complete; only its file is behind
                _log.warning("the decision state waits: %s", error)
            except Exception as error:  # noqa: BLE001 - written with the next attempt
                report("the decision state could not be written", error, error)

    async def write(self) -> None:
        """Write all changes together with the position.

        Raises:
            UnavailableError: the index cannot be written; the changes stay in memory.

        """
        if self._last is None and self._writing is None:
            return
        if self._writing is None:
            assert self._last is not None
            cursor = ReadCursor(self._last.position, digest_of(self._last.data))
            changes = [*self.actions.take_changes(), *self.pending.take_changes(), *self.orders.take_changes()]
            notes = [(key, *note) for key, note in self._notes.items()]
            if self.notified is not None:
                notes.append(("notified", cursor.position, b"%d" % self.notified()))
            self._writing = _Transaction(self._entries, cursor, notes, changes)
            self._entries, self._notes, self._last = [], {}, None
        entries, cursor, notes, changes = self._writing
        commit = partial(self.index.commit, entries, {_WHOLE_LOG: cursor}, notes=notes, changes=changes)
        await asyncio.get_running_loop().run_in_executor(self._thread, commit)
        for _ in chain(self.actions.on_written(), self._forget_written(entries)):
            await asyncio.sleep(0)
        self.pending.on_written()
        self.orders.on_written()
        self._writing, self._written_to = None, cursor

    def _forget_written(self, entries: list[EventIdEntry]) -> Iterator[None]:
        """Forget entries that the index has now, in parts, so that the event loop can run between them."""
        while entries:
            for entry in entries[-_ENTRIES_AT_ONCE:]:
                self._recent.pop(entry.key, None)
            del entries[-_ENTRIES_AT_ONCE:]
            yield

    async def close(self) -> None:
        """Write the remaining changes if possible, then close the index."""
        with suppress(LedgerError):  # otherwise they are read from the log again
            await self.write()
        await asyncio.to_thread(self._thread.shutdown)
        self.index.close()

    async def reach(self, position: int, patience_seconds: float = 2) -> bool:
        """Wait until the log was read up to a position; return False after ``patience_seconds``."""
        if self.position >= position:
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = position, reached
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(patience_seconds):
                await reached
        except TimeoutError:
            return False
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        return True

    def _wake_waiting(self) -> None:
        """Wake the tasks that wait for a position up to the present one."""
        still_waiting = []
        for position, reached in self._waiting:
            if position > self.position:
                still_waiting.append((position, reached))
            elif not reached.done():
                reached.set_result(None)
        self._waiting = still_waiting

    def apply(self, batch: Sequence[Recorded], originals: Mapping[int, Recorded] = MappingProxyType({})) -> None:
        """Apply events in order; ``originals`` are the facts that they correct, by position."""
        read = 0
        try:
            for recorded in batch:
                read += 1
                if not self.actions.reconcile(recorded.position):
                    self._apply_one(recorded, originals)
                if (own := self._own.pop(recorded.position, None)) is not None:
                    self._entries.append(own)
                self.position, self._last = recorded.position, recorded
        finally:  # after an error, the next attempt begins with the event that failed
            self.on_read(batch[:read])

    def _apply_one(self, recorded: Recorded, originals: Mapping[int, Recorded]) -> None:
        try:
            self._apply_decoded(read_event(recorded, _TYPES), originals)
        except UnknownEventError:
            return  # no decision depends on it
        except Exception as error:
            if not recorded.subject.startswith(topology.FACT_SUBJECT):
                raise  # our own record: no decision is safe without it
            report("a fact could not be read, so decisions do not know of it", recorded.position, error)

    def _apply_decoded(self, event: Event, originals: Mapping[int, Recorded]) -> None:
        body = event.body
        if event.position not in self._own and isinstance(body, _ANSWERS) and body.request_sha256 is not None:
            key = bytes.fromhex(action_id_of(body.source, body.request_id)[4:])  # as in `read_request`
            entry = EventIdEntry(key, event.position, bytes.fromhex(body.request_sha256))
            self._entries.append(entry)
            self._recent[entry.key] = entry
        if (position := event.stored.corrects) in originals and position is not None:
            self._correct(correction_of(event, originals[position]))
        else:
            self._apply_event(event)

    def _apply_event(self, event: Event) -> None:  # noqa: C901 - a case for each kind of event
        position, body = event.position, event.body
        match body:
            case (
                decisions.PolicyPublished()
                | decisions.PolicyProposed()
                | decisions.PolicyApproved()
                | decisions.PolicyObjected()
            ):
                self._apply_policy(event, body)
            case TakenFields():
                if row := row_of(body, event.time, position, currency_of(event.subject)):
                    self.actions.add(row)
                    self._count_for_source(row, position)
            case decisions.Posting():
                self._change_action(body)
            case decisions.EscalationRequested():
                self.pending.add_escalation(body, event.time)
                self.on_escalation(event, body)
                self._end_of_leaver(body.agent_id, event.time)
            case decisions.EscalationStep():
                waiting = self.pending.open.get(body.escalation_id)
                self.pending.apply_step(body)
                self.on_escalation(event, None if waiting is None else waiting.asked)
            case facts.ActionReported():
                self._add_reported(event, body)
            case facts.RefundSettled():
                self._note_refund(event, body)
            case facts.PurchaseCompleted() | facts.PurchaseReturned():
                self._note_order(event)
            case facts.CustomerLinked() | facts.CustomerUnlinked():
                by_operator = event.stored.via is not None
                self.actions.link(body, event.stored.source, by_operator=by_operator)
            case administration.SourceEvent():
                self.sources.apply(body)
                self._notes[f"source {body.source}"] = position, self.sources.note(body.source)
            case facts.Fact() if employee_id := self.staff.learn(body):
                self._notes[f"employee {employee_id}"] = position, self.staff.note(employee_id)
                self._end_of_leaver(employee_id, event.time)

    def _apply_policy(self, event: Event, body: decisions.ProposalEvent | decisions.PolicyPublished) -> None:
        if isinstance(body, decisions.PolicyPublished):
            self.policies.add(rules_of(body))
            note = _PolicyNote(event.position, body.policy, body.trial_teams, body.rules_version)
            self._notes[f"policy {body.version}"] = event.position, msgspec.json.encode(note)
        if (sha256 := self.proposals.apply(body, event.time)) is not None:
            self._notes[f"proposal {sha256}"] = event.position, self.proposals.note(sha256)

    def _correct(self, correction: Correction) -> None:
        """Apply a correction to the state; decisions that were made in the meantime stay valid."""
        told = correction.after or correction.before
        if told is not None and isinstance(told.body, (facts.PurchaseCompleted, facts.PurchaseReturned)):
            self._note_order(told, happened=correction.after is not None)
        elif told is not None and isinstance(refund := told.body, facts.RefundSettled) and refund.action_id is None:
            back = OrderFact("back", told.stored.source, refund.total.minor, refund.total.currency)
            self.orders.put(told.position, refund.order_id, back if correction.after is not None else None)
        for event, undo in ((correction.before, True), (correction.after, False)):
            match event.body if event is not None else None:
                case facts.CustomerLinked() | facts.CustomerUnlinked() as fact:
                    assert event is not None
                    self.actions.link(fact, event.stored.source, undo=undo)
                case facts.EmployeeJoined() | facts.EmployeeChanged() if undo and correction.after is not None:
                    continue  # the corrected fact replaces it; other facts about the employee stay
                case facts.Fact() as fact:
                    employee_id = self.staff.unlearn(fact) if undo else self.staff.learn(fact)
                    if employee_id is not None and event is not None:
                        self._notes[f"employee {employee_id}"] = correction.position, self.staff.note(employee_id)
                        self._end_of_leaver(employee_id, event.time)

    def _end_of_leaver(self, employee_id: str, at: datetime) -> None:
        """Let the open escalations of an employee who has left be overdue, so that the timer ends them."""
        if self.staff.has_left(employee_id):
            self.pending.make_due(employee_id, at)

    def _note_order(self, event: Event, *, happened: bool = True) -> None:
        """Note what a fact says about the money of its order; ``happened``: it was not taken back."""
        fact, source = event.body, event.stored.source
        assert isinstance(fact, (facts.PurchaseCompleted, facts.PurchaseReturned))
        is_proof = event.stored.via is not None or self.sources.proves_payments(source)
        told = paid_or_back(fact, source, is_proof=is_proof) if happened else None
        self.orders.put(event.position, fact.order_id, told)

    def _note_refund(self, event: Event, fact: facts.RefundSettled) -> None:
        """Note a refund that was paid: it settles its hold, pays an action, or is given back for its order alone."""
        row = self.actions.action(fact.action_id) if fact.action_id is not None else None
        if fact.action_id is None and fact.order_id is not None:
            told, source = self.orders.of_order(fact.order_id), event.stored.source
            if any((one.source, one.reference) == (source, fact.processor_reference) for one in told):
                return  # told before
            row = refunded_action(fact.total, self.actions.on_order(fact.order_id), told, event.position)
            action_id = None if row is None else row.action_id
            back = OrderFact("back", source, fact.total.minor, fact.total.currency, fact.processor_reference, action_id)
            self.orders.put(event.position, fact.order_id, back)
        if row is not None and row.state == "held":
            self.pending.add_due(DuePosting(event.position, "settle", row.action_id, row.holder))

    def _count_for_source(self, row: StateAction, position: int) -> None:
        """Count an action towards the amount a day of its source."""
        if row.source is None or self.sources.rights(row.source).per_day is None:
            return
        day = datetime.fromtimestamp(row.at, UTC).date()
        spent = self.sources.count(row.source, day, row.amount)
        if spent is not None:
            self._notes[f"spent {row.source}"] = position, msgspec.json.encode((day, spent))

    def _add_reported(self, event: Event, fact: facts.ActionReported) -> None:
        action_id = action_id_of(event.stored.source, event.stored.id)
        known = self.actions.action(action_id)
        self.actions.add(row_of_fact(fact, action_id, event.time, event.position, event.stored.source))
        rules = self.policies.in_force(event.recorded)
        is_granted = known is not None and known.state in GRANTED
        if fact.basis == "goodwill" or (rules is not None and rules.is_strict) or is_granted:
            self.pending.add_due(DuePosting(event.position, "charge", action_id, f"agent:{fact.agent_id}"))

    def _change_action(self, body: decisions.Posting) -> None:
        if isinstance(body, decisions.ActionCharged) and body.decided is None:
            self.actions.change_report(body.relates_to, body.action_id, lambda row: row.apply(body))
        else:
            if isinstance(body, decisions.ActionCharged):
                self.actions.change_report(body.relates_to, body.action_id, StateAction.count_nothing)
            self.actions.change(body.action_id, lambda row: row.apply(body))
        if isinstance(body, (decisions.ActionSettled, decisions.ActionCharged)) and body.relates_to is not None:
            self.pending.remove_due(body.relates_to)
        elif isinstance(body, (decisions.ActionVoided, decisions.ActionSettled)):
            # A report of the action stays due: it happened, although its hold ended.
            settles = [one for one in self.pending.dues.values() if one.kind == "settle"]
            for due in [one for one in settles if one.action_id == body.action_id]:
                self.pending.remove_due(due.position)


class _AnswerFields(msgspec.Struct):
    """The source and request of an event; the state needs no other field of it."""

    source: str
    request_id: str
    request_sha256: str | None = None


_ANSWERS = (_AnswerFields, TakenFields, decisions.Record)
_SHORT_FORMS: dict[str, type[msgspec.Struct]] = {
    "authority.fell_short": _AnswerFields,
    "budget.granted": _AnswerFields,
    "budget.transferred": _AnswerFields,
    "flag.unmasked": _AnswerFields,
    "flag.reviewed": _AnswerFields,
    "flag.answered": _AnswerFields,
    "action.taken": TakenFields,
    "action.held": HeldFields,
}
_TYPES = {f"resolution.{name}.v1": cls for name, cls in _SHORT_FORMS.items()} | types_of(
    decisions.PolicyPublished,
    decisions.PolicyProposed,
    decisions.PolicyApproved,
    decisions.PolicyObjected,
    decisions.ActionSettled,
    decisions.ActionVoided,
    decisions.ActionCharged,
    decisions.ActionReversed,
    decisions.EscalationRequested,
    decisions.EscalationStep,
    administration.SourceEvent,
    facts.ActionReported,
    facts.RefundSettled,
    facts.PurchaseCompleted,
    facts.PurchaseReturned,
    facts.CustomerLinked,
    facts.CustomerUnlinked,
    facts.EmployeeJoined,
    facts.EmployeeChanged,
    facts.EmployeeLeft,
    facts.RelationshipDeclared,
    facts.TrainingCompleted,
    facts.DelegationDeclared,
    facts.FactCorrected,
)
