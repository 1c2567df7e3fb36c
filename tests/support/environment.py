"""Paths of the repository, and the environment of a process that a test starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
"""Real data sets; tests that need them are skipped where the folder is absent."""

LONG = bool(os.environ.get("LONG_TESTS"))
"""True if tests try every combination, as in `make test-long`; otherwise they try a sample."""

long_only = pytest.mark.skipif(not LONG, reason="takes half a minute or more, so `make test-long` runs it")


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the ledger's own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RESOLUTION_LEDGER_")}
