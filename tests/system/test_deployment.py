"""docker-compose.yml as processes: three NATS servers with TLS, PostgreSQL and every role twice; one of each is killed."""

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from config.nats_accounts import INCLUDE
from ledger.nats.client import LedgerClient, connect
from ledger.nats.connection_options import ConnectionOptions
from tests.support.builders import event, gbp
from tests.support.compose import SERVICES, Deployment, hosts_have_names
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY
from tests.support.waiting import eventually

SERVERS = [name for name, service in SERVICES.items() if service["image"] == "resolution-ledger-nats"]
PASSWORD = "RESOLUTION_LEDGER_SOURCE_CRM_PASSWORD"
_START_SECONDS = 120


def roles_of(deployment: Deployment) -> dict[str, list[str]]:
    """Return the containers of each role by its services' name."""
    found: dict[str, list[str]] = {}
    for container, service in deployment.containers.items():
        if SERVICES[service].get("command", [""])[0] == "run":
            found.setdefault(service.removesuffix("-1").removesuffix("-2"), []).append(container)
    return found


async def healthy(deployment: Deployment, containers: Iterable[str]) -> dict[str, bool]:
    """Return what the health check of each container says."""
    names = [*containers]
    answers = await asyncio.gather(*(asyncio.to_thread(deployment.is_healthy, one) for one in names))
    return dict(zip(names, answers, strict=True))


async def until_healthy(deployment: Deployment, *containers: str) -> None:
    await eventually(lambda: healthy(deployment, containers), lambda found: all(found.values()), _START_SECONDS)


async def until_started(deployment: Deployment, containers: Iterable[str]) -> None:
    """Wait until each role has said that it runs, which costs less than health checks."""

    async def starting() -> list[str]:
        return [one for one in containers if not re.search(r"^.* runs$", deployment.log(one), re.MULTILINE)]

    await eventually(starting, lambda found: not found, _START_SECONDS, every_seconds=0.2)


async def run(deployment: Deployment, container: str, *words: str, stdin: str | None = None) -> str:
    done = await asyncio.to_thread(deployment.run, container, *words, stdin=stdin)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


async def register(deployment: Deployment) -> None:
    """Register a source as docs/operate/deploy.md says: its password, its accounts, and the servers one by one."""
    deployment.sources[PASSWORD] = f"p{'4' * 30}"
    await run(deployment, "dashboard-1", "admin", "sources", "add", "crm", "--profile", "desk")
    accounts = await run(deployment, "dashboard-1", "admin", "sources", "nats-config")
    folder = deployment.path("nats-1", "/etc/nats")
    (folder / "source-accounts.conf").write_text(accounts)
    config = (folder / "nats-server.conf").read_text()
    assert f"# {INCLUDE}" in config
    (folder / "nats-server.conf").write_text(config.replace(f"# {INCLUDE}", INCLUDE))
    for server in SERVERS:
        await asyncio.to_thread(deployment.restart, server)
        await until_healthy(deployment, server)


async def ask(source: LedgerClient, subject: str, body: Document, seconds: float = 60) -> Document:
    """Send a request until it has another answer than `unavailable`."""

    async def once() -> Document:
        answer: Document = json.loads((await source.request(subject, json.dumps(body).encode(), timeout=2)).data)
        return answer

    def is_final(answer: Document) -> bool:
        return answer.get("error", {}).get("code") != "unavailable"

    return await eventually(once, is_final, seconds, passing=(Exception,), every_seconds=0.1)


def read(deployment: Deployment, dashboard: str, path: str, token: str) -> str:
    url = f"http://127.0.0.1:{deployment.port(dashboard, 8321)}{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}", "Host": dashboard})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def action(number: int) -> Document:
    return {
        "request_id": f"r-{number}",
        "agent_id": "A-1",
        "kind": "refund",
        "amount": gbp("5.00"),
        "reason": "late",
    }


async def shown(deployment: Deployment, dashboard: str, token: str, number: int) -> None:
    """Wait until a dashboard shows so many actions."""

    async def actions() -> list[Any]:
        found: list[Any] = json.loads(read(deployment, dashboard, "/api/v1/actions", token))["items"]
        return found

    await eventually(actions, lambda found: len(found) == number, 60, passing=(OSError,), every_seconds=0.2)


@pytest.mark.integration
@pytest.mark.timeout(600)
async def test_the_services_of_the_compose_file_go_on_without_one_of_each(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment, deployment.database():
        await run(deployment, "certificates")
        for server in SERVERS:
            deployment.start(server)
        await until_healthy(deployment, *SERVERS, "postgres")
        await run(deployment, "init")
        await register(deployment)
        roles = roles_of(deployment)
        assert all(len(containers) == 2 for containers in roles.values()), roles
        for number in (0, 1):
            for containers in roles.values():
                deployment.start(containers[number])
            await until_started(deployment, [containers[number] for containers in roles.values()])
        (tmp_path / "policy.json").write_text(json.dumps(BASIC_POLICY | {"default_role": "agent"}))
        await run(
            deployment, "dashboard-1", "decide", "policy", str(tmp_path / "policy.json"), "--published-by", "owner"
        )
        done = await asyncio.to_thread(deployment.run, "metrics-token")
        assert done.returncode == 0, done.stderr
        token = (deployment.path("prometheus", "/secrets") / "prometheus.token").read_text().strip()
        options = ConnectionOptions.of(
            ",".join(f"tls://localhost:{deployment.port(server, 4222)}" for server in SERVERS),
            user="source-crm",
            password=deployment.sources[PASSWORD],
            tls_ca=str(deployment.path("intake-1", "/authority/ca.pem")),
        )
        source = await connect(options, "crm")
        try:
            await decide_and_read(deployment, source, token)
            await until_healthy(deployment, *(containers[0] for containers in roles.values()))
            await lose_one_of_each(deployment, roles)
            await decide_on(deployment, source, token)
        finally:
            await source.close()


async def decide_and_read(deployment: Deployment, source: LedgerClient, token: str) -> None:
    fact = event("p-1", "purchase.completed", order_id="O-1", total=gbp("5.00"))
    assert "seq" in await ask(source, "resolution.inbox.crm", fact)
    assert (await ask(source, "resolution.decide.crm.action", action(1)))["outcome"] == "taken"
    for dashboard in ("dashboard-1", "dashboard-2"):
        await shown(deployment, dashboard, token, 1)
        assert "resolution_ledger_last_position" in read(deployment, dashboard, "/metrics", token)
    read_by_tools(deployment)


def read_by_tools(deployment: Deployment) -> None:
    """Read the views as Grafana does, by the user that may read and nothing else."""
    password = deployment.passwords["RESOLUTION_LEDGER_DATABASE_READER_PASSWORD"]
    where = {"host": "127.0.0.1", "port": deployment.port("postgres", 5432), "dbname": "ledger"}
    with psycopg.connect(**where, user="grafana", password=password, autocommit=True) as connection:
        rows = connection.execute("SELECT currency, amount_minor FROM ledger.casework_actions").fetchall()
        assert rows == [("GBP", 500)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE ledger.mine (a int)")


async def lose_one_of_each(deployment: Deployment, roles: dict[str, list[str]]) -> None:
    """Kill one server and the first process of each role; their health checks say so, and those of the others do not."""
    for lost in ("nats-2", *(containers[0] for containers in roles.values())):
        deployment.kill(lost)


async def decide_on(deployment: Deployment, source: LedgerClient, token: str) -> None:
    assert (await ask(source, "resolution.decide.crm.action", action(2)))["outcome"] == "taken"
    fact = event("p-2", "purchase.completed", order_id="O-2", total=gbp("5.00"))
    assert "seq" in await ask(source, "resolution.inbox.crm", fact)
    answered = await eventually(
        lambda: ask(source, "resolution.read.crm.receipt", {"id": "p-2"}),
        lambda receipt: receipt["status"] == "recorded",
        60,
    )
    assert answered
    await shown(deployment, "dashboard-2", token, 2)
    assert not await asyncio.to_thread(deployment.is_healthy, "nats-2")
    await until_healthy(deployment, "nats-1", "nats-3")
    if hosts_have_names():
        found = await healthy(deployment, ("intake-1", "decisions-1", "intake-2", "decisions-2"))
        assert found == {"intake-1": False, "decisions-1": False, "intake-2": True, "decisions-2": True}
