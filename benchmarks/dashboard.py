"""The dashboard under load: reads, listeners and the delay from a decision to a browser, while events arrive."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import secrets
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from app.runtime.session import Session
from benchmarks.contest import Contest, contest
from benchmarks.context import role
from benchmarks.cpu import cpu_seconds
from benchmarks.reports import AGENTS, CUSTOMERS, fill
from benchmarks.seal import NEEDED, constant_target
from config import topology
from config.settings import load_settings
from dashboard.listen_address import ListenAddress, token_of
from projections.engine import storage
from projections.engine.sqlite_store import SqliteStore
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from benchmarks.contest import Run
    from benchmarks.context import BenchmarkContext

EVENTS = 1_000_000
EVENTS_A_SECOND, READS_A_SECOND, LISTENERS, CONNECTIONS = 1000, 500, 500, 32
SECONDS = 20.0
_TICK = 0.05
_REST = 0.2
"""Seconds of CPU time a second that idle processes use."""


ROLES = ("intake", "decisions", "projections", "guard", "seal")


async def dashboards(context: BenchmarkContext) -> list[Contest]:
    """Measure one combined load in three rounds of twenty seconds."""
    folder = context.folder / "dashboard"
    async with Session(load_settings({"data_dir": str(folder)}, {})) as session, AsyncExitStack() as stack:
        await fill(session, context.scaled(EVENTS))
        where = ListenAddress(port=0)
        listening = where.bound()
        stack.callback(listening.close)
        cpu = {name: [await stack.enter_async_context(role(folder, name))] for name in ROLES}
        options, descriptor = where.options(listening.fileno()), listening.fileno()
        dashboard = role(folder, "dashboard", *options, descriptors=(descriptor,))
        cpu["dashboard"] = [await stack.enter_async_context(dashboard)]
        await _until_current(session, folder)
        await _until_recorded(session)
        await _at_rest([pid for pids in cpu.values() for pid in pids])
        load = _Load(session, listening.getsockname()[1], token_of(folder))
        gc.freeze()  # garbage collection would distort the measurements
        server = int((folder / "server" / "server.pid").read_text())
        await load.round()  # warms the caches, as in a dashboard in use
        return await _measured(load, {"load": [os.getpid()], "nats-server": [server], **cpu}, context.scaled(EVENTS))


async def _measured(load: _Load, cpu: dict[str, list[int]], events: int) -> list[Contest]:
    rounds: list[dict[str, float]] = []

    async def reads(_number: int) -> float:
        rounds.append(await load.round())
        return rounds[-1]["reads"]

    def of(name: str) -> Run:
        async def run(number: int) -> float:
            return rounds[number][name]

        return run

    title = f"{EVENTS_A_SECOND:,} events/s come in, {LISTENERS} listen, at {events:,} events"
    return [
        await contest(
            f"reads over HTTP; {title}",
            "1/s",
            {"ledger": reads, NEEDED: constant_target(READS_A_SECOND)},
            needs={NEEDED: 0.97},
            cpu_of=cpu,
        ),
        await contest(
            "the slowest of a hundred reads",
            "ms",
            {"ledger": of("p99"), NEEDED: constant_target(50)},
            needs={NEEDED: 1},
        ),
        await contest(
            "a decision to a browser, the slowest of a hundred",
            "ms",
            {"ledger": of("seen"), NEEDED: constant_target(500)},
            needs={NEEDED: 1},
        ),
    ]


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _until_current(session: Session, folder: Path) -> None:
    """Wait until each view has read the log."""
    end = await session.log.last_position()
    views = SqliteStore(folder / "views")
    for make in MODELS.values():
        model = make()
        while True:
            generation = views.live_generation(model)
            if generation is not None:
                with views.open_generation(model, generation).connect() as connection:
                    if storage.read_progress(connection).anchor.position >= end:
                        break
            await asyncio.sleep(1)


async def _until_recorded(session: Session) -> None:
    """Wait until the intake has recorded a fact: before its first one it reads the ids of all recorded facts."""
    upstream, name = await session.upstream("first"), f"first-{secrets.token_hex(4)}"
    await upstream.publish(f"{topology.INBOX_SUBJECT}.bench", _fact(name, 0))
    while True:
        reply = await upstream.request(f"{topology.READ_SUBJECT}.bench.receipt", b'{"id": "%b"}' % name.encode(), 60)
        if msgspec.json.decode(reply.data)["status"] == "recorded":
            return
        await asyncio.sleep(0.5)


async def _at_rest(pids: list[int]) -> None:
    """Wait until these processes are idle: guard and seal have read all events, too."""
    before = -1.0
    while (spent := cpu_seconds(pids)) - before > _REST or before < 0:
        before = spent
        await asyncio.sleep(1)


def _fact(name: str, number: int) -> bytes:
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": name,
            "source": "bench",
            "time": datetime.now(UTC).isoformat(),
            "type": "resolution.interaction.opened.v1",
            "data": {"interaction_id": f"L-{name}", "customer_id": f"C-{number % CUSTOMERS:06d}", "channel": "chat"},
        }
    )


class _Load:
    """All kinds of load at once, from this process."""

    def __init__(self, session: Session, port: int, token: str) -> None:
        self._session, self._port, self._token = session, port, token
        self._random = random.Random(1)

    async def round(self) -> dict[str, float]:
        """Return reads a second, their 99th percentile, and that of decisions to a listener, in ms."""
        async with AsyncExitStack() as stack:
            heard = await stack.enter_async_context(self._listener())
            crowd = [await stack.enter_async_context(self._counting_listener()) for _ in range(LISTENERS - 1)]
            while min(said[0] for said in crowd) == 0:  # noqa: ASYNC110 - all are connected once each has received data
                await asyncio.sleep(0.1)
            publishing = asyncio.create_task(self._publish())
            stack.push_async_callback(_cancel, publishing)
            deciding = asyncio.create_task(self._decide(heard))
            before, position = [said[0] for said in crowd], await self._session.log.last_position()
            latencies = await self._read()
            recorded = await self._session.log.last_position() - position
            assert recorded > 0.9 * SECONDS * EVENTS_A_SECOND, f"{recorded} events were recorded meanwhile"
            seen = sorted(await deciding)
            assert all(said[0] > heard for said, heard in zip(crowd, before, strict=True)), (
                "a listener received nothing"
            )
        latencies.sort()
        return {
            "reads": len(latencies) / SECONDS,
            "p99": latencies[int(0.99 * len(latencies))] * 1000,
            "seen": seen[min(len(seen) - 1, int(0.99 * len(seen)))] * 1000,
        }

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _get(self, path: str) -> bytes:
        heads = f"Host: 127.0.0.1:{self._port}\r\nAuthorization: Bearer {self._token}\r\n\r\n"
        return f"GET /api/v1/{path} HTTP/1.1\r\n{heads}".encode()

    @asynccontextmanager
    async def _listener(self) -> AsyncIterator[dict[int, asyncio.Event]]:
        """Read server-sent events in a task; set the event of each awaited position of `casework`."""
        reader, writer = await self._connect()
        writer.write(self._get("stream"))
        waiting: dict[int, asyncio.Event] = {}

        async def listen() -> None:
            while line := await reader.readline():
                if waiting and line.startswith(b"data: "):
                    news = json.loads(line[6:])
                    for position in [at for at in waiting if news["view"] == "casework" and at <= news["position"]]:
                        waiting.pop(position).set()

        task = asyncio.create_task(listen())
        try:
            yield waiting
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            writer.close()

    @asynccontextmanager
    async def _counting_listener(self) -> AsyncIterator[list[int]]:
        """Listen and count bytes only; real browsers parse them on other machines."""
        said = [0]

        class Listening(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                said[0] += len(data)

        transport, _ = await asyncio.get_running_loop().create_connection(Listening, "127.0.0.1", self._port)
        transport.write(self._get("stream"))
        try:
            yield said
        finally:
            transport.close()

    async def _publish(self) -> None:
        """Publish facts to an inbox at a constant rate."""
        upstream = await self._session.upstream("load")
        number, begun = 0, time.monotonic()
        name = secrets.token_hex(4)
        while True:
            due = int((time.monotonic() - begun) * EVENTS_A_SECOND)
            while number < due:
                number += 1
                await upstream.publish(f"{topology.INBOX_SUBJECT}.bench", _fact(f"{name}-{number}", number))
            await asyncio.sleep(_TICK)

    async def _decide(self, heard: dict[int, asyncio.Event]) -> list[float]:
        """Return seconds from a request until a listener hears that the view has the decision, ten times a second."""
        upstream, took = await self._session.upstream("decider"), []
        subject, end = f"{topology.DECIDE_SUBJECT}.bench.action", time.monotonic() + SECONDS
        while time.monotonic() < end:
            request = {
                "request_id": secrets.token_hex(8),
                "agent_id": f"A-{self._random.randrange(AGENTS):04d}",
                "kind": "credit",
                "amount": {"amount": "0.01", "currency": "GBP"},
                "reason": "late",
            }
            begun = time.perf_counter()
            reply = await upstream.request(subject, msgspec.json.encode(request), timeout=10)
            event = heard[msgspec.json.decode(reply.data)["position"]] = asyncio.Event()
            with suppress(TimeoutError):  # a time-out counts as this long
                await asyncio.wait_for(event.wait(), SECONDS)
            took.append(time.perf_counter() - begun)
            await asyncio.sleep(max(0.0, 0.1 - took[-1]))
        return took

    async def _read(self) -> list[float]:
        """Return latencies of reads, each sent at its due time regardless of earlier answers."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        latencies: list[float] = []

        async def client() -> None:
            reader, writer = await self._connect()
            while True:
                due, asked = await queue.get()
                writer.write(asked)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                latencies.append(time.perf_counter() - due)

        clients = [asyncio.create_task(client()) for _ in range(CONNECTIONS)]
        begun, number = time.perf_counter(), 0
        while (passed := time.perf_counter() - begun) < SECONDS:
            while number < passed * READS_A_SECOND:
                queue.put_nowait((begun + number / READS_A_SECOND, self._typical_request()))
                number += 1
            await asyncio.sleep(0.002)
        done = len(latencies)
        for task in clients:
            task.cancel()
        for result in await asyncio.gather(*clients, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result
        return latencies[:done]

    def _typical_request(self) -> bytes:
        """Return a typical request: a budget, an agent's actions, an interaction's trail, or the views' positions."""
        agent = f"A-{self._random.randrange(AGENTS):04d}"
        return self._get(
            self._random.choice(
                (
                    f"balances?holder=agent:{agent}&limit=10",
                    f"actions?agent={agent}&limit=20",
                    f"trail?interaction=I-{self._random.randrange(20_000):07d}&limit=20",
                    "projections",
                )
            )
        )
