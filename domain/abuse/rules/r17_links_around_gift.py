"""R17, links around a gift: links cut, retracted or made for it, invented customers, and ids that look like others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, GuardEvent, ObservedAction
from domain.abuse.settled import ACTIONS, PEOPLE, SettledHistory, Tally
from domain.events import facts
from domain.keyed_state import keyed
from domain.look_alikes import likeness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.keyed_state import State

NAMING = (
    facts.CustomerLinked,
    facts.CustomerUnlinked,
    facts.CustomerReferred,
    facts.InteractionOpened,
    facts.PurchaseCompleted,
    facts.PurchaseReturned,
    facts.FeedbackReceived,
    facts.RelationshipDeclared,
)
"""The classes of facts that name customers."""
_ONE_EACH = 2e-4
"""The chance that an honest person gives once to each side of a link that is cut between, in a quarter."""
RULE = Rule("R17", 2, "links around a gift", {"days": 30, "customers": 5, "ratio": 3.0})


class _People(msgspec.Struct):
    alike: dict[str, dict[str, int]] = {}
    """By form, the employees with such an id and the position where each was named first."""


class LinksAroundGift:
    """A check of gifts against links of customers, against the events that name the customer, and against like ids.

    - *cut*: an agent gave to a customer, the customer's link to another was taken back, and the agent gave to that one;
      or the link was made again after a gift. All within ``days`` days.
    - *retracted*: an agent gave to an account that a correction took from the agent's own within the ``days`` before.
    - *invented*: ``customers`` customers of an agent in ``days`` days, whom no other agent's request and no fact has
      named, if their share among the agent's customers is at least ``ratio`` times the others' share.
    - *look-alike*: two customers of one agent, or an agent and another employee or own account, whose ids look alike
      (UTS 39 skeletons, case, white space) within ``days`` days.
    """

    takes: ClassVar[tuple[type, ...]] = (*ACTIONS, *PEOPLE, *NAMING)

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._seconds = parameters["days"] * DAY
        self._naming = state.table("R17 named by", str)
        """The only agent whose requests named a customer, or an empty text where a fact or another agent did."""
        self._named = Tally(state, "R17 named", parameters["days"])
        self._alike = state.table("R17 alike", tuple[float, str, int])
        self._people = state.record("R17 people", _People).alike

    def on(self, settled: SettledHistory, event: GuardEvent, action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield the findings of a gift, a link or an announced employee."""
        body = event.body
        self._learn_names(body)
        match body:
            case facts.CustomerLinked():
                yield from self._linked_again(settled, event, body)
            case facts.EmployeeJoined() | facts.EmployeeChanged():
                yield from self._like_a_person(body.employee_id, event.position)
            case _:
                pass
        if action is None:
            return
        yield from self._like_a_person(action.agent, action.position)
        if action.customer is not None and action.minor:
            yield from self._around(settled, event, action, action.customer)
            yield from self._invented(event, action, action.customer)
            yield from self._like_a_customer(settled, event, action, action.customer)

    # ------------------------------------------------------------------ links

    def _around(
        self, settled: SettledHistory, event: GuardEvent, action: ObservedAction, customer: str
    ) -> Iterator[RuleFinding]:
        since = event.at - self._seconds
        lost = settled.own_cut(action.agent, customer, since)
        given = f"{action.agent} gave {money(action.minor, action.currency)} to {customer}"
        if lost is not None and lost.how == "retracted":
            text = f"{given}, after a correction took back that the customer was the agent's own"
            yield RULE.finding(_about(action.agent, customer), "retracted", text, [lost.position, action.position])
        cut = settled.cuts.get(customer)
        if cut is None or cut.at <= since:
            return
        before = [gift for gift in settled.given_by(action.agent, cut.others, since) if gift.at <= cut.at]
        if before:
            text = (
                f"{given}, after {len(before)} gifts to {before[-1].customer}, whose link to {customer} was cut between"
            )
            evidence = [*(gift.position for gift in before), cut.position, action.position]
            after = sum(1 for _ in settled.given_by(action.agent, [customer], cut.at))
            p = None if len(before) + after > 2 else _ONE_EACH  # noqa: PLR2004 - one gift on each side
            yield RULE.finding(_about(action.agent, customer), "cut", text, evidence, p)

    def _linked_again(
        self, settled: SettledHistory, event: GuardEvent, body: facts.CustomerLinked
    ) -> Iterator[RuleFinding]:
        cut = settled.cuts.get(body.a)
        if cut is None or body.b not in cut.others or cut.at <= event.at - self._seconds:
            return
        between = [gift for name in (body.a, body.b) for gift in settled.gifts_to(name) if gift.at >= cut.at]
        for agent in sorted({gift.agent for gift in between}):
            mine = [gift for gift in between if gift.agent == agent]
            total = sum(gift.minor for gift in mine if gift.currency == mine[-1].currency)
            text = (
                f"the link of {body.a} and {body.b} was cut and made again, and {agent} gave them "
                f"{money(total, mine[-1].currency)} in between"
            )
            evidence = [cut.position, *(gift.position for gift in mine), event.position]
            yield RULE.finding(_about(agent, mine[-1].customer or ""), "cut", text, evidence)

    # ------------------------------------------------------------------ invented customers

    def _learn_names(self, body: object) -> None:
        """Note the customers that a fact names."""
        match body:
            case facts.CustomerLinked() | facts.CustomerUnlinked():
                names: tuple[str | None, ...] = body.a, body.b
            case facts.CustomerReferred():
                names = body.customer_id, body.referred_customer_id
            case (
                facts.InteractionOpened()
                | facts.PurchaseCompleted()
                | facts.PurchaseReturned()
                | facts.FeedbackReceived()
                | facts.RelationshipDeclared()
            ):
                names = (body.customer_id,)
            case _:
                return
        for name in names:
            if name is not None:
                self._is_known(name)

    def _is_known(self, customer: str) -> None:
        agent = self._naming.get(customer)
        if agent != "":
            self._naming.put(customer, "")
        if agent:
            self._named.unmark(agent, customer)

    def _invented(self, event: GuardEvent, action: ObservedAction, customer: str) -> Iterator[RuleFinding]:
        agent = action.agent
        named_by = self._naming.get(customer)
        if named_by is None:
            self._naming.put(customer, agent)
        elif named_by != agent:
            self._is_known(customer)
        alone = named_by is None or named_by == agent
        self._named.note(event.at, agent, customer, (action.position,) if alone else ())
        found = self._named.marked(agent)
        enough = alone and len(found) >= self._parameters["customers"]
        if enough and self._named.stands_out(agent, self._parameters["ratio"]):
            others, of_others = self._named.others(agent)
            text = (
                f"{len(found)} of {self._named.of(agent)} customers of {agent} in {self._parameters['days']} days were "
                f"named by no other event; of the others' {of_others} it is {others}"
            )
            evidence = [position for proof in found.values() for position in proof]
            yield RULE.finding((f"agent:{agent}",), "invented", text, evidence)

    # ------------------------------------------------------------------ look-alikes

    def _like_a_customer(
        self, settled: SettledHistory, event: GuardEvent, action: ObservedAction, customer: str
    ) -> Iterator[RuleFinding]:
        agent, own = action.agent, settled.accounts(action.agent)
        for key in likeness(customer):
            name = keyed(agent, key)
            if (seen := self._alike.get(name)) is not None:
                at, other, position = seen
                if other != customer and at > event.at - self._seconds:
                    text = f"{agent} gave to {other} and {customer}, whose ids look alike"
                    yield RULE.finding(_about(agent, customer), f"alike {other}", text, [position, action.position])
            self._alike.put(name, (event.at, customer, action.position))
            alike = sorted(one for one in own if one != customer and key in likeness(one))
            if alike and customer not in own:
                text = f"{agent} gave to {customer}, whose id looks like {alike[0]}, an account of the agent's own"
                yield RULE.finding(_about(agent, customer), f"alike {alike[0]}", text, [action.position])

    def _like_a_person(self, employee: str, position: int) -> Iterator[RuleFinding]:
        for key in likeness(employee):
            seen = self._people.setdefault(key, {})
            if employee in seen:
                continue
            for other, first in sorted(seen.items()):
                about = tuple(f"agent:{name}" for name in sorted((employee, other)))
                text = f"the employees {other} and {employee} have ids that look alike"
                yield RULE.finding(about, "alike", text, [first, position])
            seen[employee] = position


def _about(agent: str, customer: str) -> tuple[str, str]:
    return f"agent:{agent}", f"customer:{customer}"
