"""R15, churn: one agent takes, settles and reverses actions again and again."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardEvent, GuardHistory, ObservedAction
from domain.events import decisions

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE = Rule("R15", 1, "churn", {"times": 3, "days": 30})


class Churn:
    """A counter of actions that their own agent reversed."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._reversed: dict[str, deque[tuple[float, list[int]]]] = defaultdict(deque)

    def on(self, history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding where one agent took and reversed several actions."""
        body = event.body
        if not isinstance(body, decisions.ActionReversed) or body.reversed_by != body.agent_id:
            return
        own = self._reversed[body.agent_id]
        taken = history.by_action.get(body.action_id)
        own.append((event.at, [event.position, taken.position if taken is not None else body.relates_to]))
        while own[0][0] <= event.at - self._parameters["days"] * DAY:
            own.popleft()
        if len(own) >= self._parameters["times"]:
            text = f"{body.agent_id} took and reversed {len(own)} actions in {self._parameters['days']} days"
            evidence = [position for _, positions in own for position in positions]
            yield RULE.finding((f"agent:{body.agent_id}",), "", text, evidence)
