"""An explained action in words: amount, reason, agent, limits and budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.decisions.owed import shown
from domain.money import money_from_wire, money_text

if TYPE_CHECKING:
    from projections.reports.explanation import AppliedLimit, BudgetThen, ExplainedAction, Explanation


def story_of(found: Explanation) -> list[tuple[str, object]]:
    """Return lines of (label, text) for the result of `projections.reports.explanation.explain`."""
    done = found["action"]
    rows: list[tuple[str, object]] = [
        ("what", f"{done['kind']} of {money_text(done['amount'])} ({done.get('basis', 'goodwill')})"),
        ("why", done["reason"]),
        ("owed", _owed(done)),
        ("note", done.get("note")),
        ("who", f"{done['agent_id']}" + (f", {done['role']}" if "role" in done else "")),
        ("training", ", ".join(done.get("training", ()))),
        ("whom", done.get("customer_id")),
        ("when", f"{found['time']}, recorded {found['recorded']} at position {found['position']}"),
        ("how", found.get("reported")),
    ]
    if "policy" in found:
        rows += [
            ("asked by", f"{found['source']}, request {found['request_id']}"),
            ("policy", f"version {found['policy']['version']}"),
            ("authority", _authority(done)),
            *((f"limit {limit['name']}", _limit(limit)) for limit in done.get("limits", ()) if limit["name"] != "owed"),
            ("totals seen", f"as the log was at position {found['seen_position']}"),
            ("budget before", _balance(found["budget_before"])),
            ("budget after", _balance(found["budget_after"])),
        ]
    waited = [step["waited_seconds"] for step in found.get("escalation", ()) if step["waited_seconds"] is not None]
    if waited:
        rows.append(("waited", f"{max(waited) / 60:.1f} minutes"))
    return [(name, text) for name, text in rows if text]


def _authority(done: ExplainedAction) -> str:
    if done.get("decided_by") is None:
        return "the agent's own"
    behalf = f" on behalf of {done['on_behalf_of']}" if done.get("on_behalf_of") else ""
    return f"approved by {done['decided_by']}{behalf}"


def _owed(done: ExplainedAction) -> str | None:
    """Return the owed part in words, with its proof."""
    if "owed" not in done:
        return None
    owed, amount = money_from_wire(done["owed"]), money_from_wire(done["amount"])
    proof = next((limit for limit in done.get("limits", ()) if limit["name"] in {"owed", "basis_limit"}), None)
    words = shown(owed, amount, by_policy=proof is not None and proof["name"] == "basis_limit")
    if proof is None or proof["name"] == "basis_limit" or "limit" not in proof:
        return words
    return f"{words} ({money_text(proof['limit'])} paid for the order, {money_text(proof['used'])} given back before)"


def _limit(limit: AppliedLimit) -> str:
    most = money_text(limit["limit"]) if "limit" in limit else "unlimited"
    return f"{most}, used before {money_text(limit['used'])}"


def _balance(balance: BudgetThen) -> str:
    return f"{money_text(balance['remaining'])} left of {money_text(balance['granted'])}"
