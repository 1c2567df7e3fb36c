"""The table of command handlers: one function for each class of command, ``handler(command, unit) -> result``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from config import topology
from consumers.decisions.handlers import actions, budgets, escalations, flags, holds, policies, postings, reversals
from domain import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from consumers.decisions.state.follower import DecisionState
    from consumers.decisions.unit_of_work import CommandResult, UnitOfWork
    from consumers.runtime.request_form import RequestClass

    type Result = CommandResult | Coroutine[None, None, CommandResult]

type Command = (
    commands.Preview
    | commands.HoldRequest
    | commands.ReversalRequest
    | commands.EscalationDecision
    | commands.GrantRequest
    | commands.TransferRequest
    | commands.PolicyRequest
    | commands.FlagRequest
)
"""A command of a client. An ``ActionRequest`` is a ``Preview``, and an ``EscalationAsk`` is an ``ActionRequest``."""
type InternalCommand = escalations.OverdueEscalation | holds.OverdueHold | postings.PostingCommand
"""A command of the timers."""
_DECISIONS = dict.fromkeys(("approve", "deny", "withdraw", "forward"), commands.EscalationDecision)
COMMANDS: Mapping[str, RequestClass[Command]] = {
    "action": commands.ActionRequest,
    "preview": commands.Preview,
    "hold": commands.HoldRequest,
    "reversal": commands.ReversalRequest,
    "escalation": {"request": commands.EscalationAsk, **_DECISIONS},
    "budget": {"grant": commands.GrantRequest, "transfer": commands.TransferRequest},
    "policy": commands.PolicyRequest,
    "flag": commands.FlagRequest,
}
"""Operation -> the class of its commands, or the classes by the command's field ``operation``."""
COMMAND_HANDLERS: dict[type, Callable[[Any, UnitOfWork], Result]] = {
    commands.ActionRequest: actions.take_action,
    commands.Preview: actions.preview_action,
    commands.EscalationAsk: escalations.request_escalation,
    commands.EscalationDecision: escalations.decide_escalation,
    commands.HoldRequest: holds.settle_or_void,
    commands.ReversalRequest: reversals.reverse,
    commands.GrantRequest: budgets.grant,
    commands.TransferRequest: budgets.transfer,
    commands.FlagRequest: flags.review_flag,
    commands.PolicyRequest: policies.publish_policy,
    escalations.OverdueEscalation: escalations.expire_escalation,
    holds.OverdueHold: holds.void_overdue,
    postings.PostingCommand: postings.post_fact,
}
"""Class of command -> its handler. A handler raises ``RequestError``, or an error that asks for a retry."""


def handle(command: Command | InternalCommand, unit: UnitOfWork) -> Result:
    """Return the result of a command. The results of flags and policies are awaited, because they read the log."""
    return COMMAND_HANDLERS[type(command)](command, unit)


def holder_of(command: Command, state: DecisionState) -> str | None:
    """Return the holder of the budget that a command concerns, as far as it is known."""
    match command:
        case commands.Preview():
            return f"agent:{command.agent_id}"
        case commands.GrantRequest() | commands.TransferRequest():
            return command.holder
        case commands.HoldRequest() | commands.ReversalRequest():
            action = state.actions.action(command.action_id)
            return action.holder if action else None
        case commands.EscalationDecision():
            escalation = state.pending.open.get(command.escalation_id)
            return f"agent:{escalation.asked.agent_id}" if escalation else None
    return topology.POLICY_SUBJECT
