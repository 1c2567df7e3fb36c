"""Comparisons of explanations, foundations and case files with the events alone; budgets are computed a second time."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from app.runtime.redecide import RecordedEvents, redecide_case
from ledger.store.log import Recorded
from ledger.transparency.sealer import seal_folder
from ledger.transparency.signed_notes import NoteError
from projections.engine.projector import Projector
from projections.engine.sqlite_store import create_tables, memory_engine
from projections.reports.case_file import case_document, case_page, proofs_in, read_case
from projections.reports.decision_foundation import Foundation, foundation_of
from projections.reports.explanation import explain
from projections.reports.explanation_text import story_of
from projections.views.audit_trail import Trail
from tests.support.environment import ROOT
from tests.support.independent_books import Kept, money
from tests.support.report_oracle import differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ledger.store.log import Log
    from tests.support.documents import Document

BUDGET = ("granted", "spent", "reserved")


def name_of(told: Document) -> str:
    """Return the name of an event's type, without its prefix and version."""
    return str(told["type"]).removeprefix("resolution.").removesuffix(".v1")


def actions_in(events: list[Document]) -> Iterator[tuple[str, Document]]:
    """Yield the id and the event of each action; money that is held for an escalation is none."""
    for one in events:
        data = one["data"]
        held = name_of(one) == "action.held" and "escalation_id" not in data
        if name_of(one) == "action.taken" or held:
            yield data["action_id"], one


def naming(events: list[Document], field: str, value: object) -> list[int]:
    """Return the positions of the events with this value in a field."""
    return [one["position"] for one in events if one["data"].get(field) == value]


def balance_in(books: Kept, data: Document) -> Document:
    """Return the balance of a decision's budget in these books, as explanations show it."""
    book = data["holder"], data["period"], data["amount"]["currency"]
    sums = books.books[book]
    left = sums["granted"] - sums["spent"] - sums["reserved"]
    shown = {name: money(sums[name], book[2]) for name in BUDGET} | {"remaining": money(left, book[2])}
    return {"holder": book[0], "period": book[1]} | shown


def expected_of(events: list[Document], told: Document, before: Document, after: Document) -> Document:
    """Return what an explanation of an action has to tell, by the events."""
    data, position = told["data"], told["position"]
    reports = [
        one["position"]
        for one in events
        if name_of(one) == "action.reported" and (one["source"], one["id"]) == (data["source"], data["request_id"])
    ]
    trail = sorted([*naming(events, "action_id", data["action_id"]), *reports])
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


async def explanation_differences(log: Log, connection: sa.Connection, events: list[Document]) -> list[str]:
    """Return the places where the explanation of any action differs from the events."""
    books, about, lines = Kept(), dict(actions_in(events)), list[str]()
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
        lines += differences(_shown(found), expected_of(events, one, before, balance_in(books, one["data"])), action_id)
        fields = ("kind", "amount", "agent_id", "reason", "role")
        told, written = ({name: of.get(name) for name in fields} for of in (found["action"], one["data"]))
        words = {name: text for name, text in story_of(found) if name not in ("note", "training", "how")}
        lines += differences(told, written, "action") + differences(words, story_expected(one, found), "story")
        if "escalation_id" in one["data"]:
            again = await explain(log, connection, one["data"]["escalation_id"])
            lines += [] if again == found else [f"{one['data']['escalation_id']} does not stand for its action"]
    unknown = await explain(log, connection, "act-none")
    return lines if unknown is None else [*lines, "an unknown action is explained"]


def _shown(found: Document) -> Document:
    """Return an explanation with the positions of its lists, and without words."""
    lists = ("trail", "after", "interaction")
    shown = {name: value for name, value in found.items() if name not in ("action", "corrected")}
    shown |= {name: [line["position"] for line in found[name]] for name in lists if name in found}
    if "escalation" in shown:
        steps = ("position", "time", "decided_by", "on_behalf_of", "waited_seconds")
        shown["escalation"] = [{name: line[name] for name in steps} for line in found["escalation"]]
    return shown


async def foundation_differences(log: Log, connection: sa.Connection, events: list[Document]) -> list[str]:
    """Return the decisions whose foundation lacks an event, holds later ones, or does not suffice to decide again."""

    def cause(one: Document) -> tuple[object, ...]:
        return tuple(one["data"].get(name) for name in ("source", "request_id", "seen_position"))

    lines: list[str] = []
    facts = [one["position"] for one in events if "request_id" not in one["data"]]
    if await foundation_of(log, connection, facts[0]) is not None:
        lines.append("a fact has a foundation")
    for action_id, one in actions_in(events):
        found = await foundation_of(log, connection, one["position"])
        if found is None:
            lines.append(f"{action_id} has no foundation")
            continue
        group = [each["position"] for each in events if cause(each) == cause(one) and "request_id" in each["data"]]
        inside = [at for at in found.positions if at >= found.first]
        lines += differences([found.first, found.last, inside], [min(group), max(group), group], action_id)
        missing = needed([each for each in events if each["position"] < found.first], one["data"]) - {*found.positions}
        lines += [f"{action_id} lacks {at}" for at in sorted(missing)]
        known = [known for at in found.positions if (known := await log.at(at)) is not None]
        with TemporaryDirectory() as folder:
            again = await redecide_case(known, Path(folder), found.first, found.last)
        lines += differences([again.decisions, again.differences], [1, []], f"{action_id} again")
    return lines


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


async def case_differences(log: Log, connection: sa.Connection, events: list[Document]) -> list[str]:
    """Return the differences of the pages of case files, whose proofs are plain texts here, from the events."""
    lines: list[str] = []
    for action_id, one in actions_in(events):
        found: Any = await explain(log, connection, action_id)
        foundation = await foundation_of(log, connection, one["position"])
        lines += [] if foundation is None else page_differences(events, found, foundation)
    with TemporaryDirectory() as folder:
        try:
            case_document(found, foundation, seal_folder(Path(folder)))
            lines.append("a case file without a seal")
        except NoteError:
            pass
    return lines


def page_differences(events: list[Document], found: Any, foundation: Foundation) -> list[str]:
    """Return the differences of the page of a case file from its events."""
    named = [one["data"] for one in events if one["position"] == found["position"]]
    story = {*naming(events, "action_id", found["action_id"])}
    for field in ("interaction_id", "escalation_id"):
        if field in named[0]:
            steps = naming(events, field, named[0][field])
            story |= {*steps} if field == "interaction_id" else {line["position"] for line in found["escalation"]}
    proven = sorted({*foundation.positions, *story})
    document: Any = {
        "explained": found,
        "decision": (foundation.first, foundation.last),
        "events": [one for one in events if one["position"] in proven] + [None],
        "proofs": [f"proof {at}" for at in proven] + ["proof of a gap"],
        "checkpoint": "checkpoint",
        "verifier_keys": ["key"],
    }
    page = case_page(document)
    table = page.partition("<h2>Events</h2>")[2].partition("</table>")[0]
    lines = differences([f"<tr><td>{at}</td>" in table for at in proven], [at in story for at in proven], "table")
    details = [page.count("<summary>Position"), [f"Position {at}</summary>" in page for at in proven]]
    lines += differences(details, [len(proven), [True] * len(proven)], "proofs")
    embedded = page[page.index('<script type="application/json"') :]
    told = read_case(embedded)
    lines += differences(list(told.decision or ()), [foundation.first, foundation.last], "decision")
    lines += differences([told.proofs, proofs_in(page), proofs_in("a proof")], [document["proofs"]] * 2 + [["a proof"]])
    try:
        read_case("no page")
        lines.append("a text is read as a case file")
    except ValueError:
        pass
    return lines


class GoldenLog(RecordedEvents):
    """The events of every kind of decision, as a release of these rules recorded them; subjects may end with a star."""

    def __init__(self) -> None:
        text = (ROOT / "tests" / "golden" / "decisions_by_rules_2.jsonl").read_text(encoding="utf-8")
        super().__init__(
            [Recorded(at, subject, data.encode()) for at, subject, data in map(json.loads, text.splitlines())]
        )

    async def read_subject(self, subject: str, after: int = 0) -> list[Recorded]:
        """Return the events of a subject after a position, oldest first."""
        if not subject.endswith("*"):
            return await super().read_subject(subject, after)
        begin = subject.removesuffix("*")
        return [one for one in self.events if one.subject.startswith(begin) and one.position > after]

    def documents(self) -> list[Document]:
        """Return the events as `audit replay` prints them."""
        return [json.loads(one.data) | {"position": one.position} for one in self.events]

    def trail(self) -> sa.Engine:
        """Return the view of the audit trail over the events."""
        engine, model = memory_engine(), Trail()
        create_tables(engine, model)
        Projector(model, engine).take(self.events, {one.position: one for one in self.events})
        return engine
