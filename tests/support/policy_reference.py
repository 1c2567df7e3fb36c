"""The table of decision rules in docs/understand/policy.md, with examples that the domain decides.

`python -m tests.support.policy_reference` (or `make docs`) writes it anew.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext, opening
from domain.commands import ActionRequest, EscalationDecision
from domain.decisions import approvals, authority
from domain.decisions.approvals import Approver, Open
from domain.decisions.authority import Agent, DecisionContext, Gift, SoftState
from domain.events.decisions import EscalationRequested, Reason
from domain.money import Money
from domain.policy.model import Rules
from domain.policy.parsing import parse_policy
from tests.support.environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.serialization import JsonObject

POLICY: JsonObject = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2026-01-01T00:00:00Z",
    "roles": {
        "agent": {
            "budget": "200.00",
            "limits": {"refund": "50.00", "keep_item": "20.00", "fix": "unlimited"},
            "per_interaction": "60.00",
            "per_customer": {"amount": "100.00", "days": 90, "hard_above": "80.00"},
            "requires": {"keep_item": ["goodwill-basics"]},
        },
        "manager": {
            "budget": "2000.00",
            "limits": {"refund": "500.00", "credit": "250.00"},
            "approves": {"refund": "500.00"},
        },
    },
    "teams": {"doorstep": {"pool": "40.00", "draw_at_most": "30.00"}},
    "sources": {"crm": ["agent", "manager"]},
}
"""The policy of the examples."""

NOW = datetime(2026, 3, 10, 9, tzinfo=UTC)
_RULES = Rules(1, parse_policy(POLICY))
_CAUSE = RequestContext(source="crm", request_id="r", seen_position=0)
_AGENT = Agent(agent_id="A-7", role="agent", team_ids=("phone",))
_DRIVER = Agent(agent_id="D-1", role="agent", team_ids=("doorstep",))
_MANAGER = Agent(agent_id="M-1", role="manager")


class Line(NamedTuple):
    """A row of the table: the rule, its code, and an example with the domain's answer."""

    code: str
    rule: str
    example: str
    outcome: str
    reason: Reason | None


def _budget(holder: str, spent_minor: int = 0) -> Budget:
    role = "agent" if holder.startswith("agent:") else None
    record, _ = opening(_RULES, holder, "2026-03", None, _CAUSE, role, "GBP")
    budget = Budget.open(record, NOW)
    budget.spent_minor = spent_minor
    return budget


def _ask(
    amount: str,
    agent: Agent = _AGENT,
    *,
    spent_minor: int = 0,
    seen: SoftState = authority.NOTHING_SEEN,
    pool: Budget | None = None,
    source: str = "crm",
    **fields: Any,
) -> tuple[str, tuple[Reason, ...]]:
    given: dict[str, Any] = {"kind": "refund", "reason": "late"} | fields
    request = ActionRequest(request_id="r", agent_id=agent.agent_id, amount=Money.parse(amount, "GBP"), **given)
    asking = DecisionContext(
        request=request,
        agent=agent,
        rules=_RULES,
        source=source,
        now=NOW,
        pool=pool,
        seen=seen,
        budget=_budget(f"agent:{agent.agent_id}", spent_minor),
    )
    verdict = authority.judge(asking, request.amount)
    return verdict.outcome, verdict.reasons


def _gifts(*minor: int) -> tuple[Gift, ...]:
    return tuple(Gift("A-8", NOW.timestamp() - 86_400, one, "GBP") for one in minor)


def _decide(
    operation: str, person: Agent, amount: str, *, agent_id: str = "A-7", stands_in_for: Agent | None = None
) -> tuple[str, tuple[Reason, ...]]:
    asked = EscalationRequested(
        escalation_id="esc-1",
        action_id="act-1",
        agent_id=agent_id,
        role="agent",
        kind="refund",
        basis="goodwill",
        amount=Money.parse(amount, "GBP"),
        reason="broken",
        reasons=(),
        payer="approver",
        to=("M-1",),
        due=NOW,
        policy_version=1,
        budget=f"agent:{agent_id}",
        period="2026-03",
        currency="GBP",
        customer_id="C-9",
        **_CAUSE.fields(),
    )
    request = EscalationDecision(
        request_id="d",
        operation=operation,  # type: ignore[arg-type]
        escalation_id="esc-1",
        decided_by=person.agent_id,
    )
    approver = Approver(person, stands_in_for or person)
    waiting = Open(asked, NOW - timedelta(minutes=9), ("M-1",), NOW)
    reasons = approvals.refusals(
        request.operation, waiting, approver, asked.amount, _RULES.policy, "crm", frozenset({"C-9"})
    )
    return ("refused" if reasons else "done"), reasons


def _payer(amount: str) -> tuple[str, tuple[Reason, ...]]:
    short = approvals.payer_short(_budget("team:doorstep"), Money.parse(amount, "GBP"), "act-1")
    return ("refused" if short else "done"), (short,) if short else ()


_EXAMPLES: tuple[tuple[str, str, str, Callable[[], tuple[str, tuple[Reason, ...]]]], ...] = (
    ("", "within every limit", "A-7 gives a refund of 50.00", lambda: _ask("50.00")),
    ("", "`unlimited` is a limit; the budget still holds", "a fix of 200.00", lambda: _ask("200.00", kind="fix")),
    (
        "",
        "limits do not apply to entitlement and correction",
        "a correction of 900.00",
        lambda: _ask("900.00", basis="correction"),
    ),
    (
        "per_action",
        "one action is at most the limit of the role, the team or the trial",
        "a refund of 50.01",
        lambda: _ask("50.01"),
    ),
    (
        "per_interaction",
        "goodwill of all agents on one interaction has a cap",
        "A-8 gave 40.00 on it, A-7 requests 20.01",
        lambda: _ask("20.01", interaction_id="I-1", seen=SoftState(interaction=_gifts(4000))),
    ),
    (
        "per_customer",
        "goodwill for one customer group in some days has a cap",
        "the group got 90.00, A-7 requests 10.01",
        lambda: _ask("10.01", customer_id="C-9", seen=SoftState(group=frozenset({"C-9"}), customer=_gifts(5000, 4000))),
    ),
    (
        "budget",
        "one action is at most the remaining budget of the agent",
        "150.01 of 200.00 is spent, A-7 requests 50.00",
        lambda: _ask("50.00", spent_minor=15_001),
    ),
    (
        "",
        "an empty budget draws on the team's pool, a step at a time",
        "the budget is spent, D-1 requests 30.00",
        lambda: _ask("30.00", _DRIVER, spent_minor=20_000, pool=_budget("team:doorstep")),
    ),
    (
        "pool",
        "a draw is at most `draw_at_most` and the rest of the pool",
        "the budget is spent, D-1 requests 30.01",
        lambda: _ask("30.01", _DRIVER, spent_minor=20_000, pool=_budget("team:doorstep")),
    ),
    (
        "training",
        "a kind may require a course, which may expire",
        "A-7 lets a customer keep an item of 5.00",
        lambda: _ask("5.00", kind="keep_item"),
    ),
    (
        "kind",
        "a kind that the role lacks is escalated if another role has it",
        "A-7 gives a credit of 5.00",
        lambda: _ask("5.00", kind="credit"),
    ),
    ("kind", "a kind that no role has is refused", "A-7 gives a gift of 5.00", lambda: _ask("5.00", kind="gift")),
    (
        "self_dealing",
        "agents may not act for themselves, their household or a declared relation",
        "A-7 gives a refund to A-7's household",
        lambda: _ask("5.00", customer_id="C-9", seen=SoftState(group=frozenset({"C-9", "A-7"}))),
    ),
    (
        "left",
        "employees who have left may not act",
        "A-7 has left",
        lambda: _ask("5.00", Agent(agent_id="A-7", role="agent", left=True)),
    ),
    (
        "source",
        "a source acts only for its roles",
        "the source `desk` asks for A-7",
        lambda: _ask("5.00", source="desk"),
    ),
    (
        "no_policy",
        "without a policy in force no action is allowed",
        "before the first policy is published",
        lambda: (authority.NO_POLICY.outcome, authority.NO_POLICY.reasons),
    ),
    (
        "own_request",
        "requesters may not decide their own request",
        "M-1 approves M-1's own request",
        lambda: _decide("approve", _MANAGER, "90.00", agent_id="M-1"),
    ),
    (
        "approves",
        "an approval stays within the approver's `approves`",
        "M-1 approves 500.01",
        lambda: _decide("approve", _MANAGER, "500.01"),
    ),
    (
        "",
        "a delegate may decide for an absent approver",
        "A-8 approves 90.00 for M-1",
        lambda: _decide("approve", Agent(agent_id="A-8", role="agent"), "90.00", stands_in_for=_MANAGER),
    ),
    (
        "not_requester",
        "only the requester may withdraw",
        "M-1 withdraws A-7's request",
        lambda: _decide("withdraw", _MANAGER, "90.00"),
    ),
    (
        "payer",
        "the payer's budget covers the amount: the team's pool, else the approver's",
        "the pool has 40.00, the request is for 40.01",
        lambda: _payer("40.01"),
    ),
)


def rule_lines() -> list[Line]:
    """Return every rule with its example, decided by the domain."""
    found: list[Line] = []
    for code, rule, example, decide in _EXAMPLES:
        outcome, reasons = decide()
        reason = next((one for one in reasons if one.rule == code), None)
        assert (reason is None) == (code == ""), (code, reasons)
        found.append(Line(code, rule, example, outcome, reason))
    return found


def rule_table() -> str:
    """Return the rules as a Markdown table."""
    lines = ["| rule | example | outcome | reason | in words |", "|---|---|---|---|---|"]
    for line in rule_lines():
        code = f"`{line.code}`" if line.code else ""
        lines.append(f"| {line.rule} | {line.example} | `{line.outcome}` | {code} | {_words(line.reason)} |")
    return "\n".join(lines) + "\n"


def _words(reason: Reason | None) -> str:
    if reason is None:
        return ""
    numbers = [(name, getattr(reason, name)) for name in ("limit", "used", "asked")]
    shown = ", ".join(f"{name} {amount.text}" for name, amount in numbers if amount is not None)
    return reason.message + (f" ({shown})" if shown else "")


def main() -> None:
    """Write the table into the page."""
    page = ROOT / "docs" / "understand" / "policy.md"
    before, begin, rest = page.read_text().partition("<!-- rules -->\n")
    _, end, after = rest.partition("<!-- end of rules -->\n")
    page.write_text(f"{before}{begin}{rule_table()}{end}{after}")


if __name__ == "__main__":
    main()
