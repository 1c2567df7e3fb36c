"""Storing what was ruled: one batch at a time, each book with its expectation; what conflicts is told apart."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from domain.commands import PolicyRequest
from domain.events.decisions import EscalationForwarded, EscalationRequested
from ledger.errors import ConflictError, LedgerError, UnavailableError
from ledger.store.event_id_index import EventIdEntry
from ledger.store.log import Draft

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumers.decisions.budget_repository import BudgetRepository, PendingDraft
    from consumers.decisions.pending_request import PendingRequest
    from consumers.decisions.state.follower import DecisionState
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_ATTEMPTS = 50
AGAIN = "ask again with the same request_id"


class BatchCommitter:
    """Appends batches, remembers what they hold and answers. One batch is under way at a time."""

    def __init__(
        self,
        log: Log,
        directory: DecisionState,
        books: BudgetRepository,
        finish: Callable[[PendingRequest, dict[str, Any]], None],
        give_up: Callable[[Sequence[PendingRequest], str, str], None],
        ended: Callable[[list[PendingRequest] | None], None],
    ) -> None:
        """``ended`` is told of each batch: nothing, or what of it has to be ruled on again (perhaps none)."""
        self._log = log
        self._directory = directory
        self._books = books
        self._finish = finish
        self._give_up = give_up
        self._ended = ended
        self._slow: asyncio.Task[None] | None = None
        self.notify: Callable[[EscalationRequested | EscalationForwarded], None] = lambda _record: None

    def begin(self, batch: list[PendingRequest]) -> None:
        """Store a batch: straight from socket to socket where all is well."""
        if any(isinstance(waiting.request, PolicyRequest) for waiting in batch):
            self._slow = asyncio.create_task(self._carefully(batch))
        else:
            self._log.append_nowait(_drafts(batch), partial(self._posted, batch))

    def forget(self, waiting: PendingRequest) -> None:
        """Whatever a ruling changed here is read again."""
        for entry in entries_of(waiting):
            self._books.forget(entry.book)
        for row, _ in waiting.rows:
            self._directory.given.discard_pending(row)
        waiting.rows = []

    def once_more(self, bad: list[PendingRequest]) -> list[PendingRequest]:
        """Those of them that may be ruled on again; who has been at it for too long is told so."""
        for waiting in bad:
            waiting.attempts += 1
            self._books.begun_before |= {entry.book.key for entry in entries_of(waiting) if entry.begins}
            self.forget(waiting)
        for waiting in bad:
            if waiting.answered:  # told to ask again; the same request may be waiting for it to end
                self._finish(waiting, {})
        tired = [waiting for waiting in bad if not waiting.answered and waiting.attempts >= _ATTEMPTS]
        self._give_up(tired, "busy", f"too many write to this budget at once; {AGAIN}")
        return [waiting for waiting in bad if not waiting.answered]

    def _posted(self, batch: list[PendingRequest], result: int | LedgerError) -> None:
        if isinstance(result, int):
            try:
                self._took(batch, result)
            except Exception:  # noqa: BLE001 - what is stored is stored; who got no answer asks again
                _log.exception("answers are lost")
            finally:
                self._ended(None)
        else:
            self._slow = asyncio.create_task(self._carefully(batch))

    async def _carefully(self, batch: list[PendingRequest]) -> None:
        again: list[PendingRequest] | None = None
        try:
            again = await self._append_or_part(batch)
        except LedgerError as error:
            _log.error("deciding stopped: %s", error)
            code = "unavailable" if isinstance(error, UnavailableError) else "internal"
            again = self._stop(batch, code, f"{error}; {AGAIN}")
        except Exception:  # noqa: BLE001 - logged; and whoever asked gets an answer
            _log.exception("deciding failed")
            again = self._stop(batch, "internal", f"an error of ours, see the log; {AGAIN}")
        self._ended(again)

    async def _append_or_part(self, batch: list[PendingRequest]) -> list[PendingRequest] | None:
        try:
            await self._append(batch)
        except ConflictError:
            good, bad = await self._apart(batch)
            try:
                if good:
                    await self._append(good)
            except ConflictError:
                bad = batch
            return self.once_more(bad)
        return None

    def _stop(self, batch: list[PendingRequest], code: str, message: str) -> list[PendingRequest]:
        for waiting in batch:
            self.forget(waiting)
        self._give_up(batch, code, message)
        return []

    async def _apart(self, batch: list[PendingRequest]) -> tuple[list[PendingRequest], list[PendingRequest]]:
        """Those whose books nobody else wrote to, and the others: with all that was ruled on top of them."""
        books = list({id(entry.book): entry.book for waiting in batch for entry in entries_of(waiting)}.values())
        newest = await asyncio.gather(*(self._log.read_from_leader(book.subject) for book in books))
        moved = {
            id(book) for book, last in zip(books, newest, strict=True) if (last.position if last else 0) > book.last
        }
        if not moved:
            return [], batch
        good: list[PendingRequest] = []
        bad: list[PendingRequest] = []
        for waiting in batch:
            touched = {id(entry.book) for entry in entries_of(waiting)}
            if touched.isdisjoint(moved):
                good.append(waiting)
            else:
                bad.append(waiting)
                moved |= touched
        return good, bad

    async def _append(self, batch: list[PendingRequest]) -> None:
        position = await self._log.append(_drafts(batch))
        if any(isinstance(waiting.request, PolicyRequest) for waiting in batch):
            # In force for the very next request.
            await self._directory.reach(position + sum(len(entries_of(waiting)) for waiting in batch) - 1)
        self._took(batch, position)

    def _took(self, batch: list[PendingRequest], position: int) -> None:
        """Take note of where a stored batch stands, and answer."""
        names: list[EventIdEntry] = []
        for waiting in batch:
            position = self._recorded(waiting, position, names)
        self._directory.remember(names)
        for waiting in batch:
            self._finish(waiting, waiting.ruling.answer)

    def _recorded(self, waiting: PendingRequest, first: int, names: list[EventIdEntry]) -> int:
        """Take note of one request's entries; the position after them."""
        answering, position = waiting.ruling.answering, first
        for entry in entries_of(waiting):
            book, record = entry.book, entry.record
            book.last, book.own = position, True
            book.unstored -= 1
            if record is answering:
                waiting.ruling.answer["position"] = position
                names.append(EventIdEntry(waiting.key, position, bytes.fromhex(waiting.cause.request_sha256 or "")))
            if isinstance(record, (EscalationRequested, EscalationForwarded)):
                self.notify(record)
            position += 1
        for row, number in waiting.rows:
            self._directory.confirm(row, first + number)
        waiting.rows = []
        return position


def entries_of(waiting: PendingRequest) -> Sequence[PendingDraft]:
    """What a request's ruling writes."""
    unit = waiting.ruling.unit
    return unit.entries if unit is not None else ()


def _drafts(batch: list[PendingRequest]) -> list[Draft]:
    """In a batch only the first draft of a subject may carry an expectation."""
    drafts: list[Draft] = []
    begun: set[str] = set()
    for waiting in batch:
        for entry in entries_of(waiting):
            expect = None if entry.subject in begun else 0 if entry.begins else entry.book.last
            drafts.append(Draft(entry.subject, entry.data, expect))
            begun.add(entry.subject)
    return drafts
