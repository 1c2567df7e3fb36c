"""How well the guard detects: precision, recall and delay by rule over seeds that nothing was tuned on; how fast.

    python -m benchmarks.guard [--seeds N] [--json]

Exit 1 where a need is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.misuse import INTENSITIES, PATTERNS, World
from domain.abuse.seen import DAY

UNSEEN = 1_000
"""Seeds from here on: below it rules were tuned."""
NEEDED = {"recall": 0.90, "precision": 0.80, "flags_per_1000_honest": 2.0, "events_per_s": 10_000}


def measure(seeds: range) -> dict[str, Any]:
    """One honest world and one of each intensity for each seed."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    delays: dict[str, list[float]] = defaultdict(list)
    right = wrong = honest_flags = honest_actions = events = 0
    seconds = 0.0
    for seed in seeds:
        honest = World(seed)
        honest.honest()
        begun = time.perf_counter()
        raised, actions = honest.run()
        seconds, events = seconds + time.perf_counter() - begun, events + len(honest.events)
        honest_flags += sum(one.number == 1 for one in raised)
        honest_actions += actions
        for intensity in INTENSITIES:
            world = World(seed)
            world.honest()
            world.inject(intensity)
            raised, _ = world.run()
            first = [one for one in raised if one.number == 1]
            culprits = {one.about for one in world.injected} | {"agent:A-58", "agent:A-59"}
            hits = sum(bool(culprits.intersection(one.finding.about)) for one in first)
            if intensity != "low":
                right, wrong = right + hits, wrong + len(first) - hits
            for injected in world.injected:
                mine = [o for o in first if o.finding.rule == injected.rule and injected.about in o.finding.about]
                found[injected.rule, intensity] += bool(mine)
                if mine:
                    delays[injected.rule].append((mine[0].recorded - injected.at) / DAY)
    rules = {
        rule: {
            **{intensity: found[rule, intensity] / len(seeds) for intensity in INTENSITIES},
            "delay_days": median(delays[rule]) if delays[rule] else None,
        }
        for rule in PATTERNS
    }
    recalls: list[float] = [
        found[rule, intensity] / len(seeds) for rule in PATTERNS for intensity in ("medium", "high")
    ]
    return {
        "seeds": [seeds.start, seeds.stop - 1], "rules": rules, "recall": sum(recalls) / len(recalls),
        "precision": right / max(right + wrong, 1), "flags_per_1000_honest": 1000 * honest_flags / honest_actions,
        "events_per_s": events / seconds,
    }  # fmt: skip


def main() -> None:
    """Measure, show, say what was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many worlds of each kind")
    parser.add_argument("--first", type=int, default=UNSEEN, help="the first seed")
    parser.add_argument("--json", action="store_true", help="the document on standard output")
    given = parser.parse_args()
    result = measure(range(given.first, given.first + given.seeds))
    if given.json:
        print(json.dumps(result))
    console = Console(stderr=True)
    table = Table(title="Detection by rule (recall at each intensity)", title_justify="left")
    for heading in ("rule", *INTENSITIES, "delay, days"):
        table.add_column(heading, justify="right")
    for rule, row in result["rules"].items():
        delay = "" if row["delay_days"] is None else f"{row['delay_days']:.1f}"
        table.add_row(rule, *(f"{row[intensity]:.2f}" for intensity in INTENSITIES), delay)
    console.print(table)
    missed = []
    for name, need in NEEDED.items():
        met = result[name] <= need if name == "flags_per_1000_honest" else result[name] >= need
        missed += [] if met else [name]
        console.print(f"{name}: {result[name]:,.2f} (needed {need:,}: {'met' if met else 'NOT MET'})")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
