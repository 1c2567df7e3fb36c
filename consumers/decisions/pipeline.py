"""The decider: requests that wait together are decided one by one and committed together.

One task rules on what comes in, against cached books, while what was ruled before is being stored: an atomic
batch (or a single event) with each book's expectation. A conflict decides again what it touched.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from consumers.decisions.budget_repository import BudgetNotLoadedError, BudgetRepository, BudgetStream, Key
from consumers.decisions.committer import AGAIN, BatchCommitter, entries_of
from consumers.decisions.handlers import CommandHandlers
from consumers.decisions.handlers.requests import CommandResult, NeedsCatchUpError, NeedsIdlePipelineError, rows_of
from consumers.decisions.pending_request import PendingRequest, read_request
from consumers.decisions.responses import first_answer
from domain.commands import Preview, RequestError
from ledger.errors import LedgerError, UnavailableError
from ledger.nats.incidents import report
from ledger.store.batches import MAX_BATCH
from ledger.store.role_status import Heartbeat
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from consumers.decisions.handlers.followups import PostingCommand, TimerCommand
    from consumers.decisions.state.follower import DecisionState
    from domain.budgets.postings import RequestContext
    from domain.events.decisions import EscalationForwarded, EscalationRequested
    from ledger.store.event_id_index import EventIdEntry
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_TOGETHER_AT_MOST = 128  # half of what a busy source has in flight: one half is stored while the other is ruled on
_BYTES_TOGETHER = 4 * 1024 * 1024
_LEAP = timedelta(minutes=10)
_PAUSE_SECONDS = 0.005
_STUCK_SECONDS, _LOOK_SECONDS = 1.2, 0.2
"""After so long without the log's answer requests are told to ask again; the contract gives them two seconds."""


class DecisionPipeline:
    """``run`` is its one task; ``submit`` is its door."""

    def __init__(
        self,
        log: Log,
        directory: DecisionState,
        *,
        history: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._directory = directory
        self._books = BudgetRepository(log)
        self._dispatch = CommandHandlers(log, directory, self._books, history=history)
        self._history = history
        self._clock = clock
        self._latest = datetime(1970, 1, 1, tzinfo=UTC)
        self._read_at: datetime | None = None
        self._queue: list[PendingRequest] = []
        self._ready: list[PendingRequest] = []  # ruled on, and not being stored yet
        self._careful: list[PendingRequest] = []  # to be ruled on while nothing is being stored
        self._deciding: dict[bytes, PendingRequest] = {}
        self._wake = asyncio.Event()
        self._under_way = False  # whether a batch is being stored
        self._asked: deque[tuple[float, PendingRequest]] = deque()
        self._look: asyncio.TimerHandle | None = None
        self._ruling_since = self._storing_since = math.inf
        self._storing = BatchCommitter(log, directory, self._books, self._finish, self._give_up, self._on_ended)
        self._side_tasks: set[asyncio.Task[None]] = set()
        self.pulse = Heartbeat(
            "decisions", lambda: bool(self._queue or self._ready or self._careful or self._under_way)
        )
        self.elsewhere: Callable[[PendingRequest, str | None], bool] | None = None
        """Sends a request on where another decider has its holder; nothing, while there is no other."""
        self.old_names_until = 0
        """The last position at which requests were named by their source's old token, which others may share."""
        self.answered: Callable[[], None] = lambda: None
        """Called when the answers of a batch have been given."""
        self.before: Callable[[datetime], Sequence[PendingRequest]] = lambda _now: ()
        """What the clock asks for up to a moment; in history mode it comes before the requests of that moment."""

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
        answer_to: bytes = b"",
        here: bool = False,
        sealed: bool = False,
        refusal: RequestError | None = None,
    ) -> None:
        """Ask; ``answer`` is always called, once, with JSON: here, or by the decider it is sent on to.

        ``token`` names the source; ``answer_to`` is the subject of the answer; ``here`` says that another decider
        sent it on. A request with a ``refusal`` gets its first answer, and without one the refusal. ``sealed`` is as
        in ``read_form``.
        """
        waiting = PendingRequest(token, operation, body, answer, answer_to, sealed=sealed, refusal=refusal)
        try:
            read_request(waiting, self._moment(), self._directory.position, history=self._history)
        except RequestError as error:
            waiting.finish(error.wire())
            return
        self._note(waiting)
        if waiting.refusal is not None:
            self._enqueue(waiting)
            return
        others = None if here else self.elsewhere
        if others is not None and others(waiting, self._dispatch.holder_of(waiting.request)):
            return
        if self._history and waiting.request.time is not None and waiting.now > self._latest:
            leap, self._latest = waiting.now - self._latest, waiting.now
            if leap > _LEAP:
                self._aside(waiting, self._after_the_clock(waiting))
                return
        self._enqueue(waiting)

    def on_escalation(self, notify: Callable[[EscalationRequested | EscalationForwarded], None]) -> None:
        """Tell this function of every escalation that waits for somebody."""
        self._storing.notify = notify

    def submit_own(
        self,
        request: TimerCommand | PostingCommand,
        cause: RequestContext,
        now: datetime,
        done: Callable[[bytes], None],
    ) -> None:
        """What nobody asked for: the clock, or a fact. ``done`` is called at the end, whatever it is."""
        waiting = PendingRequest(token_of_source(cause.source), "", b"", done)
        waiting.request, waiting.cause, waiting.now, waiting.state_is_current = request, cause, now, True
        self._enqueue(waiting)

    def _note(self, waiting: PendingRequest) -> None:
        """Keep an eye on a request until it is answered."""
        self._asked.append((time.monotonic(), waiting))
        if self._look is None and not self._history:
            self._look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._answer_stuck)

    def _answer_stuck(self) -> None:
        """Tell requests to ask again that came before the log stopped to answer; what is being stored goes on."""
        self._look, now = None, time.monotonic()
        stuck = now - min(self._ruling_since, self._storing_since) > _STUCK_SECONDS
        left = [(at, waiting) for at, waiting in self._asked if not waiting.answered]
        if stuck:
            answer = RequestError("unavailable", f"the log does not answer; {AGAIN}").wire()
            for at, waiting in left:
                if now - at > _STUCK_SECONDS - _LOOK_SECONDS:
                    waiting.finish(answer)
            self.answered()
        self._asked = deque(pair for pair in left if not pair[1].answered)
        if self._asked:
            self._look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._answer_stuck)

    async def run(self) -> None:
        """Decide for ever: rule on what comes in while what was ruled before is being stored."""
        while True:
            self.pulse.beat()
            if self._queue and not self._careful and len(self._ready) < _TOGETHER_AT_MOST:
                group, self._queue = self._queue[:_TOGETHER_AT_MOST], self._queue[_TOGETHER_AT_MOST:]
                await self._rule_group(group)
            elif self._careful and not self._ready and not self._under_way:
                careful, self._careful = self._careful, []
                await self._rule_carefully(careful)
            if self._ready and not self._under_way:
                self._begin_to_store()
            can_rule = self._queue and not self._careful and len(self._ready) < _TOGETHER_AT_MOST
            if not can_rule and (self._under_way or not (self._careful or self._ready)):
                await self._wake.wait()
                self._wake.clear()

    def _begin_to_store(self) -> None:
        ready = self._ready
        self._under_way, self._storing_since = True, time.monotonic()
        try:
            self._storing.begin(self._one_batch())
        except Exception as error:  # noqa: BLE001 - reported; and whoever asked gets an answer
            report("decisions could not be stored", error, error)
            self._under_way, self._storing_since, self._ready = False, math.inf, []
            for waiting in ready:
                self._storing.forget(waiting)
            self._give_up(ready, "internal", f"an error of ours, see the log; {AGAIN}")

    def _on_ended(self, again: list[PendingRequest] | None) -> None:
        """A batch is done with; what conflicted, and what was ruled on top of it, is ruled on again."""
        self.answered()
        self._under_way, self._storing_since = False, math.inf
        self._wake.set()
        if again is None:
            return
        for waiting in (*again, *self._ready):
            self._storing.forget(waiting)
            self._deciding.pop(waiting.key, None)
        self._queue = [*again, *self._ready, *self._queue]
        self._ready = []

    def _one_batch(self) -> list[PendingRequest]:
        """As many of those that are ready as one batch takes.

        Only the first draft of a subject carries an expectation; so a batch ends where a book was read anew,
        and its own expectation has to be heard.
        """
        entries = size = 0
        books: dict[str, BudgetStream] = {}
        for number, waiting in enumerate(self._ready):
            mine = entries_of(waiting)
            entries += len(mine)
            size += sum(len(one.data) for one in mine)
            anew = any(books.setdefault(one.subject, one.book) is not one.book for one in mine)
            if number and (anew or entries > MAX_BATCH or size > _BYTES_TOGETHER):
                batch, self._ready = self._ready[:number], self._ready[number:]
                return batch
        batch, self._ready = self._ready, []
        return batch

    def _enqueue(self, waiting: PendingRequest) -> None:
        self._queue.append(waiting)
        self._wake.set()

    def _aside(self, waiting: PendingRequest, work: Coroutine[Any, Any, None]) -> None:
        """Do what a request waits for, beside the others; where that fails, the request gets an answer all the same."""
        task = asyncio.create_task(self._answered_at_least(waiting, work))
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    async def _answered_at_least(self, waiting: PendingRequest, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(None if self._history else _STUCK_SECONDS):
                await work
        except TimeoutError:
            self._give_up([waiting], "unavailable", f"the log does not answer; {AGAIN}")
        except LedgerError as error:
            self._give_up([waiting], "unavailable", f"{error}; {AGAIN}")
        except Exception as error:  # noqa: BLE001 - reported; and whoever asked gets an answer
            report("a request failed", error, error)
            self._give_up([waiting], "internal", f"an error of ours, see the log; {AGAIN}")

    def _finish(self, waiting: PendingRequest, answer: dict[str, Any]) -> None:
        if self._deciding.get(waiting.key) is waiting:
            del self._deciding[waiting.key]
        waiting.finish(answer)
        for twin in waiting.duplicates:
            self._enqueue(twin)
        waiting.duplicates = []

    def _give_up(self, group: Sequence[PendingRequest], code: str, message: str) -> None:
        for waiting in group:
            self._finish(waiting, RequestError(code, message).wire())

    def _moment(self) -> datetime:
        """The time; what is read from the socket at once came at once, and shares the text of it, too."""
        if self._read_at is None:
            self._read_at = self._clock()
            asyncio.get_running_loop().call_soon(self._later)
        return self._read_at

    def _later(self) -> None:
        self._read_at = None

    # ------------------------------------------------------------------ ruling

    async def _rule_carefully(self, careful: list[PendingRequest]) -> None:
        """Rule while nothing is being stored, with all read that anybody has written."""
        self._ruling_since = time.monotonic()
        try:
            await self._directory.reach(await self._log.last_position())
        except LedgerError as error:
            self._give_up(careful, "unavailable", f"{error}; {AGAIN}")
            return
        finally:
            self._ruling_since = math.inf
        await self._rule_group(careful)
        if self._careful and not self._ready:  # others are quicker: let them, and let the directory read
            self._careful = self._storing.once_more(self._careful)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _rule_group(self, group: list[PendingRequest]) -> None:
        self._ruling_since = time.monotonic()
        try:
            todo = self._new_ones(group)
            self._preload(todo)
            while todo:
                missing: set[Key] = set()
                todo = [waiting for waiting in todo if not await self._rule(waiting, missing)]
                if missing:
                    await asyncio.gather(*map(self._books.load, missing))
        except LedgerError as error:
            code = "unavailable" if isinstance(error, UnavailableError) else "internal"
            self._give_up_unruled(group, code, f"{error}; {AGAIN}")
        except Exception:  # noqa: BLE001 - logged; and whoever asked gets an answer
            _log.exception("deciding failed")
            self._give_up_unruled(group, "internal", f"an error of ours, see the log; {AGAIN}")
        finally:
            self._ruling_since = math.inf

    def _give_up_unruled(self, group: list[PendingRequest], code: str, message: str) -> None:
        ruled = set(map(id, self._ready))
        self._give_up([waiting for waiting in group if id(waiting) not in ruled], code, message)

    def _new_ones(self, group: list[PendingRequest]) -> list[PendingRequest]:
        """Requests not answered before; one that was gets its first answer again."""
        found = self._directory.find([waiting.key for waiting in group if waiting.key])
        new: list[PendingRequest] = []
        for waiting in group:
            if waiting.answered:  # told to ask again; the same request may be waiting for it to end
                self._finish(waiting, {})
                continue
            if name := found.get(waiting.key) or self._answered_before(waiting):
                self._aside(waiting, self._answer_again(waiting, name))
            elif waiting.key and (twin := self._deciding.get(waiting.key, waiting)) is not waiting:
                twin.duplicates.append(waiting)  # the same is being decided: look again after that
            else:
                if waiting.key:
                    self._deciding[waiting.key] = waiting
                new.append(waiting)
        return new

    def _answered_before(self, waiting: PendingRequest) -> EventIdEntry | None:
        """The answer that an earlier version gave to this very request, in the name of its source's old token."""
        if not waiting.old_key:
            return None
        name = self._directory.find([waiting.old_key]).get(waiting.old_key)
        if name is None or name.position > self.old_names_until:
            return None
        return name if name.content.hex() == waiting.cause.request_sha256 else None

    def _preload(self, todo: list[PendingRequest]) -> None:
        asked = [waiting.request for waiting in todo if isinstance(waiting.request, Preview)]
        rules = self._directory.policies.in_force(todo[0].now) if asked else None
        if rules is None:
            return
        roles = rules.policy.roles.values()
        customers = any(role.per_customer for role in roles)
        interactions = any(role.per_interaction for role in roles)
        self._directory.given.preload(
            {request.customer_id for request in asked if request.customer_id} if customers else (),
            {request.interaction_id for request in asked if request.interaction_id} if interactions else (),
        )

    async def _answer_again(self, waiting: PendingRequest, name: EventIdEntry) -> None:
        if name.content.hex() != waiting.cause.request_sha256:
            message = "this request_id was used with another body; give a new request a new request_id"
            self._finish(waiting, RequestError("request_id_reused", message, "request_id").wire())
            return
        self._finish(waiting, await first_answer(self._log, name.position))

    async def _rule(self, waiting: PendingRequest, missing: set[Key]) -> bool:
        """Rule on one request; false where a book has to be read first."""
        self._books.touched.clear()
        try:
            ruling = self._dispatch.ruling(waiting)
            if not isinstance(ruling, CommandResult):
                ruling = await ruling
        except BudgetNotLoadedError as error:
            missing.add(error.key)
            self._undo()
            return False
        except NeedsCatchUpError:
            self._deciding.pop(waiting.key, None)
            self._aside(waiting, self._when_caught_up(waiting))
        except NeedsIdlePipelineError:
            self._deciding.pop(waiting.key, None)
            self._careful.append(waiting)
        except RequestError as error:
            self._finish(waiting, error.wire())
        except LedgerError:
            raise
        except Exception:  # noqa: BLE001 - one request must not bring down those that wait with it
            _log.exception("a request of %s could not be ruled on", waiting.source)
            self._give_up([waiting], "internal", "an error of ours, see the log")
        else:
            self._ruled(waiting, ruling)
            return True
        self._undo()
        return True

    def _undo(self) -> None:
        """A ruling that came to nothing leaves no trace in the books."""
        for book in self._books.touched:
            self._books.forget(book)

    def _ruled(self, waiting: PendingRequest, ruling: CommandResult) -> None:
        waiting.ruling = ruling
        if ruling.unit is None or not ruling.unit.entries:
            self._finish(waiting, ruling.answer)
            return
        waiting.rows = rows_of(ruling.unit)
        for row, _ in waiting.rows:
            self._directory.given.add_pending(row)
        self._ready.append(waiting)

    async def _when_caught_up(self, waiting: PendingRequest) -> None:
        await self._directory.reach(await self._log.last_position())
        waiting.state_is_current = True
        self._enqueue(waiting)

    async def _after_the_clock(self, waiting: PendingRequest) -> None:
        """In history mode: what the clock would have done in the meantime comes first."""
        await self._directory.reach(await self._log.last_position())
        for earlier in self.before(waiting.now):
            self._enqueue(earlier)
        self._enqueue(waiting)
