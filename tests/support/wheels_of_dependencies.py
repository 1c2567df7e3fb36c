"""A check that every dependency has wheels for every supported system, by the package registry.

    python -m tests.support.wheels_of_dependencies

Nothing is installed. Exit status 1 if a wheel is missing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.environment import ROOT
from tests.support.installed_size import pins

SYSTEMS = {
    "linux x86-64": ("linux", [f"manylinux{tag}_x86_64" for tag in ("2014", "_2_17", "_2_27", "_2_28")]),
    "linux arm64": ("linux", [f"manylinux{tag}_aarch64" for tag in ("2014", "_2_17", "_2_27", "_2_28")]),
    "macos arm64": ("darwin", [f"macosx_{major}_0_arm64" for major in range(11, 15)]),
    "windows x86-64": ("win32", ["win_amd64"]),
}
PYTHONS = ("3.12", "3.13")


def missing(system: str, python: str) -> str:
    """Return pip's message on missing wheels of the image's packages for a system; empty if there is none."""
    name, tags = SYSTEMS[system]
    needed = [Requirement(line) for line in pins((ROOT / "requirements-image.txt").read_text())]
    marks = {
        "sys_platform": name,
        "platform_system": {"win32": "Windows", "darwin": "Darwin"}.get(name, "Linux"),
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    found = [f"{one.name}{one.specifier}" for one in needed if one.marker is None or one.marker.evaluate(marks)]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--target",
            str(Path(folder)),
            "--python-version",
            python,
            *(f"--platform={tag}" for tag in tags),
            *found,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return "" if done.returncode == 0 else "; ".join(errors) or done.stderr


def main() -> None:
    """Check every system and Python version."""
    failed = False
    for system in SYSTEMS:
        for python in PYTHONS:
            said = missing(system, python)
            failed |= bool(said)
            sys.stdout.write(f"{system}, Python {python}: {said or 'all there'}\n")
            sys.stdout.flush()
    sys.exit(failed)


if __name__ == "__main__":
    main()
