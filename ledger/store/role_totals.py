"""Totals that a process counts from its start, answered with its status (``ledger.store.role_status``)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


DECISION_BOUNDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the buckets of decisions, in seconds; the contract allows two seconds for an answer."""


class Total(msgspec.Struct, frozen=True):
    """One total, which only grows while its process lives: a name, the values of its labels, and the sum."""

    name: str
    labels: tuple[str, ...] = ()
    value: float = 0.0


class LabelledTotals:
    """Counts things under one name, by the values of labels."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.counts = Counter[tuple[str, ...]]()

    def totals(self) -> Iterator[Total]:
        """Yield the count of each combination of labels."""
        for labels, count in self.counts.items():
            yield Total(self._name, labels, count)


class DurationTotals:
    """Counts durations by their size, for a histogram."""

    def __init__(self, name: str, bounds: Sequence[float]) -> None:
        """``bounds`` are the upper bounds of the buckets, in seconds, in ascending order."""
        self._name = name
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """The number of durations in each bucket: the first whose bound is not below it; the last has none."""
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.seconds += seconds

    def totals(self) -> Iterator[Total]:
        """Yield the number of durations in each bucket, labelled by the bucket's number, then all seconds."""
        for number, count in enumerate(self.counts):
            yield Total(self._name, (str(number),), count)
        yield Total(self._name, (), self.seconds)
