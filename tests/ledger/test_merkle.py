"""Merkle trees: the published vectors, the definition itself, and tiles that give the same."""

import base64
import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.transparency.merkle import (
    ProofError,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
)
from ledger.transparency.tiles import DifferentTileError, MissingTileError, Tiles, TileWriter, tile_path
from tests.support.environment import ROOT

VECTORS = ROOT.parent / "shared" / "data" / "rfc6962_vectors.json"
needs_vectors = pytest.mark.skipif(
    not VECTORS.exists(), reason="the vectors are not beside this checkout (shared/data)"
)


def by_definition(leaves: list[bytes]) -> bytes:
    """Return the root of a tree by the definition of RFC 6962, section 2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


def _bytes(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def _holds(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except ProofError:
        return False
    return True


@needs_vectors
def test_all_published_vectors_are_judged_as_published() -> None:
    vectors = json.loads(VECTORS.read_text())
    wrong = []
    for one in vectors["inclusion"]:
        path = [_bytes(text) for text in one["proof"] or ()]
        held = _holds(
            check_inclusion, _bytes(one["leafHash"]), one["leafIdx"], one["treeSize"], path, _bytes(one["root"])
        )
        wrong += [one["case"]] if held == one["wantErr"] else []
    for one in vectors["consistency"]:
        path = [_bytes(text) for text in one["proof"] or ()]
        roots = _bytes(one["root1"]), _bytes(one["root2"])
        held = _holds(check_consistency, one["size1"], one["size2"], *roots, path)
        wrong += [one["case"]] if held == one["wantErr"] else []
    assert len(vectors["inclusion"]) + len(vectors["consistency"]) == 196
    assert wrong == []


def test_from_nothing_only_the_empty_root_leads_anywhere() -> None:
    root = by_definition([b"a"])
    check_consistency(0, 1, root_of([]), root, [])
    with pytest.raises(ProofError):
        check_consistency(0, 1, root, root, [])


@given(st.integers(1, 70), st.data())
def test_proofs_of_any_tree_hold_and_lead_nowhere_when_anything_differs(size: int, data: st.DataObject) -> None:
    leaves = [bytes([number]) for number in range(size)]

    def hashed(start: int, end: int) -> bytes:
        return by_definition(leaves[start:end])

    root = hashed(0, size)
    assert root_of([leaf_hash(leaf) for leaf in leaves]) == root
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_proof(index, size, hashed)
    check_inclusion(leaf_hash(leaves[index]), index, size, path, root)
    for broken in ([*path, root], path[:-1], path[::-1]):
        if broken != path:
            assert not _holds(check_inclusion, leaf_hash(leaves[index]), index, size, broken, root)
    assert not _holds(check_inclusion, leaf_hash(b"x"), index, size, path, root)
    smaller = data.draw(st.integers(0, size))
    proof = consistency_proof(smaller, size, hashed)
    check_consistency(smaller, size, hashed(0, smaller), root, proof)
    assert not _holds(check_consistency, smaller, size, leaf_hash(b"x"), root, proof)


def entries(number: int, start: int = 0) -> list[bytes]:
    return [b"entry %d" % one for one in range(start, start + number)]


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.integers(1, 400), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_tiles_give_what_the_definition_gives(
    steps: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tiles")
    writer, size = TileWriter(folder), 0
    for step in steps:
        writer.append(entries(step, size))
        size += step
        for old in writer.flush():
            old.unlink()
        if random.Random(seed + size).random() < 0.5:
            writer = TileWriter(folder, size)  # as after a restart
    all_entries = entries(size)
    root = by_definition(all_entries)
    tiles = Tiles(folder, size)
    assert writer.root() == tiles.root() == root
    index = seed % size
    assert tiles.entry(index) == all_entries[index]
    check_inclusion(leaf_hash(all_entries[index]), index, size, inclusion_proof(index, size, tiles.range_hash), root)
    before = steps[0]
    path = consistency_proof(before, size, tiles.range_hash)
    check_consistency(before, size, by_definition(all_entries[:before]), root, path)


def test_a_tile_is_never_written_over_with_something_else(tmp_path: Path) -> None:
    writer = TileWriter(tmp_path)
    writer.append(entries(300))
    writer.flush()
    again = TileWriter(tmp_path)
    with pytest.raises(DifferentTileError, match="tile/0/000"):
        again.append(entries(256, start=1))


def test_a_missing_tile_is_named(tmp_path: Path) -> None:
    writer = TileWriter(tmp_path)
    writer.append(entries(300))
    writer.flush()
    (tmp_path / tile_path(0, 1, 44)).unlink()
    with pytest.raises(MissingTileError, match=r"tile/0/001\.p/44"):
        Tiles(tmp_path, 300).root()


def test_paths_are_those_of_the_specification() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path("entries", 5, 17) == "tile/entries/005.p/17"
