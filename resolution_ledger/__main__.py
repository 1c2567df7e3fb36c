"""The entry of the command line: the console script, `python -m resolution_ledger`, and processes that commands start.

Our packages have names that other programs have, too. So they are taken from the folder that holds this one,
whichever folders stand before it in ``sys.path``: the current folder, those of ``PYTHONPATH``.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

HOME = Path(__file__).resolve().parents[1]
PACKAGES = frozenset(
    ("app", "config", "consumers", "dashboard", "domain", "ledger", "projections", "resolution_ledger")
)


class OwnPackages:
    """A finder of our top-level packages, in our own folder alone."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where one of our packages is; None for every other module."""
        if path is not None or name not in PACKAGES:
            return None
        return PathFinder.find_spec(name, [str(HOME)], target)


def hide_secrets() -> None:
    """Begin again without the passwords on the command line, which every user of the machine may read.

    They go on as environment variables, which only their owner may read. Windows cannot replace a process.
    """
    from config.settings import without_secrets

    words = sys.argv[1:]
    others, found = without_secrets(words)
    own = len(sys.orig_argv) - len(words)
    if found and sys.platform != "win32" and sys.orig_argv[own:] == words:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:own], *others], os.environ | found)  # noqa: S606


def main() -> None:
    """Run the command line."""
    sys.meta_path.insert(0, OwnPackages)
    if sys.platform == "win32":  # whose pipes are in a code page that lacks most letters
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(encoding="utf-8")
    hide_secrets()
    from app.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
