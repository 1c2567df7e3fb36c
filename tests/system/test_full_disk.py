"""A full disk: nothing is acknowledged that was not stored, and with room again all goes on by itself."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from eventsourcing.persistence import OperationalError, StoredEvent

from ledger.nats.client import LedgerClient, connect
from ledger.persistence import JetStreamFactory
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.nats_servers import Server
from tests.support.organisations import BASIC_POLICY
from tests.support.up_process import UpProcess, operator_url
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("a file system of its own cannot be mounted here (it takes root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


async def request(client: LedgerClient, subject: str, body: Document, wait_seconds: float = 3) -> Document:
    try:
        answer: Document = json.loads(
            (await client.request(subject, json.dumps(body).encode(), timeout=wait_seconds)).data
        )
    except Exception as error:  # noqa: BLE001 - not acknowledged, for whatever reason
        return {"outcome": "error", "error": repr(error)}
    return answer


def fill(folder: Path) -> Path:
    """Leave no room; the file that takes it."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return filler


def test_an_eventsourcing_application_on_a_full_disk(small_disk: Path) -> None:
    """It says so in time, loses nothing that it acknowledged, and goes on when there is room again."""
    aggregate = uuid4()

    def save(version: int) -> None:
        recorder.insert_events([StoredEvent(aggregate, version, "t", b'{"x": "' + b"y" * 2000 + b'"}')])

    with Server(small_disk / "nats") as server:
        factory = JetStreamFactory({"NATS_URL": server.url, "NATS_TIMEOUT": "2"})
        recorder = factory.application_recorder()
        for version in range(1, 6):
            save(version)
        filler = fill(small_disk)
        acknowledged = 5
        with contextlib.suppress(OperationalError):
            for version in range(6, 2000):
                save(version)
                acknowledged = version
        with pytest.raises(OperationalError):
            save(acknowledged + 1)
        filler.unlink()
        server.stop()  # nats-server goes on refusing to write until it is started again
        server.start()
        versions = [event.originator_version for event in recorder.select_events(aggregate)]
        assert versions[:acknowledged] == list(range(1, acknowledged + 1))
        assert len(versions) <= acknowledged + 1  # the one that was refused may have been stored
        save(len(versions) + 1)
        factory.close()


async def test_a_full_disk_loses_nothing_and_heals(small_disk: Path, command: CommandLine) -> None:
    up = UpProcess(small_disk / "data")
    client = await connect(up.wait_until_up()["nats_url"], "test")
    acknowledged: set[str] = set()

    async def publish(numbers: range, note: str = "") -> int:
        before = len(acknowledged)
        for number in numbers:
            fact = event(f"p-{number}", "purchase.completed", order_id="O", total=gbp("1.00"), note=note)
            if "seq" in await request(client, "resolution.inbox.crm", fact, 1):
                acknowledged.add(fact["id"])
        return len(acknowledged) - before

    try:
        policy = {"request_id": "p", "policy": BASIC_POLICY | {"default_role": "agent"}, "published_by": "owner"}
        operator = await connect(operator_url(small_disk / "data"), "operator")
        assert (await request(operator, "resolution.operate.crm.policy", policy, 10))["outcome"] == "done"
        await operator.close()
        assert await publish(range(20)) == 20
        filler = fill(small_disk)
        assert await publish(range(20, 23), "y" * 20_000) == 0
        action = {"request_id": "r", "agent_id": "A", "kind": "refund", "amount": gbp("1.00"), "reason": "x"}
        assert (await request(client, "resolution.decide.crm.action", action, 20))["outcome"] == "error"
        words = ("admin", "doctor", "--json", "--wait", "2")
        ran = await asyncio.to_thread(command, *words, data_dir=small_disk / "data")
        assert ran.stdout, ran.stderr
        doctor = json.loads(ran.stdout)
        assert {"server", "disk"} <= {one["check"] for one in doctor["items"] if not one["ok"]}, doctor
        filler.unlink()
        await eventually(lambda: publish(range(23, 24)), timeout_seconds=60, every_seconds=0.5)
        assert await publish(range(24, 40)) == 16
        await eventually(  # an upstream repeats its request
            lambda: request(client, "resolution.decide.crm.action", action, 5),
            lambda answer: answer["outcome"] == "taken",
            every_seconds=0.5,
        )
        await eventually(
            lambda: request(client, "resolution.read.crm.receipt", {"ids": sorted(acknowledged)}, 10),
            lambda receipt: {item["status"] for item in receipt.get("items", ())} == {"recorded"},
        )
        assert up.process.poll() is None
    finally:
        await client.close()
        up.stop()
