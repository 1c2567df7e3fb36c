"""RFC 6962 Merkle trees: hashes, roots and the two proofs, independent of the storage of hashes."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
"""The root of a tree without leaves (RFC 6962, 2.1)."""


class ProofError(LedgerError, ValueError):
    """A proof is not valid."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf (RFC 6962, 2.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 6962, 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root over these hashes, left to right, each of a leaf or a complete subtree of one size.

    The last may be an incomplete subtree of that size: a tree is split at the largest power of two.
    """
    level = list(hashes)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        paired = [sha256(b"\x01" + level[one] + level[one + 1]).digest() for one in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def inclusion_proof(index: int, size: int, range_hash: Callable[[int, int], bytes]) -> list[bytes]:
    """Return the audit path of a leaf (RFC 6962, 2.1.1). ``range_hash(start, end)`` is the root over those leaves.

    Raises:
        ValueError: there is no such leaf in a tree of this size.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_hash(middle, end))
            end = middle
        else:
            path.append(range_hash(start, middle))
            start = middle
    return path[::-1]


def consistency_proof(size: int, larger: int, range_hash: Callable[[int, int], bytes]) -> list[bytes]:
    """Return the proof that a tree of ``size`` leaves is the beginning of a larger one (RFC 6962, 2.1.2)."""
    if not 0 <= size <= larger:
        raise ValueError(f"{size} leaves cannot be the beginning of {larger}")
    if size in (0, larger):
        return []
    path: list[bytes] = []
    start, end, is_left_edge = 0, larger, True
    while size != end:
        middle = start + _split(end - start)
        if size <= middle:
            path.append(range_hash(middle, end))
            end = middle
        else:
            path.append(range_hash(start, middle))
            start, is_left_edge = middle, False
    if not is_left_edge:
        path.append(range_hash(start, end))
    return path[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf's hash is in the tree (RFC 9162, 2.1.3.2).

    Raises:
        ProofError: the proof is not valid.
    """
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {index}")
    _check_lengths(leaf, root, *path)
    first, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofError("the proof is too long")
        if first % 2 or first == last:
            found = node_hash(sibling, found)
            while first % 2 == 0 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        first, last = first >> 1, last >> 1
    if last or found != root:
        raise ProofError("the proof is too short" if last else "the proof leads to another root")


def check_consistency(size: int, larger: int, root: bytes, larger_root: bytes, path: Sequence[bytes]) -> None:
    """Check that one tree is the beginning of another (RFC 9162, 2.1.4.2).

    Raises:
        ProofError: the proof is not valid.
    """
    if not 0 <= size <= larger:
        raise ProofError(f"a tree of {size} leaves cannot be the beginning of one of {larger}")
    _check_lengths(*path)
    if size in (0, larger):
        if path:
            raise ProofError("the proof has hashes although it needs none")
        if size == 0:
            _check_lengths(larger_root)
        if root != (larger_root if size else EMPTY_ROOT) or (larger == 0 and larger_root != EMPTY_ROOT):
            raise ProofError("the roots differ")
        return
    hashes = list(path)
    if size & (size - 1) == 0:
        hashes.insert(0, root)
    found_root, found_larger_root = _both_roots(size - 1, larger - 1, hashes)
    if found_root != root or found_larger_root != larger_root:
        raise ProofError("the proof leads to other roots")


def _check_lengths(*hashes: bytes) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise ProofError("a hash is not of 32 bytes")


def _both_roots(first: int, last: int, hashes: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the roots of both trees that a consistency proof leads to."""
    if not hashes:
        raise ProofError("the proof is empty")
    while first % 2:
        first, last = first >> 1, last >> 1
    smaller_root = larger_root = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if first % 2 or first == last:
            smaller_root, larger_root = node_hash(sibling, smaller_root), node_hash(sibling, larger_root)
            while first % 2 == 0 and first:
                first, last = first >> 1, last >> 1
        else:
            larger_root = node_hash(larger_root, sibling)
        first, last = first >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")
    return smaller_root, larger_root


def _split(count: int) -> int:
    """Return the largest power of two below ``count``."""
    return 1 << ((count - 1).bit_length() - 1)
