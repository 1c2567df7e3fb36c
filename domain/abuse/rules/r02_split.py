"""R2, split: an amount beyond the limit for one action is given in several."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import HOUR, GuardEvent, GuardHistory, ObservedAction
from domain.abuse.settled import ACTIONS, Tally
from domain.events import decisions
from domain.keyed_state import keyed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.settled import SettledHistory
    from domain.keyed_state import State

RULE = Rule(
    "R2",
    4,
    "split",
    {"hours": 24, "times": 3, "days": 30, "wide_hours": 72, "reach": 0.8, "ratio": 3.0, "p": 1e-4},
)


_REGULARS = 1.0
"""The variation of parts over days: some people meet the same customers again."""
_HABIT = 0.001
"""The share of matters in several parts over days that may be one person's habit."""
_MATTERS = 4
"""The least number of such matters. Regular customers bring three of them in a week."""


class _Part(NamedTuple):
    at: float
    minor: int
    position: int


class _Request(NamedTuple):
    """A request that was answered with `escalate`: when, for how much, and the matters that it was for."""

    at: float
    position: int
    minor: int
    currency: str
    matters: frozenset[str]


class Split:
    """A counter of an agent's actions for one order or interaction in a day that together exceed the limit."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._asked = state.table("R2 asked", tuple[float, int])
        self._parts = state.table("R2 parts", list[_Part])
        self._matters = Tally(state, "R2 matters", parameters["days"])

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding after the answer `escalate`, or at the third split in thirty days."""
        body = event.body
        if isinstance(body, decisions.AuthorityFellShort) and body.outcome == "escalate":
            for asked_for in _matters(body.order_id, body.interaction_id):
                self._asked.put(keyed(body.agent_id, asked_for, body.kind), (event.at, event.position))
        matter = action.order_or_interaction if action is not None else None
        if action is None or matter is None or not action.bounded or not action.limit or action.minor > action.limit:
            return
        since = event.at - self._parameters["hours"] * 3600
        key = keyed(action.agent, matter, action.kind, action.currency)
        parts = [one for one in self._parts.get(key) or () if one.at > since]
        parts.append(_Part(action.at, action.minor, action.position))
        self._parts.put(key, parts)
        total = sum(one.minor for one in parts)
        positions = [one.position for one in parts]
        is_split = len(parts) > 1 and total > action.limit
        self._matters.note(event.at, action.agent, matter, tuple(positions) if is_split else ())
        if not is_split:
            return
        what = f"{action.agent} gave {money(total, action.currency)} for {matter} in {len(parts)} {action.kind}s"
        limit = money(action.limit, action.currency)
        asked, mates = self._asked.get(keyed(action.agent, matter, action.kind)), history.mates(action.agent)
        p = self._matters.chance(action.agent, mates)
        if asked is not None and asked[0] > since:
            text = f"{what}, each within the limit of {limit}, after the answer was to ask (position {asked[1]})"
            proof = [*positions, asked[1]]
            yield RULE.finding((f"agent:{action.agent}",), f"asked {matter} {action.kind}", text, proof, p)
        found, ratio = self._matters.marked(action.agent), self._parameters["ratio"]
        if len(found) >= self._parameters["times"] and self._matters.stands_out(action.agent, ratio, alone=True):
            days, (others, of_others) = self._parameters["days"], self._matters.others(action.agent)
            text = (
                f"{what}; in {len(found)} of {self._matters.of(action.agent)} matters in {days} days more than the "
                f"limit of {limit} in parts; of the others' {of_others} it is {others} (chance {p:.1g})"
            )
            evidence = [position for some in found.values() for position in some]
            yield RULE.finding((f"agent:{action.agent}",), "times", text, evidence, p)


def _matters(order: str | None, interaction: str | None) -> list[str]:
    return [
        name
        for name in (f"order {order}" if order else "", f"interaction {interaction}" if interaction else "")
        if name
    ]


class WideSplit:
    """A counter of parts of several kinds, or over several days, for one customer, order or interaction.

    Parts are an agent's actions within ``wide_hours`` for one matter (a customer's other orders and reasons are
    other matters), each within its limit, together above the highest
    of their limits. They prove a split after the answer `escalate`, if they reach ``reach`` of the amount that was
    asked. Without such an answer, four matters in ``days`` days do, if their share among the agent's matters is
    at least ``ratio`` times the others' share, and its tail at the share of the agent's team is below ``p``, among all
    matters and among those with several parts: a refund with a credit may be the custom, and an account manager meets
    the same customers again.
    """

    takes: ClassVar[tuple[type, ...]] = (*ACTIONS, decisions.AuthorityFellShort)

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._given = state.table("R2 wide parts", list[ObservedAction])
        self._asked = state.table("R2 wide asked", list[_Request])
        self._matters = Tally(state, "R2 wide matters", parameters["days"], _REGULARS, _HABIT)
        self._again = Tally(state, "R2 wide matters again", parameters["days"], _REGULARS, _HABIT)

    def on(self, settled: SettledHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for the part that completes a split."""
        body, since = event.body, event.at - self._parameters["wide_hours"] * HOUR
        if isinstance(body, decisions.AuthorityFellShort) and body.outcome == "escalate" and not body.preview:
            matters = _places(body.order_id, body.interaction_id, None) or _places(None, None, body.customer_id)
            asked = [one for one in self._asked.get(body.agent_id) or () if one.at > since]
            asked.append(_Request(event.at, event.position, body.amount.minor, body.amount.currency, matters))
            self._asked.put(body.agent_id, asked)
        if action is None or not action.bounded or not action.limit or not 0 < action.minor <= action.limit:
            return
        mine, found = _places_of(action), {action.position: action}
        for place in mine:
            key = keyed(action.agent, place, action.currency)
            given = [one for one in self._given.get(key) or () if one.at > since]
            found.update((one.position, one) for one in given if _is_one_matter(one, action, mine))
            given.append(action)
            self._given.put(key, given)
        parts = sorted(found.values(), key=lambda one: (one.at, one.position))
        matter = f"customer {action.customer}" if action.customer else action.order_or_interaction or ""
        split = len(parts) > 1 and sum(one.minor for one in parts) > max(one.limit or 0 for one in parts)
        known = self._is_quick(parts)
        proof = tuple(one.position for one in parts) if split and not known else ()
        self._matters.note(event.at, action.agent, matter, proof)
        if len(parts) > 1 and not known:
            self._again.note(event.at, action.agent, matter, proof)
        if proof:
            mates = settled.mates(action.agent)
            p = max(tally.chance(action.agent, mates) for tally in (self._matters, self._again))
            yield from self._after_asking(action, parts, matter, since, p)
            yield from self._often(action, p)

    def _is_quick(self, parts: list[ObservedAction]) -> bool:
        """Return whether the parts are of one kind and within ``hours``: the other half of this rule counts those."""
        quick = parts[-1].at - parts[0].at < self._parameters["hours"] * HOUR
        return quick and len({(one.kind, one.order_or_interaction) for one in parts}) == 1

    def _after_asking(
        self, action: ObservedAction, parts: list[ObservedAction], matter: str, since: float, p: float
    ) -> Iterator[RuleFinding]:
        for request in self._asked.get(action.agent) or ():
            if request.at <= since:
                continue
            later = [one for one in parts if one.at >= request.at and request.matters & _places_of(one)]
            total = sum(one.minor for one in later)
            if len(later) < 2 or request.currency != action.currency:  # noqa: PLR2004 - one is no split
                continue
            if total >= self._parameters["reach"] * request.minor:
                kinds = " and ".join(sorted({one.kind for one in later}))
                text = (
                    f"{action.agent} gave {money(total, action.currency)} for {matter} in {len(later)} parts "
                    f"({kinds}), after the answer to {money(request.minor, action.currency)} was to ask (position "
                    f"{request.position})"
                )
                evidence = [*(one.position for one in later), request.position]
                yield RULE.finding((f"agent:{action.agent}",), f"parts {matter}", text, evidence, p)

    def _often(self, action: ObservedAction, p: float) -> Iterator[RuleFinding]:
        agent, days = action.agent, self._parameters["days"]
        found = self._matters.marked(agent)
        if len(found) < max(_MATTERS, self._parameters["times"]) or not self._matters.stands_out(
            agent, self._parameters["ratio"]
        ):
            return
        if p < self._parameters["p"]:
            others, of_others = self._matters.others(agent)
            text = (
                f"{agent} gave more than the limit in parts of other kinds or on other days in {len(found)} of "
                f"{self._matters.of(agent)} matters in {days} days; of the others' {of_others} it is {others} "
                f"(chance at the team's share {p:.1g})"
            )
            evidence = [position for proof in found.values() for position in proof]
            yield RULE.finding((f"agent:{agent}",), "parts often", text, evidence, p)


def _is_one_matter(one: ObservedAction, other: ObservedAction, places: frozenset[str]) -> bool:
    """Return whether two actions may be parts of one matter: a customer's other orders and reasons are other ones."""
    if one.order and other.order and one.order != other.order and one.interaction != other.interaction:
        return False
    common = places & _places_of(one)
    return bool(common) and (one.reason == other.reason or any(not name.startswith("customer ") for name in common))


def _places(order: str | None, interaction: str | None, customer: str | None) -> frozenset[str]:
    customers = (f"customer {customer}",) if customer else ()
    return frozenset((*_matters(order, interaction), *customers))


def _places_of(action: ObservedAction) -> frozenset[str]:
    return _places(action.order, action.interaction, action.customer)
