"""Every explanation against the replayed events alone, and budgets against a second computation of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from app.runtime.seal import seal_to_the_end
from app.runtime.views import open_view
from projections.reports.case_file import case_document, case_page, proofs_in, read_case
from projections.reports.decision_foundation import foundation_of
from projections.reports.explanation import explain
from projections.reports.explanation_text import story_of
from projections.views.audit_trail import Trail
from tests.support.builders import event, gbp, reported_action
from tests.support.independent_books import Kept, money
from tests.support.redecisions import record_every_kind_of_decision
from tests.support.report_oracle import differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.documents import Document
    from tests.support.upstreams import Upstream

BUDGET = ("granted", "spent", "reserved")


def name_of(told: Document) -> str:
    return str(told["type"]).removeprefix("resolution.").removesuffix(".v1")


def actions_in(events: list[Document]) -> Iterator[tuple[str, Document]]:
    """Yield the id and the event of each action; money that is held for an escalation is none."""
    for one in events:
        data = one["data"]
        held = name_of(one) == "action.held" and "escalation_id" not in data
        if name_of(one) == "action.taken" or held:
            yield data["action_id"], one


def naming(events: list[Document], field: str, value: object) -> list[int]:
    return [one["position"] for one in events if one["data"].get(field) == value]


def balance_in(books: Kept, data: Document) -> Document:
    book = data["holder"], data["period"], data["amount"]["currency"]
    sums = books.books[book]
    left = sums["granted"] - sums["spent"] - sums["reserved"]
    shown = {name: money(sums[name], book[2]) for name in BUDGET} | {"remaining": money(left, book[2])}
    return {"holder": book[0], "period": book[1]} | shown


def expected_of(events: list[Document], told: Document, before: Document, after: Document) -> Document:
    """Return what an explanation of an action has to tell, by the events."""
    data, position = told["data"], told["position"]
    trail = naming(events, "action_id", data["action_id"])
    published = [one["data"] for one in events if name_of(one) == "policy.published"]
    rules = {one["version"]: one["policy"]["roles"] for one in published}
    steps = [
        {"position": one["position"], "time": one["time"]}
        | {name: one["data"].get(name) for name in ("decided_by", "on_behalf_of", "waited_seconds")}
        for one in events
        if name_of(one).startswith("escalation.") and one["data"].get("escalation_id") == data.get("escalation_id")
    ]
    found: Document = {
        "action_id": data["action_id"],
        "position": position,
        "time": told["time"],
        "recorded": told["recordedtime"],
        "trail": trail,
        "after": [at for at in trail if at > position],
        "source": data["source"],
        "request_id": data["request_id"],
        "seen_position": data["seen_position"],
        "policy": {
            "version": data["policy_version"],
            "role": data["role"],
            "rules": rules[data["policy_version"]][data["role"]],
        },
        "budget_before": before,
        "budget_after": after,
    }
    found |= (
        {"interaction": naming(events, "interaction_id", data["interaction_id"])} if "interaction_id" in data else {}
    )
    return found | ({"escalation": steps} if "escalation_id" in data else {})


def story_expected(told: Document, found: Document) -> Document:
    """Return the lines of an explanation in words that need no other knowledge."""
    data = told["data"]

    def text(amount: Document) -> str:
        return f"{amount['amount']} {amount['currency']}"

    lines = {
        "what": f"{data['kind']} of {text(data['amount'])} ({data.get('basis', 'goodwill')})",
        "why": data["reason"],
        "who": f"{data['agent_id']}, {data['role']}",
        "when": f"{told['time']}, recorded {told['recordedtime']} at position {told['position']}",
        "asked by": f"{data['source']}, request {data['request_id']}",
        "policy": f"version {data['policy_version']}",
        "totals seen": f"as the log was at position {data['seen_position']}",
        "authority": f"approved by {data['decided_by']}" if "decided_by" in data else "the agent's own",
    }
    for name in ("before", "after"):
        budget = found[f"budget_{name}"]
        lines[f"budget {name}"] = f"{text(budget['remaining'])} left of {text(budget['granted'])}"
    lines |= {"whom": data["customer_id"]} if "customer_id" in data else {}
    waits = [one["waited_seconds"] for one in found.get("escalation", ()) if one["waited_seconds"] is not None]
    lines |= {"waited": f"{max(waits) / 60:.1f} minutes"} if waits else {}
    owed = next((one for one in data.get("limits", ()) if one["name"] == "owed"), None)
    if "owed" in data:
        rest = "" if data["owed"] == data["amount"] else "; the rest counts as goodwill"
        by_policy = any(one["name"] == "basis_limit" for one in data.get("limits", ())) and owed is None
        proof = "needs no proof by basis_limits" if by_policy else "is shown as owed"
        lines["owed"] = f"{data['owed']['amount']} of {data['amount']['amount']} {proof}{rest}"
        if owed is not None and "limit" in owed:
            paid = f"{text(owed['limit'])} paid for the order, {text(owed['used'])} given back before"
            lines["owed"] += f" ({paid})"
    for one in data.get("limits", ()):
        if one["name"] != "owed":
            most = text(one["limit"]) if "limit" in one else "unlimited"
            lines[f"limit {one['name']}"] = f"{most}, used before {text(one['used'])}"
    return lines


async def test_every_explanation_tells_the_events(upstream: Upstream) -> None:
    await record_every_kind_of_decision(upstream)
    await upstream.record(reported_action("told late", "7.00", customer_id="C-9"))
    await upstream.wait_for_decider()
    events = await upstream.replay()
    log, books, about = upstream.session.log, Kept(), dict(actions_in(events))
    seen = set[str]()
    async with open_view(upstream.session, Trail.name) as connection:
        for one in events:
            recorded = await log.at(one["position"])
            assert recorded is not None
            action_id = one["data"].get("action_id")
            mine = action_id is not None and about.get(action_id) is one
            before = balance_in(books, one["data"]) if mine else {}
            books.take(one["position"], recorded.subject, name_of(one), one["data"])
            if not mine:
                continue
            found: Any = await explain(log, connection, action_id)
            expected = expected_of(events, one, before, balance_in(books, one["data"]))
            lists = {
                name: [line["position"] for line in found[name]]
                for name in ("trail", "after", "interaction")
                if name in found
            }
            shown = {
                name: value for name, value in found.items() if name not in ("action", "corrected", *lists)
            } | lists
            if "escalation" in shown:
                shown["escalation"] = [
                    {key: line[key] for key in line if key != "what"} for line in shown["escalation"]
                ]
            assert differences(shown, expected) == []
            assert {name: found["action"].get(name) for name in ("kind", "amount", "agent_id")} == {
                name: one["data"][name] for name in ("kind", "amount", "agent_id")
            }
            lines = dict(story_of(found))
            hidden = ("note", "training", "how")
            assert {name: text for name, text in lines.items() if name not in hidden} == story_expected(one, found)
            if "escalation_id" in one["data"]:
                assert await explain(log, connection, one["data"]["escalation_id"]) == found
            seen |= {name_of(one), *(name for name in ("escalation", "interaction") if name in found), *lines}
        assert {"action.taken", "action.held", "escalation", "interaction", "owed", "waited"} <= seen
        assert await explain(log, connection, "act-none") is None


async def test_a_foundation_has_the_whole_decision_and_nothing_that_came_later(upstream: Upstream) -> None:
    await record_every_kind_of_decision(upstream)
    events = await upstream.replay()

    def cause(one: Document) -> tuple[object, ...]:
        return tuple(one["data"].get(name) for name in ("source", "request_id", "seen_position"))

    decided = [one for _, one in actions_in(events)]
    async with open_view(upstream.session, Trail.name) as connection:
        fact = next(one["position"] for one in events if "request_id" not in one["data"])
        assert await foundation_of(upstream.session.log, connection, fact) is None
        for one in decided:
            found = await foundation_of(upstream.session.log, connection, one["position"])
            assert found is not None
            group = [each["position"] for each in events if cause(each) == cause(one) and "request_id" in each["data"]]
            inside = [at for at in found.positions if at >= found.first]
            assert (found.first, found.last, inside) == (min(group), max(group), group)
            before = [each for each in events if each["position"] < found.first]
            assert needed(before, one["data"]) <= {*found.positions}


def needed(before: list[Document], data: Document) -> set[int]:
    """Return positions that a decision surely rests on: policies, its agent, its budget, its customer and its order."""
    rules: list[Callable[[str, Document], bool]] = [
        lambda name, _: name == "policy.published",
        lambda name, of: name.startswith(("employee.", "training.")) and of.get("employee_id") == data["agent_id"],
        lambda _, of: (of.get("holder"), of.get("period")) == (data["holder"], data["period"]),
        lambda name, of: name.startswith("action.") and of.get("customer_id", "") == data.get("customer_id"),
        lambda name, of: name.startswith("action.") and of.get("interaction_id", "") == data.get("interaction_id"),
        lambda name, of: name.startswith("escalation.") and of.get("escalation_id", "") == data.get("escalation_id"),
    ]
    if data.get("basis", "goodwill") != "goodwill":
        rules.append(
            lambda name, of: (
                name.startswith(("purchase.", "action.", "refund.")) and of.get("order_id") == data.get("order_id")
            )
        )
    return {one["position"] for one in before if any(rule(name_of(one), one["data"]) for rule in rules)}


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
    page = case_page(case_document(found, foundation, upstream.session.data_dir))
    proven = sorted({*foundation.positions, *story})
    assert len(proven) > len(story)
    table = page.partition("<h2>Events</h2>")[2].partition("</table>")[0]
    assert [f"<tr><td>{at}</td>" in table for at in proven] == [at in story for at in proven]
    assert [f"<summary>Position {at}</summary>" in page for at in proven] == [True] * len(proven)
    embedded = page[page.index('<script type="application/json"') :]
    told = read_case(embedded)
    assert (len(told.proofs), told.decision) == (len(proven), (foundation.first, foundation.last))
    assert (proofs_in(page), proofs_in("a proof")) == (told.proofs, ["a proof"])
    assert json.loads(embedded.partition(">")[2].partition("</script>")[0])["events"][0]["position"] == proven[0]
