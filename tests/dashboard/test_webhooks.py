"""Webhooks over HTTP: a source subscribes to its own matters, an operator to everything; others to nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

import httpx
import pytest
import pytest_asyncio

from app.runtime.roles import running
from app.runtime.session import Session
from app.runtime.views import up_to_date
from config.settings import load_settings
from consumers.webhooks.deliveries import AttemptTiming
from consumers.webhooks.service import WebhookService
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from tests.support.builders import purchase
from tests.support.documents import Document
from tests.support.http_api import client_with_token
from tests.support.registered_sources import Company, company_of
from tests.support.waiting import eventually, wait_until
from tests.support.webhook_receiver import receiver

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PURCHASE = "resolution.purchase.completed.v1"
ACTION = "resolution.action.taken.v1"


class Door:
    """The HTTP API of a company with the role `webhooks`, and tokens of two sources and of people."""

    def __init__(self, company: Company, address: str, tokens: dict[str, str]) -> None:
        self.company, self._address, self._tokens = company, address, tokens

    @classmethod
    async def of(cls, company: Company, address: str) -> Self:
        """Make the tokens."""
        tokens = Tokens(company.session.client)
        made = {name: await tokens.make(name, "source", None, None, name) for name in ("desk", "till")}
        made |= {role: await tokens.make(role, role, None, None) for role in ("auditor", "operator")}
        return cls(company, address, made | {"agent": await tokens.make("agent", "agent", "A-1", None)})

    def __call__(self, name: str) -> httpx.AsyncClient:
        """Return a client with the token of a source or person."""
        return client_with_token(self._address, self._tokens[name])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    """Return the HTTP API of a company, for all tests of this module."""
    settings = load_settings({"data_dir": str(tmp_path_factory.mktemp("webhooks") / "data")}, {})
    async with (
        Session(settings) as session,
        company_of(session) as company,
        running(session, ["dashboard"], where=ListenAddress(port=0)) as services,
    ):
        timing = AttemptTiming(first=0.01, longest=0.05, give_up=0.1)
        role = WebhookService(session.server, session.log, session.views, private=True, timing=timing)
        await role.start()
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        await up_to_date(session, "people")  # says who has left
        yield await Door.of(company, dashboard.address)
        await role.stop()


async def subscribed(client: httpx.AsyncClient, url: str, *types: str, **fields: object) -> Document:
    """Subscribe; return the answer."""
    answer = await client.post("/api/v1/webhooks", json={"url": url, "types": types, **fields})
    assert answer.status_code == 201, answer.text
    found: Document = answer.json()
    return found


async def act(door: Door, request_id: str) -> None:
    """Take an action through the desk."""
    answer = await door.company["desk"].action(request_id)
    assert answer["outcome"] == "taken", answer


async def test_a_source_is_told_of_its_own_matters_only(door: Door) -> None:
    async with receiver() as till, receiver() as everything, door("till") as client, door("operator") as operator:
        own = await subscribed(client, till.url, PURCHASE, ACTION)
        every = await subscribed(operator, everything.url, PURCHASE, ACTION)
        till.secret, everything.secret = own["secret"], every["secret"]
        await act(door, "desk-1")
        await door.company["till"].record(purchase("till-1", "till"))
        await wait_until(lambda: till.accepted and len(everything.accepted) == 2)
    assert [one.event["source"] for one in till.accepted] == ["till"]
    assert {one.event["type"] for one in everything.accepted} == {PURCHASE, ACTION}


async def test_a_subscription_is_seen_and_ended_by_its_own_source_and_by_operators(door: Door) -> None:
    async with door("till") as till, door("desk") as desk, door("operator") as operator:
        made = await subscribed(till, "https://till.example/hooks", PURCHASE)
        assert "secret" not in (await till.get("/api/v1/webhooks")).json()["items"][-1]
        assert made["id"] in [one["id"] for one in (await operator.get("/api/v1/webhooks")).json()["items"]]
        assert made["id"] not in [one["id"] for one in (await desk.get("/api/v1/webhooks")).json()["items"]]
        path = f"/api/v1/webhooks/{made['id']}"
        for method, suffix in (("DELETE", ""), ("GET", "/dead-letters"), ("POST", "/dead-letters/0")):
            assert (await desk.request(method, path + suffix)).status_code == 404
        assert (await till.delete(path)).status_code == 204
        assert (await till.delete(path)).status_code == 404


@pytest.mark.parametrize("name", ["auditor", "agent"])
async def test_others_do_not_subscribe(door: Door, name: str) -> None:
    async with door(name) as client:
        answer = await client.post("/api/v1/webhooks", json={"url": "https://a.example/", "types": [PURCHASE]})
        assert answer.status_code == 403
        assert (await client.get("/api/v1/webhooks")).status_code == 403


async def test_only_an_operator_has_personal_fields_sent(door: Door) -> None:
    body = {"url": "https://a.example/", "types": [PURCHASE], "personal": True}
    async with door("till") as till, door("operator") as operator:
        refused = await till.post("/api/v1/webhooks", json=body)
        assert (refused.status_code, refused.json()["field"]) == (422, "personal")
        made = await operator.post("/api/v1/webhooks", json=body)
        assert made.status_code == 201
        assert (await operator.delete(f"/api/v1/webhooks/{made.json()['id']}")).status_code == 204
    told = await door.company.operator.recorded("access.recorded")
    assert [one["what"] for one in told][-2:] == [
        f"webhook made: {made.json()['id']} to https://a.example/ with personal fields",
        f"webhook removed: {made.json()['id']}",
    ]


async def test_a_faulty_subscription_names_its_field(door: Door) -> None:
    async with door("till") as till:
        answer = await till.post("/api/v1/webhooks", json={"url": "gopher://a.example/", "types": [PURCHASE]})
    assert (answer.status_code, answer.json()["field"]) == (422, "url")


async def test_dead_letters_are_listed_and_sent_again(door: Door) -> None:
    broken = True
    async with receiver(lambda _: 500 if broken else 200) as desk, door("desk") as client:
        made = await subscribed(client, desk.url, ACTION)
        letters = f"/api/v1/webhooks/{made['id']}/dead-letters"
        await act(door, "desk-dead")
        found = await eventually(lambda: client.get(letters), lambda got: got.json()["items"])
        (letter,) = found.json()["items"]
        assert (letter["type"], letter["error"]) == (ACTION, "the receiver answered 500")
        broken = False
        assert (await client.post(f"{letters}/{letter['id']}")).status_code == 202
        assert (await client.post(f"{letters}/none")).status_code == 404
        await wait_until(lambda: desk.accepted)
        await eventually(lambda: client.get(letters), lambda got: not got.json()["items"])

        async def state() -> tuple[str, int]:
            items = (await client.get("/api/v1/webhooks")).json()["items"]
            (one,) = [one for one in items if one["id"] == made["id"]]
            return one["state"], one["delivered"]

        await eventually(state, lambda found: found == ("active", 1))
