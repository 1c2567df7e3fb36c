"""Which ruling a request gets, and whose budget it concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from config import topology
from consumers.decisions.handlers.followups import FollowupHandlers, PostingCommand, TimerCommand
from consumers.decisions.handlers.requests import CommandResult, NeedsCatchUpError, RequestHandlers
from domain.commands import (
    ActionRequest,
    EscalationAsk,
    EscalationDecision,
    FlagRequest,
    GrantRequest,
    HoldRequest,
    Preview,
    ReversalRequest,
    TransferRequest,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from consumers.decisions.budget_repository import BudgetRepository
    from consumers.decisions.pending_request import PendingRequest
    from consumers.decisions.state.follower import DecisionState
    from ledger.store.log import Log


class CommandHandlers:
    """All rulings behind one door."""

    def __init__(self, log: Log, directory: DecisionState, books: BudgetRepository, *, history: bool) -> None:
        self._directory = directory
        self._rulings = RequestHandlers(log, directory, books, history=history)
        self._followups = FollowupHandlers(self._rulings)

    def ruling(self, waiting: PendingRequest) -> CommandResult | Coroutine[Any, Any, CommandResult]:
        """Return the ruling on a request; raises all that rulings raise."""
        if waiting.refusal is None:
            return self._ruling(waiting)
        if not waiting.state_is_current:  # the first answer may stand in what was not read yet
            raise NeedsCatchUpError
        raise waiting.refusal

    def _ruling(  # noqa: C901, PLR0911 - a case for each class of request
        self, waiting: PendingRequest
    ) -> CommandResult | Coroutine[Any, Any, CommandResult]:
        cause, now, fresh = waiting.cause, waiting.now, waiting.state_is_current
        match waiting.request:
            case EscalationAsk() as request:
                return self._followups.ask(request, cause, now, fresh=fresh)
            case ActionRequest() as request:
                return self._rulings.action(request, cause, now, fresh=fresh)
            case Preview() as request:
                return self._rulings.preview(request, cause, now, fresh=fresh)
            case EscalationDecision() as request:
                return self._followups.decide(request, cause, now, fresh=fresh)
            case HoldRequest() as request:
                return self._followups.hold(request, cause, now, fresh=fresh)
            case ReversalRequest() as request:
                return self._followups.reversal(request, cause, now, fresh=fresh)
            case GrantRequest() as request:
                return self._rulings.grant(request, cause, now, fresh=fresh)
            case TransferRequest() as request:
                return self._rulings.transfer(request, cause, now, fresh=fresh)
            case TimerCommand() as request if request.escalation_id is not None:
                return self._followups.escalation_overdue(request, cause, now)
            case TimerCommand() as request:
                return self._followups.hold_overdue(request, cause, now)
            case PostingCommand() as request:
                return self._followups.post(request, cause, now)
            case FlagRequest() as request:
                return self._rulings.flag(request, cause, now)
        return self._rulings.policy(waiting.request, cause, now)

    def holder_of(self, request: Any) -> str | None:
        """The holder whose budget a request concerns, as far as it is known here."""
        match request:
            case Preview():
                return f"agent:{request.agent_id}"
            case GrantRequest() | TransferRequest():
                return request.holder
            case HoldRequest() | ReversalRequest():
                row = self._directory.given.action(request.action_id)
                return row.holder if row else None
            case EscalationDecision():
                waiting = self._directory.matters.open.get(request.escalation_id)
                return f"agent:{waiting.asked.agent_id}" if waiting else None
        return topology.POLICY_SUBJECT
