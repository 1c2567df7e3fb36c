"""The installed size of the package in a separate environment, without extras, by distribution.

    python -m tests.support.installed_size [--extra archive] [--json]

Exit status 1 if the base is larger than `MOST_MB`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.support.environment import ROOT

MOST_MB = 250.0
_SHOWN_MB = 0.5
_MEASURE = """
import importlib.metadata, json, os
found = {}
for one in importlib.metadata.distributions():
    paths = {str(one.locate_file(file)) for file in one.files or ()}
    found[one.name] = [one.version, sum(os.path.getsize(path) for path in paths if os.path.isfile(path))]
print(json.dumps(found))
"""


def pins(requirements: str) -> list[str]:
    """Return the pins of requirements, without their hashes: constraints for an installation of fewer packages."""
    return [line.removesuffix("\\").strip() for line in requirements.splitlines() if re.match(r"[A-Za-z0-9]", line)]


def install(folder: Path, extras: list[str]) -> Path:
    """Install this checkout into a new environment, at the pinned versions; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins((ROOT / "requirements.txt").read_text())))
    requirement = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--constraint",
            constraints,
            requirement,
        ],
        check=True,
    )
    return python


def measured(extras: list[str]) -> dict[str, Any]:
    """Install into a temporary folder, and return megabytes (10^6 bytes, compiled files included)."""
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder), extras)
        done = subprocess.run([python, "-c", _MEASURE], check=True, capture_output=True, text=True)
    found = {name: part for name, part in json.loads(done.stdout).items() if name != "pip"}
    packages = [
        {"name": name, "version": version, "mb": round(size / 1e6, 1)}
        for name, (version, size) in sorted(found.items(), key=lambda item: -item[1][1])
    ]
    return {
        "extras": extras,
        "packages": packages,
        "mb": round(sum(size for _, size in found.values()) / 1e6, 1),
        "most_mb": None if extras else MOST_MB,
    }


def main() -> None:
    """Measure, print, and fail if the base is too large."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.installed_size", description=__doc__)
    parser.add_argument("--extra", action="append", default=[], help="install this extra too; repeatable")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    result = measured(options.extra)
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        table = Table("package", "version", "MB", title="An installation, by package")
        table.columns[2].justify = "right"
        for one in result["packages"]:
            if one["mb"] >= _SHOWN_MB:
                table.add_row(one["name"], one["version"], f"{one['mb']:.1f}")
        small = [one["mb"] for one in result["packages"] if one["mb"] < _SHOWN_MB]
        table.add_row(f"{len(small)} others", "", f"{sum(small):.1f}")
        table.add_section()
        table.add_row("all", "", f"{result['mb']:.1f}")
        Console().print(table)
    if result["most_mb"] is not None and result["mb"] > result["most_mb"]:
        sys.exit(f"the base is larger than {MOST_MB:.0f} MB")


if __name__ == "__main__":
    main()
