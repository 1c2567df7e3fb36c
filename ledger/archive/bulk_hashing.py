"""The archive held against the seal: leaves hashed, chunk by chunk, and compared with the tiles."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from ledger.transparency.merkle import leaf_hash, root_of
from ledger.transparency.sealer import encode_entry
from ledger.transparency.tiles import WIDTH, Tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ledger.store.log import Recorded

CHUNK = WIDTH * WIDTH
"""Leaves that are verified together: a complete subtree."""


class DamagedFileError(Exception):
    """A file of the archive cannot be read, or lacks positions: where."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(what, position)
        self.what = what
        self.position = position


class RangeResult(NamedTuple):
    """What came of verifying some positions of an archive: their root, and those that are not what was sealed."""

    root: bytes
    wrong: list[int]


def event_leaf_hash(event: Recorded) -> bytes:
    """Return the hash of an event's leaf."""
    return leaf_hash(encode_entry(*event))


def verify_range(files: Sequence[tuple[Path, int, int]], tiles: Tiles, first: int, last: int) -> RangeResult:
    """Hash the leaves of positions ``first`` to ``last`` and compare them with the tiles.

    ``first`` is the beginning of a chunk of ``CHUNK`` leaves; ``last`` its end, or the end of the tree.

    Raises:
        DamagedFileError: a file cannot be read, or positions are missing.
        MissingTileError: a tile is missing.

    """
    leaves = list(_leaves(files, first, last))
    if len(leaves) != last - first + 1:
        raise DamagedFileError("the archive has not every position", first + len(leaves))
    wrong = [
        first + at
        for at, (leaf, sealed) in enumerate(zip(leaves, tiles.leaves(first, last), strict=True))
        if leaf != sealed
    ]
    return RangeResult(root_of(leaves), wrong)


def _leaves(files: Sequence[tuple[Path, int, int]], first: int, last: int) -> Iterator[bytes]:
    """Yield the leaves' hashes, in order."""
    from ledger.archive.parquet import read_batches

    for path, begins, ends in files:
        if ends < first or begins > last:
            continue
        try:
            for batch in read_batches(path):
                yield from (event_leaf_hash(event) for event in batch if first <= event.position <= last)
        except OSError as error:
            raise DamagedFileError(f"the archive's file {path.name} cannot be read: {error}", begins) from error


def verify_ranges(
    files: Sequence[tuple[Path, int, int]],
    seal: Path,
    size: int,
    chunks: Sequence[tuple[int, int]],
    progressed: Callable[[int], None],
    threads: int | None = None,
) -> list[RangeResult]:
    """`verify_range` of each chunk, on all cores unless told otherwise.

    ``seal`` is the folder of a tree of ``size`` leaves; ``progressed`` gets up to where it is done.

    Raises:
        DamagedFileError: as in `verify_range`.
        MissingTileError: as in `verify_range`.

    """
    tiles, results = Tiles(seal, size), list[RangeResult]()
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        for result, (_, last) in zip(
            pool.map(lambda one: verify_range(files, tiles, *one), chunks), chunks, strict=True
        ):
            results.append(result)
            progressed(last)
    finally:
        pool.shutdown(cancel_futures=True)
    return results
