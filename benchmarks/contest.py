"""Side-by-side measurements: contestants take turns (A B A B), medians count, and CPU shares show the bottleneck."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.cpu import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    Run = Callable[[int], Awaitable[float]]
    """One run of a contestant, given the round's number; its figure."""

ROUNDS = 3
ONLY_OURS = "BENCH_ONLY_OURS"
"""An environment variable that leaves out the rivals, for a profile."""
_console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


@dataclass
class Contest:
    """One comparison. ``needs`` has for each rival the required ratio of our speed to its speed."""

    name: str
    unit: str  # "per s" (more is better) or "ms" (less is better)
    ours: str
    runs: dict[str, list[float]] = field(default_factory=dict)
    needs: dict[str, float] = field(default_factory=dict)
    cpu_percent: dict[str, float] = field(default_factory=dict)
    """Share of one core by process during our last run; it shows the bottleneck."""

    @property
    def medians(self) -> dict[str, float]:
        """The median of each contestant's runs."""
        return {name: median(figures) for name, figures in self.runs.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """Our speed relative to each rival's."""
        medians = self.medians
        ours = medians[self.ours]
        return {
            name: (figure / ours if self.unit in {"ms", "s"} else ours / figure)
            for name, figure in medians.items()
            if name != self.ours
        }

    @property
    def met(self) -> bool:
        """True where all targets are met."""
        return all(self.ratios[rival] >= need for rival, need in self.needs.items())

    def document(self) -> dict[str, Any]:
        """Return the stored form."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "medians": self.medians,
            "ratios": self.ratios,
            "runs": self.runs,
            "needs": self.needs,
            "met": self.met,
            "cpu_percent": self.cpu_percent,
        }


async def contest(
    name: str,
    unit: str,
    contestants: Mapping[str, Run],
    *,
    needs: Mapping[str, float] | None = None,
    cpu_of: Mapping[str, Iterable[int]] | None = None,
    rounds: int = ROUNDS,
) -> Contest:
    """Let the contestants take turns, ours first.

    ``cpu_of`` names the processes whose CPU time is measured during our runs.
    """
    ours = next(iter(contestants))
    if ONLY_OURS in os.environ:
        contestants, needs = {ours: contestants[ours]}, {}
    result = Contest(name, unit, ours, {one: [] for one in contestants}, dict(needs or {}))
    before: dict[str, float] = {}
    with _console.status(name):
        for number in range(rounds):
            for one, run in contestants.items():
                if one == ours and number == rounds - 1 and cpu_of:
                    before = {which: cpu_seconds(pids) for which, pids in cpu_of.items()}
                begun = time.perf_counter()
                result.runs[one].append(await run(number))
                if before and one == ours and cpu_of:
                    wall = time.perf_counter() - begun
                    spent = {which: cpu_seconds(pids) - before[which] for which, pids in cpu_of.items()}
                    result.cpu_percent = {which: 100 * seconds / wall for which, seconds in spent.items()}
                    before = {}
    show(result)
    return result


def show(result: Contest) -> None:
    """Print a table on standard error."""
    table = Table(title=result.name, title_justify="left")
    for heading in ("", result.unit, "runs", "ours is", "needed"):
        table.add_column(heading, justify="left" if not heading else "right")
    for one, figure in result.medians.items():
        ratio = result.ratios.get(one)
        need = result.needs.get(one)
        verdict = "" if need is None or ratio is None else f"{need:g} {'met' if ratio >= need else 'NOT MET'}"
        runs = " ".join(text(run) for run in result.runs[one])
        table.add_row(one, text(figure), runs, "" if ratio is None else f"{ratio:.2f} x", verdict)
    _console.print(table)


def text(figure: float) -> str:
    """Return a figure with two decimals below 100, and none above."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"


def rate(number: int, begun: float) -> float:
    """Return operations a second since a time of ``time.perf_counter``."""
    return number / (time.perf_counter() - begun)


def p99(took: list[float]) -> float:
    """Return the 99th percentile."""
    return quantiles(took, n=100)[98]


def machine() -> dict[str, Any]:
    """Return the properties of this machine that affect the figures."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "python": f"{platform.python_version()}, built {'with' if optimised else 'without'} --enable-optimizations",
        "system": f"{platform.system()} {platform.release()}",
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
