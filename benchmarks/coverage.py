"""Coverage of the estimators' intervals in worlds whose true effect is known: `python -m benchmarks.coverage`."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from itertools import chain, starmap
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks.worlds import RAISED_ON, TEAMS, SimulatedWorld, day_at, world
from domain.analytics.loyalty import estimators
from domain.analytics.loyalty.estimators import Estimate, LimitRaise
from domain.analytics.loyalty.matching import Untreated, match
from domain.analytics.loyalty.purchases import DAY, NEVER

WINDOW = 90
EFFECT = 0.3
"""Share of helped customers who buy once more; the true effect counts those who would not have returned anyway."""


_WARNINGS = ("before anything", "still differ", estimators.UNUSUAL)
"""Parts of caveats that the data cause, besides those of every estimate at a lower evidence level."""


class WorldEstimate(NamedTuple):
    """One estimate in one world."""

    world: str
    rung: str
    value: float | None
    low: float
    high: float
    truth: float
    warned: bool


def estimates(name: str, seed: int, effect: float) -> list[WorldEstimate]:
    """Return the estimates at each evidence level in one world."""
    simulated = world(name, seed, effect)
    found = []
    for rung, one, truth in _rungs(name, simulated):
        low, high = one.interval or (float("nan"), float("nan"))
        warned = one.value is None or any(words in caveat for words in _WARNINGS for caveat in one.caveats)
        found.append(WorldEstimate(name if effect else f"{name}, no effect", rung, one.value, low, high, truth, warned))
    return found


def _rungs(name: str, simulated: SimulatedWorld) -> list[tuple[str, Estimate, float]]:
    treated = simulated.problem.some(simulated.helped)
    returned = simulated.buying.came(simulated.problem, WINDOW)
    if name == "trial":
        return [("4 trial", estimators.trial(simulated.team, returned, simulated.drawn), float(simulated.gain.mean()))]
    if name == "staggered":
        lot: dict[int, int | None] = dict.fromkeys(range(TEAMS))
        for team in lot:
            mine = simulated.helped & (simulated.team == team)
            day = (simulated.problem.at[mine].min() - day_at(0)) / DAY if mine.any() else 1e9
            lot[team] = next((one for one in reversed(RAISED_ON) if one <= day), None)
        raised = [
            LimitRaise(
                day_at(one),
                np.array([team for team, on in lot.items() if on == one], np.int64),
                np.array([team for team, on in lot.items() if on is None or on > one + WINDOW], np.int64),
            )
            for one in RAISED_ON
        ]
        return [
            (
                "4 staggered",
                estimators.staggered(simulated.team, simulated.problem.at, returned, raised, WINDOW),
                float(simulated.gain.mean()),
            )
        ]
    if name in {"step", "bunched"}:
        return [
            ("3 step", estimators.discontinuity(simulated.ratio, returned, repeats=300), float(simulated.gain.mean()))
        ]
    helped_from = np.where(simulated.helped, simulated.problem.at, NEVER)
    known_from = simulated.buying.first_by_customer(simulated.problem.at.size)
    others = np.flatnonzero(~simulated.helped)
    untreated = Untreated(
        simulated.buying, helped_from, simulated.problem.some(others), simulated.reason[others], known_from
    )
    had = simulated.buying.before(treated) > 0
    usable = treated.some(had)
    pairs, at_random, place = match(simulated.buying, usable, simulated.reason[simulated.helped][had], untreated)
    matched = estimators.matched(
        pairs, simulated.buying.came(pairs.treated, WINDOW), simulated.buying.came(pairs.control, WINDOW)
    )
    _, warning = estimators.placebo(simulated.buying, pairs, WINDOW)
    if warning and matched.value is not None:
        matched = matched._replace(caveats=(*matched.caveats, warning))
    did = estimators.difference_in_differences(simulated.buying, usable.some(place), at_random, WINDOW)
    spent = 2_000 * EFFECT if simulated.gain.any() else 0.0
    gained = float(simulated.gain[pairs.treated.customer].mean())
    return [
        ("1 before and after", estimators.before_after(simulated.buying, usable, WINDOW), spent),
        ("2 matched", matched, gained),
        ("3 difference in differences", did, spent),
    ]


WORLDS = (
    ("at random", EFFECT),
    ("at random", 0.0),
    ("trial", EFFECT),
    ("trial", 0.0),
    ("staggered", EFFECT),
    ("staggered", 0.0),
    ("step", EFFECT),
    ("step", 0.0),
    ("bunched", EFFECT),
    ("selection", 0.0),
    ("regression", 0.0),
)


def coverage(seeds: int, workers: int = 2) -> list[dict[str, Any]]:
    """Return by world and level how often intervals cover the true effect, and how often estimates have a warning."""
    some = defaultdict[tuple[str, str], list[WorldEstimate]](list)
    jobs = [(name, seed, effect) for name, effect in WORLDS for seed in range(seeds)]
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        mapped = pool.map(estimates, *zip(*jobs, strict=True), chunksize=10) if pool else starmap(estimates, jobs)
        for one in chain.from_iterable(mapped):
            some[one.world, one.rung].append(one)
    lines = []
    for (name, rung), all_found in some.items():
        with_value = [one for one in all_found if one.value is not None]
        truth = float(np.mean([one.truth for one in all_found]))
        held = sum(one.low <= truth <= one.high for one in with_value)
        zero = sum(not one.low <= 0 <= one.high for one in with_value)
        interval = binomtest(held, len(with_value)).proportion_ci(method="wilson") if with_value else None
        lines.append(
            {
                "world": name,
                "rung": rung,
                "seeds": len(all_found),
                "given": len(with_value),
                "truth": truth,
                "mean": float(np.mean([one.value for one in with_value])) if with_value else None,
                "held": held / len(with_value) if with_value else None,
                "held_interval": [float(interval.low), float(interval.high)] if interval else None,
                "says_something": zero / len(with_value) if with_value else None,
                "refused_or_warned": sum(one.warned for one in all_found) / len(all_found),
            }
        )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lines = coverage(options.seeds)
    if options.json:
        print(json.dumps(lines))
        return
    table = Table(title=f"95 % intervals over {options.seeds} seeds", title_justify="left")
    for column in ("world", "rung", "given", "truth", "mean", "held the truth", "differ from 0", "refused or warned"):
        table.add_column(column, justify="left" if column in {"world", "rung"} else "right")
    for line in lines:
        low, high = line["held_interval"] or (0, 0)
        shown = [f"{line[name]:.3g}" if line[name] is not None else "" for name in ("truth", "mean")]
        table.add_row(
            line["world"],
            line["rung"],
            str(line["given"]),
            *shown,
            f"{line['held']:.1%} ({low:.0%} to {high:.0%})" if line["held"] is not None else "",
            f"{line['says_something']:.1%}" if line["says_something"] is not None else "",
            f"{line['refused_or_warned']:.0%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
