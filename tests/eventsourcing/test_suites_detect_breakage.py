"""The library's suites notice recorders that are broken; a suite that cannot fail proves nothing."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.environment import ROOT

BROKEN = {
    "expectation dropped": {"TestApplication"},
    "batch not atomic": {"TestNonInterleaving", "TestNonInterleavingOfAProcess"},
    "order lost": {"TestApplicationRecorder", "TestApplicationRecorderTextIds", "TestApplicationRecorderOfAProcess"},
    "version off by one": {
        "TestAggregateRecorder",
        "TestAggregateRecorderTextIds",
        "TestSnapshotRecorder",
        "TestTrackingRecorder",
        "TestTrackingRecorderOfAProcess",
        "TestProcessRecorder",
        "TestExampleApplication",
        "TestEventCountersView",
        "TestProjection",
        "TestEventSourcedProjection",
    },
}
CONSTRUCT_ONLY = {"TestFactory", "TestTranscoder"}  # they store nothing


def run_suites(selected: set[str], broken: str) -> set[str]:
    """Run the library's suites on a broken recorder; return the classes that failed."""
    suites = [f"tests/eventsourcing/test_library_suites.py::{name}" for name in sorted(selected)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "-p",
            "tests.support.broken_recorders",
            "-rfE",
            "--timeout",
            "30",
            *suites,
        ],
        cwd=ROOT,
        env=os.environ | {"BREAK": broken, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
        timeout=250,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return set(re.findall(r"^(?:FAILED|ERROR) \S+?::(\w+)::", done.stdout, re.MULTILINE))


@pytest.mark.integration
@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_broken_recorder_fails_the_suites(broken: str) -> None:
    assert run_suites(BROKEN[broken], broken) == BROKEN[broken]


def test_every_suite_that_stores_is_shown_to_fail() -> None:
    text = (ROOT / "tests" / "eventsourcing" / "test_library_suites.py").read_text()
    assert set(re.findall(r"^class (Test\w+)\(", text, re.MULTILINE)) == set().union(*BROKEN.values()) | CONSTRUCT_ONLY
