"""Fail-over of three servers under load: seconds without answers after SIGKILL of the leader, and after a step-down.

The roles know one of the three servers. Facts and requests are sent continuously, and repeated under their ids until
answered. At the end the log is compared with the answers: no event is lost or doubled, and a repeated request gets its
first answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats.errors
from rich.console import Console
from rich.table import Table

from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from ledger.errors import LedgerError
from ledger.store.cloudevents import parse_time
from ledger.store.streams import js_api, stream_names
from tests.support.nats_servers import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ledger.nats.client import LedgerClient

SOURCE = "bench"
ROLES = ("intake", "decisions")
POLICY = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2020-01-01T00:00:00Z",
    "roles": {"agent": {"budget": "900000.00", "limits": {"refund": "50.00"}}},
}
_ASKERS, _PUBLISHERS = 4, 2
_PATIENCE_SECONDS = 5.0
_ROUTE_SECONDS = 1.0
"""Seconds after a kill in which the other servers may still send messages to the killed one."""
_PAUSE_SECONDS = 0.02
_SETTLE_SECONDS = 1.0
_DRAIN_SECONDS, _ASKED_AGAIN = 60.0, 500
_PASSING = {"unavailable", "busy"}


class Load:
    """Upstreams that send facts and request decisions, and record the times of answers and their delays."""

    def __init__(self, client: LedgerClient) -> None:
        self.client = client
        self.answers: dict[str, dict[str, Any]] = {}
        self.facts: list[str] = []
        self.at: dict[str, list[float]] = {"decisions": [], "facts": []}
        self.refused_after: list[float] = []
        """Seconds after which a request was told to ask again."""
        self.silent: list[float] = []
        """When requests were sent that heard nothing."""
        self.killed: list[float] = []
        """When a server was killed."""
        self.recorded: list[float] = []
        """Recorded times of facts, seconds since 1970, read from the log at the end."""
        self.stopping = False

    async def ask(self, number: int) -> None:
        """Request one decision after the other."""
        count = 0
        while not self.stopping:
            count += 1
            name = f"r-{number}-{count}"
            while (answer := await self.action(name)) is None:  # noqa: ASYNC110 - an upstream repeats its request
                await asyncio.sleep(_PAUSE_SECONDS)
            self.answers[name] = answer
            self.at["decisions"].append(time.monotonic())
            await asyncio.sleep(_PAUSE_SECONDS)

    async def action(self, name: str) -> dict[str, Any] | None:
        """Request an action; None without an answer, or if the answer asks for a retry."""
        body = {
            "request_id": name,
            "agent_id": "A-1",
            "kind": "refund",
            "reason": "late",
            "basis": "goodwill",
            "amount": {"amount": "1.00", "currency": "GBP"},
        }
        running_ledger = time.monotonic()
        try:
            reply = await self.client.request(
                f"{topology.DECIDE_SUBJECT}.{SOURCE}.action", json.dumps(body).encode(), timeout=_PATIENCE_SECONDS
            )
        except (nats.errors.Error, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                self.silent.append(running_ledger)
            return None
        answer: dict[str, Any] = json.loads(reply.data)
        if answer["outcome"] == "error" and answer["error"]["code"] in _PASSING:
            self.refused_after.append(time.monotonic() - running_ledger)
            return None
        return answer

    async def publish(self, number: int) -> None:
        """Publish one fact after the other."""
        count = 0
        while not self.stopping:
            count += 1
            name = f"f-{number}-{count}"
            while not await self.stored(name):  # noqa: ASYNC110 - an upstream publishes again
                await asyncio.sleep(_PAUSE_SECONDS)
            self.facts.append(name)
            self.at["facts"].append(time.monotonic())
            await asyncio.sleep(_PAUSE_SECONDS)

    async def stored(self, name: str) -> bool:
        """Publish a fact; return whether the server acknowledged it."""
        event = {
            "specversion": "1.0",
            "id": name,
            "source": SOURCE,
            "type": "resolution.purchase.completed.v1",
            "time": "2026-01-05T10:00:00Z",
            "data": {"order_id": name, "total": {"amount": "1.00", "currency": "GBP"}},
        }
        try:
            reply = await self.client.request(
                f"{topology.INBOX_SUBJECT}.{SOURCE}", json.dumps(event).encode(), timeout=1.0
            )
        except (nats.errors.Error, TimeoutError):
            return False
        return "seq" in json.loads(reply.data)

    def lost_in_flight(self) -> int:
        """Return the number of unanswered requests that were lost in the killed server, or whose answers were."""
        return sum(
            any(-_PATIENCE_SECONDS < sent - killed < _ROUTE_SECONDS for killed in self.killed) for sent in self.silent
        )

    def gap(self, kind: str, since: float) -> float:
        """Return the longest time without an answer of this kind since a time."""
        moments = [since, *(moment for moment in self.at[kind] if moment > since)]
        return max((later - earlier for earlier, later in pairwise(moments)), default=float("inf"))


@contextlib.asynccontextmanager
async def running_ledger(cluster: Cluster, folder: Path) -> AsyncIterator[Session]:
    """Yield a ledger with three replicas, whose roles run in their own processes and know one server."""
    options = {
        "data_dir": str(folder / "data"),
        "nats_url": cluster.servers[0].url,
        "replicas": 3,
        "allow_lazy_fsync": True,
        "unregistered_sources": "desk",
    }
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(100):
            try:
                session = await stack.enter_async_context(Session(load_settings(options, {}), creates=True))
                break
            except LedgerError:  # the cluster has no leader yet
                await asyncio.sleep(0.2)
        else:
            raise RuntimeError("the cluster does not begin")
        for role in ROLES:
            await stack.enter_async_context(_role(role, session, folder))
        yield session


@contextlib.asynccontextmanager
async def _role(role: str, session: Session, folder: Path) -> AsyncIterator[None]:
    words = [
        "-m",
        "resolution_ledger",
        "run",
        role,
        "--data-dir",
        str(folder / role),
        "--replicas",
        "3",
        "--nats-url",
        str(session.settings.nats_url),
        "--allow-lazy-fsync",
        "--unregistered-sources",
        "desk",
    ]
    with (folder / f"{role}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=log, stderr=log)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def leader(session: Session) -> int:
    """Return the number of the server that leads the ledger's stream."""
    while True:
        with contextlib.suppress(LedgerError):
            cluster = (await js_api(session.client, f"STREAM.INFO.{topology.LEDGER}")).get("cluster", {})
            copies = cluster.get("replicas", ())
            if cluster.get("leader") and all(one.get("current") and not one.get("offline") for one in copies):
                return int(cluster["leader"][1:])
        await asyncio.sleep(0.1)


async def measure(kills: int, steps: int, folder: Path) -> dict[str, Any]:
    """Kill leaders and let them step down; return the seconds without answers, and the faults found at the end."""
    with Cluster(folder / "cluster") as cluster:
        async with running_ledger(cluster, folder) as session:
            load = Load(await session.upstream("load"))
            await _prepare(session, load)
            tasks = [asyncio.create_task(load.ask(number)) for number in range(_ASKERS)]
            tasks += [asyncio.create_task(load.publish(number)) for number in range(_PUBLISHERS)]
            result: dict[str, Any] = {"kills": [], "steps": []}
            for kind, times in (("steps", steps), ("kills", kills)):
                for _ in range(times):
                    await asyncio.sleep(_SETTLE_SECONDS)
                    result[kind].append(await _disrupt(kind, session, cluster, load))
                    print(kind, json.dumps(result[kind][-1]), file=sys.stderr, flush=True)
            load.stopping = True
            await asyncio.gather(*tasks)
            result["unavailable_after_at_most"] = max(load.refused_after, default=0.0)
            result["told_to_ask_again"], result["lost_in_flight"] = len(load.refused_after), load.lost_in_flight()
            result["no_answer"] = len(load.silent) - result["lost_in_flight"]
            result["decisions"], result["facts"] = len(load.answers), len(load.facts)
            result["faults"] = await _faults(session, load)
            for one in (*result["steps"], *result["kills"]):
                since, until = one.pop("from"), one.pop("until")
                moments = [since, *(moment for moment in load.recorded if since < moment < until), until]
                one["recorded"] = round(max(later - earlier for earlier, later in pairwise(moments)), 2)
            return result


async def _disrupt(kind: str, session: Session, cluster: Cluster, load: Load) -> dict[str, float]:
    number = await leader(session)
    since, since_1970 = time.monotonic(), time.time()
    refused = len(load.refused_after)
    if kind == "steps":
        await js_api(session.client, f"STREAM.LEADER.STEPDOWN.{topology.LEDGER}")
    else:
        load.killed.append(since)
        await asyncio.to_thread(cluster.servers[number].stop, signal.SIGKILL)
    await _until_answered(load, time.monotonic())
    if kind == "kills":
        await asyncio.to_thread(cluster.servers[number].start)
    await asyncio.sleep(_SETTLE_SECONDS)
    waits = load.refused_after[refused:]
    return {
        "decisions": round(load.gap("decisions", since), 2),
        "facts": round(load.gap("facts", since), 2),
        "unavailable": round(max(waits, default=0.0), 2),
        "from": since_1970,
        "until": time.time(),
    }


async def _until_answered(load: Load, since: float) -> None:
    while not all(moments and moments[-1] > since + _PAUSE_SECONDS for moments in load.at.values()):  # noqa: ASYNC110 - nothing says so
        await asyncio.sleep(_PAUSE_SECONDS)


async def _prepare(session: Session, load: Load) -> None:
    joined = {
        "specversion": "1.0",
        "id": "e-1",
        "source": SOURCE,
        "type": "resolution.employee.joined.v1",
        "time": "2026-01-05T10:00:00Z",
        "data": {"employee_id": "A-1", "role": "agent", "team_ids": ["T-1"]},
    }
    policy = {"request_id": "p-1", "policy": POLICY, "published_by": "P-1"}
    for _ in range(200):
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await load.client.request(f"{topology.INBOX_SUBJECT}.{SOURCE}", json.dumps(joined).encode(), timeout=1)
            subject = f"{topology.OPERATE_SUBJECT}.{SOURCE}.policy"
            await session.client.request(subject, json.dumps(policy).encode(), timeout=2)
            if ((await load.action("r-0")) or {}).get("outcome") == "taken":
                return
        await asyncio.sleep(0.2)
    raise RuntimeError("the ledger does not begin to decide")


async def _faults(session: Session, load: Load) -> list[str]:
    """Compare the log with the answers, once the intake has recorded all facts."""
    running_ledger = time.monotonic()
    while time.monotonic() - running_ledger < _DRAIN_SECONDS and await _has_unrecorded(session):  # noqa: ASYNC110 - nothing says so
        await asyncio.sleep(_SETTLE_SECONDS)
    recorded, taken = Counter[str](), Counter[str]()
    async for batch in session.log.subject_batches(">", 0):
        for one in batch:
            event = json.loads(one.data)
            if event["type"].startswith("resolution.purchase."):
                recorded[event["id"]] += 1
                load.recorded.append(parse_time(event["recordedtime"]).timestamp())
            elif event["type"].startswith("resolution.action.taken."):
                taken[event["data"]["request_id"]] += 1
    faults = [f"fact {name} is recorded {recorded[name]} times" for name in load.facts if recorded[name] != 1]
    for name, answer in load.answers.items():
        if answer["outcome"] != "taken":
            faults.append(f"{name}: {answer}")
        elif taken[name] != 1:
            faults.append(f"{name} is taken {taken[name]} times")
    names = list(load.answers)[:: max(1, len(load.answers) // _ASKED_AGAIN)]
    again = {name: await load.action(name) for name in names}
    return faults + [
        f"{name}: {load.answers[name]}, then {again[name]}" for name in names if again[name] != load.answers[name]
    ]


async def _has_unrecorded(session: Session) -> bool:
    """Return whether an inbox holds messages that the intake has not acknowledged."""
    for name in topology.inbox_streams(await stream_names(session.client)):
        info = await js_api(session.client, f"CONSUMER.INFO.{name}.{topology.INTAKE_CONSUMER}")
        if info.get("num_pending") or info.get("num_ack_pending"):
            return True
    return False


def main() -> None:
    """Run the measurement; exit with status 1 if an event is lost or doubled, or a request is answered twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="failover") as folder:
        result = asyncio.run(measure(options.kills, options.steps, Path(folder)))
    if options.as_json:
        print(json.dumps(result))
    else:
        _show(result)
    sys.exit(bool(result["faults"]))


def _show(result: dict[str, Any]) -> None:
    columns = ("", "times", "no decision: median", "most", "no PubAck: median", "most", "none recorded: median", "most")
    table = Table(*columns, title="Seconds under load")
    for kind, words in (("steps", "leader steps down"), ("kills", "SIGKILL of the leader")):
        if result[kind]:
            series = ([one[column] for one in result[kind]] for column in ("decisions", "facts", "recorded"))
            figures = [f"{figure:.2f}" for all_ in series for figure in (statistics.median(all_), max(all_))]
            table.add_row(words, str(len(result[kind])), *figures)
    console = Console(width=120)
    console.print(table)
    for kind in ("steps", "kills"):
        console.print(f"{kind}: " + ", ".join(f"{one['decisions']:.2f}" for one in result[kind]))
    console.print(
        f"{result['decisions']:,} decisions and {result['facts']:,} facts; {result['told_to_ask_again']} requests "
        f"were told to ask again, after {result['unavailable_after_at_most']:.2f} s at most; "
        f"{result['lost_in_flight']} were lost with the server that died, {result['no_answer']} others heard nothing "
        f"within {_PATIENCE_SECONDS:.0f} s."
    )
    console.print("\n".join(result["faults"]) or "Nothing is lost, nothing is there twice, first answers are kept.")


if __name__ == "__main__":
    main()
