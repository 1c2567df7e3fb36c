"""R5, collusion: two people approve for each other, or an approver favours one requester."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, ClassVar

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardEvent, GuardHistory, ObservedAction
from domain.abuse.settled import LINKS
from domain.events import decisions
from domain.statistics import fisher_greater

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.settled import SettledHistory

RULE = Rule("R5", 2, "collusion", {"each_way": 5, "pair": 10, "p": 0.001, "denied_then": 3, "days": 90})


class Collusion:
    """A counter of requests, approvals and denials by pair."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._asked: dict[str, decisions.EscalationRequested] = {}
        self._decided: dict[str, dict[str, list[tuple[float, bool, int]]]] = defaultdict(lambda: defaultdict(list))
        self._denied: dict[tuple[str, str, str], tuple[float, str, int]] = {}
        self._shopped: dict[str, list[tuple[float, int, int]]] = defaultdict(list)

    def on(self, _history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield findings for an approval or a denial."""
        body = event.body
        if isinstance(body, decisions.EscalationRequested):
            self._asked[body.escalation_id] = body
        if not isinstance(body, (decisions.EscalationApproved, decisions.EscalationDenied)) or body.decided_by is None:
            return
        approved = isinstance(body, decisions.EscalationApproved)
        asker, decider = body.agent_id, body.decided_by
        self._decided[decider][asker].append((event.at, approved, event.position))
        request = self._asked.pop(body.escalation_id, None)
        if request is not None:
            yield from self._shopping(event, request, decider, approved=approved)
        if approved:
            yield from self._mutual(event, asker, decider)
            yield from self._partial(event, asker, decider)

    def _of_pair(self, asker: str, decider: str, since: float) -> list[tuple[float, bool, int]]:
        return [one for one in self._decided[decider][asker] if one[0] > since]

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
            for who, decided in self._decided[decider].items()
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
        self, event: GuardEvent, request: decisions.EscalationRequested, decider: str, *, approved: bool
    ) -> Iterator[RuleFinding]:
        """Yield a finding where requests are denied by one approver and then approved by another, several times."""
        matter = request.interaction_id or request.order_id or request.customer_id
        if matter is None:
            return
        key = request.agent_id, request.kind, matter
        since = event.at - self._parameters["days"] * DAY
        before = self._denied.get(key)
        if not approved:
            self._denied[key] = event.at, decider, event.position
        elif before is not None and before[0] > since and before[1] != decider:
            mine = self._shopped[request.agent_id]
            mine.append((event.at, before[2], event.position))
            recent = [one for one in mine if one[0] > since]
            if len(recent) >= self._parameters["denied_then"]:
                text = f"{request.agent_id} was denied by one and then approved by another {len(recent)} times"
                evidence = [position for _, *positions in recent for position in positions]
                yield RULE.finding((f"agent:{request.agent_id}",), "denied then approved", text, evidence)


class SecondAccount:
    """A check of approvals between two employees of one household, or with one customer as their own.

    Links count however they were told: before the approval, or in the ``days`` days after it.
    """

    takes: ClassVar[tuple[type, ...]] = (decisions.EscalationApproved, *LINKS)

    def __init__(self, parameters: Parameters) -> None:
        self._seconds = parameters["days"] * DAY
        self._approved: dict[frozenset[str], deque[tuple[float, str, str, int]]] = defaultdict(deque)
        self._partners: dict[str, set[str]] = defaultdict(set)

    def on(self, settled: SettledHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Yield a finding for an approval between connected people, and for a link between such people."""
        body = event.body
        if isinstance(body, decisions.EscalationApproved) and body.decided_by is not None:
            pair = frozenset((body.agent_id, body.decided_by))
            approved = self._approved[pair]
            while approved and approved[0][0] <= event.at - self._seconds:
                approved.popleft()
            approved.append((event.at, body.agent_id, body.decided_by, event.position))
            for who in pair:
                self._partners[who] |= pair
            yield from self._found(settled, pair, event, ())
        for who in sorted({change.employee for change in settled.changes}):
            for partner in sorted(self._partners.get(who, ())):
                yield from self._found(settled, frozenset((who, partner)), event, (event.position,))

    def _found(
        self, settled: SettledHistory, pair: frozenset[str], event: GuardEvent, proof: tuple[int, ...]
    ) -> Iterator[RuleFinding]:
        approved = [one for one in self._approved.get(pair, ()) if one[0] > event.at - self._seconds]
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
