"""Measure the guard on organisations with habits: precision, recall by rule, evasions, honest people named, fairness.

    python -m benchmarks.detection [--report] [--worlds N] [--dense N] [--processes N] [--wrong] [--json FILE]

Without `--report` the tuning worlds are used. `--report` uses the reporting worlds, on which nothing may be tuned. Each
sample has ordinary worlds, dense ones for recall by rule, and some with all strengths and evasions. A world is a
function of its seed.
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

from benchmarks.detection.measurement import SAMPLES, Kind, measure
from benchmarks.detection.summary import show, wrong_cases


def main() -> None:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="the reporting worlds instead of the tuning worlds")
    parser.add_argument("--worlds", type=int, default=100, help="at most so many ordinary worlds")
    parser.add_argument("--dense", type=int, default=100, help="at most so many worlds of each sort for recall alone")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--wrong", action="store_true", help="print each wrong case of the tuning worlds")
    parser.add_argument("--json", type=Path, help="write the figures of each world to this file")
    options = parser.parse_args()
    if options.wrong and options.report:
        parser.error("wrong cases of reporting worlds are not to be looked at")
    seeds = [
        seed
        for sample in SAMPLES.values()
        if sample.report == options.report
        for seed in sample.seeds[: options.worlds if sample.kind is Kind.ORDINARY else options.dense]
    ]
    begun, console = time.monotonic(), Console(width=150)
    with ProcessPoolExecutor(options.processes) as pool:
        worlds = list(pool.map(partial(measure, report=options.report), seeds[::-1]))
    if options.json:
        options.json.write_text(json.dumps([asdict(world) for world in worlds]))
    if options.wrong:
        wrong_cases(worlds, console)
    show(worlds, console)
    console.print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
