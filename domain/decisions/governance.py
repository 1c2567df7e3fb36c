"""The authority of governing people: the right to change a policy, to grant, to transfer and to review.

The governance of the policy in force decides. Operators come by the command line or with an operator's token; they are
above it. A person counts as signed in where the page or the HTTP server names them; a source only asserts a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.commands import (
    GrantRequest,
    PolicyApproval,
    PolicyObjection,
    PolicyProposal,
    PolicyRequest,
    RequestError,
    TransferRequest,
)
from domain.decisions.decision import Retry
from domain.managers import managers_above
from domain.policy.governance import is_named

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from domain.budgets.postings import RequestContext
    from domain.decisions.authority import Agent
    from domain.decisions.decide import Command, InternalCommand
    from domain.decisions.decision import Decision
    from domain.decisions.known import KnownState
    from domain.policy.governance import Reach

CODE = "not_governor"
_OPERATOR_WAYS = frozenset(("cli", "http-operator"))
"""Values of ``via`` in requests of operators."""
SIGNED_IN = "http"
"""The value of ``via`` in requests of a signed-in person, whom the server names."""


def is_operator(cause: RequestContext) -> bool:
    """Return whether an operator sent a request."""
    return is_operator_way(cause.via)


def is_operator_way(via: str | None) -> bool:
    """Return whether requests with this ``via`` are those of operators."""
    return via in _OPERATOR_WAYS


GOVERNING = frozenset((GrantRequest, TransferRequest, PolicyRequest, PolicyProposal, PolicyApproval, PolicyObjection))
"""The commands that change the rules or the budgets of others."""


def ungoverned_refusal(
    command: Command | InternalCommand, via: str | None, now: datetime, state: KnownState
) -> RequestError | None:
    """Return the error for a command of ``GOVERNING`` that only an operator may send without a governance in force.

    A policy in shadow mode, which decides nothing, may come from a signed-in person. It is a condition beside the
    decision: decisions of earlier versions, which had no governance, are made again.
    """
    if is_operator_way(via):
        return None
    rules = state.policies.in_force(now)
    if rules is not None and rules.policy.governance is not None:
        return None
    if via == SIGNED_IN and isinstance(command, PolicyRequest) and command.policy.get("mode") == "shadow":
        return None
    message = "the policy in force has no section governance, so only an operator may do this, on the command line"
    return RequestError(CODE, message, "operation" if hasattr(command, "operation") else None)


def governor(decision: Decision, person_id: str, field: str) -> Agent:
    """Return an announced person, as one that governs must be; a default role is no announcement.

    Raises:
        RequestError: the person is unknown, has left, or is an AI agent.

    """
    person = decision.state.staff.agent(person_id, None)
    if person is not None and not person.left and person.kind == "human":
        return person
    decision.need(Retry.AFTER_CATCH_UP)
    fault = "was not announced by resolution.employee.joined.v1"
    if person is not None:
        fault = "has left" if person.left else "is an AI agent"
    raise RequestError(CODE, f"{person_id!r} {fault}, and may not govern", field)


def require_named(decision: Decision, person_id: str, names: tuple[str, ...], field: str, right: str) -> Agent:
    """Return a person with a right that the governance gives.

    Raises:
        RequestError: it does not.

    """
    person = governor(decision, person_id, field)
    if not is_named(person.agent_id, person.role, names):
        decision.need(Retry.AFTER_CATCH_UP)
        whom = ", ".join(names) or "operators alone"
        message = f"{person_id!r} ({person.role}) may not {right}: the policy in force names {whom}"
        raise RequestError(CODE, message, field)
    return person


def refuse_own_benefit(decision: Decision, person_id: str, others: Iterable[str], field: str, deed: str) -> None:
    """Refuse a deed of a person for themselves or for their household; ``others`` benefit from it.

    Raises:
        RequestError: it is such a deed.

    """
    for other in others:
        if other == person_id:
            raise RequestError(CODE, f"people may not {deed} themselves", field)
        if are_related(decision.state, person_id, other):
            raise RequestError(CODE, f"people may not {deed} their household or a declared relation: {other!r}", field)


def are_related(state: KnownState, one: str, other: str) -> bool:
    """Return whether two people are one person, one household, or one is a declared relation of the other."""
    return other in _circle(state, one) or one in _circle(state, other)


def _circle(state: KnownState, person_id: str) -> frozenset[str]:
    """Return the ids linked with a person, and those of the person's declared relations."""
    person = state.staff.agent(person_id, "")
    related = person.related if person is not None else frozenset[str]()
    return frozenset().union(*(state.actions.group_of(one) for one in (person_id, *related)))


def require_reach(decision: Decision, person: Agent, reach: Reach, holder: str, field: str) -> None:
    """Refuse a holder out of a person's reach: own teams are the person's teams, and the people below them.

    Raises:
        RequestError: the holder is out of reach.

    """
    if reach == "all" or _is_own(decision, person, holder):
        return
    decision.need(Retry.AFTER_CATCH_UP)
    raise RequestError(CODE, f"{person.agent_id!r} may govern the budgets of own teams, not {holder}", field)


def _is_own(decision: Decision, person: Agent, holder: str) -> bool:
    staff = decision.state.staff
    kind, _, name = holder.partition(":")
    if kind == "team":
        return name in person.team_ids or any(
            name in one.team_ids and _is_above(decision, person, one) for one in staff.everybody("")
        )
    agent = staff.agent(name, "")
    return agent is not None and (
        not set(person.team_ids).isdisjoint(agent.team_ids) or _is_above(decision, person, agent)
    )


def _is_above(decision: Decision, person: Agent, agent: Agent) -> bool:
    above = managers_above(agent, lambda name: decision.state.staff.agent(name, ""))
    return any(one.agent_id == person.agent_id for one in above)
