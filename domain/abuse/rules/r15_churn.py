"""R15, churn: actions are taken and reversed again and again, by their agent or a robot, or holds are never settled."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardEvent, GuardHistory, ObservedAction
from domain.events import decisions
from domain.statistics import binomial_tail

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE = Rule("R15", 3, "churn", {"times": 3, "days": 30, "share": 0.5, "p": 5e-4, "holds": 5, "unsettled": 0.8})

_PRIOR = 100
"""Others' actions that a young history is taken to have."""


class Churn:
    """A counter of reversed actions by agent and by reverser, and of holds by their end."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._seconds = parameters["days"] * DAY
        self._reversed: dict[str, deque[tuple[float, list[int]]]] = defaultdict(deque)
        self._robots: dict[str, deque[tuple[float, str, str, int]]] = defaultdict(deque)
        self._actions = self._own_reversals = 0
        self._held: dict[str, tuple[str, int]] = {}
        self._ended: dict[str, deque[tuple[float, bool, list[int]]]] = defaultdict(deque)

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for a reversal or the end of a hold."""
        body = event.body
        self._actions += action is not None
        match body:
            case decisions.ActionReversed() if body.reversed_by == body.agent_id:
                yield from self._own(history, event, body)
            case decisions.ActionReversed() if body.reversed_by not in history.roles:
                yield from self._robot(history, event, body)
            case decisions.ActionHeld() if body.escalation_id is None and body.amount.minor:
                self._held[body.action_id] = body.agent_id, event.position
            case decisions.ActionSettled():
                yield from self._end(event, body.action_id, settled=body.amount.minor > 0)
            case decisions.ActionVoided():
                yield from self._end(event, body.action_id, settled=False)
            case _:
                pass

    def _own(self, history: GuardHistory, event: GuardEvent, body: decisions.ActionReversed) -> Iterator[RuleFinding]:
        """Yield a finding where one agent took and reversed several actions, far more than mistakes of all explain.

        Binomial tail: so many of the agent's actions in ``days`` days, at all others' share since the beginning.
        """
        self._own_reversals += 1
        own = self._reversed[body.agent_id]
        taken = history.by_action.get(body.action_id)
        own.append((event.at, [event.position, taken.position if taken is not None else body.relates_to]))
        while own[0][0] <= event.at - self._seconds:
            own.popleft()
        since = event.at - self._seconds
        actions = max(sum(one.at > since for one in history.by_agent.get(body.agent_id, ())), len(own))
        usual = (self._own_reversals - len(own) + 1) / (max(self._actions - actions, 0) + _PRIOR)
        if len(own) >= self._parameters["times"] and binomial_tail(len(own), actions, usual) < self._parameters["p"]:
            text = (
                f"{body.agent_id} took and reversed {len(own)} of {actions} actions in {self._parameters['days']} days"
            )
            evidence = [position for _, positions in own for position in positions]
            yield RULE.finding((f"agent:{body.agent_id}",), "", text, evidence)

    def _robot(self, history: GuardHistory, event: GuardEvent, body: decisions.ActionReversed) -> Iterator[RuleFinding]:
        """Yield a finding where a reverser that is no employee takes back one agent's actions above all.

        At least ``times`` actions in ``days`` days, and ``share`` of the agent's actions or of the reverser's reversals
        among several agents'.
        """
        agent, robot = body.agent_id, body.reversed_by
        every = self._robots[robot]
        every.append((event.at, agent, body.action_id, event.position))
        while every[0][0] <= event.at - self._seconds:
            every.popleft()
        mine = {action_id: position for _, who, action_id, position in every if who == agent}
        taken = [one for one in history.by_agent.get(agent, ()) if one.at > event.at - self._seconds]
        reversed_ids = {action_id for _, _, action_id, _ in every}
        own_share = len(mine) / max(len(taken), 1)
        share = len(mine) / len(reversed_ids)
        several = len({who for _, who, _, _ in every}) > 1
        least = self._parameters["share"]
        if len(mine) >= self._parameters["times"] and (own_share >= least or (several and share >= least)):
            text = (
                f"{robot}, which is no employee, reversed {len(mine)} of {len(taken)} actions of {agent} in "
                f"{self._parameters['days']} days; of its {len(reversed_ids)} reversals, {share:.0%} are this agent's"
            )
            positions = {one.action_id: one.position for one in taken}
            evidence = [*mine.values(), *(positions[name] for name in mine if name in positions)]
            yield RULE.finding((f"agent:{agent}",), f"reversed by {robot}", text, evidence)

    def _end(self, event: GuardEvent, action_id: str, *, settled: bool) -> Iterator[RuleFinding]:
        """Yield a finding where most of an agent's holds, on several days, ended without a payment."""
        held = self._held.pop(action_id, None)
        if held is None:
            return
        agent, position = held
        ended = self._ended[agent]
        ended.append((event.at, settled, [position, event.position]))
        while ended[0][0] <= event.at - self._seconds:
            ended.popleft()
        unpaid = [one for one in ended if not one[1]]
        if len(unpaid) >= self._parameters["holds"] and len(unpaid) >= self._parameters["unsettled"] * len(ended):
            text = (
                f"{len(unpaid)} of {len(ended)} holds by {agent} that ended in {self._parameters['days']} days were "
                "never settled"
            )
            evidence = [place for _, _, positions in unpaid for place in positions]
            yield RULE.finding((f"agent:{agent}",), "holds", text, evidence)
