"""R16, owed without proof: entitlement or correction that no payment shows as owed, or for one customer repeatedly."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardEvent, ObservedAction
from domain.abuse.settled import ACTIONS, VARIATION, SettledHistory, Tally
from domain.keyed_state import Queue
from domain.statistics import varied_tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.keyed_state import State

RULE = Rule("R16", 4, "owed without proof", {"days": 35, "times": 3, "p": 1e-3, "claims": 4, "share": 0.75})
_CUSTOM, _MOST = 10, 0.3
_LATE_SECONDS, _OLD_ORDERS_SECONDS = 3 * DAY, 21 * DAY
"""As in R7: payments may come days later, and in the first weeks of a history many orders are older than it."""
_OTHER_TEAMS = 10.0
"""The weight of other teams, in entries: one that records no purchases says little about another."""
_PRIOR, _SHARE = 20.0, 0.1
"""The weight, in contacts, and the share of contacts that bring what is owed, before anything else is known."""


class OwedWithoutProof:
    """A counter of actions on another basis than goodwill, by agent, and by agent and customer's group.

    An amount is shown as owed up to the payments for its order, less what was given back for it before. An order's
    payment may come three days later. Three findings:

    - one action above the limit for goodwill and above the amount shown as owed, with nobody's approval;
    - ``times`` unproven actions in ``days`` days, without an order, for an unknown order, or above it, if so many have
      a chance below ``p`` at the team's share (beta-binomial tails over all actions and over amounts owed; the smaller
      one counts twice). A team most of whose amounts owed are unproven records no purchases, and is not judged;
    - ``claims`` actions by one agent for one customer's group in ``days`` days, if these are at least ``share`` of the
      group's actions of this sort, and if so many in the agent's contacts with the group have a chance below ``p``: a
      beta-binomial tail at the share of contacts in which the agent and the team give what is owed, times the number of
      the agent's customers with so many contacts (Bonferroni).
    """

    takes: ClassVar[tuple[type, ...]] = ACTIONS

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._seconds = parameters["days"] * DAY
        self._unproven = Tally(state, "R16 unproven", parameters["days"], mates_prior=_OTHER_TEAMS)
        self._owed = Tally(state, "R16 owed", parameters["days"], mates_prior=_OTHER_TEAMS)
        self._waits = Queue(state, "R16 waits", list[tuple[float, ObservedAction, int]])
        self._of_group = state.table("R16 by customer", list[ObservedAction])

    def on(self, settled: SettledHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield the findings of an action."""
        if action is None or not action.minor:
            return
        while (oldest := self._waits.first()) is not None and oldest[0] <= event.at - _LATE_SECONDS:
            _, waited, given = self._waits.pop_first()
            owed = settled.owed(waited.order, waited.currency, given)
            if waited.minor > (owed or 0):
                yield from self._unshown(settled, event.at, waited, owed)
        self._unproven.note(event.at, action.agent, str(action.position))
        if action.goodwill:
            return
        self._owed.note(event.at, action.agent, str(action.position))
        owed = settled.owed(action.order, action.currency)
        if action.minor > (owed or 0):
            if action.order is None or (action.limit is not None and action.minor > action.limit):
                yield from self._unshown(settled, event.at, action, owed)
            else:
                self._waits.append((event.at, action, settled.given_back(action.order, action.currency)))
        if action.customer is not None:
            yield from self._friend(settled, event, action, action.customer)

    def _unshown(
        self, settled: SettledHistory, at: float, action: ObservedAction, owed: int | None
    ) -> Iterator[RuleFinding]:
        """Yield the findings of an action that no payment has shown as owed in time."""
        agent, key = action.agent, str(action.position)
        first = settled.first_purchase
        covered = first is not None and first + (_OLD_ORDERS_SECONDS if action.order else 0.0) <= action.at
        if covered:
            self._unproven.note(at, agent, key, (action.position,))
        self._owed.note(at, agent, key, (action.position,))
        many = len(self._owed.marked(agent)) >= self._parameters["times"]
        if many or (action.limit is not None and action.minor > action.limit):
            mates = settled.mates(agent)
            p = min(2 * self._unproven.chance(agent, mates), 2 * self._owed.chance(agent, mates), 1.0)
            yield from self._beyond(action, owed, p)
            if covered:
                yield from self._often(action, mates, p)

    def _beyond(self, action: ObservedAction, owed: int | None, p: float) -> Iterator[RuleFinding]:
        taken = not action.reported and not action.approved
        if taken and action.limit is not None and action.minor > action.limit:
            shown = "nothing" if owed is None else money(owed, action.currency)
            text = (
                f"{action.agent} gave {action.basis} of {money(action.minor, action.currency)}, above the limit for "
                f"goodwill of {money(action.limit, action.currency)}; shown as owed: {shown}"
            )
            key = f"beyond {action.order or action.action_id}"
            yield RULE.finding((f"agent:{action.agent}",), key, text, [action.position], p)

    def _often(self, action: ObservedAction, mates: list[str], p: float) -> Iterator[RuleFinding]:
        agent, found = action.agent, self._unproven.marked(action.agent)
        others, of_others = self._unproven.others(agent)
        custom = of_others < _CUSTOM or self._owed.usual(agent, mates) > _MOST
        if len(found) >= self._parameters["times"] and not custom and p < self._parameters["p"]:
            text = (
                f"{len(found)} of {self._unproven.of(agent)} actions by {agent} in {self._parameters['days']} days are "
                f"entitlements or corrections that no payment shows as owed; of the others' {of_others} it is {others} "
                f"(chance {p:.1g})"
            )
            evidence = [position for proof in found.values() for position in proof]
            yield RULE.finding((f"agent:{agent}",), "unproven", text, evidence, p)

    def _friend(
        self, settled: SettledHistory, event: GuardEvent, action: ObservedAction, customer: str
    ) -> Iterator[RuleFinding]:
        since, group = event.at - self._seconds, settled.links.name_of(customer)
        given = [one for one in self._of_group.get(group) or () if one.at > since]
        given.append(action)
        self._of_group.put(group, given)
        mine = [one for one in given if one.agent == action.agent]
        if len(mine) < self._parameters["claims"] or len(mine) < self._parameters["share"] * len(given):
            return
        met = max(settled.contacts(action.agent, customer, since, event.at), len(mine))
        usual = self._usual(settled, action.agent, len(mine), met)
        p = varied_tail(len(mine), met, usual, VARIATION)
        if p >= self._parameters["p"]:
            return
        p *= max(settled.regular_customers(action.agent, self._parameters["claims"]), 1)
        if p < self._parameters["p"]:
            total = sum(one.minor for one in mine if one.currency == action.currency)
            text = (
                f"{action.agent} gave {group} {len(mine)} entitlements or corrections in {self._parameters['days']} "
                f"days, {money(total, action.currency)}, in {met} contacts; others gave {len(given) - len(mine)}; "
                f"usual in so many contacts are {usual * met:.1f} (chance {p:.1g})"
            )
            about = (f"agent:{action.agent}", f"customer:{group}")
            yield RULE.finding(about, "one customer", text, [one.position for one in mine], p)

    def _usual(self, settled: SettledHistory, agent: str, given: int, met: int) -> float:
        """Return the share of an agent's other contacts that bring what is owed, drawn towards the team's share."""
        days = self._parameters["days"]
        mates = [mate for mate in settled.mates(agent) if mate != agent]
        owed = sum(self._owed.of(mate) for mate in mates)
        share = (owed + _PRIOR * _SHARE) / (max(settled.interactions(mates, days), owed) + _PRIOR)
        own = max(self._owed.of(agent) - given, 0)
        contacts = max(settled.interactions([agent], days) - met, own)
        return min((own + _PRIOR * share) / (contacts + _PRIOR), 0.9)
