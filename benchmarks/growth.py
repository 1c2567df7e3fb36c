"""Memory and start of each role at several lengths of history: what grows with the log shows in the last columns.

    python -m benchmarks.growth [--events 30000,120000] [--roles intake,decisions] [--folder FOLDER]

Each history is recorded in a ledger of its own. Then each role runs alone in its own process, twice: first without any
files of its own, and again with those of the first run. Roles whose state is copied to the server start a third time
with the copy alone, as on a fresh machine; shorter histories than 50,000 events have none. Printed are the seconds from
the start of the process to its first answer that contains the whole log, the seconds of CPU among them, and the most
anonymous memory (`RssAnon`). With ``--folder`` the ledgers stay
there, each in a folder named by its length, and later runs use them again, with seal and archive as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import httpx
import msgspec
import nats.errors
from nats.js.object_store import ObjectStore
from rich.console import Console
from rich.table import Table

from app.runtime.session import Session
from benchmarks.comparison import progress
from benchmarks.context import role as role_process
from benchmarks.reports import fill
from config import topology
from config.settings import load_settings
from dashboard.listen_address import token_of
from domain.serialization import encode
from ledger.store import snapshots
from ledger.store.cloudevents import encode_event
from ledger.store.role_status import RoleStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_PAUSE_SECONDS = 0.02
_PATIENCE_SECONDS = 7200.0
_MEMORY_MB, _AGAIN_SECONDS, _FIRST_SECONDS = 400, 5, 60
_PORT = 8329
_COPIED_FROM, _COPY_SECONDS = 50_000, 300.0
ROLES = ("seal", "archive", "guard", "webhooks", "decisions", "intake", "projections", "dashboard")
"""In an order in which each has the files of others that it needs."""


COPIED = {"decisions": "index/decisions*", "intake": "index/intake*", "guard": "guard/*"}
"""Roles whose state is copied to the server, and their own files."""
FILES = {**COPIED, "projections": "views/*"}
"""Files that are removed before a role starts for the first time."""
Start = Literal["first", "again", "fresh machine"]


class Measured(NamedTuple):
    """Seconds to the first answer, and up to it the seconds of CPU and the most anonymous memory, in MB."""

    seconds: float
    cpu_seconds: float
    megabytes: float


async def _status(session: Session, role: str) -> RoleStatus | None:
    """Return a role's status; none before it has started."""
    try:
        answer = await session.client.request(f"{topology.ROLES_SUBJECT}.{role}", b"", timeout=1)
    except nats.errors.Error:
        return None
    status = msgspec.json.decode(answer.data, type=RoleStatus)
    return None if status.starting else status


async def _has_read(session: Session, role: str, end: int) -> bool:
    """Return whether all readers of a role are at the end of the log."""
    status = await _status(session, role)
    return status is not None and all((one.position or 0) >= end for one in status.readings)


async def _has_decided(session: Session, _role: str, _end: int) -> bool:
    """Return whether the role answers what an action would be answered."""
    body = {"agent_id": "A-0001", "kind": "refund", "reason": "late", "customer_id": "C-000001"}
    try:
        subject = f"{topology.DECIDE_SUBJECT}.bench.preview"
        answer = await session.client.request(subject, json.dumps(body).encode(), timeout=1)
    except nats.errors.Error:
        return False
    assert b'"error"' not in answer.data, answer.data
    return True


async def _has_recorded(session: Session, _role: str, end: int) -> bool:
    """Return whether a fact that waits in the inbox is recorded."""
    return await session.log.last_position() > end


async def _shows(session: Session, _role: str, _end: int) -> bool:
    """Return whether the page's summary of all days is answered."""
    headers = {"Authorization": f"Bearer {token_of(session.data_dir)}"}
    try:
        async with httpx.AsyncClient(headers=headers, timeout=60) as client:
            answer = await client.get(f"http://127.0.0.1:{_PORT}/api/v1/summary")
    except httpx.HTTPError:
        return False
    assert answer.status_code == 200, answer.text
    return True


_ANSWERED: dict[str, Callable[[Session, str, int], Awaitable[bool]]] = {
    "decisions": _has_decided,
    "intake": _has_recorded,
    "dashboard": _shows,
}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _watch(pid: int, found: list[float]) -> None:
    path = Path(f"/proc/{pid}/status")
    while True:
        lines = path.read_text().splitlines()
        found += [int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")]
        await asyncio.sleep(_PAUSE_SECONDS)


async def measure(session: Session, role: str) -> Measured:
    """Run a role until its first answer."""
    end = await session.log.last_position()
    if role == "intake":
        name, data = "resolution.interaction.resolved.v1", encode({"interaction_id": f"N-{end}"})
        fact = encode_event("bench", f"n-{time.time_ns()}", name, datetime.now(UTC), data)
        await session.client.publish(f"{topology.INBOX_SUBJECT}.bench", fact)
    answered, memory = _ANSWERED.get(role, _has_read), [0.0]
    words = ("--port", str(_PORT)) if role == "dashboard" else ()
    begun = time.perf_counter()
    async with role_process(session.data_dir, role, *words) as pid:
        watching = asyncio.create_task(_watch(pid, memory))
        while not await answered(session, role, end):
            assert time.perf_counter() - begun < _PATIENCE_SECONDS, role
            assert not watching.done(), f"{role} ended"
            await asyncio.sleep(_PAUSE_SECONDS)
        seconds, cpu_seconds = time.perf_counter() - begun, _cpu_seconds(pid)
        watching.cancel()
    return Measured(seconds, cpu_seconds, max(memory))


async def _become_fresh(session: Session, role: str) -> bool:
    """Run a role until the server has a copy as recent as promised, then remove its files; return whether it has."""
    store = ObjectStore(snapshots.BUCKET, snapshots.STREAM, session.client.jetstream())
    until, end = time.perf_counter() + _COPY_SECONDS, await session.log.last_position()
    async with role_process(session.data_dir, role):
        while time.perf_counter() < until:
            with suppress(nats.errors.Error):
                copies = [copy for copy in await store.list(ignore_deletes=True) if copy.name.startswith(f"{role}-")]
                if copies and end - int(copies[0].description or 0) < snapshots.due_after(end):
                    break
            await asyncio.sleep(1)
        else:
            return False
    _remove(session.data_dir, COPIED[role])
    return True


async def _forget_copies(session: Session, role: str) -> None:
    """Remove the copies of an earlier run."""
    store = ObjectStore(snapshots.BUCKET, snapshots.STREAM, session.client.jetstream())
    with suppress(nats.errors.Error):
        for copy in await store.list(ignore_deletes=True):
            if copy.name.startswith(f"{role}-"):
                await store.delete(copy.name)


async def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", default="30000,120000")
    parser.add_argument("--roles", default=",".join(ROLES))
    parser.add_argument("--folder", type=Path, help="the folder of the ledgers, which stay")
    given = parser.parse_args()
    lengths = [int(one) for one in given.events.split(",")]
    found: dict[tuple[str, Start], list[Measured]] = {}
    with tempfile.TemporaryDirectory(prefix="resolution-ledger-growth-") as folder:
        for events in lengths:
            data_dir = Path(given.folder or folder) / str(events)
            async with Session(load_settings({"data_dir": str(data_dir)}, {})) as session:
                if not await session.log.last_position():
                    await fill(session, events)
                for role in given.roles.split(","):
                    for start, run in (await _starts(session, role, events)).items():
                        found.setdefault((role, start), []).append(run)
    Console(width=140).print(_table(lengths, found))
    return 0


async def _starts(session: Session, role: str, events: int) -> dict[Start, Measured]:
    """Return what each start of a role took, after its files were removed."""
    _remove(session.data_dir, FILES.get(role))
    if role in COPIED:
        await _forget_copies(session, role)
    starts: tuple[Start, ...] = ("first", "again", "fresh machine")
    found: dict[Start, Measured] = {}
    for start in starts[: 2 + (role in COPIED and events >= _COPIED_FROM)]:
        if start == "fresh machine" and not await _become_fresh(session, role):
            progress(f"{role} at {events:,}: no copy after {_COPY_SECONDS:.0f} s")
            continue
        found[start] = await measure(session, role)
        progress(f"{role} at {events:,}, {start}: {_texts(found[start])}")
    return found


def _remove(data_dir: Path, pattern: str | None) -> None:
    for file in data_dir.glob(pattern) if pattern else ():
        if not file.is_dir():
            file.unlink()


def _texts(run: Measured) -> tuple[str, str, str]:
    return f"{run.seconds:.1f}", f"{run.cpu_seconds:.1f}", f"{run.megabytes:.0f}"


def _table(lengths: list[int], found: dict[tuple[str, Start], list[Measured]]) -> Table:
    columns = [f"{unit} at {events:,}" for events in lengths for unit in ("s", "CPU s", "MB")]
    more = lengths[-1] - lengths[0]
    table = Table("role", "start", *columns, "µs of CPU an event more", "bytes an event more", "target")
    for (role, start), runs in found.items():
        figures = [""] * (3 * (len(lengths) - len(runs))) + [text for run in runs for text in _texts(run)]
        growth = ["", ""]
        if more and len(runs) == len(lengths):
            growth = [
                f"{1e6 * (runs[-1].cpu_seconds - runs[0].cpu_seconds) / more:.1f}",
                f"{2**20 * (runs[-1].megabytes - runs[0].megabytes) / more:.0f}",
            ]
        limit = _AGAIN_SECONDS if start == "again" else _FIRST_SECONDS
        met = runs[-1].seconds <= limit and runs[-1].megabytes <= _MEMORY_MB
        target = f"{limit} s, {_MEMORY_MB} MB: {'met' if met else 'not met'}"
        table.add_row(role, start, *figures, *growth, target)
    return table


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
