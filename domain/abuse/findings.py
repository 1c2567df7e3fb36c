"""What a rule finds: one sentence with numbers, the positions that prove it, and a name by which it is raised once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from domain.money import Money


@dataclass(frozen=True)
class RuleFinding:
    """``about`` is who is concerned (`agent:<id>`, `customer:<id>`); ``key`` tells it from others of its rule."""

    rule: str
    version: int
    about: tuple[str, ...]
    key: str
    explanation: str
    evidence: tuple[int, ...]
    p: float | None = None

    @property
    def case(self) -> tuple[str, ...]:
        """What keeps this finding apart from others of its rule; the same case again is more evidence."""
        return (self.rule, *self.about, self.key)

    def flag_id(self) -> str:
        """The flag's name where this finding raises it: two guards give it the same."""
        name = "\x00".join((*self.case, str(self.evidence[0])))
        return "flag-" + hashlib.blake2b(name.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Rule:
    """A rule's id, version, pattern in words, and its parameters with their defaults."""

    id: str
    version: int
    pattern: str
    parameters: dict[str, Any]

    def finding(
        self, about: tuple[str, ...], key: str, explanation: str, evidence: Any, p: float | None = None
    ) -> RuleFinding:
        """A finding of this rule."""
        return RuleFinding(self.id, self.version, about, key, explanation, tuple(sorted(set(evidence))), p)


def money(minor: int, currency: str) -> str:
    """``5.00 GBP``."""
    return f"{Money(minor, currency).text} {currency}"


def benjamini_hochberg(findings: list[RuleFinding], tests: int, q: float) -> list[RuleFinding]:
    """Those that stand when ``tests`` were made at once (Benjamini and Hochberg 1995): of them a share q is false.

    The largest k is sought for which the k-th smallest p is at most k q / tests; the k smallest stand.
    """
    ordered = sorted(findings, key=lambda finding: (finding.p or 0.0, finding.case))
    standing = 0
    for place, finding in enumerate(ordered, 1):
        if (finding.p or 0.0) <= place * q / max(tests, 1):
            standing = place
    return ordered[:standing]
