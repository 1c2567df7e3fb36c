"""Decide whether an agent may take an action now. Pure: time, ids and the state that was read are arguments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from domain.actions import ActionFields, AgentFields, action_fields
from domain.budgets.budget import Budget
from domain.budgets.postings import AnswerFields
from domain.commands import Preview, RequestError
from domain.decisions.owed import NOTHING_PAID, OrderAccount, shown
from domain.events.decisions import (
    ActionHeld,
    ActionTaken,
    AuthorityFellShort,
    Limit,
    Reason,
    Shadow,
)
from domain.events.facts import AgentKind
from domain.money import Money
from domain.policy.model import Rules

if TYPE_CHECKING:
    from domain.budgets.postings import RequestContext
    from domain.policy.model import PerCustomer, Policy, Role

DAY_SECONDS = 86_400
MOST_MINOR = 10**15
"""More than any amount of a request, in minor units."""
HOLD_DAYS = 7
"""Days after which a hold that was not settled expires."""


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The agent of a request: role, teams, training and declared relations."""

    agent_id: str
    role: str
    team_ids: tuple[str, ...] = ()
    left: bool = False
    training: dict[str, datetime | None] = {}
    """Completed courses, with the end of their validity; ``None`` means that they do not expire."""
    related: frozenset[str] = frozenset()
    """Customers that the agent has declared a relation to."""
    manager_id: str | None = None
    announced: bool = True
    """A fact gave the role; otherwise it is the policy's ``default_role``."""
    kind: AgentKind = "human"
    accountable_id: str | None = None
    """The person who answers for an AI agent."""
    answered_for: bool = True
    """False for an AI agent for which no announced person at work answers."""

    def fields(self, team_id: str | None) -> AgentFields:
        """Return the fields that a record has about its agent; ``team_id`` is the team that the request names."""
        filled = team_id is None and bool(self.team_ids)
        return {
            "team_id": self.team_ids[0] if filled else team_id,
            "team_filled": filled,
            "manager_id": self.manager_id,
            "agent_kind": self.kind,
        }

    def teams_for(self, team_id: str | None) -> tuple[str, ...]:
        """Return the agent's teams, with the request's team first; ignore a team that is not the agent's."""
        if team_id is None or team_id not in self.team_ids or self.team_ids[0] == team_id:
            return self.team_ids
        return (team_id, *(team for team in self.team_ids if team != team_id))


class Gift(msgspec.Struct, array_like=True, gc=False):
    """One goodwill action: its agent, its time (seconds since 1970) and its amount."""

    agent_id: str
    at: float
    minor: int
    currency: str


class SoftState(msgspec.Struct, frozen=True, kw_only=True):
    """The state that was read beside the budget. It may be some milliseconds old, and is recorded as it was read."""

    group: frozenset[str] = frozenset()
    """The customer, and all customers linked as the same person or household."""
    interaction: Sequence[Gift] = ()
    customer: Sequence[Gift] = ()
    """Goodwill given to the group; where the request names no customer, the agent's goodwill without one."""
    order: OrderAccount = NOTHING_PAID
    """The money of the order named, in the currency of the request; of an entitlement or a correction alone."""


NOTHING_SEEN = SoftState()


class LimitUsage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A limit that applies to an action, in minor units: name, limit (``None``: unlimited), amount used before."""

    name: str
    limit: int | None
    used: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The policy's result for a request, before anything is recorded."""

    outcome: Literal["taken", "escalate", "refused"]
    reasons: tuple[Reason, ...] = ()
    met: Sequence[LimitUsage] = ()
    """The limits that apply to an allowed action, in ``currency``; the budget's is the last."""
    currency: str = ""
    training: tuple[str, ...] = ()
    draw: Money | None = None
    """The amount to draw from the team's pool first."""
    guarded: int | None = None
    """The days of the customer's cap, where a record on the customer's own stream has to enforce it."""
    owed: Money | None = None
    """The part of an entitlement or a correction that needs no authority; ``None`` where no proof was asked for."""
    guards_order: bool = False
    """True where a record on the order's own stream has to enforce the owed amount."""

    def counted(self, amount: Money) -> Money:
        """Return the part of the amount that counts as goodwill; all of it where no proof was asked for."""
        return amount if self.owed is None else Money(amount.minor - self.owed.minor, amount.currency)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits that apply, as records carry them."""
        currency = self.currency
        return tuple(
            [
                Limit(
                    name=met.name,
                    limit=None if met.limit is None else _money(met.limit, currency),
                    used=_money(met.used, currency),
                )
                for met in self.met
            ]
        )


class DecisionContext(msgspec.Struct, frozen=True, kw_only=True):
    """A request with all state that its decision needs."""

    request: Preview
    agent: Agent
    rules: Rules
    source: str
    now: datetime
    budget: Budget
    pool: Budget | None = None
    """The pool of the agent's team, where it has one."""
    seen: SoftState = NOTHING_SEEN


class OwedPart(NamedTuple):
    """The part of an amount that needs no authority, and the proof of it."""

    amount: Money
    proof: LimitUsage
    """`owed`: the amount paid for the order and the amount given back; or `basis_limit`, the policy's own limit."""

    @property
    def by_policy(self) -> bool:
        """True where ``basis_limits`` ask for no proof."""
        return self.proof.name == "basis_limit"


def owed_part(policy: Policy, role: str, kind: str, basis: str, amount: Money, order: OrderAccount) -> OwedPart:
    """Return the part of an entitlement or a correction that needs no authority."""
    limits = policy.basis_limits.get(role, {}).get(kind, {})
    if basis not in limits:
        minor = max(0, min(amount.minor, order.paid - order.back))
        return OwedPart(Money(minor, amount.currency), LimitUsage("owed", order.paid, order.back))
    limit = limits[basis]
    if limit is None:
        return OwedPart(amount, LimitUsage("basis_limit", None, 0))
    minor = min(amount.minor, limit.minor) if limit.currency == amount.currency else 0
    return OwedPart(Money(minor, amount.currency), LimitUsage("basis_limit", limit.minor, 0))


def judge(asking: DecisionContext, amount: Money) -> Verdict:
    """Return the policy's verdict on this amount.

    Of an entitlement or a correction, the owed part needs no authority. The rest is judged as goodwill.

    Raises:
        RequestError: the request is for goodwill in another currency than the policy's.

    """
    request, agent, budget, policy = asking.request, asking.agent, asking.budget, asking.rules.policy
    refusal = None
    if agent.left or request.customer_id is not None:
        refusal = person_refusal(request.customer_id, agent, asking.seen.group)
    if refusal is None and (policy.sources is not None or agent.kind == "ai" or agent.role in policy.ai_roles):
        refusal = _role_refusal(asking)
    if refusal is not None:
        return Verdict(outcome="refused", reasons=(refusal,))
    if request.basis != "goodwill":
        return _judge_owed(asking, amount) if asking.rules.is_strict else Verdict(outcome="taken")
    if amount.currency != policy.currency:
        message = f"the policy in force gives in {policy.currency}, not {amount.currency}"
        raise RequestError("currency", message, "amount.currency")
    teams = agent.team_ids if request.team_id is None else agent.teams_for(request.team_id)
    may = asking.rules.limits_for(agent.role, teams, asking.now)
    if request.kind not in may:
        return _beyond_role(request.kind, agent.role, policy, amount)
    role, minor = policy.roles[agent.role], amount.minor
    found = _met(asking, role, may[request.kind])
    is_limited = minor > 0 or not asking.rules.is_strict  # an amount of zero meets no limit of money
    reasons = [
        _too_much(met, amount, asking)
        for met in found
        if is_limited and met.limit is not None and met.used + minor > met.limit
    ]
    draws = is_limited and asking.pool is not None
    draw, short = _from_pool(asking, asking.pool, amount) if draws and asking.pool is not None else (None, None)
    if draw is not None and reasons and reasons[-1].rule == "budget":
        reasons.pop()
    elif short is not None:
        reasons.append(short)
    needed = role.requires.get(request.kind, ())
    reasons += [
        Reason(rule="training", message=f"{request.kind} needs the training {course}", asked=amount)
        for course in needed
        if not _trained(agent, course, asking.now)
    ]
    if reasons:
        return Verdict(outcome="escalate", reasons=tuple(reasons))
    return Verdict(
        outcome="taken",
        met=found,
        currency=budget.currency,
        training=needed,
        draw=draw,
        guarded=None if role.per_customer is None or not is_limited else _guarded(role.per_customer, found, minor),
    )


def _judge_owed(asking: DecisionContext, amount: Money) -> Verdict:
    """Return the verdict on an entitlement or a correction: the part that is not owed is judged as goodwill."""
    request, policy = asking.request, asking.rules.policy
    owed = owed_part(policy, asking.agent.role, request.kind, request.basis, amount, asking.seen.order)
    verdict = Verdict(outcome="taken", currency=amount.currency)
    if owed.amount.minor < amount.minor:
        as_goodwill = msgspec.structs.replace(asking, request=msgspec.structs.replace(request, basis="goodwill"))
        verdict = judge(as_goodwill, Money(amount.minor - owed.amount.minor, amount.currency))
    return _with_owed(verdict, owed, amount, asking)


def _with_owed(verdict: Verdict, owed: OwedPart, amount: Money, asking: DecisionContext) -> Verdict:
    """Return the verdict on the part that counts as goodwill, with the owed part and its proof."""
    reasons = verdict.reasons
    if verdict.outcome != "taken" and not owed.by_policy:
        paid, back = (_money(minor, amount.currency) for minor in (owed.proof.limit or 0, owed.proof.used))
        reasons = (
            Reason(rule="owed", message=shown(owed.amount, amount), limit=paid, used=back, asked=amount),
            *reasons,
        )
    role = asking.rules.policy.roles.get(asking.agent.role)
    return msgspec.structs.replace(
        verdict,
        reasons=reasons,
        met=[owed.proof, *verdict.met],
        owed=owed.amount,
        guards_order=bool(owed.amount.minor) and not owed.by_policy and is_near(role, asking.seen.order, amount),
    )


def is_near(role: Role | None, order: OrderAccount, amount: Money) -> bool:
    """Return whether so much of an order is given back that its own stream has to make the owed amount exact."""
    hard = None if role is None or role.per_customer is None else role.per_customer.hard_above
    return hard is not None and (amount.currency != hard.currency or order.back + amount.minor > hard.minor)


def _role_refusal(asking: DecisionContext) -> Reason | None:
    """Return the reason why this agent may not act in its role at any amount, or ``None``."""
    agent, policy = asking.agent, asking.rules.policy
    return source_refusal(agent, policy, asking.source) or kind_refusal(agent, policy)


def available(asking: DecisionContext) -> tuple[Money | None, Verdict]:
    """Return the most that this agent could give now without approval, and the verdict on an amount of zero.

    The amount is ``None`` where ``basis_limits`` say `unlimited`.
    """
    policy, request = asking.rules.policy, asking.request
    verdict = judge(asking, policy.zero())
    if verdict.outcome != "taken":
        return policy.zero(), verdict
    if verdict.owed is not None:
        most = Money(MOST_MINOR, policy.currency)
        owed = owed_part(policy, asking.agent.role, request.kind, request.basis, most, asking.seen.order).amount
        as_goodwill = msgspec.structs.replace(request, basis="goodwill")
        rest, _ = available(msgspec.structs.replace(asking, request=as_goodwill))
        unlimited = owed.minor == MOST_MINOR or rest is None
        return (None if unlimited or rest is None else Money(owed.minor + rest.minor, policy.currency)), verdict
    rooms = [met.limit - met.used for met in verdict.met if met.limit is not None]
    if asking.pool is not None and rooms:
        rooms[-1] += _step(asking.pool, asking.rules.policy)  # the budget's limit is the last
    return Money(max(0, min(rooms, default=0)), policy.currency), verdict


def draws_in_shadow(asking: DecisionContext, amount: Money, shadow: Rules) -> bool:
    """Return whether a policy in shadow mode looks at the team's pool, which the one in force does not need."""
    reach = asking.budget.remaining_minor + _grant_change(asking, shadow)
    return asking.pool is None and asking.request.basis == "goodwill" and amount.minor > reach


def shadowed(asking: DecisionContext, amount: Money, shadow: Rules) -> Shadow:
    """Return the verdict of a policy in shadow mode, computed with that policy's own grant."""
    budget = asking.budget
    in_currency = amount.currency == shadow.policy.currency == budget.currency
    if asking.request.basis == "goodwill" and not in_currency:
        reason = Reason(rule="currency", message=f"the shadow policy gives in {shadow.policy.currency}", asked=amount)
        return Shadow(policy_version=shadow.version, outcome="refused", reasons=(reason,))
    change_minor = _grant_change(asking, shadow)
    pool = asking.pool if asking.pool is not None and shadow.pool_team((_team_of(asking.pool),)) else None
    budget.granted_minor += change_minor  # for as long as the shadow looks at it
    try:
        verdict = judge(msgspec.structs.replace(asking, rules=shadow, pool=pool), amount)
    except RequestError as error:  # the part of an entitlement that is not owed, in another currency
        verdict = Verdict(outcome="refused", reasons=(Reason(rule=error.code, message=error.message, asked=amount),))
    finally:
        budget.granted_minor -= change_minor
    return Shadow(policy_version=shadow.version, outcome=verdict.outcome, reasons=verdict.reasons)


def _grant_change(asking: DecisionContext, shadow: Rules) -> int:
    """Return the difference between a policy's grant and that of the policy in force, in minor units."""
    role, enforced = (rules.policy.roles.get(asking.agent.role) for rules in (shadow, asking.rules))
    return (role.budget.minor if role else 0) - (enforced.budget.minor if enforced else 0)


def taken(
    asking: DecisionContext,
    version: int,
    verdict: Verdict,
    cause: RequestContext,
    action_id: str,
    shadow: Shadow | None = None,
) -> ActionTaken:
    """Return the record of an action within the agent's authority."""
    return ActionTaken(authority="own", **_done(asking, version, verdict, cause, action_id, shadow))


def held(
    asking: DecisionContext,
    version: int,
    verdict: Verdict,
    cause: RequestContext,
    action_id: str,
    shadow: Shadow | None = None,
) -> ActionHeld:
    """Return the record of money reserved for an action within the agent's authority."""
    expires_at = asking.now + timedelta(days=HOLD_DAYS)
    return ActionHeld(expires_at=expires_at, **_done(asking, version, verdict, cause, action_id, shadow))


def fell_short(
    request: Preview,
    amount: Money,
    verdict: Verdict,
    cause: RequestContext,
    *,
    asking: DecisionContext | None = None,
    shadow: Shadow | None = None,
    escalation_id: str | None = None,
    preview: bool = False,
) -> AuthorityFellShort:
    """Return the record of a request beyond the agent's authority."""
    return AuthorityFellShort(
        outcome="escalate" if verdict.outcome == "escalate" else "refused",
        reasons=verdict.reasons,
        preview=preview,
        role=asking.agent.role if asking else None,
        holder=asking.budget.holder if asking else None,
        period=asking.budget.period if asking else None,
        policy_version=asking.rules.version if asking else None,
        escalation_id=escalation_id,
        shadow=shadow,
        note_hash=request.note_hash,
        escalate=request.escalate,
        hold=request.hold,
        owed=verdict.owed,
        **(cause.noted() if preview else cause.answer()),
        **(
            action_fields(request, amount)
            if asking is None
            else {**action_fields(request, amount), **asking.agent.fields(request.team_id)}
        ),
    )


NO_POLICY = Verdict(
    outcome="refused",
    reasons=(Reason(rule="no_policy", message="no policy is in force, so no action is allowed; publish a policy"),),
)

_TEXTS = {
    "per_action": "more than this role may give in one action of this kind",
    "per_interaction": "more than may be given on one interaction without asking",
    "per_customer": "more than may be given to one customer and household in these days without asking",
    "unnamed": "more than one agent may give in these days without naming a customer and without asking",
    "budget": "more than is left of this agent's budget",
}


def person_refusal(customer_id: str | None, agent: Agent, group: frozenset[str]) -> Reason | None:
    """Return the reason why this person may not act for this customer at any amount, or ``None``."""
    if agent.left:
        return Reason(rule="left", message=f"{agent.agent_id} has left the company")
    if customer_id is None:
        return None
    if agent.agent_id == customer_id or agent.agent_id in group or not agent.related.isdisjoint((customer_id, *group)):
        return Reason(
            rule="self_dealing", message="agents may not act for themselves, their household or a declared relation"
        )
    return None


def kind_refusal(agent: Agent, policy: Policy) -> Reason | None:
    """Return the reason why an agent of this kind, a person or an AI, may not act in its role, or ``None``."""
    if not agent.answered_for:
        message = f"no person at work answers for the AI agent {agent.agent_id}: announce one as its accountable_id"
        return Reason(rule="accountable", message=message)
    role = policy.roles.get(agent.role)
    if role is None or role.kind == agent.kind:
        return None
    if agent.kind == "ai":
        message = f"the role {agent.role} is for people: an AI agent needs a role with `kind: ai`"
    else:
        message = f"the role {agent.role} is for AI agents, and {agent.agent_id} is a person"
    return Reason(rule="agent_kind", message=message)


def source_refusal(agent: Agent, policy: Policy, source: str) -> Reason | None:
    """Return the reason why this source may not act for this person, or ``None``."""
    if policy.sources is None or agent.role in policy.sources.get(source, ()):
        return None
    return Reason(rule="source", message=f"the source {source} may not act for the role {agent.role}")


class RequestedFields(ActionFields, AgentFields):
    """The fields of a request and of its agent."""


def requested_fields(asking: DecisionContext) -> RequestedFields:
    """Return the fields of the request and of its agent that its records copy."""
    request = asking.request
    assert request.amount is not None
    return {**action_fields(request, request.amount), **asking.agent.fields(request.team_id)}


class _DoneFields(AnswerFields, RequestedFields):
    """The fields of an action within the agent's authority."""

    action_id: str
    role: str
    holder: str
    period: str
    policy_version: int
    training: tuple[str, ...]
    limits: tuple[Limit, ...]
    note_hash: str | None
    escalate: bool
    shadow: Shadow | None
    owed: Money | None


def _done(
    asking: DecisionContext,
    version: int,
    verdict: Verdict,
    cause: RequestContext,
    action_id: str,
    shadow: Shadow | None,
) -> _DoneFields:
    request, agent = asking.request, asking.agent
    assert request.amount is not None
    filled = request.team_id is None and bool(agent.team_ids)
    return {
        "agent_id": request.agent_id,
        "kind": request.kind,
        "basis": request.basis,
        "amount": request.amount,
        "reason": request.reason,
        "team_id": agent.team_ids[0] if filled else request.team_id,
        "team_filled": filled,
        "manager_id": agent.manager_id,
        "agent_kind": agent.kind,
        "customer_id": request.customer_id,
        "interaction_id": request.interaction_id,
        "order_id": request.order_id,
        "note": request.note,
        "guideline": request.guideline,
        "action_id": action_id,
        "role": agent.role,
        "holder": asking.budget.holder,
        "period": asking.budget.period,
        "policy_version": version,
        "training": verdict.training,
        "limits": verdict.limits,
        "note_hash": request.note_hash,
        "escalate": request.escalate,
        "shadow": shadow,
        "owed": verdict.owed,
        "source": cause.source,
        "request_id": cause.request_id,
        "seen_position": cause.seen_position,
        "decider_id": cause.decider_id,
        "rules_version": cause.rules_version,
        "request_sha256": cause.request_sha256,
        "command": cause.command,
        "via": cause.via,
    }


def _beyond_role(kind: str, role: str, policy: Policy, amount: Money) -> Verdict:
    if policy.anybody_gives(kind):
        message = f"the role {role} does not give a {kind}; another role may"
        return Verdict(outcome="escalate", reasons=(Reason(rule="kind", message=message, asked=amount),))
    message = f"no role gives a {kind}"
    return Verdict(outcome="refused", reasons=(Reason(rule="kind", message=message, asked=amount),))


def _met(asking: DecisionContext, role: Role, per_action: Money | None) -> list[LimitUsage]:
    """Return each limit that applies to this action; the budget's is the last."""
    budget, seen = asking.budget, asking.seen
    found = [LimitUsage("per_action", None if per_action is None else per_action.minor, 0)]
    interaction_id = asking.request.interaction_id
    if role.per_interaction is not None and interaction_id is not None:
        used = budget.by_interaction.get(interaction_id, 0)
        if seen.interaction:
            used = _on_interaction(asking, used)
        found.append(LimitUsage("per_interaction", role.per_interaction.minor, used))
    cap = role.per_customer
    if cap is not None:
        most = cap.amount if asking.request.customer_id is not None else cap.unnamed if asking.rules.is_strict else None
        if most is not None:
            used = given_in_days(seen.customer, cap, asking.now, budget.currency) if seen.customer else 0
            found.append(LimitUsage("per_customer", most.minor, used))
    found.append(LimitUsage("budget", budget.granted_minor, budget.spent_minor + budget.reserved_minor))
    return found


_money = lru_cache(maxsize=4096)(Money)  # the values repeat: limits come from the policy, and usage is mostly zero


def _too_much(met: LimitUsage, amount: Money, asking: DecisionContext) -> Reason:
    assert met.limit is not None
    currency = asking.budget.currency
    limit, used = _money(met.limit, currency), _money(met.used, currency)
    is_unnamed = met.name == "per_customer" and asking.request.customer_id is None
    text = _TEXTS["unnamed" if is_unnamed else met.name]
    return Reason(rule=met.name, message=text, limit=limit, used=used, asked=amount)


def _on_interaction(asking: DecisionContext, own: int) -> int:
    """Return the total given on the interaction.

    This agent's part is exact, because it comes from the budget. The part of other agents is as it was read.
    """
    own_seen = others = 0
    for gift in asking.seen.interaction:
        if gift.currency != asking.budget.currency:
            continue
        if gift.agent_id == asking.agent.agent_id:
            own_seen += gift.minor
        else:
            others += gift.minor
    return max(own, own_seen) + others


def given_in_days(given: Sequence[Gift], cap: PerCustomer, now: datetime, currency: str) -> int:
    """Return the part of these gifts that counts for a customer's cap now, in minor units."""
    since = now.timestamp() - cap.days * DAY_SECONDS
    return sum([gift.minor for gift in given if gift.at > since and gift.currency == currency])


def _guarded(cap: PerCustomer, found: Sequence[LimitUsage], minor: int) -> int | None:
    if cap.hard_above is None:
        return None
    used = next((met.used for met in found if met.name == "per_customer"), None)
    return cap.days if used is not None and used + minor > cap.hard_above.minor else None


def _from_pool(asking: DecisionContext, pool: Budget, amount: Money) -> tuple[Money | None, Reason | None]:
    """Return the amount to draw where the budget does not reach, or the reason why the pool does not reach either."""
    lacking = amount.minor - asking.budget.remaining_minor
    if lacking <= 0:
        return None, None
    step = _step(pool, asking.rules.policy)
    if lacking > step:
        message = "more than one draw on the team's pool adds"
        used = pool.money(pool.spent_minor + pool.reserved_minor)
        return None, Reason(rule="pool", message=message, limit=pool.money(pool.granted_minor), used=used, asked=amount)
    steps = asking.rules.policy.teams[_team_of(pool)].draw_at_most
    return pool.money(lacking if steps is None else step), None


def _step(pool: Budget, policy: Policy) -> int:
    """Return the most that one draw takes, in minor units."""
    at_most = policy.teams[_team_of(pool)].draw_at_most
    left = max(0, pool.remaining_minor)
    return left if at_most is None else min(left, at_most.minor)


def _team_of(pool: Budget) -> str:
    return pool.holder.removeprefix("team:")


def _trained(agent: Agent, course: str, now: datetime) -> bool:
    if course not in agent.training:
        return False
    until = agent.training[course]
    return until is None or until > now
