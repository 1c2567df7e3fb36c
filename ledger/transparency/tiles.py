"""A Merkle log on disk as C2SP tlog-tiles (https://c2sp.org/tlog-tiles): tiles of 256 hashes, bundles of entries."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ledger.errors import LedgerError
from ledger.files import UnreadableFileError, read_bounded, sync_to_disk
from ledger.transparency.merkle import HASH_BYTES, ProofError, leaf_hash, root_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

WIDTH = 256
"""Hashes in a full tile."""
MAX_ENTRY_BYTES = 65_535
_A_FOLDER = 1000
_PARTIAL = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)


class MissingTileError(LedgerError, LookupError):
    """A tile is missing or has another width; ``path`` is its path in the folder."""

    def __init__(self, path: str, why: str = "") -> None:
        super().__init__(f"the tile {path} is missing or damaged" + (f": {why}" if why else ""))
        self.path = path


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Return a tile's path: ``tile/0/x001/234``, ``tile/entries/000.p/17``; ``level`` is a number or ``entries``."""
    parts = [f"{index % _A_FOLDER:03d}"]
    while index >= _A_FOLDER:
        index //= _A_FOLDER
        parts.append(f"x{index % _A_FOLDER:03d}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(parts))}{partial}"


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return entries as a bundle: each after its length, 16 bits, big-endian."""
    return b"".join([len(entry).to_bytes(2) + entry for entry in entries])


def decode_bundle(data: bytes) -> Iterator[bytes]:
    """Yield the entries of a bundle."""
    offset = 0
    while offset + 2 <= len(data):
        end = offset + 2 + int.from_bytes(data[offset : offset + 2])
        yield data[offset + 2 : end]
        offset = end


class Tiles:
    """The tiles of a tree of ``size`` leaves, for reading. Tiles are cached."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self._cache: dict[tuple[int, int], bytes] = {}

    def hashes(self, level: int, index: int) -> bytes:
        """Return the concatenated hashes of one tile, as many as a tree of this size has there.

        Raises:
            MissingTileError: the tile is missing.
        """
        found = self._cache.get((level, index))
        if found is None:
            width = min(WIDTH, (self.size >> (8 * level)) - WIDTH * index)
            data, actual_width = self._read(level, index, width)
            if len(data) != actual_width * HASH_BYTES:
                raise MissingTileError(tile_path(level, index, width), f"{len(data):,} bytes for {actual_width} hashes")
            found = data[: width * HASH_BYTES]
            if len(self._cache) > 4096:  # noqa: PLR2004 - 32 MiB
                self._cache.clear()
            self._cache[level, index] = found
        return found

    def leaves(self, first: int, last: int) -> list[bytes]:
        """Return the hashes of the leaves of these positions; the first position is 1.

        Raises:
            MissingTileError: a tile is missing.
        """
        numbers = range((first - 1) // WIDTH, -(-last // WIDTH))
        hashes = b"".join([self.hashes(0, number) for number in numbers])
        begin = (first - 1) % WIDTH
        return [hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(begin, begin + last - first + 1)]

    def entries(self, index: int) -> list[bytes]:
        """Return the entries of one bundle, as many as a tree of this size has there.

        Raises:
            MissingTileError: the bundle is missing, or holds fewer entries.
        """
        width = min(WIDTH, self.size - WIDTH * index)
        data, actual_width = self._read("entries", index, width)
        found = list(decode_bundle(data))
        if len(found) != actual_width or not data.endswith(encode_bundle(found[-1:])):
            raise MissingTileError(tile_path("entries", index, width), f"it does not hold {actual_width} entries")
        return found[:width]

    def entry(self, index: int) -> bytes:
        """Return the entry of one leaf."""
        return self.entries(index // WIDTH)[index % WIDTH]

    def check(self, first: int, last: int, root: bytes) -> None:
        """Check that the hashes of the leaves of these positions, of which the first is 1, belong to a root.

        Raises:
            MissingTileError: a tile is missing.
            ProofError: they do not.
        """
        level, begin, end = 0, (first - 1) // WIDTH, (last - 1) // WIDTH + 1
        while self.size >> (8 * level):
            for index in range(begin, min(end, (self.size >> (8 * level)) // WIDTH)):  # the full tiles
                at = index % WIDTH * HASH_BYTES
                above = self.hashes(level + 1, index // WIDTH)[at : at + HASH_BYTES]
                if root_of(split_hashes(self.hashes(level, index))) != above:
                    raise ProofError(f"{tile_path(level, index)} differs from the tile above it")
            level, begin, end = level + 1, begin // WIDTH, (end - 1) // WIDTH + 1
        if self.root() != root:
            raise ProofError(f"the tiles do not have the root of the checkpoint with {self.size:,} events")

    def _read(self, level: int | str, index: int, width: int) -> tuple[bytes, int]:
        """Return a tile and its width; a wider tile replaces a missing one, since it begins with the same hashes."""
        full = self.folder / tile_path(level, index)
        partials = full.with_name(full.name + ".p")
        max_bytes = WIDTH * (HASH_BYTES if level != "entries" else 2 + MAX_ENTRY_BYTES)
        try:
            for path, actual_width in ((self.folder / tile_path(level, index, width), width), (full, WIDTH)):
                try:
                    return read_bounded(path, max_bytes), actual_width
                except FileNotFoundError:
                    continue
            partial_widths = sorted(int(path.name) for path in partials.glob("*") if _PARTIAL.fullmatch(path.name))
            for partial_width in partial_widths:
                if partial_width >= width:
                    return read_bounded(partials / str(partial_width), max_bytes), partial_width
        except (UnreadableFileError, FileNotFoundError) as error:  # a mirror removes tiles that are replaced
            raise MissingTileError(tile_path(level, index, width), str(error)) from error
        raise MissingTileError(tile_path(level, index, width))

    def range_hash(self, start: int, end: int) -> bytes:
        """Return the root over leaves from ``start`` to before ``end``: aligned, or up to the right edge."""
        count = end - start
        if count == 1 or count & (count - 1) == 0:
            return self._complete(start, count)
        middle = start + (1 << ((count - 1).bit_length() - 1))
        return root_of([self._complete(start, middle - start), self.range_hash(middle, end)])

    def _complete(self, start: int, count: int) -> bytes:
        """Return the root of a complete, aligned subtree."""
        level = (count.bit_length() - 1) // 8
        first, hash_count = start >> (8 * level), count >> (8 * level)
        tile = self.hashes(level, first // WIDTH)
        at = first % WIDTH
        return root_of([tile[one * HASH_BYTES : (one + 1) * HASH_BYTES] for one in range(at, at + hash_count)])

    def root(self) -> bytes:
        """Return the root of the whole tree."""
        return self.root_at(self.size)

    def root_at(self, size: int) -> bytes:
        """Return the root of the tree's first ``size`` leaves."""
        return root_of([]) if size == 0 else self.range_hash(0, size)


class TileWriter:
    """Appends to a log of tiles. Durable only after ``flush``; existing tiles must have the same content."""

    def __init__(self, folder: Path, size: int = 0) -> None:
        """Continue after ``size`` leaves, whose last tiles are read."""
        self.folder = folder
        self.size = size
        self._entries: list[bytes] = []
        self._edges: list[bytearray] = []  # a level's hashes after its last full tile
        self._written: list[Path] = []
        self._partials: set[Path] = set()
        read = Tiles(folder, size)
        level = 0
        while size >> (8 * level):
            hash_count = size >> (8 * level)
            edge = read.hashes(level, hash_count // WIDTH) if hash_count % WIDTH else b""
            self._edges.append(bytearray(edge))
            if edge:
                self._partials.add(folder / tile_path(level, hash_count // WIDTH, hash_count % WIDTH))
            level += 1
        if size % WIDTH:
            self._entries = read.entries(size // WIDTH)
            self._partials.add(folder / tile_path("entries", size // WIDTH, size % WIDTH))

    def append(self, entries: Sequence[bytes]) -> None:
        """Add leaves.

        Raises:
            DifferentTileError: a tile exists with other content.
        """
        for entry in entries:
            self._entries.append(entry)
            self._push(0, leaf_hash(entry))
            self.size += 1
            if len(self._entries) == WIDTH:
                self._write(tile_path("entries", self.size // WIDTH - 1), encode_bundle(self._entries))
                self._entries = []

    def _push(self, level: int, hash_: bytes) -> None:
        if level == len(self._edges):
            self._edges.append(bytearray())
        edge = self._edges[level]
        edge += hash_
        if len(edge) == WIDTH * HASH_BYTES:
            count = (self.size + 1) >> (8 * level)
            tile = bytes(edge)
            self._write(tile_path(level, count // WIDTH - 1), tile)
            edge.clear()
            self._push(level + 1, root_of(split_hashes(tile)))

    def root(self) -> bytes:
        """Return the root of the current tree."""
        right: list[bytes] = []
        for edge in self._edges:
            hashes = split_hashes(edge) + right
            right = [root_of(hashes)] if hashes else []
        return right[0] if right else root_of([])

    def flush(self) -> list[Path]:
        """Make all tiles durable, with the right edge; return partial tiles that are obsolete once this is signed."""
        edges = [(tile_path("entries", self.size // WIDTH, len(self._entries)), encode_bundle(self._entries))]
        for level, edge in enumerate(self._edges):
            hash_count = len(edge) // HASH_BYTES
            edges.append((tile_path(level, (self.size >> (8 * level)) // WIDTH, hash_count), bytes(edge)))
        current = {self.folder / name for name, data in edges if data}
        for name, data in edges:
            if data:
                self._write(name, data)
        for path in [*self._written, *{path.parent for path in self._written}]:
            sync_to_disk(path)
        self._written.clear()
        obsolete, self._partials = self._partials - current, current
        return sorted(obsolete)

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        try:
            if path.exists():
                if read_bounded(path, len(data)) != data:
                    raise DifferentTileError(name)
                return
        except UnreadableFileError as error:
            raise DifferentTileError(name) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(path)
        self._written.append(path)


class DifferentTileError(LedgerError):
    """A tile was written before with other content: the log has changed."""

    def __init__(self, path: str) -> None:
        super().__init__(f"the tile {path} was written before with other content")
        self.path = path


def split_hashes(hashes: bytes | bytearray) -> list[bytes]:
    """Return concatenated hashes of 32 bytes as a list."""
    return [bytes(hashes[at : at + HASH_BYTES]) for at in range(0, len(hashes), HASH_BYTES)]
