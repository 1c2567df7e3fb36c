"""The size of an atomic batch, and how to cut events into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_BATCH = 1000
MAX_BATCH_BYTES = 8 * 1024 * 1024


def in_batches[T](items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut into lists that one batch takes: at most 1000 events and 8 MiB."""
    batch: list[T] = []
    room = MAX_BATCH_BYTES
    for item in items:
        size = size_of(item)
        if batch and (size > room or len(batch) == MAX_BATCH):
            yield batch
            batch, room = [], MAX_BATCH_BYTES
        batch.append(item)
        room -= size
    if batch:
        yield batch
