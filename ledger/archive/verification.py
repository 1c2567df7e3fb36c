"""Verification of the archive against the seal: leaves are hashed in chunks and compared with the tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ledger.transparency.merkle import leaf_hash, root_of
from ledger.transparency.sealer import encode_entry
from ledger.transparency.tiles import WIDTH, Tiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ledger.store.log import Recorded

CHUNK = WIDTH * WIDTH
"""Leaves that are verified together: a complete subtree."""
_ROWS = 256
"""Events that are read at a time, of up to 64 KiB each; a larger number is no faster."""


class DamagedFileError(Exception):
    """A file of the archive cannot be read, or lacks positions."""

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.position = position


class RangeResult(NamedTuple):
    """The result of verifying some positions of an archive: their root, and the positions that differ from the seal."""

    root: bytes
    wrong: list[int]


def event_leaf_hash(event: Recorded) -> bytes:
    """Return the hash of an event's leaf."""
    return leaf_hash(encode_entry(*event))


def verify_range(files: Sequence[tuple[Path, int, int]], tiles: Tiles, first: int, last: int) -> RangeResult:
    """Hash the leaves of positions ``first`` to ``last`` and compare them with the tiles.

    ``first`` is the beginning of a chunk of ``CHUNK`` leaves; ``last`` is its end, or the end of the tree.

    Raises:
        DamagedFileError: a file cannot be read, or positions are missing.
        MissingTileError: a tile is missing.
    """
    leaves = _leaves(files, first, last)
    if len(leaves) != last - first + 1:
        raise DamagedFileError("the archive lacks a position", first + len(leaves))
    wrong = [
        first + offset
        for offset, (leaf, sealed) in enumerate(zip(leaves, tiles.leaves(first, last), strict=True))
        if leaf != sealed
    ]
    return RangeResult(root_of(leaves), wrong)


def _leaves(files: Sequence[tuple[Path, int, int]], first: int, last: int) -> list[bytes]:
    """Return the leaves' hashes, in order."""
    from ledger.archive.parquet import read_columns

    leaves = list[bytes]()
    for path, file_first, file_last in files:
        if file_last < first or file_first > last:
            continue
        try:
            for columns in read_columns(path, rows=_ROWS):
                rows = zip(*columns, strict=True)
                leaves += [leaf_hash(encode_entry(*row)) for row in rows if first <= row[0] <= last]
        except OSError as error:
            raise DamagedFileError(f"the archive's file {path.name} cannot be read: {error}", file_first) from error
    return leaves
