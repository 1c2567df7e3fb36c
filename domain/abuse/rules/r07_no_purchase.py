"""R7, refund without purchase: more refunded on an order than was paid, or on an order that is not recorded."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.events import facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction

RULE = Rule("R7", 1, "refund without purchase", {"minutes": 15, "kinds": ("refund", "credit")})


class NoPurchase:
    """Payments by order, and refunds that wait for late facts before they are judged."""

    def __init__(self, parameters: Parameters) -> None:
        self._kinds = set(parameters["kinds"])
        self._paid: dict[str, dict[str, int]] = defaultdict(dict)
        self._first: float | None = None
        self._refunds: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)

    def on(self, _history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Learn payments; findings come later, from ``due``."""
        body = event.body
        if isinstance(body, facts.PurchaseCompleted):
            paid = self._paid[body.total.currency]
            paid[body.order_id] = paid.get(body.order_id, 0) + body.total.minor
            self._first = event.at if self._first is None else min(self._first, event.at)
        yield from ()

    def due(self, _history: GuardHistory, action: ObservedAction) -> Iterator[RuleFinding]:
        """Yield a finding only for an order that history covers, i.e. after the first recorded purchase."""
        if action.order is None or action.kind not in self._kinds or self._first is None or action.at < self._first:
            return
        refunds = self._refunds[action.order, action.currency]
        refunds.append((action.minor, action.position))
        total, evidence = sum(minor for minor, _ in refunds), [position for _, position in refunds]
        about = (f"agent:{action.agent}",)
        if not any(action.order in paid for paid in self._paid.values()):
            given = money(action.minor, action.currency)
            text = f"{action.agent} gave {given} back for order {action.order}, which is not recorded"
            yield RULE.finding(about, f"unknown {action.order}", text, [action.position])
        elif total > (paid := self._paid[action.currency].get(action.order, 0)):
            given, was = money(total, action.currency), money(paid, action.currency)
            text = f"{given} were given back for order {action.order}, for which {was} were paid"
            yield RULE.finding(about, f"above {action.order}", text, evidence)
