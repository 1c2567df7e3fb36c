"""A source's name and token are read alike at every door: inbox, requests, readings, HTTP, the command line."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
import msgspec
import nats.errors
import pytest

from app.runtime.session import Session
from consumers.rejections import RejectedEntry
from consumers.runtime.source_tokens import read_token
from domain.sources import fact_source_fault
from ledger.store.log import Draft
from tests.support.builders import gbp, purchase
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.organisations import BASIC_POLICY
from tests.support.raw_nats import RawNats
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import read_rejections

pytestmark = pytest.mark.integration

BAD = {
    "%20": "invalid",
    "%00": "invalid",
    "crm%00": "invalid",
    "a%40b%2Eco": "invalid",
    "%2B4915112345678": "invalid",
    "%E2%80%AE": "invalid",
    "crm%E2%80%AE": "id_not_canonical",
    "cafe%CC%81": "id_not_canonical",
    "crm%20": "id_not_canonical",
    "a%C2%A0b": "id_not_canonical",
    "%F0%9F%9B%92" * 129: "invalid",
    "%63rm": "id_not_canonical",
    "a%2eb": "id_not_canonical",
    "caf\u00e9": "id_not_canonical",
    "%": "id_not_canonical",
    "%FF": "invalid",
    "%ED%A0%80": "invalid",
    "%C0%AE": "invalid",
    "ledger": "source_not_allowed",
    "resolution-ledger": "source_not_allowed",
}
GOOD = ("crm", "a%2Eb", "a_b", "%2563rm", "caf%C3%A9", "%F0%9F%9B%92" * 128, "https:%2F%2Fcrm%2Eexample%2Fx", "~", "-")


async def asked(raw: RawNats, subject: str, **body: Any) -> Document:
    written = await raw.answer(subject.encode(), json.dumps(body).encode())
    answer: Document = json.loads(written[written.index(b"{") :])
    return answer


@pytest.fixture
async def everything(session: Session) -> AsyncIterator[Upstream]:
    async with upstream_of(session, "intake", "decisions", "projections") as upstream:
        await upstream.set_up_basics(BASIC_POLICY)
        yield upstream


async def test_every_entry_refuses_an_invalid_source_token_with_the_same_error(everything: Upstream) -> None:
    session = everything.session
    end = await session.log.last_position()
    action = {"request_id": "r", "agent_id": "A-1", "kind": "refund", "amount": gbp("5.00"), "reason": "late"}
    async with RawNats(session.url) as raw:
        for token, code in BAD.items():
            errors = [
                await asked(raw, f"resolution.decide.{token}.action", **action),
                await asked(raw, f"resolution.decide.{token}.action", **action, note="hello"),
                await asked(raw, f"resolution.decide.{token}.preview", agent_id="A-1", kind="refund"),
                await asked(raw, f"resolution.decide.{token}.hold", request_id="h", action_id="a", operation="void"),
                await asked(
                    raw,
                    f"resolution.decide.{token}.budget",
                    request_id="g",
                    operation="grant",
                    holder="agent:A-1",
                    amount=gbp("1.00"),
                    granted_by="M-1",
                    reason="r",
                ),
                await asked(raw, f"resolution.read.{token}.receipt", id="p-1"),
                await asked(raw, f"resolution.read.{token}.brief", agent_id="A-1", customer_id="C-1"),
                await asked(raw, f"resolution.read.{token}.check", **purchase(1)),
            ]
            assert [error.get("outcome") for error in errors] == ["error"] * len(errors), token
            assert {error["error"]["code"] for error in errors} == {code}, token
            assert len({error["error"]["message"] for error in errors}) == 1, token
            assert {error["error"]["field"] for error in errors} == {"source"}, token
    assert await session.log.last_position() == end


async def test_the_inbox_refuses_a_token_with_the_error_of_a_request(everything: Upstream) -> None:
    from ledger.encryption.keyring import Keyring

    session = everything.session
    async with RawNats(session.url) as raw:
        for number, token in enumerate(BAD):
            try:
                source = unquote_to_bytes(token).decode()
            except UnicodeDecodeError:
                source = "crm"
            await raw.answer(f"resolution.inbox.{token}".encode(), json.dumps(purchase(number, source)).encode())
    await everything.record(purchase("after"))
    keys = await Keyring.open(session.client)
    found: dict[str, tuple[str, str]] = {}
    for _ in range(400):
        for one in await session.rejected.read_subject("rejected.>"):
            entry = msgspec.json.decode(await keys.decrypt_fields(one.data), type=RejectedEntry)
            token = entry.original_subject.decode().removeprefix("resolution.inbox.")
            found[token] = entry.code, entry.message
        if len(found) >= len(BAD):
            break
        await asyncio.sleep(0.02)
    for token, code in BAD.items():
        fault = read_token(token).fault
        assert fault is not None
        assert found[token] == (code, fault.message), token


async def test_valid_source_tokens_are_accepted_at_every_entry(everything: Upstream) -> None:
    for number, token in enumerate(GOOD):
        source = unquote_to_bytes(token).decode()
        await everything.record(purchase(number, source))
        everything.source = token
        answer = await everything.action(f"r-{number}", amount="0.01")
        assert answer["outcome"] == "taken", (token, answer)
    taken = [one["data"]["source"] for one in await everything.replay() if one["type"] == "resolution.action.taken.v1"]
    assert taken == [unquote_to_bytes(token).decode() for token in GOOD]


@pytest.mark.parametrize("source", ["cli", "dashboard", "ledger", "resolution-ledger", "signed-in"])
async def test_a_fact_of_a_reserved_source_is_refused(session: Session, source: str) -> None:
    if source in {"cli", "dashboard"}:  # what an earlier version recorded stays a duplicate
        await session.log.append([Draft(f"ledger.fact.{source}", json.dumps(purchase("old", source)).encode())])
    async with upstream_of(session, "intake") as upstream:
        ours = Upstream(session, session.client)
        await ours.publish(purchase("new", source))
        await ours.publish(purchase("old", source))
        await upstream.record(purchase(1))
        entries = await read_rejections(session)
        codes = [json.loads(entry.data)["code"] for entry in entries]
        assert set(codes) == {"source_not_allowed"}
        assert len(codes) == (1 if source in {"cli", "dashboard"} else 2)


@pytest.mark.parametrize("source", ["cli", "dashboard", "ledger", "resolution-ledger", "signed-in"])
async def test_the_shared_upstream_user_may_not_use_a_reserved_source(session: Session, source: str) -> None:
    async with upstream_of(session, "intake", "decisions") as upstream:
        for subject in (f"inbox.{source}", f"decide.{source}.action", f"read.{source}.receipt"):
            with pytest.raises((nats.errors.Error, TimeoutError)):
                await upstream.client.request(f"resolution.{subject}", b"{}", timeout=0.3)
        await upstream.record(purchase(1))


async def test_a_request_of_an_earlier_version_keeps_its_first_answer_and_a_new_one_is_refused(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics(BASIC_POLICY)
        upstream.source = "crm%20"
        with monkeypatch.context() as before:  # what versions without the rule took
            before.setattr("domain.sources.fault_of", lambda _source: None)
            read_token.cache_clear()
            first = await upstream.action("r-1")
        read_token.cache_clear()
        assert first["outcome"] == "taken"
        assert await upstream.action("r-1") == first
        assert (await upstream.action("r-2"))["error"]["code"] == "id_not_canonical"


@pytest.mark.parametrize(
    ("source", "code"),
    [("a@b.co", "invalid"), (" ", "invalid"), ("crm ", "id_not_canonical"), ("ledger", "source_not_allowed")],
)
def test_the_command_line_refuses_a_reserved_source(source: str, code: str, tmp_path: Path) -> None:
    arguments = ["decide", "preview", "--source", source, "--agent", "A-1", "--kind", "refund", "--json"]
    command = [sys.executable, "-m", "app", *arguments, "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 2, done.stderr
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["field"]) == (code, "source")


async def test_the_page_refuses_a_reserved_source(session: Session) -> None:
    from app.runtime.roles import running
    from dashboard.listen_address import ListenAddress

    async with running(session, ["intake", "projections", "dashboard"], where=ListenAddress(port=0)) as services:
        dashboard: Any = services[-1]
        url, token = dashboard.address, dashboard.token
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client:
            for path in ("arrivals", "rejections"):
                answer = await client.get(f"/api/v1/{path}", params={"source": "a@b.co"})
                assert answer.status_code == 422, answer.text
                assert (await client.get(f"/api/v1/{path}", params={"source": "a.b"})).status_code == 200
            for source, code in (
                ("a@b.co", "invalid"),
                ("crm\u202e", "id_not_canonical"),
                ("cli", "source_not_allowed"),
            ):
                said = (await client.post("/api/v1/check", json=purchase(1, source))).json()
                assert said["error"]["code"] == code
                fault = fact_source_fault(source)
                assert fault is not None
                assert said["error"]["message"] == fault.message
