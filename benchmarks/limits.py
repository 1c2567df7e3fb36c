"""Upper limits of all figures: the disk, the server and a thread."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.contest import Contest, contest, rate
from benchmarks.rivals import ES_JETSTREAM, STATE, Recorders, make_stream
from ledger.store.log import Draft, Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.msg import Msg

    from benchmarks.contest import Run
    from benchmarks.context import BenchmarkContext


async def limits(context: BenchmarkContext) -> list[Contest]:
    """Measure each limit alone, without rivals."""
    client, number = context.session.client, context.scaled(2_000)
    await make_stream(client, "LIMITS")
    log = await Log.unstamped(client, "LIMITS")
    await log.append([Draft("bench.LIMITS.x", STATE)] * 1000)

    async def echo(message: Msg) -> None:
        await message.respond(message.data)

    await client.subscribe("bench.echo", cb=echo)
    await client.flush()

    async def synced(_round: int) -> float:
        path = context.folder / "synced"
        with path.open("wb", buffering=0) as file:
            begun = time.perf_counter()
            for _ in range(number):
                file.write(STATE)
                os.fdatasync(file.fileno())
            return rate(number, begun)

    async def echoed(_round: int) -> float:
        took = []
        for _ in range(number):
            begun = time.perf_counter()
            await context.raw.request("bench.echo", STATE)
            took.append((time.perf_counter() - begun) * 1000)
        return median(took)

    def read(size: int) -> Run:
        async def run(_round: int) -> float:
            return await asyncio.to_thread(_raw_read, context.session.url, size)

        return run

    contests = [
        await contest("limit: write 300 bytes and fdatasync", "per s", {"this disk": synced}),
        await contest("limit: request and reply between two nats-py clients", "ms", {"nats-server": echoed}),
        await contest("limit: 100 messages from nats-server to a bare socket", "ms", {"nats-server": read(100)}),
        await contest("limit: 1000 messages from nats-server to a bare socket", "ms", {"nats-server": read(1000)}),
    ]
    with Recorders({ES_JETSTREAM: context.envs[ES_JETSTREAM]}, "limits") as recorders:
        bridge = recorders[ES_JETSTREAM]._loop_thread  # type: ignore[attr-defined]  # noqa: SLF001 - what it adds by itself

        async def nothing(_client: object) -> None:
            """Do nothing."""

        async def bridged(_round: int) -> float:
            return await asyncio.to_thread(_timed, lambda: bridge.run(nothing), number)

        contests.append(await contest("limit: a call to another thread's loop and back", "ms", {"bridge": bridged}))
    return contests


def _timed(call: Callable[[], object], number: int) -> float:
    took = []
    for _ in range(number):
        begun = time.perf_counter()
        call()
        took.append((time.perf_counter() - begun) * 1000)
    return median(took)


def _raw_read(url: str, size: int) -> float:
    """Read by a batched direct get without a client library; this is about the server's own time."""
    credentials, _, address = url.removeprefix("nats://").partition("@")
    user, _, password = credentials.partition(":")
    host, _, port = address.partition(":")
    connect = {"user": user, "pass": password, "verbose": False, "headers": True, "no_responders": True}
    request = json.dumps({"seq": 1, "next_by_subj": "bench.LIMITS.x", "batch": size}).encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.recv(65536)
        connection.sendall(b"CONNECT " + json.dumps(connect).encode() + b"\r\nSUB bench.answers 1\r\n")

        def read() -> None:
            connection.sendall(b"PUB $JS.API.DIRECT.GET.LIMITS bench.answers %d\r\n%b\r\n" % (len(request), request))
            tail = b""
            while b"NATS/1.0 204" not in tail:
                tail = tail[-100:] + connection.recv(1 << 20)

        read()
        return _timed(read, 30)
