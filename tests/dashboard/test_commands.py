"""Commands over HTTP: as the token's person, within the role's permissions, forwarded over NATS."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from domain.commands import action_id_of, escalation_id_of
from ledger.transparency.proofs import read_proof, verify_proof
from ledger.transparency.sealer import seal_folder
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.http_api import client_with_token, read_current, served_with_tokens
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import set_up_organisation, upstream_of
from tests.support.waiting import eventually


async def posted(client: httpx.AsyncClient, path: str, **body: Any) -> tuple[int, Document]:
    answer = await client.post(f"/api/v1/{path}", json=body)
    return answer.status_code, answer.json()


async def test_agents_ask_for_themselves_managers_for_their_people(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens):
        amount = {"amount": "5.00", "currency": "GBP"}
        async with client_with_token(address, tokens["agent"]) as agent:
            status, answer = await posted(agent, "preview", kind="refund", amount=amount, agent_id="M-2")
            assert (status, answer["outcome"], answer["budget"]["holder"]) == (200, "taken", "agent:A-1")
            assert (await posted(agent, "preview", kind="refund"))[1]["available"] == {
                "amount": "50.00",
                "currency": "GBP",
            }
            assert (await posted(agent, "preview", kind="bribe"))[0] == 422
            assert (await posted(agent, "preview", kind="refund", bribe=1))[1]["field"] == "bribe"
        async with client_with_token(address, tokens["manager"]) as manager:
            assert (await posted(manager, "preview", kind="refund", amount=amount, agent_id="A-2"))[0] == 200
            assert (await posted(manager, "preview", kind="refund", amount=amount, agent_id="M-2"))[0] == 403
        async with client_with_token(address, tokens["operator"]) as operator:
            status, answer = await posted(operator, "preview", kind="refund", amount=amount)
            assert (status, answer["detail"].partition(":")[0]) == (409, "agent_id")
            status, answer = await posted(
                operator, "preview", kind="refund", amount={"amount": "5", "currency": "ZZZ"}, agent_id="A-1"
            )
            assert (status, "currency" in answer["detail"]) == (422, True)
            for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
                forged = await operator.post(
                    "/api/v1/preview", json={"kind": "refund", "agent_id": "A-1"}, headers=headers
                )
                assert forged.status_code == 403


async def test_requests_over_http_are_held_to_the_same_fields(session: Session) -> None:
    """Codes, fields and hints are those of requests over NATS."""
    async with served_with_tokens(session) as (address, tokens), client_with_token(address, tokens["agent"]) as agent:
        money = '"amount":{"amount":"5.00","currency":"GBP"}'
        for more, code, field, hint in (
            ('"custmer_id":"C-1"', "unknown_field", "custmer_id", "customer_id"),
            ('"amount":{"amount":"5.00","curency":"GBP"}', "unknown_field", "amount.curency", "currency"),
            (f"{money},{money}", "duplicate_field", "amount", "twice"),
            ('"amount":{"amount":"1.00","amount":"9.00","currency":"GBP"}', "duplicate_field", "amount", "twice"),
            ('"customer_id":"C-9\\u200b"', "id_not_canonical", "customer_id", "'C-9'"),
            ('"customer_id":"+44 7700 900123"', "invalid", "customer_id", "telephone"),
            ('"amount":{"amount":"5.00","currency":"ZZZ"}', "invalid", "amount.currency", "ISO 4217"),
        ):
            body = f'{{"kind":"refund",{more}}}'.encode()
            answer = await agent.post("/api/v1/preview", content=body, headers={"Content-Type": "application/json"})
            said = answer.json()
            assert (answer.status_code, said["code"], said["field"]) == (422, code, field), said
            assert hint in said["detail"]
        asked = {"kind": "refund", "amount": {"amount": "5.00", "currency": "GBP"}, "customer_id": "0042-17-000123"}
        for _ in range(2):
            assert (await posted(agent, "preview", request_id="p-1", **asked))[1]["outcome"] == "taken"


async def test_one_token_acts_so_often_and_no_more(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.auth.authorization._COMMAND_BURST", 3.0)
    monkeypatch.setattr("dashboard.auth.authorization._COMMANDS_A_SECOND", 0.001)
    async with served_with_tokens(session) as (address, tokens):
        async with client_with_token(address, tokens["agent"]) as agent:
            for status in (200, 200, 200, 429):
                answer = await agent.post("/api/v1/preview", json={"kind": "refund"})
                assert answer.status_code == status, answer.text
            assert answer.headers["Retry-After"] == "1"
            assert (await agent.get("/api/v1/actions")).status_code == 200
        async with client_with_token(address, tokens["manager"]) as manager:
            assert (await posted(manager, "preview", kind="refund", agent_id="A-2"))[0] == 200


async def test_a_manager_decides_waiting_escalations(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        for number, agent in enumerate(("A-1", "A-2", "M-2")):
            asked = await upstream.action(f"up-{number}", "70.00", agent_id=agent, escalate=True)
            assert asked["outcome"] in {"escalate", "taken"}, asked
        async with client_with_token(address, tokens["manager"]) as manager:
            waits = await read_current(manager, "escalations", status="waiting")
            assert {one["agent_id"] for one in waits["items"]} == {"A-1", "A-2"}
            first = f"escalations/{escalation_id_of('crm', 'up-0')}"
            once = {"operation": "approve", "request_id": "click-1"}
            status, answer = await posted(manager, first, **once)
            assert (status, answer["status"]) == (200, "approved"), answer
            assert (await posted(manager, first, **once))[1]["position"] == answer["position"]  # clicked twice
            second = f"escalations/{escalation_id_of('crm', 'up-1')}"
            assert (await posted(manager, second, operation="deny", reason="no"))[1]["outcome"] == "done"
            assert (await posted(manager, "escalations/esc-none", operation="deny"))[0] == 404
            assert (await posted(manager, second, operation="burn"))[0] == 422
            done = {one["escalation_id"]: one for one in (await read_current(manager, "escalations"))["items"]}
            assert {one["decided_by"] for one in done.values()} == {"M-1"}


async def test_another_limit_is_tried_in_the_shadow_or_on_some_teams(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        limit: Document = {"role": "agent", "kind": "refund", "amount": {"amount": "80.00", "currency": "GBP"}}
        async with client_with_token(address, tokens["manager"]) as manager:
            status, answer = await posted(manager, "policies", mode="shadow", **limit)
            assert (status, answer["outcome"], answer["policy_version"]) == (200, "done", 2), answer
            assert (await posted(manager, "policies", mode="trial", **limit))[0] == 403
        asked = await upstream.action("s-1", "70.00", agent_id="A-2")
        assert asked["outcome"] == "escalate"  # a shadow changes nothing
        async with client_with_token(address, tokens["operator"]) as operator:
            status, answer = await posted(operator, "policies", mode="trial", share_of_teams=0.5, **limit)
            assert (status, answer["policy_version"]) == (200, 3), answer
            for wrong, means in (
                ({"role": "king"}, 409),
                ({"amount": {"amount": "8", "currency": "EUR"}}, 409),
                ({"amount": {"amount": "eight", "currency": "GBP"}}, 422),
            ):
                assert (await posted(operator, "policies", mode="shadow", **(limit | wrong)))[0] == means
            at_once = [
                posted(operator, "policies", mode="trial", share_of_teams=share, **limit) for share in (0.4, 0.6)
            ]
            (_, done), (status, refused) = sorted(await asyncio.gather(*at_once), key=lambda answer: answer[0])
            assert (done["policy_version"], status, refused["field"]) == (4, 409, "replaces")
        published = [json.loads(one.data)["data"] for one in await session.log.read_subject("ledger.policy")]
        assert [one["published_by"] for one in published] == ["owner", "M-1", "operator", "operator"]
        assert published[2]["policy"]["trial"]["limit"]["amount"] == "80.00"


async def test_why_and_the_proof(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens):
        mine, theirs = action_id_of("crm", "r-A-1"), action_id_of("crm", "r-A-2")
        async with client_with_token(address, tokens["agent"]) as agent:
            await read_current(agent, "actions")
            why = (await agent.get(f"/api/v1/explain/{mine}")).json()
            assert why["story"][0] == {"what": "what", "said": "refund of 5.00 GBP (goodwill)"}
            assert (await agent.get(f"/api/v1/explain/{theirs}")).status_code == 404  # nor whether it exists
        async with client_with_token(address, tokens["auditor"]) as auditor:
            # The log is sealed each second.
            case = await eventually(
                lambda: auditor.get(f"/api/v1/case/{theirs}"), lambda answer: answer.status_code != 503
            )
            assert "attachment" in case.headers["Content-Disposition"]
            assert f"Case file: action {theirs}" in case.text
            proof = await auditor.get(f"/api/v1/proof/{why['position']}")
            entry = verify_proof(read_proof(proof.text), seal_folder(session.data_dir).trusted())
            assert (entry.position, mine in entry.data.decode()) == (why["position"], True)
            assert (await auditor.get("/api/v1/proof/999999")).status_code == 404
            assert (await auditor.get("/api/v1/case/act-none")).status_code == 404


async def test_arrivals_of_a_source_are_listed_and_a_message_is_checked(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        await upstream.publish({"specversion": "1.0", "id": "bad", "source": "crm", "type": "no.such", "data": {}})
        await upstream.record(event("good", "interaction.opened", interaction_id="I-9"))
        async with client_with_token(address, tokens["auditor"]) as auditor:
            sources = {one["source"] for one in (await read_current(auditor, "sources"))["items"]}
            assert "crm" in sources
            came = (await read_current(auditor, "arrivals", source="crm", limit=1))["items"]
            assert [(one["event_id"], one["type"]) for one in came] == [("good", "resolution.interaction.opened.v1")]
            (refused,) = (await read_current(auditor, "rejections", source="crm"))["items"]
            assert (refused["code"], refused["field"]) != ("", "")
            assert (await read_current(auditor, "rejections", source="elsewhere"))["items"] == []
            end = await session.log.last_position()
            fact = event("would", "interaction.opened", interaction_id="I-8")
            assert (await posted(auditor, "check", **fact))[1]["accepted"] is True
            wrong = await posted(auditor, "check", **(fact | {"data": {"interaction_id": 5}}))
            assert (wrong[1]["accepted"], wrong[1]["error"]["field"]) == (False, "data.interaction_id")
            assert (await posted(auditor, "check"))[1]["accepted"] is False
            assert await session.log.last_position() == end


async def test_the_pages_of_arrivals_and_rejections_have_each_of_them_once(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        for number in range(5):
            wrong = event(f"bad-{number}", "interaction.opened", "desk", interaction_id=number)
            await upstream.publish(wrong)
            await upstream.record(event(f"good-{number}", "interaction.opened", "desk", interaction_id=f"I-{number}"))
            await upstream.record(event(f"other-{number}", "interaction.opened", "till", interaction_id=f"J-{number}"))
        async with client_with_token(address, tokens["auditor"]) as auditor:
            for name, key in (("arrivals", "event_id"), ("rejections", "entry")):
                whole = (await read_current(auditor, name, source="desk"))["items"]
                assert len(whole) == 5
                found: list[Any] = []
                after: dict[str, Any] = {}
                pages = 0
                while True:
                    page = await read_current(auditor, name, source="desk", limit=2, **after)
                    found += [one[key] for one in page["items"]]
                    pages += 1
                    if page["next"] is None:
                        break
                    after = {"after": page["next"]}
                assert (found, pages) == ([one[key] for one in whole], 3)
            arrived = await read_current(auditor, "arrivals", source="desk", order="asc", **{"from": "2026-01-05"})
            assert [one["event_id"] for one in arrived["items"]] == [f"good-{number}" for number in range(5)]
            assert (await read_current(auditor, "arrivals", source="desk", to="2026-01-04"))["items"] == []


async def test_flags_show_pseudonyms_over_http_until_a_review_begins(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream, FULL_POLICY | {"privacy": {"pseudonyms": True}})
        refused = await upstream.action("mine", "20.00", agent_id="A-2", customer_id="A-2")
        assert refused["reasons"][0]["rule"] == "self_dealing"
        async with running(session, ["projections", "guard", "dashboard"], where=ListenAddress(port=0)) as services:
            (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
            tokens = Tokens(session.client)
            async with client_with_token(
                dashboard.address, await tokens.make("boss", "manager", "M-1", None)
            ) as manager:
                flags = (await eventually(lambda: read_current(manager, "flags"), lambda found: found["items"]))[
                    "items"
                ]
                assert flags[0]["about"][0].partition(":")[2].startswith("~")
                assert "A-2" not in flags[0]["explanation"]
                own = {"flag_id": flags[0]["flag_id"], "employee_id": "A-2", "text": "I am A-2."}
                assert (await upstream.ask("flag", request_id="own", **own))["outcome"] == "done"
                (answered,) = (await read_current(manager, "flags"))["items"]
                pseudonym = answered["about"][0].partition(":")[2]
                assert (answered["answered_by"], answered["answer"]) == (pseudonym, None)
                token = await tokens.make("own", "agent", "A-2", None)
                async with client_with_token(dashboard.address, token) as person:
                    (answered,) = (await read_current(person, "flags"))["items"]
                    assert (answered["answered_by"], answered["answer"]) == (pseudonym, "I am A-2.")
                assert (await read_current(manager, "flags", about="agent:A-2"))["items"] == []  # asking would tell
                name = f"flags/{flags[0]['flag_id']}"
                assert (await posted(manager, name))[1]["outcome"] == "done"
                (found,) = (await read_current(manager, "flags"))["items"]
                assert "agent:A-2" in found["about"]
                assert (found["answered_by"], found["answer"]) == ("A-2", "I am A-2.")
                done = await posted(manager, name, verdict="dismissed", note="a second parcel")
                assert done[1]["outcome"] == "done", done
                (flag,) = [one for one in (await read_current(manager, "flags"))["items"] if one["flag_id"] in name]
                assert (flag["status"], flag["reviewed_by"], flag["note"]) == ("dismissed", "M-1", "a second parcel")
                async with client_with_token(dashboard.address, token) as person:
                    (own_flag,) = (await read_current(person, "flags"))["items"]
                    assert own_flag == flag | {"note": None}
                    assert "a second parcel" not in (await person.get("/api/v1/flags", params={"format": "csv"})).text
                assert (await posted(manager, "flags/none", verdict="dismissed"))[0] == 404


async def test_an_escalation_of_another_system_is_decided_there(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens):
        async with upstream_of(session) as upstream:
            told: Document = {"escalation_id": "E-1", "amount": gbp("30.00"), "requested_by": "A-1"}
            await upstream.record(event("reported", "escalation.reported", **told))
        async with client_with_token(address, tokens["manager"]) as manager:
            found = (await read_current(manager, "escalations", agent="A-1", status="waiting"))["items"]
            assert [one["reported_by"] for one in found if one["escalation_id"] == "E-1"] == ["crm"]
            status, answer = await posted(manager, "escalations/E-1", operation="approve")
            assert (status, "crm" in answer["detail"]) == (409, True)
