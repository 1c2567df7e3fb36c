"""The summary: totals of a range of days, divided by one property, with the range before beside them."""

from __future__ import annotations

from asyncio import gather
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from statistics import fmean
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from domain.analytics.averages import count_interval, mean_interval, quantile_interval
from domain.analytics.empowerment_gap import Share, share
from domain.analytics.satisfaction import Satisfaction, satisfaction_of_counts
from domain.money import wire_of
from ledger.store.cloudevents import parse_time
from projections.reading import EVERYBODY
from projections.views.casework import GIVEN
from projections.views.totals import (
    NO_INTERACTIONS,
    PERIODS,
    ActionTotals,
    BudgetTotals,
    EscalationTotals,
    Group,
    HelpTotals,
    InteractionTotals,
    ScoreTotals,
    action_totals,
    budget_totals,
    budgets_within,
    escalation_totals,
    help_totals,
    interaction_totals,
    score_totals,
)

if TYPE_CHECKING:
    import sqlalchemy as sa

    from projections.date_ranges import DateRange
    from projections.engine.day_blocks import Array
    from projections.reading import AccessScope, Reader
    from projections.views.totals import By

type Amount = dict[str, str]
CAVEATS = (
    "an action, an escalation, an interaction and an answer belong to the event time at which they began",
    "budgets are those of periods with a day in the range, as a whole",
    "amounts of different currencies are never added",
    "first contact: judged seven days after the first resolution, for interactions that name a customer",
    "response: interactions opened in the range with an answer, whenever it came, of all opened in the range",
    "differences between groups and to the range before are descriptions: they do not show a cause",
)
_NOT_DIVIDED: Mapping[str, tuple[str, ...]] = {
    "agent_kind": ("budgets", "interactions", "satisfaction", "consistency"),
    "role": ("budgets", "interactions", "satisfaction", "consistency"),
    "kind": ("budgets", "interactions", "satisfaction", "consistency"),
    "reason": ("budgets",),
    "channel": ("budgets",),
}
"""The figures that a group has none of, because their events do not name that property."""


class Given(TypedDict):
    """Actions that were given in one currency: ``amount`` in all, ``goodwill`` of it; ``net`` of reversals.

    ``goodwill_actions`` is the number of actions of which ``median_goodwill`` is the median.
    """

    currency: str
    actions: int
    goodwill_actions: int
    amount: Amount
    goodwill: Amount
    reversed: Amount
    net: Amount
    median_goodwill: Amount | None
    median_goodwill_interval: list[Amount] | None


class BudgetFigures(TypedDict):
    """Budgets in one currency: ``granted`` over their life is spent, reserved, remaining and lapsed.

    ``lapsed`` is the rest of closed budgets, also where it was carried over. ``spent_share`` is spent / granted.
    """

    currency: str
    holders: int
    granted: Amount
    spent: Amount
    reserved: Amount
    remaining: Amount
    lapsed: Amount
    spent_share: float | None


class ActionFigures(TypedDict):
    """Actions: the number that was given, by state, and by currency."""

    given: int
    states: dict[str, int]
    by_currency: list[Given]


class EscalationFigures(TypedDict):
    """Escalations: by outcome, and the hours until their approval or denial. ``approved`` is of the decided ones."""

    requested: int
    outcomes: dict[str, int]
    approved: Share
    asked: list[Amount]
    approved_amount: list[Amount]
    hours_waited: WaitFigures


class WaitFigures(TypedDict):
    """Hours of ``n`` escalations."""

    n: int
    mean: float | None
    mean_interval: list[float] | None
    median: float | None
    median_interval: list[float] | None


class InteractionFigures(TypedDict):
    """Interactions that were opened, and their outcomes."""

    opened: int
    resolved: Share
    first_contact: Share
    transferred: Share
    mean_transfers: float | None
    mean_transfers_interval: list[float] | None
    reopened: Share
    stories_repeated: Share


class Figures(TypedDict):
    """The figures of a group; ``None`` for those that are not divided by its property."""

    actions: ActionFigures
    budgets: list[BudgetFigures] | None
    escalations: EscalationFigures
    interactions: InteractionFigures | None
    satisfaction: list[Satisfaction] | None
    consistency: Share | None
    """Interactions in which goodwill was given."""


class GroupFigures(Figures):
    """The figures of one group, and those of the same group in the range before."""

    group: str
    before: Figures | None


class TotalFigures(Figures):
    """The figures of the whole range, and those of the range before."""

    before: Figures | None


Summary = TypedDict(
    "Summary",
    {
        "from": str | None,
        "to": str | None,
        "time_zone": str,
        "by_time": str,
        "by": str | None,
        "not_divided": Sequence[str],
        "before": dict[str, str | None] | None,
        "total": TotalFigures,
        "groups": list[GroupFigures],
        "caveats": Sequence[str],
        "rung": int,
        "position": int,
    },
)
"""The document of `report summary`; `from` is a word of the language. `rung`: all figures are descriptions, level 1."""


class _Read:
    """The totals of one range by group."""

    def __init__(
        self,
        actions: Mapping[str, ActionTotals],
        escalations: Mapping[str, EscalationTotals],
        handled: tuple[Mapping[str, InteractionTotals], Mapping[str, ScoreTotals]],
        helped: Mapping[str, HelpTotals],
        budgets: Mapping[tuple[str, str], BudgetTotals],
    ) -> None:
        self.actions, self.escalations, self.budgets, self.helped = actions, escalations, budgets, helped
        self.interactions, self.scores = handled
        self.budgets_of = _by_label(budgets)

    def labels(self) -> set[str]:
        """Return all groups."""
        return {label for label, _ in self.budgets}.union(
            self.actions, self.escalations, self.interactions, self.scores
        )

    def whole(self, budgets: Mapping[tuple[str, str], BudgetTotals]) -> _Read:
        """Return the totals of all groups; those of budgets are given, because a group may lack some."""
        actions, escalations, handled = ActionTotals(), EscalationTotals(), NO_INTERACTIONS
        scores: ScoreTotals = {}
        for done in self.actions.values():
            actions.add(done)
        for asked in self.escalations.values():
            escalations.add(asked)
        for some in self.interactions.values():
            handled = handled.plus(some)
        for answers in self.scores.values():
            for scale, counts in answers.items():
                scores.setdefault(scale, Counter()).update(counts)
        helped = HelpTotals(*(sum(one[at] for one in self.helped.values()) for at in range(2)))
        return _Read({"": actions}, {"": escalations}, ({"": handled}, {"": scores}), {"": helped}, budgets)


def _by_label[T](totals: Mapping[tuple[str, str], T]) -> Mapping[str, list[tuple[str, T]]]:
    """Return totals by label: each with its currency or instrument, in their order."""
    found: defaultdict[str, list[tuple[str, T]]] = defaultdict(list)
    for (label, name), total in sorted(totals.items(), key=itemgetter(0)):
        found[label].append((name, total))
    return found


type _Budgets = Mapping[tuple[str, str], BudgetTotals]


class _Totals:
    """Reads the totals of ranges, and notes the lowest position of the views behind them."""

    def __init__(self, read: Reader, by: By | None, scope: AccessScope) -> None:
        self._read, self._by, self._scope = read, by, scope
        self.positions: set[int] = set()

    async def query[T](self, view: str, query: Callable[[sa.Connection], T]) -> T:
        """Return the result of a query on a view."""
        answer = await self._read(view, query)
        self.positions.add(answer.progress.anchor.position)
        return answer.result

    async def of(self, times: DateRange) -> tuple[_Read, _Budgets]:
        """Return the totals of a range by group, and those of all its budgets; views are read at the same time."""
        group, whole = Group(times, self._by, self._scope), Group(times, None, self._scope)
        recorded = (await self._read("journeys", lambda _connection: None)).progress.recorded
        now = parse_time(recorded) if recorded else datetime.now(UTC)

        def budgets(connection: sa.Connection) -> tuple[_Budgets, _Budgets]:
            rows = budgets_within(connection, times)
            return budget_totals(rows, group), budget_totals(rows, whole)

        (by_group, in_all), (done, asked, helped), handled = await gather(
            self.query("budget_balances", budgets),
            self.query(
                "casework", lambda c: (action_totals(c, group), escalation_totals(c, group), help_totals(c, group))
            ),
            self.query("journeys", lambda c: (interaction_totals(c, group, now), score_totals(c, group))),
        )
        return _Read(done, asked, handled, helped, by_group), in_all


async def summary(read: Reader, times: DateRange, by: By | None = None, scope: AccessScope = EVERYBODY) -> Summary:
    """Return the totals of a range of event times, by group and as a whole, with the range before beside them.

    A range without a begin or an end has none before it. A ``scope`` limits the figures to its people and teams.
    """
    earlier, totals = times.before(), _Totals(read, by, scope)
    now, *before = await gather(*map(totals.of, (times,) if earlier is None else (times, earlier)))
    return _document(times, by, now, before[0] if before else None, min(totals.positions))


def _document(
    times: DateRange, by: By | None, now: tuple[_Read, _Budgets], then: tuple[_Read, _Budgets] | None, position: int
) -> Summary:
    """Return the figures of the totals of a range, with those of the range before beside them."""
    earlier, (parts, _) = times.before(), now
    parts_before = None if then is None else then[0]
    whole, whole_before = (None if one is None else one[0].whole(one[1]) for one in (now, then))
    assert whole is not None
    groups: list[GroupFigures] = []
    for label in sorted(parts.labels() - {""}):
        before = None if parts_before is None or by in PERIODS else _figures(parts_before, label, by)
        groups.append({"group": label, **_figures(parts, label, by), "before": before})
    if by not in PERIODS:
        groups.sort(key=lambda one: (-one["actions"]["given"], one["group"]))
    begin, end = times.texts
    return {
        "from": begin,
        "to": end,
        "time_zone": times.zone.key,
        "by_time": "happened",
        "by": by,
        "not_divided": _NOT_DIVIDED.get(by or "", ()),
        "before": None if earlier is None else dict(zip(("from", "to"), earlier.texts, strict=True)),
        "total": {
            **_figures(whole, "", None),
            "before": None if whole_before is None else _figures(whole_before, "", None),
        },
        "groups": groups,
        "caveats": CAVEATS,
        "rung": 1,
        "position": position,
    }


def _figures(of: _Read, label: str, by: By | None) -> Figures:
    """Return the figures of a group."""
    lacks = _NOT_DIVIDED.get(by or "", ())
    handled, helped = of.interactions.get(label, NO_INTERACTIONS), of.helped.get(label, HelpTotals(0, 0))
    return {
        "actions": _of_actions(of.actions.get(label, ActionTotals())),
        "budgets": None if "budgets" in lacks else [_of_budget(*one) for one in of.budgets_of[label]],
        "escalations": _of_escalations(of.escalations.get(label, EscalationTotals())),
        "interactions": None if "interactions" in lacks else _of_interactions(handled),
        "satisfaction": None if "satisfaction" in lacks else _of_scores(of.scores.get(label, {}), handled),
        "consistency": None if "consistency" in lacks else share(helped.helped, helped.opened),
    }


def _of_actions(totals: ActionTotals) -> ActionFigures:
    found: list[Given] = []
    for currency, number in sorted(totals.number.items()):
        amounts = totals.goodwill_amounts[currency]
        goodwill = np.concatenate(amounts) if amounts else np.empty(0, np.int64)
        interval = quantile_interval(goodwill)
        one: Given = {
            "currency": currency,
            "actions": number,
            "goodwill_actions": len(goodwill),
            "amount": wire_of(totals.minor[currency], currency),
            "goodwill": wire_of(totals.goodwill_minor[currency], currency),
            "reversed": wire_of(totals.reversed_minor[currency], currency),
            "net": wire_of(totals.minor[currency] - totals.reversed_minor[currency], currency),
            "median_goodwill": _median(goodwill, currency),
            "median_goodwill_interval": interval and [wire_of(end, currency) for end in interval],
        }
        found.append(one)
    states = dict(sorted(totals.states.items()))
    return {"given": sum(states.get(state, 0) for state in GIVEN), "states": states, "by_currency": found}


def _median(values: Array, currency: str) -> Amount | None:
    """Return the lower median of amounts in minor units."""
    if not len(values):
        return None
    middle = (len(values) - 1) // 2
    return wire_of(int(np.partition(values, middle)[middle]), currency)


def _of_budget(currency: str, totals: BudgetTotals) -> BudgetFigures:
    granted, spent, reserved, lapsed = (
        totals.granted_minor,
        totals.spent_minor,
        totals.reserved_minor,
        totals.lapsed_minor,
    )
    return {
        "currency": currency,
        "holders": len(totals.holders),
        "granted": wire_of(granted, currency),
        "spent": wire_of(spent, currency),
        "reserved": wire_of(reserved, currency),
        "remaining": wire_of(granted - spent - reserved - lapsed, currency),
        "lapsed": wire_of(lapsed, currency),
        "spent_share": spent / granted if granted > 0 else None,
    }


def _of_escalations(totals: EscalationTotals) -> EscalationFigures:
    outcomes, hours = totals.outcomes, np.array(totals.hours)
    approved = outcomes.get("approved", 0)
    mean = fmean(totals.hours) if totals.hours else None
    return {
        "requested": sum(outcomes.values()),
        "outcomes": dict(sorted(outcomes.items())),
        "approved": share(approved, approved + outcomes.get("denied", 0)),
        "asked": [wire_of(minor, currency) for currency, minor in sorted(totals.asked_minor.items())],
        "approved_amount": [wire_of(minor, currency) for currency, minor in sorted(totals.approved_minor.items())],
        "hours_waited": {
            "n": len(hours),
            "mean": mean,
            "mean_interval": None if mean is None else mean_interval(hours, mean),
            "median": float(np.median(hours)) if len(hours) else None,
            "median_interval": quantile_interval(hours),
        },
    }


def _of_interactions(totals: InteractionTotals) -> InteractionFigures:
    opened = totals.opened
    return {
        "opened": opened,
        "resolved": share(totals.resolved, opened),
        "first_contact": share(totals.first_contact, totals.known),
        "transferred": share(totals.transferred, opened),
        "mean_transfers": totals.transfers / opened if opened else None,
        "mean_transfers_interval": count_interval(totals.transfers, totals.transfers_squared, opened),
        "reopened": share(totals.reopened, opened),
        "stories_repeated": share(totals.repeated, totals.told),
    }


def _of_scores(scores: ScoreTotals, handled: InteractionTotals) -> list[Satisfaction]:
    return satisfaction_of_counts(scores, handled.answered, handled.opened)
