"""R4, self-dealing: the customer is the employee, their group or a declared relation. Attempts count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.events import decisions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction

RULE = Rule("R4", 1, "self-dealing", {})


class SelfDealing:
    """A counter of actions and attempts; it keeps no state."""

    def __init__(self, parameters: Parameters) -> None:
        del parameters

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield findings for reported actions and refused attempts, because decisions refuse self-dealing."""
        body = event.body
        if action is not None and action.customer is not None:
            nature = _relation(history, action.agent, action.customer)
            if nature:
                text = f"{action.agent} gave {money(action.minor, action.currency)} to {action.customer}: {nature}"
                about = (f"agent:{action.agent}", f"customer:{action.customer}")
                yield RULE.finding(about, action.action_id, text, [action.position])
        elif isinstance(body, decisions.AuthorityFellShort) and _refused(body):
            asked = money(body.amount.minor, body.amount.currency)
            text = f"{body.agent_id} tried to give {asked} to {body.customer_id}, and was refused: self-dealing"
            about = (f"agent:{body.agent_id}", f"customer:{body.customer_id}")
            yield RULE.finding(about, body.request_id, text, [event.position])


def _refused(body: decisions.AuthorityFellShort) -> bool:
    return not body.preview and any(reason.rule == "self_dealing" for reason in body.reasons)


def _relation(history: GuardHistory, agent: str, customer: str) -> str:
    group = history.group(customer)
    if agent in {customer, group} or history.group(agent) == group:
        return "the agent's own group"
    for related, nature in history.related.get(agent, {}).items():
        if history.group(related) == group:
            return f"a declared relation ({nature})"
    return ""
