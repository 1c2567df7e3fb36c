"""Briefs: the story, actions, promises and available amounts of a customer, read over NATS."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.runtime.session import Session
from consumers.queries.briefs import Briefs
from consumers.runtime.source_watch import SourceWatch
from ledger.errors import UnavailableError
from projections.engine.sqlite_store import SqliteStore
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of


async def brief(upstream: Upstream, **fields: Any) -> Document:
    reply = await upstream.client.request("resolution.read.crm.brief", json.dumps(fields).encode(), timeout=20)
    answer: Document = json.loads(reply.data)
    return answer


async def test_a_brief_holds_the_story_actions_and_promises_of_a_customer(session: Session) -> None:
    async with upstream_of(session, "intake", "decisions", "projections") as upstream:
        await set_up_organisation(upstream)
        opened: Document = {
            "interaction_id": "I-1",
            "customer_id": "C-1",
            "channel": "phone",
            "reason": "broken kettle",
        }
        await upstream.record(event("o", "interaction.opened", agent_id="A-1", line=1, **opened))
        moved: Document = {"to_agent_id": "A-2", "line": 2, "story_repeated": True}
        await upstream.record(event("t", "interaction.transferred", interaction_id="I-1", **moved))
        await upstream.record(event("l", "customer.linked", a="C-1", b="C-2", relation="household"))
        known = {"customer_id": "C-1", "interaction_id": "I-1"}
        taken = await upstream.action("r-1", "30.00", **known)
        asked = await upstream.action("r-2", "90.00", escalate=True, **known)
        found = await brief(upstream, customer_id="C-2", agent_id="A-2")
        assert (found["outcome"], found["household"]) == ("done", ["C-1", "C-2"])
        (interaction,) = found["interactions"]
        assert (interaction["status"], interaction["transfers"], interaction["stories_repeated"]) == ("open", 1, 1)
        assert [line["what"] for line in interaction["story"]][:2] == [
            "interaction opened: phone: broken kettle",
            "transferred to A-2: told again",
        ]
        assert [(one["action_id"], one["state"]) for one in found["actions"]] == [(taken["action_id"], "taken")]
        promises = {one["what"]: one for one in found["promises"]}
        assert promises["not settled yet"]["amount"] == gbp("30.00")
        assert promises["waits for an answer"]["escalation_id"] == asked["escalation_id"]
        assert found["available"]["refund"] == gbp("50.00")  # C-2 has had 30.00 of 100.00 with the household
        assert "gift" not in found["available"]
        await upstream.record(event("s", "refund.settled", action_id=taken["action_id"], total=gbp("30.00")))
        await upstream.ask(
            "escalation", request_id="d", operation="deny", escalation_id=asked["escalation_id"], decided_by="M-1"
        )
        after = await brief(upstream, interaction_id="I-1", agent_id="A-2")
        assert after["promises"] == []
        assert after["available"]["refund"] == gbp("30.00")  # 60.00 an interaction


async def test_a_brief_without_a_known_agent_or_customer_is_an_error(session: Session) -> None:
    async with upstream_of(session, "intake", "decisions", "projections") as upstream:
        await set_up_organisation(upstream)
        assert (await brief(upstream, agent_id="A-1"))["error"]["field"] == "customer_id"
        assert (await brief(upstream, agent_id="A-1", interaction_id="I-9"))["error"]["code"] == "unknown_interaction"
        assert (await brief(upstream, agent_id="ghost", customer_id="C-1"))["error"]["code"] == "unknown_agent"
        assert (await brief(upstream, customer_id="C-1"))["error"]["field"] == "agent_id"
        new = await brief(upstream, agent_id="A-1", customer_id="C-new")
        assert (new["interactions"], new["actions"], new["promises"]) == ([], [], [])
        assert new["available"]["fix"] == gbp("100.00")  # the customer's cap


async def test_a_brief_whose_view_stays_behind_is_unavailable_and_no_error_of_ours(
    session: Session, tmp_path: Path
) -> None:
    briefs = Briefs(session.client, session.log, SqliteStore(tmp_path / "no-views"), SourceWatch(session.log))
    with pytest.raises(UnavailableError, match="casework is behind"):
        await briefs.answer("crm", b'{"agent_id": "A-1", "customer_id": "C-1"}')
