"""R4, self-dealing: the customer is the employee, their group or a declared relation. Attempts count."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY
from domain.abuse.settled import ACTIONS, LINKS, Tally
from domain.events import decisions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction
    from domain.abuse.settled import SettledHistory
    from domain.keyed_state import State

RULE = Rule("R4", 3, "self-dealing", {"days": 30})


_FEW, _HABIT = 2.0, 0.002
"""The variation of attempts, as few people have a declared relation that calls, and the least usual share of them."""


class SelfDealing:
    """A check of actions and attempts: an action is a finding by itself, an attempt is weighed by how usual it is."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._attempts = Tally(state, "R4 attempts", parameters["days"], _FEW, _HABIT)

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield findings for reported actions and refused attempts, because decisions refuse self-dealing."""
        body = event.body
        if action is not None:
            self._attempts.note(event.at, action.agent, action.action_id)
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
            self._attempts.note(event.at, body.agent_id, str(event.position), (event.position,))
            p = self._attempts.chance(body.agent_id, history.mates(body.agent_id))
            yield RULE.finding(about, body.request_id, text, [event.position], p)


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


class LinkedAround:
    """A check of gifts and the agent's own accounts within ``days`` days: linked after, or unlinked before the gift."""

    takes: ClassVar[tuple[type, ...]] = (*ACTIONS, *LINKS)

    def __init__(self, parameters: Parameters, state: State) -> None:
        del state
        self._seconds = parameters["days"] * DAY

    def on(self, settled: SettledHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for a link that follows a gift, and for a gift that follows the end of a link."""
        for change in settled.changes:
            gifts = list(settled.given_by(change.employee, [change.customer], event.at - self._seconds))
            if gifts:
                total = sum(gift.minor for gift in gifts if gift.currency == gifts[-1].currency)
                text = (
                    f"{change.employee} gave {money(total, gifts[-1].currency)} to {change.customer}, who was "
                    f"{change.how} as the agent's own afterwards (position {change.position})"
                )
                evidence = [*(gift.position for gift in gifts), change.position]
                yield RULE.finding(_about(change.employee, change.customer), "linked after", text, evidence)
        if action is None or action.customer is None or not action.minor:
            return
        lost = settled.own_cut(action.agent, action.customer, event.at - self._seconds)
        if lost is not None and lost.how == "unlinked":
            text = (
                f"{action.agent} gave {money(action.minor, action.currency)} to {action.customer}, who was unlinked "
                f"from the agent's own accounts before (position {lost.position})"
            )
            evidence = [lost.position, action.position]
            yield RULE.finding(_about(action.agent, action.customer), "unlinked before", text, evidence)


def _about(agent: str, customer: str) -> tuple[str, str]:
    return f"agent:{agent}", f"customer:{customer}"
