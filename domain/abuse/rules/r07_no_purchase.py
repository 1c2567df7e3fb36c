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

    def on(self, _world: GuardHistory, seen: GuardEvent, _deed: ObservedAction | None) -> Iterator[RuleFinding]:
        """Learn payments; findings come later, from ``due``."""
        body = seen.body
        if isinstance(body, facts.PurchaseCompleted):
            paid = self._paid[body.total.currency]
            paid[body.order_id] = paid.get(body.order_id, 0) + body.total.minor
            self._first = seen.at if self._first is None else min(self._first, seen.at)
        yield from ()

    def due(self, _world: GuardHistory, deed: ObservedAction) -> Iterator[RuleFinding]:
        """Yield a finding only for an order that history covers, i.e. after the first recorded purchase."""
        if deed.order is None or deed.kind not in self._kinds or self._first is None or deed.at < self._first:
            return
        refunds = self._refunds[deed.order, deed.currency]
        refunds.append((deed.minor, deed.position))
        total, evidence = sum(minor for minor, _ in refunds), [position for _, position in refunds]
        about = (f"agent:{deed.agent}",)
        if not any(deed.order in paid for paid in self._paid.values()):
            given = money(deed.minor, deed.currency)
            text = f"{deed.agent} gave {given} back for order {deed.order}, which is not recorded"
            yield RULE.finding(about, f"unknown {deed.order}", text, [deed.position])
        elif total > (paid := self._paid[deed.currency].get(deed.order, 0)):
            given, was = money(total, deed.currency), money(paid, deed.currency)
            text = f"{given} were given back for order {deed.order}, for which {was} were paid"
            yield RULE.finding(about, f"above {deed.order}", text, evidence)
