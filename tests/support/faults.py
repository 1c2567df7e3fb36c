"""Faults by a seed over a ledger's real processes, while sources send facts and requests; then all checks.

`python -m tests.support.faults --schedules 200` tries many seeds, prints the seconds without answers by kind of fault,
and a command that replays each seed that failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.versions import Version, checked_out, present
from ledger.nats.client import connect
from tests.support.fault_checks import problems_of
from tests.support.fault_load import Gaps, Load
from tests.support.fault_schedules import (
    DECIDERS,
    PROCESSES,
    Schedule,
    Step,
    decider_schedule,
    planned_schedule,
    schedule_of,
)
from tests.support.fault_topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EARLIER = "99e02145e0f73068592b140eb4368314380ed2f3"
"""The version that is replaced by this one in schedules with upgrades: of 30 November 2026, whose deciders share holders."""
OTHER_ROLE = "any fault of another role"
BOUNDS = {
    "kill leader": 8.0,
    "kill decider": 2.5,
    "restart decider": 0.5,
    "lame duck leader": 0.5,
    "lame duck follower": 0.5,
    "step down of the leader": 0.5,
}
"""The most seconds without a decision for a holder, in the median. A planned stop may cost none; half a second is noise."""


@dataclass
class Gap:
    """The seconds without answers of one fault, or of several at once."""

    fault: str
    seconds: Gaps


@dataclass
class Result:
    """The outcome of one schedule; ``problems`` is empty where all checks hold."""

    seed: int
    servers: int
    steps: list[str]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    facts: int = 0
    decisions: int = 0
    seconds: float = 0.0


class Trial:
    """One schedule on one running ledger."""

    def __init__(self, topology: Topology, load: Load, result: Result, say: Callable[[str], None]) -> None:
        self._topology, self._load, self._result, self._say = topology, load, result, say

    async def run(self, schedule: Schedule) -> None:
        """Cause the faults one after the other, each after the ledger has recovered from the one before."""
        for number, group in enumerate(schedule.groups()):
            await asyncio.sleep(group[0].pause)
            since = time.monotonic()
            self._say("; ".join(map(str, group)))
            names = await asyncio.gather(*(self._cause(step, number) for step in group))
            if not await self._load.until_answered(time.monotonic()):
                self._result.problems.append(f"no answers a minute after {' and '.join(names)}")
                return
            gaps = self._load.gaps(since, time.monotonic())
            self._result.gaps.append(Gap(" and ".join(sorted(names)), gaps))
            self._say(
                f"  seconds without answers: a holder {gaps.holder:.2f}, all {gaps.decisions:.2f}, facts {gaps.facts:.2f}"
            )

    async def _cause(self, step: Step, number: int) -> str:
        """Cause a fault and end it; return its name in the table."""
        if step.kind == "deliver again":
            await self._load.deliver_again(number)
            return step.kind
        if step.target in PROCESSES:
            name = step.target
            if name in DECIDERS and (at_work := await self._topology.decider_at_work()) is not None:
                name = "decider" if at_work == name else "standby"
            await self._disturb_process(step)
            return f"{step.kind} {name}"
        if step.kind == "step down":
            await self._topology.step_down()
            return "step down of the leader"
        await self._disturb_server(step, await self._topology.server_of(step.target))
        return f"{step.kind} {step.target}"

    async def _disturb_process(self, step: Step) -> None:
        process, link = self._topology.processes[step.target], self._topology.links[step.target]
        match step.kind:
            case "kill":
                await process.end(signal.SIGKILL, step.seconds)
            case "restart":
                await process.end(signal.SIGTERM)
            case "upgrade":
                await process.end(signal.SIGTERM, version=present())
            case "suspend":
                process.send(signal.SIGSTOP)
                await asyncio.sleep(step.seconds)
                process.send(signal.SIGCONT)
            case "stall" | "cut":
                (link.stall if step.kind == "stall" else link.cut)()
                await asyncio.sleep(step.seconds)
                link.heal()
            case "fill disk":
                await self._fill(step.target, step.seconds)
        if step.kind in ("kill", "restart", "upgrade"):
            await process.until_ready()

    async def _disturb_server(self, step: Step, number: int) -> None:
        server = self._topology.servers[number]
        match step.kind:
            case "kill":
                await asyncio.to_thread(server.stop, signal.SIGKILL)
                await asyncio.sleep(step.seconds)
            case "restart":
                await asyncio.to_thread(server.stop)
            case "lame duck":
                await self._topology.lame_duck(number)
            case "suspend":
                server.send(signal.SIGSTOP)
                await asyncio.sleep(step.seconds)
                server.send(signal.SIGCONT)
                return
            case "fill disk":
                if not await self._fill(f"n{number}", step.seconds):
                    return
                await asyncio.to_thread(server.stop)  # it refuses to write until it is started again
        await asyncio.to_thread(server.start)

    async def _fill(self, name: str, seconds: float) -> bool:
        disk = self._topology.disks[name]
        if not disk.is_mounted:
            self._result.notes.append("no disk was filled: a file system of its own cannot be mounted here")
            return False
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(seconds)
        disk.free()
        return True


async def try_schedule(topology: Topology, schedule: Schedule, say: Callable[[str], None] = print) -> Result:
    """Run a schedule on a running ledger under load, and check everything afterwards."""
    begun = time.monotonic()
    result = Result(schedule.seed, schedule.servers, [str(step) for step in schedule.steps])
    client = await connect(topology.url, "sources", wait_seconds=20)
    load = Load(client, f"s{schedule.seed}")
    try:
        await load.begin()
        await Trial(topology, load, result, say).run(schedule)
        if not result.problems:
            await load.deliver_again(len(schedule.steps))
            await load.end()
            result.problems += await problems_of(topology, load)
    finally:
        await load.cancel()
        await client.close()
    result.notes += [*topology.ends(), *(f"{times} answers {code}" for code, times in load.refusals.items())]
    result.facts, result.decisions = len(load.acknowledged), len(load.asked)
    result.seconds = round(time.monotonic() - begun, 1)
    return result


async def try_seed(
    seed: int,
    *,
    quick: bool = False,
    earlier: Version | None = None,
    alone: Callable[[int], Schedule] | None = None,
) -> Result:
    """Run the schedule of a seed on a ledger of its own; with ``earlier``, on one that begins with that version."""
    schedule = alone(seed) if alone else schedule_of(seed, quick=quick, upgrades=earlier is not None)
    print(f"seed {seed}: {schedule.servers} server(s), {len(schedule.steps)} faults", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults", ignore_cleanup_errors=True) as folder:
        topology = Topology(Path(folder), schedule.servers, earlier)
        async with topology:
            result = await try_schedule(topology, schedule, lambda line: print(f"  {line}", flush=True))
            if result.problems:
                for process in topology.processes.values():
                    print(f"--- {process.name}\n{process.log.read_text(errors='replace')[-3000:]}")
        result.problems += [line for line in topology.ends() if "does not end" in line]
    for line in result.notes:
        print(f"  note: {line}")
    print(f"  {result.facts} facts, {result.decisions} decisions, {result.seconds} s: ", end="")
    print("\n".join(result.problems) or "all checks hold", flush=True)
    return result


def table_of(results: Iterable[Result]) -> Table:
    """Return the seconds without answers by kind of fault; roles other than the deciders are one kind."""
    by_fault: dict[str, list[Gaps]] = defaultdict(list)
    for result in results:
        for gap in result.gaps:
            by_fault[_kind_of(gap.fault)].append(gap.seconds)
    of_holder = ("a holder: median", "wanted", "most")
    columns = ("fault", "times", *of_holder, "all: median", "most", "facts: median", "most")
    table = Table(*columns, title="Seconds without answers")
    for fault, gaps in sorted(by_fault.items()):
        pairs = [(statistics.median(values), max(values)) for values in zip(*gaps, strict=True)]
        figures = [f"{value:.2f}" for pair in pairs for value in pair]
        figures.insert(1, f"{BOUNDS[fault]}" if fault in BOUNDS else "")
        table.add_row(fault, str(len(gaps)), *figures)
    return table


def _kind_of(fault: str) -> str:
    if " and " in fault:
        return "two at the same time"
    return OTHER_ROLE if fault.rsplit(maxsplit=1)[-1] in set(PROCESSES) - set(DECIDERS) else fault


def read_results(file: Path) -> list[Result]:
    """Return the results that an earlier run wrote to a file."""
    found = msgspec.json.decode(file.read_bytes(), type=list[dict[str, Any]])
    return [
        Result(**one | {"gaps": [Gap(gap["fault"], Gaps(*gap["seconds"])) for gap in one["gaps"]]}) for one in found
    ]


def main() -> None:
    """Try seeds; exit with status 1 where a check does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1)
    parser.add_argument("--seed", type=int, help="the first seed; the others follow it")
    parser.add_argument("--quick", action="store_true", help="short schedules, as in the tests of each change")
    parser.add_argument("--deciders", action="store_true", help="kill and restart deciders alone, six times a schedule")
    parser.add_argument("--planned", action="store_true", help="planned stops of three servers alone, five times")
    parser.add_argument("--upgrade", action="store_true", help="replace an earlier version under load")
    parser.add_argument("--base", default=EARLIER, help="the commit of that version")
    parser.add_argument(
        "--read", type=Path, nargs="+", metavar="FILE", help="show the results of these files as one table"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", dest="file", help="write the results to a file")
    options = parser.parse_args()
    if options.read:
        kept = [one for file in options.read for one in read_results(file)]
        Console(width=140).print(table_of(kept))
        print(f"{len(kept)} schedules, {sum(bool(one.problems) for one in kept)} failed")
        return
    alone = decider_schedule if options.deciders else planned_schedule if options.planned else None
    earlier = checked_out(options.base) if options.upgrade else None
    first = secrets.randbelow(10**6) if options.seed is None else options.seed
    results: list[Result] = []
    for seed in range(first, first + options.schedules):
        results.append(asyncio.run(try_seed(seed, quick=options.quick, earlier=earlier, alone=alone)))
        if options.file:
            options.file.write_text(json.dumps([asdict(one) for one in results], indent=1))
    Console(width=140).print(table_of(results))
    failed = [one.seed for one in results if one.problems]
    print(f"{len(results)} schedules, {len(failed)} failed")
    words = (
        " --quick" * options.quick
        + " --deciders" * options.deciders
        + " --planned" * options.planned
        + f" --upgrade --base {options.base}" * options.upgrade
    )
    for seed in failed:
        print(f"python -m tests.support.faults --seed {seed}{words}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
