"""R18, circles of authority: grants, approvals, delegations or policies come back to their first giver."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardEvent, ObservedAction
from domain.events import decisions, facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.settled import SettledHistory
    from domain.keyed_state import State

RULE = Rule("R18", 1, "circles of authority", {"days": 30, "approvals": 3, "people": 4})
_MONEY = "grants"
_APPROVALS = "approvals"
_WEAK = "delegations"


class _Gift(NamedTuple):
    at: float
    position: int
    sort: str


class Circles:
    """A graph of authority given from person to person in the last ``days`` days.

    A grant, a transfer or ``approvals`` approvals of escalations are a strong step; a delegation and the approval of a
    policy are weak ones, because colleagues stand in for each other. A circle of up to ``people`` people counts if one
    step is strong, unless it consists of approvals between two people alone, which R5 counts.
    """

    takes: ClassVar[tuple[type, ...]] = (
        decisions.BudgetGranted,
        decisions.BudgetTransferred,
        decisions.EscalationApproved,
        decisions.PolicyPublished,
        facts.DelegationDeclared,
    )

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._seconds = parameters["days"] * DAY
        self._given = state.table("R18 given", dict[str, list[_Gift]])

    def on(self, _settled: SettledHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for the step that closes a circle."""
        for giver, taker, sort in _steps(event.body):
            if giver == taker:
                continue  # R12
            given = self._given.get(giver) or {}
            given[taker] = [one for one in given.get(taker, ()) if one.at > event.at - self._seconds]
            given[taker].append(_Gift(event.at, event.position, sort))
            self._given.put(giver, given)
            steps = self._circle(giver, taker, event.at - self._seconds)
            if steps is None:
                continue
            people = [giver, *steps]
            ways = [self._step(one, other, event.at) for one, other in zip(people, [*steps, giver], strict=True)]
            sorts = {gift.sort for way in ways for gift in way}
            only_two = len(people) == 2 and sorts == {_APPROVALS}  # noqa: PLR2004 - R5 counts those
            if sorts == {_WEAK} or only_two:
                continue
            path = ", ".join(
                f"{one} to {other} ({', '.join(sorted({gift.sort for gift in way}))})"
                for one, other, way in zip(people, [*steps, giver], ways, strict=True)
            )
            text = f"authority came back to its giver within {self._parameters['days']} days: {path}"
            about = tuple(f"agent:{name}" for name in sorted(people))
            yield RULE.finding(about, "", text, [gift.position for way in ways for gift in way])

    def _step(self, giver: str, taker: str, now: float) -> list[_Gift]:
        """Return the gifts of authority that make a step, or none: too few approvals alone make no step."""
        gifts = [gift for gift in (self._given.get(giver) or {}).get(taker, ()) if gift.at > now - self._seconds]
        other = [gift for gift in gifts if gift.sort != _APPROVALS]
        approvals = [gift for gift in gifts if gift.sort == _APPROVALS]
        return other + (approvals if len(approvals) >= self._parameters["approvals"] else [])

    def _circle(self, giver: str, taker: str, since: float) -> list[str] | None:
        """Return the people from the taker to the last one before the giver, on the shortest way back."""
        now = since + self._seconds
        if not self._step(giver, taker, now):
            return None
        ways = deque([[taker]])
        seen = {giver, taker}
        while ways:
            way = ways.popleft()
            if self._step(way[-1], giver, now):
                return way
            if len(way) + 1 < self._parameters["people"]:
                for person in sorted(self._given.get(way[-1]) or ()):
                    if person not in seen and self._step(way[-1], person, now):
                        seen.add(person)
                        ways.append([*way, person])
        return None


def _steps(body: object) -> Iterator[tuple[str, str, str]]:
    """Yield giver, taker and sort of the authority that an event gives."""
    match body:
        case decisions.BudgetGranted() if body.holder.startswith("agent:"):
            yield body.granted_by, body.holder.removeprefix("agent:"), _MONEY
        case decisions.BudgetTransferred() if body.direction == "in" and body.holder.startswith("agent:"):
            yield body.granted_by, body.holder.removeprefix("agent:"), _MONEY
        case decisions.EscalationApproved() if body.decided_by is not None:
            yield body.decided_by, body.agent_id, _APPROVALS
        case facts.DelegationDeclared():
            yield body.from_employee_id, body.to_employee_id, _WEAK
        case decisions.PolicyPublished():
            for approver in body.approved_by:
                yield approver, body.published_by, _WEAK
        case _:
            pass
