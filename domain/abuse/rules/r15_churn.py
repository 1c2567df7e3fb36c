"""R15, churn: actions are taken and reversed again and again, by their agent or a robot, or holds are never settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, REMEMBERED_SECONDS, GuardEvent, GuardHistory, ObservedAction
from domain.abuse.settled import Tally
from domain.events import decisions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.keyed_state import State

RULE = Rule("R15", 5, "churn", {"times": 3, "days": 30, "share": 0.5, "p": 5e-4, "holds": 5, "unsettled": 0.8})

_HABIT = 0.002
"""The least usual share of reversed actions. One honest person may reverse so many, though peers reverse none."""
_SLIP_SECONDS = 3600.0
"""A mistake is mostly put right within an hour."""


class Churn:
    """A counter of reversed actions by agent and by reverser, and of holds by their end."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._seconds = parameters["days"] * DAY
        self._actions = Tally(state, "R15 actions", parameters["days"], least=_HABIT)
        self._slow = Tally(state, "R15 reversed late", parameters["days"], least=_HABIT)
        self._robots = state.table("R15 robots", list[tuple[float, str, str, int]], cached=1_000)
        self._held = state.table("R15 held", tuple[str, int])
        self._ended = state.table("R15 ended", list[tuple[float, bool, list[int]]])

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for a reversal or the end of a hold."""
        body = event.body
        if action is not None:
            for tally in (self._actions, self._slow):
                tally.note(event.at, action.agent, action.action_id)
        match body:
            case decisions.ActionReversed() if body.reversed_by == body.agent_id:
                yield from self._own(history, event, body)
            case decisions.ActionReversed() if body.reversed_by not in history.roles:
                yield from self._robot(history, event, body)
            case decisions.ActionHeld() if body.escalation_id is None and body.amount.minor:
                self._held.put(body.action_id, (body.agent_id, event.position))
            case decisions.ActionSettled():
                yield from self._end(event, body.action_id, settled=body.amount.minor > 0)
            case decisions.ActionVoided():
                yield from self._end(event, body.action_id, settled=False)
            case _:
                pass

    def _own(self, history: GuardHistory, event: GuardEvent, body: decisions.ActionReversed) -> Iterator[RuleFinding]:
        """Yield a finding where one agent took and reversed several actions, far more than mistakes of all explain.

        The chance is that of so many reversals, or so many after more than an hour, among an honest agent's actions
        (``Tally.chance``). A slip is put right at once, so the second of the two tests leaves mistakes out. The smaller
        chance counts twice (Bonferroni).
        """
        agent = body.agent_id
        known = history.actions_of(agent, event.at - REMEMBERED_SECONDS, event.at + DAY)
        taken = next((one for one in known if one.action_id == body.action_id), None)
        proof = event.position, taken.position if taken is not None else body.relates_to
        slow = taken is None or event.at - taken.at > _SLIP_SECONDS
        for tally in (self._actions, self._slow) if slow else (self._actions,):
            tally.note(event.at, agent, body.action_id, proof)
        mates = history.mates(agent)
        p, found, of = min(
            (2 * tally.chance(agent, mates), tally.marked(agent), tally.of(agent))
            for tally in (self._actions, self._slow)
        )
        if len(found) >= self._parameters["times"] and p < self._parameters["p"]:
            text = (
                f"{agent} took and reversed {len(found)} of {of} actions in {self._parameters['days']} days "
                f"(chance {p:.1g})"
            )
            evidence = [position for positions in found.values() for position in positions]
            yield RULE.finding((f"agent:{agent}",), "", text, evidence, p)

    def _robot(self, history: GuardHistory, event: GuardEvent, body: decisions.ActionReversed) -> Iterator[RuleFinding]:
        """Yield a finding where a reverser that is no employee takes back one agent's actions above all.

        At least ``times`` actions in ``days`` days, and ``share`` of the agent's actions or of the reverser's reversals
        among several agents'.
        """
        agent, robot = body.agent_id, body.reversed_by
        since = event.at - self._seconds
        every = [one for one in self._robots.get(robot) or () if one[0] > since]
        every.append((event.at, agent, body.action_id, event.position))
        self._robots.put(robot, every)
        mine = {action_id: position for _, who, action_id, position in every if who == agent}
        taken = history.actions_of(agent, since, event.at + DAY)
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
        held = self._held.get(action_id)
        if held is None:
            return
        self._held.drop(action_id)
        agent, position = held
        ended = [one for one in self._ended.get(agent) or () if one[0] > event.at - self._seconds]
        ended.append((event.at, settled, [position, event.position]))
        self._ended.put(agent, ended)
        unpaid = [one for one in ended if not one[1]]
        if len(unpaid) >= self._parameters["holds"] and len(unpaid) >= self._parameters["unsettled"] * len(ended):
            text = (
                f"{len(unpaid)} of {len(ended)} holds by {agent} that ended in {self._parameters['days']} days were "
                "never settled"
            )
            evidence = [place for _, _, positions in unpaid for place in positions]
            yield RULE.finding((f"agent:{agent}",), "holds", text, evidence)
