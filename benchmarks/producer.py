"""A process that appends to the stream LIVE as fast as it can: ``python -m benchmarks.producer URL NUMBER``."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.rivals import STATE
from ledger.connection import connect
from ledger.log import Draft, Log


async def main(url: str, number: int) -> None:
    """Batches of 500."""
    client = await connect(url, "producer")
    log = await Log.door(client, "LIVE")
    for _ in range(0, number, 500):
        await log.append([Draft("bench.LIVE.x", STATE)] * 500)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
