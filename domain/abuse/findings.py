"""Findings of rules: a sentence with numbers, the positions that prove it, and a name by which it is raised once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from domain.money import Money

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Parameters(TypedDict, total=False):
    """The parameters that rules have; docs/understand/guard.md says the meaning of each in its rule."""

    days: int
    hours: int
    minutes: int
    actions: int
    near: int
    times: float
    peers: int
    contacts: int
    agents: int
    claims: int
    each_way: int
    pair: int
    denied_then: int
    fraction: float
    alike: float
    share: float
    sigma: float
    z: float
    p: float
    customers: int
    holds: int
    approvals: int
    people: int
    wide_hours: int
    reach: float
    ratio: float
    unsettled: float
    kinds: Sequence[str]


@dataclass(frozen=True)
class RuleFinding:
    """A finding of one rule; ``about`` are the people concerned, ``key`` separates it from others of the rule."""

    rule: str
    version: int
    about: tuple[str, ...]
    key: str
    explanation: str
    evidence: tuple[int, ...]
    p: float | None = None

    @property
    def case(self) -> tuple[str, ...]:
        """The identity of this finding; another finding of the same case is more evidence for it."""
        return (self.rule, *self.about, self.key)

    def flag_id(self) -> str:
        """Return the id of the flag that this finding raises; every guard computes the same one."""
        name = "\x00".join((*self.case, str(self.evidence[0])))
        return "flag-" + hashlib.blake2b(name.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Rule:
    """A rule's id, version, pattern in words, and parameters with their defaults."""

    id: str
    version: int
    pattern: str
    parameters: Parameters

    def finding(
        self, about: tuple[str, ...], key: str, explanation: str, evidence: Iterable[int], p: float | None = None
    ) -> RuleFinding:
        """Return a finding of this rule."""
        return RuleFinding(self.id, self.version, about, key, explanation, tuple(sorted(set(evidence))), p)


def rule_order(rule_id: str) -> tuple[bool, int, str]:
    """Return a sort key of rule ids: R1 to R18 by number, then those of other packages by name."""
    return "." in rule_id, len(rule_id), rule_id


def money(minor: int, currency: str) -> str:
    """Return an amount as text, e.g. ``5.00 GBP``."""
    return f"{Money(minor, currency).text} {currency}"


def benjamini_hochberg(findings: list[RuleFinding], tests: int, q: float) -> list[RuleFinding]:
    """Return the findings that stand after ``tests`` tests at a false discovery rate of q.

    The k findings with the smallest p stand, where k is the largest number with p_k <= k q / tests. Source: Benjamini
    and Hochberg 1995.
    """
    ordered = sorted(findings, key=lambda finding: (finding.p or 0.0, finding.case))
    standing = 0
    for place, finding in enumerate(ordered, 1):
        if (finding.p or 0.0) <= place * q / max(tests, 1):
            standing = place
    return ordered[:standing]
