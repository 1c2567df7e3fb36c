"""Leaves of the archive, hashed in bulk: light to import, since helpers do so in processes of their own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import deque
from contextlib import suppress
from operator import itemgetter, methodcaller
from pathlib import Path
from struct import iter_unpack
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ledger.merkle import EMPTY_ROOT, HASH_BYTES
from ledger.tiles import WIDTH, Tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

CHUNK = WIDTH * WIDTH
"""Leaves that are verified together: a complete subtree."""
_CACHED_ROWS = 2_048
_GAP_SUBJECT = "ledger.gap"  # as in ledger.seal, which is long to import


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
    """The root over hashes that stand one behind the other; a level at a time, without a loop of Python's."""
    while len(hashes) > HASH_BYTES:
        pairs = len(hashes) // (2 * HASH_BYTES)
        nodes = np.empty((pairs, 1 + 2 * HASH_BYTES), np.uint8)
        nodes[:, 0] = 1
        nodes[:, 1:] = np.frombuffer(hashes, np.uint8, pairs * 2 * HASH_BYTES).reshape(pairs, -1)
        odd = hashes[pairs * 2 * HASH_BYTES :]
        hashes = _digests(map(itemgetter(0), iter_unpack("65s", nodes.tobytes()))) + odd
    return hashes or EMPTY_ROOT


def _digests(texts: Iterable[bytes]) -> bytes:
    return b"".join(map(methodcaller("digest"), map(hashlib.sha256, texts)))


def leaf_hashes(table: pa.Table) -> bytes:
    """The hashes of a table's leaves, one behind the other."""
    return b"".join([_digests(_leaf_inputs(batch)) for batch in table.to_batches(_CACHED_ROWS)])


def _leaves(files: Sequence[tuple[Path, int, int]], first: int, last: int) -> Iterator[bytes]:
    """The leaves' hashes, those of each batch of rows one behind the other."""
    for path, begins, ends in files:
        if ends < first or begins > last:
            continue
        try:
            with pq.ParquetFile(path) as file:  # quicker to import, and to open, than a data set
                table = file.read(columns=["position", "subject", "event"], use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise DamagedFileError(f"the archive's file {path.name} cannot be read: {error}", begins) from error
        begin = max(first, begins) - begins
        yield leaf_hashes(table.slice(begin, min(last, ends) - begins + 1 - begin))


def _leaf_inputs(batch: pa.RecordBatch) -> list[bytes]:
    """What is hashed for each row: RFC 6962's prefix 0 and the entry (see `ledger.seal.entry_of`)."""
    positions = batch.column("position").to_numpy()
    heads = np.empty((len(positions), 10), np.uint8)  # the leaf's prefix, the entry's kind, its position
    heads[:, 0], heads[:, 1] = 0, 1
    heads[:, 2:] = positions.astype(">u8").view(np.uint8).reshape(-1, 8)
    column = batch.column("subject")
    subjects = [name.encode() for name in column.dictionary.to_pylist()]
    middles = pa.array([len(name).to_bytes(2) + name for name in subjects], pa.binary())
    head = pa.FixedSizeBinaryArray.from_buffers(pa.binary(10), len(positions), [None, pa.py_buffer(heads.tobytes())])
    joined = pc.binary_join_element_wise(
        head.cast(pa.binary()), middles.take(column.indices), batch.column("event"), b""
    )
    inputs: list[bytes] = joined.to_pylist()
    if _GAP_SUBJECT.encode() in subjects:
        for place, subject in enumerate(column.to_pylist()):
            if subject == _GAP_SUBJECT:
                inputs[place] = b"\x00\x00" + int(positions[place]).to_bytes(8)
    return inputs


def all_ranges(files: Sequence[tuple[Path, int, int]], seal: Path, size: int, chunks: Sequence[tuple[int, int]],
               helpers: int, progressed: Callable[[int], None]) -> list[Range]:  # fmt: skip
    """`verify_range` of each chunk: helpers, in processes, take from the front as soon as they run, we from the end.

    ``seal`` is the folder of a tree of ``size`` leaves; ``progressed`` gets how many positions came to be done.
    """
    waiting, done = deque(chunks), dict[tuple[int, int], Range]()
    tiles = Tiles(seal, size)
    processes = [_helper(files, seal, size) for _ in range(min(helpers, len(chunks) - 1))]
    threads = [Thread(target=_feed, args=(process, waiting, done)) for process in processes]
    for thread in threads:
        thread.start()
    try:
        while (chunk := _taken(waiting.pop)) is not None:
            done[chunk] = verify_range(files, tiles, *chunk)
            progressed(sum(last - first + 1 for first, last in list(done)))
    finally:
        waiting.clear()
        for process, thread in zip(processes, threads, strict=True):
            thread.join()
            assert process.stdin
            process.stdin.close()
            process.wait()
    # What a helper failed at is done again here, so that it fails with its reason.
    return [done.get(chunk) or verify_range(files, tiles, *chunk) for chunk in chunks]


def _helper(files: Sequence[tuple[Path, int, int]], seal: Path, size: int) -> subprocess.Popen[str]:
    """A process that answers each ``[first, last]`` with its root and what is wrong, a line each."""
    about = {"files": [(str(path), first, last) for path, first, last in files], "seal": str(seal), "size": size}
    process = subprocess.Popen(
        [sys.executable, "-m", "ledger.leaves"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin
    process.stdin.write(json.dumps(about) + "\n")
    process.stdin.flush()
    return process


def _feed(process: subprocess.Popen[str], waiting: deque[tuple[int, int]],
          done: dict[tuple[int, int], Range]) -> None:  # fmt: skip
    assert process.stdin
    assert process.stdout
    with suppress(OSError):
        process.stdout.readline()  # it has started
        while (chunk := _taken(waiting.popleft)) is not None:
            process.stdin.write(json.dumps(chunk) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                return
            root, wrong = json.loads(answer)
            done[chunk] = Range(bytes.fromhex(root), wrong)


def _taken(take: Callable[[], tuple[int, int]]) -> tuple[int, int] | None:
    try:
        return take()
    except IndexError:
        return None


def _help() -> None:
    about = json.loads(sys.stdin.readline())
    files = [(Path(path), first, last) for path, first, last in about["files"]]
    tiles = Tiles(Path(about["seal"]), about["size"])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        found = verify_range(files, tiles, *json.loads(line))
        sys.stdout.write(json.dumps((found.root.hex(), found.wrong)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _help()
