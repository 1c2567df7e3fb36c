"""The pages that connect systems over HTTP: their programs run in Python, Node and bash, also on an unreliable network."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
import pytest_asyncio

from tests.support.document_pages import PageRun, blocks_of
from tests.support.environment import ROOT, clean_environment
from tests.support.nats_servers import Server
from tests.support.unreliable_proxy import LOSE, UnreliableProxy
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not all(map(shutil.which, ("curl", "jq", "openssl"))), reason="needs curl, jq and openssl"),
]
PAGES = ROOT / "docs" / "integrate"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """Return a folder in which the first page ran: a ledger runs there, and the helpers are there."""
    folder = tmp_path_factory.mktemp("connect")
    async with PageRun((PAGES / "connect-over-http.md").read_text(), folder) as run:
        await run.run()
        yield folder


async def run_page(name: str, folder: Path) -> None:
    async with PageRun((PAGES / name).read_text(), folder) as run:
        await run.run()


async def run(folder: Path, settings: str, *scripts: str, **more: str) -> list[list[str]]:
    """Run scripts at the same time, with the settings of a file and more; return the lines that each one printed."""
    environment = clean_environment() | {"PATH": PageRun("", folder).path, "PYTHONPATH": str(ROOT)}
    words = " ".join(f"{name}={value}" for name, value in more.items())

    def once(script: str) -> list[str]:
        command = ["bash", "-ec", f"source {settings}; export {words or 'A='}; {script}"]
        done = subprocess.run(
            command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [line.strip() for line in done.stdout.splitlines()]

    return await asyncio.gather(*(asyncio.to_thread(once, script) for script in scripts))


def connection(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / ".resolution-ledger" / "connection.json").read_text())
    return found


async def read(folder: Path, path: str) -> Any:
    """Return the answer to an operator."""
    told = connection(folder)
    async with httpx.AsyncClient(base_url=told["http_url"]) as client:
        answer = await client.get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {told['http_token']}"})
    return answer.raise_for_status().json()


def settled(page: Any) -> list[str]:
    """Return the amounts of settled actions."""
    return [one["settled"]["amount"] for one in page["items"] if one["state"] == "settled"]


async def test_a_crm_sends_the_same_again_after_as_long_as_it_is_told(folder: Path) -> None:
    await run_page("connect-crm.md", folder)
    faults = {"/api/v1/events": [429], "/api/v1/decisions/action": [503, LOSE]}
    with UnreliableProxy(connection(folder)["http_url"], faults) as proxy:
        scripts = ("python crm.py ask 27", "node crm.mjs ask 28", "bash crm.sh ask 29")
        printed = await run(folder, "crm.env", *scripts, LEDGER_URL=proxy.url)
    told = "a manager is asked: more than this role may give in one action of this kind"
    assert printed == [["recorded", "may refund 50.00", told]] * 3
    times = defaultdict(list)
    for attempt in proxy.attempts:
        times[attempt.path, (attempt.key or "").strip('"'), attempt.body].append(attempt.at)
    asked = {key: at for (path, key, _), at in times.items() if path.endswith("/action")}
    sent = [at for (path, *_), at in times.items() if path.endswith("/events")]
    assert {key: len(at) for key, at in asked.items()} == {f"case-{number}-refund": 3 for number in (27, 28, 29)}
    assert [len(at) for at in sent] == [2, 2, 2]
    assert all(at[1] - at[0] >= 1 for at in [*asked.values(), *sent])


async def test_a_till_that_got_no_answer_counts_its_refund_once(folder: Path) -> None:
    """The request arrives and its answer is lost: the same request again gets the first answer, so no report is sent."""
    await run_page("connect-till.md", folder)
    programs = {"5": "python till.py", "6": "node till.mjs", "7": "bash till.sh"}
    for number in programs:
        (folder / number).mkdir()
        for path in [*folder.glob("till.*"), *folder.glob("ledger.*")]:
            shutil.copy(path, folder / number)
    with UnreliableProxy(connection(folder)["http_url"], {"/api/v1/decisions/action": [LOSE] * 20}) as proxy:
        scripts = [
            f"cd {number}; LEDGER_URL={proxy.url} {program} refund {number}-1 {number}-0 6.00; {program} flush; ls outbox"
            for number, program in programs.items()
        ]
        printed = await run(folder, "till.env", *scripts, LEDGER_PATIENCE="1")
    for number, lines in zip(programs, printed, strict=True):
        assert lines == ["may refund 50.00", "no network: give 6.00", f"{number}-1-refund taken"]
    items = (await read(folder, "actions?agent=A-7"))["items"]
    keys = [f"till-4\n{number}-1-refund" for number in programs]
    wanted = {f"act-{hashlib.sha256(key.encode()).hexdigest()[:32]}": "taken" for key in keys}
    given = [(one["action_id"], one["state"]) for one in items if one["amount"]["amount"] == "6.00"]
    assert dict(given) == wanted
    assert len(given) == 3


async def test_receivers_of_payments_know_minor_units_and_say_when_the_ledger_is_away(folder: Path) -> None:
    receivers = ("python.sock", "node.sock", "payments.sh")
    amounts = {"jpy": (1200, "1200"), "kwd": (5, "0.005"), "gbp": (7, "0.07")}

    def send(receiver: str, currency: str, prefix: str = "") -> str:
        paid = {"amount": amounts[currency][0], "currency": currency, "metadata": {"order_id": "O-1"}}
        message = {"id": f"{prefix}{receiver}-{currency}", "type": "charge.succeeded", "created": 1767607200}
        return f"bash provider.sh {receiver} <<< '{json.dumps(message | {'data': {'object': paid}})}'"

    text = (PAGES / "connect-payments.md").read_text().replace("LEDGER_PATIENCE=5", "LEDGER_PATIENCE=1")
    faults: dict[str, list[int]] = {}
    with UnreliableProxy(connection(folder)["http_url"], faults) as proxy:
        text = text.replace("$(jq -r .http_url .resolution-ledger/connection.json)", proxy.url)
        async with PageRun(text, folder) as page:
            await page.run()
            scripts = [
                [send(one, currency) + f"; receipt {one}-{currency} | jq .position" for currency in amounts]
                for one in receivers
            ]
            printed = await run(folder, "payments.env", *("source ./ledger.sh; " + "; ".join(one) for one in scripts))
            faults["/api/v1/events"] = [503] * 100
            away = await run(folder, "payments.env", *(send(one, "gbp", "later") for one in receivers))
    assert away == [["503"]] * 3
    await eventually(lambda: read(folder, "actions?agent=A-7"), lambda found: settled(found) == ["4.80"] * 3)
    assert [one[::2] for one in printed] == [["204"] * 3] * 3
    for positions in (one[1::2] for one in printed):
        events = [(await read(folder, f"events/{position}"))["event"] for position in positions]
        totals = [{"amount": text, "currency": currency.upper()} for currency, (_, text) in amounts.items()]
        assert [event["data"]["total"] for event in events] == totals


async def test_a_faststream_service_acknowledges_a_ticket_once_its_fact_is_durable(
    folder: Path, tmp_path: Path
) -> None:
    (program,) = [block for block in blocks_of((PAGES / "client.md").read_text()) if block.part == "tickets.py"]
    (folder / program.part).write_text(program.text)
    told = connection(folder)
    with Server(tmp_path) as server, UnreliableProxy(told["http_url"], {"/api/v1/events": [503]}) as proxy:
        client = await nats.connect(server.url)
        stream = client.jetstream()
        await stream.add_stream(name="TICKETS", subjects=["tickets.*"])
        for number in (1, 2):
            ticket = json.dumps({"id": f"T-{number}", "customer": f"C-{number}"}).encode()
            await stream.publish("tickets.opened", ticket)
        waits = """
            for number in 1 2; do
              until receipt ticket-T-$number-opened | jq -e '.status == "recorded"'; do sleep 0.1; done
            done"""
        script = f"python tickets.py & trap 'kill %1' EXIT; LEDGER_URL={told['http_url']}; source ./ledger.sh; {waits}"
        await run(folder, "crm.env", script, LEDGER_URL=proxy.url, NATS_URL=server.url)
        consumer = await stream.consumer_info("TICKETS", "ledger")
        await client.close()
    assert (consumer.num_pending, consumer.num_ack_pending) == (0, 0)
    assert [attempt.path for attempt in proxy.attempts] == ["/api/v1/events"] * 4
