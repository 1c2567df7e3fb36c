"""Events and decisions over HTTP beside NATS, with `up` as a process of its own; both by turns.

python -m benchmarks.http_upstreams [--events N] [--decisions N] [--rounds N]

A request that the ledger could not answer is sent again with the same ids and counted; its latency holds all attempts.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.cpu import Measured, Meter, until_at_rest
from benchmarks.ledgers import POLICY, fact
from benchmarks.processes import Ledger
from benchmarks.versions import present
from domain.documents.replies import REPEATABLE
from ledger.nats.client import connect
from ledger.nats.connection_options import ConnectionOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ledger.nats.client import LedgerClient

_SOURCE = "bench"
_BATCH, _SENDERS, _ASKERS = 500, 4, 64
_FLOOD_A_SECOND = 5_000
_TOKENS = 4
"""Tokens of the askers over HTTP: one alone meets its limit of requests a second on a fast machine."""
_NEEDED_EVENTS, _NEEDED_DECISIONS = 5_000, 500
_AGAIN = (429, 503)
"""The statuses after which the same request may succeed."""
_PAUSE_SECONDS, _PATIENCE_SECONDS = 0.1, 60.0


class HttpConnection:
    """A connection that is kept alive; it sends one request at a time, so that the load costs little CPU."""

    def __init__(self, address: str, token: str) -> None:
        self._host, _, port = address.removeprefix("http://").partition(":")
        self._port = int(port)
        self._token = token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, content_type: str, key: str = "") -> tuple[int, bytes]:
        """Return the status and body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        )
        writer.write((head + (f"Idempotency-Key: {key}\r\n" if key else "") + "\r\n").encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
        return int(answer.split(" ", 2)[1]), await reader.readexactly(length)


class Load(NamedTuple):
    """The rate of a run (a second), its latencies in milliseconds, and the number of requests sent again."""

    rate: float
    median: float
    p99: float
    retries: int


def _load_of(latencies: Sequence[float], seconds: float, retries: int) -> Load:
    cuts = statistics.quantiles(latencies, n=100)
    return Load(len(latencies) / seconds, statistics.median(latencies), cuts[98], retries)


async def _answered(once: Callable[[], Awaitable[bool]]) -> int:
    """Send a request until ``once`` says that it was answered; return the number of retries.

    Raises:
        TimeoutError: the ledger answered nothing else for a minute.

    """
    retries, deadline = 0, time.monotonic() + _PATIENCE_SECONDS
    while not await once():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the ledger was not available for {_PATIENCE_SECONDS:.0f} seconds")
        retries += 1
        await asyncio.sleep(_PAUSE_SECONDS)
    return retries


async def _load(number: int, width: int, once: Callable[[int, int], Awaitable[bool]]) -> Load:
    """Run ``once(worker, number)`` for each number until it is answered, by so many workers."""
    numbers, latencies, retries = iter(range(number)), list[float](), list[int]()

    async def work(worker: int) -> None:
        for one in numbers:
            begun = time.perf_counter()
            retries.append(await _answered(partial(once, worker, one)))
            latencies.append((time.perf_counter() - begun) * 1000)

    begun = time.perf_counter()
    await asyncio.gather(*(work(worker) for worker in range(width)))
    return _load_of(latencies, time.perf_counter() - begun, sum(retries))


def _events(label: str, first: int) -> list[bytes]:
    event = json.loads(fact(0))
    return [
        json.dumps(event | {"source": _SOURCE, "id": f"{label}-{number}"}).encode()
        for number in range(first, first + _BATCH)
    ]


def _request(agent: int, request_id: str | None = None) -> bytes:
    named = {} if request_id is None else {"request_id": request_id}
    amount = {"amount": "0.01", "currency": "GBP"}
    return json.dumps(named | {"agent_id": f"A-{agent}", "kind": "refund", "amount": amount, "reason": "late"}).encode()


def _http_connections(address: str, tokens: Sequence[str]) -> list[HttpConnection]:
    return [HttpConnection(address, tokens[number % len(tokens)]) for number in range(_ASKERS)]


async def _published_over_http(address: str, tokens: Sequence[str], events: int, label: str) -> Load:
    connections = _http_connections(address, tokens)

    async def publish(worker: int, number: int) -> bool:
        body = b"[%b]" % b",".join(_events(label, number * _BATCH))
        status, answer = await connections[worker].post("/api/v1/events", body, "application/cloudevents-batch+json")
        assert status in (202, *_AGAIN), answer
        return status == 202

    return await _load(events // _BATCH, _SENDERS, publish)


async def _decided_over_http(address: str, tokens: Sequence[str], decisions: int, label: str) -> Load:
    connections = _http_connections(address, tokens)

    async def decide(worker: int, number: int) -> bool:
        path = "/api/v1/decisions/action"
        body, key = _request(number % 100), f"{label}-{number}"
        status, answer = await connections[worker].post(path, body, "application/json", key)
        assert status in (200, *_AGAIN), answer
        return status == 200

    return await _load(decisions, _ASKERS, decide)


async def _published_over_nats(client: LedgerClient, events: int, label: str) -> Load:
    async def publish(_worker: int, number: int) -> bool:
        bodies = _events(label, number * _BATCH)
        subject = f"resolution.inbox.{_SOURCE}"
        acks = await asyncio.gather(*(client.request(subject, body, timeout=20) for body in bodies))
        return all(b'"error"' not in ack.data for ack in acks)

    return await _load(events // _BATCH, _SENDERS, publish)


async def _decided_over_nats(client: LedgerClient, decisions: int, label: str) -> Load:
    async def decide(_worker: int, number: int) -> bool:
        return await _decide_over_nats(client, f"{label}-{number}", number % 100)

    return await _load(decisions, _ASKERS, decide)


async def _decide_over_nats(client: LedgerClient, request_id: str, agent: int) -> bool:
    subject = f"resolution.decide.{_SOURCE}.action"
    answer = json.loads((await client.request(subject, _request(agent, request_id), timeout=20)).data)
    again = answer.get("error", {}).get("code") in REPEATABLE
    assert again or answer["outcome"] == "taken", answer
    return not again


async def _rounds(ledger: Ledger, tokens: Sequence[str], counts: tuple[int, int], rounds: int) -> None:
    told = json.loads((ledger.data_dir / "connection.json").read_text())
    source = json.loads((ledger.data_dir / "sources" / f"{_SOURCE}.json").read_text())
    client = await connect(ConnectionOptions.of(source["nats_url"]), "benchmark")
    ways = {
        "NATS": (partial(_published_over_nats, client), partial(_decided_over_nats, client)),
        "HTTP": (
            partial(_published_over_http, told["http_url"], tokens),
            partial(_decided_over_http, told["http_url"], tokens),
        ),
    }
    times = f"{'median ms':>9} {'p99':>7} {'again':>5}"
    print(f"{'':>14} {'events/s':>9} {times}   {'decisions/s':>11} {times}")
    try:
        for number in range(rounds):
            for way, (publish, decide) in ways.items():
                until_at_rest(ledger.data_dir)
                events = await publish(counts[0], f"{way}-{number}")
                until_at_rest(ledger.data_dir)  # else decisions wait until these events are recorded
                decisions = await decide(counts[1], f"{way}-{number}")
                rates = events.rate * _BATCH, decisions.rate
                print(f"{way:>14} {rates[0]:9,.0f} {_times(events)}   {rates[1]:11,.0f} {_times(decisions)}")
    finally:
        await client.close()
    print(f"{'needed of HTTP':>14} {_NEEDED_EVENTS:9,} {'':>23}   {_NEEDED_DECISIONS:11,}")
    print(f"latencies of batches of {_BATCH} events, {_SENDERS} at once; of decisions, {_ASKERS} at once")
    print("again: requests that were sent again, because the ledger was not available or busy")


def _times(load: Load) -> str:
    return f"{load.median:9.1f} {load.p99:7.1f} {load.retries:5,}"


async def _flooded(ledger: Ledger, token: str, decisions: int, rounds: int) -> None:
    """Print decisions over NATS with and without a flood of events over HTTP, by turns, and the CPU of each process.

    Decisions are measured twice: as many as 32 askers get, and at the needed rate, where latencies count from the time
    at which a request was due.
    """
    told = json.loads((ledger.data_dir / "connection.json").read_text())
    source = json.loads((ledger.data_dir / "sources" / f"{_SOURCE}.json").read_text())
    client = await connect(ConnectionOptions.of(source["nats_url"]), "benchmark")
    found: dict[tuple[str, bool], list[Load]] = {}
    print(f"\ndecisions over NATS without and with a flood of {_FLOOD_A_SECOND:,} events/s over HTTP, by turns")
    print(f"{'':>8} {'asked/s':>9} {'answered/s':>10} {'median ms':>9} {'p99':>7} {'again':>5}   CPU of one core")
    try:
        for number in range(rounds):
            for paced in (False, True):
                for way in ("quiet", "flood"):
                    until_at_rest(ledger.data_dir)
                    meter, flood = Meter(ledger.data_dir), Flood(told["http_url"], token, f"flood-{number}-{paced}")
                    task = asyncio.create_task(flood.run()) if way == "flood" else None
                    load = await _decisions(client, decisions, f"{way}-{number}-{paced}", paced=paced)
                    if task is not None:
                        flood.stop()
                        await task
                    spent = meter.stop(decisions)
                    found.setdefault((way, paced), []).append(load)
                    asked = f"{_NEEDED_DECISIONS}" if paced else "unpaced"
                    print(f"{way:>8} {asked:>9} {load.rate:10,.0f} {_times(load)}   {_cpu(spent)}")
                    if task is not None:
                        print(f"{'':>8} {flood.report()}")
    finally:
        await client.close()
    _print_ratios(found)


async def _decisions(client: LedgerClient, number: int, label: str, *, paced: bool) -> Load:
    """Request so many decisions over NATS: by 32 askers, or at the needed rate."""
    if not paced:
        return await _decided_over_nats(client, number, label)
    begun, latencies = time.perf_counter(), list[float]()

    async def ask(one: int) -> int:
        due = begun + one / _NEEDED_DECISIONS
        await asyncio.sleep(due - time.perf_counter())
        retries = await _answered(partial(_decide_over_nats, client, f"{label}-{one}", one % 100))
        latencies.append((time.perf_counter() - due) * 1000)
        return retries

    retries = await asyncio.gather(*(ask(one) for one in range(number)))
    return _load_of(latencies, time.perf_counter() - begun, sum(retries))


def _cpu(spent: Measured) -> str:
    shares = sorted(spent.cpu_seconds.items(), key=lambda item: -item[1])
    return ", ".join(f"{role} {seconds / spent.seconds:.0%}" for role, seconds in shares if seconds > 0)


def _print_ratios(found: dict[tuple[str, bool], list[Load]]) -> None:
    """Print the flood's medians beside the quiet ones."""
    for paced in (False, True):
        quiet, flood = found["quiet", paced], found["flood", paced]
        rates = [statistics.median(one.rate for one in loads) for loads in (quiet, flood)]
        slowest = [statistics.median(one.p99 for one in loads) for loads in (quiet, flood)]
        name = f"{_NEEDED_DECISIONS}/s" if paced else "unpaced"
        print(f"{name:>8}: loss of rate {1 - rates[1] / rates[0]:.0%}, p99 {slowest[0]:.1f} -> {slowest[1]:.1f} ms")


class Flood:
    """Batches over HTTP at the needed rate: each has its time, and late ones are sent at once by what is free.

    A batch that was refused counts as such; it is not sent again.
    """

    def __init__(self, address: str, token: str, label: str) -> None:
        self._connections = [HttpConnection(address, token) for _ in range(_SENDERS)]
        self._label = label
        self._numbers = itertools.count()
        self._stopped = False
        self._statuses = Counter[int]()
        self._begun = self._ended = 0.0

    async def run(self) -> None:
        """Publish until it is stopped."""
        self._begun = time.perf_counter()
        await asyncio.gather(*(self._send(connection) for connection in self._connections))
        self._ended = time.perf_counter()

    def stop(self) -> None:
        """Send no more batches."""
        self._stopped = True

    async def _send(self, connection: HttpConnection) -> None:
        while not self._stopped:
            number = next(self._numbers)
            await asyncio.sleep(self._begun + number * _BATCH / _FLOOD_A_SECOND - time.perf_counter())
            body = b"[%b]" % b",".join(_events(self._label, number * _BATCH))
            status, _ = await connection.post("/api/v1/events", body, "application/cloudevents-batch+json")
            self._statuses[status] += 1

    def report(self) -> str:
        """Return the rates at which events were sent and taken, and the number of batches by status."""
        seconds = self._ended - self._begun
        sent, taken = (number * _BATCH / seconds for number in (self._statuses.total(), self._statuses[202]))
        statuses = ", ".join(f"{status}: {number}" for status, number in sorted(self._statuses.items()))
        return f"flood: {sent:,.0f} events/s sent, {taken:,.0f} taken (batches by status: {statuses})"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--decisions", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = Ledger(present(), folder / "ledger")
        policy = folder / "policy.json"
        policy.write_text(json.dumps(POLICY | {"default_role": "agent"}))
        with ledger.up():
            ledger.run("decide", "policy", str(policy), "--published-by", "owner")
            ledger.run("admin", "sources", "add", _SOURCE, "--profile", "desk+facts+people")
            names = [f"{_SOURCE}-{number}" for number in range(_TOKENS)]
            tokens = [ledger.document("admin", "tokens", "make", name, "--source", _SOURCE)["token"] for name in names]
            counts = (options.events, options.decisions)
            asyncio.run(_rounds(ledger, tokens, counts, options.rounds))
            asyncio.run(_flooded(ledger, tokens[0], options.decisions, options.rounds))


if __name__ == "__main__":
    main()
