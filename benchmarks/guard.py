"""The guard's detection: precision, recall and delay by rule, over seeds that were not used for tuning, and its speed.

Worlds are simulated, and built from the real streams of `../shared/data` if these exist. A world of a million customers
and ten thousand agents measures speed and memory.

    python -m benchmarks.guard [--seeds N] [--customers N] [--json]

Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections import defaultdict
from functools import partial
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.misuse import INTENSITIES, PATTERNS, World
from benchmarks.streams import StreamWorld, available_streams
from domain.abuse.guard import Guard
from domain.abuse.history import DAY, GuardEvent

if TYPE_CHECKING:
    from collections.abc import Callable

UNSEEN = 1_000
"""The first seed; rules were tuned with lower ones."""
NEEDED = {"recall": 0.90, "precision": 0.80, "flags_per_1000_honest": 2.0}
NEEDED_AT_SIZE: dict[str, float] = {"events_per_s": 10_000, "peak_mib": 2_048}
AT_MOST = {"flags_per_1000_honest", "peak_mib"}


def measure(make: Callable[[int], World], seeds: range) -> dict[str, Any]:
    """Measure an honest world and one of each intensity for each seed."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    delays: dict[str, list[float]] = defaultdict(list)
    right = wrong = honest_flags = honest_actions = 0
    for seed in seeds:
        honest = make(seed)
        honest.honest()
        raised, actions = honest.run()
        honest_flags += sum(one.number == 1 for one in raised)
        honest_actions += actions
        for intensity in INTENSITIES:
            world = make(seed)
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
        "seeds": [seeds.start, seeds.stop - 1],
        "rules": rules,
        "recall": sum(recalls) / len(recalls),
        "precision": right / max(right + wrong, 1),
        "flags_per_1000_honest": 1000 * honest_flags / honest_actions,
    }


def size(customers: int, agents: int) -> dict[str, Any]:
    """Measure ninety days of so many customers: each buys, most call, one of five gets an action."""
    world, guard, random = World(UNSEEN), Guard(), Random(UNSEEN)
    position, seconds, second = 0, 0.0, 90 * DAY / customers
    for start in range(0, customers, 10_000):
        for number in range(start, min(start + 10_000, customers)):
            at, agent, customer = number * second, f"A-{random.randrange(agents)}", f"C-{number}"
            order = world.add_purchase(at, customer, 5_000)
            interaction = world.add_contact(at + 1, agent, customer)
            if random.random() < 0.2:
                world.add_action(at + 2, agent, random.randrange(100, 1_999), customer, interaction, order=order)
        told, world.events = world.events, []
        told.sort(key=lambda event: event[0])
        begun = time.perf_counter()
        for moment, body, action_id in told:
            position += 1
            guard.take(GuardEvent(position, moment, moment, body, action_id))
        seconds += time.perf_counter() - begun
    return {
        "customers": customers,
        "agents": agents,
        "events": position,
        "events_per_s": position / seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Run the measurement, print it and report missed targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many worlds of each kind")
    parser.add_argument("--first", type=int, default=UNSEEN, help="the first seed")
    parser.add_argument("--customers", type=int, default=1_000_000, help="of the world for speed and memory")
    parser.add_argument("--json", action="store_true", help="the document on standard output")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    result: dict[str, Any] = {"size": size(given.customers, given.customers // 100), "worlds": {}}
    result["worlds"]["simulated"] = measure(World, seeds)
    for stream in available_streams():
        result["worlds"][stream] = measure(partial(StreamWorld, stream), seeds)
    if given.json:
        print(json.dumps(result))
    missed = show(result, Console(stderr=True))
    sys.exit(1 if missed else 0)


def show(result: dict[str, Any], console: Console) -> list[str]:
    """Print the tables and the missed targets."""
    missed = []
    for name, world in result["worlds"].items():
        table = Table(title=f"{name}: detection by rule (recall at each intensity)", title_justify="left")
        for heading in ("rule", *INTENSITIES, "delay, days"):
            table.add_column(heading, justify="right")
        for rule, row in world["rules"].items():
            delay = "" if row["delay_days"] is None else f"{row['delay_days']:.1f}"
            table.add_row(rule, *(f"{row[intensity]:.2f}" for intensity in INTENSITIES), delay)
        console.print(table)
        missed += [f"{name} {one}" for one in _missed(world, NEEDED, console)]
    size = result["size"]
    console.print(f"{size['events']:,} events of {size['customers']:,} customers and {size['agents']:,} agents:")
    return missed + _missed(size, NEEDED_AT_SIZE, console)


def _missed(result: dict[str, Any], needs: dict[str, float], console: Console) -> list[str]:
    missed = []
    for name, need in needs.items():
        met = result[name] <= need if name in AT_MOST else result[name] >= need
        missed += [] if met else [name]
        console.print(f"{name}: {result[name]:,.2f} (needed {need:,}: {'met' if met else 'NOT MET'})")
    return missed


if __name__ == "__main__":
    main()
