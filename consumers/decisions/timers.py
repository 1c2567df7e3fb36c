"""What nobody asks for, and yet has to be decided: escalations and holds whose time is up, facts to post.

Each process looks after the holders it owns; where two do, the books' expectations let one of them do it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from consumers.decisions.handlers.followups import PostingCommand, TimerCommand
from consumers.decisions.pending_request import PendingRequest
from domain.budgets.postings import RequestContext
from domain.events.decisions import LEDGER_SOURCE
from ledger.errors import ClockError, LedgerError
from ledger.nats.incidents import report
from ledger.store.role_status import Heartbeat
from projections.engine.events import read_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from consumers.decisions.pipeline import DecisionPipeline
    from consumers.decisions.state.follower import DecisionState
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.1
_WRONG_CLOCK_SECONDS = 1.0
_POSTED_TOGETHER = 256


class Timers:
    """``run`` is its one task."""

    def __init__(
        self,
        decider: DecisionPipeline,
        directory: DecisionState,
        log: Log,
        owns: Callable[[str], bool],
        *,
        history: bool = False,
    ) -> None:
        self._decider = decider
        self._directory = directory
        self._log = log
        self._owns = owns
        self._history = history
        self._under_way: set[object] = set()
        self.pulse = Heartbeat("clock")
        decider.before = lambda now: list(self.before(now))

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            try:
                await self._log.check_clock()
                now = self._decider.now
                for what in list(self._overdue(now)):
                    moment = datetime.fromtimestamp(what.due, UTC) if self._history else now
                    self._submit(what, what, moment, f"{what.escalation_id or what.action_id}@{what.due:.0f}")
                await self._post()
                self.pulse.beat()
            except ClockError as error:  # the log has said so; nothing is overdue by a clock that is wrong
                self.pulse.wait(str(error))
                await asyncio.sleep(_WRONG_CLOCK_SECONDS)
            except LedgerError as error:
                _log.warning("the clock waits: %s", error)
                self.pulse.wait(str(error))
            except Exception as error:  # noqa: BLE001 - what is due stays due, and is looked at again
                report("the clock could not look at what is due", error, error)
            await asyncio.sleep(_LOOK_SECONDS)

    def before(self, now: datetime) -> Iterator[PendingRequest]:
        """What is due up to a moment, in order, ready to be decided."""
        for what in sorted(self._overdue(now), key=lambda what: what.due):
            waiting = PendingRequest(LEDGER_SOURCE, "", b"", self._done(what))
            waiting.request, waiting.state_is_current = what, True
            waiting.now = datetime.fromtimestamp(what.due, UTC)
            waiting.cause = self._cause(LEDGER_SOURCE, f"{what.escalation_id or what.action_id}@{what.due:.0f}")
            self._under_way.add(what)
            yield waiting

    def _overdue(self, now: datetime) -> Iterator[TimerCommand]:
        moment = now.timestamp()
        for waiting in self._directory.matters.due_by(moment):
            holder = f"agent:{waiting.asked.agent_id}"
            what = TimerCommand(holder, escalation_id=waiting.asked.escalation_id, due=waiting.due.timestamp())
            if what not in self._under_way and self._owns(holder):
                yield what
        for row in self._directory.given.held_until(moment):
            what = TimerCommand(row.holder, action_id=row.action_id, due=row.expires_at or 0)
            if what not in self._under_way and self._owns(row.holder):
                yield what

    async def _post(self) -> None:
        todo = [
            due
            for position, due in self._directory.matters.dues.items()
            if position not in self._under_way and self._owns(due.holder)
        ]
        for due in todo[:_POSTED_TOGETHER]:
            recorded = await self._log.at(due.position)
            if recorded is None:
                continue  # a replica that is behind: look again
            try:
                event = read_event(recorded)
                moment = event.time if self._history else min(event.time, self._decider.now)
                posting = PostingCommand(due, event.body)
                self._submit(posting, due.position, moment, event.stored.id, event.stored.source)
            except Exception as error:  # noqa: BLE001 - one fact that cannot be posted holds up no others
                report("a fact could not be posted to its budget", due.position, error)

    def _submit(
        self,
        request: TimerCommand | PostingCommand,
        name: object,
        now: datetime,
        request_id: str,
        source: str = LEDGER_SOURCE,
    ) -> None:
        self._under_way.add(name)
        self._decider.submit_own(request, self._cause(source, request_id), now, self._done(name))

    def _done(self, name: object) -> Callable[[bytes], None]:
        return lambda _answer: self._under_way.discard(name)

    def _cause(self, source: str, request_id: str) -> RequestContext:
        return RequestContext(source=source, request_id=request_id, seen_position=self._directory.position)
