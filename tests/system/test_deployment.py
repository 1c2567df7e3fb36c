"""docker-compose.yml as processes: three NATS servers with TLS, PostgreSQL and every role twice; one of each is killed."""

import asyncio
import json
import re
import shutil
import stat
import time
import urllib.request
from collections.abc import Iterable
from contextlib import ExitStack
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
from tests.support.environment import LONG
from tests.support.organisations import BASIC_POLICY
from tests.support.waiting import eventually

SERVERS = [name for name, service in SERVICES.items() if service["image"] == "resolution-ledger-nats"]
PASSWORD = "RESOLUTION_LEDGER_SOURCE_CRM_PASSWORD"
_START_SECONDS = 120
FRESH_SECONDS = 60


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
        return bool(answer.get("error", {}).get("code") != "unavailable")

    return await eventually(once, is_final, seconds, passing=(Exception,), every_seconds=0.1)


def read(deployment: Deployment, service: str, path: str, token: str, port: int = 8321) -> str:
    """Return what a service answers to a GET, asked by its name in the network of containers."""
    url = f"http://127.0.0.1:{deployment.port(service, port)}{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}", "Host": service})
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
@pytest.mark.skipif(shutil.which("wget") is None, reason="no wget, which health checks of the NATS servers call")
async def test_the_services_of_the_compose_file_go_on_without_one_of_each(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment, ExitStack() as stack:
        await run(deployment, "certificates")
        stack.enter_context(deployment.database())
        for server in SERVERS:
            deployment.start(server)
        await until_healthy(deployment, *SERVERS, "postgres")
        await run(deployment, "init")
        await register(deployment)
        roles = roles_of(deployment)
        assert all(len(containers) == 2 for containers in roles.values()), roles
        firsts, others = zip(*roles.values(), strict=True)
        for containers in (firsts, others):
            for container in containers:
                deployment.start(container)
            await until_started(deployment, containers)
        (tmp_path / "policy.json").write_text(json.dumps(BASIC_POLICY | {"default_role": "agent"}))
        await run(
            deployment, "dashboard-1", "decide", "policy", str(tmp_path / "policy.json"), "--published-by", "owner"
        )
        token = await token_of_prometheus(deployment)
        options = ConnectionOptions.of(
            ",".join(f"tls://localhost:{deployment.port(server, 4222)}" for server in SERVERS),
            user="source-crm",
            password=deployment.sources[PASSWORD],
            tls_ca=str(deployment.path("intake-1", "/authority/ca.pem")),
        )
        source = await connect(options, "crm")
        try:
            await decide_and_read(deployment, source, token)
            await until_healthy(deployment, *firsts, *(others if LONG else ()))
            if LONG and shutil.which("prometheus"):
                await look_with_prometheus(deployment)
            for lost in ("nats-2", *firsts):
                deployment.kill(lost)
            await decide_on(deployment, source, token)
            await tell_the_lost(deployment, [*firsts] if LONG else ["intake-1"], [*others] if LONG else ["intake-2"])
            if LONG:
                await move_to_a_fresh_machine(deployment, source, token)
        finally:
            await source.close()


async def token_of_prometheus(deployment: Deployment) -> str:
    """Let the service make Prometheus's token; a second start of the service leaves it."""
    path = deployment.path("prometheus", "/secrets") / "prometheus.token"
    for _ in range(2):
        done = await asyncio.to_thread(deployment.run, "metrics-token")
        assert done.returncode == 0, done.stderr
        token = path.read_text().strip()
        assert re.fullmatch(r"rl-auditor-[\w-]{43}", token)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    return token


async def decide_and_read(deployment: Deployment, source: LedgerClient, token: str) -> None:
    """A registered source sends a fact and asks for a decision; both dashboards and a tool show it."""
    fact = event("p-1", "purchase.completed", order_id="O-1", total=gbp("5.00"))
    assert "seq" in await ask(source, "resolution.inbox.crm", fact)
    assert (await ask(source, "resolution.decide.crm.action", action(1)))["outcome"] == "taken"
    for dashboard in ("dashboard-1", "dashboard-2"):
        await shown(deployment, dashboard, token, 1)
        metrics = read(deployment, dashboard, "/metrics", token)
        assert "resolution_ledger_last_position" in metrics
        assert metrics.count("resolution_ledger_certificate_end_seconds{") == len(SERVERS) + 1  # and PostgreSQL's
    read_by_tools(deployment)


def read_by_tools(deployment: Deployment) -> None:
    """Read the views as Grafana does, by the user that may read and nothing else."""
    password = deployment.passwords["RESOLUTION_LEDGER_DATABASE_READER_PASSWORD"]
    where = f"host=127.0.0.1 port={deployment.port('postgres', 5432)} dbname=ledger user=grafana sslmode=verify-full"
    where += f" sslrootcert={deployment.path('intake-1', '/authority/ca.pem')}"
    with psycopg.connect(where, password=password, autocommit=True) as connection:
        rows = connection.execute("SELECT currency, amount_minor FROM ledger.casework_actions").fetchall()
        assert rows == [("GBP", 500)]
        for wrong in (
            "CREATE TABLE ledger.mine (a int)",
            "CREATE TEMPORARY TABLE mine (a int)",
            "SELECT pg_try_advisory_lock(1, 2)",  # by these the processes settle who writes a view
            "SELECT lo_create(0)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(wrong)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(where, password="another").close()


async def look_with_prometheus(deployment: Deployment) -> None:
    """Prometheus itself reads both dashboards and the rules."""
    deployment.localise("prometheus", "/etc/prometheus/prometheus.yml")
    deployment.start("prometheus")
    await until_healthy(deployment, "prometheus")

    async def asked(what: str) -> Any:
        return json.loads(read(deployment, "prometheus", f"/api/v1/{what}", "", 9090))["data"]

    def are_up(found: Any) -> bool:
        return [one["health"] for one in found["activeTargets"]] == ["up", "up"]

    await eventually(lambda: asked("targets"), are_up, 60, every_seconds=1)
    (group,) = (await asked("rules"))["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    deployment.kill("prometheus")


async def decide_on(deployment: Deployment, source: LedgerClient, token: str) -> None:
    """The processes that are left decide, record and show."""
    assert (await ask(source, "resolution.decide.crm.action", action(2)))["outcome"] == "taken"
    assert (await ask(source, "resolution.decide.crm.action", action(1)))["outcome"] == "taken"  # the first answer
    fact = event("p-2", "purchase.completed", order_id="O-2", total=gbp("5.00"))
    assert "seq" in await ask(source, "resolution.inbox.crm", fact)
    await eventually(
        lambda: ask(source, "resolution.read.crm.receipt", {"id": "p-2"}),
        lambda receipt: receipt["status"] == "recorded",
        60,
    )
    await shown(deployment, "dashboard-2", token, 2)


async def tell_the_lost(deployment: Deployment, lost: list[str], left: list[str]) -> None:
    """Health checks are false for what was killed, true for what is left, and the doctor names the lost server."""
    await until_healthy(deployment, "nats-1", "nats-3", *left)
    assert await healthy(deployment, ["nats-2"]) == {"nats-2": False}
    if hosts_have_names():
        assert await healthy(deployment, lost) == dict.fromkeys(lost, False)
    doctor = await asyncio.to_thread(deployment.run, "dashboard-2", "admin", "doctor", "--json")
    found = {one["check"]: one for one in json.loads(doctor.stdout)["items"]}
    assert {name for name, one in found.items() if not one["ok"]} == {"server nats-2"}, found
    assert "1 alive" in found["role intake"]["says"]


async def move_to_a_fresh_machine(deployment: Deployment, source: LedgerClient, token: str) -> None:
    """Roles without a shared volume begin with nothing and serve within a minute, without the machine before."""
    fresh = [f"{role}-1" for role in ("intake", "decisions", "projections", "guard", "webhooks", "dashboard")]
    begun = time.monotonic()
    for container in fresh:
        deployment.renew(container)
    await until_started(deployment, fresh)
    for container in fresh:
        deployment.kill(container.replace("-1", "-2"))
    assert (await ask(source, "resolution.decide.crm.action", action(3)))["outcome"] == "taken"
    again = event("p-1", "purchase.completed", order_id="O-1", total=gbp("5.00"))
    assert "seq" in await ask(source, "resolution.inbox.crm", again)
    assert (await ask(source, "resolution.decide.crm.action", action(1)))["outcome"] == "taken"  # the first answer
    await shown(deployment, "dashboard-1", token, 3)  # with the token that was made before
    assert read(deployment, "dashboard-1", "/api/v1/proof/1", token).startswith("c2sp.org/tlog-proof@v1")
    assert time.monotonic() - begun < FRESH_SECONDS
    await until_healthy(deployment, *fresh)
