"""R12, self-raise: somebody gives authority to themselves: a grant, a transfer, a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain import records
from domain.abuse.findings import Finding, Rule, money

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.seen import Deed, Seen, World

RULE = Rule("R12", 1, "self-raise", {})


class SelfRaise:
    """Counts as events come."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        del parameters
        self._limits: dict[str, dict[str, int | None]] = {}

    def on(self, world: World, seen: Seen, _deed: Deed | None) -> Iterator[Finding]:
        """Whose giver is its beneficiary."""
        body = seen.body
        match body:
            case records.BudgetGranted() if body.holder == f"agent:{body.granted_by}":
                word = "granted"
            case records.BudgetTransferred() if body.direction == "in" and body.holder == f"agent:{body.granted_by}":
                word = "transferred"
            case records.PolicyPublished():
                yield from self._policy(world, seen)
                return
            case _:
                return
        text = f"{body.granted_by} {word} {money(body.amount.minor, body.amount.currency)} to themselves: {body.reason}"
        yield RULE.finding((f"agent:{body.granted_by}",), body.request_id, text, [seen.position])

    def _policy(self, world: World, seen: Seen) -> Iterator[Finding]:
        """The world has learnt the policy already; the limits before are remembered here."""
        before, self._limits = self._limits, world.limits
        giver = seen.body.published_by
        role = world.roles.get(giver)
        if role is None or not before:
            return
        old, new = before.get(role, {}), world.limits.get(role, {})
        raised = [kind for kind, limit in new.items() if kind not in old or _more(limit, old[kind])]
        if raised:
            kinds = ", ".join(raised)
            text = f"{giver}, {role}, published policy version {seen.body.version}, which raises {role}'s {kinds}"
            yield RULE.finding((f"agent:{giver}",), f"policy {seen.body.version}", text, [seen.position])


def _more(now: int | None, before: int | None) -> bool:
    return before is not None and (now is None or now > before)
