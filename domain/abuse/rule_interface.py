"""The forms of the guard's rules: by event, after a delay, by time window, and by another package."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from domain.abuse.findings import Rule, RuleFinding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction

_PLUGIN_ID = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)+")


class CountingRule(Protocol):
    """A rule that looks at each event."""

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None, /) -> Iterable[RuleFinding]:
        """Return the findings of an event; ``action`` is the event as an action, if it is one.

        ``history`` already holds the event.
        """


class AbsenceRule(CountingRule, Protocol):
    """A rule that waits for late facts before it judges an action."""

    def due(self, history: GuardHistory, action: ObservedAction, /) -> Iterable[RuleFinding]:
        """Return the findings of an action that has waited."""

    def over(self, history: GuardHistory, end: float, /) -> tuple[list[RuleFinding], int]:
        """Return the findings of a nightly run, and the number of tests made."""


@runtime_checkable
class GuardRule(CountingRule, Protocol):
    """A rule of another package. Its id has a dot, e.g. ``acme.late-night``; ids of built-in rules have none."""

    @property
    def rule(self) -> Rule:
        """The rule's id, version and pattern."""


def rule_fault(rule: object) -> str:
    """Return the reason why an object is not a rule that another package may add; empty if it is one."""
    if not isinstance(rule, GuardRule):
        return "it lacks `rule` or `on`"
    described: object = rule.rule
    if not isinstance(described, Rule):
        return f"its `rule` is a {type(described).__name__}, not a Rule"
    if not _PLUGIN_ID.fullmatch(described.id):
        return f"its id {described.id!r} is not two or more lower-case words with dots between them, e.g. acme.night"
    return ""


def finding_fault(rule: Rule, finding: object, position: int) -> str:
    """Return the reason why a rule may not return this finding at a position; empty if it may."""
    if not isinstance(finding, RuleFinding):
        return f"it returned a {type(finding).__name__}, not a RuleFinding"
    if (finding.rule, finding.version) != (rule.id, rule.version):
        return f"it returned a finding of {finding.rule} {finding.version}: make findings with `Rule.finding`"
    if not finding.about or not all(name.startswith(("agent:", "customer:")) for name in finding.about):
        return "its finding is about nobody: `about` names `agent:<id>` or `customer:<id>`"
    if not finding.evidence or not all(0 < proof <= position for proof in finding.evidence):
        return "its finding has no evidence: `evidence` names positions up to the event's own"
    return ""
