"""The cost of procedure: the cost that approval would have added to actions that agents took on their own authority.

Procedure means that an agent asks, an approver decides, and goods are sent back that the customer might have kept.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypedDict

from domain.money import Money
from domain.policy.linting import cost_of_asking

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.policy.model import Policy

GOODS_COME_BACK = frozenset(("keep_item",))
"""Kinds for which the procedure includes the return of goods and their inspection (``costs.return_processing``)."""


class ProcedureCost(TypedDict):
    """Actions of one kind and currency: their number and cost, and the cost of procedure that they did not have."""

    kind: str
    n: int
    given: dict[str, str]
    long_way_each: dict[str, str] | None
    long_way: dict[str, str] | None
    cheaper_than_asking: int | None


def long_way(kind: str, policy: Policy) -> Money | None:
    """Return the cost of procedure for one action, or ``None`` where the policy lacks the cost of an hour."""
    asking = cost_of_asking(policy)
    back = policy.costs.get("return_processing") if kind in GOODS_COME_BACK else None
    return asking if asking is None or back is None else Money(asking.minor + back.minor, policy.currency)


def procedure(done: Iterable[tuple[str, str, int]], policy: Policy | None) -> list[ProcedureCost]:
    """Return the figures of actions on agents' own authority by kind and currency, the most frequent first.

    ``done`` are (kind, currency, minor units). ``long_way`` is the cost of procedure for all of them, ``None`` where
    the policy names no costs.
    """
    some: dict[tuple[str, str], list[int]] = defaultdict(list)
    for kind, currency, minor in done:
        some[kind, currency].append(minor)
    found: list[ProcedureCost] = []
    for (kind, currency), amounts in sorted(some.items(), key=lambda one: (-len(one[1]), one[0])):
        each = long_way(kind, policy) if policy is not None and policy.currency == currency else None
        found.append(
            {
                "kind": kind,
                "n": len(amounts),
                "given": Money(sum(amounts), currency).wire(),
                "long_way_each": None if each is None else each.wire(),
                "long_way": None if each is None else Money(each.minor * len(amounts), currency).wire(),
                "cheaper_than_asking": None if each is None else sum(amount < each.minor for amount in amounts),
            }
        )
    return found
