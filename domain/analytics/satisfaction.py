"""Satisfaction of customers: CSAT, NPS, CES and reviews, each by its own definition and on its own scale."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import fsum, inf, sqrt
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from domain.analytics.empowerment_gap import Share, share
from domain.statistics import student_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

type Scale = tuple[str, float, float]
"""An instrument, its worst and its best score."""
POSITIVE = 0.75
"""The part of the way from worst to best from which on a customer counts as satisfied, or a review as positive."""
NPS_SCALE = (0, 10)
PROMOTER, DETRACTOR = 9, 6
"""The lowest score of a promoter, and the highest one of a detractor."""
_SHARES = ("csat", "review")
_Z = 1.959963984540054
_ADDED = 0.75


class FeedbackScore(NamedTuple):
    """A customer's score in a survey or review on the scale from ``worst`` to ``best``; the interaction, if known."""

    instrument: str
    score: float
    worst: float
    best: float
    interaction: str | None = None


class Satisfaction(TypedDict):
    """The answers to one instrument on one scale.

    ``mean`` and ``interval`` are on that scale. ``satisfied`` is the share at or beyond ``threshold``, for CSAT and
    reviews. ``points`` are those of the NPS, promoters less detractors in percent. ``response`` is the share of the
    interactions with an answer to the instrument.
    """

    instrument: str
    worst: float
    best: float
    n: int
    mean: float
    interval: list[float] | None
    threshold: float | None
    satisfied: Share | None
    points: float | None
    points_interval: list[float] | None
    response: Share


def satisfaction(answers: Sequence[FeedbackScore], interactions: int) -> list[Satisfaction]:
    """Return the figures by instrument and scale; means have Student's interval on the scale, shares Wilson's."""
    by = defaultdict[Scale, Counter[float]](Counter)
    answered = defaultdict[str, set[str]](set)
    for one in answers:
        by[one.instrument, one.worst, one.best][one.score] += 1
        if one.interaction is not None:
            answered[one.instrument].add(one.interaction)
    return satisfaction_of_counts(by, {name: len(ids) for name, ids in answered.items()}, interactions)


def satisfaction_of_counts(
    counts: Mapping[Scale, Counter[float]], answered: Mapping[str, int], interactions: int
) -> list[Satisfaction]:
    """Return the figures of the number of answers by score, and of interactions with an answer by instrument."""
    found: list[Satisfaction] = []
    for (name, worst, best), scores in sorted(counts.items()):
        threshold = _threshold(worst, best) if name in _SHARES else None
        points = _points(scores) if name == "nps" and (worst, best) == NPS_SCALE else (None, None)
        ends = worst, best, *scores  # a source may report a score beyond its scale
        n = scores.total()
        mean = min(max(_sum(number * score for score, number in scores.items()) / n, min(scores)), max(scores))
        squares = _sum(number * (score - mean) * (score - mean) for score, number in scores.items())
        found.append(
            {
                "instrument": name,
                "worst": worst,
                "best": best,
                "n": n,
                "mean": mean,
                "interval": student_interval(mean, squares, n, min(ends), max(ends)),
                "threshold": threshold,
                "satisfied": None if threshold is None else _satisfied(scores, worst, best, threshold),
                "points": points[0],
                "points_interval": points[1],
                "response": share(answered.get(name, 0), interactions),
            }
        )
    return found


def _sum(values: Iterable[float]) -> float:
    """Return a sum; infinite where it, or a part of it, is beyond the range of a float."""
    try:
        return fsum(values)
    except (OverflowError, ValueError):
        return inf


def _threshold(worst: float, best: float) -> float:
    """Return the score from which on a customer is satisfied: of a scale of two points the better one."""
    if abs(best - worst) == 1:
        return best
    return min(max(worst + POSITIVE * (best - worst), min(worst, best)), max(worst, best))


def _satisfied(scores: Counter[float], worst: float, best: float, threshold: float) -> Share:
    """Return the share of scores at the threshold or better, in the direction of the scale."""
    good = (score >= threshold if best > worst else score <= threshold for score in scores)
    return share(sum(number for is_good, number in zip(good, scores.values(), strict=True) if is_good), scores.total())


def _points(scores: Counter[float]) -> tuple[float, list[float]]:
    """Return promoters less detractors in points, with the adjusted Wald interval (Rocks 2016: 3 answers added).

    The interval stops at -100 and 100: of ten promoters alone it would reach 106.
    """
    n = scores.total()
    promoters = sum(number for score, number in scores.items() if score >= PROMOTER)
    detractors = sum(number for score, number in scores.items() if score <= DETRACTOR)
    p, d = ((count + _ADDED) / (n + 4 * _ADDED) for count in (promoters, detractors))
    reach = _Z * sqrt((p + d - (p - d) ** 2) / (n + 4 * _ADDED))
    return 100 * (promoters - detractors) / n, [max(100 * (p - d - reach), -100.0), min(100 * (p - d + reach), 100.0)]
