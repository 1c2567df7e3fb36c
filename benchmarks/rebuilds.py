"""Views rebuilt from the archive beside the log: seconds, CPU an event, and the most anonymous memory of a process.

    python -m benchmarks.rebuilds [--events 200000] [--views audit_trail,casework] [--sources archive] [--alone]
        [--folder FOLDER] [--json]

The ledger is that of the reports: two years of an organisation; a fifth of the events are decisions. It is sealed and
archived first. Then `admin projections rebuild` builds the views: all from the archive, all from the log alone, and
with ``--alone`` each by itself from the archive. Views are built in as many processes as there are processors; the
server's CPU is not counted. Targets at ten million events on two processors: all within 15 minutes from the archive,
none above 7 alone, no process above 400 MB. With ``--folder`` the ledger stays there, and later runs use it again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from app.runtime.archive import archive_to_the_end
from app.runtime.session import Session
from benchmarks.comparison import progress
from benchmarks.cpu import processes_of
from benchmarks.reports import fill
from config.settings import load_settings
from consumers.seal.archive_service import archive_of
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAUSE_SECONDS = 0.05
_ALL_SECONDS, _ALONE_SECONDS, _MEMORY_MB, _FULL = 900, 420, 400, 10_000_000


class Rebuilt(NamedTuple):
    """One rebuild: seconds, the seconds of CPU of its processes, and the most anonymous memory of one, in MB."""

    views: str
    source: str
    seconds: float
    cpu_seconds: float
    megabytes: float


def _anonymous_megabytes(data_dir: Path) -> float:
    most = 0.0
    for pid, role in processes_of(data_dir).items():
        if role.startswith("admin projections"):
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                most = max([most, *(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))])
    return most


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _rebuild(data_dir: Path, views: list[str], source: str) -> Rebuilt:
    begun, cpu, most = time.perf_counter(), _cpu_seconds(), 0.0
    words = ("-m", "app", "admin", "projections", "rebuild", *views, "--json", "--data-dir", str(data_dir))
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.DEVNULL)
    ended = asyncio.create_task(process.wait())
    while not ended.done():
        most = max(most, await asyncio.to_thread(_anonymous_megabytes, data_dir))
        await asyncio.wait({ended}, timeout=_PAUSE_SECONDS)
    assert process.returncode == 0
    name = views[0] if len(views) == 1 else f"{len(views)} together"
    return Rebuilt(name, source, time.perf_counter() - begun, _cpu_seconds() - cpu, most)


async def measured(
    folder: Path, events: int, views: list[str], sources: list[str], *, alone: bool
) -> tuple[int, list[Rebuilt]]:
    """Return the length of the log, and each rebuild."""
    async with Session(load_settings({"data_dir": str(folder)}, {})) as session:
        if not await session.log.last_position():
            progress(f"recording {events:,} events")
            await fill(session, events)
        progress("sealing and archiving")
        length = await archive_to_the_end(session, lambda _done, _of: None)
        runs = list[Rebuilt]()
        for some, source in _plans(views, sources, alone=alone):
            progress(f"{' '.join(some)} from the {source}")
            archive = archive_of(folder).folder
            if source == "log":
                archive.rename(archive.with_name("archive aside"))
            try:
                runs.append(await _rebuild(folder, some, source))
            finally:
                if source == "log":
                    archive.with_name("archive aside").rename(archive)
            progress(f"{runs[-1]}")
    return length, runs


def _plans(views: list[str], sources: list[str], *, alone: bool) -> Iterator[tuple[list[str], str]]:
    yield from ((views, source) for source in sources)
    if alone:
        yield from (([name], "archive") for name in views)


def table_of(length: int, runs: list[Rebuilt]) -> Table:
    """Return one line a rebuild."""
    table = Table(title=f"{length:,} events", title_justify="left")
    for heading in ("views", "from the", "seconds", "events a second", "CPU an event", "MB", "target"):
        table.add_column(heading, justify="left" if heading in ("views", "from the") else "right")
    for run in runs:
        limit = _ALL_SECONDS if run.views.endswith("together") else _ALONE_SECONDS
        is_met = run.seconds <= limit and run.megabytes <= _MEMORY_MB
        target = f"{limit} s, {_MEMORY_MB} MB: {'met' if is_met else 'not met'}" if length >= _FULL else ""
        rate, cost = f"{length / run.seconds:,.0f}", f"{1e6 * run.cpu_seconds / length:.0f} µs"
        table.add_row(run.views, run.source, f"{run.seconds:.1f}", rate, cost, f"{run.megabytes:.0f}", target)
    return table


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--views", default=",".join(sorted(MODELS)))
    parser.add_argument("--sources", default="archive,log")
    parser.add_argument("--alone", action="store_true", help="each view by itself, too")
    parser.add_argument("--folder", type=Path, help="the ledger's folder, which stays")
    parser.add_argument("--json", action="store_true", help="the document on standard output, instead of a table")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="resolution-ledger-rebuilds-") as name:
        folder = (asked.folder or Path(name)).resolve()
        length, runs = asyncio.run(
            measured(folder, asked.events, asked.views.split(","), asked.sources.split(","), alone=asked.alone)
        )
    if asked.json:
        json.dump({"events": length, "rebuilds": [run._asdict() for run in runs]}, sys.stdout, indent=2)
    else:
        Console(width=140).print(table_of(length, runs))


if __name__ == "__main__":
    main()
