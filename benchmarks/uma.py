"""UmaDB, an event store in Rust, as a rival: its server as a process of its own, on the same disk.

`make bench-rivals` installs it; it is no dependency of anything else, because it has no wheel for every system. An
append is acknowledged after it was synced to the disk. It has neither replicas nor subjects for others to follow.

The `eventsourcing` library on UmaDB needs an alpha of the library's next version, so it is not measured.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.contest import ONLY_OURS, rate
from benchmarks.rivals import STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.contest import Run

UMA = "UmaDB"
_START_SECONDS = 20.0
_SERVER = "from umadb.umadb_server_cli import main; main()"


@contextlib.contextmanager
def uma_server(folder: Path) -> Iterator[str | None]:
    """Run the server as long as the context lasts; yield its URL, or ``None`` where UmaDB is not installed."""
    if ONLY_OURS in os.environ or find_spec("umadb") is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-c", _SERVER, "--listen", address, "--db-path", str(folder / "uma.db")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _wait_until_up(f"http://{address}", process)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.communicate()


def _wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            uma_client(url).head()
        except Exception as error:
            if process.poll() is not None or time.monotonic() > until:
                text = process.communicate()[1].decode() if process.poll() is not None else str(error)
                raise RuntimeError(f"UmaDB does not start: {text}") from error
            time.sleep(0.1)
        else:
            return


def uma_client(url: str) -> Any:
    """Return a client; its calls block, and may be made from many threads."""
    return _library().Client(url)


def _library() -> Any:
    return import_module("umadb")


def uma_events(number: int, *tags: str) -> list[Any]:
    """Return events of about 300 bytes, with these tags."""
    return [_library().Event("bench:Taken", STATE, list(tags)) for _ in range(number)]


def uma_appends(url: str | None, size: int, number: int) -> dict[str, Run]:
    """Return the contestant that appends batches of ``size``, one after the other."""

    def append(client: Any) -> None:
        client.append(uma_events(size, "bench"))

    return _contestant(url, append, size, len(range(0, number, size)), 1)


def uma_appends_in_flight(url: str | None, number: int, width: int) -> dict[str, Run]:
    """Return the contestant that appends single events, with so many in flight."""

    def append(client: Any) -> None:
        client.append(uma_events(1, "bench"))

    return _contestant(url, append, 1, number, width)


def uma_conditional_appends(url: str | None, number: int, width: int) -> dict[str, Run]:
    """Return the contestant that appends single events, each only if no event has its new tag."""

    def append(client: Any) -> None:
        umadb, tag = _library(), uuid4().hex
        nobody_else = umadb.AppendCondition(umadb.Query([umadb.QueryItem(tags=[tag])]))
        client.append(uma_events(1, tag), nobody_else)

    return _contestant(url, append, 1, number, width)


def uma_replay(url: str | None, number: int) -> dict[str, Run]:
    """Append so many events, and return the contestant that reads them."""
    if url is None:
        return {}
    client = uma_client(url)
    start = 0
    for first in range(0, number, 1000):
        last = client.append(uma_events(min(1000, number - first), "replay"))
        start = start or last - min(1000, number) + 1

    async def run(_round: int) -> float:
        begun, seen = time.perf_counter(), 0
        for _event in client.read(start=start, limit=number):
            seen += 1
        assert seen == number, seen
        return rate(number, begun)

    return {UMA: run}


def _contestant(url: str | None, append: Callable[[Any], None], size: int, appends: int, width: int) -> dict[str, Run]:
    if url is None:
        return {}
    client = uma_client(url)

    async def run(_round: int) -> float:
        if width == 1:
            begun = time.perf_counter()
            for _ in range(appends):
                append(client)
            return rate(appends * size, begun)
        with ThreadPoolExecutor(width) as pool:
            begun = time.perf_counter()
            for done in pool.map(append, [client] * appends):
                assert done is None
            return rate(appends, begun)

    return {UMA: run}
