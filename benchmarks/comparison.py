"""Two versions of the product by turns, in one run: rates, and the CPU time that each process spends on an operation.

    python -m benchmarks.comparison [--base COMMIT] [--new COMMIT] [--quick] [--only PART]... [--json]

Rates on shared machines vary by a factor of four from minute to minute; CPU time an operation does not. The base is the
commit in `benchmarks/baseline.txt`; the new version is this checkout, `present`. Each part runs for both by turns
(base, new, base, new, ...), each version on a ledger of its own. Results are kept in `.benchmarks/comparisons/`. Exit
status 1 where ``--at-most`` is not met or a version fails, 2 where one cannot be set up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.contest import ROUNDS, machine, text
from benchmarks.cpu import LOAD, Measured, end_all
from benchmarks.parts import PARTS, Part, Side
from benchmarks.processes import CommandError, Ledger
from benchmarks.versions import ROOT, Version, VersionError, checked_out, present

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

BASELINE = Path(__file__).parent / "baseline.txt"
KEPT = ROOT / ".benchmarks" / "comparisons"
PRESENT = "present"
SIDES = ("base", "new")
ALL = "all but the load"
_SHOWN_SHARE = 0.01
_INTERRUPTED = 130


def version_of(name: str) -> Version:
    """Return this checkout where it is called `present`, else a commit, checked out and set up."""
    return present() if name == PRESENT else checked_out(name)


@contextmanager
def ledgers(versions: dict[str, Version], scale: float) -> Iterator[dict[str, Side]]:
    """Give each version a filled ledger in a temporary folder; no process of theirs outlives the context."""
    with tempfile.TemporaryDirectory(prefix="resolution-ledger-bench-") as name, ExitStack() as stack:
        sides = {}
        for side, version in versions.items():
            folder = Path(name).resolve() / side
            folder.mkdir()
            stack.callback(end_all, folder / "ledger")
            progress(f"{side} ({version.name}): filling a ledger")
            sides[side] = Side(Ledger(version, folder / "ledger"), scale)
            sides[side].begin()
        yield sides


def run(versions: dict[str, Version], parts: list[str], rounds: int, scale: float) -> Generator[dict[str, Any]]:
    """Measure each part for both versions by turns; yield each part's result as soon as it is known."""
    with ledgers(versions, scale) as sides:
        for number, name in enumerate(parts, 1):
            runs: dict[str, list[Measured]] = {side: [] for side in sides}
            for turn in range(rounds):
                for side, measured_side in sides.items():
                    progress(f"part {number} of {len(parts)}, {name}: round {turn + 1} of {rounds}, {side}")
                    runs[side].append(PARTS[name].run(measured_side))
            yield result_of(PARTS[name], runs)


def result_of(part: Part, runs: dict[str, list[Measured]]) -> dict[str, Any]:
    """Return a part's document: rates, and the microseconds of each process by operation, of every run."""
    processes = sorted({name for measured in runs.values() for one in measured for name in one.cpu_seconds})
    micros = {
        name: {side: [_micros(one, [name]) for one in measured] for side, measured in runs.items()}
        for name in processes
    }
    ours = [name for name in processes if name != LOAD]
    micros[ALL] = {side: [_micros(one, ours) for one in measured] for side, measured in runs.items()}
    rates = {side: [one.operations / one.seconds for one in measured] for side, measured in runs.items()}
    return {
        "title": part.title,
        "operation": part.operation,
        "rate": _compared(rates),
        "cpu_us": {name: _compared(by_side) for name, by_side in micros.items()},
    }


def _micros(measured: Measured, processes: list[str]) -> float:
    return sum(measured.cpu_seconds.get(name, 0.0) for name in processes) * 1e6 / measured.operations


def _compared(by_side: dict[str, list[float]]) -> dict[str, Any]:
    medians = {side: median(figures) for side, figures in by_side.items()}
    ratio = medians["new"] / medians["base"] if medians["base"] else None
    return {"medians": medians, "ratio": ratio, "runs": by_side}


def table_of(result: dict[str, Any], names: dict[str, str]) -> Table:
    """Return a part's table: the rate, and the microseconds an operation of each process that uses 1 % or more."""
    table = Table(title=result["title"], title_justify="left")
    table.add_column("")
    for heading in (names["base"], names["new"], "new / base", "runs of base", "runs of new"):
        table.add_column(heading, justify="right")
    rows = {f"{result['operation']}s per second": result["rate"]}
    least = _SHOWN_SHARE * max(result["cpu_us"][ALL]["medians"].values())
    rows |= {
        f"{name}, CPU us": figures
        for name, figures in result["cpu_us"].items()
        if max(figures["medians"].values()) >= least
    }
    for name, figures in rows.items():
        ratio = figures["ratio"]
        table.add_row(
            name,
            *(text(figures["medians"][side]) for side in SIDES),
            "" if ratio is None else f"{ratio:.2f}",
            *(" ".join(text(one) for one in figures["runs"][side]) for side in SIDES),
        )
    return table


def progress(line: str) -> None:
    """Write a line about the progress on standard error."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {line}\n")
    sys.stderr.flush()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=BASELINE.read_text().strip(), help="a commit; default: baseline.txt's")
    parser.add_argument("--new", default=PRESENT, help="a commit; default: this checkout")
    parser.add_argument("--quick", action="store_true", help="a tenth of the operations, two rounds")
    parser.add_argument("--scale", type=float, metavar="SHARE", help="this share of the operations")
    parser.add_argument("--rounds", type=int, help=f"how often each runs; default: {ROUNDS}")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--at-most", type=float, metavar="RATIO", help="exit 1 where new / base of all CPU is above")
    parser.add_argument("--into", type=Path, default=KEPT, metavar="FOLDER", help="where the document is kept")
    parser.add_argument("--json", action="store_true", help="the document on standard output, instead of tables")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if options.scale is not None and not 0 < options.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")
    return options


def main() -> None:
    """Set up both versions, run the parts, store and print the results."""
    options = arguments()
    if not Path("/proc/self/cmdline").exists():
        sys.exit("benchmarks.comparison reads processes from /proc: run it on Linux")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: every context ends its processes
    rounds = options.rounds or (2 if options.quick else ROUNDS)
    scale = options.scale or (0.1 if options.quick else 1.0)
    console = Console(width=None if sys.stdout.isatty() else 150)
    results = []
    try:
        versions = {"base": version_of(options.base), "new": version_of(options.new)}
        headings = {side: f"{side}, {version.name}" for side, version in versions.items()}
        with closing(run(versions, options.only or list(PARTS), rounds, scale)) as measured:
            for result in measured:
                results.append(result)
                if not options.json:
                    console.print(table_of(result, headings))
    except (VersionError, CommandError) as error:
        sys.stderr.write(f"benchmarks.comparison: {error}\n")
        sys.exit(2 if isinstance(error, VersionError) else 1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: all processes of both versions are ended\n")
        sys.exit(_INTERRUPTED)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    document = {
        "when": when,
        "machine": machine(),
        "versions": {side: version.name for side, version in versions.items()},
        "rounds": rounds,
        "scale": scale,
        "load_average": os.getloadavg(),
        "results": results,
    }
    options.into.mkdir(parents=True, exist_ok=True)
    path = options.into / f"{when.replace(':', '').replace('+0000', 'Z')}.json"
    path.write_text(json.dumps(document, indent=1))
    if options.json:
        print(json.dumps(document))
    progress(f"kept in {path}")
    above = [
        one["title"] for one in results if options.at_most and (one["cpu_us"][ALL]["ratio"] or 0) > options.at_most
    ]
    if above:
        sys.exit(f"more than {options.at_most:g} times the CPU of the base: {', '.join(above)}")


if __name__ == "__main__":
    main()
