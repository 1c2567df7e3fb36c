"""The decider: requests that wait together are decided one by one and committed together.

One task rules on what comes in, against cached books, while what was ruled before is being stored: an atomic
batch (or a single event) with each book's expectation. A conflict decides again what it touched.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from consumers.answers import first_answer
from consumers.books import Book, Books, Key, MissingError
from consumers.dispatch import Dispatch
from consumers.rulings import LaterError, Ruling, StaleError, rows_of
from consumers.waiting import Waiting, read_request
from domain.records import EscalationForwarded, EscalationRequested
from domain.requests import PolicyRequest, Preview, RequestError
from ledger.errors import ConflictError, LedgerError, UnavailableError
from ledger.index import Name
from ledger.log import MAX_BATCH, Draft

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from consumers.directory import Directory
    from consumers.followups import Overdue, Posting
    from domain.bookkeeping import Cause
    from ledger.log import Log

_log = logging.getLogger(__name__)
_ATTEMPTS = 50
_TOGETHER_AT_MOST = 256
_LEAP = timedelta(minutes=10)
_PAUSE_SECONDS = 0.005


class Decider:
    """``run`` is its one task; ``submit`` is its door."""

    def __init__(self, log: Log, directory: Directory, *, history: bool = False,
                 clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:  # fmt: skip
        self._log = log
        self._directory = directory
        self._books = Books(log)
        self._dispatch = Dispatch(log, directory, self._books)
        self._history = history
        self._clock = clock
        self._latest = datetime(1970, 1, 1, tzinfo=UTC)
        self._queue: list[Waiting] = []
        self._ready: list[Waiting] = []  # ruled on, and not being stored yet
        self._careful: list[Waiting] = []  # to be ruled on while nothing is being stored
        self._deciding: dict[bytes, Waiting] = {}
        self._wake = asyncio.Event()
        self._stored = 0  # the last position that was written here
        self._side_tasks: set[asyncio.Task[None]] = set()
        self.elsewhere: Callable[[Waiting, str | None], bool] | None = None
        """Sends a request on where another decider has its holder; nothing, while there is no other."""
        self.before: Callable[[datetime], Sequence[Waiting]] = lambda _now: ()
        """What the clock asks for up to a moment; in history mode it comes before the requests of that moment."""
        self.notify: Callable[[EscalationRequested | EscalationForwarded], None] = lambda _record: None

    @property
    def now(self) -> datetime:
        """The ledger's clock; in history mode the newest time of a request."""
        return self._latest if self._history else self._clock()

    def submit(self, source: str, operation: str, body: bytes, answer: Callable[[bytes], None], *,
               answer_to: bytes = b"", here: bool = False) -> None:  # fmt: skip
        """Ask; ``answer`` is always called, once, with JSON: here, or by the decider it is sent on to.

        ``answer_to`` is the subject of the answer; ``here`` says that another decider sent it on.
        """
        waiting = Waiting(source, operation, body, answer, answer_to)
        try:
            read_request(waiting, self._clock(), self._directory.position, history=self._history)
        except RequestError as error:
            waiting.finish(error.wire())
            return
        others = None if here else self.elsewhere
        if others is not None and others(waiting, self._dispatch.holder_of(waiting.request)):
            return
        if self._history and waiting.request.time is not None and waiting.now > self._latest:
            leap, self._latest = waiting.now - self._latest, waiting.now
            if leap > _LEAP:
                self._aside(self._after_the_clock(waiting))
                return
        self._enqueue(waiting)

    def submit_own(self, request: Overdue | Posting, cause: Cause, now: datetime,
                   done: Callable[[bytes], None]) -> None:  # fmt: skip
        """What nobody asked for: the clock, or a fact. ``done`` is called at the end, whatever it is."""
        waiting = Waiting(cause.source, "", b"", done)
        waiting.request, waiting.cause, waiting.now, waiting.fresh = request, cause, now, True
        self._enqueue(waiting)

    async def run(self) -> None:
        """Decide for ever."""
        storing: asyncio.Task[list[Waiting] | None] | None = None
        while True:
            if storing is not None and storing.done():
                self._again(storing.result())
                storing = None
            if self._queue and not self._careful:
                group, self._queue = self._queue[:_TOGETHER_AT_MOST], self._queue[_TOGETHER_AT_MOST:]
                await self._rule_group(group)
            elif storing is None and not self._ready and self._careful:
                careful, self._careful = self._careful, []
                await self._rule_carefully(careful)
            if storing is None and self._ready:
                batch = self._one_batch()
                storing = asyncio.create_task(self._store(batch))
                storing.add_done_callback(lambda _task: self._wake.set())
            if storing is not None or not (self._queue or self._careful):
                if self._queue and not self._careful and len(self._ready) < _TOGETHER_AT_MOST:
                    continue
                await self._wake.wait()
                self._wake.clear()

    def _one_batch(self) -> list[Waiting]:
        """As many of those that are ready as one batch takes.

        Only the first draft of a subject carries an expectation; so a batch ends where a book was read anew,
        and its own expectation has to be heard.
        """
        entries = 0
        books: dict[str, Book] = {}
        for number, waiting in enumerate(self._ready):
            mine = _entries(waiting)
            entries += len(mine)
            if entries > MAX_BATCH or any(books.setdefault(one.subject, one.book) is not one.book for one in mine):
                batch, self._ready = self._ready[:number], self._ready[number:]
                return batch
        batch, self._ready = self._ready, []
        return batch

    def _again(self, bad: list[Waiting] | None) -> None:
        """What conflicted, and what was ruled on top of it, is ruled on again."""
        if bad is None:
            return
        for waiting in (*bad, *self._ready):
            self._forget(waiting)
            self._deciding.pop(waiting.key, None)
        self._queue = [*bad, *self._ready, *self._queue]
        self._ready = []

    def _enqueue(self, waiting: Waiting) -> None:
        self._queue.append(waiting)
        self._wake.set()

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    def _finish(self, waiting: Waiting, answer: dict[str, Any]) -> None:
        if self._deciding.get(waiting.key) is waiting:
            del self._deciding[waiting.key]
        waiting.finish(answer)
        for twin in waiting.twins:
            self._enqueue(twin)
        waiting.twins = []

    def _give_up(self, group: Sequence[Waiting], code: str, message: str) -> None:
        for waiting in group:
            self._finish(waiting, RequestError(code, message).wire())

    # ------------------------------------------------------------------ ruling

    async def _rule_carefully(self, careful: list[Waiting]) -> None:
        """Rule while nothing is being stored, with all read that anybody has written."""
        try:
            await self._directory.reach(await self._log.last_position())
        except LedgerError as error:
            self._give_up(careful, "unavailable", f"{error}; ask again with the same request_id")
            return
        await self._rule_group(careful)
        if self._careful and not self._ready:  # others are quicker: let them, and let the directory read
            self._once_more(self._careful)
            self._careful = [waiting for waiting in self._careful if not waiting.answered]
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _rule_group(self, group: list[Waiting]) -> None:
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
            self._give_up_unruled(group, code, f"{error}; ask again with the same request_id")
        except Exception:  # noqa: BLE001 - logged; and whoever asked gets an answer
            _log.exception("deciding failed")
            self._give_up_unruled(group, "internal", "an error of ours, see the log; ask again")

    def _give_up_unruled(self, group: list[Waiting], code: str, message: str) -> None:
        ruled = set(map(id, self._ready))
        self._give_up([waiting for waiting in group if id(waiting) not in ruled], code, message)

    def _new_ones(self, group: list[Waiting]) -> list[Waiting]:
        """Requests not answered before; one that was gets its first answer again."""
        found = self._directory.find([waiting.key for waiting in group if waiting.key])
        new: list[Waiting] = []
        for waiting in group:
            if waiting.answered:
                continue
            if name := found.get(waiting.key):
                self._aside(self._answer_again(waiting, name))
            elif waiting.key and (twin := self._deciding.get(waiting.key, waiting)) is not waiting:
                twin.twins.append(waiting)  # the same is being decided: look again after that
            else:
                if waiting.key:
                    self._deciding[waiting.key] = waiting
                new.append(waiting)
        return new

    def _preload(self, todo: list[Waiting]) -> None:
        asked = [waiting.request for waiting in todo if isinstance(waiting.request, Preview)]
        rules = self._directory.in_force(todo[0].now) if asked else None
        if rules is None:
            return
        roles = rules.policy.roles.values()
        customers = any(role.per_customer for role in roles)
        interactions = any(role.per_interaction for role in roles)
        self._directory.given.preload(
            {request.customer_id for request in asked if request.customer_id} if customers else (),
            {request.interaction_id for request in asked if request.interaction_id} if interactions else (),
        )

    async def _answer_again(self, waiting: Waiting, name: Name) -> None:
        if name.content.hex() != waiting.cause.request_sha256:
            message = "this request_id was used with another body; give a new request a new request_id"
            self._finish(waiting, RequestError("request_id_reused", message, "request_id").wire())
            return
        try:
            self._finish(waiting, await first_answer(self._log, name.position))
        except LedgerError as error:
            self._give_up([waiting], "unavailable", f"{error}; ask again with the same request_id")

    async def _rule(self, waiting: Waiting, missing: set[Key]) -> bool:
        """Rule on one request; false where a book has to be read first."""
        self._books.touched.clear()
        try:
            ruling = self._dispatch.ruling(waiting)
            if not isinstance(ruling, Ruling):
                ruling = await ruling
        except MissingError as error:
            missing.add(error.key)
            self._undo()
            return False
        except StaleError:
            self._deciding.pop(waiting.key, None)
            self._aside(self._when_caught_up(waiting))
        except LaterError:
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

    def _ruled(self, waiting: Waiting, ruling: Ruling) -> None:
        waiting.ruling = ruling
        if ruling.unit is None or not ruling.unit.entries:
            self._finish(waiting, ruling.answer)
            return
        waiting.rows = rows_of(ruling.unit)
        for row, _ in waiting.rows:
            self._directory.given.promise(row)
        self._ready.append(waiting)

    async def _when_caught_up(self, waiting: Waiting) -> None:
        try:
            await self._directory.reach(await self._log.last_position())
        except UnavailableError as error:
            self._give_up([waiting], "unavailable", str(error))
            return
        waiting.fresh = True
        self._enqueue(waiting)

    async def _after_the_clock(self, waiting: Waiting) -> None:
        """In history mode: what the clock would have done in the meantime comes first."""
        try:
            await self._directory.reach(await self._log.last_position())
        except UnavailableError as error:
            self._give_up([waiting], "unavailable", str(error))
            return
        for earlier in self.before(waiting.now):
            self._enqueue(earlier)
        self._enqueue(waiting)

    # ------------------------------------------------------------------ storing

    async def _store(self, batch: list[Waiting]) -> list[Waiting] | None:
        """Append what was ruled, and answer; what conflicted with others is returned."""
        try:
            try:
                await self._append(batch)
            except ConflictError:
                good, bad = await self._apart(batch)
                if good:
                    await self._append(good)
                return self._once_more(bad)
        except ConflictError:
            return self._once_more(batch)
        except LedgerError as error:
            _log.error("deciding stopped: %s", error)
            code = "unavailable" if isinstance(error, UnavailableError) else "internal"
            return self._stop(batch, code, f"{error}; ask again with the same request_id")
        except Exception:  # noqa: BLE001 - logged; and whoever asked gets an answer
            _log.exception("deciding failed")
            return self._stop(batch, "internal", "an error of ours, see the log; ask again with the same request_id")
        return None

    def _stop(self, batch: list[Waiting], code: str, message: str) -> list[Waiting]:
        for waiting in batch:
            self._forget(waiting)
        self._give_up([waiting for waiting in batch if not waiting.answered], code, message)
        return []

    def _once_more(self, bad: list[Waiting]) -> list[Waiting]:
        for waiting in bad:
            waiting.attempts += 1
            self._forget(waiting)
        tired = [waiting for waiting in bad if waiting.answered or waiting.attempts >= _ATTEMPTS]
        message = "too many write to this budget at once; ask again with the same request_id"
        self._give_up([waiting for waiting in tired if not waiting.answered], "busy", message)
        return [waiting for waiting in bad if waiting.attempts < _ATTEMPTS and not waiting.answered]

    async def _apart(self, batch: list[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
        """Those whose books nobody else wrote to, and the others: with all that was ruled on top of them."""
        books = list({id(entry.book): entry.book for waiting in batch for entry in _entries(waiting)}.values())
        newest = await asyncio.gather(*(self._log.surely(book.subject) for book in books))
        moved = {
            id(book) for book, last in zip(books, newest, strict=True) if (last.position if last else 0) > book.last
        }
        if not moved:
            return [], batch
        good: list[Waiting] = []
        bad: list[Waiting] = []
        for waiting in batch:
            touched = {id(entry.book) for entry in _entries(waiting)}
            if touched.isdisjoint(moved):
                good.append(waiting)
            else:
                bad.append(waiting)
                moved |= touched
        return good, bad

    async def _append(self, batch: list[Waiting]) -> None:
        drafts: list[Draft] = []
        begun: set[str] = set()
        for waiting in batch:
            for entry in _entries(waiting):
                # In a batch only the first draft of a subject may carry an expectation.
                expect = None if entry.subject in begun else 0 if entry.begins else entry.book.last
                drafts.append(Draft(entry.subject, entry.data, expect))
                begun.add(entry.subject)
        position = await self._log.append(drafts)
        names: list[Name] = []
        for waiting in batch:
            position = self._recorded(waiting, position, names)
        self._stored = position - 1
        self._directory.remember(names)
        for waiting in batch:
            if isinstance(waiting.request, PolicyRequest):  # in force for the very next request
                await self._directory.reach(self._stored)
            self._finish(waiting, waiting.ruling.answer)

    def _recorded(self, waiting: Waiting, position: int, names: list[Name]) -> int:
        """Take note of where a request's entries stand; the position after them."""
        unit, answer, answering = waiting.ruling.unit, waiting.ruling.answer, waiting.ruling.answering
        assert unit is not None
        first = position
        for entry in unit.entries:
            book = entry.book
            book.last, book.own = position, True
            book.unstored -= 1
            if entry.record is answering:
                answer["position"] = position
                names.append(Name(waiting.key, position, bytes.fromhex(waiting.cause.request_sha256 or "")))
            if isinstance(entry.record, (EscalationRequested, EscalationForwarded)):
                self.notify(entry.record)
            position += 1
        for row, number in waiting.rows:
            self._directory.wrote(row, first + number)
        waiting.rows = []
        return position

    def _forget(self, waiting: Waiting) -> None:
        for entry in _entries(waiting):
            self._books.forget(entry.book)
        for row, _ in waiting.rows:
            self._directory.given.withdraw(row)
        waiting.rows = []


def _entries(waiting: Waiting) -> Sequence[Any]:
    unit = waiting.ruling.unit
    return unit.entries if unit is not None else ()
