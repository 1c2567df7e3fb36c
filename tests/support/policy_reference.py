"""The tables of decision rules in docs/understand/policy.md, made from the scenarios in tests/domain/decisions/.

Run it as a module to write them into that page (`make docs`).
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from domain import commands
from domain.decisions.escalations import OverdueEscalation
from domain.decisions.fact_postings import PostingCommand
from domain.decisions.holds import OverdueHold
from domain.decisions.policies import OverdueProposal
from domain.events import decisions, facts, flags
from domain.events.decisions import PolicyPublished
from domain.policy.linting import difference
from tests.support.decision_company import STAFF, policy
from tests.support.decision_scenarios import TRANSCRIPT, Shown
from tests.support.document_pages import pretty
from tests.support.environment import ROOT

if TYPE_CHECKING:
    from types import ModuleType

    from domain.events.decisions import Reason
    from domain.money import Money
    from tests.support.decision_events import Described
    from tests.support.documents import Document

type Scenario = Callable[[], None]

PAGE = ROOT / "docs" / "understand" / "policy.md"
_FOLDER = ROOT / "tests" / "domain" / "decisions"
_FAMILIES = {
    "actions": "Actions",
    "customers": "Interactions, customers and relations",
    "owed": "Owed amounts",
    "pools": "Pools",
    "previews": "Previews",
    "holds": "Holds",
    "reversals": "Reversals",
    "escalations": "Escalations",
    "escalation_decisions": "Decisions on escalations",
    "ai_agents": "AI agents",
    "budgets": "Grants and transfers",
    "periods": "Periods",
    "policies": "Versions of the policy",
    "facts": "Reported actions and corrected facts",
    "reports_of_requests": "Reports of requested actions",
    "flags": "Flags",
    "governance": "Governance",
}
"""Module of scenarios -> the heading of its rules."""


_HEAD, _RULER = "| rule | given | when | outcome | recorded | why |", "|---|---|---|---|---|---|"


class Line(NamedTuple):
    """A row of a table: the rule, and its scenario with the decided outcome."""

    family: str
    rule: str
    shown: Shown


@cache
def rule_lines() -> tuple[Line, ...]:
    """Return every rule with its scenario, decided now."""
    return tuple(
        Line(family, scenario.__dict__["shown_rule"], transcript_of(scenario)[-1])
        for name, family in _FAMILIES.items()
        for scenario in scenarios_in(name)
        if "shown_rule" in scenario.__dict__
    )


def all_scenarios() -> list[Scenario]:
    """Return every scenario that takes no parameters."""
    return [scenario for name in _FAMILIES for scenario in scenarios_in(name)]


def scenarios_in(name: str) -> list[Scenario]:
    """Return the scenarios of a module that take no parameters, in order."""
    found = vars(_module(name)).items()
    return [one for key, one in found if key.startswith("test_") and not inspect.signature(one).parameters]


def transcript_of(scenario: Scenario) -> list[Shown]:
    """Run a scenario; return each command with what came before and after."""
    transcript: list[Shown] = []
    token = TRANSCRIPT.set(transcript)
    try:
        scenario()
    finally:
        TRANSCRIPT.reset(token)
    return transcript


def rule_tables() -> str:
    """Return the rules as Markdown: the policy of the examples, then one table a family."""
    lines = ["```json", pretty(policy()), "```", ""]
    for family in _FAMILIES.values():
        rows = [_row(line) for line in rule_lines() if line.family == family]
        lines += [f"### {family}", "", _HEAD, _RULER, *rows, ""]
    return "\n".join(lines[:-1]) + "\n"


def main() -> None:
    """Write the tables into the page on policies, between its two marks."""
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition("<!-- rules -->\n")
    _, end, after = rest.partition("<!-- end of rules -->\n")
    PAGE.write_text(f"{before}{begin}\n{rule_tables()}\n{end}{after}", encoding="utf-8", newline="\n")


def _module(name: str) -> ModuleType:
    path = _FOLDER / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(f"scenarios_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------- words


def _row(line: Line) -> str:
    shown = line.shown
    before = ", then ".join(filter(None, map(_words_of_event, shown.given)))
    when = _COMMANDS[type(shown.command)](shown.command)
    if shown.source != "crm" and isinstance(shown.command, commands.Preview):
        when = f"the source `{shown.source}`: {when}"
    outcome = f"`{shown.outcome}`" if shown.outcome else ""
    left_out = (
        () if "budget.closed" in shown.records else ("budget.opened",)
    )  # any first decision of a period opens one
    recorded = ", ".join(f"`{name}`" for name in shown.records if name not in left_out)
    if shown.error is not None:
        why = f"`{shown.error.code}`: {shown.error.message}"
    else:
        why = "; ".join(map(_words_of_reason, shown.reasons))
    return f"| {line.rule} | {before} | {when} | {outcome} | {recorded} | {why} |"


def _words_of_reason(reason: Reason) -> str:
    numbers = [(name, getattr(reason, name)) for name in ("limit", "used", "asked")]
    amounts = ", ".join(f"{name} {amount.text}" for name, amount in numbers if amount is not None)
    return f"`{reason.rule}`: {reason.message}" + (f" ({amounts})" if amounts else "")


def _words_of_event(event: Described) -> str:
    """Return an event in words; empty for the company that all examples share."""
    if event in STAFF:
        return ""
    words = _EVENTS[event.cls](event.fields)
    return f"{words} ({event.at:%-d %B})" if event.at is not None and event.cls is not PolicyPublished else words


def _words_of_policy(fields: Document) -> str:
    changes = _changes(fields["policy"])
    which = "the policy" if fields["version"] == 1 else f"version {fields['version']}"
    return f"{which} has {changes}" if changes else ""


def _changes(document: Document) -> str:
    """Return the fields of a policy that differ from those of the examples."""
    found = [one for one in difference(policy(), document) if not one[0].startswith("governance.")]
    words = [f"`{path}: {value}`" if value is not None else f"no `{path}`" for path, _, value in found]
    return ", ".join(["a section `governance`", *words] if "governance" in document else words)


def _words_of_opening(fields: Document) -> str:
    period = f" for {fields['period']}" if "period" in fields else ""
    return f"{fields['holder']} got {fields['granted'].text}{period}"


def _words_of_employee(fields: Document) -> str:
    teams = " and ".join(fields["team_ids"])
    return f"{fields['employee_id']} is {fields['role']}" + (f" in {teams}" if teams else "")


def _gift(verb: str) -> Callable[[Document], str]:
    """Return the words of an action: the agent, the verb, and what it was."""

    def words(fields: Document) -> str:
        holder = fields.get("holder", "")
        who = holder if fields.get("escalation_id") and verb == "reserved" else fields["agent_id"]
        return f"{who} {verb} {_what(fields)}"

    return words


def _what(fields: Document) -> str:
    basis = fields.get("basis", "goodwill")
    kind = fields.get("kind", "refund")
    words = f"a {kind} of {fields['amount'].text}"
    if basis != "goodwill":
        words += f" ({basis})"
    words += f" for {fields['order_id']}" if fields.get("order_id") and basis != "goodwill" else ""
    words += f" to {fields['customer_id']}" if fields.get("customer_id") else ""
    return words + (f" on {fields['interaction_id']}" if fields.get("interaction_id") else "")


def _fact(text: str) -> Callable[[Document], str]:
    """Return a function that fills a text with the fields of an event, amounts as text."""
    return lambda fields: text.format_map({name: _plain(value) for name, value in fields.items()})


def _plain(value: object) -> str:
    return value.text if hasattr(value, "text") else str(value)


_EVENTS: dict[type, Callable[[Document], str]] = {
    PolicyPublished: _words_of_policy,
    facts.EmployeeJoined: _words_of_employee,
    facts.EmployeeChanged: _words_of_employee,
    facts.EmployeeLeft: _fact("{employee_id} has left"),
    facts.TrainingCompleted: _fact("{employee_id} completed {course_id}"),
    facts.RelationshipDeclared: _fact("{employee_id} declared a relation to {customer_id}"),
    facts.DelegationDeclared: _fact("{from_employee_id} delegated to {to_employee_id}"),
    facts.PurchaseCompleted: _fact("{total} was paid for {order_id}"),
    facts.PurchaseReturned: _fact("{total} of {order_id} was returned"),
    facts.CustomerLinked: _fact("{a} and {b} are linked ({relation})"),
    facts.CustomerUnlinked: _fact("{a} and {b} are not linked any more"),
    facts.ActionReported: _gift("reported"),
    facts.RefundSettled: _fact("{total} of the refund was paid"),
    facts.FactCorrected: _fact("the source corrected its last fact"),
    decisions.BudgetOpened: _words_of_opening,
    decisions.BudgetGranted: _fact("{holder} was granted {amount}"),
    decisions.BudgetDrawn: _fact("{holder}: {amount} drawn {direction}"),
    decisions.ActionTaken: _gift("gave"),
    decisions.ActionHeld: _gift("reserved"),
    decisions.ActionSettled: _fact("{amount} of the hold was settled"),
    decisions.ActionVoided: _fact("the hold was voided"),
    decisions.ActionReversed: _fact("{amount} was reversed"),
    decisions.AuthorityFellShort: _fact("a request for {amount} fell short"),
    decisions.EscalationRequested: _gift("asked for"),
    decisions.EscalationDenied: _fact("it was denied"),
    decisions.PolicyProposed: _fact("{proposed_by} proposed a policy"),
    decisions.PolicyApproved: _fact("{approved_by} approved it"),
    decisions.PolicyObjected: _fact("{objected_by} objected to it"),
    decisions.GrantorCharged: _fact("{holder} had granted {amount} to {granted_to}"),
    flags.FlagRaised: _fact("the guard raised a flag"),
}
"""Class of an event -> its words, from the fields that a scenario names."""


def _words_of_request(command: commands.Preview) -> str:
    fields = {
        name: getattr(command, name)
        for name in ("kind", "basis", "customer_id", "interaction_id", "order_id", "amount")
    }
    verb = "asks for" if isinstance(command, commands.EscalationAsk) else "requests"
    if type(command) is commands.Preview:
        verb = "previews"
    what = _what(fields) if command.amount is not None else f"a {command.kind} without an amount"
    options = "".join(f", `{name}: true`" for name in ("hold", "escalate") if getattr(command, name))
    return f"{command.agent_id} {verb} {what}{options}"


def _of(amount: Money | None) -> str:
    return f" {amount.text}" if amount is not None else ""


def _words_of_step(command: commands.EscalationDecision) -> str:
    to = f" to {command.to}" if command.to else ""
    return f"{command.decided_by}: {command.operation}{_of(command.amount)}{to}"


def _words_of_reversal(command: commands.ReversalRequest) -> str:
    return f"reverse{_of(command.amount)}, {'' if command.recovered else 'not '}recovered"


def _words_of_publication(command: commands.PolicyRequest) -> str:
    changes = _changes(command.policy)
    return f"publish the policy with {changes}" if changes else "publish the policy"


def _words_of_review(command: commands.FlagRequest) -> str:
    if command.verdict is not None:
        return f"{command.reviewed_by} reviews it: {command.verdict}"
    return f"{command.employee_id or command.unmasked_by} answers it"


_COMMANDS: dict[type, Callable[[Any], str]] = {
    commands.Preview: _words_of_request,
    commands.ActionRequest: _words_of_request,
    commands.EscalationAsk: _words_of_request,
    commands.EscalationDecision: _words_of_step,
    commands.HoldRequest: lambda command: f"{command.operation}{_of(command.amount)}",
    commands.ReversalRequest: _words_of_reversal,
    commands.GrantRequest: lambda one: f"{one.granted_by} grants {one.amount.text} to {one.holder}",
    commands.TransferRequest: lambda one: f"transfer {one.amount.text} from {one.holder} to {one.to_holder}",
    commands.PolicyRequest: _words_of_publication,
    commands.PolicyProposal: lambda one: f"{one.proposed_by} proposes a policy",
    commands.PolicyApproval: lambda one: f"{one.approved_by} approves the proposal",
    commands.PolicyObjection: lambda one: f"{one.objected_by} objects to the proposal",
    OverdueProposal: lambda _: "its time has passed",
    commands.FlagRequest: _words_of_review,
    OverdueEscalation: lambda _: "its time has passed",
    OverdueHold: lambda _: "its time has passed",
    PostingCommand: lambda _: "the fact is posted",
}
"""Class of a command -> its words."""


if __name__ == "__main__":
    main()
