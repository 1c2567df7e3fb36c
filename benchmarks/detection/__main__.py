"""Measure the guard on organisations with habits: precision, recall by rule, evasions, honest people named, fairness.

    python -m benchmarks.detection [--report] [--worlds N] [--dense N] [--processes N] [--json FILE]

Without `--report` the ten tuning worlds are used. `--report` uses the reporting worlds, on which nothing may be tuned,
and dense worlds for recall. A world is a function of its seed.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.detection.measurement import DENSE, DENSE_TUNING, REPORTING, TUNING, measure
from benchmarks.detection.summary import show


def main() -> None:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="the reporting worlds instead of the tuning worlds")
    parser.add_argument("--worlds", type=int, default=100, help="at most so many worlds of each range")
    parser.add_argument("--dense", type=int, default=100, help="at most so many dense worlds, for recall by rule")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures of each world to this file")
    options = parser.parse_args()
    ordinary, dense = (REPORTING, DENSE) if options.report else (TUNING, DENSE_TUNING)
    seeds = [*ordinary[: options.worlds], *dense[: options.dense]]
    begun, console = time.monotonic(), Console(width=130)
    with ProcessPoolExecutor(options.processes) as pool:
        largest_first = sorted(seeds, reverse=True)
        worlds = list(pool.map(partial(measure, report=options.report), largest_first))
    if options.json:
        options.json.write_text(json.dumps([asdict(world) for world in worlds]))
    show(worlds, console)
    console.print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
