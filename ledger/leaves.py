"""Leaves of the archive, hashed in bulk by DataFusion, which needs no Python object for each of them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datafusion import SessionConfig, SessionContext, col
from datafusion.functions import sha256 as sha256_of

from ledger.merkle import EMPTY_ROOT, HASH_BYTES
from ledger.tiles import WIDTH, Tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

CHUNK = WIDTH * WIDTH
"""Leaves that are verified together: a complete subtree."""
_BATCH_ROWS = 4_096
_FEW = 64
_GAP_SUBJECT = "ledger.gap"  # as in ledger.seal
_CONTEXT = SessionContext(SessionConfig().with_target_partitions(1))  # one partition: rows keep their order


class DamagedFileError(Exception):
    """A file of the archive cannot be read, or lacks positions: where."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(what, position)
        self.what = what
        self.position = position


class Range(NamedTuple):
    """What came of verifying some positions of an archive: their root, and those that are not what was sealed."""

    root: bytes
    wrong: list[int]


def verify_range(files: Sequence[tuple[Path, int, int]], tiles: Tiles, first: int, last: int) -> Range:
    """Hash the leaves of positions ``first`` to ``last`` and compare them with the tiles.

    ``first`` is the beginning of a chunk of ``CHUNK`` leaves; ``last`` its end, or the end of the tree.

    Raises:
        DamagedFileError: a file cannot be read, or positions are missing.
        MissingTileError: a tile is missing.

    """
    leaves = b"".join(_leaves(files, first, last))
    if len(leaves) != (last - first + 1) * HASH_BYTES:
        raise DamagedFileError("the archive has not every position", first + len(leaves) // HASH_BYTES)
    numbers = range((first - 1) // WIDTH, -(-last // WIDTH))
    sealed = b"".join([tiles.hashes(0, number) for number in numbers])[: len(leaves)]
    wrong = [
        first + at // HASH_BYTES for at in range(0, len(leaves), HASH_BYTES)
        if leaves[at : at + HASH_BYTES] != sealed[at : at + HASH_BYTES]
    ] if leaves != sealed else []  # fmt: skip
    return Range(_root(leaves), wrong)


def _root(hashes: bytes) -> bytes:
    """The root over hashes that stand one behind the other, a level at a time."""
    while len(hashes) > HASH_BYTES:
        pairs = len(hashes) // (2 * HASH_BYTES)
        nodes = np.empty((pairs, 1 + 2 * HASH_BYTES), np.uint8)
        nodes[:, 0] = 1
        nodes[:, 1:] = np.frombuffer(hashes, np.uint8, pairs * 2 * HASH_BYTES).reshape(pairs, -1)
        odd = hashes[pairs * 2 * HASH_BYTES :]
        hashes = _node_digests(nodes) + odd
    return hashes or EMPTY_ROOT


def _node_digests(nodes: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    number, width = nodes.shape
    if number < _FEW:  # not worth a query
        return b"".join([sha256(node.tobytes()).digest() for node in nodes])
    return _digests(pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), number, [None, pa.py_buffer(nodes)]))


def _digests(texts: pa.Array) -> bytes:
    """The SHA-256 of each text, one behind the other."""
    asked = _CONTEXT.from_arrow(pa.table({"text": texts.cast(pa.binary())})).select(
        sha256_of(col("text")).alias("hash")
    )
    columns = [batch.column(0).cast(pa.binary(HASH_BYTES)) for batch in asked.collect()]
    return b"".join(
        [
            column.buffers()[1][column.offset * HASH_BYTES :][: len(column) * HASH_BYTES].to_pybytes()
            for column in columns
        ]
    )


def leaf_hashes(table: pa.Table) -> bytes:
    """The hashes of a table's leaves, one behind the other."""
    return b"".join([_digests(_leaf_inputs(batch)) for batch in table.to_batches(_BATCH_ROWS)])


def _leaves(files: Sequence[tuple[Path, int, int]], first: int, last: int) -> Iterator[bytes]:
    """The leaves' hashes, those of each batch of rows one behind the other."""
    for path, begins, ends in files:
        if ends < first or begins > last:
            continue
        at = begins
        try:
            with pq.ParquetFile(path) as file:  # quicker to import, and to open, than a data set
                for batch in file.iter_batches(
                    _BATCH_ROWS, columns=["position", "subject", "event"], use_threads=False
                ):
                    begin, end = max(first - at, 0), min(last + 1 - at, len(batch))
                    at += len(batch)
                    if begin < end:
                        yield _digests(_leaf_inputs(batch.slice(begin, end - begin)))
        except (OSError, pa.ArrowException) as error:
            raise DamagedFileError(f"the archive's file {path.name} cannot be read: {error}", begins) from error


def _leaf_inputs(batch: pa.RecordBatch) -> pa.Array:
    """What is hashed for each row: RFC 6962's prefix 0 and the entry (see `ledger.seal.entry_of`)."""
    positions = batch.column("position").to_numpy()
    heads = np.empty((len(positions), 10), np.uint8)  # the leaf's prefix, the entry's kind, its position
    heads[:, 0], heads[:, 1] = 0, 1
    heads[:, 2:] = positions.astype(">u8").view(np.uint8).reshape(-1, 8)
    column = batch.column("subject")
    subjects = [name.encode() for name in column.dictionary.to_pylist()]
    middles = pa.array([len(name).to_bytes(2) + name for name in subjects], pa.binary()).take(column.indices)
    events = batch.column("event")
    if _GAP_SUBJECT.encode() in subjects:
        gaps = pc.equal(column.cast(pa.string()), _GAP_SUBJECT)
        heads[:, 1][gaps.to_numpy(zero_copy_only=False)] = 0
        middles, events = (pc.if_else(gaps, pa.scalar(b"", pa.binary()), rest) for rest in (middles, events))
    head = pa.FixedSizeBinaryArray.from_buffers(pa.binary(10), len(positions), [None, pa.py_buffer(heads)])
    return pc.binary_join_element_wise(head.cast(pa.binary()), middles, events, b"")


def all_ranges(files: Sequence[tuple[Path, int, int]], seal: Path, size: int, chunks: Sequence[tuple[int, int]],
               progressed: Callable[[int], None], threads: int | None = None) -> list[Range]:  # fmt: skip
    """`verify_range` of each chunk, on all cores unless told otherwise.

    ``seal`` is the folder of a tree of ``size`` leaves; ``progressed`` gets up to where it is done.

    Raises:
        DamagedFileError: as in `verify_range`.
        MissingTileError: as in `verify_range`.

    """
    tiles, results = Tiles(seal, size), list[Range]()
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        for result, (_, last) in zip(
            pool.map(lambda one: verify_range(files, tiles, *one), chunks), chunks, strict=True
        ):
            results.append(result)
            progressed(last)
    finally:
        pool.shutdown(cancel_futures=True)
    return results
