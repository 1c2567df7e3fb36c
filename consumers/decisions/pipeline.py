"""The decision pipeline: handles the requests of a group one by one and commits their results together.

One task handles new requests on cached budgets while the previous results are being stored in an atomic batch (or as
one event), with the expected sequence of each stream. After a conflict, the requests concerned are handled again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from consumers.decisions.budget_repository import BudgetRepository
from consumers.decisions.committer import AGAIN, OUR_ERROR, BatchCommitter
from consumers.decisions.pending_request import COMMANDS, PendingRequest, read_request
from consumers.decisions.responses import first_answer
from consumers.decisions.unit_of_work import UnitOfWork
from consumers.runtime.source_tokens import read_token
from domain.commands import Preview, RequestError
from domain.decisions.decide import decide
from domain.decisions.decision import Decision, Retry
from domain.decisions.governance import GOVERNING, ungoverned_refusal
from domain.decisions.source_authority import command_refusal
from domain.events.decisions import ActionHeld, ActionTaken
from domain.serialization import encode
from domain.sources import COMMAND_SOURCES
from ledger.errors import LedgerError, UnavailableError
from ledger.nats.incidents import report
from ledger.store.role_status import Heartbeat
from ledger.store.role_totals import DECISION_BOUNDS, DurationTotals, LabelledTotals

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from consumers.decisions.state.follower import DecisionState
    from domain.budgets.postings import RequestContext
    from domain.decisions.decide import InternalCommand, Outcome
    from domain.decisions.streams import LoadableStream
    from domain.policy.model import Rules
    from domain.serialization import JsonObject
    from ledger.spans import RequestSpan
    from ledger.store.event_id_index import EventIdEntry
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_GROUP = 128  # half of a busy source's requests in flight: one half is stored while the other half is handled
_LEAP = timedelta(minutes=10)
_PAUSE_SECONDS = 0.005
_SETTLED_SECONDS = 0.01
_NOW = partial(datetime.now, UTC)
_SAME_TIME_SECONDS = 0.001
"""Requests that arrive within this time share one value of the clock."""
_STUCK_SECONDS, _CHECK_SECONDS = 1.2, 0.2
"""Requests are answered after so long without the log's reply; the contract allows two seconds."""
_NO_REPLY = f"the log does not answer; {AGAIN}"


class DecisionPipeline:
    """Takes requests by ``submit`` and decides them in the task ``run``."""

    def __init__(
        self,
        log: Log,
        state: DecisionState,
        *,
        history: bool = False,
        clock: Callable[[], datetime] = _NOW,
    ) -> None:
        self._log = log
        self._state = state
        self._budgets = BudgetRepository(log)
        state.on_read = self._budgets.note_read
        self._history = history
        self._clock = clock
        self._latest = datetime(1970, 1, 1, tzinfo=UTC)
        self._received, self._received_at = self._latest, -math.inf  # the clock, and the monotonic clock then
        self.decider_id = secrets.token_hex(4)
        self._queue: list[PendingRequest] = []
        self._ready: list[PendingRequest] = []  # handled, and not being stored yet
        self._need_idle: list[PendingRequest] = []  # to be handled while nothing is being stored
        self._deciding: dict[bytes, PendingRequest] = {}
        self._wake = asyncio.Event()
        self._storing = False
        self._unanswered: dict[PendingRequest, None] = {}  # in the order of their arrival
        self._check: asyncio.TimerHandle | None = None
        self._handling_since = self._storing_since = math.inf
        self._committer = BatchCommitter(
            log, state, self._budgets, self._finish, self._give_up, self._on_stored, self._on_batch_end
        )
        self._side_tasks: set[asyncio.Task[None]] = set()
        self.pulse = Heartbeat("decisions", self._is_busy)
        self.answers = LabelledTotals("decisions")
        """Answers by operation, outcome, and code of an error."""
        self.durations = DurationTotals("decision_duration_seconds", DECISION_BOUNDS)
        """Seconds from the arrival of a request to its answer."""
        self.old_keys_until = 0
        """The last position with requests under their source's old token, which several sources may share."""
        self.on_answers: Callable[[], None] = lambda: None
        """Called after the answers of a batch."""
        self.overdue_before: Callable[[datetime], Sequence[PendingRequest]] = lambda _now: ()
        """Returns the timers' commands that are due before a moment; used in history mode."""

    def _is_busy(self) -> bool:
        return bool(self._queue or self._ready or self._need_idle or self._storing)

    async def settled(self, seconds: float) -> None:
        """Wait until every request has its answer, at most so long."""
        until = time.monotonic() + seconds
        while self._is_busy() and time.monotonic() < until:  # noqa: ASYNC110 - once in the life of a process
            await asyncio.sleep(_SETTLED_SECONDS)

    @property
    def now(self) -> datetime:
        """The ledger's clock; in history mode the newest time of a request."""
        return self._latest if self._history else self._clock()

    def submit(
        self,
        token: str,
        operation: str,
        body: bytes,
        answer: Callable[[bytes], None],
        *,
        encrypted: bool = False,
        refusal: RequestError | None = None,
        via: str | None = None,
        span: RequestSpan | None = None,
    ) -> None:
        """Submit a request. ``answer`` is called once with JSON.

        ``token`` names the source. A request with a ``refusal`` gets its first answer if it has one, otherwise the
        refusal. ``encrypted``: see ``read_form``. ``via``: `cli` or `http`, where the ledger's own commands or page
        sent it. ``span`` is the request's, where traces are on.
        """
        at = time.monotonic()
        if at - self._received_at > _SAME_TIME_SECONDS:
            self._received, self._received_at = self._clock(), at
        try:
            if via is None:
                self._check_sender(read_token(token).source)
            request = read_request(
                token,
                operation,
                body,
                answer,
                self._received,
                history=self._history,
                encrypted=encrypted,
                refusal=refusal,
                via=via,
            )
        except RequestError as error:
            self.answers.counts[operation if operation in COMMANDS else "unknown", "error", error.code] += 1
            answer(encode(error.wire()))
            return
        request.received_at, request.span = at, span
        self._unanswered[request] = None
        if self._check is None and not self._history:
            self._check = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._answer_stuck)
        if request.refusal is None:
            names_time = request.now is not self._received
            if self._history and names_time and request.now > self._latest and self._leaps(request):
                return
        if not self._queue:  # otherwise the task is awake, or waits for the end of a batch
            self._wake.set()
        self._queue.append(request)

    def _leaps(self, request: PendingRequest) -> bool:
        """Move the clock of history mode to a request's own time; return whether timers come before the request."""
        leap, self._latest = request.now - self._latest, request.now
        if leap > _LEAP:
            self._run_beside(request, self._after_timers(request))
        return leap > _LEAP

    def _check_sender(self, source: str) -> None:
        """Refuse all requests of a stopped or retired source, and of others in the name of our commands and page.

        They get no first answer again either: a stopped source's credential may be stolen.

        Raises:
            RequestError: it is such a source.

        """
        if source in COMMAND_SOURCES:
            raise RequestError("source_not_allowed", f"the source {source!r} is reserved for the ledger", "source")
        if self._state.sources.is_shut(source):
            refusal = self._state.sources.request_refusal(source, "anything")
            raise RequestError("source_not_allowed", refusal or "", "source")

    def submit_command(
        self, command: InternalCommand, cause: RequestContext, now: datetime, done: Callable[[bytes], None]
    ) -> None:
        """Submit a command of the timers; ``done`` is called at its end."""
        self._enqueue(command_request(command, cause, now, done))

    def _answer_stuck(self) -> None:
        """Advise old requests to retry where the log does not reply; events that are being stored stay valid."""
        self._check, now = None, time.monotonic()
        stuck = now - min(self._handling_since, self._storing_since) > _STUCK_SECONDS
        if stuck:
            answer = encode(RequestError("unavailable", _NO_REPLY).wire())
            for request in self._unanswered:
                if now - request.received_at > _STUCK_SECONDS - _CHECK_SECONDS and not request.answered:
                    self.answers.counts[request.operation, "error", "unavailable"] += 1
                    self.durations.add(now - request.received_at)
                    request.finish_encoded(answer)
            self.on_answers()
        for request in [request for request in self._unanswered if request.answered]:
            del self._unanswered[request]
        if self._unanswered:
            self._check = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._answer_stuck)

    async def run(self) -> None:
        """Handle new requests while the previous batch is being stored, for ever."""
        while True:
            self.pulse.beat()
            if self._queue and not self._need_idle and len(self._ready) < _GROUP:
                group, self._queue = self._queue[:_GROUP], self._queue[_GROUP:]
                await self._handle_group(group)
            elif self._need_idle and not self._ready and not self._storing:
                group, self._need_idle = self._need_idle, []
                await self._handle_while_idle(group)
            if self._ready and not self._storing:
                self._begin_to_store()
            can_handle = self._queue and not self._need_idle and len(self._ready) < _GROUP
            if not can_handle and (self._storing or not (self._need_idle or self._ready)):
                await self._wake.wait()
                self._wake.clear()

    def _begin_to_store(self) -> None:
        ready = self._ready
        self._storing, self._storing_since = True, time.monotonic()
        try:
            self._ready = self._committer.begin(ready)
        except Exception as error:  # noqa: BLE001 - reported; every request gets an answer
            report("decisions could not be stored", error, error)
            self._storing, self._storing_since, self._ready = False, math.inf, []
            for request in ready:
                self._committer.discard(request)
            self._give_up(ready, "internal", OUR_ERROR)

    def _on_stored(self, batch: list[PendingRequest], remember: Callable[[], None]) -> None:
        """Answer the requests of a stored batch, then let the state remember it: clients wait for nothing else."""
        given = []
        try:
            for request in batch:
                assert request.decision is not None
                given.append(self._give(request, request.decision.answer))
            self.on_answers()
        finally:
            remember()
        for request, is_given in zip(batch, given, strict=True):
            assert request.decision is not None
            self._note_end(request, request.decision.answer, is_given=is_given)

    def _on_batch_end(self, again: list[PendingRequest] | None) -> None:
        """Continue after a batch; handle conflicting requests again, and all requests handled on top of them."""
        self.on_answers()
        self._storing, self._storing_since = False, math.inf
        self._wake.set()
        if again is None:
            return
        for request in (*again, *self._ready):
            self._committer.discard(request)
            self._deciding.pop(request.key, None)
        self._queue = [*again, *self._ready, *self._queue]
        self._ready = []

    def _enqueue(self, *requests: PendingRequest) -> None:
        self._queue += requests
        self._wake.set()

    def _run_beside(self, request: PendingRequest, work: Coroutine[None, None, None]) -> None:
        """Run work for one request in a task of its own; if it fails, the request still gets an answer."""
        task = asyncio.create_task(self._answer_on_failure(request, work))
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    async def _answer_on_failure(self, request: PendingRequest, work: Coroutine[None, None, None]) -> None:
        try:
            async with asyncio.timeout(None if self._history else _STUCK_SECONDS):
                await work
        except TimeoutError:
            self._give_up([request], "unavailable", _NO_REPLY)
        except LedgerError as error:
            self._give_up([request], "unavailable", f"{error}; {AGAIN}")
        except Exception as error:  # noqa: BLE001 - reported; every request gets an answer
            report("a request failed", error, error)
            self._give_up([request], "internal", OUR_ERROR)

    def _finish(self, request: PendingRequest, answer: JsonObject) -> None:
        """Answer a request unless it was answered, and let its duplicates go on."""
        self._note_end(request, answer, is_given=self._give(request, answer))

    @staticmethod
    def _give(request: PendingRequest, answer: JsonObject) -> bool:
        """Answer a request unless it was answered; return whether this answer was given."""
        if request.answered:
            return False
        request.answered = True
        request.answer(encode(answer))
        return True

    def _note_end(self, request: PendingRequest, answer: JsonObject, *, is_given: bool) -> None:
        """Forget an answered request, count its answer where it was given, and let its duplicates go on."""
        if self._deciding.get(request.key) is request:
            del self._deciding[request.key]
        self._unanswered.pop(request, None)
        if is_given and request.operation:  # timers' commands have none
            error = answer.get("error")
            code = error["code"] if isinstance(error, dict) else ""
            self.answers.counts[request.operation, str(answer.get("outcome")), str(code)] += 1
            self.durations.add(time.monotonic() - request.received_at)
        if request.duplicates:
            self._enqueue(*request.duplicates)
            request.duplicates = []

    def _give_up(self, group: Sequence[PendingRequest], code: str, message: str) -> None:
        for request in group:
            self._finish(request, RequestError(code, message).wire())

    # ------------------------------------------------------------------ handling

    async def _handle_while_idle(self, group: list[PendingRequest]) -> None:
        """Handle requests while nothing is being stored, after reading up to the end of the log."""
        self._handling_since = time.monotonic()
        try:
            await self._read_to_the_end()
        except LedgerError as error:
            self._give_up(group, "unavailable", f"{error}; {AGAIN}")
            return
        finally:
            self._handling_since = math.inf
        await self._handle_group(group)
        if self._need_idle and not self._ready:  # other deciders are quicker; let the state catch up
            self._need_idle = self._committer.retryable(self._need_idle)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _handle_group(self, group: list[PendingRequest]) -> None:
        self._handling_since = time.monotonic()
        try:
            todo, rules = self._new_in(group), self._state.policies.at(group[0].now).enforced
            if rules is not None and (rules.caps_customers or rules.caps_interactions):
                self._preload(todo, rules)
            while todo:
                missing: set[LoadableStream] = set()
                todo = [request for request in todo if not self._handle(request, missing)]
                if missing:
                    await asyncio.gather(*map(self._budgets.load, missing))
                    todo = self._new_in(todo)  # another decider's answers may have been read meanwhile
        except LedgerError as error:
            code = "unavailable" if isinstance(error, UnavailableError) else "internal"
            self._give_up_unhandled(group, code, f"{error}; {AGAIN}")
        except Exception:  # noqa: BLE001 - logged; every request gets an answer
            _log.exception("decisions failed")
            self._give_up_unhandled(group, "internal", OUR_ERROR)
        finally:
            self._handling_since = math.inf

    def _give_up_unhandled(self, group: list[PendingRequest], code: str, message: str) -> None:
        handled = set(map(id, self._ready))
        self._give_up([request for request in group if id(request) not in handled], code, message)

    def _new_in(self, group: list[PendingRequest]) -> list[PendingRequest]:
        """Return the requests that were not answered before; the others get their first answer again."""
        found = self._state.find([request.key for request in group if request.key])
        new, deciding = list[PendingRequest](), self._deciding
        for request in group:
            key = request.key
            may_be_known = request.answered or (key and (key in found or key in deciding or request.old_key))
            if may_be_known and self._is_known(request, found.get(key)):
                continue
            if key:
                deciding[key] = request
            new.append(request)
        return new

    def _is_known(self, request: PendingRequest, entry: EventIdEntry | None) -> bool:
        """Return whether a request needs no decision: it was answered before, or its first copy is being decided."""
        if request.answered:  # with advice to retry; a duplicate may wait for its end
            self._finish(request, {})
            return True
        if entry := entry or self._answered_under_old_key(request):
            self._run_beside(request, self._answer_again(request, entry))
            return True
        first = self._deciding.get(request.key, request)
        if first is not request:
            first.duplicates.append(request)  # handled once the first is finished
        return first is not request

    def _answered_under_old_key(self, request: PendingRequest) -> EventIdEntry | None:
        """Return the answer that an earlier version gave to the same request under its source's old token."""
        if not request.old_key:
            return None
        entry = self._state.find([request.old_key]).get(request.old_key)
        if entry is None or entry.position > self.old_keys_until:
            return None
        return entry if entry.content == request.content else None

    def _preload(self, todo: list[PendingRequest], rules: Rules) -> None:
        """Read the actions of all customers and interactions in these requests at once."""
        actions, commands = self._state.actions, [one.command for one in todo if isinstance(one.command, Preview)]
        if rules.caps_customers and (customers := {one.customer_id for one in commands if one.customer_id}):
            actions.preload("customer", customers)
        if rules.caps_interactions and (ids := {one.interaction_id for one in commands if one.interaction_id}):
            actions.preload("interaction", ids)

    async def _answer_again(self, request: PendingRequest, entry: EventIdEntry) -> None:
        if entry.content != request.content:
            message = "this request_id was used with another body; give a new request a new request_id"
            self._finish(request, RequestError("request_id_reused", message, "request_id").wire())
            return
        self._finish(request, await first_answer(self._log, entry.position))

    def _handle(self, request: PendingRequest, missing: set[LoadableStream]) -> bool:
        """Handle one request; return False where a stream, added to ``missing``, must be loaded first."""
        state, cause = self._state, request.cause
        unit = UnitOfWork(self._budgets, state)
        try:
            refusal = request.refusal
            if refusal is None and cause.via is None:
                refusal = command_refusal(
                    request.command, cause.source, request.now, state, state.sources, history=self._history
                )
            if refusal is None and type(request.command) in GOVERNING:
                refusal = ungoverned_refusal(request.command, cause.via, request.now, state)
            if refusal is None:
                cause.seen_position, cause.decider_id = state.position, self.decider_id
                state.actions.counted = request.counted = set()
                decision = Decision(
                    state,
                    unit,
                    cause,
                    request.now,
                    state_is_current=request.state_is_current,
                    history=self._history,
                )
                outcome = _decided(request, decision, unit)
                state.actions.counted = None
                if outcome is decision:
                    request.decision = decision
                    if decision.events:
                        request.read = unit.read
                        request.drafts = unit.drafts(decision, request.span.recorded if request.span else b"")
                        for draft in request.drafts:
                            record, budget = draft.record, draft.stream.budget
                            if isinstance(record, (ActionTaken, ActionHeld)) and budget is not None:
                                draft.row = state.actions.add_pending(record, request.now, budget.currency)
                        self._ready.append(request)
                    else:
                        self._finish(request, decision.answer)
                    return True
            else:  # its first answer may not have been read yet, or wider rights of its source
                outcome = refusal if request.state_is_current else Retry.AFTER_CATCH_UP
        except LedgerError:
            unit.abandon()
            raise
        except Exception:  # noqa: BLE001 - an error with one request must not fail the others of its group
            _log.exception("a request of %s could not be decided", cause.source)
            outcome = RequestError("internal", "an error of ours, see the log")
        unit.abandon()
        return self._without_decision(request, outcome, missing)

    def _without_decision(self, request: PendingRequest, outcome: Outcome, missing: set[LoadableStream]) -> bool:
        """Answer a request with its error, or let it be handled again later; see ``_handle``."""
        match outcome:
            case RequestError():
                self._finish(request, outcome.wire())
            case Retry.AFTER_CATCH_UP:
                self._deciding.pop(request.key, None)
                self._run_beside(request, self._after_catch_up(request))
            case Retry.WHEN_IDLE:
                self._deciding.pop(request.key, None)
                self._need_idle.append(request)
            case Decision():
                raise TypeError
            case stream:
                missing.add(stream)
                return False
        return True

    async def _read_to_the_end(self) -> None:
        """Bring the state to the present end of the log.

        Raises:
            UnavailableError: the log cannot be read so far.

        """
        await self._state.reach_or_read_on(self._log, await self._log.last_position())

    async def _after_catch_up(self, request: PendingRequest) -> None:
        late = time.monotonic() - request.received_at > _STUCK_SECONDS
        if late and request.state_is_current and not self._history:  # others write without pause
            self._give_up([request], "busy", f"too many requests change this budget at once; {AGAIN}")
            return
        await self._read_to_the_end()
        request.state_is_current = True
        self._enqueue(request)

    async def _after_timers(self, request: PendingRequest) -> None:
        """Decide the timers' commands that were due before a request (history mode), then the request."""
        await self._read_to_the_end()
        for earlier in self.overdue_before(request.now):
            self._enqueue(earlier)
        self._enqueue(request)


def _decided(request: PendingRequest, decision: Decision, unit: UnitOfWork) -> Outcome:
    """Decide a request; where another decider may have answered it already, say that the log must be read first.

    A first answer that was not read yet may also be the reason of a refusal: it has taken the money already.
    """
    outcome = decide(request.command, decision)
    if outcome is decision and request.key and not unit.has_read_all(decision):
        return Retry.AFTER_CATCH_UP
    if isinstance(outcome, RequestError) and request.key and not request.state_is_current:
        return Retry.AFTER_CATCH_UP
    return outcome


def command_request(
    command: InternalCommand, cause: RequestContext, now: datetime, done: Callable[[bytes], None]
) -> PendingRequest:
    """Return a command of the timers as a request."""
    return PendingRequest("", done, command, cause, now, state_is_current=True)
