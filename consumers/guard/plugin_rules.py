"""Rules of other packages: an error in one is reported with its package, and stops no other rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.abuse.rule_interface import finding_fault
from ledger.nats.incidents import report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.abuse.findings import RuleFinding
    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction
    from domain.abuse.rule_interface import GuardRule


class IsolatedRule:
    """A rule of another package whose errors reach no other rule."""

    def __init__(self, package: str, rule: GuardRule) -> None:
        self._rule = rule
        self._incident = f"the rule {rule.rule.id} of the package {package} failed on an event, and does not judge it"

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None, /) -> Sequence[RuleFinding]:
        """Return the rule's findings; none where it raises an error or returns a finding that it may not return."""
        try:
            found = list(self._rule.on(history, event, action))
            faults = [fault for one in found if (fault := finding_fault(self._rule.rule, one, event.position))]
        except BaseException as error:  # noqa: BLE001 - code of another package may raise anything, SystemExit too
            report(self._incident, f"position {event.position}", error)
            return ()
        if faults:
            report(self._incident, f"position {event.position}: {faults[0]}")
            return ()
        return found
