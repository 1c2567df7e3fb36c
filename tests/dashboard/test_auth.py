"""Authentication and authorisation: every role at every path, tokens and their revocation, browser sessions."""

import re
from functools import partial

import httpx

from app.runtime.session import Session
from dashboard.auth.authorization import COOKIE
from dashboard.auth.tokens import ROLES, Tokens
from domain.commands import action_id_of
from tests.support.http_api import client_with_token, read_current, served_with_tokens
from tests.support.waiting import eventually

OPEN = {
    "/api/v1/summary",
    "/api/v1/balances",
    "/api/v1/actions",
    "/api/v1/escalations",
    "/api/v1/flags",
    "/api/v1/cases",
    "/api/v1/projections",
    "/api/v1/me",
    "/api/v1/sessions",
    "/api/v1/employees",
    '/api/v1/names?ids=["A-1"]',
    "/api/v1/ideas",
    "/api/v1/thanks",
    "/api/v1/authority?agent=A-1",
    "/api/v1/obstacles",
}
ABOVE = {
    "/api/v1/unused-authority",
    "/api/v1/beyond-authority",
    "/api/v1/consistency",
    "/api/v1/policies/versions",
    "/api/v1/policies/change?mode=shadow&role=agent&kind=refund&amount=60.00 GBP",
    "/api/v1/policies",
    "/api/v1/loyalty",
    "/api/v1/gap",
    "/api/v1/what-if?role=agent&kind=refund&amount=60.00 GBP",
    "/api/v1/quality",
    "/api/v1/recognition",
}
ALL = {
    "/api/v1/events/{position}",
    "/metrics",
    "/api/v1/sources",
    "/api/v1/arrivals?source=crm",
    "/api/v1/rejections?source=crm",
    "/api/v1/case/{action_id}",
    "/api/v1/proof/{position}",
    "/api/v1/accesses",
    "/api/v1/checkpoints",
}
MAY = {
    "agent": OPEN,
    "manager": OPEN | ABOVE,
    "auditor": OPEN | ABOVE | ALL | {"/api/v1/trail"},
    "operator": OPEN | ABOVE | ALL | {"/api/v1/trail"},
}
MAY = {role: doors | {"/api/v1/explain/{action_id}"} for role, doors in MAY.items()}
WEBHOOKS = {"/api/v1/webhooks", "/api/v1/webhooks/{webhook}/dead-letters"}
OF_SOURCES = {
    "get": {"/api/v1/receipts/{id}", "/api/v1/brief", "/api/v1/notifications", *WEBHOOKS},
    "post": {
        "/api/v1/events",
        *(f"/api/v1/decisions/{one}" for one in ("action", "preview", "hold", "reversal", "escalation")),
        "/api/v1/webhooks",
        "/api/v1/webhooks/{webhook}/dead-letters/{letter}",
    },
}
"""Paths for tokens of sources alone, and webhooks (test_webhooks.py), which operators use as well."""
ACTING: dict[str, set[str]] = {
    "/api/v1/preview": {"agent", "manager", "operator"},
    "/api/v1/check": set(ROLES),
    "/api/v1/escalations/{escalation_id}": {"manager"},
    "/api/v1/flags/{flag_id}": {"manager", "operator"},
    "/api/v1/flags/{flag_id}/answers": {"agent", "manager"},
    "/api/v1/policies": {"manager", "operator"},
    "/api/v1/delegations": {"manager"},
    "/api/v1/ideas/{idea_id}": {"manager"},
    "/api/v1/obstacles/{obstacle_id}": {"manager"},
    "/api/v1/recognitions": {"agent", "manager"},
    "/api/v1/budgets": {"manager", "operator"},
}


async def test_every_role_at_every_door(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens):
        async with client_with_token(address, tokens["operator"]) as client:
            for name in ("actions", "gap", "quality", "recognition", "loyalty", "flags"):
                await read_current(client, name)
            schema = (await client.get("/openapi.json")).json()["paths"]
        everybody = {"/healthz", "/readyz", "/api/v1/session", "/api/v1/stream", "/api/v1/views/{view}/{table}"}
        everybody |= {"/schemas", "/schemas/{kind}/{name}"}
        doors = {path for path, methods in schema.items() if "get" in methods} - everybody - OF_SOURCES["get"]
        doors -= {"/api/v1/escalations/{escalation_id}"}  # 404 where it is not visible, as below
        assert doors == {path.partition("?")[0] for path in MAY["operator"]}
        acting = {path for path, methods in schema.items() if "post" in methods}
        assert acting - everybody - OF_SOURCES["post"] == ACTING.keys()
        action_id = action_id_of("crm", "r-A-1")
        for role in ROLES:
            async with client_with_token(address, tokens[role]) as client:
                for door in MAY["operator"]:
                    path = door.replace("{position}", "1").replace("{action_id}", action_id)
                    # 503 until the seal has begun
                    answer = await eventually(partial(client.get, path), lambda answer: answer.status_code != 503)
                    assert answer.status_code == (200 if door in MAY[role] else 403), (role, door, answer.text)
                assert (await client.get("/api/v1/escalations/esc-of-nobody")).status_code == 404
                unknown = await client.get("/api/v1/views/nothing/nothing")
                assert unknown.status_code == (404 if role in ("auditor", "operator") else 403), (role, unknown.text)
                for door, may in ACTING.items():
                    answer = await client.post(door.replace("{", "").replace("}", ""), json={"operation": "nonsense"})
                    assert (answer.status_code == 403) == (role not in may), (role, door, answer.text)


async def test_agents_see_themselves_managers_their_people(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens):
        seen: dict[str, set[str]] = {}
        holders: dict[str, set[str]] = {}
        names: dict[str, set[str]] = {}
        for role in ROLES:
            async with client_with_token(address, tokens[role]) as client:
                seen[role] = {one["agent_id"] for one in (await read_current(client, "actions"))["items"]}
                holders[role] = {one["holder"] for one in (await read_current(client, "balances"))["items"]}
                names[role] = {
                    one["employee_id"]
                    for one in (await read_current(client, "names", ids='["A-1","A-2","M-1","M-2","X-1"]'))["items"]
                }
                trail = await client.get("/api/v1/trail", params={"agent": "A-2"})
                assert trail.status_code == (403 if role == "agent" else 200)
                if role == "agent":
                    assert (await read_current(client, "trail", agent="A-1"))["items"]
                    assert (await read_current(client, "actions", agent="A-2"))["items"] == []
                if role == "manager":
                    assert (await client.get("/api/v1/trail", params={"agent": "M-2"})).status_code == 403
        assert names["agent"] == {"A-1", "M-1"}  # and their manager
        assert names["manager"] == {"A-1", "A-2", "M-1", "X-1"}  # M-2 is beside M-1, not below
        assert names["auditor"] == names["operator"] == {"A-1", "A-2", "M-1", "M-2", "X-1"}
        assert seen["agent"] == {"A-1"}
        assert holders["agent"] == {"agent:A-1"}
        assert seen["manager"] == {"A-1", "A-2", "D-1"}  # M-2 is beside M-1, not below
        assert "agent:M-2" not in holders["manager"]
        assert seen["auditor"] == seen["operator"] == {"A-1", "A-2", "D-1", "M-2"}


async def test_a_browser_shows_a_token_once(session: Session) -> None:
    async with (
        served_with_tokens(session) as (address, tokens),
        httpx.AsyncClient(base_url=address, timeout=20) as browser,
    ):
        page = await browser.get("/")
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert tokens["auditor"] not in page.text
        refused = await browser.post("/api/v1/session", json={"token": "guess"})
        assert (refused.status_code, refused.headers["Content-Type"]) == (401, "application/problem+json")
        assert (await browser.get("/api/v1/me")).status_code == 401
        begun = await browser.post("/api/v1/session", json={"token": tokens["auditor"]})
        cookie = begun.headers["Set-Cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", COOKIE))
        assert tokens["auditor"] not in cookie
        assert (await browser.get("/api/v1/me")).json()["role"] == "auditor"
        await Tokens(session.client).revoke("auditor")
        await eventually(lambda: browser.get("/api/v1/me"), lambda answer: answer.status_code == 401)
        await browser.post("/api/v1/session", json={"token": tokens["operator"]})
        assert (await browser.delete("/api/v1/session")).status_code == 204
        assert (await browser.get("/api/v1/me")).status_code == 401
        tries = [(await browser.post("/api/v1/session", json={"token": f"g-{n}"})).status_code for n in range(25)]
        assert tries[-1] == 429
        assert (await browser.get("/assets/../service.py")).status_code == 404
        assets = re.findall(r'"(/?assets/[^"]+)"', page.text)
        assert assets
        for asset in assets:
            assert (await browser.get(asset)).status_code == 200
