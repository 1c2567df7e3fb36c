"""Every decision of a large ledger made again: differences, decisions a second, memory. Target: 5,000 a second.

python -m benchmarks.redecision [--decisions N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from app.output import showing_progress
from app.runtime.redecide import redecide_log
from app.runtime.roles import running
from app.runtime.session import Session
from benchmarks.load import send_all
from config import topology
from config.settings import load_settings
from domain.serialization import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

_AGENTS, _CUSTOMERS, _IN_FLIGHT, _AT_ONCE = 500, 20_000, 256, 20_000
_TARGET = 5_000
_POLICY = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2020-01-01T00:00:00Z",
    "default_role": "agent",
    "roles": {
        "agent": {
            "budget": "99999999.00",
            "limits": {"refund": "50.00"},
            "per_interaction": "60.00",
            "per_customer": {"amount": "500.00", "days": 90},
        },
    },
}


def _requests(first: int, number: int) -> Iterator[tuple[str, bytes]]:
    for one in range(first, first + number):
        request: dict[str, object] = {
            "request_id": f"r-{one}",
            "agent_id": f"A-{one % _AGENTS}",
            "kind": "refund",
            "amount": {"amount": "90.00" if one % 10 == 9 else "5.00", "currency": "GBP"},
            "reason": "late delivery",
            "order_id": f"O-{one}",
        }
        if one % 2:
            request |= {"customer_id": f"C-{one * 7 % _CUSTOMERS}", "interaction_id": f"I-{one // 4}"}
        yield "resolution.decide.bench.action", encode(request)


async def _fill(session: Session, decisions: int) -> None:
    upstream = await session.upstream("bench")
    policy = encode({"request_id": "policy", "policy": _POLICY, "published_by": "owner"})
    answer = await session.client.request(f"{topology.OPERATE_SUBJECT}.cli.policy", policy, timeout=30)
    assert json.loads(answer.data)["outcome"] == "done", answer.data
    with showing_progress("deciding", "decisions") as progressed:
        for first in range(0, decisions, _AT_ONCE):
            number = min(_AT_ONCE, decisions - first)
            await send_all(upstream, list(_requests(first, number)), _IN_FLIGHT)
            progressed(first + number, decisions)


async def measure(decisions: int) -> dict[str, float]:
    """Fill a ledger by its decider, and make its decisions again in this process."""
    with tempfile.TemporaryDirectory() as folder:
        async with Session(load_settings({"data_dir": f"{folder}/data"}, {})) as session:
            begun = time.perf_counter()
            async with running(session, ("intake", "decisions")):
                await _fill(session, decisions)
            filled = time.perf_counter() - begun
            last = await session.log.last_position()
            begun, cpu = time.perf_counter(), time.process_time()
            with showing_progress("deciding again", "events") as progressed:
                client = await session.connection("redecide")
                found = await redecide_log(client, session.log, Path(folder), 1, last, progressed)
            seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "events": last,
        "decided_per_second": round(decisions / filled),
        "made_again": found.decisions,
        "differences": len(found.differences),
        "per_second": round(found.decisions / seconds),
        "per_cpu_second": round(found.decisions / cpu),
        "target_per_second": _TARGET,
        "peak_mib_with_decider": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=100_000, help="Decisions to make, and to make again.")
    print(json.dumps(asyncio.run(measure(parser.parse_args().decisions)), indent=2))


if __name__ == "__main__":
    main()
