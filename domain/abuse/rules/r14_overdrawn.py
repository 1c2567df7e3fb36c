"""R14, overdrawn: a reported action exceeds authority, was refused or was granted in part, or a race passed a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardEvent, GuardHistory, ObservedAction
from domain.abuse.settled import Tally
from domain.actions import counted_minor
from domain.events import decisions, facts
from domain.keyed_state import keyed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.settled import SettledHistory
    from domain.keyed_state import State

RULE = Rule("R14", 6, "overdrawn", {"days": 7})
_TALLY_DAYS, _HABIT = 30, 0.002
"""The days that are compared, and the least usual share of actions beyond authority."""


class Overdrawn:
    """A check of reported actions, with a memory of refusals."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._refused = state.table("R14 refused", tuple[float, int, int])
        self._reports = Tally(state, "R14 reports", _TALLY_DAYS, least=_HABIT)
        self._races = Tally(state, "R14 races", _TALLY_DAYS, least=_HABIT)

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield findings for actions beyond budget or limit or after a refusal, and totals let through by a race."""
        body = event.body
        if action is not None:
            tally = self._reports if action.reported else self._races
            tally.note(event.at, action.agent, action.action_id)
        match body:
            case decisions.AuthorityFellShort() if not body.preview:
                for matter in (body.interaction_id, body.order_id, body.customer_id):
                    if matter:
                        refusal = event.at, event.position, body.amount.minor
                        self._refused.put(keyed(body.agent_id, body.kind, matter), refusal)
            case decisions.ActionCharged():
                yield from self._charged(history, event, body)
            case decisions.ActionTaken():
                for limit in body.limits:
                    used = limit.used.minor + counted_minor(body.basis, body.amount, body.owed)
                    soft = limit.name in {"per_customer", "per_interaction"} and body.decided_by is None
                    if soft and limit.limit is not None and used > limit.limit.minor:
                        most = money(limit.limit.minor, limit.limit.currency)
                        total = money(used, body.amount.currency)
                        text = f"{body.agent_id} passed {limit.name} ({most}) by a race: {total}"
                        key = "race", body.action_id
                        yield self._found(history, event, body.agent_id, key, text, (event.position,))
            case _:
                pass
        if action is not None and action.reported and action.goodwill:
            yield from self._reported(history, event, action)

    def _charged(
        self, history: GuardHistory, event: GuardEvent, body: decisions.ActionCharged
    ) -> Iterator[RuleFinding]:
        what, proof = f"{body.agent_id} reported {body.action_id}", (body.relates_to, event.position)
        if body.overdrawn.minor:
            over = money(body.overdrawn.minor, body.overdrawn.currency)
            text = f"{what}, which went {over} beyond the budget of {body.holder}"
            yield self._found(history, event, body.agent_id, ("budget", body.action_id), text, proof)
        told, decided = body.reported, body.decided
        if told is None or decided is None:
            return
        if told.currency != decided.currency or told.minor > decided.minor:
            amounts = [money(one.minor, one.currency) for one in (told, decided)]
            text = f"{what} as {amounts[0]}, where {amounts[1]} was granted"
            yield self._found(history, event, body.agent_id, ("granted", body.action_id), text, proof)

    def _reported(self, history: GuardHistory, event: GuardEvent, action: ObservedAction) -> Iterator[RuleFinding]:
        what = f"{action.agent} reported a {action.kind} of {money(action.minor, action.currency)}"
        if action.limit is not None and action.minor > action.limit:
            text = f"{what}, beyond the limit of {money(action.limit, action.currency)}"
            key = "limit", action.action_id
            yield self._found(history, event, action.agent, key, text, (event.position,))
        for matter in (action.interaction, action.order, action.customer):
            refused = self._refused.get(keyed(action.agent, action.kind, matter)) if matter else None
            if refused is None or refused[0] <= event.at - self._parameters["days"] * DAY:
                continue
            _, position, minor = refused
            if action.minor >= minor:  # less may be what the policy allows
                text = f"{what} for {matter}, after the same was not allowed (position {position})"
                key, proof = ("refused", action.action_id), (position, event.position)
                yield self._found(history, event, action.agent, key, text, proof)
                return

    def _found(
        self,
        history: GuardHistory,
        event: GuardEvent,
        agent: str,
        key: tuple[str, str],
        text: str,
        evidence: tuple[int, ...],
    ) -> RuleFinding:
        """Return a finding with the chance of so many among an honest agent's reports, or of so many races."""
        tally = self._races if key[0] == "race" else self._reports
        tally.note(event.at, agent, key[1], evidence)
        p = tally.chance(agent, history.mates(agent))
        return RULE.finding((f"agent:{agent}",), " ".join(key), text, evidence, p)


class ReportedAsOwed:
    """A check of reported entitlements and corrections: beyond the limit, and beyond the amount that is owed.

    The amount that is owed is what was paid for the order, less what was given back for it before; 0 without an order.
    """

    takes: ClassVar[tuple[type, ...]] = (facts.ActionReported,)

    def __init__(self, parameters: Parameters, state: State) -> None:
        del parameters, state

    def on(self, settled: SettledHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for a reported action on another basis than goodwill."""
        if action is None or not action.reported or action.goodwill or action.limit is None:
            return
        owed = settled.owed(action.order, action.currency) or 0
        if action.minor > action.limit and action.minor > owed:
            text = (
                f"{action.agent} reported {action.basis} of {money(action.minor, action.currency)}, beyond the limit "
                f"of {money(action.limit, action.currency)} and the {money(owed, action.currency)} shown as owed"
            )
            yield RULE.finding((f"agent:{action.agent}",), f"limit {action.action_id}", text, [event.position])
