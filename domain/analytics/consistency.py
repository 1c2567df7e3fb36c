"""Consistency of goodwill: how often something is given and how much, across teams and channels.

A matter is an interaction. The limits of a group are those of a funnel plot, adjusted for overdispersion
(Spiegelhalter 2005): groups differ by their customers, too, so a binomial limit alone would accuse too many of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import sqrt
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

import numpy as np

from domain.analytics.averages import interval_places
from domain.analytics.empowerment_gap import Share, band_of, share
from domain.analytics.labels import Labels, distinct
from domain.currencies import digits_of
from domain.money import Money

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    type Ints = NDArray[np.int64]

NOT_SAID = "not said"
FEW = 30
"""The fewest matters of a group that is compared."""
_WINSORISED = 0.1
"""The share of the groups' scores on each side that are pulled in before the dispersion is estimated."""
_NEAR, _FAR = 1.959963984540054, 3.090232306167813
"""The standard deviations of the limits that 95 % and 99.8 % of equal groups keep."""

type Division = Literal["channel", "team"]
type What = Literal["any", "reason", "kind", "band"]


class HandledMatters(NamedTuple):
    """Matters as columns (channel, first team, reason), and the goodwill that was given in them.

    There is one gift for each matter, kind and currency: ``matter`` is the place of its matter in the other columns,
    ``minor`` its amount in minor units.
    """

    channel: Labels
    team: Labels
    reason: Labels
    matter: Ints
    kind: Labels
    currency: Labels
    minor: Ints

    def summed(self) -> HandledMatters:
        """Return the gifts summed over kinds: one for each matter and currency, of a kind without a name."""
        place = self.matter * len(self.currency.names) + self.currency.numbers
        order = np.argsort(place, kind="stable")
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        minor = np.add.reduceat(self.minor[order], starts) if starts.size else self.minor
        first = order[starts]
        one = Labels(np.zeros(first.size, np.int64), ("",))
        return self._replace(matter=self.matter[first], kind=one, currency=self.currency[first], minor=minor)

    def bands(self) -> Labels:
        """Return the band of each gift, with its currency."""
        width = len(self.currency.names)
        kept, place = np.unique(self.minor * width + self.currency.numbers, return_inverse=True)
        pairs = [(one // width, self.currency.names[one % width]) for one in kept.tolist()]
        of_pair = Labels.of([f"{band_of(minor, digits_of(currency))} {currency}" for minor, currency in pairs], "")
        return of_pair[place]


class MedianInterval(TypedDict):
    """The number of amounts of a currency behind a median, and the median's 95 % interval."""

    currency: str
    n: int
    interval: list[dict[str, str]] | None


class GivenGroup(TypedDict):
    """A group: how often and how much was given; ``score`` is its adjusted distance from the common share.

    ``limits`` hold 95 % of equal groups, ``wide_limits`` 99.8 %.
    """

    group: str
    given: Share
    medians: list[dict[str, str]]
    median_intervals: list[MedianInterval]
    score: float
    limits: list[float]
    wide_limits: list[float]


class Consistency(TypedDict):
    """The comparison of groups over the matters of a ``label``; a description (evidence level 1).

    ``what`` is ``any`` (anything is given), ``reason`` (anything, in matters of that reason), ``kind`` (that kind is
    given) or ``band`` (an amount in that band is given).
    """

    what: What
    label: str
    by: Division
    rung: int
    given: Share
    dispersion: float
    groups: list[GivenGroup]


class _Cell(NamedTuple):
    """The matters of one group in which something was given: their number, and the middles of amounts by currency."""

    given: int
    middles: Mapping[str, _Middle]


class _Middle(NamedTuple):
    """The lower median of ``n`` amounts in minor units, and its interval."""

    n: int
    median: int
    interval: tuple[int, int] | None


_NOTHING = _Cell(0, {})
type _Cells = dict[tuple[Division, str, What, str], _Cell]
"""Cells by division, group, what, and label."""


def consistency(handled: HandledMatters) -> list[Consistency]:
    """Return how evenly goodwill is given across channels and teams, in all and by reason, kind and amount band.

    Groups of fewer than ``FEW`` matters are left out, and so is a comparison of fewer than two groups, or of groups in
    which nothing, or always something, is given.
    """
    summed = handled.summed()
    sizes = dict[tuple[Division, str, str], int]()
    cells: _Cells = {}
    compared: dict[What, tuple[HandledMatters, Labels]] = {
        "any": (summed, summed.kind),
        "reason": (summed, handled.reason[summed.matter]),
        "kind": (handled, handled.kind),
        "band": (summed, summed.bands()),
    }
    divided: dict[Division, Labels] = {"channel": handled.channel, "team": handled.team}
    for by, groups in divided.items():
        for (group, reason), size in _sizes(groups, handled.reason).items():
            sizes[by, group, reason] = size
        for what, (gifts, labels) in compared.items():
            for (group, label), cell in _cells(groups[gifts.matter], labels, gifts).items():
                cells[by, group, what, label] = cell
    labels_given = {(what, label) for _, _, what, label in cells}
    ordered = sorted(labels_given, key=lambda one: ([*compared].index(one[0]), one[1]))
    every = (_compared(what, label, by, sizes, cells) for what, label in ordered for by in divided)
    return [one for one in every if one is not None]


def _sizes(groups: Labels, reasons: Labels) -> dict[tuple[str, str], int]:
    """Return the number of matters by group and reason; the reason of all is empty."""
    width = len(reasons.names)
    found = {(groups.names[group], ""): size for group, size in _counted(groups.numbers)}
    for place, size in _counted(groups.numbers * width + reasons.numbers):
        found[groups.names[place // width], reasons.names[place % width]] = size
    return found


def _counted(numbers: Ints) -> Iterator[tuple[int, int]]:
    values, counts = np.unique(numbers, return_counts=True)
    return zip(values.tolist(), counts.tolist(), strict=True)


def _cells(groups: Labels, labels: Labels, gifts: HandledMatters) -> dict[tuple[str, str], _Cell]:
    """Return the cell of each group and label; gifts of one matter count once."""
    width, currencies = len(labels.names), gifts.currency
    place = groups.numbers * width + labels.numbers
    order = np.lexsort((gifts.minor, currencies.numbers, place))
    segment = (place * len(currencies.names) + currencies.numbers)[order]
    starts = np.flatnonzero(np.diff(segment, prepend=-1))
    ordered, ends = gifts.minor[order], np.append(starts, segment.size)[1:]
    middles = defaultdict[int, dict[str, _Middle]](dict)
    for number, start, end in zip(segment[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
        middle = _middle(ordered[start:end])
        middles[number // len(currencies.names)][currencies.names[number % len(currencies.names)]] = middle
    matters = int(gifts.matter.max(initial=0)) + 1
    given = _counted(distinct(place * matters + gifts.matter) // matters)
    return {(groups.names[at // width], labels.names[at % width]): _Cell(hits, middles[at]) for at, hits in given}


def _middle(ordered: Ints) -> _Middle:
    """Return the lower median of ordered amounts, and its interval."""
    n = ordered.size
    places = interval_places(n, 0.5)
    interval = None if places is None else (int(ordered[places[0]]), int(ordered[places[1]]))
    return _Middle(n, int(ordered[(n - 1) // 2]), interval)


def _compared(
    what: What,
    label: str,
    by: Division,
    sizes: Mapping[tuple[Division, str, str], int],
    cells: _Cells,
) -> Consistency | None:
    of = label if what == "reason" else ""
    groups = [
        (group, cells.get((by, group, what, label), _NOTHING), n)
        for (divided, group, reason), n in sorted(sizes.items())
        if divided == by and reason == of and n >= FEW and group != NOT_SAID
    ]
    hits, n = sum(cell.given for _, cell, _ in groups), sum(size for *_, size in groups)
    if len(groups) < 2 or not 0 < hits < n:  # noqa: PLR2004 - two to compare
        return None
    common = hits / n
    errors = [sqrt(common * (1 - common) / size) for *_, size in groups]
    scores = [(cell.given / size - common) / error for (_, cell, size), error in zip(groups, errors, strict=True)]
    dispersion = _dispersion(scores)
    return {
        "what": what,
        "label": label,
        "by": by,
        "rung": 1,
        "given": share(hits, n),
        "dispersion": dispersion,
        "groups": [
            {
                "group": group,
                "given": share(cell.given, size),
                "medians": [Money(one.median, currency).wire() for currency, one in sorted(cell.middles.items())],
                "median_intervals": [_interval(currency, one) for currency, one in sorted(cell.middles.items())],
                "score": score / sqrt(dispersion),
                "limits": _limits(common, error * sqrt(dispersion) * _NEAR),
                "wide_limits": _limits(common, error * sqrt(dispersion) * _FAR),
            }
            for (group, cell, size), error, score in zip(groups, errors, scores, strict=True)
        ],
    }


def _interval(currency: str, one: _Middle) -> MedianInterval:
    ends = one.interval and [Money(minor, currency).wire() for minor in one.interval]
    return {"currency": currency, "n": one.n, "interval": ends}


def _dispersion(scores: Sequence[float]) -> float:
    """Return the mean of the squared scores, the outermost pulled in; at least 1, where groups differ by chance."""
    ordered = sorted(scores)
    cut = int(len(ordered) * _WINSORISED)
    low, high = ordered[cut], ordered[-1 - cut]
    return max(1.0, sum(min(max(score, low), high) ** 2 for score in scores) / len(scores))


def _limits(common: float, reach: float) -> list[float]:
    return [max(0.0, common - reach), min(1.0, common + reach)]
