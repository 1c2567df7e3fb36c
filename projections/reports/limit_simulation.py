"""The effect of another limit of one action: history replayed with it."""

from __future__ import annotations

from copy import deepcopy
from math import fsum
from typing import TYPE_CHECKING, Any, TypedDict

from domain.money import Money, MoneyError
from domain.policy.linting import asking_minor
from domain.policy.model import AskingMinutes
from domain.policy.parsing import PolicyError, read_policy
from projections.policy_history import in_force_now
from projections.reading import EVERYBODY
from projections.reports.policy_simulation import CAVEATS, PolicySimulation, try_quickly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.events.decisions import PolicyPublished
    from domain.policy.model import Policy
    from domain.serialization import JsonObject
    from domain.simulation.comparison import OutcomeComparison, SparedRequest
    from projections.reading import AccessScope, Reader

_DAY_SECONDS, _MONTH_DAYS, _EXTRAPOLATED_DAYS = 86_400, 365.25 / 12, 28

_OWN_LIMITS = "teams with a limit of their own for this action keep it"


class LimitError(ValueError):
    """A limit that cannot be tried; ``field`` is the field that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class SimulatedLimit(TypedDict):
    """The effect of a limit in a replay of history; ``monthly`` is ``None`` for less than 28 days."""

    days: float
    given_at_once: int
    escalations_spared: int
    would_have_saved: dict[str, str] | None
    hours_not_waited: float
    not_approved: dict[str, str]
    monthly: float | None


class LimitWhatIf(SimulatedLimit):
    """The effect of one other limit on the people that the reader sees.

    ``would_escalate`` is the number of actions that were given at once and would have needed an approval. ``today`` is
    the present limit; ``None``: none, or unlimited.
    """

    role: str
    kind: str
    limit: dict[str, str]
    today: dict[str, str] | None
    policy_version: int
    """The version of the policy in force; its first decision is the first of the replay."""
    decisions: int
    """The decisions that were made again, of all people."""
    would_escalate: int
    would_escalate_amount: dict[str, str]
    caveats: Sequence[str]
    position: int


def policy_with_limit(policy: Policy, role: str, kind: str, limit: Money) -> JsonObject:
    """Return the document of a policy with another limit of one action, for all teams.

    Raises:
        LimitError: the policy has no such role, or another currency.

    """
    if role not in policy.roles:
        raise LimitError("role", f"the policy in force has no role {role!r:.80}: it has {', '.join(policy.roles)}")
    if limit.currency != policy.currency:
        raise LimitError("amount", f"the policy in force is in {policy.currency}, not in {limit.currency}")
    document: dict[str, Any] = deepcopy(policy.document)
    document["roles"][role].setdefault("limits", {})[kind] = limit.wire()["amount"]
    if policy.trial is not None and (policy.trial.role, policy.trial.kind) == (role, kind):
        del document["trial"]  # the limit is that of all teams
    return document


async def what_if_of_limit(
    read: Reader,
    published: Sequence[PolicyPublished],
    role: str,
    kind: str,
    limit: Money,
    scope: AccessScope = EVERYBODY,
) -> LimitWhatIf:
    """Return the effect of a limit on the people in ``scope``, in a replay of all decisions under the policy in force.

    Raises:
        LimitError: no policy is in force, or the limit cannot be one of it.

    """
    rules = in_force_now(published)
    if rules is None:
        raise LimitError("role", "no policy is in force: publish one first")
    document = policy_with_limit(rules.policy, role, kind, limit)
    try:
        tried = read_policy(document)
    except PolicyError as error:
        raise LimitError("amount", error.problems[0].message) from None
    simulation = PolicySimulation(tried, published, None, flags=False)
    found = await try_quickly(read, simulation, lambda _: None)
    comparison, currency = simulation.what_if.comparison, limit.currency
    spared = [one for one in comparison.spared if (one.role, one.kind) == (role, kind) and scope.shows(one.agent_id)]
    stopped = [
        counted
        for (agent_id, *of), counted in comparison.stopped.items()
        if of == [role, kind, currency] and scope.shows(agent_id)
    ]
    today = rules.policy.roles[role].limits.get(kind)
    cost = cost_of_asking(rules.policy, currency, {})
    return {
        "role": role,
        "kind": kind,
        "limit": limit.wire(),
        "today": None if today is None else today.wire(),
        "policy_version": rules.version,
        "decisions": comparison.decisions,
        **effect_of(spared, comparison, currency, cost),
        "would_escalate": sum(number for number, _ in stopped),
        "would_escalate_amount": Money(sum(minor for _, minor in stopped), currency).wire(),
        "caveats": (*CAVEATS, _OWN_LIMITS),
        "position": found["position"],
    }


def effect_of(
    spared: Sequence[SparedRequest], comparison: OutcomeComparison, currency: str, cost: int | None
) -> SimulatedLimit:
    """Return the effect of a limit that spares these requests; ``cost`` is that of asking once, in minor units."""
    ends = [comparison.waited.get(one.escalation_id or "") for one in spared]
    filed = sum(one.escalation_id is not None for one in spared)
    refused = sum(one.minor for one, end in zip(spared, ends, strict=True) if end is not None and end[0] != "approved")
    days = comparison.seconds / _DAY_SECONDS
    return {
        "days": days,
        "given_at_once": len(spared),
        "escalations_spared": filed,
        "would_have_saved": None if cost is None else Money(filed * cost, currency).wire(),
        "hours_not_waited": fsum(end[1] for end in ends if end is not None) / 3600,
        "not_approved": Money(refused, currency).wire(),
        "monthly": filed / days * _MONTH_DAYS if days >= _EXTRAPOLATED_DAYS else None,
    }


def cost_of_asking(policy: Policy | None, currency: str, hours: Mapping[str, str | None]) -> int | None:
    """Return the cost of a request in minor units, by the policy's costs of an hour, else by ``hours``.

    Raises:
        ValueError: an hour's cost is not an amount.

    """
    found: list[int] = []
    for name in ("agent_hour", "manager_hour"):
        if policy is not None and name in policy.costs and policy.costs[name].currency == currency:
            found.append(policy.costs[name].minor)
        elif (given := hours.get(name)) is not None:
            try:
                found.append(Money.parse(given, currency).minor)
            except MoneyError as error:
                message = f"{name}: {error}"
                raise ValueError(message) from None
        else:
            return None
    agent_hour, manager_hour = found
    return asking_minor(agent_hour, manager_hour, AskingMinutes() if policy is None else policy.asking)
