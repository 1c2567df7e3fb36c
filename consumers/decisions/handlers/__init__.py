"""The table of command handlers: one function for each class of command, ``handler(command, unit) -> result``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from config import topology
from consumers.decisions.handlers import (
    actions,
    budgets,
    escalations,
    flags,
    holds,
    policies,
    postings,
    reversals,
)
from domain.commands import (
    ActionRequest,
    EscalationAsk,
    EscalationDecision,
    FlagRequest,
    GrantRequest,
    HoldRequest,
    PolicyRequest,
    Preview,
    ReversalRequest,
    TransferRequest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from consumers.decisions.state.follower import DecisionState
    from consumers.decisions.unit_of_work import CommandResult, UnitOfWork

    type Result = CommandResult | Coroutine[None, None, CommandResult]

COMMAND_HANDLERS: dict[type, Callable[[Any, UnitOfWork], Result]] = {
    ActionRequest: actions.take_action,
    Preview: actions.preview_action,
    EscalationAsk: escalations.request_escalation,
    EscalationDecision: escalations.decide_escalation,
    HoldRequest: holds.settle_or_void,
    ReversalRequest: reversals.reverse,
    GrantRequest: budgets.grant,
    TransferRequest: budgets.transfer,
    FlagRequest: flags.review_flag,
    PolicyRequest: policies.publish_policy,
    escalations.OverdueEscalation: escalations.expire_escalation,
    holds.OverdueHold: holds.void_overdue,
    postings.PostingCommand: postings.post_fact,
}
"""Class of command -> its handler. A handler raises ``RequestError``, or an error that asks for a retry."""


def handle(command: object, unit: UnitOfWork) -> Result:
    """Return the result of a command. The results of flags and policies are awaited, because they read the log."""
    return COMMAND_HANDLERS[type(command)](command, unit)


def holder_of(command: object, state: DecisionState) -> str | None:
    """Return the holder of the budget that a command concerns, as far as it is known."""
    match command:
        case Preview():
            return f"agent:{command.agent_id}"
        case GrantRequest() | TransferRequest():
            return command.holder
        case HoldRequest() | ReversalRequest():
            action = state.actions.action(command.action_id)
            return action.holder if action else None
        case EscalationDecision():
            escalation = state.pending.open.get(command.escalation_id)
            return f"agent:{escalation.asked.agent_id}" if escalation else None
    return topology.POLICY_SUBJECT
