"""R6, off duty: an action outside a shift, where shifts are known, or after its agent had left."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.events import facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction

RULE = Rule("R6", 1, "off duty", {"minutes": 15})
_HALF_A_DAY = 16 * 3600.0


class OffDuty:
    """Shifts, and actions that wait for late facts before they are judged."""

    def __init__(self, parameters: Parameters) -> None:
        self._slack: float = parameters["minutes"] * 60.0
        self._shifts: dict[str, list[tuple[float, float | None]]] = defaultdict(list)

    def on(self, _history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Learn shifts; findings come later, from ``due``."""
        body = event.body
        if isinstance(body, facts.ShiftStarted):
            self._shifts[body.employee_id].append((event.at, None))
        elif isinstance(body, facts.ShiftEnded):
            shifts = self._shifts[body.employee_id]
            if shifts and shifts[-1][1] is None:
                shifts[-1] = (shifts[-1][0], event.at)
        yield from ()

    def due(self, history: GuardHistory, action: ObservedAction) -> Iterator[RuleFinding]:
        """Yield a finding for an action outside any shift.

        The interaction's start counts, so a call that ends after the shift is in order. Reported actions are exempt,
        because their start is unknown.
        """
        if action.reported:
            return
        opened = history.begun(action.interaction)
        begun = action.at if opened is None else min(action.at, opened)
        what = f"{action.agent} gave {money(action.minor, action.currency)}"
        left = history.left.get(action.agent)
        if left is not None and action.at > left + self._slack:
            yield RULE.finding(
                (f"agent:{action.agent}",), f"left {action.action_id}", f"{what} after having left", [action.position]
            )
            return
        shifts = self._shifts.get(action.agent)
        if shifts and shifts[0][0] <= action.at and not any(self._within(begun, *shift) for shift in shifts):
            nearest = min(abs(begun - edge) for start, end in shifts for edge in (start, end) if edge is not None)
            text = f"{what} {nearest / 60:.0f} minutes outside any shift"
            yield RULE.finding((f"agent:{action.agent}",), "shift", text, [action.position])

    def _within(self, moment: float, start: float, end: float | None) -> bool:
        return start - self._slack <= moment <= (start + _HALF_A_DAY if end is None else end) + self._slack
