"""The authority of the source behind a command: its profile, its roles, its amount a day, and its own actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.commands import EscalationDecision, HoldRequest, Preview, RequestError, ReversalRequest
from domain.source_registry import operation_of

if TYPE_CHECKING:
    from datetime import datetime

    from domain.decisions.decide import Command, InternalCommand
    from domain.decisions.known import KnownState
    from domain.source_registry import Rights, SourceRegistry

_CODE = "source_not_allowed"


def command_refusal(
    command: Command | InternalCommand,
    source: str,
    now: datetime,
    state: KnownState,
    sources: SourceRegistry,
    *,
    history: bool = False,
) -> RequestError | None:
    """Return the error for a command that its source may not send, or ``None``.

    ``history``: requests name their own times, which no registered source may do.
    """
    operation = operation_of(command)
    if operation is None:
        return None
    refusal = sources.request_refusal(source, operation)
    if history and sources.source(source) is not None:
        refusal = "in history mode requests name their own times: end it before registered sources send requests"
    if refusal is not None:
        return RequestError(_CODE, refusal, "source")
    rights = sources.rights(source)
    match command:
        case Preview():
            limited = _role_refusal(command.agent_id, rights, now, state) if rights.roles else None
            return limited or (_day_refusal(command, source, now, sources) if rights.per_day is not None else None)
        case HoldRequest() | ReversalRequest():
            return _ownership_refusal(command, source, rights, state)
        case EscalationDecision() if operation == "withdraw" and command.escalation_id in state.pending.open:
            return _role_refusal(state.pending.open[command.escalation_id].asked.agent_id, rights, now, state)
    return None


def _role_refusal(agent_id: str, rights: Rights, now: datetime, state: KnownState) -> RequestError | None:
    if not rights.roles:
        return None
    rules = state.policies.in_force(now)
    agent = state.staff.agent(agent_id, rules.policy.default_role if rules else None)
    if agent is None or agent.role in rights.roles:  # the command itself refuses an unknown agent
        return None
    message = f"this source may request for the roles {', '.join(sorted(rights.roles))}, not for {agent.role}"
    return RequestError(_CODE, message, "agent_id")


def _day_refusal(command: Preview, source: str, now: datetime, sources: SourceRegistry) -> RequestError | None:
    limit = sources.rights(source).per_day
    if limit is None or command.amount is None:
        return None
    if command.amount.currency != limit.currency:
        message = f"this source may give {limit.text} a day, and nothing in another currency"
        return RequestError(_CODE, message, "amount.currency")
    spent = sources.spent_on(source, now.date())
    if spent + command.amount.minor <= limit.minor:
        return None
    left = type(limit)(max(0, limit.minor - spent), limit.currency)
    message = f"this source may give {limit.text} a day (UTC), of which {left.text} is left today"
    return RequestError(_CODE, message, "amount.amount")


def _ownership_refusal(
    command: HoldRequest | ReversalRequest, source: str, rights: Rights, state: KnownState
) -> RequestError | None:
    if rights.settles_all and isinstance(command, HoldRequest) and command.operation == "settle":
        return None
    action = state.actions.action(command.action_id)
    # The index of an earlier version does not say which source took an action.
    if action is None or action.source in (None, source):
        return None
    return RequestError(_CODE, f"another source took this action: {action.source!r}", "action_id")
