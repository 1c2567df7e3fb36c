"""A bounded look at a seal: some tiles, their bundles and their events held against each other."""

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
    "the files of the seal are damaged. Bring the folder `seal` back from a backup; `resolution-ledger audit verify` "
    "looks at every position"
)


class SealSample(NamedTuple):
    """How much was looked at: tiles of how many, and events of the log."""

    tiles: int
    of_tiles: int
    events: int


async def check_sample(log: Log, tiles: Tiles) -> SealSample:
    """Check the first and the last tile and others by lot, with their bundles and with events of the log.

    Raises:
        SealError: a tile, a bundle or an event is not what was sealed.

    """
    count = -(-tiles.size // WIDTH)
    indexes = sorted({0, count - 1, *random.sample(range(count), min(count, _TILES))}) if count else []
    per_tile = max(_PER_TILE_AT_LEAST, _EVENTS // max(1, count))
    events = 0
    for index in indexes:
        try:
            entries = _checked_entries(tiles, index)
        except MissingTileError as error:
            raise SealError(str(error), index * WIDTH + 1, _SEAL_DAMAGED) from error
        places = {len(entries) - 1, *random.sample(range(len(entries)), min(per_tile, len(entries)))}
        await _check_events(log, {index * WIDTH + place + 1: entries[place] for place in sorted(places)})
        events += len(places)
    return SealSample(len(indexes), count, events)


def _checked_entries(tiles: Tiles, index: int) -> list[bytes]:
    """Return a bundle's entries: its tile follows up to the edge that is signed, and the entries hash to the tile."""
    leaves, first = split_hashes(tiles.hashes(0, index)), index * WIDTH + 1
    hashes, level, at = leaves, 0, index
    while len(hashes) == WIDTH:  # one that is not full is at the edge, from which the signed root is computed
        above = split_hashes(tiles.hashes(level + 1, at // WIDTH))
        if root_of(hashes) != above[at % WIDTH]:
            what = f"the tile {tile_path(level, at)} or {tile_path(level + 1, at // WIDTH, len(above))} was changed"
            raise SealError(what, first, _SEAL_DAMAGED)
        hashes, level, at = above, level + 1, at // WIDTH
    entries = tiles.entries(index)
    for place, entry in enumerate(entries):
        if leaf_hash(entry) != leaves[place]:
            path = tile_path("entries", index, len(entries))
            raise SealError(f"the bundle {path} was changed", first + place, _SEAL_DAMAGED)
    return entries


async def _check_events(log: Log, sealed: dict[int, bytes]) -> None:
    found = await asyncio.gather(*map(log.at, sealed))
    for (position, entry), event in zip(sealed.items(), found, strict=True):
        if event is None and entry != encode_gap(position):
            raise SealError("a sealed event is gone", position)
        if event is not None and encode_entry(*event) != entry:
            raise SealError("a sealed event has changed", position)
