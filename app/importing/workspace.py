"""The folder for the overflow of an import: one for each run, removed afterwards, also after a killed run."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.files import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX, _LOCK = "run-", "lock"


@contextmanager
def workspace(data_dir: Path) -> Iterator[Path]:
    """Make a folder in a data directory; remove it at the end, with those of killed runs.

    A data directory that did not exist is removed, too, if nothing else has been stored in it meanwhile.
    """
    is_new = not data_dir.exists()
    parent = data_dir / "import"
    parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(parent)
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=_PREFIX) as own, (Path(own) / _LOCK).open("a") as file:
            try_lock(file)
            yield Path(own)
    finally:
        with suppress(OSError):  # another import uses it
            parent.rmdir()
            if is_new:
                data_dir.rmdir()


def _remove_stale(parent: Path) -> None:
    """Remove the folders of runs that have ended without removing them."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError), (folder / _LOCK).open("a") as file:
            if try_lock(file):
                shutil.rmtree(folder, ignore_errors=True)
