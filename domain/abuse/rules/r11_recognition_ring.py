"""R11, recognition ring: two people give each other most of their points."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardEvent, GuardHistory, ObservedAction
from domain.events import facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.keyed_state import State

RULE = Rule("R11", 3, "recognition ring", {"share": 0.5, "times": 4, "days": 90})


_TO_ONE = 0.4
"""The usual share of an honest person's thanks that go to the colleague they thank most."""
_PRIOR = 20.0
"""The thanks of such people that count beside those of the team."""
_MOST_OF_ONE = 10


class RecognitionRing:
    """A counter of points by giver and receiver."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._given = state.table("R11 points", list[tuple[float, str, int, int]])

    def on(self, history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding where each gives at least half of their points to the other, several times.

        Its chance is that of thanks that all go to the one colleague whom an honest person thanks most. The share of
        such thanks is that of the team's other members, drawn towards the usual one: in a team of three, half of all
        thanks go to one colleague by necessity.
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
            pair = sorted((one, other))
            to_one = self._usual({*history.mates(one), *history.mates(other)} - {one, other}, since)
            p = to_one ** sum(len(positions) for _, positions in ways)
            text = (
                f"{one} gave {ways[0][0]:.0%} of all points to {other} ({len(ways[0][1])} times) and got back "
                f"{ways[1][0]:.0%} ({len(ways[1][1])} times) in {self._parameters['days']} days"
            )
            about = tuple(f"agent:{name}" for name in pair)
            yield RULE.finding(about, "", text, [*ways[0][1], *ways[1][1]], p)

    def _usual(self, mates: set[str], since: float) -> float:
        """Return the share of the mates' thanks that go to the colleague each of them thanks most.

        Each mate counts as at most ``_MOST_OF_ONE`` thanks, so that nobody hides a ring by thanking without end.
        """
        most, thanks = _PRIOR * _TO_ONE, _PRIOR
        for mate in sorted(mates):
            taken = Counter(taker for at, taker, _, _ in self._given.get(mate) or () if at > since)
            weight = min(taken.total(), _MOST_OF_ONE)
            most += weight * max(taken.values(), default=0) / max(taken.total(), 1)
            thanks += weight
        return most / thanks

    def _way(self, giver: str, taker: str, since: float) -> tuple[float, list[int]]:
        given = [gift for gift in self._given.get(giver) or () if gift[0] > since]
        total = sum(points for _, _, points, _ in given)
        mine = [(points, position) for _, receiver, points, position in given if receiver == taker]
        share = sum(points for points, _ in mine) / total if total else 0.0
        return share, [position for _, position in mine]
