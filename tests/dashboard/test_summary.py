"""The summary over HTTP and on the command line: currencies apart, groups, readers' scopes, refused parameters."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from app.runtime.session import Session
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine, json_of
from tests.support.http_api import client_with_token, served, served_with_tokens
from tests.support.organisations import BASIC_POLICY
from tests.support.waiting import eventually

ALL = ("day", "week", "month", "team", "agent", "agent_kind", "role", "kind", "reason", "channel")


async def _summary(client: httpx.AsyncClient, given: int, **query: Any) -> Document:
    """Return the summary once it has so many actions."""

    def has_all(answer: httpx.Response) -> bool:
        return answer.status_code == 200 and answer.json()["total"]["actions"]["given"] == given

    found: Document = (await eventually(lambda: client.get("/api/v1/summary", params=query), has_all)).json()
    return found


async def test_currencies_are_never_added(session: Session) -> None:
    async with served(session) as (upstream, client):
        reported = {"agent_id": "B-1", "kind": "refund", "reason": "late", "offline_reason": "no network"}
        amount = {"amount": "7.00", "currency": "EUR"}
        await upstream.record(event("offline", "action.reported", amount=amount, **reported))
        total = (await _summary(client, 4))["total"]
        nets = [one["net"] for one in total["actions"]["by_currency"]]
        assert nets == [{"amount": "7.00", "currency": "EUR"}, {"amount": "15.00", "currency": "GBP"}]
        assert {one["currency"] for one in total["budgets"]} <= {"EUR", "GBP"}


async def test_every_property_divides_the_total(session: Session) -> None:
    async with served(session) as (_, client):
        for by in ALL:
            found = await _summary(client, 3, by=by)
            assert sum(one["actions"]["given"] for one in found["groups"]) == 3, by
            assert (found["by"], found["before"]) == (by, None)
        past = await _summary(client, 0, **{"from": "2020-01", "to": "2020-02", "tz": "Asia/Tokyo"})
        assert (past["from"], past["to"]) == ("2019-12-31T15:00:00.000000Z", "2020-02-29T15:00:00.000000Z")
        assert past["before"] == {"from": "2019-11-01T15:00:00.000000Z", "to": "2019-12-31T15:00:00.000000Z"}
        assert past["total"]["before"]["actions"]["given"] == 0


async def test_a_reader_sees_the_totals_of_its_own_people(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens):
        async with client_with_token(address, tokens["agent"]) as client:
            found = await _summary(client, 1, by="agent")
            assert [one["group"] for one in found["groups"]] == ["A-1"]
            assert found["total"]["escalations"]["requested"] == 0
        async with client_with_token(address, tokens["auditor"]) as client:
            await _summary(client, 4, by="agent")


async def test_a_wrong_parameter_is_refused_by_name(session: Session) -> None:
    async with served(session) as (_, client):
        for query, field in (
            ({"by": "customer"}, "by"),
            ({"as_of": "3"}, "as_of"),
            ({"form": "csv"}, "form"),
            ({"limit": "3"}, "limit"),
            ({"from": "then"}, "from"),
            ({"from": "2026-11-02", "to": "2026-11-01"}, "to"),
            ({"tz": "Mars"}, "tz"),
        ):
            answer = await client.get("/api/v1/summary", params=query)
            assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_the_command_prints_what_the_server_answers(command: CommandLine, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(BASIC_POLICY | {"default_role": "agent"}))
    assert command("decide", "policy", str(policy), "--published-by", "you").returncode == 0
    words = ("--agent", "A-1", "--customer", "C-1", "--kind", "refund", "--amount", "5.00", "--reason", "late")
    assert command("decide", "action", *words).returncode == 0
    found = json_of(command("report", "summary", "--by", "kind", "--json"))
    assert [(one["group"], one["actions"]["given"]) for one in found["groups"]] == [("refund", 1)]
    table = command("report", "summary", "--by", "kind", "--from", "2020-01", "--to", "2099-12").stdout
    assert all(words in table for words in ("refund, before", "Evidence level 1", "first contact"))
    refused = command("report", "summary", "--from", "then")
    assert (refused.returncode, "--from" in refused.stderr) == (2, True)
    today = datetime.now(UTC).date()
    week, file = f"{today:%G-W%V}", tmp_path / "week.html"
    found = json_of(command("report", "weekly", "--week", week, "--out", str(file), "--json"))
    told = json_of(command("report", "summary", "--from", week, "--to", week, "--json"))
    assert (found["total"], found["total"]["actions"]["given"]) == (told["total"], 1)
    assert "5.00 GBP" in file.read_text()
    refused = command("report", "weekly", "--week", "2026-02")
    assert (refused.returncode, "--week: '2026-02' is no week" in refused.stderr) == (2, True)
