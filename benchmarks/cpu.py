"""CPU time of processes, read from outside: the processes of a data directory, and the time that each has used."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

LOAD = "load"
"""The name of this process, which generates the load."""
_CPUCLOCK_SCHED = 2
_REST_SHARE = 0.2
"""Share of one core that idle processes use together."""


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the user and system time of processes with all their threads; 0 for a process that has ended."""
    return sum(_seconds(pid) for pid in pids)


def _seconds(pid: int) -> float:
    # The clock id that clock_getcpuclockid(3) gives: nanoseconds, where /proc/<pid>/stat counts hundredths of a second.
    with suppress(OSError, OverflowError):
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    with suppress(OSError):
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def processes_of(data_dir: Path) -> dict[int, str]:
    """Return the processes whose command line names a data directory, its server, and their children: id and role.

    The role is the command without `run`: "projections", "seal archive", "up", "audit verify", or "nats-server".
    """
    named, parents = dict[int, str](), dict[int, int]()
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            parents[pid] = int(_stat(pid)[1])
            ours = any(word == str(data_dir) or word.startswith(f"{data_dir}/") for word in words)
            if ours or (_is_server(words) and Path(f"/proc/{pid}/cwd").readlink() == data_dir):
                named[pid] = _role(words)
    for pid in parents:
        ancestor = pid
        while ancestor not in named and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in named and ancestor != os.getpid():
            named.setdefault(pid, named[ancestor])
    named.pop(os.getpid(), None)
    return named


def _is_server(words: list[str]) -> bool:
    return Path(words[0]).name.startswith("nats-server")


def _is_program(word: str) -> bool:
    return word == "app" or word.endswith(("resolution-ledger", "resolution_ledger", "resolution_ledger/__main__.py"))


def _role(words: list[str]) -> str:
    if _is_server(words):
        return "nats-server"
    begin = next((at for at, word in enumerate(words) if _is_program(word)), 0) + 1
    command: list[str] = []
    for word in words[begin:]:
        if word.startswith("-") or not word:
            break
        command.append(word)
    return " ".join(command).removeprefix("run ")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def end_all(data_dir: Path) -> None:
    """Kill the processes that still use a data directory after an orderly stop."""
    for pid in processes_of(data_dir):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Measured(NamedTuple):
    """One run: operations, seconds, and the CPU seconds of each process."""

    operations: int
    seconds: float
    cpu_seconds: dict[str, float]


class Meter:
    """Measures seconds, and the CPU seconds of a data directory's processes and this one, from its creation on."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._before = {pid: _seconds(pid) for pid in self._processes()}
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the creation."""
        return time.perf_counter() - self._begun

    def stop(self, operations: int, *, seconds: float | None = None) -> Measured:
        """Return the measurement of so many operations; ``seconds`` if they ended earlier."""
        took = self.seconds if seconds is None else seconds
        spent: defaultdict[str, float] = defaultdict(float)
        for pid, role in self._processes().items():
            spent[role] += _seconds(pid) - self._before.get(pid, 0.0)
        return Measured(operations, took, dict(spent))

    def _processes(self) -> dict[int, str]:
        return {**processes_of(self._data_dir), os.getpid(): LOAD}


def until_at_rest(data_dir: Path, seconds: float = 60) -> None:
    """Wait until the processes of a data directory are idle, at most so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before, begun = cpu_seconds(processes_of(data_dir)), time.monotonic()
        time.sleep(0.5)
        if cpu_seconds(processes_of(data_dir)) - before < _REST_SHARE * (time.monotonic() - begun):
            return
