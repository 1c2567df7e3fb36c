"""Limits of an atomic batch, and a function that splits events into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_BATCH = 1000
MAX_BATCH_BYTES = 8 * 1024 * 1024


def in_batches[T](items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield lists that fit one atomic batch: at most 1000 events and 8 MiB."""
    batch: list[T] = []
    bytes_left = MAX_BATCH_BYTES
    for item in items:
        size = size_of(item)
        if batch and (size > bytes_left or len(batch) == MAX_BATCH):
            yield batch
            batch, bytes_left = [], MAX_BATCH_BYTES
        batch.append(item)
        bytes_left -= size
    if batch:
        yield batch
