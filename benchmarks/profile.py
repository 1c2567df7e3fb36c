"""A profile of our side of a benchmark: ``python -m benchmarks.profile PART``.

Prints for each of our processes the functions that were running in most samples, and the share of samples in which they
were on the stack. py-spy takes the samples; on Linux it must be root, or trace its own children.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import PARTS
from benchmarks.contest import ONLY_OURS

_ROWS = 12
_SAMPLES_A_SECOND = 250
_WAITING = (
    "Condition.wait (",
    "Event.wait (",
    "_worker (concurrent",
    "EpollSelector.select (",
    "_wait_for_tstate_lock (",
)


def samples_of(part: str) -> list[tuple[list[str], int]]:
    """Return stacks, outermost first, with the number of samples in which each was running."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stacks"
        command = [
            "py-spy",
            "record",
            "--subprocesses",
            "--rate",
            str(_SAMPLES_A_SECOND),
            "--format",
            "raw",
            "--output",
            str(path),
            "--",
            sys.executable,
            "-m",
            "benchmarks",
            "--quick",
            "--only",
            part,
        ]
        search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        subprocess.run(
            command, check=True, env=os.environ | {ONLY_OURS: "1", "PATH": search}, stdout=subprocess.DEVNULL
        )
        lines = path.read_text().splitlines()
    return [(stack.split(";"), int(count)) for stack, _, count in (line.rpartition(" ") for line in lines)]


def frame_text(frame: str) -> str:
    """Return a frame without its line number."""
    return frame.rpartition(":")[0] + ")" if ":" in frame else frame


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    samples = samples_of(parser.parse_args().part)
    processes: dict[str, Counter[str]] = {}
    on_stack: dict[str, Counter[str]] = {}
    for stack, count in samples:
        place = max(number for number, frame in enumerate(stack) if frame.startswith("process "))
        process, frames = stack[place], [frame_text(frame) for frame in stack[place + 1 :]]
        if not frames or frames[-1].startswith(_WAITING) or any("importlib" in frame for frame in frames):
            continue  # waiting, or starting up
        processes.setdefault(process, Counter())[frames[-1]] += count
        for frame in set(frames):
            on_stack.setdefault(process, Counter())[frame] += count
    for process, running in processes.items():
        total = sum(running.values())
        table = Table(title=f"{process}: {total / _SAMPLES_A_SECOND:.1f} s", title_justify="left")
        for heading in ("running", "share", "on the stack"):
            table.add_column(heading, justify="left" if heading == "running" else "right")
        for frame, count in running.most_common(_ROWS):
            table.add_row(frame, f"{count / total:.0%}", f"{on_stack[process][frame] / total:.0%}")
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
