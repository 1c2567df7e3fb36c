"""SIGKILL of server, intake, decider or projector at random moments of a load: nothing lost, nothing twice.

CRASH_ROUNDS says how often something is killed (6 by default; CONTRIBUTING.md says when to run more).
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from ledger.errors import LedgerError
from ledger.nats.client import LedgerClient, connect
from ledger.store.log import Log
from projections.views.balances import read_balances
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment
from tests.support.organisations import BASIC_POLICY
from tests.support.waiting import eventually, wait_for_intake

pytestmark = pytest.mark.integration

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "6"))
ROLES = ("intake", "decisions", "projections")
AGENTS = 5


class Load:
    """An upstream that publishes and asks until it is stopped, and keeps each acknowledgement."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.acknowledged: set[str] = set()
        self.answers: dict[str, Document] = {}
        self.stopping = False
        self._numbers = iter(range(10**9))

    async def run(self) -> None:
        """Go on until ``stopping`` is set."""
        await asyncio.gather(*(self._publish() for _ in range(8)), *(self._ask() for _ in range(8)))

    async def _client(self, user: str = "upstream") -> LedgerClient | None:
        with contextlib.suppress(Exception):
            passwords = json.loads((self.data_dir / "server" / "passwords.json").read_text())
            port = json.loads((self.data_dir / "server" / "address.json").read_text())["port"]
            return await connect(f"nats://{user}:{passwords[user]}@127.0.0.1:{port}", "load", wait_seconds=1)
        return None

    async def _publish(self) -> None:
        client = await self._client()
        while not self.stopping:
            name = f"p-{next(self._numbers)}"
            fact = event(name, "purchase.completed", order_id=name, total=gbp("1.00"))
            while name not in self.acknowledged and not self.stopping:
                reply = await self._request(client, "resolution.inbox.crm", fact)
                if reply is None:
                    client = await self._again(client)
                elif "error" not in reply:
                    self.acknowledged.add(name)
        if client:
            await client.close()

    async def _ask(self) -> None:
        client = await self._client()
        while not self.stopping:
            number = next(self._numbers)
            request = request_of(number)
            while not self.stopping:
                reply = await self._request(client, "resolution.decide.crm.action", request)
                if reply is not None and reply["outcome"] != "error":
                    self.answers[f"r-{number}"] = reply
                    break
                if reply is None:
                    client = await self._again(client)
        if client:
            await client.close()

    async def _request(self, client: LedgerClient | None, subject: str, body: Document) -> Document | None:
        if client is None:
            return None
        try:
            reply = await client.request(subject, json.dumps(body).encode(), timeout=1)
        except Exception:  # noqa: BLE001 - whatever happened, it was not acknowledged
            return None
        return json.loads(reply.data) if reply.data else None

    async def _again(self, client: LedgerClient | None) -> LedgerClient | None:
        """Connect again: the server may have another port now."""
        await asyncio.sleep(0.1)
        if client and client.is_connected:
            return client
        if client:
            await client.close()
        return await self._client()


def request_of(number: int) -> Document:
    """Return the request of a number; every tenth is beyond the limit and files an escalation."""
    return {
        "request_id": f"r-{number}",
        "agent_id": f"A-{number % AGENTS}",
        "kind": "refund",
        "amount": gbp("51.00" if number % 10 == 0 else "1.00"),
        "reason": "late",
        "escalate": True,
    }


def start(role: str, data_dir: Path) -> subprocess.Popen[bytes]:
    with (data_dir.parent / f"{role}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "app", "run", role, "--data-dir", str(data_dir)],
            cwd=ROOT,
            env=clean_environment(),
            stdout=log,
            stderr=log,
        )


@pytest.mark.timeout(120 + 20 * ROUNDS)
async def test_sigkill_at_random_moments_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    chance = random.Random(ROUNDS)
    async with Session(load_settings({"data_dir": str(data_dir)}, {})):
        pass  # the folder holds a ledger now
    processes = {role: start(role, data_dir) for role in ROLES}
    load = Load(data_dir)
    try:
        await publish_policy(load)
        loading = asyncio.create_task(load.run())
        for _ in range(ROUNDS):
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            victim = chance.choice(("server", *ROLES))
            if victim == "server":
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # still down from the last time
                    pid = int((data_dir / "server" / "server.pid").read_text())
                    os.kill(pid, signal.SIGKILL)  # whoever uses it starts it again
            else:
                processes[victim].kill()
                processes[victim].wait()
                processes[victim] = start(victim, data_dir)  # as an operator's supervisor does
        await progress_made(load)
        load.stopping = True
        await loading
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(timeout=30)
    await check(load, data_dir)


async def publish_policy(load: Load) -> None:
    manager = BASIC_POLICY["roles"]["manager"] | {"approves": {"refund": "500.00"}}
    policy = BASIC_POLICY | {"default_role": "agent", "roles": BASIC_POLICY["roles"] | {"manager": manager}}
    request = {"request_id": "policy", "policy": policy, "published_by": "owner"}
    for _ in range(100):
        client = await load._client("ledger")
        reply = await load._request(client, "resolution.operate.crm.policy", request)
        if client:
            await client.close()
        if reply and reply["outcome"] == "done":
            return
        await asyncio.sleep(0.2)
    raise AssertionError("nobody decides")


async def progress_made(load: Load) -> None:
    """After the last crash everything works again, without help."""
    facts, answers = len(load.acknowledged), len(load.answers)
    for _ in range(300):
        await asyncio.sleep(0.1)
        if len(load.acknowledged) > facts + 20 and len(load.answers) > answers + 20:
            return
    logs = [path.read_text()[-2000:] for path in sorted(load.data_dir.parent.glob("*.log"))]
    raise AssertionError("\n".join(["it does not go on by itself", *logs]))


async def check(load: Load, data_dir: Path) -> None:
    from app.runtime.roles import running
    from app.runtime.views import read_view

    async with Session(load_settings({"data_dir": str(data_dir)}, {})) as session:
        async with running(session, ["intake", "decisions"]):
            await until_recorded(session, load.acknowledged)
            upstream = await session.upstream("again")
            for name in list(load.answers)[:: max(1, len(load.answers) // 50)]:  # the first answer, for ever
                number = int(name[2:])
                request = request_of(number)
                reply = await upstream.request("resolution.decide.crm.action", json.dumps(request).encode(), timeout=10)
                assert json.loads(reply.data) == load.answers[name]
            await until_told(session)
        events = [json.loads(item.data) async for batch in session.log.subject_batches(">") for item in batch]
        names = [(item["source"], item["id"]) for item in events]
        assert len(names) == len(set(names))
        assert {name for source, name in names if source == "crm"} >= load.acknowledged
        requests = [item["data"]["request_id"] for item in events if item["type"] in ANSWERS]
        assert len(requests) == len(set(requests))
        assert set(requests) >= load.answers.keys()
        spent = sum(item["type"] == "resolution.action.taken.v1" for item in events)
        balances = (await read_view(session, "budget_balances", read_balances)).result
        assert sum(float(item["spent"]["amount"]) for item in balances) == spent
        assert all(float(item["remaining"]["amount"]) >= 0 for item in balances)


async def until_told(session: Session) -> None:
    """Wait until each step of an escalation in the log has its notification."""
    events = [json.loads(item.data) async for batch in session.log.subject_batches(">") for item in batch]
    steps = {one["id"] for one in events if one["type"].startswith("resolution.escalation.")}
    assert len(steps) > ROUNDS
    notifications = await Log.unstamped(session.client, topology.NOTIFY)

    async def missing() -> set[str]:
        told = {json.loads(one.data)["id"] for one in await notifications.read_subject("resolution.notify.>")}
        return steps - told

    assert not await eventually(missing, lambda found: not found)


ANSWERS = ("resolution.action.taken.v1", "resolution.authority.fell_short.v1")


async def until_recorded(session: Session, names: set[str]) -> None:
    try:
        await wait_for_intake(session)
    except AssertionError as error:
        raise LedgerError(f"of {len(names)} some are still in the inbox") from error
