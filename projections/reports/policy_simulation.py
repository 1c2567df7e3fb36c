"""The document of `report what-if`, from one pass over the log; also for a policy in shadow mode."""

from __future__ import annotations

import gc
import math
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from domain.abuse.findings import rule_order
from domain.abuse.guard import Guard
from domain.abuse.history import GuardEvent
from domain.analytics.averages import quantile_interval
from domain.commands import action_id_of
from domain.events import facts
from domain.events.flags import FlagReviewed
from domain.money import wire_of
from domain.policy.parsing import read_policy
from domain.simulation.comparison import DecisionSummary
from domain.simulation.what_if_replay import PolicyReplay, ShadowRecord
from projections.engine.corrections import correction_of, originals_of
from projections.engine.events import TYPES, UnknownEventError, read_event, type_in
from projections.policy_history import in_force_now
from projections.views.decisions import DEPENDED, Corrected, Reported, read_depended

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Mapping, Sequence
    from datetime import datetime

    import msgspec
    import sqlalchemy as sa

    from domain.abuse.findings import RuleFinding
    from domain.events import decisions
    from domain.policy.model import Policy
    from domain.serialization import JsonObject
    from domain.simulation.comparison import Difference, OutcomeComparison
    from ledger.store.log import Log, Recorded
    from projections.engine.events import Event
    from projections.reading import Reader
    from projections.views.decisions import Depended

CAVEATS = (
    "people would have behaved differently: with more authority they ask for other amounts, with less they give up",
    "a request that would have been escalated is not assumed to be approved: it counts neither as spent nor as saved",
    "effects on customers are not simulated; see `report loyalty`",
)


class OutcomeChange(TypedDict):
    """Decisions of one kind by their outcome in history and under the other policy."""

    kind: str
    then: str
    would_be: str
    n: int
    amount: dict[str, str]


class PeriodSpend(TypedDict):
    """Goodwill of a period, in history and under the other policy."""

    period: str
    spent: dict[str, str]
    would_be_spent: dict[str, str]


class ActualOutcome(TypedDict):
    """The outcome in history of actions that would have been taken at once."""

    outcome: str
    n: int
    amount: dict[str, str]


class EscalationsSaved(TypedDict):
    """Actions that would have been taken at once, and the waiting that they would not have needed.

    ``waited`` is the number of escalations of which the hours are known, and ``median_hours`` the median.
    """

    n: int
    given_at_once: int
    waited: int
    hours_not_waited: float
    median_hours: float | None
    median_hours_interval: list[float] | None
    outcomes: list[ActualOutcome]


class LimitHits(TypedDict):
    """The counts of a rule in history and under the other policy."""

    rule: str
    then: int
    would_be: int


class RuleFlags(TypedDict):
    """The flags of a rule, in history and under the other policy."""

    rule: str
    raised: int
    would_be_raised: int


class FlagChanges(TypedDict):
    """The flags that the other policy would have changed."""

    by_rule: list[RuleFlags]
    new: int
    gone: int


class WhatIfReport(TypedDict):
    """The document of `report what-if`; ``items`` are the fields of `Difference`, with money as an object."""

    policy_version: int
    instead_of: int | None
    since_position: int | None
    decisions: int
    differences: int
    changes: list[OutcomeChange]
    spend: list[PeriodSpend]
    escalations_saved: EscalationsSaved
    limits_hit: list[LimitHits]
    flags: FlagChanges | None
    unknown_people: int
    items: list[JsonObject]
    caveats: Sequence[str]
    position: int


class PolicySimulation:
    """A simulation that takes batches of the log; ``document`` returns its result."""

    def __init__(
        self,
        policy: Policy | None,
        published: Sequence[decisions.PolicyPublished],
        since: datetime | None,
        *,
        flags: bool,
    ) -> None:
        """Create a simulation.

        Without ``policy`` it reports the newest policy in shadow mode, as recorded. Without ``since`` it starts with
        the first decision under the policy that is now in force.

        Raises:
            LookupError: no policy was published in shadow mode.

        """
        ruling = in_force_now(published)
        version = ruling.version if ruling is not None else 0

        def begins(record: DecisionSummary, at: datetime) -> bool:
            if since is not None:
                return at >= since
            return record.policy_version is None or record.policy_version >= version

        self.what_if: PolicyReplay | ShadowRecord
        if policy is not None:
            self.what_if = PolicyReplay(policy, published, begins)
        else:
            shadow = next((one for one in reversed(published) if one.policy.get("mode") == "shadow"), None)
            if shadow is None:
                raise LookupError
            self.what_if = ShadowRecord(read_policy(shadow.policy), shadow.version)
        self.against = version
        self._guards = (Guard(), Guard()) if flags else None
        self._raised: tuple[dict[str, RuleFinding], dict[str, RuleFinding]] = ({}, {})
        self._types: Mapping[str, type[msgspec.Struct]] = TYPES if flags else DEPENDED
        self._names = frozenset(name.encode() for name in self._types)

    def take(self, batch: Sequence[Recorded], originals: dict[int, Recorded]) -> None:
        """Judge the decisions of a batch of the log again; ``originals`` come from `originals_of`."""
        for recorded in batch:
            if type_in(recorded.data) not in self._names:
                continue  # decisions do not depend on this type
            try:
                event = read_event(recorded, self._types)
            except UnknownEventError:
                continue  # written by a later version
            self._take(event, originals)

    def take_again(self, some: Sequence[Depended]) -> None:
        """Judge decisions from the view `decisions`, which is faster; without flags and without shadow verdicts."""
        what_if = self.what_if
        assert isinstance(what_if, PolicyReplay)
        for position, at, body in some:
            if isinstance(body, DecisionSummary):
                what_if.decide(position, at, body)
            elif isinstance(body, Corrected):
                what_if.correct(position, body.before, body.after)
            elif isinstance(body, Reported):
                what_if.take(position, at, body.body, body.action_id)
            else:
                what_if.take(position, at, body)

    def _take(self, event: Event, originals: dict[int, Recorded]) -> None:
        body, stored = event.body, event.stored
        after: msgspec.Struct | None = body
        action_id = action_id_of(stored.source, stored.id) if isinstance(body, facts.ActionReported) else ""
        position = stored.corrects
        if position is not None and position in originals:
            correction = correction_of(event, originals[position])
            before, known = correction.before, correction.after
            self.what_if.correct(event.position, before.body if before else None, known.body if known else None)
        elif self._guards is None or event.type in DEPENDED:
            after = self.what_if.take(event.position, event.time, body, action_id)
        if self._guards is None:
            return
        at, told = event.time.timestamp(), event.recorded.timestamp()
        for guard, seen, raised in zip(self._guards, (body, after), self._raised, strict=True):
            if isinstance(seen, FlagReviewed):
                guard.reviewed(seen.flag_id, event.position)
            elif seen is not None:
                for one in guard.take(GuardEvent(event.position, at, told, seen, action_id)):
                    raised[one.flag_id] = one.finding

    def document(self, position: int) -> WhatIfReport:
        """Return the result as of a position, with money as objects."""
        found, comparison = self.what_if, self.what_if.comparison
        periods: list[PeriodSpend] = [
            {"period": period, "spent": wire_of(then, currency), "would_be_spent": wire_of(now, currency)}
            for (period, currency), (then, now) in sorted(found.state.spent.items())
        ]
        return {
            "policy_version": found.state.rules.version,
            "instead_of": self.against,
            "since_position": found.diverged_at,
            "decisions": comparison.decisions,
            "differences": comparison.differences,
            "changes": _changes(comparison),
            "spend": periods,
            "escalations_saved": _saved(comparison),
            "limits_hit": _hits(*comparison.hit),
            "flags": self._flags(),
            "unknown_people": found.unknown,
            "items": [_item(one) for one in comparison.shown],
            "caveats": CAVEATS,
            "position": position,
        }

    def _flags(self) -> FlagChanges | None:
        if self._guards is None:
            return None
        then, now = self._raised
        by_rule: list[RuleFlags] = [
            {
                "rule": rule,
                "raised": sum(one.rule == rule for one in then.values()),
                "would_be_raised": sum(one.rule == rule for one in now.values()),
            }
            for rule in sorted({one.rule for one in (*then.values(), *now.values())}, key=rule_order)
        ]
        return {"by_rule": by_rule, "new": len(now.keys() - then.keys()), "gone": len(then.keys() - now.keys())}


async def try_policy(
    log: Log, batches: AsyncIterable[list[Recorded]], trying: PolicySimulation, progressed: Callable[[int], None]
) -> WhatIfReport:
    """Read the log once, and return the simulation's document."""
    position = 0
    async for batch in batches:
        trying.take(batch, await originals_of(log, batch))
        position = batch[-1].position
        progressed(position)
    return trying.document(position)


async def try_quickly(read: Reader, trying: PolicySimulation, progressed: Callable[[int], None]) -> WhatIfReport:
    """Return the same document from the view `decisions`, which holds only the fields needed."""

    def judge(connection: sa.Connection) -> None:
        gc.disable()  # a million live objects would only slow the collector down
        try:
            for some in read_depended(connection):
                trying.take_again(some)
                progressed(some[-1][0])
        finally:
            gc.enable()

    answer = await read("decisions", judge)
    return trying.document(answer.progress.anchor.position)


def _changes(found: OutcomeComparison) -> list[OutcomeChange]:
    return [
        {"kind": kind, "then": then, "would_be": now, "n": number, "amount": wire_of(minor, currency)}
        for (kind, currency, then, now), (number, minor) in sorted(
            found.changes.items(), key=lambda one: (-one[1][0], one[0])
        )
    ]


def _saved(found: OutcomeComparison) -> EscalationsSaved:
    """Return the outcomes in history of actions that would have been taken at once."""
    outcomes: Counter[str] = Counter()
    minor: Counter[tuple[str, str]] = Counter()
    waits: list[float] = []
    for one in found.spared:
        open_or_not = "undecided" if one.escalation_id else "not asked"
        outcome, waited = found.waited.get(one.escalation_id or "", (open_or_not, None))
        outcomes[outcome] += 1
        minor[outcome, one.currency] += one.minor
        waits += [waited] if waited is not None else []
    return {
        "n": sum(one.escalation_id is not None for one in found.spared),
        "given_at_once": len(found.spared),
        "waited": len(waits),
        "hours_not_waited": math.fsum(waits) / 3600,
        "median_hours": median(waits) / 3600 if waits else None,
        "median_hours_interval": quantile_interval(np.array(waits) / 3600),
        "outcomes": [
            {"outcome": outcome, "n": outcomes[outcome], "amount": wire_of(total, currency)}
            for (outcome, currency), total in sorted(minor.items())
        ],
    }


def _hits(then: Counter[str], now: Counter[str]) -> list[LimitHits]:
    return [
        {"rule": rule, "then": then[rule], "would_be": now[rule]}
        for rule in sorted(then.keys() | now.keys(), key=lambda name: (-then[name] - now[name], name))
    ]


def _item(one: Difference) -> JsonObject:
    found = one._asdict()
    del found["minor"], found["currency"]
    return found | {"amount": wire_of(one.minor, one.currency)}
