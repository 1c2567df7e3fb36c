"""The policy in force at a moment: one rule for the decider, the guard, the reports and the page.

A version begins at its ``effective_from``. From then on it replaces every older version, even one that has not begun
yet. So the policy in force is the newest enforced version that has begun. That also holds for two versions with one
``effective_from``, and for versions published out of order.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from domain.policy.model import Rules
from domain.policy.parsing import read_policy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from domain.events.decisions import PolicyPublished
    from domain.policy.model import Policy


class PolicyTerm(NamedTuple):
    """The policies in force and in shadow mode from ``begins`` (seconds since 1970) on; ``None`` if there is none."""

    begins: float
    enforced: Rules | None
    """The policy in force."""
    shadow: Rules | None
    """The policy in shadow mode, unless a newer one is enforced."""


class PolicyHistory:
    """All published versions, arranged by the moments from which each is in force."""

    def __init__(self, versions: Iterable[Rules] = ()) -> None:
        self._versions = {rules.version: rules for rules in versions}
        self._arrange()

    @classmethod
    def of(cls, published: Iterable[PolicyPublished]) -> PolicyHistory:
        """Return the history of these published policies."""
        return cls(rules_of(one) for one in published)

    def add(self, rules: Rules) -> None:
        """Add a published version."""
        self._versions[rules.version] = rules
        self._arrange()

    def __getitem__(self, version: int) -> Rules:
        return self._versions[version]

    def get(self, version: int) -> Rules | None:
        """Return the version with this number, or ``None`` if it was not published."""
        return self._versions.get(version)

    @property
    def newest_version(self) -> int:
        """The highest published version, or 0."""
        return max(self._versions, default=0)

    @property
    def newest_enforced(self) -> int:
        """The highest published version that is not in shadow mode, or 0; a proposal names it as replaced."""
        return max((one.version for one in self._versions.values() if one.policy.mode == "enforced"), default=0)

    def in_force(self, moment: datetime) -> Rules | None:
        """Return the policy in force: the newest enforced version that has begun by this moment."""
        return self.at(moment).enforced

    def in_force_at(self, seconds: float) -> Rules | None:
        """Return the policy in force at a moment in seconds since 1970."""
        return self._reigns[bisect_right(self._begins, seconds) - 1].enforced

    def in_shadow(self, moment: datetime) -> Rules | None:
        """Return the newest version that has begun if it is in shadow mode, otherwise ``None``."""
        return self.at(moment).shadow

    def replaced_by(self, rules: Rules) -> Rules | None:
        """Return the older version that is in force when these rules begin, or ``None``."""
        older = PolicyHistory(one for one in self._versions.values() if one.version < rules.version)
        return older.in_force(rules.policy.effective_from)

    def refusal_of(self, policy: Policy, now: datetime) -> str | None:
        """Return the reason why a policy may not be published now, or ``None``: it begins before the one in force."""
        ruling = self.in_force(now)
        if ruling is None or policy.effective_from >= ruling.policy.effective_from:
            return None
        begins = ruling.policy.effective_from.isoformat().replace("+00:00", "Z")
        return (
            f"is before that of version {ruling.version}, in force since {begins}; decisions already made "
            "stand, so name that time or a later one"
        )

    def reigns(self) -> list[PolicyTerm]:
        """Return the changes of the policy in force, in order of time."""
        return self._reigns[1:]

    def at(self, moment: datetime) -> PolicyTerm:
        """Return the policies in force and in shadow mode at a moment."""
        return self._reigns[bisect_right(self._begins, moment.timestamp()) - 1]

    def _arrange(self) -> None:
        """Fold the versions in the order in which they begin."""
        found = [PolicyTerm(float("-inf"), None, None)]
        for rules in sorted(self._versions.values(), key=lambda one: (_begins(one), one.version)):
            _, enforced, shadow = found[-1]
            newest = max((one.version for one in (enforced, shadow) if one is not None), default=0)
            if rules.policy.mode == "enforced":
                if enforced is None or rules.version > enforced.version:
                    enforced = rules
                if rules.version > newest:
                    shadow = None
            elif rules.version > newest:
                shadow = rules
            if found[-1].begins == _begins(rules):
                found.pop()
            found.append(PolicyTerm(_begins(rules), enforced, shadow))
        self._reigns = found
        self.currencies = frozenset(one.policy.currency for one in self._versions.values())
        """The currencies of all versions."""
        self._begins = [reign.begins for reign in found]


def rules_of(published: PolicyPublished) -> Rules:
    """Return the rules of a published version."""
    return Rules(published.version, read_policy(published.policy), published.trial_teams, published.rules_version)


def _begins(rules: Rules) -> float:
    return rules.policy.effective_from.timestamp()
