"""Warnings about a valid policy, and the difference between two policies.

A repeated request to publish computes its warnings again, and its answer has to equal the first one. So the texts of
warnings do not change.
"""

from __future__ import annotations

from collections import defaultdict
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple

from domain.money import Money
from domain.policy.parsing import PolicyProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.policy.model import AskingMinutes, Limits, Policy, Role
    from domain.policy.parsing import Path
    from domain.serialization import JsonObject


def contradictions(policy: Policy) -> list[PolicyProblem]:
    """Return the parts of a policy that contradict each other or cost more than they save.

    Each problem names its path and a remedy.
    """
    found: list[PolicyProblem] = []
    chains, pool = _chains(policy), _largest_pool(policy)
    for name, role in policy.roles.items():
        found += _of_role(policy, name, role, chains, role.budget.minor + pool)
    for team_id, team in policy.teams.items():
        path: Path = ("teams", team_id)
        if team.draw_at_most is not None and team.pool is None:
            found.append(PolicyProblem((*path, "draw_at_most"), "there is no pool to draw on; give the team a pool"))
        if team.draw_at_most is not None and team.pool is not None and team.draw_at_most.minor > team.pool.minor:
            found.append(PolicyProblem((*path, "draw_at_most"), f"is more than the whole pool, {team.pool.text}"))
        for role_name, limits in team.limits.items():
            found += _cost_of_asking(policy, limits, (*path, "limits", role_name))
    if policy.escalation.payer == "team" and not any(team.pool for team in policy.teams.values()):
        found.append(PolicyProblem(("escalation", "payer"), "no team has a pool, so the approver's budget pays"))
    if policy.trial is not None:
        now = policy.roles[policy.trial.role].limits.get(policy.trial.kind, policy.zero())
        if now is None or now == policy.trial.amount:
            found.append(
                PolicyProblem(("trial", "limit", "amount"), "tries what the role has already; name another amount")
            )
    return found


class _Chain(NamedTuple):
    """The highest approval limit and own limit for a kind over all roles, and the number of roles that give it."""

    approved: float
    given: float
    roles: int


def _chains(policy: Policy) -> dict[str, _Chain]:
    approved: defaultdict[str, list[float]] = defaultdict(list)
    given: defaultdict[str, list[float]] = defaultdict(list)
    for role in policy.roles.values():
        for found, limits in ((approved, role.approves), (given, role.limits)):
            for kind, limit in limits.items():
                found[kind].append(inf if limit is None else limit.minor)
    return {kind: _Chain(max(approved[kind], default=-inf), max(limits), len(limits)) for kind, limits in given.items()}


def _largest_pool(policy: Policy) -> int:
    pools = [team.draw_at_most or team.pool for team in policy.teams.values() if team.pool is not None]
    return max((pool.minor for pool in pools if pool is not None), default=0)


def _of_role(policy: Policy, name: str, role: Role, chains: dict[str, _Chain], reach: int) -> Iterator[PolicyProblem]:
    path: Path = ("roles", name)
    for kind, limit in role.limits.items():
        at = (*path, "limits", kind)
        if limit is None:
            continue
        if limit.minor > reach:
            yield PolicyProblem(
                at, f"{limit.text} can never be given: the budget is {role.budget.text}; raise one, lower one"
            )
        for rule, amount in (
            ("per_interaction", role.per_interaction),
            ("per_customer", role.per_customer.amount if role.per_customer else None),
        ):
            if amount is not None and limit.minor > amount.minor:
                yield PolicyProblem(
                    at, f"{limit.text} can never be given: {rule} is {amount.text}; raise one, lower one"
                )
        if not _is_approved(chains[kind], role, kind, limit):
            message = f"nobody could approve a {kind} above {limit.text}; give another role `approves` for it"
            yield PolicyProblem(at, message)
    yield from _cost_of_asking(policy, role.limits, (*path, "limits"))
    hard = role.per_customer.hard_above if role.per_customer else None
    if role.per_customer and hard is not None and hard.minor > role.per_customer.amount.minor:
        yield PolicyProblem(
            (*path, "per_customer", "hard_above"), f"is above the amount, {role.per_customer.amount.text}"
        )
    for kind in role.requires:
        if kind not in role.limits:
            yield PolicyProblem((*path, "requires", kind), f"this role gives no {kind}, so the training opens nothing")


def _is_approved(chain: _Chain, role: Role, kind: str, limit: Money) -> bool:
    """Return whether a limit needs no further approver.

    Either a role approves more, or this limit is the highest of several roles.
    """
    if chain.approved > limit.minor:
        return True
    return chain.given <= limit.minor and (chain.roles > 1 or kind in role.approves)


def _cost_of_asking(policy: Policy, limits: Limits, path: Path) -> Iterator[PolicyProblem]:
    cost = cost_of_asking(policy)
    if cost is None:
        return
    for kind, limit in limits.items():
        if limit is not None and limit.minor < cost.minor:
            yield PolicyProblem(
                (*path, kind), f"{kind} {limit.text}: asking costs {cost.text}; a limit below that saves nothing"
            )


def cost_of_asking(policy: Policy) -> Money | None:
    """Return the cost of one request by the policy's minutes and hourly rates, or ``None`` where it names none."""
    agent, manager = policy.costs.get("agent_hour"), policy.costs.get("manager_hour")
    if agent is None or manager is None:
        return None
    return Money(asking_minor(agent.minor, manager.minor, policy.asking), policy.currency)


def asking_minor(agent_hour: int, manager_hour: int, minutes: AskingMinutes) -> int:
    """Return the cost of a request in minor units, rounded up, from the costs of an hour."""
    return ceil((agent_hour * minutes.agent + manager_hour * minutes.approver) / 60)


def difference(before: JsonObject, after: JsonObject) -> list[tuple[str, object, object]]:
    """Return the fields in which two documents differ, as (field, before, after); ``None`` for a missing field.

    Example: ``[("roles.agent.limits.refund", "50.00", "80.00")]``.
    """
    old, new = dict(_leaves(before, "")), dict(_leaves(after, ""))
    fields = list(dict.fromkeys((*old, *new)))
    return [(field, old.get(field), new.get(field)) for field in fields if old.get(field) != new.get(field)]


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}".lstrip("."))
    else:
        yield path, value
