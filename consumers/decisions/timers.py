"""The timers: overdue escalations and holds, and facts that must be posted to budgets.

The process that decides handles them. Where two processes do, the expected sequences admit one of them.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from consumers.decisions.pipeline import command_request
from domain.budgets.postings import RequestContext
from domain.decisions.decide import NO_HOLDER
from domain.decisions.escalations import OverdueEscalation
from domain.decisions.fact_postings import PostingCommand
from domain.decisions.holds import OverdueHold
from domain.decisions.policies import OverdueProposal
from domain.events.decisions import LEDGER_SOURCE
from ledger.errors import ClockError, LedgerError
from ledger.nats.incidents import report
from ledger.store.role_status import Heartbeat
from projections.engine.events import read_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from consumers.decisions.pending_request import PendingRequest
    from consumers.decisions.pipeline import DecisionPipeline
    from consumers.decisions.state.follower import DecisionState
    from domain.events.facts import ActionReported, RefundSettled
    from ledger.store.log import Log

    type OverdueCommand = OverdueEscalation | OverdueHold | OverdueProposal

_log = logging.getLogger(__name__)
_CHECK_SECONDS = 0.1
_WRONG_CLOCK_SECONDS = 1.0
_POSTINGS_AT_ONCE = 256


class Timers:
    """Submits overdue commands and postings to the pipeline, in the task ``run``."""

    def __init__(
        self,
        pipeline: DecisionPipeline,
        state: DecisionState,
        log: Log,
        is_ours: Callable[[], bool],
        *,
        history: bool = False,
    ) -> None:
        """``is_ours`` tells whether this process decides, and does not stand by."""
        self._pipeline = pipeline
        self._state = state
        self._log = log
        self._is_ours = is_ours
        self._history = history
        self._submitted: set[object] = set()
        self.pulse = Heartbeat("clock")
        pipeline.overdue_before = lambda now: list(self._overdue_before(now))

    async def run(self) -> None:
        """Look for overdue commands and postings, for ever."""
        while True:
            try:
                await self._log.check_clock()
                if not self._is_ours():
                    self.pulse.beat()
                    await asyncio.sleep(_CHECK_SECONDS)
                    continue
                now = self._pipeline.now
                for command in list(self._overdue(now)):
                    moment = datetime.fromtimestamp(command.due, UTC) if self._history else now
                    self._submitted.add(command)
                    self._pipeline.submit_command(command, self._cause_of(command), moment, self._done(command))
                await self._post()
                self.pulse.beat()
            except ClockError as error:  # the log has reported it; a wrong clock makes nothing overdue
                self.pulse.wait(str(error))
                await asyncio.sleep(_WRONG_CLOCK_SECONDS)
            except LedgerError as error:
                _log.warning("the timers wait: %s", error)
                self.pulse.wait(str(error))
            except Exception as error:  # noqa: BLE001 - commands stay overdue, and are looked for again
                report("the timers could not look for overdue work", error, error)
            await asyncio.sleep(_CHECK_SECONDS)

    def _overdue_before(self, now: datetime) -> Iterator[PendingRequest]:
        """Yield the commands due up to a moment as requests, in the order of their deadlines."""
        for command in sorted(self._overdue(now), key=lambda command: command.due):
            self._submitted.add(command)
            due = datetime.fromtimestamp(command.due, UTC)
            yield command_request(command, self._cause_of(command), due, self._done(command))

    def _overdue(self, now: datetime) -> Iterator[OverdueCommand]:
        moment = now.timestamp()
        for escalation in self._state.pending.due_by(moment):
            asked = escalation.asked
            holder = f"agent:{asked.agent_id}"
            overdue = OverdueEscalation(holder, asked.escalation_id, escalation.due.timestamp())
            if overdue not in self._submitted:
                yield overdue
        for row in self._state.actions.held_until(moment):
            hold = OverdueHold(row.holder, row.action_id, row.expires_at or 0)
            if hold not in self._submitted:
                yield hold
        for proposal in self._state.proposals.due_by(now, self._state.policies.newest_enforced):
            assert proposal.due is not None
            publication = OverdueProposal(NO_HOLDER, proposal.sha256, proposal.due.timestamp())
            if publication not in self._submitted:
                yield publication

    async def _post(self) -> None:
        todo = [due for position, due in self._state.pending.dues.items() if position not in self._submitted]
        for due in todo[:_POSTINGS_AT_ONCE]:
            recorded = await self._log.at(due.position)
            if recorded is None:
                continue  # the replica is behind: retry with the next check
            try:
                event = read_event(recorded)
                moment = event.time if self._history else min(event.time, self._pipeline.now)
                cause = self._cause(event.stored.source, event.stored.id)
                posting = PostingCommand(due, cast("ActionReported | RefundSettled", event.body))
                self._submitted.add(due.position)
                self._pipeline.submit_command(posting, cause, moment, self._done(due.position))
            except Exception as error:  # noqa: BLE001 - a fact that cannot be posted must not delay the others
                report("a fact could not be posted to its budget", due.position, error)

    def _done(self, key: object) -> Callable[[bytes], None]:
        return lambda _answer: self._submitted.discard(key)

    def _cause_of(self, command: OverdueCommand) -> RequestContext:
        return self._cause(LEDGER_SOURCE, f"{command.id}@{command.due:.0f}")

    def _cause(self, source: str, request_id: str) -> RequestContext:
        return RequestContext(source=source, request_id=request_id, seen_position=self._state.position)
