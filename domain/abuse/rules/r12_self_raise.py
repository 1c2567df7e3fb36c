"""R12, self-raise: a person raises their own authority by a grant, a transfer or a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.events import decisions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction
    from domain.money import Money

RULE = Rule("R12", 1, "self-raise", {})


class SelfRaise:
    """A check of grants, transfers and policies; it keeps no state."""

    def __init__(self, parameters: Parameters) -> None:
        del parameters

    def on(self, history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding where giver and beneficiary are the same person."""
        body = event.body
        match body:
            case decisions.BudgetGranted() if body.holder == f"agent:{body.granted_by}":
                word = "granted"
            case decisions.BudgetTransferred() if body.direction == "in" and body.holder == f"agent:{body.granted_by}":
                word = "transferred"
            case decisions.PolicyPublished():
                yield from self._policy(history, event.position, body)
                return
            case _:
                return
        text = f"{body.granted_by} {word} {money(body.amount.minor, body.amount.currency)} to themselves: {body.reason}"
        yield RULE.finding((f"agent:{body.granted_by}",), body.request_id, text, [event.position])

    def _policy(self, history: GuardHistory, position: int, body: decisions.PolicyPublished) -> Iterator[RuleFinding]:
        """Yield a finding where a policy raises the limits of its publisher's role above those of the policy before."""
        giver, new = body.published_by, history.policies[body.version]
        role, old = history.roles.get(giver), history.policies.replaced_by(new)
        if role is None or old is None or new.policy.mode != "enforced":
            return
        teams, begins = history.teams.get(giver, ()), new.policy.effective_from
        before, after = (rules.limits_for(role, teams, begins) for rules in (old, new))
        raised = [kind for kind, limit in after.items() if kind not in before or _more(limit, before[kind])]
        if raised:
            kinds = ", ".join(raised)
            text = f"{giver}, {role}, published policy version {new.version}, which raises {role}'s {kinds}"
            yield RULE.finding((f"agent:{giver}",), f"policy {new.version}", text, [position])


def _more(now: Money | None, before: Money | None) -> bool:
    return before is not None and (now is None or now.minor > before.minor)
