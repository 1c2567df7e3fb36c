"""Ledgers that take long to make: made once in a run of the tests, by whichever process asks first, and copied."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from tests.support import forked_cli
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment

DEMO = ("demo", "--no-serve")
"""The command that makes the ledger of the demo's ninety days."""


class PreparedLedger(NamedTuple):
    """The output of the command that made the ledger, and the path of a file with the output of `audit replay`."""

    printed: str
    replay: Path

    def events(self) -> list[Document]:
        """Return the events."""
        with self.replay.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def prepared_ledger(shared: Path, data_dir: Path, *words: str) -> PreparedLedger:
    """Copy the ledger that a command makes to ``data_dir``; the command runs only where ``shared`` has none yet."""
    folder = shared / f"{words[0]}-{hashlib.sha256(repr(words).encode()).hexdigest()[:12]}"
    printed, replay = folder / "printed.txt", folder / "replay.jsonl"
    with FileLock(f"{folder}.lock"):
        if not replay.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            printed.write_text(_run(folder, *words))
            replay.write_text(_run(folder, "audit", "replay"))
    shutil.copytree(folder / "data", data_dir)
    return PreparedLedger(printed.read_text(), replay)


def _run(folder: Path, *words: str) -> str:
    where = ("--data-dir", str(folder / "data"))
    done = forked_cli.run([*words, *where], ROOT, clean_environment(), None, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout
