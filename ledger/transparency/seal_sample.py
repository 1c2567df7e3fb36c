"""A bounded check of a seal: a sample of tiles compared with their bundles and with events of the log."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, NamedTuple

from ledger.transparency.merkle import leaf_hash, root_of
from ledger.transparency.sealer import SealError, encode_entry, encode_gap
from ledger.transparency.tiles import WIDTH, MissingTileError, split_hashes, tile_path

if TYPE_CHECKING:
    from ledger.store.log import Log
    from ledger.transparency.tiles import Tiles

_TILES, _EVENTS = 64, 1024
_PER_TILE_AT_LEAST = 16
_SEAL_DAMAGED = (
    "the files of the seal are damaged. Restore the folder `seal` from a backup; `resolution-ledger audit verify` "
    "checks every position"
)


class SealSample(NamedTuple):
    """The number of checked tiles, of all tiles, and of checked events."""

    tiles: int
    of_tiles: int
    events: int


async def check_sample(log: Log, tiles: Tiles) -> SealSample:
    """Check the first, the last and other random tiles against their bundles and events of the log.

    Raises:
        SealError: a tile, a bundle or an event is not the sealed one.
    """
    count = -(-tiles.size // WIDTH)
    indexes = sorted({0, count - 1, *random.sample(range(count), min(count, _TILES))}) if count else []
    per_tile = max(_PER_TILE_AT_LEAST, _EVENTS // max(1, count))
    events = 0
    for index in indexes:
        try:
            entries = checked_entries(tiles, index)
        except MissingTileError as error:
            raise SealError(str(error), index * WIDTH + 1, _SEAL_DAMAGED) from error
        leaf_indexes = {len(entries) - 1, *random.sample(range(len(entries)), min(per_tile, len(entries)))}
        await _check_events(
            log, {index * WIDTH + leaf_index + 1: entries[leaf_index] for leaf_index in sorted(leaf_indexes)}
        )
        events += len(leaf_indexes)
    return SealSample(len(indexes), count, events)


def checked_entries(tiles: Tiles, index: int) -> list[bytes]:
    """Return a bundle's entries after checking them with their tile, and the tile with those up to the signed edge."""
    leaves, first = split_hashes(tiles.hashes(0, index)), index * WIDTH + 1
    hashes, level, tile_index = leaves, 0, index
    while len(hashes) == WIDTH:  # the signed root covers the last, partial tile
        parents = split_hashes(tiles.hashes(level + 1, tile_index // WIDTH))
        if root_of(hashes) != parents[tile_index % WIDTH]:
            parent_path = tile_path(level + 1, tile_index // WIDTH, len(parents))
            problem = f"the tile {tile_path(level, tile_index)} or {parent_path} was changed"
            raise SealError(problem, first, _SEAL_DAMAGED)
        hashes, level, tile_index = parents, level + 1, tile_index // WIDTH
    entries = tiles.entries(index)
    for leaf_index, entry in enumerate(entries):
        if leaf_hash(entry) != leaves[leaf_index]:
            path = tile_path("entries", index, len(entries))
            raise SealError(f"the bundle {path} was changed", first + leaf_index, _SEAL_DAMAGED)
    return entries


async def _check_events(log: Log, sealed: dict[int, bytes]) -> None:
    found = await asyncio.gather(*map(log.at, sealed))
    for (position, entry), event in zip(sealed.items(), found, strict=True):
        if event is None and entry != encode_gap(position):
            raise SealError("a sealed event is gone", position)
        if event is not None and encode_entry(*event) != entry:
            raise SealError("a sealed event has changed", position)
