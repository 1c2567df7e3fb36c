"""Consistency of goodwill: funnel limits of groups, with the textbook's figures."""

import numpy as np

from domain.analytics.consistency import GivenGroup, HandledMatters, consistency
from domain.analytics.labels import Labels


def matters(groups: dict[str, tuple[int, int]]) -> HandledMatters:
    """Return matters of teams; of each team's ``n`` matters the first ``k`` got 5.00."""
    teams = [team for team, (_, n) in groups.items() for _ in range(n)]
    given = [number < k for k, n in groups.values() for number in range(n)]
    gifts = sum(given)
    return HandledMatters(
        channel=Labels.of(["phone"] * len(teams), ""),
        team=Labels.of(teams, ""),
        reason=Labels.of(["late"] * len(teams), ""),
        matter=np.flatnonzero(given),
        kind=Labels.of(["refund"] * gifts, ""),
        currency=Labels.of(["GBP"] * gifts, ""),
        minor=np.full(gifts, 500),
    )


def share_of(group: GivenGroup) -> float:
    return group["given"]["share"] or 0.0


def test_groups_that_differ_by_chance_get_binomial_limits() -> None:
    found = {one["what"]: one for one in consistency(matters({"A": (20, 100), "B": (22, 100), "C": (18, 100)}))}
    assert found.keys() == {"any", "reason", "kind", "band"}
    whole = found["any"]
    assert (whole["by"], whole["dispersion"], whole["given"]["share"]) == ("team", 1.0, 0.2)
    (first, *_) = whole["groups"]
    low, high = first["limits"]  # 0.2 and 1.96 times the square root of 0.2 * 0.8 / 100
    assert (round(low, 4), round(high, 4), first["score"]) == (0.1216, 0.2784, 0.0)
    low, high = first["wide_limits"]
    assert (round(low, 4), round(high, 4)) == (0.0764, 0.3236)


def test_groups_that_all_differ_widen_the_limits() -> None:
    """Twelve teams: one extreme score on each side is pulled in to its neighbour before the mean of squares."""
    groups = {f"T-{number:02}": (30 + 10 * (number % 2) * 2, 100) for number in range(10)}
    found = consistency(matters(groups | {"low": (0, 100), "high": (80, 100)}))[0]
    common = found["given"]["share"]
    assert common is not None
    error = (common * (1 - common) / 100) ** 0.5
    scores = sorted((k / 100 - common) / error for k, _ in [*groups.values(), (0, 100), (80, 100)])
    pulled = [scores[1], *scores[1:-1], scores[-2]]
    assert abs(found["dispersion"] - sum(score**2 for score in pulled) / 12) < 1e-12
    outside = {one["group"] for one in found["groups"] if not one["limits"][0] <= share_of(one) <= one["limits"][1]}
    assert outside == {"high", "low"}  # the binomial limits would accuse all twelve
    assert {abs(round(score, 2)) for score in scores[1:-1]} == {2.04}


def test_small_groups_and_a_single_group_are_not_compared() -> None:
    assert consistency(matters({"A": (10, 30), "B": (5, 29)})) == []
    assert consistency(matters({"A": (0, 100), "B": (0, 100)})) == []
    assert consistency(matters({"A": (10, 30), "B": (5, 30)}))[0]["given"]["k"] == 15
