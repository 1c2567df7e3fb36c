"""Cases: flags about one subject, reviewed together. A weekly capacity decides how many are opened, best first.

Everything here follows from the events that the guard has taken, so every guard makes the same cases.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Literal, NamedTuple

from domain.abuse.findings import money, rule_order
from domain.abuse.history import DAY, people_at_work
from domain.keyed_state import keyed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from domain.abuse.findings import RuleFinding
    from domain.abuse.history import GuardHistory
    from domain.keyed_state import State

type CaseState = Literal["ranked", "opened", "updated"]
STALE_SECONDS = 90 * DAY
"""A case below the line leaves the ranking once its last evidence is so old."""
FLOOR = 0.6
"""A case is opened only where it is more likely right than wrong."""
PRIOR = 0.001
"""The share of people that misuse authority in one way in a quarter: 1 to 4 % in all, over eighteen rules."""
LOOKS = {"R2": 10.0, "R8": 6.0, "R9": 8.0, "R10": 8.0}
"""The number of independent tests by which a rule may flag one honest person in a quarter.

A rule flags about ``LOOKS`` p of the honest people with a chance below p. The numbers were chosen on the tuning worlds
of ``benchmarks.detection``: rules that test candidates alone have the smallest ones.
"""
_OTHER_LOOKS = 4.0
_PRIOR_PEOPLE = 100
"""The people that ``PRIOR`` counts as, beside those at work."""
_SURE = 1e-5
_SEEN = 0.5
"""The share of misuse whose chance falls so low."""
_RULES = 18
_PEER_DAYS = 30
_PLAIN = 0.6
"""The chance that a flag without a p-value is right: its pattern is misuse by itself, but for a mistake."""


class CaseDraft(NamedTuple):
    """An event of a case: it waits below the line, was opened, or changed after that."""

    case_id: str
    number: int
    state: CaseState
    subject: str
    about: tuple[str, ...]
    flag_ids: tuple[str, ...]
    rules: tuple[str, ...]
    rank: int
    """Its place among the cases that waited at that time; 1 is the best."""
    score: float
    """The chance times 1 + the loss in usual actions."""
    loss: tuple[int, str] | None
    """The expected loss in minor units, and its currency; ``None``: its evidence has no amounts."""
    explanation: str
    position: int
    recorded: float


class Weight(NamedTuple):
    """The amounts of a flag's evidence: in minor units by currency, and the largest one's position."""

    minor: dict[str, int]
    largest: int | None


@dataclass
class _FlagOfCase:
    rule: str
    about: tuple[str, ...]
    explanation: str
    p: float | None
    number: int
    weight: Weight
    evidence: frozenset[int]
    raised: float
    note: str = ""
    reviewed: bool = False

    def strength(self, prior: float) -> float:
        """Return the chance that the flag is right (see ``strength``)."""
        return strength(self.rule, self.p, self.number, prior)


@dataclass
class _Case:
    case_id: str
    subject: str
    flags: dict[str, _FlagOfCase] = field(default_factory=dict)
    number: int = 0
    opened: bool = False
    changed: bool = True
    rank: int = 0
    score: float = 0.0
    at: float = 0.0

    def open_flags(self) -> list[_FlagOfCase]:
        """Return the flags that are not reviewed."""
        return [flag for flag in self.flags.values() if not flag.reviewed]


def strength(rule: str, p: float | None, number: int, prior: float = PRIOR) -> float:
    """Return the chance that a flag is right.

    With a p-value: the expected misuse over misuse and false alarms, prior / (prior + ``LOOKS`` p), as in the false
    discovery rate of a tail area (Efron 2004). ``prior`` is misuse of one sort for each person and quarter. Without a
    p-value the first flag has a chance of 0.6, and each update multiplies the doubt by 0.4.
    """
    if p is not None:
        return prior / (prior + LOOKS.get(rule, _OTHER_LOOKS) * p)
    return float(1 - (1 - _PLAIN) ** max(number, 1))


def prior_of(sure: int, people: int) -> float:
    """Return the share of people that misuse authority in one way, from the findings that are hardly chance.

    ``sure`` people and rules had a chance of 1e-5 or less in 90 days. As many as honest people would have are
    subtracted, and half of all misuse is taken to be seen so clearly. ``PRIOR`` counts as a hundred people more. So
    where much is found, less evidence opens a case, as in an empirical Bayes estimate (Efron 2004). Reviews change
    nothing in it.
    """
    looks = sum(LOOKS.values()) + _OTHER_LOOKS * (_RULES - len(LOOKS))
    seen = max(sure - people * looks * _SURE, 0.0) / _SEEN
    return (PRIOR * _PRIOR_PEOPLE + seen / _RULES) / (_PRIOR_PEOPLE + people)


@dataclass
class Capacity:
    """The cases that may still be opened: it grows night by night, up to one week's, but always holds one case."""

    left: float | None = None
    last: float | None = None

    def grow(self, week: float, moment: float) -> None:
        """Add the nights since the last call, at so many cases a week."""
        most = max(week, 1.0) if week else 0.0
        nights = 0.0 if self.last is None else (moment - self.last) / DAY
        self.left = most if self.left is None else min(self.left + week * nights / 7, most)
        self.last = moment

    def take(self) -> bool:
        """Use up one case; return whether there was one."""
        if self.left is None or self.left < 1:
            return False
        self.left -= 1
        return True


class RankedCase(NamedTuple):
    """A case in the order of rank, and the chance that it is right."""

    case_id: str
    subject: str
    chance: float
    opened: bool


@dataclass
class _Cases:
    of_subject: dict[str, _Case] = field(default_factory=dict)
    subject_of: dict[str, str] = field(default_factory=dict)
    """The subject of the case that each flag which is not reviewed belongs to."""
    capacity: Capacity = field(default_factory=Capacity)
    sure: dict[str, float] = field(default_factory=dict)
    """The last time of findings that are hardly chance, by subject and rule."""
    prior: float = PRIOR


class CaseBook:
    """All cases that are not closed, and the capacity that is left."""

    def __init__(self, state: State) -> None:
        self._cases = cases = state.record("cases", _Cases)
        self._of_subject, self._subject_of, self._capacity = cases.of_subject, cases.subject_of, cases.capacity

    @property
    def prior(self) -> float:
        """The share of people that misuse authority in one way, as of the last night."""
        return self._cases.prior

    # ------------------------------------------------------------------ flags and reviews

    def flag(self, flag_id: str, number: int, finding: RuleFinding, weight: Weight, recorded: float) -> None:
        """Add a flag to the case of its subject, or update it there."""
        case = self._case_of(flag_id) or self._case_for(flag_id, finding.about)
        known = case.flags.get(flag_id)
        case.flags[flag_id] = _FlagOfCase(
            finding.rule,
            finding.about,
            finding.explanation,
            finding.p,
            number,
            weight,
            frozenset(finding.evidence),
            known.raised if known else recorded,
        )
        self._subject_of[flag_id] = case.subject
        case.changed, case.at = True, recorded

    def found(self, finding: RuleFinding, recorded: float) -> None:
        """Note a finding for the prior, whether it raises a flag or a review keeps it from that."""
        if finding.p is not None and finding.p <= _SURE:
            self._cases.sure[keyed(finding.about[0], finding.rule)] = recorded

    def _case_of(self, flag_id: str) -> _Case | None:
        return self._of_subject.get(self._subject_of.get(flag_id, ""))

    def _case_for(self, flag_id: str, about: tuple[str, ...]) -> _Case:
        """Return the case of one of the people concerned, else a new one about the first of them, else the customer."""
        people = [name for name in about if name.startswith("agent:")] or list(about)
        for name in people:
            if name in self._of_subject:
                return self._of_subject[name]
        digest = hashlib.blake2b(f"{people[0]}\x00{flag_id}".encode(), digest_size=12).hexdigest()
        case = self._of_subject[people[0]] = _Case(f"case-{digest}", people[0])
        return case

    def note(self, flag_id: str, text: str) -> None:
        """Add a note about a late fact to a flag; it closes nothing."""
        case = self._case_of(flag_id)
        if case is not None and flag_id in case.flags:
            case.flags[flag_id].note = text
            case.changed = True

    def review(self, flag_id: str) -> None:
        """Note the review of a flag; a case is closed once all its flags are reviewed."""
        case = self._case_of(flag_id)
        if case is None:
            return
        del self._subject_of[flag_id]
        case.flags[flag_id].reviewed = True
        if all(flag.reviewed for flag in case.flags.values()):
            self._of_subject.pop(case.subject, None)

    # ------------------------------------------------------------------ ranking

    def night(self, history: GuardHistory, capacity: float, position: int, moment: float) -> Iterator[CaseDraft]:
        """Rank the cases below the line, and open the best ones as far as the capacity goes.

        The capacity is ``capacity`` cases a week for 100 people who acted in the last 90 days. A case that is more
        likely wrong than right (``FLOOR``) stays below the line however much capacity there is.
        """
        people = people_at_work(history)
        self._capacity.grow(capacity * people / 100, moment)
        self._drop_stale(moment)
        self._cases.prior = prior_of(len(self._cases.sure), people)
        waiting = [case for case in self._in_order(history) if not case.opened]
        for place, case in enumerate(waiting, 1):
            if self._chance(case) >= FLOOR and self._capacity.take():
                case.opened, case.rank, case.changed = True, place, False
                yield self._draft(case, "opened", history, position, moment)
            elif case.changed:
                case.rank, case.changed = place, False
                yield self._draft(case, "ranked", history, position, moment)
        for case in sorted(self._of_subject.values(), key=lambda one: one.case_id):
            if case.opened and case.changed:
                case.changed = False
                yield self._draft(case, "updated", history, position, moment)

    def _in_order(self, history: GuardHistory) -> list[_Case]:
        usual = _usual_amounts(history) if self._of_subject else {}
        for case in self._of_subject.values():
            flags = case.open_flags()
            case.score = round(_chance(flags, self._cases.prior) * (1 + _size(flags, usual)), 2)
        return sorted(self._of_subject.values(), key=lambda case: (-case.score, case.case_id))

    def ranking(self, history: GuardHistory) -> list[RankedCase]:
        """Return all cases that are not closed, best first."""
        return [RankedCase(one.case_id, one.subject, self._chance(one), one.opened) for one in self._in_order(history)]

    def _chance(self, case: _Case) -> float:
        return _chance(case.open_flags(), self._cases.prior)

    def _drop_stale(self, moment: float) -> None:
        for key, at in [*self._cases.sure.items()]:
            if at < moment - STALE_SECONDS:
                del self._cases.sure[key]
        for subject, case in [*self._of_subject.items()]:
            if not case.opened and case.at < moment - STALE_SECONDS:
                del self._of_subject[subject]
                for flag_id in case.flags:
                    self._subject_of.pop(flag_id, None)

    def _draft(self, case: _Case, state: CaseState, history: GuardHistory, position: int, moment: float) -> CaseDraft:
        case.number += 1
        flags, prior = case.open_flags(), self._cases.prior
        rules = tuple(sorted({flag.rule for flag in flags}, key=rule_order))
        about = tuple(dict.fromkeys([case.subject, *(name for flag in flags for name in flag.about)]))
        return CaseDraft(
            case.case_id,
            case.number,
            state,
            case.subject,
            about,
            tuple(sorted(case.flags)),
            rules,
            case.rank,
            case.score,
            _expected_loss(flags, prior),
            _explanation(case.subject, flags, prior, history, moment),
            position,
            moment,
        )


def _chance(flags: Iterable[_FlagOfCase], prior: float) -> float:
    """Return the strength of all flags together: 1 - the product of the doubts (noisy or).

    Each rule counts once, and only with events that no stronger flag names: rules that see the same events agree by
    necessity.
    """
    doubt, rules, seen = 1.0, set[str](), set[int]()
    for flag in sorted(flags, key=lambda one: (-one.strength(prior), one.rule, min(one.evidence, default=0))):
        if flag.rule not in rules and seen.isdisjoint(flag.evidence):
            rules.add(flag.rule)
            seen |= flag.evidence
            doubt *= 1 - flag.strength(prior)
    return 1 - doubt


def _size(flags: Iterable[_FlagOfCase], usual: dict[str, float]) -> float:
    """Return the loss in usual actions of its currency."""
    return sum(minor / usual.get(currency, minor or 1) for currency, minor in _loss(flags).items())


def _loss(flags: Iterable[_FlagOfCase]) -> dict[str, int]:
    """Return the largest amount that a flag of each rule proves, by currency: rules may prove the same actions."""
    by_rule: dict[tuple[str, str], int] = {}
    for flag in flags:
        for currency, minor in flag.weight.minor.items():
            by_rule[flag.rule, currency] = by_rule.get((flag.rule, currency), 0) + minor
    largest: dict[str, int] = {}
    for (_, currency), minor in by_rule.items():
        largest[currency] = max(largest.get(currency, 0), minor)
    return largest


def _expected_loss(flags: list[_FlagOfCase], prior: float) -> tuple[int, str] | None:
    loss = _loss(flags)
    if not loss:
        return None
    currency = max(sorted(loss), key=lambda name: loss[name])
    return round(_chance(flags, prior) * loss[currency]), currency


def _usual_amounts(history: GuardHistory) -> dict[str, float]:
    """Return the median amount of an action by currency."""
    amounts = defaultdict[str, list[int]](list)
    for action in history.actions:
        if action.minor:
            amounts[action.currency].append(action.minor)
    return {currency: float(median(some)) for currency, some in amounts.items()}


def _explanation(subject: str, flags: list[_FlagOfCase], prior: float, history: GuardHistory, moment: float) -> str:
    """Return one paragraph: the strongest flag, the place to look first, the other rules, and peers' numbers."""
    first = max(flags, key=lambda flag: (flag.strength(prior), max(flag.weight.minor.values(), default=0)))
    text = [f"Look first at {first.rule}: {first.explanation}."]
    if first.weight.largest is not None:
        text.append(f"The largest amount is at position {first.weight.largest}.")
    others = sorted({flag.rule for flag in flags} - {first.rule}, key=rule_order)
    if others:
        text.append(f"{', '.join(others)} flag the same subject.")
    text += [note for flag in flags if (note := flag.note)]
    if subject.startswith("agent:"):
        text.append(_beside_peers(subject.removeprefix("agent:"), history, moment))
    return " ".join(text)


def _beside_peers(agent: str, history: GuardHistory, moment: float) -> str:
    """Return a sentence with the agent's actions of thirty days beside the medians of peers in the same role."""
    since, role = moment - _PEER_DAYS * DAY, history.role(agent, moment)
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for action in history.actions:
        if action.at >= since and (action.role == role or action.agent == agent):
            counts[action.agent] += 1
            sums[action.agent][action.currency] += action.minor
    mine = sums.get(agent, {})
    currency = max(sorted(mine), key=lambda name: mine[name], default="")
    peers = [name for name in counts if name != agent]
    own = f"In {_PEER_DAYS} days {agent} took {counts.get(agent, 0)} actions"
    own += f" of {money(mine[currency], currency)}" if currency else ""
    if not peers:
        return f"{own}; there are no peers in this role."
    usual = f"{median(counts[name] for name in peers):g} actions"
    if currency:
        usual += f" of {money(round(median(sums[name][currency] for name in peers)), currency)}"
    return f"{own}; the median of {len(peers)} peers in the same role is {usual}."
