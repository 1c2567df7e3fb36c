"""Consistency of goodwill: how often something is given and how much, across teams and channels.

A matter is an interaction. The limits of a group are those of a funnel plot, adjusted for overdispersion
(Spiegelhalter 2005): groups differ by their customers, too, so a binomial limit alone would accuse too many of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from math import sqrt
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

from domain.analytics.empowerment_gap import Share, band_of, share
from domain.currencies import digits_of
from domain.money import Money

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NOT_SAID = "not said"
FEW = 30
"""The fewest matters of a group that is compared."""
_WINSORISED = 0.1
"""The share of the groups' scores on each side that are pulled in before the dispersion is estimated."""
_NEAR, _FAR = 1.959963984540054, 3.090232306167813
"""The standard deviations of the limits that 95 % and 99.8 % of equal groups keep."""

type Division = Literal["channel", "team"]
type Amounts = Mapping[tuple[str, str], int]
"""Minor units by kind and currency."""


class HandledMatter(NamedTuple):
    """A matter: its channel, first team and reason, and the goodwill that was given in it."""

    channel: str
    team: str
    reason: str
    given: Amounts


class GivenGroup(TypedDict):
    """A group: how often and how much was given; ``score`` is its adjusted distance from the common share.

    ``limits`` hold 95 % of equal groups, ``wide_limits`` 99.8 %.
    """

    group: str
    given: Share
    medians: list[dict[str, str]]
    score: float
    limits: list[float]
    wide_limits: list[float]


class Consistency(TypedDict):
    """The comparison of groups over the matters of a ``label``; a description (evidence level 1).

    ``what`` is ``any`` (anything is given), ``reason`` (anything, in matters of that reason), ``kind`` (that kind is
    given) or ``band`` (an amount in that band is given).
    """

    what: str
    label: str
    by: Division
    rung: int
    given: Share
    dispersion: float
    groups: list[GivenGroup]


class _Cell:
    """The matters of one group: their number, and the amounts given by currency."""

    def __init__(self) -> None:
        self.given = 0
        self.amounts = defaultdict[str, list[int]](list)

    def add(self, amounts: Mapping[str, Sequence[int]], matters: int = 1) -> None:
        """Add matters in which these amounts were given."""
        self.given += matters
        for currency, some in amounts.items():
            self.amounts[currency] += some


class _Tally:
    """The matters of each place, and the cells of each comparison."""

    def __init__(self) -> None:
        self.handled = Counter[_Place]()
        self.cells = defaultdict[tuple[str, str, str, str], _Cell](_Cell)
        self.labels = set[tuple[str, str]]()

    def add(self, place: _Place, found: Iterable[_Given], matters: int) -> None:
        """Add matters of one place in which something was given."""
        for what, label, amounts in found:
            self.labels.add((what, label))
            for by, group in zip(_DIVISIONS, place, strict=False):
                self.cells[by, group, what, label].add(amounts, matters)

    def sizes(self) -> Counter[tuple[str, str, str]]:
        """Return the number of matters by division, group and reason; the reason of all is empty."""
        found = Counter[tuple[str, str, str]]()
        for place, number in self.handled.items():
            for by, group in zip(_DIVISIONS, place, strict=False):
                found[by, group, ""] += number
                found[by, group, place[2]] += number
        return found


def consistency(matters: Iterable[HandledMatter]) -> list[Consistency]:
    """Return how evenly goodwill is given across channels and teams, in all and by reason, kind and amount band.

    Groups of fewer than ``FEW`` matters are left out, and so is a comparison of fewer than two groups, or of groups in
    which nothing, or always something, is given.
    """
    tally = _Tally()
    alone = defaultdict[tuple[_Place, str, str], list[int]](list)
    for channel, team, reason, given in matters:
        place = channel, team, reason
        tally.handled[place] += 1
        if len(given) == 1:  # most matters: those of one place, kind and currency are counted together
            (((kind, currency), minor),) = given.items()
            alone[place, kind, currency].append(minor)
        elif given:
            tally.add(place, _given(reason, given), 1)
    for (place, kind, currency), minors in alone.items():
        amounts = {currency: minors}
        whole = [("any", "", amounts), ("reason", place[2], amounts), ("kind", kind, amounts)]
        tally.add(place, whole, len(minors))
        bands = defaultdict[str, list[int]](list)
        for minor in minors:
            bands[band_of(minor, digits_of(currency))].append(minor)
        for band, some in bands.items():
            tally.add(place, [("band", f"{band} {currency}", {currency: some})], len(some))
    sizes = tally.sizes()
    compared = [
        _compared(what, label, by, sizes, tally.cells)
        for what, label in sorted(tally.labels, key=lambda one: (_ORDER.index(one[0]), one[1]))
        for by in _DIVISIONS
    ]
    return [one for one in compared if one is not None]


_ORDER = ("any", "reason", "kind", "band")
_DIVISIONS: tuple[Division, ...] = ("channel", "team")


type _Place = tuple[str, str, str]
"""The channel, team and reason of a matter."""
type _Given = tuple[str, str, Mapping[str, Sequence[int]]]
"""What, label and amounts by currency of a comparison in which something was given."""


def _given(reason: str, given: Amounts) -> list[_Given]:
    """Return all comparisons in which something was given in a matter."""
    total = Counter[str]()
    kinds: defaultdict[str, dict[str, tuple[int]]] = defaultdict(dict)
    for (kind, currency), minor in given.items():
        total[currency] += minor
        kinds[kind][currency] = (minor,)
    sums = {currency: (minor,) for currency, minor in total.items()}
    found: list[_Given] = [("any", "", sums), ("reason", reason, sums)]
    found += [("kind", kind, amounts) for kind, amounts in kinds.items()]
    for currency, minor in total.items():
        found.append(("band", f"{band_of(minor, digits_of(currency))} {currency}", {currency: (minor,)}))
    return found


def _compared(
    what: str,
    label: str,
    by: Division,
    sizes: Mapping[tuple[str, str, str], int],
    cells: Mapping[tuple[str, str, str, str], _Cell],
) -> Consistency | None:
    of = label if what == "reason" else ""
    groups = [
        (group, cells.get((by, group, what, label)) or _Cell(), n)
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
                "medians": [Money(_middle(some), currency).wire() for currency, some in sorted(cell.amounts.items())],
                "score": score / sqrt(dispersion),
                "limits": _limits(common, error * sqrt(dispersion) * _NEAR),
                "wide_limits": _limits(common, error * sqrt(dispersion) * _FAR),
            }
            for (group, cell, size), error, score in zip(groups, errors, scores, strict=True)
        ],
    }


def _dispersion(scores: Sequence[float]) -> float:
    """Return the mean of the squared scores, the outermost pulled in; at least 1, where groups differ by chance."""
    ordered = sorted(scores)
    cut = int(len(ordered) * _WINSORISED)
    low, high = ordered[cut], ordered[-1 - cut]
    return max(1.0, sum(min(max(score, low), high) ** 2 for score in scores) / len(scores))


def _limits(common: float, reach: float) -> list[float]:
    return [max(0.0, common - reach), min(1.0, common + reach)]


def _middle(amounts: Sequence[int]) -> int:
    """Return the lower median of amounts."""
    return sorted(amounts)[(len(amounts) - 1) // 2]
