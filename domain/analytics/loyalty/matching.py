"""Matching: for each treated customer, the most similar untreated one, by history before the treatment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from domain.analytics.loyalty.estimators import SEED, Pairs
from domain.analytics.loyalty.purchases import DAY, NEVER, Moments

if TYPE_CHECKING:
    from domain.analytics.loyalty.purchases import Floats, History, Ints

COVARIATES = ("orders", "recency", "spend", "tenure", "date")
"""Covariates known before t0. Reason and channel must be equal, where they are recorded."""
WITHIN_DAYS = 30
"""The most days between the problems of a pair."""
_CALIPER = 1.0
"""The largest distance of a pair, in standard deviations over all covariates together."""
_LOOKED_AT, _LOOKED_AT_IN_ALL = 300, 1_000_000
"""The fewest candidates for each treated customer, and the most for all; drawn at random where there are more."""
_SPEND_DAYS = 180


def covariates(history: History, of: Moments) -> Floats:
    """Return a row for each moment: log orders, log recency (days), log spend, log tenure (days), date (days)."""
    past = history.past(of, _SPEND_DAYS)
    columns = (
        np.log1p(past.events),
        np.log1p(past.days_since_last),
        np.log1p(np.maximum(past.amount, 0)),
        np.log1p(past.days_since_first),
        of.at / DAY,
    )
    return np.column_stack(columns)


class Untreated:
    """Moments of customers not helped by then: their problems, or any moment if ``problems`` is ``None``."""

    def __init__(
        self, history: History, treated_from: Ints, problems: Moments | None, stratum: Ints | None, known_from: Ints
    ) -> None:
        """Index the candidates.

        ``treated_from`` is, by customer, the time of the first treatment; ``known_from`` that of the first purchase.
        """
        self._history = history
        self._known = covariates(history, problems) if problems is not None else None
        self._treated_from = treated_from
        self._problems = problems
        self._known_from = known_from
        self._by_stratum: dict[int, Ints] = {}
        if problems is not None and stratum is not None:
            order = np.lexsort((problems.at, stratum))
            bounds = np.flatnonzero(np.diff(stratum[order])) + 1
            for some in np.split(order, bounds):
                if some.size:
                    self._by_stratum[int(stratum[some[0]])] = some
        self._everybody = np.flatnonzero(known_from < NEVER)

    def around(self, at: int, stratum: int, looked_at: int, rng: np.random.Generator) -> tuple[Moments, Floats]:
        """Return candidates for a customer treated at a moment, and their covariates."""
        if self._problems is None or self._known is None:
            drawn = self._everybody
            if drawn.size > looked_at:
                drawn = drawn[rng.integers(0, drawn.size, looked_at)]
            fit = drawn[(self._treated_from[drawn] > at) & (self._known_from[drawn] < at)]
            found = Moments(fit, np.full(fit.size, at))
            return found, covariates(self._history, found)
        places = self._by_stratum.get(stratum, np.empty(0, np.int64))
        times = self._problems.at[places]
        low, high = np.searchsorted(times, (at - WITHIN_DAYS * DAY, at + WITHIN_DAYS * DAY))
        near = places[low:high]
        if near.size > looked_at:
            near = near[rng.integers(0, near.size, looked_at)]
        return self._problems.some(near), self._known[near]


def match(history: History, treated: Moments, stratum: Ints, untreated: Untreated) -> tuple[Pairs, Moments, Ints]:
    """Return pairs of treated and untreated customers, nearest in standardised covariates; each control is used once.

    Two arrays follow: a random untreated customer at the same time for each treated one, not chosen for similarity, and
    the index of that treated customer.
    """
    rng = np.random.default_rng(SEED)
    ours = covariates(history, treated)
    scale = np.where(np.ptp(ours, axis=0) > 0, ours.std(axis=0), 1.0) if ours.size else np.ones(len(COVARIATES))
    used = set[int]()
    used_at_random = set[int]()
    chosen: list[tuple[int, int, int]] = []
    at_random: list[tuple[int, int, int]] = []
    looked_at = max(_LOOKED_AT, _LOOKED_AT_IN_ALL // max(treated.at.size, 1))
    for place in rng.permutation(treated.at.size):
        candidates, known = untreated.around(int(treated.at[place]), int(stratum[place]), looked_at, rng)
        other = candidates.customer != treated.customer[place]
        candidates, known = candidates.some(other), known[other]
        if candidates.at.size == 0:
            continue
        for somebody in rng.permutation(candidates.at.size):
            one = int(candidates.customer[somebody])
            if one not in used_at_random:
                used_at_random.add(one)
                at_random.append((place, one, int(candidates.at[somebody])))
                break
        apart = np.sqrt((((known - ours[place]) / scale) ** 2).sum(axis=1))
        for nearest in np.argsort(apart, kind="stable"):
            one = int(candidates.customer[nearest])
            if apart[nearest] > _CALIPER:
                break
            if one not in used:
                used.add(one)
                chosen.append((place, one, int(candidates.at[nearest])))
                break
    pairs = np.array(chosen, np.int64).reshape(-1, 3)
    control = Moments(pairs[:, 1], pairs[:, 2])
    kept = treated.some(pairs[:, 0])
    theirs = covariates(history, control)
    mine = ours[pairs[:, 0]]
    unlike = dict(zip(COVARIATES, ((mine - theirs).mean(axis=0) / scale).tolist() if chosen else [], strict=False))
    found = Pairs(kept, control, pairs[:, 0], unlike, (mine / scale, theirs / scale))
    others = np.array(at_random, np.int64).reshape(-1, 3)
    return found, Moments(others[:, 1], others[:, 2]), others[:, 0]
