"""Chunks of the archive, compared with the seal by several processes: Python hashes on one processor in each."""

from __future__ import annotations

import asyncio
import os
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from app.runtime.child_processes import child
from domain.serialization import encode
from ledger.archive.event_archive import Archive
from ledger.archive.verification import CHUNK, DamagedFileError, verify_range
from ledger.errors import UnavailableError
from ledger.transparency.tiles import MissingTileError, Tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from config.settings import Settings

_AT_ONCE = 4
"""Each process takes memory, the more the larger the events are."""
_CHUNKS_FOR_A_PROCESS = 4
"""With fewer chunks, the start of a process takes longer than it saves."""
_POSITIONS_OF_A_LINE = 2000
"""A line stays below the limit of a reader of lines, 64 KiB."""


class ChunkReport(msgspec.Struct, omit_defaults=True):
    """A finding in the chunk that ends at the position ``last``; its root comes in its last report."""

    last: int
    root: bytes = b""
    wrong: list[int] = []
    """Positions that differ from the seal."""
    damage: str = ""
    """The reason that the chunk cannot be read, at the position ``damaged_at``."""
    damaged_at: int = 0


class ChunkShare(msgspec.Struct, frozen=True):
    """Every ``step``-th chunk up to the position ``last`` of an archive, and the seal of a tree of ``size`` leaves."""

    archive: str
    seal: str
    size: int
    last: int
    start: int = 0
    """The number of the first chunk, counted from 0."""
    step: int = 1

    def chunks(self) -> range:
        """Return the first position of each chunk."""
        return range(1 + self.start * CHUNK, self.last + 1, self.step * CHUNK)

    def reports(self) -> Iterator[ChunkReport]:
        """Verify the chunks in this process, in order, up to the first damaged one."""
        folder, tiles = Path(self.archive), Tiles(Path(self.seal), self.size)
        files = [(folder / part.file, part.first, part.last) for part in Archive(folder).parts()]
        for first in self.chunks():
            last = min(first + CHUNK - 1, self.last)
            try:
                root, wrong = verify_range(files, tiles, first, last)
            except (DamagedFileError, MissingTileError) as error:
                position = error.position if isinstance(error, DamagedFileError) else 1
                yield ChunkReport(last, damage=str(error), damaged_at=position)
                return
            for positions in batched(wrong, _POSITIONS_OF_A_LINE):
                yield ChunkReport(last, wrong=list(positions))
            yield ChunkReport(last, root)


async def verify_chunks(
    share: ChunkShare, settings: Settings, progressed: Callable[[int], None], processes: int | None = None
) -> list[ChunkReport]:
    """Verify the chunks of a whole archive; return the reports by chunk.

    There are as many processes as processors, four at most; one chunk after the other is verified in this process if
    there are few. ``progressed`` is called with the number of verified chunks.

    Raises:
        UnavailableError: a process ended early, for a reason that it has logged.
    """
    if processes is None:
        processes = min(_AT_ONCE, os.cpu_count() or 1, len(share.chunks()) // _CHUNKS_FOR_A_PROCESS)
    found, done = list[ChunkReport](), 0

    def add(report: ChunkReport) -> None:
        nonlocal done
        found.append(report)
        if report.root:
            done += 1
            progressed(done)

    if processes <= 1:
        for report in share.reports():
            add(report)
            await asyncio.sleep(0)
        return found
    try:
        async with asyncio.TaskGroup() as group:
            for start in range(processes):
                part = msgspec.structs.replace(share, start=start, step=processes)
                group.create_task(_verify_elsewhere(part, settings, add))
    except* (UnavailableError, OSError) as errors:
        raise errors.exceptions[0] from None
    return sorted(found, key=lambda report: report.last)


async def _verify_elsewhere(share: ChunkShare, settings: Settings, add: Callable[[ChunkReport], None]) -> None:
    """Verify chunks in a process of their own, and pass on its reports."""
    waiting, words = len(share.chunks()), ["verify-archive-chunks", encode(share).decode()]
    async with child(words, settings, reads=True) as process:
        assert process.stdout is not None
        async for line in process.stdout:
            report = msgspec.json.decode(line, type=ChunkReport)
            add(report)
            waiting -= bool(report.root)
            if report.damage:
                return
    if waiting:
        raise UnavailableError(f"a process that verifies the archive has ended with status {process.returncode}")


async def write_reports(share: ChunkShare) -> None:
    """Verify chunks in this process, and write their reports for ``verify_chunks``."""
    for report in share.reports():
        click.echo(encode(report))
        await asyncio.sleep(0)  # it ends here if the other process has
