"""Many sources beside one, and the effect of a flood on other sources. There are no targets.

python -m benchmarks.inboxes [--events N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time

from app.runtime.roles import running
from app.runtime.session import Session
from benchmarks.ledgers import fact
from config import topology
from config.settings import load_settings
from ledger.nats.client import frame
from ledger.store.streams import js_api, stream_storing

_PUBLISHED_TOGETHER = 500
_FLOOD = 400
_PROBES = 200


def _event(source: str, name: str) -> bytes:
    event = json.loads(fact(0))
    return json.dumps(event | {"source": source, "id": name}).encode()


async def _register_sources(session: Session, sources: list[str]) -> None:
    """Record an event of each source, and wait until each has its own inbox."""
    for source in sources:
        await session.client.request(f"{topology.INBOX_SUBJECT}.{source}", _event(source, "first"), timeout=10)
    for source in sources:
        name = topology.source_stream_name(source)
        while await stream_storing(session.client, f"{topology.INBOX_SUBJECT}.{source}") != name:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _fill_inboxes(session: Session, sources: list[str], events: int) -> None:
    """Publish events to inboxes while no intake runs, and wait until all are stored."""
    inbox = session.client.new_inbox().encode()
    for start in range(0, events, _PUBLISHED_TOGETHER):
        numbers = range(start, min(events, start + _PUBLISHED_TOGETHER))
        pairs = [(sources[number % len(sources)], f"e-{number}") for number in numbers]
        subject = topology.INBOX_SUBJECT
        frames = [frame(f"{subject}.{source}".encode(), _event(source, name), inbox) for source, name in pairs]
        session.client.send(b"".join(frames))
        await session.client.flush()
    waiting = 0
    while waiting < events:
        waiting = 0
        for source in sources:
            info = await js_api(
                session.client, f"CONSUMER.INFO.{topology.source_stream_name(source)}.{topology.INTAKE_CONSUMER}"
            )
            waiting += int(info["num_pending"])
        await asyncio.sleep(0.1)


async def drain(number: int, events: int) -> tuple[float, float]:
    """Return events a second, and CPU microseconds of the intake for each event, with so many sources."""
    with tempfile.TemporaryDirectory() as folder:
        async with Session(load_settings({"data_dir": folder}, {})) as session:
            sources = [f"bench-{one}" for one in range(number)]
            async with running(session, ("intake",)):
                await _register_sources(session, sources)
            await _fill_inboxes(session, sources, events)
            start, first = await session.log.last_position(), 0
            begun = cpu = 0.0
            async with running(session, ("intake",)):
                while (done := await session.log.last_position() - start) < events:
                    if done and not first:  # without the start of the intake
                        first, begun, cpu = done, time.perf_counter(), time.process_time()
                    await asyncio.sleep(0.01)
            spent, taken = time.process_time() - cpu, events - first
            return taken / (time.perf_counter() - begun), spent / taken * 1e6


async def _ack_latencies(session: Session, source: str) -> list[float]:
    """Return milliseconds to the PubAck of sequential publishes."""
    found: list[float] = []
    for number in range(_PROBES):
        begun = time.perf_counter()
        data = _event(source, f"probe-{begun}-{number}")
        await session.client.request(f"{topology.INBOX_SUBJECT}.{source}", data, timeout=30)
        found.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0.005)
    return found


async def flood() -> dict[str, list[float]]:
    """Return another source's milliseconds to its PubAck without a flood and during one."""
    with tempfile.TemporaryDirectory() as folder:
        async with Session(load_settings({"data_dir": folder}, {})) as session:
            async with running(session, ("intake",)):
                await _register_sources(session, ["flooder", "other"])
            found = {"alone": await _ack_latencies(session, "other")}
            flooding = await session.connection("flood")

            async def keep_flooding() -> None:
                number, inbox = 0, flooding.new_inbox().encode()
                while True:
                    events = [_event("flooder", f"f-{number + one}") for one in range(_FLOOD)]
                    subject = f"{topology.INBOX_SUBJECT}.flooder".encode()
                    flooding.send(b"".join([frame(subject, event, inbox) for event in events]))
                    number += _FLOOD
                    await asyncio.sleep(0.05)

            task = asyncio.create_task(keep_flooding())
            await asyncio.sleep(0.5)
            found["beside a flood"] = await _ack_latencies(session, "other")
            task.cancel()
            return found


async def run(events: int) -> None:
    """Print the figures."""
    for number in (1, 100):
        rate, cpu = await drain(number, events)
        print(f"drain of {number} sources: {rate:,.0f} events/s, {cpu:.1f} CPU us an event")
    for condition, times in (await flood()).items():
        cuts = statistics.quantiles(times, n=100)
        print(f"PubAck of another source {condition}: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms")


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    asyncio.run(run(parser.parse_args().events))


if __name__ == "__main__":
    main()
