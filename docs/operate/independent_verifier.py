#!/usr/bin/env python3
"""Verify a proof or an archive of a ledger, by RFC 6962 and C2SP alone: this file shares no code with the ledger.

    python independent_verifier.py PROOF KEYS
    python independent_verifier.py ARCHIVE KEYS [CHECKPOINT]

PROOF is a file that `audit prove` wrote, ARCHIVE a folder of Parquet files, and CHECKPOINT a checkpoint that you kept.
KEYS is a verifier key (name+id+key), or a file with one a line. Prints the proven event, or the positions that the
checkpoint proves. Exit status 1: it does not hold. Needs `cryptography`, and `pyarrow` for an archive.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterator

GAP = "ledger.gap"
"""The subject of a row for a position without an event."""


class WrongError(Exception):
    """The evidence does not hold; the message says what is wrong."""


def require(condition: object, problem: str) -> None:
    """Raise WrongError unless the condition holds. An assertion would vanish under `python -O`."""
    if not condition:
        raise WrongError(problem)


def sha256(*parts: bytes) -> bytes:
    """Return the hash of the parts together."""
    return hashlib.sha256(b"".join(parts)).digest()


def signed_root(note: str, keys: list[str]) -> tuple[int, bytes]:
    """Return size and root of a checkpoint that one of the keys signed (C2SP signed-note and tlog-checkpoint)."""
    text, signatures = note.split("\n\n", 1)
    text += "\n"
    for vkey in keys:
        name, key_id, key = vkey.split("+", 2)
        public = base64.b64decode(key)
        require(sha256(name.encode(), b"\n", public)[:4].hex() == key_id, f"the key of {name} does not fit its id")
        for line in signatures.splitlines():
            _dash, signer, encoded = line.split(" ")
            signature = base64.b64decode(encoded)
            if signer == name and signature[:4].hex() == key_id:
                try:
                    Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[4:], text.encode())
                except InvalidSignature:
                    raise WrongError("a signature of the checkpoint is wrong") from None
                _origin, size, root = text.split("\n")[:3]
                return int(size), base64.b64decode(root)
    raise WrongError("none of the keys signed the checkpoint")


def split_of(count: int) -> int:
    """Return the largest power of two below a number of leaves, where RFC 6962 divides a tree."""
    return int(1 << ((count - 1).bit_length() - 1))


def climb(leaf: bytes, number: int, count: int, path: list[bytes]) -> bytes:
    """Return the root above leaf ``number`` of ``count`` (RFC 6962, 2.1.1)."""
    if count == 1:
        require(not path, "the path is too long")
        return leaf
    require(path, "the path is too short")
    split = split_of(count)
    if number < split:
        return sha256(b"\1", climb(leaf, number, split, path[:-1]), path[-1])
    return sha256(b"\1", path[-1], climb(leaf, number - split, count - split, path[:-1]))


def root_of(leaves: list[bytes]) -> bytes:
    """Return the root of a tree (RFC 6962, 2.1)."""
    if len(leaves) == 1:
        return leaves[0]
    split = split_of(len(leaves))
    return sha256(b"\1", root_of(leaves[:split]), root_of(leaves[split:]))


def proven_event(proof: str, keys: list[str]) -> str:
    """Return the event of a C2SP tlog-proof."""
    head, note = proof.split("\n\n", 1)
    kind, extra, index, *path = head.split("\n")
    require(kind == "c2sp.org/tlog-proof@v1", "this is not a tlog-proof")
    require(extra.startswith("extra ") and index.startswith("index "), "the proof lacks its event or its index")
    entry, number = base64.b64decode(extra[6:]), int(index[6:])
    size, root = signed_root(note, keys)
    require(number < size, "the checkpoint does not cover the event")
    hashes = [base64.b64decode(line) for line in path]
    require(climb(sha256(b"\0", entry), number, size, hashes) == root, "the path leads to another root")
    return entry[11 + int.from_bytes(entry[9:11]) :].decode()


def archived_leaves(folder: Path) -> Iterator[bytes]:
    """Yield the leaf of each position, from 1 on."""
    import pyarrow.parquet as pq  # a proof needs no pyarrow

    parts = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    position = 0
    for part in parts:
        table = pq.ParquetFile(folder / part["file"]).read(columns=["position", "subject", "event"])
        for row in table.to_pylist():
            position += 1
            require(row["position"] == position, f"position {position} is missing in {part['file']}")
            at, subject = position.to_bytes(8), row["subject"].encode()
            if row["subject"] == GAP:
                yield sha256(b"\0", b"\0", at)
            else:
                yield sha256(b"\0", b"\1", at, len(subject).to_bytes(2), subject, row["event"])


def proven_positions(folder: Path, keys: list[str], checkpoint: str | None) -> int:
    """Return the number of an archive's positions that its checkpoint proves, and yours beside it."""
    leaves = list(archived_leaves(folder))
    notes = {"the archive's checkpoint": (folder / "checkpoint").read_text(encoding="utf-8")}
    if checkpoint is not None:
        notes["your checkpoint"] = checkpoint
    proven = 0
    for name, note in notes.items():
        size, root = signed_root(note, keys)
        require(size <= len(leaves), f"{name} covers {size} positions, and the archive has {len(leaves)}")
        require(root_of(leaves[:size]) == root, f"events up to position {size} are not those of {name}")
        proven = max(proven, size)
    require(proven == len(leaves), f"no checkpoint covers the positions {proven + 1} to {len(leaves)}")
    return proven


def main(evidence: str, keys: str, checkpoint: str | None = None) -> None:
    """Verify, and print the result."""
    path = Path(keys)
    known = (path.read_text(encoding="utf-8") if path.is_file() else keys).split()
    if Path(evidence).is_dir():
        kept = None if checkpoint is None else Path(checkpoint).read_text(encoding="utf-8")
        sys.stdout.write(f"positions 1 to {proven_positions(Path(evidence), known, kept)} are proven\n")
    else:
        sys.stdout.write(proven_event(Path(evidence).read_text(encoding="utf-8"), known) + "\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # noqa: BLE001 - whatever is wrong, the evidence does not hold
        sys.exit(f"it does not hold: {error}" if isinstance(error, WrongError) else f"it does not hold: {error!r}")
