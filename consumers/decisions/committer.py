"""The committer: stores the results of requests, one group at a time, and answers the requests."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from consumers.decisions.state.actions import Name, names_of
from domain.commands import PolicyApproval, PolicyObjection, PolicyProposal, PolicyRequest
from domain.decisions.policies import OverdueProposal
from ledger.errors import ConflictError, LedgerError, UnavailableError
from ledger.store.atomic_batches import MAX_BATCH
from ledger.store.event_id_index import EventIdEntry
from ledger.store.log import Draft

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumers.decisions.budget_repository import BudgetRepository, BudgetStream
    from consumers.decisions.pending_request import PendingRequest
    from consumers.decisions.state.actions import StateAction
    from consumers.decisions.state.follower import DecisionState
    from domain.serialization import JsonObject
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_ATTEMPTS = 50
_BATCH_BYTES = 4 * 1024 * 1024
_SINGLY = 16
"""An atomic batch costs a server without replicas several syncs of its disk, however small; a message costs one."""
_RETRIED_AT_ONCE = 8
AGAIN = "ask again with the same request_id"
OUR_ERROR = f"an error of ours, see the log; {AGAIN}"


class BatchCommitter:
    """Appends groups, updates the state with their events, and answers the requests.

    A group is an atomic batch, or, where it is small, a message for each of its events. Each stream's first event
    carries the expected sequence of the stream. After a conflict, the requests on streams that others did not write to
    are stored again; the rest is decided again.
    """

    def __init__(
        self,
        log: Log,
        state: DecisionState,
        budgets: BudgetRepository,
        finish: Callable[[PendingRequest, JsonObject], None],
        give_up: Callable[[Sequence[PendingRequest], str, str], None],
        on_stored: Callable[[list[PendingRequest], Callable[[], None]], None],
        on_end: Callable[[list[PendingRequest] | None], None],
    ) -> None:
        """``on_stored`` answers the requests of a stored batch, and then calls its second argument.

        ``on_end`` gets ``None`` after a batch was stored, otherwise its requests that must be decided again.
        """
        self._log = log
        self._state = state
        self._budgets = budgets
        self._finish = finish
        self._give_up = give_up
        self._on_stored = on_stored
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None

    def begin(self, ready: list[PendingRequest]) -> list[PendingRequest]:
        """Start to store a group of these requests, and return the requests after it.

        Without a policy in it and without a conflict this needs no task.
        """
        number, drafts = _next_batch(ready)
        batch = ready if number == len(ready) else ready[:number]
        if not _ABOUT_POLICIES.isdisjoint([type(request.command) for request in batch]):
            self._task = asyncio.create_task(self._store_with_retry([batch]))
        elif 1 < number <= _SINGLY and self._log.copies == 1 and _are_independent(batch):
            singles = _SingleMessages(batch, self._answer, self._end_of_singles)
            self._log.append_singly_nowait(drafts, singles.on_reply)
        else:
            self._log.append_nowait(drafts, partial(self._on_reply, batch))
        return ready[number:]

    def discard(self, request: PendingRequest) -> None:
        """Undo the effects of a request's result on the cached state."""
        for draft in request.drafts:
            self._budgets.forget(draft.stream)
            if draft.row is not None:
                self._state.actions.discard_pending(draft.row)
        request.drafts = []

    def retryable(self, requests: list[PendingRequest]) -> list[PendingRequest]:
        """Discard the results of these requests; return the requests to decide again, and answer the others."""
        for request in requests:
            request.attempts += 1
            self._budgets.opened_by_others |= {
                draft.stream.key for draft in request.drafts if draft.begins and draft.stream.key is not None
            }
            self.discard(request)
            if request.answered:  # with advice to retry; a duplicate may wait for its end
                self._finish(request, {})
        exhausted = [one for one in requests if not one.answered and one.attempts >= _ATTEMPTS]
        self._give_up(exhausted, "busy", f"too many requests change this budget at once; {AGAIN}")
        return [request for request in requests if not request.answered]

    def _on_reply(self, batch: list[PendingRequest], result: int | LedgerError) -> None:
        if isinstance(result, int):
            try:
                self._answer(batch, count(result))
            except Exception:  # noqa: BLE001 - the events are stored; a retry gets the first answer
                _log.exception("answers are lost")
            finally:
                self._on_end(None)
        else:
            self._task = asyncio.create_task(self._store_with_retry([batch]))

    def _end_of_singles(self, failed: list[PendingRequest]) -> None:
        if failed:
            self._task = asyncio.create_task(self._store_with_retry([[request] for request in failed]))
        else:
            self._on_end(None)

    async def _store_with_retry(self, batches: list[list[PendingRequest]]) -> None:
        """Store batches that do not depend on each other; requests that could not be stored are decided again."""
        turns = asyncio.Semaphore(_RETRIED_AT_ONCE)

        async def retry(batch: list[PendingRequest]) -> list[PendingRequest] | None:
            async with turns:
                return await self._retry(batch)

        rest = [again for again in await asyncio.gather(*map(retry, batches)) if again is not None]
        self._on_end([request for again in rest for request in again] if rest else None)

    async def _retry(self, batch: list[PendingRequest]) -> list[PendingRequest] | None:
        """Return the requests to decide again, ``None`` if all are stored."""
        try:
            return await self._append_or_split(batch)
        except LedgerError as error:
            _log.error("decisions stopped: %s", error)
            code = "unavailable" if isinstance(error, UnavailableError) else "internal"
            return self._stop(batch, code, f"{error}; {AGAIN}")
        except Exception:  # noqa: BLE001 - logged; every request gets an answer
            _log.exception("decisions failed")
            return self._stop(batch, "internal", OUR_ERROR)

    async def _append_or_split(self, batch: list[PendingRequest]) -> list[PendingRequest] | None:
        try:
            await self._append(batch)
        except ConflictError:
            good, bad = await self._split(batch)
            try:
                if good:
                    await self._append(good)
            except ConflictError:
                bad = batch
            return self.retryable(bad)
        return None

    def _stop(self, batch: list[PendingRequest], code: str, message: str) -> list[PendingRequest]:
        for request in batch:
            self.discard(request)
        self._give_up(batch, code, message)
        return []

    async def _split(self, batch: list[PendingRequest]) -> tuple[list[PendingRequest], list[PendingRequest]]:
        """Return the requests on streams that no other process wrote to, and the others.

        The others include the requests that were decided on top of a changed stream, or that counted an action of such
        a request: that action may never be recorded.
        """
        streams = list({id(draft.stream): draft.stream for request in batch for draft in request.drafts}.values())
        newest = await asyncio.gather(*(self._log.read_from_leader(stream.subject) for stream in streams))
        changed = {
            id(stream)
            for stream, last in zip(streams, newest, strict=True)
            if (last.position if last else 0) > stream.last
        }
        if not changed:
            return [], batch
        good: list[PendingRequest] = []
        bad: list[PendingRequest] = []
        undone: set[Name] = set()
        for request in batch:
            written = {id(draft.stream) for draft in request.drafts}
            read = written.union(map(id, request.read))
            if read.isdisjoint(changed) and request.counted.isdisjoint(undone):
                good.append(request)
            else:
                bad.append(request)
                changed |= written
                undone |= _names_in(request)
        return good, bad

    async def _append(self, batch: list[PendingRequest]) -> None:
        _, drafts = _next_batch(batch)
        position = await self._log.append(drafts)
        if any(type(request.command) in _ABOUT_POLICIES for request in batch):
            # The policy is in force for the very next request.
            await self._state.reach_or_read_on(self._log, position + sum(len(one.drafts) for one in batch) - 1)
        self._answer(batch, count(position))

    def _answer(self, batch: list[PendingRequest], positions: Iterator[int]) -> None:
        """Note the positions of stored events, then answer their requests."""
        entries: list[EventIdEntry] = []
        actions: list[StateAction] = []
        for request in batch:
            decision = request.decision
            for draft in request.drafts:
                stream, record, position = draft.stream, draft.record, next(positions)
                # What another decider wrote before stays unread: a timer or a preview may write without having read it.
                stream.own = stream.own or stream.last <= self._state.position
                stream.last = position
                stream.unstored -= 1
                if stream.read_to > position and not stream.unstored:  # another decider has written after it
                    self._budgets.forget(stream)
                if draft.row is not None:
                    draft.row.position = position
                    actions.append(draft.row)
                    draft.row = None
                if decision is not None and record is decision.answering:
                    decision.answer["position"] = position
                    entries.append(EventIdEntry(request.key, position, request.content))
        self._on_stored(batch, partial(self._state.remember, entries, actions))


def _are_independent(batch: list[PendingRequest]) -> bool:
    """Return whether each request has one event, which is right whether the others are stored or not."""
    written = {id(request.drafts[0].stream) for request in batch if len(request.drafts) == 1}
    if len(written) < len(batch):
        return False
    seen = set[Name]()
    for request in batch:
        own, names = request.drafts[0].stream, request.counted | _names_in(request)
        if not seen.isdisjoint(names) or any(one is not own and id(one) in written for one in request.read):
            return False
        seen |= names
    return True


def _names_in(request: PendingRequest) -> set[Name]:
    """Return the names by which others count the actions of a request."""
    return {name for draft in request.drafts if draft.row is not None for name in names_of(draft.row)}


class _SingleMessages:
    """A group of requests with single messages; acknowledgements that are read together are handled together."""

    def __init__(
        self,
        group: list[PendingRequest],
        answer: Callable[[list[PendingRequest], Iterator[int]], None],
        end: Callable[[list[PendingRequest]], None],
    ) -> None:
        """``answer`` gets stored requests with the positions of their events; ``end`` gets those that failed."""
        self._group = group
        self._answer = answer
        self._end = end
        self._left = len(group)
        self._stored: list[tuple[PendingRequest, int]] = []
        self._failed: list[PendingRequest] = []
        self._is_due = False

    def on_reply(self, number: int, result: int | LedgerError) -> None:
        """Note the result of an event, by its number from 0."""
        self._left -= 1
        if isinstance(result, int):
            self._stored.append((self._group[number], result))
        else:
            self._failed.append(self._group[number])
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._handle)

    def _handle(self) -> None:
        self._is_due = False
        stored, self._stored = self._stored, []
        try:
            self._answer([request for request, _ in stored], iter([position for _, position in stored]))
        except Exception:  # noqa: BLE001 - the events are stored; a retry gets the first answer
            _log.exception("answers are lost")
        if not self._left:
            self._end(self._failed)


_ABOUT_POLICIES = frozenset((PolicyRequest, PolicyProposal, PolicyApproval, PolicyObjection, OverdueProposal))
"""Commands after which the next request must know the policies and proposals."""


def _next_batch(ready: list[PendingRequest]) -> tuple[int, list[Draft]]:
    """Return the number of requests in the next batch, and its drafts.

    Only the first draft of a subject carries an expected sequence. So a batch ends where a stream was read again: the
    expected sequence of the new read must be checked, too.
    """
    drafts: list[Draft] = []
    streams: dict[str, BudgetStream] = {}
    size = 0
    for number, request in enumerate(ready):
        read_again = False
        for draft in request.drafts:
            stream, expect = streams.get(draft.subject), 0 if draft.expect_none_of else None
            if stream is None:
                stream = streams[draft.subject] = draft.stream
                expect = 0 if draft.begins else stream.last
            read_again = read_again or stream is not draft.stream
            size += len(draft.data)
            drafts.append(Draft(draft.subject, draft.data, expect, expect_of=draft.expect_none_of))
        if number and (read_again or len(drafts) > MAX_BATCH or size > _BATCH_BYTES):
            del drafts[-len(request.drafts) :]
            return number, drafts
    return len(ready), drafts
