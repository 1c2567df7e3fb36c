"""Corrections: views show the corrected facts, as-of reads the earlier ones, and decisions stay."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from app.runtime.session import Session
from app.runtime.views import read_view
from projections.engine import temporal_tables
from projections.engine.pages import PageRequest
from projections.engine.projector import rebuild
from projections.registry import MODELS
from projections.views import casework
from projections.views.audit_trail import read_trail
from projections.views.loyalty import read_effects
from tests.support.builders import corrected, event, gbp, reported_action
from tests.support.documents import Document
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream


def purchase(name: str, total: str, time: str = "2026-01-05T10:00:00Z") -> Document:
    return event(name, "purchase.completed", time=time, order_id=f"O-{name}", customer_id="C-1", total=gbp(total))


async def interaction(session: Session, at: int | None = None) -> Document:
    source = temporal_tables.as_of(casework.interactions, at)

    def read(connection: sa.Connection) -> Document:
        return dict(connection.execute(source.select().where(source.c.interaction_id == "I-1")).mappings().one())

    row: Document = (await read_view(session, "casework", read)).result
    return row


async def test_a_purchase_counts_as_it_was_corrected_and_then_as_it_was_known(upstream: Upstream) -> None:
    session = upstream.session
    await upstream.record(purchase("early", "1.00", "2025-06-01T10:00:00Z"))
    await upstream.record(purchase("p-1", "20.00"))
    reported = reported_action("a-1", "2.00", time="2026-01-10T10:00:00Z", request_id="q", customer_id="C-1")
    await upstream.record(reported)
    last = await upstream.record(purchase("late", "1.00", "2026-08-01T10:00:00Z"))

    async def bought(at: int | None = None) -> str:
        effects = (await read_view(session, "loyalty_effects", lambda c: read_effects(c, PageRequest(at=at)))).result
        amount: str = effects[0]["windows"]["30"]["before"]["revenue"]["amount"]
        return amount

    assert await bought() == "20.00"
    right = purchase("p-1", "12.00")["data"]
    first = await upstream.record(corrected("c-1", "p-1", right))
    assert (await bought(), await bought(last)) == ("12.00", "20.00")
    await upstream.record(corrected("c-2", "p-1", None))
    assert (await bought(), await bought(first), await bought(last)) == ("0.00", "12.00", "20.00")
    lines = (await read_view(session, "audit_trail", lambda c: read_trail(c, [("customer", "C-1")]))).result
    assert [line["corrected_by"] for line in lines[:2]] == [None, first + 1]
    assert "typed wrongly" in lines[-1]["what"]


async def test_an_interaction_shows_its_corrected_facts(upstream: Upstream) -> None:
    session = upstream.session
    opened = event(
        "o-1", "interaction.opened", interaction_id="I-1", customer_id="C-1", channel="phone", agent_id="A-1"
    )
    moved = event("t-1", "interaction.transferred", interaction_id="I-1", to_agent_id="A-2", story_repeated=True)
    await upstream.record(opened)
    before = await upstream.record(moved)
    await upstream.record(corrected("c-1", "o-1", opened["data"] | {"channel": "chat", "agent_id": "A-9"}))
    row = await interaction(session)
    assert (row["channel"], row["agent_id"], row["transfers"]) == ("chat", "A-2", 1)
    assert (await interaction(session, before))["channel"] == "phone"
    await upstream.record(corrected("c-2", "t-1", None))
    row = await interaction(session)
    assert (row["transfers"], row["stories_repeated"]) == (0, 0)


async def test_live_views_equal_rebuilt_ones_after_corrections(upstream: Upstream) -> None:
    session = upstream.session
    await test_an_interaction_shows_its_corrected_facts(upstream)
    await upstream.record(event("l-1", "customer.linked", a="C-1", b="C-2", relation="household"))
    await upstream.record(corrected("c-9", "l-1", {"a": "C-1", "b": "C-3", "relation": "household"}))

    async def shown() -> Any:
        return (
            (await read_view(session, "casework", lambda c: casework.customer_group_of(c, "C-1"))).result,
            await interaction(session),
            (await read_view(session, "audit_trail", read_trail)).result,
        )

    live = await shown()
    assert live[0] == ["C-1", "C-3"]
    views = session.views
    for name, make in MODELS.items():
        await rebuild(make(), views, await session.connection(name), session.log)
    assert await shown() == live


async def test_decisions_use_corrected_facts(upstream: Upstream) -> None:
    await upstream.set_up_basics(FULL_POLICY)
    await upstream.record(event("rel", "relationship.declared", employee_id="A-1", customer_id="C-7", nature="friend"))
    refused = await upstream.action("r-1", customer_id="C-7")
    assert refused["outcome"] == "refused"
    await upstream.record(corrected("c-1", "rel", {"employee_id": "A-1", "customer_id": "C-8", "nature": "friend"}))
    for number in range(100):  # a decider knows a fact some moments after it is recorded
        answer = await upstream.action(f"r-2-{number}", customer_id="C-7")
        if answer["outcome"] == "taken":
            break
        await asyncio.sleep(0.05)
    assert answer["outcome"] == "taken"
    assert (await upstream.action("r-3", customer_id="C-8"))["outcome"] == "refused"
    assert (await upstream.action("r-1", customer_id="C-7")) == refused  # not decided again


@pytest.mark.parametrize(
    ("of", "data", "code", "field"),
    [
        ("nothing", None, "unknown_fact", "data.id_of"),
        ("p-1", {"order_id": "O"}, "invalid", "data.data.total"),
        ("c-0", None, "not_correctable", "data.id_of"),
    ],
)
async def test_a_correction_that_does_not_fit_is_rejected(
    upstream: Upstream, of: str, data: Any, code: str, field: str
) -> None:
    await upstream.record(purchase("p-1", "20.00"))
    await upstream.record(corrected("c-0", "p-1", None))
    await upstream.publish(corrected("c-1", of, data))
    answer = await upstream.receipt("c-1")
    assert (answer["error"]["code"], answer["error"]["field"]) == (code, field)


async def test_a_correction_may_come_with_its_fact_and_twice(upstream: Upstream) -> None:
    right = purchase("p-1", "12.00")["data"]
    for fact in (purchase("p-1", "20.00"), corrected("c-1", "p-1", right), corrected("c-1", "p-1", right)):
        await upstream.publish(fact)
    position = (await upstream.receipt("c-1"))["position"]
    await upstream.record(corrected("c-1", "p-1", right))
    events = await upstream.replay()
    assert [one["id"] for one in events] == ["p-1", "c-1"]
    assert (events[1]["corrects"], events[1]["position"]) == (1, position)
    wrong = corrected("c-2", "p-1", None, corrects=1)
    await upstream.publish(wrong)
    assert (await upstream.receipt("c-2"))["error"]["code"] == "reserved_attribute"
