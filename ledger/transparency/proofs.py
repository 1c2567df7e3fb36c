"""Self-contained proofs: C2SP tlog-proof files (https://c2sp.org/tlog-proof), made from tiles, checked with a key."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, NamedTuple

from ledger.transparency.merkle import ProofError, check_inclusion, inclusion_proof, leaf_hash
from ledger.transparency.sealer import SealEntry, decode_entry
from ledger.transparency.signed_notes import Checkpoint, NoteError, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.transparency.signed_notes import Verifier
    from ledger.transparency.tiles import Tiles

_FIRST_LINE = "c2sp.org/tlog-proof@v1"


class Proof(NamedTuple):
    """An entry, its leaf index, the path to the root, and the checkpoint with that root."""

    entry: bytes
    place: int
    path: list[bytes]
    checkpoint: Checkpoint

    def text(self) -> str:
        """Return a `.tlog-proof` file; `extra` is the entry itself, so that the file is self-contained."""
        path = "".join(base64.b64encode(one).decode() + "\n" for one in self.path)
        extra = base64.b64encode(self.entry).decode()
        return f"{_FIRST_LINE}\nextra {extra}\nindex {self.place}\n{path}\n{self.checkpoint.note}"


def prove(tiles: Tiles, checkpoint: Checkpoint, position: int) -> Proof:
    """Return the proof that the event at a position is under a checkpoint; ``tiles`` have the checkpoint's size.

    Raises:
        ValueError: the position is not under it.
        MissingTileError: a tile is missing.
        ProofError: the tiles do not lead to the checkpoint's root.
    """
    index = position - 1
    proof = Proof(
        tiles.entry(index) if 0 <= index < tiles.size else b"",
        index,
        inclusion_proof(index, checkpoint.size, tiles.range_hash),
        checkpoint,
    )
    check_inclusion(leaf_hash(proof.entry), index, checkpoint.size, proof.path, checkpoint.root)
    return proof


def read_proof(text: str) -> Proof:
    """Return the proof in a `.tlog-proof` file.

    Raises:
        ProofError: the text is not such a file.
    """
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")
    try:
        if lines[0] != _FIRST_LINE or not lines[1].startswith("extra ") or not lines[2].startswith("index "):
            raise ProofError(f"not a proof: the first lines are {_FIRST_LINE!r}, 'extra ...' and 'index ...'")
        entry = base64.b64decode(lines[1].removeprefix("extra "), validate=True)
        index = int(lines[2].removeprefix("index "))
        path = [base64.b64decode(line, validate=True) for line in lines[3:]]
        return Proof(entry, index, path, read_checkpoint(note))
    except (IndexError, binascii.Error, NoteError) as error:
        raise ProofError(f"not a proof: {error}") from error
    except ValueError as error:
        raise error if isinstance(error, ProofError) else ProofError(f"not a proof: {error}") from error


def verify_proof(proof: Proof, verifiers: Sequence[Verifier]) -> SealEntry:
    """Return the proven event, after checking the proof with the verifiers' keys alone.

    Raises:
        ProofError: the proof is not valid, or none of the verifiers has signed its checkpoint.
    """
    if not proof.checkpoint.signed_by(verifiers):
        raise ProofError("none of the given keys has signed the checkpoint")
    check_inclusion(leaf_hash(proof.entry), proof.place, proof.checkpoint.size, proof.path, proof.checkpoint.root)
    try:
        entry = decode_entry(proof.entry)
    except ValueError as error:
        raise ProofError(str(error)) from error
    if entry.position != proof.place + 1:
        raise ProofError("the entry's position is not the one that the proof shows")
    return entry
