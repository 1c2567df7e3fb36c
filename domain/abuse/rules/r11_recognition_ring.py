"""R11, recognition ring: two people give each other most of their points."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardEvent, GuardHistory, ObservedAction
from domain.events import facts
from domain.statistics import fisher_both, negative_binomial_tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.keyed_state import State

RULE = Rule("R11", 4, "recognition ring", {"share": 0.5, "times": 4, "days": 90})


_RECENT_SECONDS = 35 * DAY
_PRIOR, _TO_ONE = 3.0, 1.0
"""The people that count beside the team's, and the thanks that they give to the colleague they thank most."""
_ALIKE = 4.0
"""The shape of the gamma distribution of these thanks among honest people: the larger, the less people differ."""
_MOST_OF_ONE = 6


class RecognitionRing:
    """A counter of points by giver and receiver."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._given = state.table("R11 points", list[tuple[float, str, int, int]])

    def on(self, history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding where each gives at least half of their points to the other, several times.

        Its chance is that of so many thanks each way in 35 days, where the other members of both teams show how often
        people thank the colleague they thank most (negative binomial tails, combined by Fisher's method).
        """
        body = event.body
        if not isinstance(body, facts.RecognitionGiven) or body.giver_kind == "customer":
            return
        one, other = body.giver_id, body.receiver_id
        since = event.at - self._parameters["days"] * DAY
        given = [gift for gift in self._given.get(one) or () if gift[0] > since]
        given.append((event.at, other, body.points if body.points is not None else 1, event.position))
        self._given.put(one, given)
        ways = [self._way(giver, taker, since) for giver, taker in ((one, other), (other, one))]
        enough = all(
            len(positions) >= self._parameters["times"] and share >= self._parameters["share"]
            for share, positions in ways
        )
        if one != other and enough:
            pair, recent = sorted((one, other)), event.at - _RECENT_SECONDS
            usual = self._usual({*history.mates(one), *history.mates(other)} - {one, other}, recent)
            p = fisher_both(self._chance(one, other, usual, recent), self._chance(other, one, usual, recent))
            text = (
                f"{one} gave {ways[0][0]:.0%} of all points to {other} ({len(ways[0][1])} times) and got back "
                f"{ways[1][0]:.0%} ({len(ways[1][1])} times) in {self._parameters['days']} days"
            )
            about = tuple(f"agent:{name}" for name in pair)
            yield RULE.finding(about, "", text, [*ways[0][1], *ways[1][1]], p)

    def _usual(self, mates: set[str], since: float) -> float:
        """Return the thanks that the mates give to the colleague each of them thanks most.

        Each mate counts with at most ``_MOST_OF_ONE`` thanks, so that nobody hides a ring by thanking without end.
        """
        most = _PRIOR * _TO_ONE
        for mate in mates:
            taken = Counter(taker for at, taker, _, _ in self._given.get(mate) or () if at > since)
            most += min(max(taken.values(), default=0), _MOST_OF_ONE)
        return most / (len(mates) + _PRIOR)

    def _chance(self, giver: str, taker: str, usual: float, since: float) -> float:
        """Return the chance that an honest person thanks the colleague they thank most at least so many times."""
        number = sum(at > since and receiver == taker for at, receiver, _, _ in self._given.get(giver) or ())
        return negative_binomial_tail(number, _ALIKE, _ALIKE / (_ALIKE + usual))

    def _way(self, giver: str, taker: str, since: float) -> tuple[float, list[int]]:
        given = [gift for gift in self._given.get(giver) or () if gift[0] > since]
        total = sum(points for _, _, points, _ in given)
        mine = [(points, position) for _, receiver, points, position in given if receiver == taker]
        share = sum(points for points, _ in mine) / total if total else 0.0
        return share, [position for _, position in mine]
