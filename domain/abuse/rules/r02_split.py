"""R2, split: an amount beyond the limit for one action is given in several."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardEvent, GuardHistory, ObservedAction
from domain.events import decisions

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE = Rule("R2", 1, "split", {"hours": 24, "times": 3, "days": 30})


class Split:
    """A counter of an agent's actions for one order or interaction in a day that together exceed the limit."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._asked: dict[tuple[str, str, str], GuardEvent] = {}
        self._splits: dict[str, dict[str, tuple[float, list[int]]]] = defaultdict(dict)

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding after the answer `escalate`, or at the third split in thirty days."""
        body = event.body
        if isinstance(body, decisions.AuthorityFellShort) and body.outcome == "escalate":
            for asked_for in _matters(body.order_id, body.interaction_id):
                self._asked[body.agent_id, asked_for, body.kind] = event
        matter = action.order_or_interaction if action is not None else None
        if action is None or matter is None or not action.goodwill or not action.limit or action.minor > action.limit:
            return
        since = event.at - self._parameters["hours"] * 3600
        parts = [
            one
            for one in history.by_agent[action.agent]
            if one.at > since
            and one.kind == action.kind
            and one.order_or_interaction == matter
            and one.goodwill
            and one.currency == action.currency
            and one.minor <= (one.limit or 0)
        ]
        total = sum(one.minor for one in parts)
        if len(parts) < 2 or total <= action.limit:  # noqa: PLR2004 - one is no split
            return
        positions = [one.position for one in parts]
        self._splits[action.agent][matter] = event.at, positions
        what = f"{action.agent} gave {money(total, action.currency)} for {matter} in {len(parts)} {action.kind}s"
        limit = money(action.limit, action.currency)
        asked = self._asked.get((action.agent, matter, action.kind))
        if asked is not None and asked.at > since:
            text = f"{what}, each within the limit of {limit}, after the answer was to ask (position {asked.position})"
            yield RULE.finding(
                (f"agent:{action.agent}",), f"asked {matter} {action.kind}", text, [*positions, asked.position]
            )
        recent = {
            where: found
            for where, found in self._splits[action.agent].items()
            if found[0] > event.at - self._parameters["days"] * DAY
        }
        self._splits[action.agent] = recent
        if len(recent) >= self._parameters["times"]:
            days = self._parameters["days"]
            text = f"{what}; {len(recent)} times in {days} days more than the limit of {limit} in parts"
            evidence = [position for _, some in recent.values() for position in some]
            yield RULE.finding((f"agent:{action.agent}",), "times", text, evidence)


def _matters(order: str | None, interaction: str | None) -> list[str]:
    return [
        name
        for name in (f"order {order}" if order else "", f"interaction {interaction}" if interaction else "")
        if name
    ]
