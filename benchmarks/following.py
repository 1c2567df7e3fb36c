"""The lag of each view behind a log that grows by 2,000 events a second, in seconds.

    python -m benchmarks.following [--rate 2000] [--seconds 30] [--events 100000]

The role `projections` runs in its own process and has read a first part of the history. Then events are appended at an
even rate, a batch each twentieth of a second. A view tells each position that it has committed; the time since the
first event after the position before was durable is its lag. Target: no lag above 2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from bisect import bisect_left
from itertools import batched, islice
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from app.runtime.session import Session
from benchmarks.comparison import progress
from benchmarks.context import role
from benchmarks.cpu import Meter
from benchmarks.reports import Organisation
from config import topology
from config.settings import load_settings
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats.aio.msg import Msg

    from ledger.store.log import Draft

_TURNS_A_SECOND = 20
_PATIENCE_SECONDS = 600.0
_TARGET_SECONDS = 2.0


class _Lags:
    """The lag of each view at each of its commits."""

    def __init__(self) -> None:
        self.by_view: dict[str, list[float]] = {name: [] for name in MODELS}
        self.reached: dict[str, int] = dict.fromkeys(MODELS, 0)
        self._durable: list[tuple[int, float]] = []
        """Last position of each batch, and the time at which it was durable."""

    def appended(self, position: int) -> None:
        """Note that the log is durable up to a position now."""
        self._durable.append((position, time.perf_counter()))

    async def hear(self, message: Msg) -> None:
        """Take the update of a view: its lag is the time since the first event that it shows now was durable."""
        name, position = message.subject.rpartition(".")[2], json.loads(message.data)["position"]
        at = bisect_left(self._durable, (self.reached[name] + 1, 0.0))
        self.reached[name] = position
        if at < len(self._durable):
            self.by_view[name].append(time.perf_counter() - self._durable[at][1])

    async def until(self, position: int) -> None:
        """Wait until every view has reached a position."""
        deadline = time.perf_counter() + _PATIENCE_SECONDS
        while min(self.reached.values()) < position:
            assert time.perf_counter() < deadline, self.reached
            await asyncio.sleep(0.02)


async def _append_evenly(session: Session, drafts: Iterator[Draft], rate: int, lags: _Lags) -> int:
    """Append at an even rate; return the last position."""
    begun, end = time.perf_counter(), 0
    for turn, batch in enumerate(batched(drafts, rate // _TURNS_A_SECOND)):
        await asyncio.sleep(begun + turn / _TURNS_A_SECOND - time.perf_counter())
        end = await session.log.append(batch) + len(batch) - 1
        lags.appended(end)
    return end


async def measured(rate: int, seconds: int, events: int) -> tuple[_Lags, float, dict[str, float]]:
    """Return the lags, the seconds in which the events were appended, and the CPU seconds of each process."""
    drafts, lags = Organisation(events + rate * seconds).drafts(), _Lags()
    with tempfile.TemporaryDirectory(prefix="resolution-ledger-following-") as folder:
        async with Session(load_settings({"data_dir": folder}, {})) as session:
            for batch in batched(islice(drafts, events), 1000):
                await session.log.append(batch)
            await session.client.subscribe(f"{topology.VIEWS_SUBJECT}.*", cb=lags.hear)
            async with role(session.data_dir, "projections"):
                progress(f"the views read {events:,} events")
                await lags.until(events)
                followed = await session.log.append([next(drafts)])  # a view that was just built begins to follow
                await lags.until(followed)
                progress(f"{rate:,} events a second for {seconds} s")
                meter = Meter(session.data_dir)
                end = await _append_evenly(session, islice(drafts, rate * seconds), rate, lags)
                took = meter.seconds
                await lags.until(end)
                return lags, took, meter.stop(rate * seconds).cpu_seconds


def table_of(lags: _Lags) -> Table:
    """Return one line a view."""
    table = Table("view", "commits", "median lag", "longest lag", "target")
    for name, found in sorted(lags.by_view.items()):
        is_met = "met" if max(found) <= _TARGET_SECONDS else "not met"
        table.add_row(name, f"{len(found)}", f"{median(found):.2f} s", f"{max(found):.2f} s", f"2 s: {is_met}")
    return table


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--events", type=int, default=100_000)
    asked = parser.parse_args()
    lags, took, cpu = asyncio.run(measured(asked.rate, asked.seconds, asked.events))
    console = Console(width=140)
    console.print(table_of(lags))
    shares = ", ".join(f"{name} {100 * spent / took:.0f} %" for name, spent in sorted(cpu.items()))
    console.print(f"{asked.rate * asked.seconds / took:,.0f} events a second were appended. Share of a core: {shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
