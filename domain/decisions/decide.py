"""The table of commands, and ``decide``: from a command and a state to events and an answer, without side effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain import commands
from domain.commands import RequestError
from domain.decisions import actions, escalations, fact_postings, flags, grants, holds, policies, reversals
from domain.decisions.decision import Decision, Retry, RetryError
from domain.decisions.streams import StreamNotLoadedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.decisions.streams import LoadableStream

type Command = (
    commands.Preview
    | commands.HoldRequest
    | commands.ReversalRequest
    | commands.EscalationDecision
    | commands.GrantRequest
    | commands.TransferRequest
    | commands.PolicyRequest
    | commands.PolicyProposal
    | commands.PolicyApproval
    | commands.PolicyObjection
    | commands.FlagRequest
)
"""A command of a client. An ``ActionRequest`` is a ``Preview``, and an ``EscalationAsk`` is an ``ActionRequest``."""
type InternalCommand = (
    escalations.OverdueEscalation | holds.OverdueHold | policies.OverdueProposal | fact_postings.PostingCommand
)
"""A command of the timers."""
COMMAND_HANDLERS: dict[type, Callable[[Any, Decision], Decision]] = {
    commands.ActionRequest: actions.take_action,
    commands.Preview: actions.preview_action,
    commands.EscalationAsk: escalations.request_escalation,
    commands.EscalationDecision: escalations.decide_escalation,
    commands.HoldRequest: holds.settle_or_void,
    commands.ReversalRequest: reversals.reverse,
    commands.GrantRequest: grants.grant,
    commands.TransferRequest: grants.transfer,
    commands.FlagRequest: flags.review_flag,
    commands.PolicyRequest: policies.publish_policy,
    commands.PolicyProposal: policies.propose_policy,
    commands.PolicyApproval: policies.approve_policy,
    commands.PolicyObjection: policies.object_to_policy,
    policies.OverdueProposal: policies.publish_overdue,
    escalations.OverdueEscalation: escalations.expire_escalation,
    holds.OverdueHold: holds.void_overdue,
    fact_postings.PostingCommand: fact_postings.post_fact,
}
"""Class of command -> the function that decides it."""

NO_HOLDER = "ledger.policy"
"""The holder used for policies and flags, so that one decider gets all of them."""

type Outcome = Decision | RequestError | Retry | LoadableStream


def decide(command: Command | InternalCommand, decision: Decision) -> Outcome:
    """Decide a command.

    Returns:
        the decision with its events and its answer; or the error that is the answer, and nothing is recorded; or the
        way to retry: after more was read, or after a stream was loaded.

    """
    try:
        return COMMAND_HANDLERS[type(command)](command, decision)
    except RequestError as error:
        return error
    except RetryError as error:
        return error.retry
    except StreamNotLoadedError as error:
        return error.stream
