"""The flags that the guard has raised: their evidence, reviews, sleep after a dismissal, and late facts about them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from domain.abuse.cases import Weight
from domain.abuse.findings import RuleFinding
from domain.abuse.history import DAY, REMEMBERED_SECONDS
from domain.events import decisions, facts
from domain.keyed_state import Queue, keyed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from domain.abuse.history import GuardEvent, ObservedAction
    from domain.events.flags import Verdict
    from domain.keyed_state import State

SLEEP_SECONDS = 90 * DAY
"""The time for which a dismissed pattern raises no flag, unless its amount doubles."""
_GROWS_BY = 1.5
_FALLS_TO, _CERTAIN = 0.3, 1e-8
"""A flag is told anew at so small a part of its chance, until the chance is so small that less says nothing more."""
_ORDER_RULES = {"R7", "R14", "R16"}
_SHIFT_RULES = {"R6"}
_CUSTOMER_RULES = {"R3", "R4", "R10", "R17"}


class FlagDraft(NamedTuple):
    """A flag to raise (number 1), or more evidence for it (2 and on), found at ``position``."""

    flag_id: str
    number: int
    finding: RuleFinding
    position: int
    recorded: float


class _Amount(NamedTuple):
    """The money of an event that may be evidence, and the things that a late fact could name."""

    at: float
    minor: int
    currency: str
    agent: str
    order: str | None = None
    customer: str | None = None


@dataclass
class _Flag:
    flag_id: str
    number: int
    evidence: set[int]
    told: int
    finding: RuleFinding
    raised: float
    happened: float
    reviewed: int = 0
    note: str = ""


@dataclass
class _Sleep:
    """A dismissed pattern: until when it sleeps, the amounts dismissed, and the evidence since."""

    until: float
    reviewed: int
    minor: dict[str, int]
    evidence: int
    since: set[int] = field(default_factory=set)
    since_minor: dict[str, int] = field(default_factory=dict)


class FlagBook:
    """The state of all flags. A flag is raised once.

    It is updated when its evidence has grown by half, or when its chance has fallen to three tenths.
    """

    def __init__(self, state: State) -> None:
        self._flags = state.table("flags", _Flag)
        self._of_case = state.table("flags by case", str)
        self._sleeping = state.table("flags that sleep", _Sleep)
        self._amounts = state.table("amounts", _Amount)
        self._order = Queue(state, "amounts in order", list[tuple[float, int]])
        self._named = state.table("flags by name", list[str])

    # ------------------------------------------------------------------ amounts

    def learn(self, event: GuardEvent, action: ObservedAction | None) -> None:
        """Note the amount of an event that may be evidence, for 90 days."""
        body = event.body
        if action is not None:
            money = _Amount(event.at, action.minor, action.currency, action.agent, action.order, action.customer)
        elif isinstance(body, decisions.EscalationApproved):
            money = _Amount(event.at, body.amount.minor, body.amount.currency, body.agent_id, None, body.customer_id)
        elif isinstance(body, (decisions.BudgetGranted, decisions.BudgetTransferred)):
            money = _Amount(event.at, body.amount.minor, body.amount.currency, body.holder)
        else:
            return
        self._amounts.put(_place(event.position), money)
        self._order.append((event.recorded, event.position))
        while (oldest := self._order.first()) is not None and oldest[0] < event.recorded - REMEMBERED_SECONDS:
            self._amounts.drop(_place(self._order.pop_first()[1]))

    def weight(self, evidence: Iterable[int]) -> Weight:
        """Return the amounts of some evidence."""
        minor, largest = defaultdict[str, int](int), list[tuple[int, int]]()
        for position in evidence:
            if (amount := self._amounts.get(_place(position))) is not None:
                minor[amount.currency] += amount.minor
                largest.append((amount.minor, -position))
        return Weight(dict(minor), -max(largest)[1] if largest else None)

    # ------------------------------------------------------------------ raising

    def told(self, finding: RuleFinding, event: GuardEvent) -> FlagDraft | None:
        """Return the flag to raise or update for a finding, or ``None``. After a review only newer evidence counts."""
        flag = self._flags.get(self._of_case.get(keyed(*finding.case)) or "")
        woken = self._woken(finding, event.recorded)
        if woken is None:
            return None
        if woken:
            finding, flag = replace(finding, evidence=woken), None
        elif flag is not None and flag.reviewed:
            fresh = tuple(position for position in finding.evidence if position > flag.reviewed)
            if len(fresh) * 2 < len(flag.evidence) or not fresh:
                return None
            finding, flag = replace(finding, evidence=fresh), None
        if flag is None or flag.evidence.isdisjoint(finding.evidence):
            return self._raise(finding, event)
        flag.evidence |= set(finding.evidence)
        self._flags.put(flag.flag_id, flag)
        if len(flag.evidence) < _GROWS_BY * flag.told and not _is_less_likely(finding, flag.finding):
            return None
        return self._update(flag, finding, event)

    def _raise(self, finding: RuleFinding, event: GuardEvent) -> FlagDraft:
        known = [amount for position in finding.evidence if (amount := self._amounts.get(_place(position)))]
        happened = max((amount.at for amount in known), default=event.at)
        flag = _Flag(
            finding.flag_id(), 1, set(finding.evidence), len(finding.evidence), finding, event.recorded, happened
        )
        self._flags.put(flag.flag_id, flag)
        self._of_case.put(keyed(*finding.case), flag.flag_id)
        for name in sorted(set(_names(finding, known))):
            key = keyed(*name)
            self._named.put(key, [*(self._named.get(key) or ()), flag.flag_id])
        return FlagDraft(flag.flag_id, 1, finding, event.position, event.recorded)

    def _update(self, flag: _Flag, finding: RuleFinding, event: GuardEvent) -> FlagDraft:
        flag.number, flag.told = flag.number + 1, len(flag.evidence)
        text = f"{finding.explanation}{flag.note}"
        flag.finding = replace(finding, evidence=tuple(sorted(flag.evidence)))
        self._flags.put(flag.flag_id, flag)
        return FlagDraft(
            flag.flag_id, flag.number, replace(flag.finding, explanation=text), event.position, event.recorded
        )

    # ------------------------------------------------------------------ reviews

    def review(self, flag_id: str, position: int, verdict: Verdict | None, recorded: float) -> None:
        """Note a review. A dismissed pattern, a rule about the same people, sleeps; no verdict changes a threshold."""
        flag = self._flags.get(flag_id)
        if flag is None:
            return
        flag.reviewed = position
        self._flags.put(flag_id, flag)
        pattern = keyed(flag.finding.rule, *flag.finding.about)
        if verdict == "dismissed":
            minor = self.weight(flag.evidence).minor
            self._sleeping.put(pattern, _Sleep(recorded + SLEEP_SECONDS, position, minor, len(flag.evidence)))
        else:
            self._sleeping.drop(pattern)

    def _woken(self, finding: RuleFinding, recorded: float) -> tuple[int, ...] | None:
        """Return the evidence since the dismissal whose amount doubles the pattern's; empty: nothing sleeps.

        ``None``: the pattern sleeps on. Where the evidence has no amounts, its number counts.
        """
        pattern = keyed(finding.rule, *finding.about)
        sleep = self._sleeping.get(pattern)
        if sleep is None:
            return ()
        if recorded >= sleep.until:
            self._sleeping.drop(pattern)
            return ()
        new = {position for position in finding.evidence if position > sleep.reviewed} - sleep.since
        sleep.since |= new
        for currency, minor in self.weight(new).minor.items():
            sleep.since_minor[currency] = sleep.since_minor.get(currency, 0) + minor
        self._sleeping.put(pattern, sleep)
        doubled = (
            any(minor >= max(sleep.minor.get(currency, 0), 1) for currency, minor in sleep.since_minor.items())
            if sleep.minor
            else len(sleep.since) >= sleep.evidence
        )
        if not doubled:
            return None
        self._sleeping.drop(pattern)
        return tuple(sorted(sleep.since))

    # ------------------------------------------------------------------ late facts

    def late(self, event: GuardEvent) -> Iterator[FlagDraft]:
        """Yield an update for each open flag that a back-dated fact would have prevented; it stays open."""
        for name in _told_about(event.body):
            for flag_id in self._named.get(keyed(*name)) or ():
                flag = self._flags.get(flag_id)
                if flag is None or flag.reviewed or flag.note:
                    continue
                if event.at > flag.happened or event.recorded < flag.raised:
                    continue
                flag.note = (
                    f"; a fact of an earlier time that was recorded after the flag (position {event.position}, "
                    f"{name[0]} {name[1]}) would speak for the subject"
                )
                flag.evidence.add(event.position)
                yield self._update(flag, flag.finding, event)

    def note_of(self, flag_id: str) -> str:
        """Return the note about a late fact of a flag, or an empty text."""
        flag = self._flags.get(flag_id)
        return "" if flag is None else flag.note


def _is_less_likely(finding: RuleFinding, told: RuleFinding) -> bool:
    """Return whether the chance of a finding is at most three tenths of the one that was told."""
    return finding.p is not None and told.p is not None and told.p > _CERTAIN and finding.p <= _FALLS_TO * told.p


def _place(position: int) -> str:
    """Return the key of a position, in the order of positions, so that new rows share pages."""
    return f"{position:015d}"


def _names(finding: RuleFinding, known: Iterable[_Amount]) -> Iterator[tuple[str, str]]:
    """Yield the things that a late fact would name if it spoke against a finding."""
    for amount in known:
        if finding.rule in _ORDER_RULES and amount.order is not None:
            yield "order", amount.order
        if finding.rule in _SHIFT_RULES:
            yield "shift of", amount.agent
        if finding.rule in _CUSTOMER_RULES and amount.customer is not None:
            yield "customer", amount.customer


def _told_about(body: object) -> tuple[tuple[str, str], ...]:
    match body:
        case facts.PurchaseCompleted():
            return (("order", body.order_id),)
        case facts.ShiftStarted() | facts.ShiftEnded():
            return (("shift of", body.employee_id),)
        case facts.CustomerUnlinked():
            return ("customer", body.a), ("customer", body.b)
        case _:
            return ()
