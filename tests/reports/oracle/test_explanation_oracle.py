"""Every explanation, foundation and case file against the replayed events alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from app.runtime.seal import seal_to_the_end
from app.runtime.views import open_view
from ledger.transparency.sealer import seal_folder
from projections.reports.case_file import case_document, case_page, read_case
from projections.reports.decision_foundation import foundation_of
from projections.reports.explanation import explain
from projections.views.audit_trail import Trail
from tests.support.builders import event, gbp, reported_action
from tests.support.explanation_comparisons import (
    case_differences,
    explanation_differences,
    foundation_differences,
    naming,
)
from tests.support.redecisions import record_every_kind_of_decision

if TYPE_CHECKING:
    from tests.support.upstreams import Upstream


async def test_explanations_of_every_kind_of_decision(upstream: Upstream) -> None:
    await record_every_kind_of_decision(upstream)
    await upstream.record(reported_action("told late", "7.00", customer_id="C-9"))
    await upstream.wait_for_decider()
    events, log = await upstream.replay(), upstream.session.log
    async with open_view(upstream.session, Trail.name) as connection:
        for differences_of in (explanation_differences, foundation_differences, case_differences):
            assert await differences_of(log, connection, events) == []


async def test_a_case_file_shows_the_events_of_the_action_and_proves_those_of_its_decision(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    taken = await upstream.action("r-1", interaction_id="I-1", customer_id="C-1")
    await upstream.record(event("f-1", "refund.settled", action_id=taken["action_id"], total=gbp("5.00")))
    await seal_to_the_end(upstream.session)
    events = await upstream.replay()
    story = {*naming(events, "action_id", taken["action_id"]), *naming(events, "interaction_id", "I-1")}
    async with open_view(upstream.session, Trail.name) as connection:
        found: Any = await explain(upstream.session.log, connection, taken["action_id"])
        foundation = await foundation_of(upstream.session.log, connection, found["position"])
    assert foundation is not None
    page = case_page(case_document(found, foundation, seal_folder(upstream.session.data_dir)))
    proven = sorted({*foundation.positions, *story})
    assert len(proven) > len(story)
    table = page.partition("<h2>Events</h2>")[2].partition("</table>")[0]
    assert [f"<tr><td>{at}</td>" in table for at in proven] == [at in story for at in proven]
    assert [f"<summary>Position {at}</summary>" in page for at in proven] == [True] * len(proven)
    embedded = page[page.index('<script type="application/json"') :]
    told = read_case(embedded)
    assert (len(told.proofs), told.decision) == (len(proven), (foundation.first, foundation.last))
    assert json.loads(embedded.partition(">")[2].partition("</script>")[0])["events"][0]["position"] == proven[0]
