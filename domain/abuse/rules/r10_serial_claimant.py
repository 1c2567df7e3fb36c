"""R10, serial claimant: many agents give to one customer's group, on more contacts than their rates explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, FREQUENT, GuardEvent, GuardHistory, ObservedAction, people_at_work
from domain.statistics import Varied, varied_tail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from domain.keyed_state import State

RULE = Rule("R10", 3, "serial claimant", {"agents": 3, "claims": 6, "days": 30, "times": 2.2, "p": 1e-3})
_VARIATION, _WEIGHT = 0.2, 100.0
"""The usual coefficient of variation of customers' shares of contacts that bring goodwill, and its weight."""
_SAMPLE = 300
"""The most regular customers that show how customers differ."""
_FEW = 0.2
"""The least number of candidates for each person that is counted."""
_UNKNOWN_RATE = 0.2
"""The goodwill of a contact before the first night, when no rates are known."""


class _Candidates(msgspec.Struct):
    night: float | None = None
    """The night whose rates were the last ones when the candidates were counted."""
    number: float = 1.0
    variation: float = _VARIATION


class SerialClaimant:
    """A counter of goodwill by customer group."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._candidates = state.record("R10", _Candidates)

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding by a beta-binomial tail: goodwill on so many of the group's contacts, for many causes.

        Each contact's chance is the rate of peers on that day times the agent's own ratio to peers, as known last night
        (``domain.abuse.peers``). So a regular customer with the usual share of goodwill is none, and a recall week is
        no reason. Customers differ as the regular ones do. Candidates have ``claims`` gifts by ``agents`` agents.
        Customers are many, and the prior chance of misuse is one for each person at work, so the tail is multiplied by
        the number of customers with ``claims`` contacts for each of these (Bonferroni).
        """
        if action is None or action.group is None or not action.goodwill:
            return
        since = event.at - self._parameters["days"] * DAY
        given = history.given_to(action.group)
        if len(given) < self._parameters["claims"]:
            return
        actions = _matters(one for one in given if one.at > since)
        agents = {one.agent for one in actions}
        told = max(len({one.order or one.interaction for one in actions}), len({one.reason for one in actions}))
        if len(actions) < self._parameters["claims"] or min(len(agents), told) < self._parameters["agents"]:
            return
        chances = self._chances(history, action.group, actions, since)
        contacts = max(len(chances), len(actions))
        share = min(max(sum(chances) / len(chances), 0.05), 0.9)
        number, variation = self._customers(history, event.at)
        p = varied_tail(len(actions), contacts, share, variation) * number
        if p < self._parameters["p"] and len(actions) >= self._parameters["times"] * share * contacts:
            total = sum(one.minor for one in actions if one.currency == action.currency)
            text = (
                f"{action.group} was given goodwill {len(actions)} times in {contacts} contacts by {len(agents)} "
                f"agents in {self._parameters['days']} days ({money(total, action.currency)}) for {told} orders or "
                f"reasons; at the agents' rates it would be {share * contacts:.1f} (chance {p:.1g})"
            )
            yield RULE.finding((f"customer:{action.group}",), "", text, [one.position for one in actions], p)

    def _customers(self, history: GuardHistory, at: float) -> tuple[float, float]:
        """Return the number of customers with enough contacts for each person at work, and how customers differ."""
        rates, known = history.last_rates, self._candidates
        if rates is not None and rates.end != known.night:
            assert self._parameters["claims"] >= FREQUENT, "the history lists customers with so many contacts"
            since, least = at - self._parameters["days"] * DAY, self._parameters["claims"]
            customers = sum(
                len(met) >= least and met[-least].at > since for met in map(history.contacts_of, history.regulars)
            )
            known.night, known.number = rates.end, max(customers / max(people_at_work(history), 1), _FEW)
            regulars, varied = sorted(history.regulars), Varied(_VARIATION, _WEIGHT)
            for group in regulars[:: len(regulars) // _SAMPLE + 1]:
                gifts = _matters(history.given_to(group))
                chances = self._chances(history, group, gifts, 0.0)
                contacts = max(len(chances), len(gifts))
                varied.add(len(gifts), contacts, min(max(sum(chances) / len(chances), 0.05), 0.9))
            known.variation = varied.variation
        return known.number, known.variation

    @staticmethod
    def _chances(history: GuardHistory, group: str, actions: list[ObservedAction], since: float) -> list[float]:
        """Return the chance of goodwill of each contact of the group, and of each gift without a contact."""
        met = [(one.agent, one.at) for one in history.contacts_of(group) if one.at > since]
        met += [(one.agent, one.at) for one in actions if one.interaction is None]
        rates = history.last_rates
        if rates is None:
            return [_UNKNOWN_RATE for _ in met]
        return [
            rates.rate(agent, history.unit(agent), int(at // DAY)) * rates.whole(agent).ratio() for agent, at in met
        ]


def _matters(actions: Iterable[ObservedAction]) -> list[ObservedAction]:
    """Return the last goodwill of each interaction: a mistake put right, or a second thing, is no second claim."""
    return [*{one.interaction or one.action_id: one for one in actions if one.goodwill}.values()]
