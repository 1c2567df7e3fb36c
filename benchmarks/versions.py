"""Versions of the product to run from outside: this checkout, or a commit with a virtual environment of its own.

A commit is checked out by `git worktree` into `.benchmarks/versions/`, is set up there by its own `make setup`, and is
kept for the next run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".benchmarks" / "versions"
_PROGRAM = "resolution-ledger"
_COMPLETE = ".complete"


class VersionError(Exception):
    """A commit that cannot be checked out or set up; the message gives the cause and the remedy."""


@dataclass(frozen=True)
class Version:
    """A version that can be run: its folder, and the folder of its programs."""

    name: str
    folder: Path
    programs: Path

    def command(self, *words: str) -> list[str]:
        """Return the command line of `resolution-ledger` with these words."""
        return [str(self.programs / _PROGRAM), *words]

    def environment(self) -> dict[str, str]:
        """Return this environment without settings of the product, and without a link to another Python's modules.

        Bytecode is written, as an installed program has it; else each run would compile the modules again.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RESOLUTION_LEDGER_")}
        for name in (
            "PYTHONPATH",
            "PYTHONDONTWRITEBYTECODE",
            "VIRTUAL_ENV",
            "MAKEFLAGS",
            "MFLAGS",
            "MAKEOVERRIDES",
            "MAKELEVEL",
        ):
            kept.pop(name, None)
        return kept


def present() -> Version:
    """Return this checkout, including uncommitted changes."""
    return Version("present", ROOT, Path(sys.executable).parent)


def full_hash(commit: str) -> str:
    """Return the full hash of a commit, branch or tag.

    Raises:
        VersionError: this repository has no such commit.
    """
    try:
        return _run(
            ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}"], ROOT
        ).strip()
    except VersionError as error:
        message = f"this repository has no commit {commit!r}: fetch it (`git fetch --unshallow`), or name another"
        raise VersionError(message) from error


def checked_out(commit: str, *, instead: tuple[str, ...] = ()) -> Version:
    """Return a commit, checked out and set up; at once where an earlier run has done it.

    ``instead`` are requirements, such as ``iso4217==1.11.20220401``, that replace those of the commit. The environment
    then is one of its own.

    Raises:
        VersionError: the commit is not there, or its set-up fails.
    """
    commit = full_hash(commit)
    folder = CACHE / "-".join([commit[:12], *(one.replace("==", "-") for one in instead)])
    CACHE.mkdir(parents=True, exist_ok=True)
    version = Version(commit[:7], folder, folder / ".venv" / "bin")
    with (CACHE / f"{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _COMPLETE).exists():
            sys.stderr.write(f"checking out {commit[:7]} and setting it up in {folder.relative_to(ROOT)} ...\n")
            _check_out(commit, folder)
            _run(["make", "setup"], folder, version.environment())
            if instead:
                pip = [str(version.programs / "python"), "-m", "pip", "install", "--quiet", "--no-deps", *instead]
                _run(pip, folder, version.environment())
            (folder / _COMPLETE).touch()
    return version


def _check_out(commit: str, folder: Path) -> None:
    """Add a work tree, replacing an incomplete one."""
    shutil.rmtree(folder, ignore_errors=True)
    _run(["git", "worktree", "prune"], ROOT)
    _run(["git", "worktree", "add", "--force", "--detach", str(folder), commit], ROOT)


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise VersionError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        end = " | ".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise VersionError(f"`{' '.join(command)}` in {folder} failed: {end}")
    return done.stdout
