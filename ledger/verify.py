"""Verification: the stream, the tiles and the checkpoints held against each other, and what kind of wrong there is."""

from __future__ import annotations

import itertools
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger.merkle import HASH_BYTES, ProofError, check_consistency, consistency_proof, leaf_hash, root_of
from ledger.seal import entry_of, gap_entry, read_entry
from ledger.tiles import WIDTH, MissingTileError, tile_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ledger.log import Recorded
    from ledger.notes import Checkpoint, Verifier
    from ledger.seal import SealFolder

_REMEMBERED = 100_000


class Wrong(NamedTuple):
    """One finding: which kind, from which position to which, in words."""

    kind: str
    first: int
    last: int
    text: str

    def wire(self) -> dict[str, Any]:
        """As machines get it."""
        return self._asdict()


class _Differs(NamedTuple):
    """A position where the stream and the seal differ; contents are hashes without the position, empty: nothing."""

    position: int
    sealed: bytes
    found: bytes


class Edge:
    """The right edge of a growing tree: the roots of its complete subtrees, the largest first."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        self.size = size
        self.hashes = list(hashes)

    def add_tile(self, leaves: Sequence[bytes]) -> None:
        """Add the hashes of leaves: a full tile, or fewer at the end."""
        if len(leaves) == WIDTH and self.size % WIDTH == 0:
            self.size += WIDTH
            self._add(root_of(leaves), (self.size // WIDTH) & -(self.size // WIDTH))
            return
        for leaf in leaves:
            self.size += 1
            self._add(leaf, self.size & -self.size)

    def _add(self, one: bytes, merged: int) -> None:
        while merged > 1:
            one = root_of([self.hashes.pop(), one])
            merged >>= 1
        self.hashes.append(one)

    def root(self) -> bytes:
        """The root as it stands."""
        return self._fold(self.hashes)

    def root_with(self, leaves: Sequence[bytes]) -> bytes:
        """The root if these leaves, less than a tile, followed."""
        if not leaves:
            return self.root()
        return self._fold([*self.hashes, root_of(leaves)])

    @staticmethod
    def _fold(hashes: Sequence[bytes]) -> bytes:
        if not hashes:
            return root_of([])
        right = hashes[-1]
        for left in reversed(hashes[:-1]):
            right = root_of([left, right])
        return right


class Verification:
    """Takes the whole stream in order, in batches, and then says what is wrong. ``save`` and ``load`` make it go on."""

    def __init__(self, folder: SealFolder, brought: Sequence[Checkpoint], trusted: Sequence[Verifier]) -> None:
        """``brought`` are checkpoints that an auditor has kept; ``trusted`` the keys that he trusts."""
        self._folder = folder
        self._trusted = list(trusted)
        self._ours = folder.checkpoint()
        self._brought = sorted(brought, key=lambda checkpoint: checkpoint.size)
        self.size = self._ours.size if self._ours else 0
        self._tiles = folder.tiles(self.size)
        self._edge = Edge()
        self._open: list[bytes] = []
        self._sizes = sorted(
            {checkpoint.size for checkpoint in (*self._brought, *([self._ours] if self._ours else []))}
        )
        self._roots: dict[int, bytes] = {0: root_of([])}
        self._differs: list[_Differs] = []
        self._bad_tiles: list[Wrong] = []
        self.gaps: list[int] = []
        self.position = 0
        self.last = 0

    # ------------------------------------------------------------------ going on later

    def save(self, path: Path) -> None:
        """Keep how far it has come; only where nothing was wrong so far, and at the end of a tile."""
        if self._differs or self._bad_tiles or self._open or self._edge.size % WIDTH:
            return
        state = {
            "size": self._edge.size, "edge": [one.hex() for one in self._edge.hashes], "gaps": self.gaps,
            "roots": {str(size): root.hex() for size, root in self._roots.items()}, "sizes": self._sizes,
        }  # fmt: skip
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(json.dumps(state))
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Go on where an earlier run of the same checkpoints was saved; else from the beginning."""
        try:
            state = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        roots = {int(size): bytes.fromhex(root) for size, root in state["roots"].items()}
        if all(size in roots for size in self._sizes if size <= state["size"]):
            self._edge = Edge(state["size"], [bytes.fromhex(one) for one in state["edge"]])
            self._roots, self.gaps, self.position = roots, state["gaps"], state["size"]

    # ------------------------------------------------------------------ the stream

    def take(self, batch: Sequence[Recorded]) -> None:
        """Hold the next events of the stream against the tiles."""
        for recorded in batch:
            while self.position + 1 < recorded.position and self.position < self.size:
                self._next(gap_entry(self.position + 1))
            if recorded.position > self.size and not self._open:
                break
            self._next(entry_of(*recorded))
        self.last = max(self.last, batch[-1].position) if batch else self.last

    def _next(self, entry: bytes) -> None:
        if self.position >= self.size:
            return
        self.position += 1
        self._open.append(entry)
        if len(self._open) == WIDTH or self.position == self.size:
            self._close_tile()

    def _close_tile(self) -> None:
        """Compare one tile's worth of the stream with the tile and its bundle."""
        entries, self._open = self._open, []
        first = self._edge.size
        leaves = [sha256(b"\x00" + entry).digest() for entry in entries]
        for size in self._sizes:
            if first < size <= first + len(leaves):
                self._roots[size] = self._edge.root_with(leaves[: size - first])
        self._edge.add_tile(leaves)
        index = first // WIDTH
        try:
            tile = self._tiles.hashes(0, index)
            sealed = self._tiles.entries(index)
        except MissingTileError as error:
            self._bad_tiles.append(Wrong("tile missing", first + 1, first + len(leaves), str(error)))
            return
        self.gaps += [first + place + 1 for place, entry in enumerate(sealed) if entry[:1] == b"\x00"]
        if b"".join(leaves) == tile:
            if sealed != entries:
                path = tile_path("entries", index, len(leaves))
                text = f"the bundle {path} was edited: the stream and the hashes of its entries agree with each other"
                self._bad_tiles.append(Wrong("tile edited", first + 1, first + len(leaves), text))
            return
        self._compare(first, entries, sealed, tile)

    def _compare(self, first: int, entries: list[bytes], sealed: list[bytes], tile: bytes) -> None:
        for place, (found, was) in enumerate(zip(entries, sealed, strict=True)):
            hashed = tile[place * HASH_BYTES : (place + 1) * HASH_BYTES]
            if leaf_hash(found) != hashed and len(self._differs) < _REMEMBERED:
                self._differs.append(_Differs(first + place + 1, _content(was), _content(found)))

    # ------------------------------------------------------------------ what is wrong

    def findings(self, last_position: int) -> list[Wrong]:
        """All that is wrong, by position; empty where the history is what was sealed."""
        while self.position < self.size:  # nothing came for the rest
            self._next(gap_entry(self.position + 1))
        found = [*self._keys(), *self._bad_tiles, *self._upper_tiles(), *self._checkpoints()]
        if self._differs:
            found += self._blame(last_position)
        return sorted(found, key=lambda wrong: (wrong.first, wrong.kind))

    def _blame(self, last_position: int) -> list[Wrong]:
        """Whether it is the stream that differs from what was signed, or the tiles."""
        stream_root = self._roots.get(self.size)
        if self._ours is not None and stream_root == self._ours.root:
            first, last = self._differs[0].position, self._differs[-1].position
            paths = sorted({tile_path(0, (differs.position - 1) // WIDTH) for differs in self._differs})
            text = f"the tile {paths[0]} was edited: the stream agrees with the signed checkpoint"
            return [Wrong("tile edited", first, last, text)]
        return describe(self._differs, self.size, last_position)

    def _keys(self) -> list[Wrong]:
        found: list[Wrong] = []
        if self._ours is None:
            if self._brought:
                text = "there is no checkpoint here, and you have one: the seal was removed"
                found.append(Wrong("checkpoint missing", 1, self._brought[-1].size, text))
            return found
        if not self._ours.signed_by(self._trusted):
            known = self._ours.signed_by(self._folder.verifiers())
            what = "signed with a key that nobody handed over to" if known else "signed by nobody known"
            text = f"the newest checkpoint is {what}: the key or the checkpoint was replaced"
            found.append(Wrong("key replaced" if known else "checkpoint forged", 1, self._ours.size, text))
        try:
            mine = self._folder.signer().verifier
        except (OSError, ValueError):
            return found
        if mine not in self._trusted:
            text = "the signing key here is none that signed before, or was handed over to"
            found.append(Wrong("key replaced", 1, self._ours.size, text))
        return found

    def _upper_tiles(self) -> list[Wrong]:
        """Tiles above the first level follow from it; and there are none beyond the newest checkpoint."""
        found: list[Wrong] = []
        level = 1
        while self.size >> (8 * level):
            for index in range(-(-(self.size >> (8 * level)) // WIDTH)):
                try:
                    tile = self._tiles.hashes(level, index)
                    below = range(index * WIDTH, index * WIDTH + len(tile) // HASH_BYTES)
                    wanted = [root_of(_cut(self._tiles.hashes(level - 1, one))) for one in below]
                except MissingTileError as error:
                    found.append(Wrong("tile missing", 1, self.size, str(error)))
                    continue
                for place, (is_, should) in enumerate(zip(_cut(tile), wanted, strict=True)):
                    if is_ != should:
                        span = WIDTH**level
                        first = (index * WIDTH + place) * span + 1
                        text = f"the tile {tile_path(level, index)} does not follow from those below it"
                        found.append(Wrong("tile edited", first, first + span - 1, text))
            level += 1
        following = self.size // WIDTH + (1 if self.size % WIDTH else 0)
        beyond = self._folder.folder / tile_path(0, following)
        at_edge = self._folder.folder / (tile_path(0, self.size // WIDTH) + ".p")
        wider = [int(path.name) for path in at_edge.glob("*") if path.name.isdigit() and self.size % WIDTH]
        whole = self.size % WIDTH and (self._folder.folder / tile_path(0, self.size // WIDTH)).exists()
        if beyond.exists() or whole or any(width > self.size % WIDTH for width in wider):
            text = f"there are tiles beyond the newest checkpoint (size {self.size:,}): an older one was put back"
            found.append(Wrong("checkpoint replaced", self.size + 1, self.size + 1, text))
        return found

    def _checkpoints(self) -> list[Wrong]:
        found: list[Wrong] = []
        agreed = 0
        if self._ours is not None and not self._differs and self._roots.get(self.size) != self._ours.root:
            text = "the newest checkpoint has another root than the stream and the tiles: it was replaced"
            found.append(Wrong("checkpoint forged", 1, self.size, text))
        for one in self._brought:
            if not one.signed_by(self._trusted):
                text = f"your checkpoint of size {one.size:,} is signed by no key that is trusted here"
                found.append(Wrong("checkpoint not trusted", 1, one.size, text))
            elif self._ours is not None and one.size > self.size:
                text = f"your checkpoint covers {one.size:,} positions, ours {self.size:,}: an older state was put back"
                found.append(Wrong("history shortened", self.size + 1, one.size, text))
            elif self._roots.get(one.size, b"") != one.root and not self._explained(one):
                text = f"what is sealed here is not what your checkpoint of size {one.size:,} covers: history forked"
                found.append(Wrong("history forked", agreed + 1, one.size, text))
            else:
                agreed = one.size
        return found

    def _explained(self, one: Checkpoint) -> bool:
        """Whether the tiles agree with a brought checkpoint, so that what differs is the stream, named elsewhere."""
        tiles = self._folder.tiles(self.size)
        try:
            path = consistency_proof(one.size, self.size, tiles.range_hash)
            check_consistency(one.size, self.size, one.root, tiles.root(), path)
        except (MissingTileError, ProofError):
            return False
        return bool(self._differs)


def describe(differs: Sequence[_Differs], size: int, last_position: int) -> list[Wrong]:
    """Runs of differing positions, and what each is: edited, removed, swapped, inserted, rewritten, cut."""
    found: list[Wrong] = []
    for run in _runs(differs):
        first, last = run[0].position, run[-1].position
        sealed = {one.sealed: one.position for one in run}
        moved = [(one.position, sealed[one.found]) for one in run if one.found in sealed]
        if all(not one.found for one in run):
            cut = first > last_position
            kind, text = ("cut", "the log ends before them") if cut else ("removed", "the stream has nothing there")
        elif len(moved) >= 2 and all(here > was for here, was in moved) and 2 * len(moved) > len(run):  # noqa: PLR2004
            count = moved[0][0] - moved[0][1]
            kind, text = "inserted", f"{count} in the middle; those behind have moved on"
        elif len(moved) >= 2 and all(here < was for here, was in moved) and 2 * len(moved) > len(run):  # noqa: PLR2004
            kind, text = "removed", "and those behind have moved up"
        elif all(not one.sealed for one in run):
            kind, text = "added", "nothing was sealed there"
        elif len(moved) == len(run) and len(run) > 1:
            kind, text = "swapped", "the same events in another order"
        elif last == size and len(run) > 1:
            kind, text = "rewritten", "other events stand where these were sealed"
        else:
            kind, text = "edited", "the event is not what was sealed"
        where = f"position {first:,}" if first == last else f"positions {first:,} to {last:,}"
        found.append(Wrong(kind, first, last, f"{where}: {text}"))
    return _swapped_apart(found, differs)


def _swapped_apart(found: list[Wrong], differs: Sequence[_Differs]) -> list[Wrong]:
    """Two single positions far apart whose contents changed places are one finding."""
    by_position = {one.position: one for one in differs}
    edited = [wrong for wrong in found if wrong.kind == "edited"]
    for one, other in itertools.combinations(edited[:200], 2):
        a, b = by_position[one.first], by_position[other.first]
        if a.sealed == b.found and b.sealed == a.found:
            found.remove(one)
            found.remove(other)
            text = f"positions {a.position:,} and {b.position:,}: their events have changed places"
            found.append(Wrong("swapped", a.position, b.position, text))
    return found


def _runs(differs: Sequence[_Differs]) -> list[list[_Differs]]:
    """Neighbouring positions together, those with nothing apart from those with something else."""
    runs: list[list[_Differs]] = []
    for one in sorted(differs):
        previous = runs[-1][-1] if runs else None
        if previous and one.position == previous.position + 1 and bool(one.found) == bool(previous.found):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _content(entry: bytes) -> bytes:
    """The hash of what an entry holds besides its position; empty where it holds nothing."""
    try:
        return b"" if not entry or read_entry(entry).is_gap else sha256(entry[9:]).digest()
    except ValueError:
        return sha256(entry).digest()


def _cut(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
