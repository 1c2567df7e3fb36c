"""The comparison of two versions: both take turns, each process has its CPU time, and no process outlives a run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.comparison import SIDES, table_of
from benchmarks.cpu import Meter, processes_of
from benchmarks.versions import VersionError, full_hash
from tests.support.documents import Document
from tests.support.environment import ROOT, long_only

WITHOUT_GIT = pytest.mark.skipif(shutil.which("git") is None, reason="no git, which checks the other version out")


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start the smallest comparison of this checkout with itself, with its ledgers in a folder of the test."""
    command = [sys.executable, "-m", "benchmarks.comparison", "--base", "present", "--scale", "0.01"]
    return subprocess.Popen(
        [*command, "--into", str(folder / "kept"), *words],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_over(folder: Path) -> list[str]:
    """Return the command lines of processes that name the folder, or work in it."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = str(path.with_name("cwd").readlink())
        except OSError:
            continue
        if str(folder) in line or where.startswith(str(folder)):
            lines.append(line)
    return lines


@long_only
@pytest.mark.integration
@WITHOUT_GIT
def test_both_versions_take_turns_and_each_process_has_its_cpu_time(tmp_path: Path) -> None:
    process = started(tmp_path, "--rounds", "2", "--only", "decision", "--json")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    turns = [line.rpartition(" ")[2] for line in err.splitlines() if "round" in line]
    assert turns == ["base", "new", "base", "new"]

    document: Document = json.loads(out)
    (kept,) = (tmp_path / "kept").iterdir()
    assert json.loads(kept.read_text()) == document
    (result,) = document["results"]
    assert {"nats-server", "decisions", "load"} <= result["cpu_us"].keys()
    for name in ("nats-server", "decisions", "load"):
        for side in SIDES:
            assert len(result["cpu_us"][name]["runs"][side]) == 2
            assert all(10 < micros < 100_000 for micros in result["cpu_us"][name]["runs"][side]), name
    assert all(rate > 0 for side in SIDES for rate in result["rate"]["runs"][side])

    console = Console(width=200)
    with console.capture() as captured:
        console.print(table_of(result, {"base": "old", "new": "present"}))
    shown = captured.get()
    for words in ("decisions per second", "nats-server, CPU us", "decisions, CPU us", "load, CPU us", "new / base"):
        assert words in shown
    assert left_over(tmp_path) == []


@long_only
@pytest.mark.integration
@WITHOUT_GIT
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_that_was_started(tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path, "--only", "decisions")
    deadline = time.monotonic() + 60
    while not any("nats-server" in line for line in left_over(tmp_path)):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert left_over(tmp_path) == []


@pytest.mark.integration
def test_the_meter_agrees_with_the_process_itself(tmp_path: Path) -> None:
    program = (
        "import sys, time\nsys.stdin.readline()\nbegun = time.process_time()\n"
        "while time.process_time() - begun < 0.3: pass\nprint(time.process_time() - begun, flush=True)\nsys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", program, "resolution-ledger", "run", "busy", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        while processes_of(tmp_path) != {process.pid: "busy"}:
            time.sleep(0.01)
        meter = Meter(tmp_path)
        process.stdin.write("\n")
        process.stdin.flush()
        own = float(process.stdout.readline())
        measured = meter.stop(10)
        process.stdin.close()
    assert measured.operations == 10
    assert own - 0.01 <= measured.cpu_seconds["busy"] <= own + 0.2
    assert measured.seconds >= own


@pytest.mark.integration
def test_a_commit_that_is_not_there_is_named(tmp_path: Path) -> None:
    process = started(tmp_path, "--new", "0123456789")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "no commit '0123456789'" in err


@pytest.mark.integration
@pytest.mark.parametrize("name", ["--help", "HEAD:Makefile", "", "a\nb"])
def test_a_name_that_is_no_commit_is_refused(name: str) -> None:
    with pytest.raises(VersionError, match="no commit"):
        full_hash(name)


def test_the_base_line_is_a_whole_hash() -> None:
    assert len((ROOT / "benchmarks" / "baseline.txt").read_text().strip()) == 40
