"""R7, refund without purchase: more refunded on an order than was paid, or orders without one where peers' have one."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, ObservedAction
from domain.abuse.settled import VARIATION, Tally
from domain.events import facts
from domain.keyed_state import keyed
from domain.statistics import varied_tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.history import GuardEvent, GuardHistory
    from domain.keyed_state import State

RULE = Rule(
    "R7",
    2,
    "refund without purchase",
    {"kinds": ("refund", "credit"), "days": 35, "actions": 2, "share": 0.9, "p": 3e-4},
)
_LATE_SECONDS = 3 * DAY
"""Purchases may come from another system days later; an order without one is judged after so long."""
_OLD_ORDERS_SECONDS = 21 * DAY
"""In the first weeks of a history many orders are older than it."""
_ENOUGH = 10


class _Since(msgspec.Struct):
    first: float | None = None
    """The time of the earliest purchase."""


class NoPurchase:
    """Payments by order, and refunds compared with them."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._kinds = set(parameters["kinds"])
        self._paid = state.table("R7 paid", int)
        self._since = state.record("R7", _Since)
        self._refunds = state.table("R7 refunds", list[tuple[int, int]])
        self._orders = Tally(state, "R7 orders", parameters["days"])

    def on(self, _history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Learn payments; findings come later, from ``due`` and ``over``."""
        body = event.body
        if isinstance(body, facts.PurchaseCompleted):
            key, first = keyed(body.order_id, body.total.currency), self._since.first
            self._since.first = event.at if first is None else min(first, event.at)
            self._paid.put(key, (self._paid.get(key) or 0) + body.total.minor)
        yield from ()

    def _is_paid(self, order: str, action: ObservedAction) -> bool:
        return self._paid.get(keyed(order, action.currency)) is not None

    def due(self, history: GuardHistory, action: ObservedAction) -> Iterator[RuleFinding]:
        """Yield a finding where more was given back for an order than was paid for it.

        Its chance is that of so many such orders of an honest agent of the team.
        """
        if action.order is None or action.kind not in self._kinds:
            return
        key = keyed(action.order, action.currency)
        refunds = self._refunds.get(key) or []
        refunds.append((action.minor, action.position))
        self._refunds.put(key, refunds)
        total, paid = sum(minor for minor, _ in refunds), self._paid.get(key)
        self._orders.note(action.at, action.agent, action.order)
        if paid is not None and total > paid:
            given, was = money(total, action.currency), money(paid, action.currency)
            text = f"{given} were given back for order {action.order}, for which {was} were paid"
            evidence = [position for _, position in refunds]
            self._orders.note(action.at, action.agent, action.order, tuple(evidence))
            p = self._orders.chance(action.agent, history.mates(action.agent))
            yield RULE.finding((f"agent:{action.agent}",), f"above {action.order}", text, evidence, p)

    def over(self, history: GuardHistory, end: float) -> tuple[list[RuleFinding], int]:
        """Return findings by a beta-binomial tail: so many of the agent's orders without a purchase, at peers' rate.

        Purchases cover a unit's orders where at least ``share`` of the others' orders have one; a unit whose source
        records none, or whose orders are older than the history, is not judged. The rate is that of the other members,
        drawn towards all covered units.
        """
        if self._since.first is None:
            return [], 0
        start, until = end - self._parameters["days"] * DAY, end - _LATE_SECONDS
        start = max(start, self._since.first + _OLD_ORDERS_SECONDS)
        orders = defaultdict[str, dict[str, list[ObservedAction]]](lambda: defaultdict(list))
        for action in history.actions:
            if action.order is not None and action.kind in self._kinds and start <= action.at < until:
                orders[action.agent][action.order].append(action)
        known = {
            agent: sum(self._is_paid(order, some[0]) for order, some in named.items())
            for agent, named in orders.items()
        }
        members = defaultdict[str, list[str]](list)
        for agent in orders:
            members[history.unit(agent)].append(agent)
        sums = {
            unit: (sum(known[agent] for agent in agents), sum(len(orders[agent]) for agent in agents))
            for unit, agents in members.items()
        }
        covered = [one for one in sums.values() if one[1] >= _ENOUGH and one[0] >= self._parameters["share"] * one[1]]
        missing, total = sum(of - hits for hits, of in covered), sum(of for _, of in covered)
        found: list[RuleFinding] = []
        tests = 0
        for agent, named in orders.items():
            unknown = len(named) - known[agent]
            hits, of = (
                both - mine for both, mine in zip(sums[history.unit(agent)], (known[agent], len(named)), strict=True)
            )
            if unknown < self._parameters["actions"] or of < _ENOUGH or hits < self._parameters["share"] * of:
                continue
            tests += 1
            usual = (missing - unknown + 1) / (max(total - len(named), 0) + 200) if total else 0.02
            share = min((of - hits + 20 * max(usual, 0.002)) / (of + 20), 0.5)
            p = varied_tail(unknown, len(named), share, VARIATION)
            if p < self._parameters["p"]:
                evidence = [
                    action for order, some in named.items() if not self._is_paid(order, some[0]) for action in some
                ]
                given = money(sum(one.minor for one in evidence), evidence[0].currency)
                text = (
                    f"{agent} gave {given} back for {unknown} of {len(named)} orders without a recorded purchase in "
                    f"{self._parameters['days']} days; for peers it is {of - hits} of {of} (chance {p:.1g})"
                )
                positions = [one.position for one in evidence]
                found.append(RULE.finding((f"agent:{agent}",), "unknown", text, positions, p))
        return found, tests
