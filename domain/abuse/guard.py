"""The guard: takes history event by event and returns the flags to raise, the same ones however it is fed.

Counting rules look at each event. Statistical rules run at a fixed hour of recorded time, over the window that ends
there, as one family of tests. Absence rules wait fifteen minutes of recorded time for late facts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from domain.abuse.findings import Parameters, Rule, RuleFinding, benjamini_hochberg, rule_order
from domain.abuse.history import DAY, HOUR, REMEMBERED_SECONDS, GuardEvent, GuardHistory, ObservedAction
from domain.abuse.rules import (
    r01_just_under_limit,
    r02_split,
    r03_favourite,
    r04_self_dealing,
    r05_collusion,
    r06_off_duty,
    r07_no_purchase,
    r08_burst,
    r09_outlier,
    r10_serial_claimant,
    r11_recognition_ring,
    r12_self_raise,
    r13_copied_note,
    r14_overdrawn,
    r15_churn,
    r16_owed_without_proof,
    r17_links_around_gift,
    r18_circles_of_authority,
)
from domain.abuse.settled import SETTLED, SettledHistory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from domain.abuse.rule_interface import AbsenceRule, CountingRule
    from domain.abuse.settled import WaitingRule

type StatisticalRule = Callable[[GuardHistory, float, Parameters], tuple[list[RuleFinding], int]]
"""A test over the window that ends at a moment: its findings, and the number of tests made."""

COUNTING: dict[str, tuple[Rule, Callable[[Parameters], CountingRule]]] = {
    rule.id: (rule, make)
    for rule, make in (
        (r02_split.RULE, r02_split.Split),
        (r04_self_dealing.RULE, r04_self_dealing.SelfDealing),
        (r05_collusion.RULE, r05_collusion.Collusion),
        (r10_serial_claimant.RULE, r10_serial_claimant.SerialClaimant),
        (r11_recognition_ring.RULE, r11_recognition_ring.RecognitionRing),
        (r12_self_raise.RULE, r12_self_raise.SelfRaise),
        (r14_overdrawn.RULE, r14_overdrawn.Overdrawn),
        (r15_churn.RULE, r15_churn.Churn),
    )
}
STATISTICAL: dict[str, tuple[Rule, StatisticalRule]] = {
    module.RULE.id: (module.RULE, module.over)
    for module in (
        r01_just_under_limit,
        r03_favourite,
        r08_burst,
        r09_outlier,
        r13_copied_note,
    )
}
ABSENCE: dict[str, tuple[Rule, Callable[[Parameters], AbsenceRule]]] = {
    rule.id: (rule, make)
    for rule, make in ((r06_off_duty.RULE, r06_off_duty.OffDuty), (r07_no_purchase.RULE, r07_no_purchase.NoPurchase))
}
WAITING: dict[str, tuple[Rule, Callable[[Parameters], WaitingRule]]] = {
    rule.id: (rule, make)
    for rule, make in (
        (r02_split.RULE, r02_split.WideSplit),
        (r04_self_dealing.RULE, r04_self_dealing.LinkedAround),
        (r05_collusion.RULE, r05_collusion.SecondAccount),
        (r12_self_raise.RULE, r12_self_raise.BorrowedPool),
        (r14_overdrawn.RULE, r14_overdrawn.ReportedAsOwed),
        (r16_owed_without_proof.RULE, r16_owed_without_proof.OwedWithoutProof),
        (r17_links_around_gift.RULE, r17_links_around_gift.LinksAroundGift),
        (r18_circles_of_authority.RULE, r18_circles_of_authority.Circles),
    )
}
RULES: dict[str, Rule] = {
    name: rule
    for name, (rule, _) in sorted(
        (COUNTING | STATISTICAL | ABSENCE | WAITING).items(), key=lambda one: rule_order(one[0])
    )
}
Q = 0.05
"""The share of false alarms among the findings of one run of the statistical rules (Benjamini-Hochberg)."""
RUN_AT_HOUR = 3
LATE_SECONDS = 15 * 60.0
_GROWS_BY = 1.5


class FlagDraft(NamedTuple):
    """A flag to raise (number 1), or more evidence for it (2 and on), found at ``position``."""

    flag_id: str
    number: int
    finding: RuleFinding
    position: int
    recorded: float


@dataclass
class _Case:
    flag_id: str
    number: int
    evidence: set[int]
    told: int
    reviewed: int = 0


class Guard:
    """The guard's state; it takes every event of the log once, in order."""

    def __init__(
        self, parameters: Mapping[str, Parameters] | None = None, plugins: Sequence[CountingRule] = ()
    ) -> None:
        """Create a guard; ``parameters`` by rule replace defaults, and ``plugins`` are rules of other packages.

        Raises:
            ValueError: a rule or a parameter is unknown.

        """
        self._parameters = parameters_of(parameters or {})
        self.history = GuardHistory()
        self._absence = [make(self._parameters[name]) for name, (_, make) in ABSENCE.items()]
        counting = [make(self._parameters[name]) for name, (_, make) in COUNTING.items()]
        self._rules: list[CountingRule] = [*counting, *self._absence, *plugins]
        self._waiting: deque[tuple[float, ObservedAction]] = deque()
        self.settled = SettledHistory(self.history)
        waiting = [make(self._parameters[name]) for name, (_, make) in WAITING.items()]
        classes = {*SETTLED, *(taken for rule in waiting for taken in rule.takes)}
        self._patient = {taken: [rule for rule in waiting if taken in rule.takes] for taken in classes}
        self._arriving: list[tuple[float, str, int, GuardEvent, ObservedAction | None]] = []
        self._cases: dict[tuple[str, ...], _Case] = {}
        self._of_flag: dict[str, _Case] = {}
        self._next_run: float | None = None
        self._anything_new = False

    def take(self, event: GuardEvent) -> list[FlagDraft]:
        """Return the flags that this event raises, or that its recorded time makes due."""
        raised: list[FlagDraft] = []
        for finding in self._findings(event):
            raised += self._told(finding, event)
        return raised

    def reviewed(self, flag_id: str, position: int) -> None:
        """Note a review: after it, only newer evidence raises the flag again."""
        case = self._of_flag.get(flag_id)
        if case is not None:
            case.reviewed = position

    def _findings(self, event: GuardEvent) -> Iterator[RuleFinding]:
        yield from self._on_the_hour(event)
        while self._waiting and self._waiting[0][0] + LATE_SECONDS <= event.recorded:
            _, waited = self._waiting.popleft()
            for absence in self._absence:
                yield from absence.due(self.history, waited)
        yield from self._settled_by(event.recorded)
        action = self.history.learn(event)
        if type(event.body) in self._patient:
            # An event that comes more than the waiting time late is taken at once; one from the future counts from now.
            moment = min(max(event.at, event.recorded - LATE_SECONDS), event.recorded)
            heappush(self._arriving, (moment, event.name, event.position, event, action))
        for rule in self._rules:
            yield from rule.on(self.history, event, action)
        if action is not None:
            self._anything_new = True
            self._waiting.append((event.recorded, action))

    def _settled_by(self, recorded: float) -> Iterator[RuleFinding]:
        """Yield findings of the rules that take events in the order of event time, for those that have waited."""
        while self._arriving and self._arriving[0][0] + LATE_SECONDS <= recorded:
            _, _, _, event, action = heappop(self._arriving)
            self.settled.learn(event, action)
            for rule in self._patient[type(event.body)]:
                yield from rule.on(self.settled, event, action)
            if action is not None:
                self.settled.settle(action)

    def _on_the_hour(self, event: GuardEvent) -> Iterator[RuleFinding]:
        """Yield findings of statistical rules for each day that has ended; a day without actions needs no run."""
        if self._next_run is None:
            self._next_run = _next_hour(event.recorded)
        while event.recorded >= self._next_run:
            if self._anything_new:
                yield from self._run(self._next_run)
                self.history.forget_before(self._next_run - REMEMBERED_SECONDS)
                self._anything_new = False
                self._next_run += DAY
            else:
                self._next_run = _next_hour(event.recorded)

    def _run(self, end: float) -> list[RuleFinding]:
        every: list[RuleFinding] = []
        tests = 0
        for name, (_, over) in STATISTICAL.items():
            found, made = over(self.history, end, self._parameters[name])
            tests += made
            every += found
        for absence in self._absence:
            found, made = absence.over(self.history, end)
            tests += made
            every += found
        family = [finding for finding in every if finding.p is not None]
        apart = [finding for finding in every if finding.p is None]
        standing = benjamini_hochberg(family, tests, Q) + apart
        return sorted(standing, key=lambda finding: finding.case)

    def _told(self, finding: RuleFinding, event: GuardEvent) -> list[FlagDraft]:
        """Return the flag to raise for a finding, or none.

        A flag is raised once, and updated when its evidence has grown by half. After a review only newer evidence
        counts.
        """
        case = self._cases.get(finding.case)
        if case is not None and case.reviewed:
            fresh = tuple(position for position in finding.evidence if position > case.reviewed)
            if len(fresh) * 2 < len(case.evidence) or not fresh:
                return []
            finding, case = replace(finding, evidence=fresh), None
        if case is None or case.evidence.isdisjoint(finding.evidence):
            case = _Case(finding.flag_id(), 1, set(finding.evidence), len(finding.evidence))
            self._cases[finding.case] = self._of_flag[case.flag_id] = case
            return [FlagDraft(case.flag_id, 1, finding, event.position, event.recorded)]
        case.evidence |= set(finding.evidence)
        if len(case.evidence) < _GROWS_BY * case.told:
            return []
        case.number, case.told = case.number + 1, len(case.evidence)
        grown = replace(finding, evidence=tuple(sorted(case.evidence)))
        return [FlagDraft(case.flag_id, case.number, grown, event.position, event.recorded)]


def _next_hour(moment: float) -> float:
    """Return the next moment after this one at which statistical rules run."""
    today = moment // DAY * DAY + RUN_AT_HOUR * HOUR
    return today if moment < today else today + DAY


def parameters_of(changed: Mapping[str, Parameters]) -> dict[str, Parameters]:
    """Return the parameters of all rules, with some of them replaced.

    Raises:
        ValueError: a rule or a parameter is unknown; the message lists the known ones.

    """
    merged = {name: rule.parameters.copy() for name, rule in RULES.items()}
    for name, values in changed.items():
        if name not in merged:
            message = f"there is no rule {name}; there are {', '.join(RULES)}"
            raise ValueError(message)
        for parameter in values:
            if parameter not in merged[name]:
                message = f"{name} has no parameter {parameter}; it has {', '.join(merged[name]) or 'none'}"
                raise ValueError(message)
        merged[name].update(values)
    return merged
