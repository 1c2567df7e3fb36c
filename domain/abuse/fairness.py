"""Fairness of the rules: each group's share of actions that prove a flag, compared with all others' share.

A rule that flags a group far above its share may see a custom, a rota or a prejudice instead of misuse. Such groups are
named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from domain.abuse.findings import rule_order
from domain.abuse.history import DAY
from domain.statistics import fisher_greater

if TYPE_CHECKING:
    from collections.abc import Iterable

DIMENSIONS = ("team", "channel", "shift", "tenure")
FAR_TIMES = 2.0
FAR_P = 0.01
FAR_PEOPLE = 3
_TENURES = ((90, "under 3 months"), (365, "3 to 12 months"), (3 * 365, "1 to 3 years"))
_UNKNOWN = "not known"


class ReviewedAction(NamedTuple):
    """An action: its agent, its group in each dimension, and the rules for which it proves a flag."""

    agent: str
    groups: Mapping[str, str]
    rules: frozenset[str]


class Rate(NamedTuple):
    """The counts of one rule and one group: ``proving`` of ``actions``, and ``concerned`` of ``people``."""

    rule: str
    dimension: str
    group: str
    actions: int
    proving: int
    people: int
    concerned: int
    rate: float
    base_rate: float
    """The share among all others' actions."""
    p: float
    """Fisher's exact test over people: the chance of at least as many concerned in this group."""
    far_above: bool


def rates(acts: Iterable[ReviewedAction]) -> list[Rate]:
    """Return the rates of each rule that raised a flag, for every group with actions.

    ``far_above`` marks a group with at least three people concerned, a rate of at least twice that of all others, and a
    p-value below 0.01 by Fisher's exact test. The test counts people, because actions of one person are not
    independent.
    """
    done = list(acts)
    found: list[Rate] = []
    for rule in sorted({rule for act in done for rule in act.rules}, key=rule_order):
        concerned = {act.agent for act in done if rule in act.rules}
        proving = sum(rule in act.rules for act in done)
        everybody = {act.agent for act in done}
        for dimension in DIMENSIONS:
            by_group = defaultdict[str, list[ReviewedAction]](list)
            for act in done:
                by_group[act.groups.get(dimension) or _UNKNOWN].append(act)
            for group, some in sorted(by_group.items()):
                people = {act.agent for act in some}
                mine = {act.agent for act in some if rule in act.rules}
                k, n = sum(rule in act.rules for act in some), len(some)
                rest = len(done) - n
                base = (proving - k) / rest if rest else 0.0
                others = everybody - people
                concerned_others = len(concerned & others)
                p = fisher_greater(
                    (len(mine), len(people) - len(mine)), (concerned_others, len(others) - concerned_others)
                )
                far = (
                    group != _UNKNOWN
                    and len(mine) >= FAR_PEOPLE
                    and k / n >= FAR_TIMES * base
                    and p < FAR_P
                    and rest > 0
                )
                found.append(Rate(rule, dimension, group, n, k, len(people), len(mine), k / n, base, p, far))
    return found


def shift_of(hour: int) -> str:
    """Return the part of the day for a local hour, e.g. ``early (6-14)``."""
    return "night (22-6)" if hour >= 22 or hour < 6 else "early (6-14)" if hour < 14 else "late (14-22)"  # noqa: PLR2004


def tenure_of(seconds: float | None) -> str:
    """Return the band of an employee's tenure, e.g. ``3 to 12 months``."""
    if seconds is None:
        return _UNKNOWN
    return next((name for days, name in _TENURES if seconds < days * DAY), "3 years or more")
