"""R5, collusion: two people approve for each other, or an approver favours one requester."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardEvent, GuardHistory, ObservedAction
from domain.abuse.settled import LINKS
from domain.events import decisions
from domain.keyed_state import keyed
from domain.statistics import fisher_greater

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.settled import SettledHistory
    from domain.keyed_state import State

RULE = Rule("R5", 2, "collusion", {"each_way": 5, "pair": 10, "p": 0.001, "denied_then": 3, "days": 90})


class Collusion:
    """A counter of requests, approvals and denials by pair."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._asked = state.table("R5 asked", tuple[str, str, str])
        self._decided = state.table("R5 decided", dict[str, list[tuple[float, bool, int]]])
        self._denied = state.table("R5 denied", tuple[float, str, int])
        self._shopped = state.table("R5 denied then approved", list[tuple[float, int, int]])

    def on(self, _history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield findings for an approval or a denial."""
        body = event.body
        if isinstance(body, decisions.EscalationRequested):
            matter = body.interaction_id or body.order_id or body.customer_id
            self._asked.put(body.escalation_id, (body.agent_id, body.kind, matter or ""))
        if not isinstance(body, (decisions.EscalationApproved, decisions.EscalationDenied)) or body.decided_by is None:
            return
        approved = isinstance(body, decisions.EscalationApproved)
        asker, decider = body.agent_id, body.decided_by
        since = event.at - self._parameters["days"] * DAY
        decided = self._decided.get(decider) or {}
        decided[asker] = [one for one in decided.get(asker, ()) if one[0] > since]
        decided[asker].append((event.at, approved, event.position))
        self._decided.put(decider, decided)
        request = self._asked.get(body.escalation_id)
        if request is not None:
            self._asked.drop(body.escalation_id)
            yield from self._shopping(event, request, decider, approved=approved)
        if approved:
            yield from self._mutual(event, asker, decider)
            yield from self._partial(event, asker, decider)

    def _of_pair(self, asker: str, decider: str, since: float) -> list[tuple[float, bool, int]]:
        return [one for one in (self._decided.get(decider) or {}).get(asker, ()) if one[0] > since]

    def _mutual(self, event: GuardEvent, asker: str, decider: str) -> Iterator[RuleFinding]:
        since, least = event.at - self._parameters["days"] * DAY, self._parameters["each_way"]
        ways = [
            [position for _, yes, position in self._of_pair(*pair, since) if yes]
            for pair in ((asker, decider), (decider, asker))
        ]
        if min(map(len, ways)) >= least:
            text = f"{decider} approved {len(ways[0])} requests of {asker}, and {asker} {len(ways[1])} of {decider}'s"
            about = tuple(f"agent:{name}" for name in sorted((asker, decider)))
            yield RULE.finding(about, "mutual", f"{text}, in {self._parameters['days']} days", ways[0] + ways[1])

    def _partial(self, event: GuardEvent, asker: str, decider: str) -> Iterator[RuleFinding]:
        """Yield a finding where the approver approves this pair's requests more often than all others'.

        The test is Fisher's, exact and one-sided, over approvals and denials.
        """
        since = event.at - self._parameters["days"] * DAY
        mine = self._of_pair(asker, decider, since)
        yes = [position for _, approved, position in mine if approved]
        if len(yes) < self._parameters["pair"]:
            return
        others = [
            approved
            for who, decided in (self._decided.get(decider) or {}).items()
            if who != asker
            for at, approved, _ in decided
            if at > since
        ]
        if not others:
            return
        p = fisher_greater((len(yes), len(mine) - len(yes)), (sum(others), len(others) - sum(others)))
        if p < self._parameters["p"]:
            text = (
                f"{decider} approved {len(yes)} of {len(mine)} requests of {asker}, and {sum(others)} of "
                f"{len(others)} of all others, in {self._parameters['days']} days (chance {p:.1g})"
            )
            yield RULE.finding((f"agent:{decider}", f"agent:{asker}"), "partial", text, yes, p)

    def _shopping(
        self, event: GuardEvent, request: tuple[str, str, str], decider: str, *, approved: bool
    ) -> Iterator[RuleFinding]:
        """Yield a finding where requests are denied by one approver and then approved by another, several times."""
        agent, kind, matter = request
        if not matter:
            return
        key = keyed(agent, kind, matter)
        since = event.at - self._parameters["days"] * DAY
        before = self._denied.get(key)
        if not approved:
            self._denied.put(key, (event.at, decider, event.position))
        elif before is not None and before[0] > since and before[1] != decider:
            recent = [one for one in self._shopped.get(agent) or () if one[0] > since]
            recent.append((event.at, before[2], event.position))
            self._shopped.put(agent, recent)
            if len(recent) >= self._parameters["denied_then"]:
                text = f"{agent} was denied by one and then approved by another {len(recent)} times"
                evidence = [position for _, *positions in recent for position in positions]
                yield RULE.finding((f"agent:{agent}",), "denied then approved", text, evidence)


class SecondAccount:
    """A check of approvals between two employees of one household, or with one customer as their own.

    Links count however they were told: before the approval, or in the ``days`` days after it.
    """

    takes: ClassVar[tuple[type, ...]] = (decisions.EscalationApproved, *LINKS)

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._seconds = parameters["days"] * DAY
        self._approved = state.table("R5 approved", list[tuple[float, str, str, int]])
        self._partners = state.table("R5 partners", set[str])

    def on(self, settled: SettledHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for an approval between connected people, and for a link between such people."""
        body = event.body
        if isinstance(body, decisions.EscalationApproved) and body.decided_by is not None:
            pair = frozenset((body.agent_id, body.decided_by))
            key = keyed(*sorted(pair))
            approved = [one for one in self._approved.get(key) or () if one[0] > event.at - self._seconds]
            approved.append((event.at, body.agent_id, body.decided_by, event.position))
            self._approved.put(key, approved)
            for who in pair:
                self._partners.put(who, (self._partners.get(who) or set()) | pair)
            yield from self._found(settled, pair, event, ())
        for who in sorted({change.employee for change in settled.changes}):
            for partner in sorted(self._partners.get(who) or ()):
                yield from self._found(settled, frozenset((who, partner)), event, (event.position,))

    def _found(
        self, settled: SettledHistory, pair: frozenset[str], event: GuardEvent, proof: tuple[int, ...]
    ) -> Iterator[RuleFinding]:
        kept = self._approved.get(keyed(*sorted(pair))) or ()
        approved = [one for one in kept if one[0] > event.at - self._seconds]
        if len(pair) == 1 or not approved:
            return
        one, other = pair
        common = settled.accounts(one) & settled.accounts(other)
        if common:
            _, asker, decider, _ = approved[-1]
            text = (
                f"{decider} approved {len(approved)} requests of {asker}; both have the account {min(common)}, so they "
                "may be one person or household"
            )
            about = tuple(f"agent:{name}" for name in sorted(pair))
            yield RULE.finding(about, "one household", text, [*(position for *_, position in approved), *proof])
