"""An intake that ends, however it ends: the next one takes over at once, and each source's events stay in order."""

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.runtime.session import Session
from config import topology
from ledger.nats.client import LedgerClient
from ledger.store.handover import take_over
from ledger.store.streams import ensure_consumer, js_api
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.environment import LONG, ROOT, clean_environment
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import eventually, wait_for_intake, wait_for_processes

KILLS = 6 if LONG else 3
SOURCES = ("crm", "till", "web")
SOON_SECONDS = 2.0


def purchase(name: str, source: str = "crm") -> Document:
    return event(name, "purchase.completed", source, order_id=name, total=gbp("1.00"))


def correction(name: str, of: str, source: str = "crm") -> Document:
    data = {"order_id": of, "total": gbp("2.00")}
    return event(name, "fact.corrected", source, id_of=of, source_of=source, data=data, reason="typo")


class Reader:
    """Another reader of an inbox, which is given messages and acknowledges none, as one that hangs or was killed."""

    def __init__(self, session: Session, client: LedgerClient) -> None:
        self.session, self.client = session, client
        self.taken: list[Any] = []

    async def take(self, stream: str, number: int) -> None:
        """Have messages delivered, and one more request wait at the server."""
        inbox = self.client.new_inbox()
        taken = await self.client.subscribe(f"{inbox}.*")
        ask = {"batch": number, "expires": 30_000_000_000}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{topology.INTAKE_CONSUMER}"
        await self.client.publish(subject, json.dumps(ask).encode(), reply=f"{inbox}.1")
        self.taken = [await taken.next_msg(timeout=5) for _ in range(number)]
        await self.client.publish(subject, json.dumps(ask | {"batch": 500}).encode(), reply=f"{inbox}.2")
        await self.client.flush()

    async def acknowledge(self, number: int) -> None:
        """Acknowledge the first messages that were taken."""
        for message in self.taken[:number]:
            await message.ack_sync(timeout=5)


async def recorded_order(session: Session, source: str) -> list[str]:
    """Return the ids of a source's events as they stand in the log."""
    found = await session.log.read_subject(f"ledger.fact.{source}")
    return [json.loads(one.data)["id"] for one in found]


@pytest.mark.parametrize("connected", [False, True], ids=["killed", "hanging"])
@pytest.mark.parametrize("stream", ["INBOX", "IMPORT"])
async def test_deliveries_of_a_reader_that_is_gone_come_first_and_at_once(
    session: Session, stream: str, connected: bool
) -> None:
    await ensure_consumer(session.client, stream, topology.intake_consumer())
    publisher = Upstream(session, session.client if stream == "IMPORT" else await session.upstream("test"))
    names = [f"p-{number}" for number in range(30)]
    subject = {"INBOX": "resolution.inbox.crm", "IMPORT": "resolution.import.crm"}[stream]
    for name in names[:20]:
        await publisher.publish(purchase(name), subject)
    client = await session.connection("predecessor")
    await Reader(session, client).take(stream, 15)
    if not connected:
        await client.close()
    begun = time.monotonic()
    async with upstream_of(session, "intake") as upstream:
        for name in names[20:]:
            await publisher.publish(purchase(name), subject)
        await publisher.publish(correction("c-1", "p-3"), subject)
        assert (await upstream.receipt("c-1"))["status"] == "recorded"
        assert time.monotonic() - begun < SOON_SECONDS
        assert await recorded_order(session, "crm") == [*names, "c-1"]
        await wait_for_intake(session)


async def test_a_reader_that_comes_between_gets_nothing_to_keep(session: Session) -> None:
    """Messages that go to another reader beside a live intake are missed by their numbers, and asked for again."""
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase("p-0"))
        stream = topology.source_stream_name("crm")
        await eventually(
            lambda: js_api(session.client, f"CONSUMER.INFO.{stream}.{topology.INTAKE_CONSUMER}"),
            lambda info: "error" not in info,
        )
        client = await session.connection("thief")
        inbox = client.new_inbox()
        await client.subscribe(inbox)
        ask = json.dumps({"batch": 300, "expires": 30_000_000_000}).encode()
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{topology.INTAKE_CONSUMER}", ask, reply=inbox)
        await client.flush()
        names = [f"p-{number}" for number in range(1, 201)]
        begun = time.monotonic()
        for name in names:
            await upstream.publish(purchase(name))
        assert (await upstream.receipt(names[-1]))["status"] == "recorded"
        await wait_for_intake(session)
        assert time.monotonic() - begun < 10
        assert await recorded_order(session, "crm") == ["p-0", *names]


async def test_nothing_is_made_again_where_nothing_is_on_its_way(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase("p-1"))
        await wait_for_intake(session)
    name = f"CONSUMER.INFO.{topology.INBOX}.{topology.INTAKE_CONSUMER}"
    before = await js_api(session.client, name)
    delivered = await take_over(session.client, topology.INBOX, topology.intake_consumer())
    assert delivered == before["delivered"]["consumer_seq"] == 1
    assert (await js_api(session.client, name))["created"] == before["created"]


async def test_a_sealed_inbox_is_taken_over_too(session: Session) -> None:
    """The stream of an idle source is sealed before it is freed; it cannot be trimmed any more."""
    await ensure_consumer(session.client, "IMPORT", topology.intake_consumer())
    publisher = Upstream(session, session.client)
    for number in range(20):
        await publisher.publish(purchase(f"p-{number}"), "resolution.import.crm")
    client = await session.connection("predecessor")
    reader = Reader(session, client)
    await reader.take("IMPORT", 15)
    await reader.acknowledge(5)
    await client.close()
    operator = await session.connection("operator", user="operator")
    config = (await js_api(operator, "STREAM.INFO.IMPORT"))["config"]
    assert "error" not in await js_api(operator, "STREAM.UPDATE.IMPORT", config | {"sealed": True})
    async with upstream_of(session, "intake") as upstream:
        assert (await upstream.receipt("p-19"))["status"] == "recorded"
        assert await recorded_order(session, "crm") == [f"p-{number}" for number in range(20)]


# ---------------------------------------------------------------------- processes


class Publisher:
    """A source that publishes one event after the other and keeps the acknowledged ones."""

    def __init__(self, upstream: Upstream, source: str) -> None:
        self.upstream, self.source = upstream, source
        self.acknowledged: list[str] = []
        self.stopping = False

    async def run(self) -> None:
        """Go on until ``stopping`` is set."""
        number = 0
        while not self.stopping:
            number += 1
            await self.upstream.publish(purchase(f"{self.source}-{number}", self.source))
            self.acknowledged.append(f"{self.source}-{number}")

    async def correct(self, number: int) -> None:
        """Correct the newest event, which may just be on its way."""
        name = f"{self.source}-c{number}"
        of = next(one for one in reversed(self.acknowledged) if "-c" not in one)
        await self.upstream.publish(correction(name, of, self.source))
        self.acknowledged.append(name)


def begin_intake(data_dir: Path, url: str = "") -> subprocess.Popen[bytes]:
    """`run intake` on the embedded server of a data directory, or on the server at ``url``."""
    words = [sys.executable, "-m", "app", "run", "intake", "--data-dir", str(data_dir)]
    own = {"RESOLUTION_LEDGER_NATS_URL": url, "RESOLUTION_LEDGER_UNREGISTERED_SOURCES": "desk"}
    environment = clean_environment() | (own if url else {})
    with (data_dir.parent / "intake.log").open("ab") as log:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log)


async def is_answering(upstream: Upstream) -> None:
    """Wait until an intake answers receipts."""
    await eventually(
        lambda: upstream.client.request("resolution.read.crm.receipt", b'{"id": "x"}', timeout=1),
        timeout_seconds=60,
        passing=(Exception,),
    )


@contextlib.asynccontextmanager
async def loaded(session: Session) -> AsyncIterator[list[Publisher]]:
    """Sources that publish; at the end each source's events have to stand in the log as they were acknowledged."""
    clients = [Upstream(session, await session.upstream(source)) for source in SOURCES]
    publishers = [Publisher(*pair) for pair in zip(clients, SOURCES, strict=True)]
    tasks = [asyncio.create_task(publisher.run()) for publisher in publishers]
    yield publishers
    for publisher in publishers:
        publisher.stopping = True
    await asyncio.gather(*tasks)
    begun = time.monotonic()
    await wait_for_intake(session)
    assert time.monotonic() - begun < SOON_SECONDS + 3
    for publisher in publishers:
        order = await recorded_order(session, publisher.source)
        assert [name for name in order if "-c" not in name] == [
            name for name in publisher.acknowledged if "-c" not in name
        ]
        assert sorted(order) == sorted(publisher.acknowledged)
    assert await session.rejected.last("rejected.>") is None


@pytest.mark.timeout(180)
async def test_sigkill_of_the_intake_under_load_delays_nothing_and_keeps_the_order(
    session: Session, tmp_path: Path
) -> None:
    chance = random.Random(KILLS)
    process = begin_intake(tmp_path / "data")
    try:
        async with loaded(session) as publishers:
            upstream = publishers[0].upstream
            await is_answering(upstream)
            for number in range(KILLS):
                await asyncio.sleep(chance.uniform(0.1, 0.6))
                process.send_signal(signal.SIGTERM if number == KILLS - 1 else signal.SIGKILL)
                process.wait(20)
                before = {one.source: one.acknowledged[-1] for one in publishers}
                process = begin_intake(tmp_path / "data")
                for publisher in publishers:
                    await publisher.correct(number)
                await is_answering(upstream)
                begun = time.monotonic()
                for source, name in before.items():
                    answer = await upstream_for(publishers, source).receipt(name, source)
                    assert answer["status"] == "recorded", answer
                assert time.monotonic() - begun < SOON_SECONDS
    finally:
        process.terminate()
        process.wait(20)


def upstream_for(publishers: list[Publisher], source: str) -> Upstream:
    return next(one.upstream for one in publishers if one.source == source)


@pytest.mark.timeout(180)
async def test_two_intakes_that_hang_die_and_come_back_record_each_event_once_and_in_order(
    session: Session, tmp_path: Path
) -> None:
    """The second intake stands by. Each is stopped for longer than the other waits, and continues with its open batch."""
    processes = [begin_intake(tmp_path / "data")]
    try:
        async with loaded(session) as publishers:
            upstream = publishers[0].upstream
            await is_answering(upstream)
            processes.append(begin_intake(tmp_path / "second", session.url))
            await wait_for_processes(session, "intake", 2)  # the second has started, and stands by
            for number, hangs in enumerate((0, 1, 0)):
                processes[hangs].send_signal(signal.SIGSTOP)
                await asyncio.sleep(2)  # longer than the other waits for its signs of life
                await made_progress(session)
                processes[hangs].send_signal(signal.SIGCONT)
                await asyncio.sleep(0.5)
                await publishers[0].correct(number)
                await made_progress(session)
            processes[0].kill()
            await asyncio.sleep(SOON_SECONDS)
            await made_progress(session)
            processes[0].wait(20)
            processes.append(begin_intake(tmp_path / "data"))
            await wait_for_processes(session, "intake", 2)  # it stands by
            processes[1].terminate()  # in good order: the other need not wait for its signs of life to stay away
            processes[1].wait(20)
            await made_progress(session, SOON_SECONDS / 2)
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(20)


async def made_progress(session: Session, seconds: float = SOON_SECONDS) -> None:
    """Wait until the log has grown by ten events; gives up after so many looks, which take longer on a slow machine."""
    end = await session.log.last_position()
    for _ in range(int(seconds / 0.02)):
        if await session.log.last_position() >= end + 10:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no intake takes in")
