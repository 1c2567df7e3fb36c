"""A process that appends to the stream LIVE as fast as it can: ``python -m benchmarks.producer NUMBER``."""

from __future__ import annotations

import asyncio
import os
import sys

from benchmarks.rivals import STATE
from ledger.nats.client import connect
from ledger.store.log import Draft, Log

NATS_URL = "BENCHMARK_NATS_URL"
"""The environment variable with the server's URL: its password must not be on a command line."""


async def main(url: str, number: int) -> None:
    """Append in batches of 500."""
    client = await connect(url, "producer")
    log = await Log.unstamped(client, "LIVE")
    for _ in range(0, number, 500):
        await log.append([Draft("bench.LIVE.x", STATE)] * 500)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(os.environ[NATS_URL], int(sys.argv[1])))
