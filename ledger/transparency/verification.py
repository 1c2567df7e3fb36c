"""Verification of the stream, the tiles and the checkpoints against each other, with a finding for each difference."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from ledger.errors import LedgerError
from ledger.files import read_bounded, write_atomically
from ledger.transparency.event_differences import EventDifference, SealFinding, describe_differences, entry_content_hash
from ledger.transparency.merkle import HASH_BYTES, ProofError, check_consistency, consistency_proof, leaf_hash, root_of
from ledger.transparency.seal_record import SealTrace
from ledger.transparency.sealer import encode_entry, encode_gap
from ledger.transparency.signed_notes import Checkpoint, Verifier, open_note, sign_note
from ledger.transparency.tiles import WIDTH, MissingTileError, split_hashes, tile_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ledger.store.log import Recorded
    from ledger.transparency.sealer import SealFolder

_REMEMBERED = 100_000
_MISSING_TOLD = 16
_SIGNED_SECONDS = 3.0
_STATE = "resolution-ledger verification state v1"
_STATE_BYTES = 64 * 1024 * 1024


class CompactRange:
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
        """Return the current root."""
        return self._fold(self.hashes)

    def root_with(self, leaves: Sequence[bytes]) -> bytes:
        """Return the root if these leaves, less than a tile, were added."""
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
    """Reads the whole stream in order, in batches, and returns its findings. ``save`` and ``load`` continue a run."""

    def __init__(
        self,
        folder: SealFolder,
        presented: Sequence[Checkpoint],
        trusted: Sequence[Verifier],
        record: SealTrace | None = None,
        archived: Checkpoint | None = None,
    ) -> None:
        """``presented`` are checkpoints that an auditor holds, ``trusted`` the keys that the auditor trusts.

        ``record`` is the server's record of the seal, ``archived`` the archive's checkpoint. Nothing is written, and an
        unreadable part is a finding.
        """
        self._folder = folder
        self._unreadable: list[str] = []
        self._verifiers = self._read(folder.verifiers, list[Verifier]())
        self._record = record or SealTrace()
        if self._record.damage:
            self._unreadable.append(self._record.damage)
        given_keys = list(trusted) or self._verifiers[:1] or self._record.verifiers[-1:]
        self.trusted_keys = self._read(lambda: folder.trusted(given_keys), given_keys)
        self.newest = self._read(folder.checkpoint, None)
        self._presented = sorted(presented, key=lambda checkpoint: checkpoint.size)
        if archived is not None and not archived.signed_by(self.trusted_keys):
            archived = None  # the archive may still be under an earlier seal
        named = ((self._record.checkpoint, "the server's checkpoint"), (archived, "the archive's checkpoint"))
        self._other_checkpoints = [(one, name) for one, name in named if one is not None and one not in self._presented]
        others = [one for one, _ in self._other_checkpoints]
        trusted_checkpoints = [one for one in (*self._presented, *others) if one.signed_by(self.trusted_keys)]
        self.size = self.newest.size if self.newest else max((one.size for one in trusted_checkpoints), default=0)
        self._tiles = folder.tiles(self.size)
        self._edge = CompactRange()
        self._open_entries: list[bytes] = []
        self._sizes = sorted({one.size for one in (*self._presented, *others, *([self.newest] if self.newest else []))})
        self._roots: dict[int, bytes] = {0: root_of([])}
        self._differs: list[EventDifference] = []
        self._bad_tiles: list[SealFinding] = []
        self.gaps: list[int] = []
        self._missing_unsealed: list[SealFinding] = []
        self.position = 0
        self.last = 0

    def _read[T](self, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except (OSError, ValueError) as error:
            if str(error) not in self._unreadable:
                self._unreadable.append(str(error))
            return otherwise

    def save(self, path: Path, log_id: str) -> None:
        """Store the progress, signed; only if there is no finding so far, and at the end of a tile."""
        wrong = self._differs or self._bad_tiles or self._unreadable or self.newest is None
        if wrong or self._open_entries or self._edge.size % WIDTH:
            return
        state = {
            "log": log_id,
            "size": self._edge.size,
            "edge": [one.hex() for one in self._edge.hashes],
            "gaps": self.gaps,
        }
        with suppress(OSError, ValueError):  # without the key or disk space the next run starts from the beginning
            note = sign_note(f"{_STATE}\n{json.dumps(state)}\n", self._folder.signer())
            write_atomically(path, note.encode())

    def load(self, path: Path, log_id: str) -> None:
        """Continue a saved run, else start from the beginning.

        A state is valid if a trusted key has signed it, for the same stream, and if its tree equals the tiles, from
        which the roots are computed again.
        """
        try:
            head, _, text = open_note(read_bounded(path, _STATE_BYTES).decode(), self.trusted_keys).partition("\n")
            state = json.loads(text)
            size, edge = (
                int(state["size"]),
                CompactRange(int(state["size"]), [bytes.fromhex(one) for one in state["edge"]]),
            )
            if head != _STATE or state["log"] != log_id or not 0 < size <= self.size or size % WIDTH:
                return
            if edge.root() != self._tiles.root_at(size):
                return
            roots = {one: self._tiles.root_at(one) for one in self._sizes if one <= size}
            gaps = [int(one) for one in state["gaps"]]
        except (OSError, ValueError, KeyError, TypeError, MissingTileError):
            return
        self._edge, self.gaps, self.position = edge, gaps, size
        self._roots |= roots

    def take(self, batch: Sequence[Recorded]) -> None:
        """Compare the next events of the stream with the tiles."""
        for recorded in batch:
            while self.position + 1 < recorded.position and self.position < self.size:
                self._next(encode_gap(self.position + 1))
            self._note_missing(recorded.position)
            self.last = recorded.position
            self._next(encode_entry(*recorded))

    def _note_missing(self, until: int) -> None:
        """Note unsealed positions before ``until`` that are missing in the stream."""
        first = max(self.last, self.size) + 1
        if first < until:
            where = f"position {first:,}" if first == until - 1 else f"positions {first:,} to {until - 1:,}"
            text = f"{where}: not sealed yet, and the stream has no readable event there"
            self._missing_unsealed.append(SealFinding("removed", first, until - 1, text))

    def _next(self, entry: bytes) -> None:
        if self.position >= self.size:
            return
        self.position += 1
        self._open_entries.append(entry)
        if len(self._open_entries) == WIDTH or self.position == self.size:
            self._close_tile()

    def _close_tile(self) -> None:
        """Compare one tile's worth of the stream with the tile and its bundle."""
        entries, self._open_entries = self._open_entries, []
        first = self._edge.size
        leaves = [sha256(b"\x00" + entry).digest() for entry in entries]
        for size in self._sizes:
            if first < size <= first + len(leaves):
                self._roots[size] = self._edge.root_with(leaves[: size - first])
        self._edge.add_tile(leaves)
        if self.newest is None:
            return  # there are no tiles to compare with
        index = first // WIDTH
        try:
            tile = self._tiles.hashes(0, index)
            sealed = self._tiles.entries(index)
        except MissingTileError as error:
            self._bad_tiles.append(SealFinding("tile missing", first + 1, first + len(leaves), str(error)))
            return
        self.gaps += [first + place + 1 for place, entry in enumerate(sealed) if entry[:1] == b"\x00"]
        if b"".join(leaves) == tile:
            if sealed != entries:
                path = tile_path("entries", index, len(leaves))
                text = f"the bundle {path} was edited: the stream and the hashes of its entries agree with each other"
                self._bad_tiles.append(SealFinding("tile edited", first + 1, first + len(leaves), text))
            return
        self._compare(first, entries, sealed, tile)

    def _compare(self, first: int, entries: list[bytes], sealed: list[bytes], tile: bytes) -> None:
        for place, (entry, sealed_entry) in enumerate(zip(entries, sealed, strict=True)):
            hashed = tile[place * HASH_BYTES : (place + 1) * HASH_BYTES]
            if leaf_hash(entry) != hashed and len(self._differs) < _REMEMBERED:
                self._differs.append(
                    EventDifference(first + place + 1, entry_content_hash(sealed_entry), entry_content_hash(entry))
                )

    def findings(self, last_position: int) -> list[SealFinding]:
        """Return all findings, by position; empty if the history is the sealed one."""
        self._rest_as_gaps(last_position)
        self._note_missing(last_position + 1)
        self.last = max(self.last, last_position)
        found = [
            *self._missing_unsealed,
            *self._evidence(last_position),
            *self._keys(),
            *self._bad_tiles,
            *self._upper_tiles(),
        ]
        found += self._checkpoints()
        if self._differs:
            found += self._classify_differences(last_position)
        return sorted(found, key=lambda wrong: (wrong.first, wrong.kind))

    def _rest_as_gaps(self, last_position: int) -> None:
        """Treat missing events at the end as gaps, as far as their tiles exist: a forged size may be any number."""
        while self.position < self.size:
            if self.position >= last_position and self.position % WIDTH == 0 and not self._open_entries:
                try:
                    self._tiles.hashes(0, self.position // WIDTH)
                except MissingTileError as error:
                    self._bad_tiles.append(SealFinding("tile missing", self.position + 1, self.size, str(error)))
                    return
            self._next(encode_gap(self.position + 1))

    def _evidence(self, last_position: int) -> list[SealFinding]:
        """Return findings on unreadable and missing parts of the seal."""
        last = max(self.size, last_position, 1)
        cosigned = self._read(self._folder.cosigned, list[Checkpoint]())
        found = [SealFinding("evidence damaged", 1, last, text) for text in self._unreadable]
        for note in cosigned:
            if note.size > self.size or not note.signed_by(self.trusted_keys) or not self._has_root(note):
                text = f"the cosigned checkpoint of size {note.size:,} is not one of this seal"
                found.append(SealFinding("evidence damaged", 1, note.size, text))
        nothing_yet = not last_position and (self._folder.is_begun or not self._record.begun)
        if self.newest is not None or (nothing_yet and self._record.checkpoint is None):
            return found
        begun = f"it was begun at {self._record.begun[-1].at}" if self._record.begun else "none was ever begun here"
        text = (
            f"there is no checkpoint in {self._folder.folder} to compare the log with ({begun}). Restore the folder "
            "`seal` from a backup, or the `checkpoint` and `verifiers` of the archive, or name a checkpoint that an "
            "auditor or a witness holds: --checkpoint FILE --key KEY. If nothing was sealed yet, `up` or `run seal` "
            "begins the seal"
        )
        return [*found, SealFinding("evidence missing", 1, last, text)]

    def _has_root(self, note: Checkpoint) -> bool:
        try:
            return self._tiles.root_at(note.size) == note.root
        except MissingTileError:
            return False

    def _classify_differences(self, last_position: int) -> list[SealFinding]:
        """Return whether the stream differs from the signed root, or only the tiles do."""
        stream_root = self._roots.get(self.size)
        if self.newest is not None and stream_root == self.newest.root:
            first, last = self._differs[0].position, self._differs[-1].position
            paths = sorted({tile_path(0, (differs.position - 1) // WIDTH) for differs in self._differs})
            text = f"the tile {paths[0]} was edited: the stream agrees with the signed checkpoint"
            return [SealFinding("tile edited", first, last, text)]
        return describe_differences(self._differs, self.size, last_position)

    def _keys(self) -> list[SealFinding]:
        found: list[SealFinding] = []
        if self.newest is None:
            if self._presented:
                text = "there is no checkpoint here, although you hold one: the seal was removed"
                found.append(SealFinding("checkpoint missing", 1, self._presented[-1].size, text))
            return found
        if not self.newest.signed_by(self.trusted_keys):
            known = self.newest.signed_by(self._verifiers)
            state = "signed with a key without a handover" if known else "signed by an unknown key"
            text = f"the newest checkpoint is {state}: the key or the checkpoint was replaced"
            found.append(SealFinding("key replaced" if known else "checkpoint forged", 1, self.newest.size, text))
        if self._record.begun and self._verifiers[:1] and self._verifiers[0] not in self._record.verifiers:
            text = "the first verifier key here is not the one with which this ledger's seal was begun"
            found.append(SealFinding("key replaced", 1, self.newest.size, text))
        try:
            signing_key = self._folder.signer().verifier
        except (OSError, ValueError) as error:
            found.append(SealFinding("evidence damaged", 1, self.newest.size, str(error)))
            return found
        if signing_key not in self.trusted_keys:
            text = "the signing key here neither signed before nor has a handover"
            found.append(SealFinding("key replaced", 1, self.newest.size, text))
        return found

    def _upper_tiles(self) -> list[SealFinding]:
        """Return findings on tiles that do not follow from the level below, or lie beyond the newest checkpoint."""
        found: list[SealFinding] = []
        level = 1
        while self.newest is not None and self.size >> (8 * level):
            missing = 0
            for index in range(-(-(self.size >> (8 * level)) // WIDTH)):
                try:
                    tile = self._tiles.hashes(level, index)
                    below = range(index * WIDTH, index * WIDTH + len(tile) // HASH_BYTES)
                    expected = [
                        root_of(split_hashes(self._tiles.hashes(level - 1, lower_index))) for lower_index in below
                    ]
                except MissingTileError as error:
                    found.append(SealFinding("tile missing", 1, self.size, str(error)))
                    missing += 1
                    if missing == _MISSING_TOLD:
                        break  # the others are probably missing, too
                    continue
                for place, (found_hash, expected_hash) in enumerate(zip(split_hashes(tile), expected, strict=True)):
                    if found_hash != expected_hash:
                        leaves_below = WIDTH**level
                        first = (index * WIDTH + place) * leaves_below + 1
                        text = f"the tile {tile_path(level, index)} does not follow from those below it"
                        found.append(SealFinding("tile edited", first, first + leaves_below - 1, text))
            level += 1
        following = self.size // WIDTH + (1 if self.size % WIDTH else 0)
        if self.newest is None:
            return found
        beyond = self._folder.folder / tile_path(0, following)
        at_edge = self._folder.folder / (tile_path(0, self.size // WIDTH) + ".p")
        widths = [int(path.name) for path in at_edge.glob("*") if path.name.isdigit() and self.size % WIDTH]
        has_full_tile = self.size % WIDTH and (self._folder.folder / tile_path(0, self.size // WIDTH)).exists()
        is_beyond = beyond.exists() or has_full_tile or any(width > self.size % WIDTH for width in widths)
        if is_beyond and not self._is_being_signed():
            text = f"there are tiles beyond the newest checkpoint (size {self.size:,}): an older one was put back"
            found.append(SealFinding("checkpoint replaced", self.size + 1, self.size + 1, text))
        return found

    def _is_being_signed(self) -> bool:
        """Wait for a newer signed checkpoint: a live seal writes tiles first and signs within about a second."""
        until = time.monotonic() + _SIGNED_SECONDS
        while time.monotonic() < until:
            with suppress(LedgerError, OSError, ValueError):
                newest = self._folder.checkpoint()
                if newest is not None and newest.size > self.size and newest.signed_by(self.trusted_keys):
                    return True
            time.sleep(0.1)
        return False

    def _checkpoints(self) -> list[SealFinding]:
        found: list[SealFinding] = []
        agreed = 0
        if self.newest is not None and not self._differs and self._roots.get(self.size) != self.newest.root:
            text = "the newest checkpoint has another root than the stream and the tiles: it was replaced"
            found.append(SealFinding("checkpoint forged", 1, self.size, text))
        named_checkpoints = [
            *((checkpoint, "your checkpoint") for checkpoint in self._presented),
            *self._other_checkpoints,
        ]
        for checkpoint, name in sorted(named_checkpoints, key=lambda pair: pair[0].size):
            if not checkpoint.signed_by(self.trusted_keys):
                text = f"{name} of size {checkpoint.size:,} is not signed by a key that is trusted here"
                found.append(SealFinding("checkpoint not trusted", 1, checkpoint.size, text))
            elif self.newest is not None and checkpoint.size > self.size:
                text = f"{name} covers {checkpoint.size:,} positions, ours {self.size:,}: an older state was put back"
                found.append(SealFinding("history shortened", self.size + 1, checkpoint.size, text))
            elif self._roots.get(checkpoint.size, b"") != checkpoint.root and not self._explained(checkpoint):
                source = "the seal" if self.newest is not None else "the log"
                text = f"{source} differs from {name} of size {checkpoint.size:,}: history forked"
                found.append(SealFinding("history forked", agreed + 1, checkpoint.size, text))
            else:
                agreed = checkpoint.size
        return found

    def _explained(self, checkpoint: Checkpoint) -> bool:
        """Return whether the tiles agree with a checkpoint, so that the stream differs, which is another finding."""
        tiles = self._folder.tiles(self.size)
        try:
            path = consistency_proof(checkpoint.size, self.size, tiles.range_hash)
            check_consistency(checkpoint.size, self.size, checkpoint.root, tiles.root(), path)
        except (MissingTileError, ProofError):
            return False
        return bool(self._differs)
