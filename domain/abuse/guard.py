"""The guard: takes history event by event and returns the flags to raise, the same ones however it is fed.

Counting rules look at each event. Statistical rules run at a fixed hour of recorded time, over the window that ends
there, as one family of tests. Absence rules wait fifteen minutes of recorded time for late facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from domain.abuse.cases import CaseBook, CaseDraft
from domain.abuse.findings import Parameters, Rule, RuleFinding, benjamini_hochberg, rule_order
from domain.abuse.flag_book import FlagBook, FlagDraft
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
from domain.abuse.waiting_room import WaitingRoom
from domain.keyed_state import MemoryState, Queue
from domain.policy.model import CASES_PER_WEEK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from domain.abuse.rule_interface import AbsenceRule, CountingRule
    from domain.abuse.settled import WaitingRule
    from domain.events.flags import Verdict
    from domain.keyed_state import State

type StatisticalRule = Callable[[GuardHistory, float, Parameters], tuple[list[RuleFinding], int]]
"""A test over the window that ends at a moment: its findings, and the number of tests made."""

COUNTING: dict[str, tuple[Rule, Callable[[Parameters, State], CountingRule]]] = {
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
ABSENCE: dict[str, tuple[Rule, Callable[[Parameters, State], AbsenceRule]]] = {
    rule.id: (rule, make)
    for rule, make in ((r06_off_duty.RULE, r06_off_duty.OffDuty), (r07_no_purchase.RULE, r07_no_purchase.NoPurchase))
}
WAITING: dict[str, tuple[Rule, Callable[[Parameters, State], WaitingRule]]] = {
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


class _Clock(msgspec.Struct):
    next_night: float | None = None
    next_run: float | None = None
    anything_new: bool = False


class Guard:
    """The guard; it takes every event of the log once, in order, and keeps all that it remembers in a ``State``."""

    def __init__(
        self,
        parameters: Mapping[str, Parameters] | None = None,
        plugins: Sequence[CountingRule] = (),
        state: State | None = None,
    ) -> None:
        """Create a guard; ``parameters`` by rule replace defaults, and ``plugins`` are rules of other packages.

        A ``state`` of an earlier guard continues it; without one, the guard begins with nothing, in memory.

        Raises:
            ValueError: a rule or a parameter is unknown.

        """
        self._parameters = parameters_of(parameters or {})
        state = state or MemoryState()
        self.history = GuardHistory(state)
        self._absence = [make(self._parameters[name], state) for name, (_, make) in ABSENCE.items()]
        counting = [make(self._parameters[name], state) for name, (_, make) in COUNTING.items()]
        self._rules: list[CountingRule] = [*counting, *self._absence, *plugins]
        self._waiting = Queue(state, "actions that wait", list[tuple[float, ObservedAction]])
        self.settled = SettledHistory(self.history, state)
        waiting = [make(self._parameters[name], state) for name, (_, make) in WAITING.items()]
        classes = {*SETTLED, *(taken for rule in waiting for taken in rule.takes)}
        self._patient = {taken: [rule for rule in waiting if taken in rule.takes] for taken in classes}
        self._arriving = WaitingRoom(state)
        self._flags = FlagBook(state)
        self.cases = CaseBook(state)
        self._drafts: list[CaseDraft] = []
        self._clock = state.record("clock", _Clock)

    def take(self, event: GuardEvent) -> list[FlagDraft]:
        """Return the flags that this event raises, or that its recorded time makes due."""
        raised: list[FlagDraft] = []
        for finding in self._findings(event):
            self.cases.found(finding, event.recorded)
            if (draft := self._flags.told(finding, event)) is not None:
                raised.append(draft)
        raised += self._flags.late(event)
        for draft in raised:
            finding = draft.finding
            self.cases.flag(draft.flag_id, draft.number, finding, self._flags.weight(finding.evidence), draft.recorded)
            self.cases.note(draft.flag_id, self._flags.note_of(draft.flag_id))
        self._rank_by_night(event)
        return raised

    def reviewed(
        self, flag_id: str, position: int, verdict: Verdict | None = None, recorded: float | None = None
    ) -> None:
        """Note a review: after it, only newer evidence raises the flag again; a dismissed pattern sleeps."""
        self._flags.review(flag_id, position, verdict, 0.0 if recorded is None else recorded)
        self.cases.review(flag_id)

    def take_cases(self) -> list[CaseDraft]:
        """Return the events of cases since the last call, and forget them."""
        drafts, self._drafts = self._drafts, []
        return drafts

    def _rank_by_night(self, event: GuardEvent) -> None:
        """Rank cases and open the best ones once for the nights that have ended."""
        if self._clock.next_night is None:
            self._clock.next_night = next_night(event.recorded)
        if event.recorded < self._clock.next_night:
            return
        moment = next_night(event.recorded) - DAY
        rules = self.history.policies.in_force_at(moment)
        capacity = CASES_PER_WEEK if rules is None else rules.policy.cases_per_week
        self._drafts += self.cases.night(self.history, capacity, event.position, moment)
        self._clock.next_night = moment + DAY

    def _findings(self, event: GuardEvent) -> Iterator[RuleFinding]:
        yield from self._on_the_hour(event)
        while (oldest := self._waiting.first()) is not None and oldest[0] + LATE_SECONDS <= event.recorded:
            _, waited = self._waiting.pop_first()
            for absence in self._absence:
                yield from absence.due(self.history, waited)
        yield from self._settled_by(event.recorded)
        action = self.history.learn(event)
        self._flags.learn(event, action)
        if type(event.body) in self._patient:
            # An event that comes more than the waiting time late is taken at once; one from the future counts from now.
            moment = min(max(event.at, event.recorded - LATE_SECONDS), event.recorded)
            self._arriving.add(event, action, moment)
        for rule in self._rules:
            yield from rule.on(self.history, event, action)
        if action is not None:
            self._clock.anything_new = True
            self._waiting.append((event.recorded, action))

    def _settled_by(self, recorded: float) -> Iterator[RuleFinding]:
        """Yield findings of the rules that take events in the order of event time, for those that have waited."""
        for waited in self._arriving.until(recorded - LATE_SECONDS):
            body, action = waited.body.body, waited.action
            event = GuardEvent(waited.position, waited.at, waited.recorded, body, "", waited.name, waited.corrects)
            self.settled.learn(event, action)
            for rule in self._patient[type(event.body)]:
                yield from rule.on(self.settled, event, action)
            if action is not None:
                self.settled.settle(action)

    def _on_the_hour(self, event: GuardEvent) -> Iterator[RuleFinding]:
        """Yield findings of statistical rules for each day that has ended; a day without actions needs no run."""
        if self._clock.next_run is None:
            self._clock.next_run = next_night(event.recorded)
        while event.recorded >= self._clock.next_run:
            if self._clock.anything_new:
                yield from self._run(self._clock.next_run)
                self.history.forget_before(self._clock.next_run - REMEMBERED_SECONDS)
                self._clock.anything_new = False
                self._clock.next_run += DAY
            else:
                self._clock.next_run = next_night(event.recorded)

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


def next_night(moment: float) -> float:
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
