"""First speed: intake, decisions and the balances' projection, each beside raw nats-py doing the like.

    python -m benchmarks.first_speed [--quick] [--json]

Everything is durable (sync_interval: always). Each role runs in a process of its own; load, server and
role share the machine. Rates are per second, latencies in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import secrets
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from app.cli import GC_THRESHOLDS
from app.session import Session
from config import topology
from config.settings import load_settings
from consumers.budgets import stored_form, subject_of
from domain.budget import Budget
from domain.deciding import Agent, Cause, judge, opening, taken
from domain.money import Money
from domain.policy import parse_policy
from domain.requests import ActionRequest
from domain.wire import encode
from ledger.log import Draft, Log
from ledger.streams import js_api
from projections import generations
from projections.balances import Balances
from projections.engine import Projector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from nats.aio.client import Client

NEEDED = {"intake_per_s": 10_000, "decisions_64_per_s": 2_000, "decision_alone_p99_ms": 5, "balances_per_s": 40_000}
AGENTS = 100
POLICY = {
    "currency": "GBP", "time_zone": "Europe/London", "period": "month", "effective_from": "2020-01-01T00:00:00Z",
    "default_role": "agent",
    "roles": {"agent": {"budget": "99999999.00", "limits": {"refund": "50.00"}, "per_interaction": "60.00"}},
}  # fmt: skip


async def main() -> None:
    """Run all and print."""
    gc.set_threshold(*GC_THRESHOLDS)  # as in every process of ours
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    scale = 10 if given.quick else 1
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings({"data_dir": folder}, {})
        async with Session(settings) as session:
            results |= await intake(session, 50_000 // scale)
            results |= await decisions(session, 20_000 // scale)
            results |= await balances(session, 200_000 // scale, Path(folder) / "bench")
    results["met"] = {
        name: (results[name] <= need if name.endswith("_ms") else results[name] >= need)
        for name, need in NEEDED.items()
    }
    if given.json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        need = f"   (needed: {NEEDED[name]:,})" if name in NEEDED else ""
        print(f"{name:32} {value:,.2f}{need}" if isinstance(value, float) else f"{name:32} {value}{need}")


@contextlib.asynccontextmanager
async def role(session: Session, name: str) -> AsyncIterator[None]:
    """A role in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "run", name, "--with-parent", "--data-dir", str(session.data_dir),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


# ---------------------------------------------------------------------- intake


async def intake(session: Session, n: int) -> dict[str, float]:
    """Inbox to ledger, beside raw nats-py fetching, publishing in atomic batches and acknowledging."""
    door = await Log.door(session.client, topology.INBOX)
    for start in range(0, n, 1000):
        await door.append([Draft("resolution.inbox.bench", fact(number)) for number in range(start, start + 1000)])
    raw = await raw_intake(session, n)
    begun = None
    async with role(session, "intake"):
        while (position := await session.log.last_position()) < n:
            if begun is None and position:
                begun, first = time.perf_counter(), position
            await asyncio.sleep(0.005)
        assert begun
        rate = (n - first) / (time.perf_counter() - begun)
    return {"intake_per_s": rate, "intake_raw_nats_py_per_s": raw, "intake_to_raw": rate / raw}


def fact(number: int) -> bytes:
    """A purchase of about 300 bytes."""
    event = {
        "specversion": "1.0", "id": f"ev-{number:08d}", "source": "bench", "type": "resolution.purchase.completed.v1",
        "time": "2026-01-01T00:00:00Z",
        "data": {
            "order_id": f"O-{number:08d}", "customer_id": f"C-{number % 5000:05d}",
            "total": {"amount": "12.34", "currency": "GBP"}, "margin": {"amount": "3.21", "currency": "GBP"},
            "channel": "web",
        },
    }  # fmt: skip
    return json.dumps(event).encode()


async def raw_intake(session: Session, n: int) -> float:
    """The least that any intake must do, without looking at an event."""
    client = session.client
    scratch = topology.streams()[1] | {
        "name": "SCRATCH",
        "subjects": ["scratch.>"],
        "deny_delete": False,
        "deny_purge": False,
    }
    await js_api(client, "STREAM.CREATE.SCRATCH", scratch)
    subscription = await client.jetstream().pull_subscribe("resolution.inbox.*", durable="bench", stream="INBOX")
    begun, done = time.perf_counter(), 0
    while done < n:
        messages = await subscription.fetch(1000, timeout=5)
        await raw_batch(client, "scratch.x", [message.data for message in messages])
        for message in messages:
            await message.ack()
        done += len(messages)
    rate = n / (time.perf_counter() - begun)
    await subscription.unsubscribe()
    await js_api(client, "CONSUMER.DELETE.INBOX.bench")
    return rate


async def raw_batch(client: Client, subject: str, payloads: list[bytes]) -> None:
    """One atomic batch, by hand."""
    batch = secrets.token_hex(8)
    for number, payload in enumerate(payloads, 1):
        headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number < len(payloads):
            await client.publish(subject, payload, headers=headers)
        else:
            reply = await client.request(subject, payload, headers=headers | {"Nats-Batch-Commit": "1"}, timeout=10)
            assert b"error" not in reply.data, reply.data


# ---------------------------------------------------------------------- decisions


async def decisions(session: Session, n: int) -> dict[str, float]:
    """Decisions with 64 in flight and one at a time, beside raw durable publishes."""
    upstream = await session.upstream("bench")

    async def ask(number: int) -> None:
        request = {
            "request_id": f"r-{number}", "agent_id": f"A-{number % AGENTS}", "kind": "refund", "reason": "late",
            "amount": {"amount": "5.00", "currency": "GBP"}, "customer_id": f"C-{number}",
            "interaction_id": f"I-{number}",
        }  # fmt: skip
        reply = await upstream.request("resolution.decide.bench.action", json.dumps(request).encode(), timeout=30)
        answer = json.loads(reply.data)
        assert answer["outcome"] == "taken", answer

    async def publish(number: int) -> None:
        reply = await session.client.request(f"scratch.{number % AGENTS}", b"x" * 500, timeout=30)
        assert b"error" not in reply.data, reply.data

    async with role(session, "decisions"):
        await until_answers(upstream)
        policy = {"request_id": "policy", "policy": POLICY, "published_by": "bench"}
        await upstream.request("resolution.decide.bench.policy", encode(policy), timeout=30)
        await in_flight(ask, range(AGENTS * 10), 64)  # warm: budgets are open
        rate = await in_flight(ask, range(10**6, 10**6 + n), 64)
        raw = await in_flight(publish, range(n), 64)
        alone = await one_by_one(ask, range(2 * 10**6, 2 * 10**6 + n // 10))
        raw_alone = await one_by_one(publish, range(n // 10))
    return {
        "decisions_64_per_s": rate, "publish_64_raw_per_s": raw, "decisions_64_to_raw": rate / raw,
        "decision_alone_p50_ms": alone[49], "decision_alone_p99_ms": alone[98],
        "publish_alone_raw_p50_ms": raw_alone[49], "publish_alone_raw_p99_ms": raw_alone[98],
    }  # fmt: skip


async def until_answers(upstream: Client) -> None:
    """Wait until somebody decides."""
    for _ in range(200):
        with contextlib.suppress(Exception):
            await upstream.request("resolution.decide.bench.preview", b"{}", timeout=1)
            return
        await asyncio.sleep(0.1)
    message = "nobody decides"
    raise RuntimeError(message)


async def in_flight(work: Callable[[int], Awaitable[None]], numbers: range, width: int) -> float:
    """How many a second with so many at once."""
    waiting = iter(numbers)

    async def worker() -> None:
        for number in waiting:
            await work(number)

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(width)))
    return len(numbers) / (time.perf_counter() - begun)


async def one_by_one(work: Callable[[int], Awaitable[None]], numbers: range) -> list[float]:
    """Percentiles 1 to 99 of the time of one, in milliseconds."""
    took: list[float] = []
    for number in numbers:
        begun = time.perf_counter()
        await work(number)
        took.append((time.perf_counter() - begun) * 1000)
    return quantiles(took, n=100)


# ---------------------------------------------------------------------- balances


async def balances(session: Session, n: int, folder: Path) -> dict[str, float]:
    """budget_balances from JetStream into SQLite, beside a raw ordered consumer reading the same."""
    await fill_with_actions(session, n)
    end = await session.log.last_position()
    start = end - n
    reader = await session.connection("bench")
    projector = Projector(Balances(), generations.open_generation(folder, Balances(), 1))
    begun = time.perf_counter()
    await projector.follow(reader, session.log, until=end)
    rate = end / (time.perf_counter() - begun)
    raw = await raw_follow(session.client, end)
    return {
        "balances_per_s": rate,
        "ordered_consumer_raw_per_s": raw,
        "balances_to_raw": rate / raw,
        "events": start + n,
    }


async def fill_with_actions(session: Session, n: int) -> None:
    """Actions on budgets, as the decider records them."""
    policy, now = parse_policy(POLICY), datetime.now(UTC)
    for number in range(0, n, 1000):
        agent = Agent(agent_id=f"B-{number}", role="agent")
        cause = Cause(source="bench", request_id=f"b-{number}", request_sha256="00" * 16, seen_position=number)
        period = policy.period_at(now)
        opened, _ = opening(policy, 1, f"agent:B-{number}", period, None, cause, agent)
        budget = Budget.open(opened, now)
        drafts = [Draft(subject_of(budget.holder, period), stored_form(opened, cause, now), 0)]
        request = ActionRequest(
            request_id="x", agent_id=agent.agent_id, kind="refund", amount=Money(500, "GBP"), reason="late",
            customer_id="C-1", interaction_id="I-1",
        )  # fmt: skip
        verdict = judge(request, request.amount, agent, policy, "bench", budget, now)
        record = taken(request, agent, 1, budget, verdict, cause, "act-0123456789abcdef0123456789abcdef")
        drafts += [Draft(drafts[0].subject, stored_form(record, cause, now))] * 999
        await session.log.append(drafts)


async def raw_follow(client: Client, n: int) -> float:
    """nats-py's ordered consumer over the whole stream."""
    done, seen = asyncio.Event(), 0

    async def count(_message: Any) -> None:
        nonlocal seen
        seen += 1
        if seen >= n:
            done.set()

    begun = time.perf_counter()
    subscription = await client.jetstream().subscribe(
        "ledger.>", stream="LEDGER", ordered_consumer=True, cb=count, pending_msgs_limit=-1, pending_bytes_limit=-1
    )
    await done.wait()
    rate = n / (time.perf_counter() - begun)
    await subscription.unsubscribe()
    return rate


if __name__ == "__main__":
    asyncio.run(main())
