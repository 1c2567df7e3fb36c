"""Deciding: may this agent do this, now? Pure: time, ids and what was read come in as arguments."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from domain.money import Money
from domain.periods import days_of
from domain.records import (
    ActionTaken,
    AuthorityFellShort,
    BudgetClosed,
    BudgetGranted,
    BudgetOpened,
    Limit,
    Reason,
)
from domain.requests import ActionRequest, GrantRequest, Preview, RequestError

if TYPE_CHECKING:
    from domain.budget import Budget
    from domain.policy import Policy


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the one who asks."""

    agent_id: str
    role: str
    team_ids: tuple[str, ...] = ()
    left: bool = False
    training: dict[str, datetime | None] = {}
    """Courses completed, with the moment their validity ends (none: for ever)."""
    related: frozenset[str] = frozenset()
    """Customers the agent has declared a relation to."""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The request behind a decision: who asked, under which id, with which body."""

    source: str
    request_id: str
    request_sha256: str
    seen_position: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules say, before anything is recorded."""

    outcome: Literal["taken", "escalate", "refused"]
    reasons: tuple[Reason, ...] = ()
    limits: tuple[Limit, ...] = ()
    training: tuple[str, ...] = ()


def opening(policy: Policy, version: int, holder: str, period: str, before: Budget | None, cause: Cause,
            agent: Agent | None) -> tuple[BudgetOpened, BudgetClosed | None]:  # fmt: skip
    """The records that open a holder's period and close the one before it.

    Carry-over comes only from the period directly before, in the same currency.
    """
    granted, carry_limit = policy.zero(), policy.zero()
    if agent is not None and agent.role in policy.roles:
        role = policy.roles[agent.role]
        granted, carry_limit = role.budget, role.carry_over
    elif holder.startswith("team:"):
        granted = policy.pool_of(holder.removeprefix("team:")) or granted
    carried, closing = policy.zero(), None
    if before is not None and not before.closed:
        adjacent = days_of(before.period)[1] == days_of(period)[0]
        if adjacent and before.currency == policy.currency:
            carried = Money(max(0, min(before.remaining_minor, carry_limit.minor)), policy.currency)
        closing = BudgetClosed(
            holder=holder,
            period=before.period,
            spent=before.money(before.spent_minor),
            carried_over=before.money(carried.minor),
            lapsed=before.money(before.remaining_minor - carried.minor),
            **_cause(cause),
        )
    opened = BudgetOpened(
        holder=holder,
        period=period,
        currency=policy.currency,
        granted=granted,
        carried_over=carried,
        policy_version=version,
        **_cause(cause),
    )
    return opened, closing


def judge(request: Preview, amount: Money, agent: Agent, policy: Policy, source: str, budget: Budget,
          now: datetime) -> Verdict:  # fmt: skip
    """What the policy says of this amount.

    Raises:
        RequestError: goodwill in another currency than the policy's.

    """
    if refusal := _refusal(request, agent, policy, source):
        return Verdict(outcome="refused", reasons=(refusal,))
    if request.basis != "goodwill":
        return Verdict(outcome="taken")
    if amount.currency != policy.currency:
        message = f"the policy in force gives in {policy.currency}, not {amount.currency}"
        raise RequestError("currency", message, "amount.currency")
    if request.kind not in policy.limits_for(agent.role, agent.team_ids):
        return _beyond_role(request, agent, policy, amount)
    limits = _limits(request, agent, policy, budget)
    reasons = [
        Reason(rule=met.name, message=_TEXTS[met.name], limit=met.limit, used=met.used, asked=amount)
        for met in limits
        if met.limit is not None and met.used.minor + amount.minor > met.limit.minor
    ]
    needed = policy.roles[agent.role].requires.get(request.kind, ())
    missing = [course for course in needed if not _trained(agent, course, now)]
    reasons += [
        Reason(rule="training", message=f"{request.kind} needs the training {course}", asked=amount)
        for course in missing
    ]
    if reasons:
        return Verdict(outcome="escalate", reasons=tuple(reasons))
    return Verdict(outcome="taken", limits=tuple(limits), training=needed)


def available(request: Preview, agent: Agent, policy: Policy, source: str, budget: Budget,
              now: datetime) -> tuple[Money, Verdict]:  # fmt: skip
    """The most this agent could give now without asking, and what the rules say of nothing at all."""
    verdict = judge(request, policy.zero(), agent, policy, source, budget, now)
    if verdict.outcome != "taken":
        return policy.zero(), verdict
    rooms = [met.limit.minor - met.used.minor for met in verdict.limits if met.limit is not None]
    return Money(max(0, min(rooms, default=0)), policy.currency), verdict


def taken(request: ActionRequest, agent: Agent, version: int, budget: Budget, verdict: Verdict,
          cause: Cause, action_id: str) -> ActionTaken:  # fmt: skip
    """The record of an action within authority."""
    return ActionTaken(
        action_id=action_id,
        role=agent.role,
        holder=budget.holder,
        period=budget.period,
        policy_version=version,
        training=verdict.training,
        limits=verdict.limits,
        authority="own",
        request_sha256=cause.request_sha256,
        **_cause(cause),
        **_asked(request, request.amount),
    )


def fell_short(request: ActionRequest, verdict: Verdict, cause: Cause, *, agent: Agent | None = None,
               version: int | None = None, budget: Budget | None = None) -> AuthorityFellShort:  # fmt: skip
    """The record of what could not be given."""
    outcome: Literal["escalate", "refused"] = "escalate" if verdict.outcome == "escalate" else "refused"
    return AuthorityFellShort(
        outcome=outcome,
        reasons=verdict.reasons,
        preview=False,
        role=agent.role if agent else None,
        holder=budget.holder if budget else None,
        period=budget.period if budget else None,
        policy_version=version,
        request_sha256=cause.request_sha256,
        **_cause(cause),
        **_asked(request, request.amount),
    )


def granted(request: GrantRequest, budget: Budget, cause: Cause) -> BudgetGranted:
    """The record of a grant.

    Raises:
        RequestError: the amount is in another currency than the budget, or zero.

    """
    if request.amount.currency != budget.currency:
        message = f"this budget is in {budget.currency}, not {request.amount.currency}"
        raise RequestError("currency", message, "amount.currency")
    if not request.amount.minor:
        message = "a grant of nothing grants nothing; name an amount above zero"
        raise RequestError("invalid", message, "amount.amount")
    return BudgetGranted(
        holder=budget.holder,
        period=budget.period,
        amount=request.amount,
        granted_by=request.granted_by,
        reason=request.reason,
        request_sha256=cause.request_sha256,
        **_cause(cause),
    )


NO_POLICY = Verdict(
    outcome="refused",
    reasons=(Reason(rule="no_policy", message="no policy is in force, so nobody may give anything"),),
)

_TEXTS = {
    "per_action": "more than this role may give in one action of this kind",
    "per_interaction": "more than one agent may give on one interaction",
    "budget": "more than what is left of this agent's budget",
}


def _cause(cause: Cause) -> dict[str, Any]:
    return {"source": cause.source, "request_id": cause.request_id, "seen_position": cause.seen_position}


def _asked(request: Preview, amount: Money) -> dict[str, Any]:
    return {
        "agent_id": request.agent_id,
        "kind": request.kind,
        "basis": request.basis,
        "amount": amount,
        "reason": request.reason,
        "team_id": request.team_id,
        "customer_id": request.customer_id,
        "interaction_id": request.interaction_id,
        "order_id": request.order_id,
        "note": request.note,
        "guideline": request.guideline,
    }


def _refusal(request: Preview, agent: Agent, policy: Policy, source: str) -> Reason | None:
    if agent.left:
        return Reason(rule="left", message="this agent has left the company")
    if request.customer_id is not None and request.customer_id in {agent.agent_id, *agent.related}:
        return Reason(rule="self_dealing", message="nobody acts for themselves or a declared relation")
    if policy.sources is not None and agent.role not in policy.sources.get(source, ()):
        return Reason(rule="source", message=f"the source {source} does not speak for the role {agent.role}")
    return None


def _beyond_role(request: Preview, agent: Agent, policy: Policy, amount: Money) -> Verdict:
    some_role = any(request.kind in role.limits for role in policy.roles.values()) or any(
        request.kind in limits for team in policy.team_limits.values() for limits in team.values()
    )
    if some_role:
        message = f"the role {agent.role} does not give a {request.kind}; another role may"
        return Verdict(outcome="escalate", reasons=(Reason(rule="kind", message=message, asked=amount),))
    message = f"no role gives a {request.kind}"
    return Verdict(outcome="refused", reasons=(Reason(rule="kind", message=message, asked=amount),))


def _limits(request: Preview, agent: Agent, policy: Policy, budget: Budget) -> list[Limit]:
    per_action = policy.limits_for(agent.role, agent.team_ids)[request.kind]
    found = [Limit(name="per_action", limit=per_action, used=policy.zero())]
    per_interaction = policy.roles[agent.role].per_interaction
    if per_interaction is not None and request.interaction_id is not None:
        used = budget.money(budget.by_interaction.get(request.interaction_id, 0))
        found.append(Limit(name="per_interaction", limit=per_interaction, used=used))
    in_use = budget.money(budget.spent_minor + budget.reserved_minor)
    found.append(Limit(name="budget", limit=budget.money(budget.granted_minor), used=in_use))
    return found


def _trained(agent: Agent, course: str, now: datetime) -> bool:
    if course not in agent.training:
        return False
    until = agent.training[course]
    return until is None or until > now
