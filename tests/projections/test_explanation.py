"""Explanations of a decision with its causes and consequences, and case files that prove them."""

import asyncio
import html
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from app.runtime.redecide import redecide_case
from app.runtime.seal import seal_to_the_end
from app.runtime.session import Session
from app.runtime.views import open_view, read_view
from domain.commands import action_id_of
from ledger.store.log import Recorded
from ledger.transparency.sealer import seal_folder
from projections.reports.case_file import case_document, case_page, proofs_in
from projections.reports.decision_foundation import Foundation, foundation_of
from projections.reports.explanation import Explanation, explain
from projections.views.audit_trail import Trail
from tests.support.builders import event, gbp, reported_action
from tests.support.environment import ROOT
from tests.support.forked_cli import CommandLine
from tests.support.redecisions import record_every_kind_of_decision
from tests.support.upstreams import Upstream, set_up_organisation


async def explained(session: Session, action_id: str) -> Explanation:
    await read_view(session, Trail.name, lambda _connection: None)
    engine = session.views.open_generation(Trail(), session.views.live_generation(Trail()) or 1)
    with engine.connect() as connection:
        found = await explain(session.log, connection, action_id)
    engine.dispose()
    assert found is not None
    return found


async def approved(upstream: Upstream) -> str:
    """Record an action that a manager approved; return its id."""
    await set_up_organisation(upstream)
    asked = await upstream.action(
        "r-1", "90.00", agent_id="D-1", escalate=True, customer_id="C-1", interaction_id="I-1"
    )
    assert asked["outcome"] == "escalate", asked
    requested = next(one for one in await upstream.replay() if one["type"] == "resolution.escalation.requested.v1")
    answer = await upstream.ask(
        "escalation",
        request_id="e-1",
        operation="approve",
        escalation_id=asked["escalation_id"],
        decided_by=requested["data"]["to"][0],
    )
    assert answer["outcome"] == "done", answer
    action_id: str = requested["data"]["action_id"]
    return action_id


async def test_an_approved_action_names_its_approver_and_the_time_that_approval_took(upstream: Upstream) -> None:
    action_id = await approved(upstream)
    await upstream.ask(
        "reversal",
        request_id="v-1",
        action_id=action_id,
        reversed_by="M-1",
        reason="sent back",
        recovered=True,
        amount=gbp("10.00"),
    )
    await upstream.record(event("s-1", "refund.settled", action_id=action_id, total=gbp("30.00")))
    found = await explained(upstream.session, action_id)
    assert len(found["escalation"]) >= 2
    assert found["escalation"][-1]["decided_by"]
    assert (found["escalation"][-1]["waited_seconds"] or 0) >= 0
    assert found["seen_position"] < found["position"]
    assert len(found["after"]) >= 2
    assert found["budget_after"]["spent"] != found["budget_before"]["spent"]


async def test_a_held_action_is_explained(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    held = await upstream.action("r-1", hold=True)
    found = await explained(upstream.session, held["action_id"])
    assert (found["budget_before"]["reserved"], found["budget_after"]["reserved"]) == (gbp("0.00"), gbp("5.00"))


async def test_an_action_that_was_only_reported_is_explained_by_its_report(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    await upstream.record(reported_action("a-1", "4.00", interaction_id="I-1"))
    found = await explained(upstream.session, action_id_of("crm", "a-1"))
    stored = await upstream.session.log.at(found["position"])
    assert stored is not None
    assert json.loads(stored.data)["id"] == "a-1"
    assert found["action"]["amount"] == gbp("4.00")
    assert "no limit was checked" in found["reported"]
    assert "budget_before" not in found


async def test_an_explanation_of_a_corrected_fact_shows_both_versions(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    opened = event("o-1", "interaction.opened", interaction_id="I-1", channel="phone")
    await upstream.record(opened)
    taken = await upstream.action("r-1", interaction_id="I-1")
    await upstream.record(
        event(
            "c-1",
            "fact.corrected",
            source_of="crm",
            id_of="o-1",
            reason="typed wrongly",
            data=opened["data"] | {"channel": "chat"},
        )
    )
    (corrected,) = (await explained(upstream.session, taken["action_id"]))["corrected"]
    assert ("phone" in corrected["known_then"], "chat" in corrected["known_now"]) == (True, True)


async def test_a_case_file_is_harmless_whole_and_proves_each_event(upstream: Upstream, tmp_path: Path) -> None:
    await upstream.set_up_basics()
    nasty = "</script><script>alert(1)</script>"
    taken = await upstream.action("r-1", interaction_id="I-1", reason=nasty)
    session = upstream.session
    await seal_to_the_end(session)
    page = case_page(case_document(await explained(session, taken["action_id"]), None, seal_folder(session.data_dir)))
    assert page.count("</script>") == 1
    assert html.escape(nasty) in page
    proofs = proofs_in(page)
    key = json.loads(page.partition('id="case">')[2].partition("</script>")[0])["verifier_keys"][0]
    assert len(proofs) == 1
    for text in proofs:
        file = tmp_path / "p"
        file.write_text(text)
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(ROOT / "docs" / "operate" / "independent_verifier.py"), str(file), key],
            check=False,
        )
        assert done.returncode == 0


async def founded(session: Session, position: int) -> Foundation:
    async with open_view(session, Trail.name) as connection:
        found = await foundation_of(session.log, connection, position)
    assert found is not None
    return found


async def test_the_events_of_a_case_file_suffice_to_make_its_decision_again(upstream: Upstream, tmp_path: Path) -> None:
    await record_every_kind_of_decision(upstream)
    log = upstream.session.log
    actions = [one for one in await log.read_subject(">") if b'"type":"resolution.action.taken.v1"' in one.data]
    assert len(actions) > 8
    for number, action in enumerate(actions):
        position = action.position
        found = await founded(upstream.session, position)
        events = [one for at in found.positions if (one := await log.at(at)) is not None]
        for name, known, differs in (
            ("whole", events, False),
            ("without policies", events_but(events, "policy"), True),
        ):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            again = await redecide_case(known, folder, found.first, found.last)
            assert (again.decisions, bool(again.differences)) == (1, differs), (position, again.differences)


def events_but(events: Sequence[Recorded], subject: str) -> list[Recorded]:
    return [one for one in events if one.subject != f"ledger.{subject}"]


def test_commands_explain_case_and_balance(command: CommandLine, tmp_path: Path) -> None:
    document = json.loads(command("demo", "--no-serve", "--days", "2", "--json").stdout)
    assert document
    actions = json.loads(command("report", "actions", "--json").stdout)["items"]
    action_id = next(one["action_id"] for one in actions if one["state"] == "taken")
    told = command("audit", "explain", action_id)
    assert (told.returncode, "totals seen" in told.stdout, "budget before" in told.stdout) == (0, True, True)
    file = tmp_path / "case.html"
    done = command("audit", "case", action_id, str(file))
    assert done.returncode == 0, done.stderr
    key = done.stdout.split("--key ")[1].strip()
    assert command("audit", "verify-proof", str(file), "--key", key, data_dir=None).returncode == 0
    holder = next(one["holder"] for one in actions if one["action_id"] == action_id)
    period = next(one["period"] for one in actions if one["action_id"] == action_id)
    making = json.loads(command("audit", "balance", holder, period, "--json").stdout)["items"]
    balance = json.loads(command("report", "balances", "--holder", holder, "--period", period, "--json").stdout)
    assert making[-1]["remaining"] == balance["items"][0]["remaining"]
    assert command("audit", "case", "act-none", str(file)).returncode == 1
    made = json.loads(command("audit", "redecide", "--case", str(file), "--json", data_dir=None).stdout)
    assert (made["decisions"], made["differences"]) == (1, [])
    assert json.loads(command("audit", "redecide", action_id, "--json").stdout) == made
    whole = json.loads(command("audit", "redecide", "--json").stdout)
    parts = [("--to", str(made["to"])), ("--from", str(made["to"] + 1))]
    counted = [json.loads(command("audit", "redecide", *part, "--json").stdout)["decisions"] for part in parts]
    assert (sum(counted), min(counted) > 0, whole["differences"]) == (whole["decisions"], True, [])
    assert command("audit", "redecide", action_id, "--from", "2").returncode == 2
