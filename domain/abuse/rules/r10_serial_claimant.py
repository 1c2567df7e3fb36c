"""R10, serial claimant: a customer's group gets goodwill from many agents, each for another order or reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardEvent, GuardHistory, ObservedAction

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE = Rule("R10", 1, "serial claimant", {"agents": 3, "claims": 4, "days": 30, "share": 0.75})


class SerialClaimant:
    """A counter of goodwill by customer group."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for many agents and as many orders or reasons, on most of the contacts."""
        if action is None or action.group is None or not action.goodwill:
            return
        since = event.at - self._parameters["days"] * DAY
        actions = [one for one in history.by_group.get(action.group, ()) if one.at > since and one.goodwill]
        agents = {one.agent for one in actions}
        told = {(one.order or one.interaction, one.reason) for one in actions}
        orders, reasons = {order for order, _ in told}, {reason for _, reason in told}
        if len(agents) < self._parameters["agents"] or max(len(orders), len(reasons)) < self._parameters["agents"]:
            return
        if len(actions) < self._parameters["claims"]:
            return  # an honest regular customer may reach three
        contacts = sum(contact.at > since for contact in history.group_contacts.get(action.group, ()))
        if len(actions) < self._parameters["share"] * contacts:
            return  # a regular customer: most contacts brought no goodwill
        total = sum(one.minor for one in actions if one.currency == action.currency)
        text = (
            f"{action.group} was given goodwill {len(actions)} times by {len(agents)} agents "
            f"in {self._parameters['days']} days, {money(total, action.currency)}, "
            f"for {len(orders)} orders or matters and {len(reasons)} reasons"
        )
        yield RULE.finding((f"customer:{action.group}",), "", text, [one.position for one in actions])
