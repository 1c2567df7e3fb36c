"""Columns of texts as whole numbers, with which groups are counted by arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Labels:
    """A column of texts: ``names[numbers[place]]`` is the text at a place."""

    numbers: NDArray[np.int64]
    names: Sequence[str]

    @classmethod
    def of(cls, texts: Sequence[str | None], blank: str) -> Self:
        """Return the labels of texts; ``blank`` stands for ``None`` and the empty text."""
        different = dict.fromkeys(texts)
        places = {name: place for place, name in enumerate(dict.fromkeys(text or blank for text in different))}
        return cls(numbers_of(texts, {text: places[text or blank] for text in different}), [*places])

    def __getitem__(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Labels:
        """Return the labels of a mask or of indices; the names stay."""
        return Labels(self.numbers[which], self.names)

    def texts(self) -> list[str]:
        """Return the texts."""
        return [self.names[number] for number in self.numbers.tolist()]


def distinct[T: np.generic](values: NDArray[T]) -> NDArray[T]:
    """Return the distinct values, sorted."""
    found: NDArray[T] = np.unique(values, return_counts=True)[0]  # with counts numpy sorts; else it hashes: slower
    return found


def numbers_of[T](values: Sequence[T], numbers: dict[T, int]) -> NDArray[np.int64]:
    """Return the number of each value."""
    return np.fromiter(map(numbers.__getitem__, values), np.int64, len(values))
