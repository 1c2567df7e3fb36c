"""Imports beside the version before mappings were SQL, by turns: dry runs, whole imports, and memory at many rows.

    python -m benchmarks.imports [--scale 0.1] [--rounds 3] [--base COMMIT]

1. Dry runs of the three public data sets, where they are beside this checkout (shared/data), by both versions in turn:
   seconds on the clock, and CPU time, which neighbours on the machine disturb less. The best of the rounds counts.
2. A whole import beside `publish` of the same events, which is the intake without the reading of files.
3. A dry run of ten million rows (times the scale), with the anonymous memory of the process: the largest, and the
   largest in each tenth of the run, which shows whether it grows with the rows.

Exit status 1 where a bound is not met: 2 for dry runs, 0.9 for whole imports, 500 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.contest import machine
from benchmarks.streams import DATA
from benchmarks.versions import Version, checked_out, present

BEFORE_SQL = "30df7dcaf98a8e0cba9592bd1b9ac0fb8d7ef16c"
"""The last commit with mappings in a language of their own."""
DATA_SETS = ("online_retail", "bpic2013_incidents", "bpic2020_request_for_payment")
ROWS, IMPORTED = 10_000_000, 400_000
FASTER, OF_THE_INTAKE, MEGABYTES = 2.0, 0.9, 500
_POLL_SECONDS = 0.05
_PARTS = 10
MAPPING = """
source: bench
time_zone: Europe/London
files: {returns: {}}
events:
  - type: purchase.returned
    select: |
      SELECT no AS id, try_strptime("at", '%d/%m/%Y %H:%M') AS time, customer AS customer_id,
             {'amount': amount, 'currency': 'GBP'} AS total
      FROM returns
"""


class Run(NamedTuple):
    """A command that has ended: seconds on the clock, CPU seconds, and its anonymous memory over time."""

    seconds: float
    cpu_seconds: float
    memory: list[int]
    """Megabytes of each sample, one about every ``_POLL_SECONDS``."""
    output: str

    @property
    def megabytes(self) -> int:
        """The largest memory."""
        return max(self.memory)

    @property
    def series(self) -> list[int]:
        """The largest memory in each tenth of the run; fewer parts for a run of fewer samples."""
        size = -(-len(self.memory) // _PARTS)
        return [max(self.memory[start : start + size]) for start in range(0, len(self.memory), size)]


def run(version: Version, folder: Path, *words: str) -> Run:
    """Run a command of a version to its end, in a folder of its own.

    Raises:
        SystemExit: the command fails.

    """
    output = folder / "output"
    begun, memory = time.perf_counter(), [0]
    with output.open("w") as out:
        process = subprocess.Popen(
            version.command("--data-dir", str(folder / "ledger"), *words),
            cwd=folder,
            env=version.environment(),
            stdout=out,
        )
        pid = 0
        while not pid:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not pid:
                memory.append(_anonymous_kilobytes(process.pid) // 1024)
                time.sleep(_POLL_SECONDS)
    if status:
        sys.exit(f"{version.name}: {' '.join(words)} failed; is the version set up?")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(time.perf_counter() - begun, cpu, memory, output.read_text())


def _anonymous_kilobytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def dry_runs(base: Version, rounds: int) -> list[tuple[str, float, float, float, float]]:
    """Return for each data set the best seconds and CPU seconds of the base and of this checkout."""
    rows = []
    for name in DATA_SETS:
        path = DATA / f"{name}.csv.gz"
        if not path.exists():
            continue
        runs: dict[str, list[Run]] = {"base": [], "now": []}
        for _ in range(rounds):
            for side, version in (("base", base), ("now", present())):
                with tempfile.TemporaryDirectory() as folder:
                    runs[side].append(run(version, Path(folder), "import", name, str(path), "--dry-run", "--json"))
        seconds = [min(one.seconds for one in runs[side]) for side in runs]
        cpu = [min(one.cpu_seconds for one in runs[side]) for side in runs]
        rows.append((name, seconds[0], seconds[1], cpu[0], cpu[1]))
    return rows


def whole_imports(rounds: int, scale: float) -> tuple[float, float]:
    """Return the best events a second of an import, and of `publish` with the same events."""
    rates: tuple[list[float], list[float]] = [], []
    number = max(2_000, int(IMPORTED * scale))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mapping.yaml").write_text(MAPPING)
        written(folder / "returns.csv", number)
        with (folder / "events.jsonl").open("w") as file:
            for event in range(number):
                data = {
                    "total": {"amount": f"{event % 500 + 1}.00", "currency": "GBP"},
                    "customer_id": f"K-{event % 9973}",
                }
                document = {
                    "specversion": "1.0",
                    "id": str(event),
                    "source": "bench",
                    "type": "resolution.purchase.returned.v1",
                    "time": "2026-06-02T08:00:00.000000Z",
                    "data": data,
                    "sequence": str(event + 2),
                }
                file.write(json.dumps(document) + "\n")
        for turn in range(rounds):
            for kept, words in zip(
                rates,
                (
                    ("import", str(folder / "mapping.yaml"), str(folder / "returns.csv"), "--json"),
                    ("publish", str(folder / "events.jsonl"), "--json"),
                ),
                strict=True,
            ):
                own = folder / f"{words[0]}{turn}"
                own.mkdir()
                done = run(present(), own, *words)
                assert json.loads(done.output)["recorded"] == number
                kept.append(number / done.seconds)
    return max(rates[0]), max(rates[1])


def written(path: Path, rows: int) -> None:
    """Write a file of returns."""
    with path.open("w") as file:
        file.write("no,customer,amount,at\n")
        file.writelines(f"{no},K-{no % 9973},{no % 500 + 1}.00,02/06/2026 09:00\n" for no in range(rows))


def many_rows(scale: float) -> tuple[int, Run]:
    """Return the number of rows of a large dry run, and its run."""
    rows = max(10_000, int(ROWS * scale))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mapping.yaml").write_text(MAPPING)
        written(folder / "returns.csv", rows)
        done = run(
            present(),
            folder,
            "import",
            str(folder / "mapping.yaml"),
            str(folder / "returns.csv"),
            "--dry-run",
            "--json",
        )
    assert json.loads(done.output)["recorded"] == rows
    return rows, done


def main() -> None:
    """Measure and print; end with status 1 where a bound is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows of parts 2 and 3 (default: 1)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", default=BEFORE_SQL, help="the other version of part 1")
    given = parser.parse_args()
    console = Console(width=120)
    console.print(", ".join(f"{name}: {value}" for name, value in machine().items()), markup=False)
    table = Table("part", "measured", "bound", title="Imports")
    met = True
    for name, base, now, base_cpu, now_cpu in dry_runs(checked_out(given.base), given.rounds):
        ratio, of_cpu = base / now, base_cpu / now_cpu
        met &= ratio >= FASTER
        measured = f"{base:.2f} s before, {now:.2f} s now: {ratio:.2f} times as fast (CPU: {of_cpu:.2f})"
        table.add_row(f"dry run, {name}", measured, f"{FASTER:g} times")
    imported, published = whole_imports(given.rounds, given.scale)
    met &= imported / published >= OF_THE_INTAKE
    measured = f"{imported:,.0f} beside {published:,.0f} events a second: {imported / published:.2f}"
    table.add_row("import beside publish", measured, f"{OF_THE_INTAKE:g}")
    rows, done = many_rows(given.scale)
    met &= done.megabytes <= MEGABYTES
    measured = f"{done.megabytes} MB of anonymous memory, {rows / done.seconds:,.0f} rows a second"
    table.add_row(f"dry run of {rows:,} rows", measured, f"{MEGABYTES} MB")
    table.add_row("its memory by tenths", ", ".join(map(str, done.series)) + " MB", "")
    console.print(table)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
