"""An employee's own authority, thanks, and answers to flags about them, over HTTP."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from app.runtime.roles import running
from app.runtime.views import read_view
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.routes import people
from dashboard.service import DashboardService
from projections.policy_history import published_policies
from projections.reading import EVERYBODY, AccessScope
from projections.reports.authority_now import authority_now
from tests.support.builders import event
from tests.support.http_api import client_with_token, read_current, served
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import set_up_organisation, upstream_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import httpx
    import pytest

    from app.runtime.session import Session
    from dashboard.auth.tokens import Role
    from tests.support.documents import Document
    from tests.support.upstreams import Upstream

PEOPLE: dict[str, Role] = {"A-1": "agent", "A-2": "agent", "D-1": "agent", "M-1": "manager"}


async def posted(client: httpx.AsyncClient, path: str, **body: Any) -> tuple[int, Document]:
    answer = await client.post(f"/api/v1/{path}", json=body)
    return answer.status_code, answer.json()


async def test_the_authority_of_an_employee_is_what_the_decider_would_give(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream, FULL_POLICY)
        assert (await upstream.action("a", "45.00", agent_id="A-2", interaction_id="I-1"))["outcome"] == "taken"
        for number in range(4):
            given = await upstream.action(f"b-{number}", "45.00", agent_id="A-2", customer_id=f"C-{number}")
        assert given["budget"]["remaining"]["amount"] != "200.00"
        async with running(session, ["projections", "dashboard"], where=ListenAddress(port=0)) as services:
            (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
            tokens = Tokens(session.client)
            for name, role in PEOPLE.items():
                async with client_with_token(dashboard.address, await tokens.make(name, role, name, None)) as client:
                    found = await read_current(client, "authority")
                    assert found["employee_id"] == name
                    assert found["items"]
                    for one in found["items"]:
                        _, answer = await posted(client, "preview", kind=one["kind"], agent_id=name)
                        if one["needs"]:
                            assert (one["needs"], answer["outcome"]) == (["goodwill-basics"], "escalate"), one
                        else:
                            assert answer["available"] == one["left"], (name, one, answer)
                    other = await client.get("/api/v1/authority", params={"agent": "A-1"})
                    assert other.status_code == (200 if name in ("A-1", "M-1") else 422), name


async def _is_as_previewed(session: Session, upstream: Upstream, *names: str) -> dict[str, Document]:
    """Compare the authority of employees for a kind without a limit with the decider's preview; return the budgets."""
    budgets = {}
    for name in names:
        published = await published_policies(session.log)
        found = await authority_now(partial(read_view, session), published, datetime.now(UTC), name)
        answer = await upstream.ask("preview", agent_id=name, kind="fix", reason="a question")
        budgets[name] = answer["budget"]
        assert (found["period"], found["remaining"]) == (answer["budget"]["period"], answer["budget"]["remaining"])
        assert [one["left"] for one in found["items"] if one["kind"] == "fix"] == [answer["available"]], name
    return budgets


async def test_authority_after_the_end_of_a_period_is_that_of_the_next_one(session: Session) -> None:
    """A budget stays open until its holder's next action; another currency has a budget of its own."""
    now = datetime.now(UTC)
    team = FULL_POLICY["teams"]["doorstep"] | {"pool": "100.00"}
    policy = FULL_POLICY | {"period": "day", "teams": {"doorstep": team}}
    async with upstream_of(session, history=True) as upstream:
        asked: Document = {"published_by": "owner", "time": (now - timedelta(days=9)).isoformat()}
        policy |= {"effective_from": asked["time"]}
        await upstream.ask("policy", request_id="p-1", policy=policy, **asked)
        for name, team_id in {"A-1": "phone", "A-2": "phone", "A-3": "phone", "D-1": "doorstep"}.items():
            joined: Document = {"employee_id": name, "role": "agent", "team_ids": [team_id]}
            await upstream.record(event(f"join-{name}", "employee.joined", **joined))
        for name, days, amount in (("A-1", 1, "190.00"), ("A-2", 5, "190.00"), ("D-1", 1, "300.00")):
            when = (now - timedelta(days=days)).isoformat()
            given = await upstream.action(f"fix-{name}", amount, agent_id=name, kind="fix", time=when)
            assert given["outcome"] == "taken", given
    async with upstream_of(session) as upstream:
        await _is_as_previewed(session, upstream, "A-1", "A-2", "A-3", "D-1")
        await upstream.action("today", "30.00", agent_id="A-1", kind="fix")
        await _is_as_previewed(session, upstream, "A-1")
        roles = {"agent": {"budget": "70.00", "limits": {"fix": "unlimited"}}}
        euros = {
            "currency": "EUR",
            "roles": roles,
            **{name: policy[name] for name in ("period", "time_zone", "effective_from")},
        }
        published = await upstream.ask("policy", request_id="p-2", policy=euros, published_by="owner")
        assert published["outcome"] == "done", published
        await upstream.wait_for_decider()
        budgets = await _is_as_previewed(session, upstream, "A-1", "A-2")
        assert [one["remaining"]["amount"] for one in budgets.values()] == ["0.00", "70.00"]


async def test_the_lag_of_own_authority_is_that_of_its_figures(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(session) as (upstream, client):

        async def late(*given: Any) -> Any:
            found = await authority_now(*given)
            await upstream.action("r-late")
            await asyncio.sleep(1.1)  # a view that is within a second of the end counts its own age
            await read_current(client, "balances")
            return found

        monkeypatch.setattr(people, "authority_now", late)
        found = (await client.get("/api/v1/authority", params={"agent": "A-1"})).json()
        assert found["position"] < (await read_current(client, "actions"))["position"]
        assert found["lag_seconds"] > 0


def test_a_reader_who_sees_nobody_is_shown_nobody_who_is_asked_for() -> None:
    nobody, some = (AccessScope(frozenset(names), frozenset()) for names in ((), ("A-1", "A-2")))
    found = [people._people_of(one, "A-1") for one in (nobody, some, EVERYBODY)]
    assert found == [frozenset(), frozenset({"A-1"}), frozenset({"A-1"})]
    assert [people._people_of(one, None) for one in (nobody, EVERYBODY)] == [frozenset(), None]


async def test_thanks_are_seen_by_their_receiver_and_the_people_above(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream, FULL_POLICY)
        for number, receiver in enumerate(("A-1", "A-1", "D-1")):
            thanks = {"recognition_id": f"T-{number}", "giver_id": "C-9", "receiver_id": receiver, "reason": "patient"}
            when = f"2026-03-0{1 + number}T10:00:00Z"
            await upstream.record(event(f"t-{number}", "recognition.given", time=when, giver_kind="customer", **thanks))
        async with running(session, ["projections", "dashboard"], where=ListenAddress(port=0)) as services:
            (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
            tokens = Tokens(session.client)
            for name, seen in {"A-1": ["T-1", "T-0"], "A-2": [], "M-1": ["T-2", "T-1", "T-0"]}.items():
                token = await tokens.make(name, PEOPLE[name], name, None)
                async with client_with_token(dashboard.address, token) as client:
                    found = await read_current(client, "thanks")
                    assert [one["recognition_id"] for one in found["items"]] == seen
                    some = await read_current(client, "thanks", agent="D-1", **{"from": "2026-03-03"})
                    assert [one["recognition_id"] for one in some["items"]] == seen[:1] * (name == "M-1")
                    first = await read_current(client, "thanks", limit=1)
                    if first["next"] is not None:
                        rest = await read_current(client, "thanks", after=first["next"])
                        assert [one["recognition_id"] for one in (*first["items"], *rest["items"])] == seen
                    lines = (await client.get("/api/v1/thanks", params={"format": "csv"})).text.splitlines()
                    assert [line.split(",")[0] for line in lines[1:]] == seen


async def test_only_the_person_whom_a_flag_concerns_answers_it(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream, FULL_POLICY)
        refused = await upstream.action("mine", "20.00", agent_id="A-2", customer_id="A-2")
        assert refused["reasons"][0]["rule"] == "self_dealing"
        async with running(session, ["projections", "guard", "dashboard"], where=ListenAddress(port=0)) as services:
            (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
            tokens = Tokens(session.client)
            made = {name: await tokens.make(name, role, name, None) for name, role in PEOPLE.items()}
            async with client_with_token(dashboard.address, made["A-2"]) as client:
                found = await eventually(lambda: read_current(client, "flags"), lambda found: found["items"])
                path = f"flags/{found['items'][0]['flag_id']}/answers"
                for name, token in made.items():
                    if name != "A-2":
                        async with client_with_token(dashboard.address, token) as other:
                            assert (await posted(other, path, text="it was me"))[0] == 404, name
                for blank in ("", "  "):
                    assert (await posted(client, path, text=blank))[0] == 422
                    asked = {"flag_id": found["items"][0]["flag_id"], "employee_id": "A-2", "text": blank}
                    refused = await upstream.ask("flag", request_id="blank", **asked)
                    assert refused["error"] == {
                        "code": "invalid",
                        "message": "`text` must not be blank",
                        "field": "text",
                    }
                status, answer = await posted(client, path, text="A test of the till.")
                assert (status, answer["outcome"]) == (200, "done"), answer
                (flag,) = (await read_current(client, "flags"))["items"]
                assert (flag["answered_by"], flag["answer"], flag["status"]) == ("A-2", "A test of the till.", "open")
        (told,) = await upstream.recorded("flag.answered")
        assert (told["employee_id"], told["source"]) == ("A-2", "dashboard")
