"""R12, self-raise: a person raises their own authority by a grant, a transfer, a policy or a team's pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import msgspec

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, HOUR
from domain.abuse.settled import ACTIONS, PEOPLE
from domain.events import decisions, facts
from domain.events.administration import AccessRecorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction
    from domain.abuse.settled import SettledHistory
    from domain.keyed_state import State
    from domain.money import Money

RULE = Rule("R12", 2, "self-raise", {"days": 30})


class SelfRaise:
    """A check of grants, transfers and policies; it keeps no state."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        del parameters, state

    def on(self, history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding where giver and beneficiary are the same person."""
        body = event.body
        match body:
            case decisions.BudgetGranted() if body.holder == f"agent:{body.granted_by}":
                word = "granted"
            case decisions.BudgetTransferred() if body.direction == "in" and body.holder == f"agent:{body.granted_by}":
                word = "transferred"
            case decisions.PolicyPublished() if body.break_glass:
                text = f"{body.published_by} published policy version {body.version} past its governance (break-glass)"
                yield RULE.finding((f"agent:{body.published_by}",), f"policy {body.version}", text, [event.position])
                return
            case AccessRecorded() if "break-glass" in body.what:
                text = f"{body.who} used the operator's way past governance: {body.what}"
                yield RULE.finding((f"agent:{body.who}",), f"access {event.position}", text, [event.position])
                return
            case decisions.PolicyPublished():
                yield from self._policy(history, event.position, body)
                return
            case _:
                return
        text = f"{body.granted_by} {word} {money(body.amount.minor, body.amount.currency)} to themselves: {body.reason}"
        yield RULE.finding((f"agent:{body.granted_by}",), body.request_id, text, [event.position])

    def _policy(self, history: GuardHistory, position: int, body: decisions.PolicyPublished) -> Iterator[RuleFinding]:
        """Yield a finding where a policy raises the limits of its publisher's role above those of the policy before."""
        giver, new = body.published_by, history.policies[body.version]
        role, old = history.roles.get(giver), history.policies.replaced_by(new)
        if role is None or old is None or new.policy.mode != "enforced":
            return
        teams, begins = history.teams.get(giver, ()), new.policy.effective_from
        before, after = (rules.limits_for(role, teams, begins) for rules in (old, new))
        raised = [kind for kind, limit in after.items() if kind not in before or _more(limit, before[kind])]
        if raised:
            kinds = ", ".join(raised)
            text = f"{giver}, {role}, published policy version {new.version}, which raises {role}'s {kinds}"
            yield RULE.finding((f"agent:{giver}",), f"policy {new.version}", text, [position])


def _more(now: Money | None, before: Money | None) -> bool:
    return before is not None and (now is None or now.minor > before.minor)


@dataclass
class _Membership:
    """A team that an agent joined: when, the first action after it, and the draws on the team's pool."""

    at: float
    position: int
    first: str | None = None
    drawn: dict[str, int] = field(default_factory=dict)


class _Teams(msgspec.Struct):
    of: dict[str, frozenset[str]] = {}
    joined: dict[tuple[str, str], _Membership] = {}


class BorrowedPool:
    """A check of agents with an empty budget: they join a team, draw on its pool, and leave within ``days``.

    The own budget was used up if the first action after the join drew on the pool.
    """

    takes: ClassVar[tuple[type, ...]] = (*ACTIONS, *PEOPLE, facts.EmployeeLeft, decisions.BudgetDrawn)

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._seconds = parameters["days"] * DAY
        teams = state.record("R12", _Teams)
        self._teams, self._joined = teams.of, teams.joined

    def on(self, _settled: SettledHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding when the agent leaves the team again."""
        body = event.body
        if action is not None and action.bounded and action.minor and not action.reported:
            for team in self._teams.get(action.agent, ()):
                membership = self._joined.get((action.agent, team))
                if membership is not None and membership.first is None:
                    membership.first = action.action_id
        match body:
            case facts.EmployeeJoined():
                self._teams[body.employee_id] = frozenset(body.team_ids)
            case facts.EmployeeChanged():
                yield from self._moved(event, body.employee_id, frozenset(body.team_ids))
            case facts.EmployeeLeft():
                yield from self._moved(event, body.employee_id, frozenset())
            case decisions.BudgetDrawn() if body.direction == "in":
                name = body.holder.removeprefix("agent:"), body.other_holder.removeprefix("team:")
                membership = self._joined.get(name)
                if membership is not None and membership.at > event.at - self._seconds:
                    membership.drawn[body.action_id] = event.position
            case _:
                pass

    def _moved(self, event: GuardEvent, agent: str, now: frozenset[str]) -> Iterator[RuleFinding]:
        before = self._teams.get(agent)
        self._teams[agent] = now
        if before is None:
            return
        for team in sorted(now - before):
            self._joined[agent, team] = _Membership(event.at, event.position)
        for team in sorted(before - now):
            membership = self._joined.pop((agent, team), None)
            if membership is None or membership.at <= event.at - self._seconds:
                continue
            if membership.first in membership.drawn:
                hours = (event.at - membership.at) / HOUR
                text = (
                    f"{agent} joined team {team}, drew on its pool {len(membership.drawn)} times from the first action "
                    f"on, and left it after {hours:.0f} hours"
                )
                evidence = [membership.position, *membership.drawn.values(), event.position]
                yield RULE.finding((f"agent:{agent}",), f"pool {team}", text, evidence)
