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

    def on(self, world: GuardHistory, seen: GuardEvent, deed: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for many agents and as many orders or reasons, on most of the contacts."""
        if deed is None or deed.group is None or not deed.goodwill:
            return
        since = seen.at - self._parameters["days"] * DAY
        deeds = [one for one in world.by_group.get(deed.group, ()) if one.at > since and one.goodwill]
        agents = {one.agent for one in deeds}
        told = {(one.order or one.interaction, one.reason) for one in deeds}
        orders, reasons = {order for order, _ in told}, {reason for _, reason in told}
        if len(agents) < self._parameters["agents"] or max(len(orders), len(reasons)) < self._parameters["agents"]:
            return
        if len(deeds) < self._parameters["claims"]:
            return  # an honest regular customer may reach three
        contacts = sum(contact.at > since for contact in world.group_contacts.get(deed.group, ()))
        if len(deeds) < self._parameters["share"] * contacts:
            return  # a regular customer: most contacts brought no goodwill
        total = sum(one.minor for one in deeds if one.currency == deed.currency)
        text = (
            f"{deed.group} was given goodwill {len(deeds)} times by {len(agents)} agents in {self._parameters['days']} "
            f"days, {money(total, deed.currency)}, for {len(orders)} orders or matters and {len(reasons)} reasons"
        )
        yield RULE.finding((f"customer:{deed.group}",), "", text, [one.position for one in deeds])
