"""Checks after faults by other means than the product's: the raw stream, a fold of budgets, and SQL of DuckDB."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import nats

from config import topology as streams
from ledger.store.log import Recorded
from tests.support import forked_cli
from tests.support.environment import ROOT, clean_environment
from tests.support.independent_books import Kept, minor_of
from tests.support.report_comparisons import gap_differences, quality_differences
from tests.support.report_oracle import HistoryLedger
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.support.documents import Document
    from tests.support.fault_load import Load
    from tests.support.fault_topology import Topology

_TOGETHER = 200
_DRAIN_SECONDS = 90.0
_SHOWN = 10


async def problems_of(topology: Topology, load: Load) -> list[str]:
    """Return what does not hold: each acknowledged fact and each answer, and the whole log, its views and its proofs."""
    await load.ask_again()
    found = list(load.faults)
    try:
        events = await _settled(topology, load)
    except AssertionError as error:
        return [*found, f"facts that were acknowledged are not recorded: {error}"]
    found += facts_and_answers(events, load)
    books, more = fold(events)
    found += more
    try:
        found += await _views(topology, events[-1].position, books)
    except AssertionError as error:
        found.append(f"the views do not reach the end: {error}")
    return found + await _proofs(topology)


async def read_raw(url: str) -> list[Recorded]:
    """Return every event of the stream as plain nats-py reads it, one request a position; a gap is an error."""
    client = await nats.connect(url.split(","))
    try:
        stream = client.jetstream()
        end = (await stream.stream_info(streams.LEDGER)).state.last_seq

        async def one(position: int) -> Recorded:
            message = await stream.get_msg(streams.LEDGER, position)
            return Recorded(position, str(message.subject), message.data or b"")

        found: list[Recorded] = []
        for begin in range(1, end + 1, _TOGETHER):
            positions = range(begin, min(begin + _TOGETHER, end + 1))
            found += await asyncio.gather(*(one(position) for position in positions))
        return found
    finally:
        await client.close()


async def _settled(topology: Topology, load: Load) -> list[Recorded]:
    """Wait until each acknowledged fact is in the log; return its events.

    Messages that an intake had not acknowledged when it was killed are delivered again after 30 seconds.
    """
    log = topology.session.log
    missing, position = set(load.acknowledged), 0

    async def unrecorded() -> int:
        nonlocal position
        for one in await log.read_subject("ledger.fact.>", position):
            position = one.position
            missing.discard(json.loads(one.data)["id"])
        return len(missing)

    await eventually(unrecorded, lambda count: not count, _DRAIN_SECONDS, passing=(Exception,), every_seconds=0.2)
    return await read_raw(topology.url)


def facts_and_answers(events: list[Recorded], load: Load) -> list[str]:
    """Return what was acknowledged or answered and is not in the log exactly once."""
    bodies = [json.loads(one.data) for one in events]
    names = Counter((body["source"], body["id"]) for body in bodies)
    found = [f"{name} is recorded {times} times" for name, times in names.items() if times > 1]
    facts = {body["id"] for body in bodies if body["source"] != "resolution-ledger"}
    found += [
        f"the fact {name} was acknowledged and is not recorded" for name in load.acknowledged if name not in facts
    ]
    answers = Counter(body["data"]["request_id"] for body in bodies if body["data"].get("request_sha256") is not None)
    found += [f"{name} was answered and is recorded {answers[name]} times" for name in load.asked if answers[name] != 1]
    return found[:_SHOWN] + [f"and {len(found) - _SHOWN} more"] * (len(found) > _SHOWN)


def fold(events: list[Recorded]) -> tuple[Kept, list[str]]:
    """Return the books that the events alone give, and the first event that overspends or is answered twice."""
    books = Kept()
    for one in events:
        try:
            books.read(one)
        except (AssertionError, KeyError) as error:
            return books, [f"position {one.position}: {error!r}"]
    return books, []


async def _views(topology: Topology, end: int, books: Kept) -> list[str]:
    """Compare the views of the role `projections` with the books, and with SQL over the replayed events."""

    async def positions() -> list[tuple[int, str | None]]:
        status = forked_cli.json_of(await _run(topology, "projections", "admin", "projections", "status", "--json"))
        return [(view["position"], view["stopped"]) for view in status["items"]]

    await eventually(positions, lambda found: all(at >= end for at, _ in found), 60, every_seconds=0.2)
    names = ("balances", "gap", "quality")
    documents = await asyncio.gather(*(_run(topology, "projections", "report", name, "--json") for name in names))
    replayed = await _run(topology, "projections", "audit", "replay")
    shown, gap, quality = (forked_cli.json_of(done) for done in documents)
    balances = {
        (one["holder"], one["period"], one["granted"]["currency"]): tuple(
            minor_of(one[name]) for name in ("granted", "spent", "reserved")
        )
        for one in shown["items"]
    }
    found = [] if balances == books.shown() else [f"balances: shown {balances}, the events give {books.shown()}"]
    found += [f"{one['holder']} is overdrawn" for one in shown["items"] if one["remaining"]["amount"].startswith("-")]
    return found + await asyncio.to_thread(_reports, replayed.stdout, gap, quality)


def _reports(replay: str, gap: Document, quality: Document) -> list[str]:
    ledger = HistoryLedger(json.loads(line) for line in replay.splitlines())
    found = gap_differences(ledger, gap) + quality_differences(ledger, quality)
    return [f"report: {line}" for line in found[:_SHOWN]]


async def _proofs(topology: Topology) -> list[str]:
    """Verify the seal, and make each decision again."""
    found: list[str] = []
    for place, *words in (("seal", "audit", "verify"), ("projections", "audit", "redecide")):
        done = await _run(topology, place, *words, "--json")
        if done.returncode:
            found.append(f"`{' '.join(words)}`: {done.stdout[-1000:]} {done.stderr[-1000:]}")
    return found


async def _run(topology: Topology, place: str, *words: str) -> CompletedProcess[str]:
    """Run a command beside a role's data, straight on the servers."""
    where = ["--nats-url", topology.url, "--data-dir", str(topology.folder / place)]
    options = ["--replicas", str(len(topology.servers)), "--allow-lazy-fsync"]
    arguments = [*words, *where, *options]
    return await asyncio.to_thread(forked_cli.run, arguments, ROOT, clean_environment(), None, 120)
