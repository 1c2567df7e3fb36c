"""The OpenAPI document is complete, and the API answers random requests as it describes (schemathesis)."""

import asyncio
import os
import sys

import httpx
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from tests.support.documents import Document
from tests.support.http_api import read_current
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import set_up_organisation, upstream_of

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "3")
"""For each operation; more by hand."""
PUBLISHED = {"Amount", "Answer", "Login", "Me", "Page", "Preview", "Receipt", "Report", "Review", "Said", "Try"}
"""The schemas that generated clients name; a class may be renamed, its schema may not."""
RANGES = """
[checks]
enabled = true

[[operations]]
include-path-regex = "/api/v1/(balances|actions|arrivals|escalations|flags|cases|policies|budgets|rejections|trail|summary|views/.*)$"
checks.positive_data_acceptance.enabled = false
"""
"""No schema says that `from` comes before `to`, which time zones and currencies exist, or what a policy has to say."""
NOT_TRIED = "/api/v1/stream"  # it never ends


async def test_schemathesis_finds_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.auth.authorization._COMMAND_BURST", 1e9)
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream, FULL_POLICY)
        for number in range(3):
            await upstream.action(f"r-{number}", "10.00", agent_id="A-1", customer_id="C-1")
        async with running(session, ["projections", "seal", "dashboard"], where=ListenAddress(port=0)) as services:
            (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
            bearer = f"Authorization: Bearer {dashboard.token}"
            async with httpx.AsyncClient(base_url=dashboard.address, timeout=20) as client:
                client.headers["Authorization"] = bearer.partition(": ")[2]
                for name in ("actions", "trail", "flags", "loyalty", "gap", "quality", "recognition"):
                    await read_current(client, name)
                complete((await client.get("/openapi.json")).json())
            (session.data_dir / "schemathesis.toml").write_text(RANGES)
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "run",
                f"{dashboard.address}/openapi.json",
                "-H",
                bearer,
                "--exclude-path",
                NOT_TRIED,
                "--max-examples",
                EXAMPLES,
                "--seed",
                "1",
                "--suppress-health-check",
                "all",
                "--no-color",
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=session.data_dir,
            )
            said, _ = await asyncio.wait_for(child.communicate(), 240)
        assert child.returncode == 0, said.decode()[-6000:]


def complete(document: Document) -> None:
    """Assert that published schemas keep their names, and that each operation documents its answers and errors."""
    assert document["components"]["schemas"].keys() >= PUBLISHED
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            assert one.get("summary"), (method, path)
            good = [answer for status, answer in one["responses"].items() if status.startswith("2")]
            assert good, (method, path)
            assert all("schema" in kind for answer in good for kind in answer.get("content", {}).values()) or (
                path in {NOT_TRIED, "/metrics"}
            ), (method, path)
            assert {"401", "422", "503"} <= one["responses"].keys(), (method, path)
