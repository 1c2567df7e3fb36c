"""Totals of views over a range of event times, by group, from day blocks, so that history may have any length."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import sqlalchemy as sa

from domain.analytics.service_quality import NOT_SAID, REPEAT_DAYS
from domain.periods import PeriodKind, bounds_of, kind_of, period_of
from projections.date_ranges import DateRange
from projections.engine.day_blocks import Array, DayColumns
from projections.engine.row_cache import plain_rows
from projections.reading import AccessScope
from projections.views.balances import balances, read_periods
from projections.views.casework import ACTION_DAYS, ESCALATION_DAYS, GIVEN, INTERACTION_DAYS
from projections.views.journeys import ANSWERED, FEEDBACK_DAYS, JOURNEY_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

    from numpy.typing import NDArray

    from domain.analytics.satisfaction import Scale
    from projections.engine.day_blocks import DayTable

type By = Literal["day", "week", "month", "team", "agent", "agent_kind", "role", "kind", "reason", "channel"]
PERIODS: tuple[By, ...] = ("day", "week", "month")
_HOUR = 3600
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


class Group(NamedTuple):
    """A range of event times, and how it is divided; ``by`` is ``None`` for one total."""

    times: DateRange
    by: By | None
    scope: AccessScope

    def chunks(self, connection: sa.Connection, table: DayTable, names: Sequence[str]) -> Iterator[_Chunk]:
        """Yield the rows of a table that belong to the range and that the reader may see."""
        divided = self.by if self.by in table.columns else None
        named = "named" if "named" in table.columns else "team"
        limited = ("agent", named) if self.scope.people is not None else ()
        columns = DayColumns.of(connection, table, (*names, *limited, *((divided,) if divided else ())))
        for values in columns.read(connection, *self.times.texts):
            found = values
            if self.scope.people is not None:
                agents = np.array([word in self.scope.people for word in columns.words.of("agent")])
                teams = np.array([word in self.scope.teams for word in columns.words.of(named)])
                seen = agents[found["agent"]] | teams[found[named]]
                found = {name: column[seen] for name, column in found.items()}
            moments = found["moment"]
            if not len(moments):
                continue
            if self.by in PERIODS:
                keys, labels = _by_period(moments, _period_kind(self.by), self.times.zone)
            elif divided:
                keys, labels = found[divided], [word or NOT_SAID for word in columns.words.of(divided)]
            else:
                keys, labels = np.zeros(len(moments), np.int64), [""]
            yield _Chunk(keys, labels, found, {name: columns.words.of(name) for name in names if name in _WORDS})


_WORDS = frozenset(("currency", "state", "status", "instrument", "scale"))


class _Chunk(NamedTuple):
    """Some rows of a group: the number of each row's label, the labels, the columns, and the words of columns."""

    keys: Array
    labels: Sequence[str]
    columns: Mapping[str, Array]
    words: Mapping[str, Sequence[str | None]]

    def sums(self, divided: Sequence[str | Array], summed: Sequence[str | Array]) -> Iterator[tuple[str, list[int]]]:
        """Yield each label with the numbers of ``divided``, the number of rows, and the sums of ``summed``."""
        parts = [self.keys, *(self.columns[one] if isinstance(one, str) else one for one in divided)]
        shape = tuple(int(part.max()) + 1 for part in parts)
        places = np.ravel_multi_index([part.astype(np.int64) for part in parts], shape)
        counts = np.bincount(places)
        used = np.flatnonzero(counts)
        added = (self.columns[one] if isinstance(one, str) else one for one in summed)
        totals = [counts[used], *(sum_by_place(places, values)[used] for values in added)]
        for key, *numbers in zip(*np.unravel_index(used, shape), *totals, strict=True):
            yield self.labels[int(key)], [int(number) for number in numbers]


def sum_by_place(places: NDArray[np.int64], values: Array) -> NDArray[np.int64]:
    """Return the exact sum of the values of each place; floats add them where they hold every sum exactly."""
    most = max(abs(int(values.max(initial=0))), abs(int(values.min(initial=0))))
    if most * len(values) < _EXACT:
        return np.bincount(places, weights=values).astype(np.int64)
    total = np.zeros(int(places.max(initial=-1)) + 1, np.int64)
    np.add.at(total, places, values)
    return total


_EXACT = 1 << 53
"""A float holds every whole number below this."""


def _by_period(moments: Array, kind: PeriodKind, zone: ZoneInfo) -> tuple[NDArray[np.int64], list[str]]:
    """Return the number of each time's period, and the periods."""
    first, last = int(moments.min()), int(moments.max())
    begins, labels = [first], [period_of(_EPOCH + timedelta(microseconds=first), kind, zone)]
    while (after := _end_of(labels[-1], zone)) <= last:
        begins.append(after)
        labels.append(period_of(_EPOCH + timedelta(microseconds=after), kind, zone))
    return np.searchsorted(begins, moments, side="right") - 1, labels


@lru_cache(maxsize=1 << 14)
def _end_of(period: str, zone: ZoneInfo) -> int:
    return _microseconds(bounds_of(period, zone)[1])


def _period_kind(by: By | None) -> PeriodKind:
    return "week" if by == "week" else "month" if by == "month" else "day"


type Counts = defaultdict[str, int]
"""Numbers by name; a ``Counter`` takes ten times as long to make, and a summary makes tens of thousands."""


def _add(counts: Counts, more: Mapping[str, int]) -> None:
    for name, number in more.items():
        counts[name] += number


class ActionTotals:
    """Actions of a group: their number by state, and in each currency the amounts of those that were given."""

    def __init__(self) -> None:
        self.states: Counts = defaultdict(int)
        self.number: Counts = defaultdict(int)
        self.minor: Counts = defaultdict(int)
        self.goodwill_minor: Counts = defaultdict(int)
        self.reversed_minor: Counts = defaultdict(int)
        self.goodwill_amounts = defaultdict[str, list[Array]](list)

    def add(self, other: ActionTotals) -> None:
        """Add the totals of another group."""
        for mine, more in (
            (self.states, other.states),
            (self.number, other.number),
            (self.minor, other.minor),
            (self.goodwill_minor, other.goodwill_minor),
            (self.reversed_minor, other.reversed_minor),
        ):
            _add(mine, more)
        for currency, amounts in other.goodwill_amounts.items():
            self.goodwill_amounts[currency] += amounts


def action_totals(connection: sa.Connection, group: Group) -> dict[str, ActionTotals]:
    """Return the totals of actions by group; an action belongs to its event time."""
    found = defaultdict[str, ActionTotals](ActionTotals)
    amounts = _Amounts()
    names = ("currency", "state", "goodwill", "minor", "reversed_minor")
    for chunk in group.chunks(connection, ACTION_DAYS, names):
        currencies, states = chunk.words["currency"], chunk.words["state"]
        sums = chunk.sums(("currency", "state", "goodwill"), ("minor", "reversed_minor"))
        for label, (currency_at, state_at, goodwill, number, minor, reversed_minor) in sums:
            currency, state = str(currencies[currency_at]), str(states[state_at])
            totals = found[label]
            totals.states[state] += number
            if state in GIVEN:
                totals.number[currency] += number
                totals.minor[currency] += minor
                totals.reversed_minor[currency] += reversed_minor
                totals.goodwill_minor[currency] += minor if goodwill else 0
        given = np.array([state in GIVEN for state in states])[chunk.columns["state"]]
        amounts.add(chunk, given & (chunk.columns["goodwill"] == 1), "minor")
    for label, currency, values in amounts.groups():
        found[label].goodwill_amounts[currency].append(values)
    return found


class _Amounts:
    """Values of rows, to be divided by label and currency."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._keys: list[NDArray[np.int64]] = []
        self._values: list[Array] = []

    def add(self, chunk: _Chunk, where: NDArray[np.bool_], name: str) -> None:
        """Add the values of a column in some rows."""
        currencies = chunk.words["currency"]
        pairs = chunk.keys.astype(np.int64)[where] * len(currencies) + chunk.columns["currency"][where]
        known, inverse = np.unique(pairs, return_inverse=True)
        numbers = np.empty(len(known), np.int64)
        for at, pair in enumerate(known.tolist()):
            place = chunk.labels[pair // len(currencies)], str(currencies[pair % len(currencies)])
            numbers[at] = self._numbers.setdefault(place, len(self._numbers))
        self._keys.append(numbers[inverse])
        self._values.append(chunk.columns[name][where])

    def groups(self) -> Iterator[tuple[str, str, Array]]:
        """Yield label, currency and values of each group that has any."""
        if not self._numbers:
            return
        keys, values = np.concatenate(self._keys), np.concatenate(self._values)
        order = np.argsort(keys.astype(np.min_scalar_type(len(self._numbers))), kind="stable")
        limits = np.searchsorted(keys[order], np.arange(len(self._numbers) + 1))
        ordered = values[order]
        for (label, currency), at in self._numbers.items():
            yield label, currency, ordered[limits[at] : limits[at + 1]]


class HelpTotals(NamedTuple):
    """Interactions of a group, and the number of those in which goodwill was given."""

    opened: int
    helped: int


def help_totals(connection: sa.Connection, group: Group) -> dict[str, HelpTotals]:
    """Return by group in how many interactions goodwill was given; they belong to their opening and first agent."""
    found: dict[str, HelpTotals] = {}
    for chunk in group.chunks(connection, INTERACTION_DAYS, ("helped",)):
        for label, (opened, helped) in chunk.sums((), ("helped",)):
            known = found.get(label, HelpTotals(0, 0))
            found[label] = HelpTotals(known.opened + opened, known.helped + helped)
    return found


class EscalationTotals:
    """Escalations of a group: their number by outcome, the amounts asked and approved, and the hours waited."""

    def __init__(self) -> None:
        self.outcomes: Counts = defaultdict(int)
        self.asked_minor: Counts = defaultdict(int)
        self.approved_minor: Counts = defaultdict(int)
        self.hours: list[float] = []

    def add(self, other: EscalationTotals) -> None:
        """Add the totals of another group."""
        _add(self.outcomes, other.outcomes)
        _add(self.asked_minor, other.asked_minor)
        _add(self.approved_minor, other.approved_minor)
        self.hours += other.hours


def escalation_totals(connection: sa.Connection, group: Group) -> dict[str, EscalationTotals]:
    """Return the totals of escalations by group; an escalation belongs to the time of its request."""
    found = defaultdict[str, EscalationTotals](EscalationTotals)
    names = ("currency", "status", "asked_minor", "approved_minor", "waited_seconds")
    for chunk in group.chunks(connection, ESCALATION_DAYS, names):
        currencies, outcomes = chunk.words["currency"], chunk.words["status"]
        for label, numbers in chunk.sums(("currency", "status"), ("asked_minor", "approved_minor")):
            currency_at, outcome_at, number, asked_minor, approved_minor = numbers
            totals, currency = found[label], str(currencies[currency_at])
            totals.outcomes["open" if outcomes[outcome_at] == "waiting" else str(outcomes[outcome_at])] += number
            totals.asked_minor[currency] += asked_minor
            totals.approved_minor[currency] += approved_minor
        decided = np.array([one in {"approved", "denied"} for one in outcomes])[chunk.columns["status"]]
        waited = chunk.columns["waited_seconds"]
        decided &= ~np.isnan(waited)
        for key, seconds in zip(chunk.keys[decided].tolist(), waited[decided].tolist(), strict=True):
            found[chunk.labels[key]].hours.append(seconds / _HOUR)
    return found


class InteractionTotals(NamedTuple):
    """Interactions of a group.

    ``known`` is the number of those whose first contact can be judged, ``csat`` of those with an answer to it.
    ``transfers_squared`` is the sum of the squared numbers of transfers.
    """

    opened: int
    resolved: int
    transferred: int
    transfers: int
    reopened: int
    told: int
    repeated: int
    known: int
    first_contact: int
    csat: int
    nps: int
    ces: int
    review: int
    transfers_squared: int

    def plus(self, numbers: Sequence[int]) -> InteractionTotals:
        """Return these totals and those of another group."""
        return InteractionTotals(*(a + b for a, b in zip(self, numbers, strict=True)))

    @property
    def answered(self) -> dict[str, int]:
        """The number of interactions with an answer, by instrument."""
        return {name: getattr(self, name) for name in ANSWERED}


NO_INTERACTIONS = InteractionTotals(*(0,) * 14)


def interaction_totals(connection: sa.Connection, group: Group, now: datetime) -> dict[str, InteractionTotals]:
    """Return the totals of interactions by group; an interaction belongs to the time of its opening.

    A first contact is judged ``REPEAT_DAYS`` days after the first resolution, if these days are over at ``now``.
    """
    found: dict[str, InteractionTotals] = {}
    numbers = ("resolved", "transferred", "transfers", "reopened", "told", "repeated")
    over = _microseconds(now - timedelta(days=REPEAT_DAYS))
    for chunk in group.chunks(connection, JOURNEY_DAYS, (*numbers, "judged", "alone", "answered")):
        known = chunk.columns["judged"] <= over
        answered = [(chunk.columns["answered"] & number) > 0 for number in ANSWERED.values()]
        judged = (known, chunk.columns["alone"] * known)
        for label, sums in chunk.sums((), (*numbers, *judged, *answered, chunk.columns["transfers"] ** 2)):
            found[label] = found.get(label, NO_INTERACTIONS).plus(sums)
    return found


type ScoreTotals = dict[Scale, Counter[float]]
"""The number of answers by score, of each instrument and scale."""


def score_totals(connection: sa.Connection, group: Group) -> dict[str, ScoreTotals]:
    """Return the totals of customers' feedback by group; it belongs to its own event time."""
    found: defaultdict[str, ScoreTotals] = defaultdict(dict)
    for chunk in group.chunks(connection, FEEDBACK_DAYS, ("instrument", "scale", "score")):
        scores, places = np.unique(chunk.columns["score"], return_inverse=True)
        instruments, scales = chunk.words["instrument"], chunk.words["scale"]
        for label, (instrument_at, scale_at, at, number) in chunk.sums(("instrument", "scale", places), ()):
            worst, best = map(float, str(scales[scale_at]).split())
            scale = str(instruments[instrument_at]), worst, best
            found[label].setdefault(scale, Counter())[float(scores[at])] += number
    return found


class BudgetTotals:
    """Budgets of a group in one currency; ``lapsed_minor`` is the unused rest of what was granted over their life."""

    def __init__(self) -> None:
        self.holders = set[str]()
        self.granted_minor = self.spent_minor = self.reserved_minor = self.lapsed_minor = 0


type BudgetRow = tuple[str, str, str, int, int, int, int]
"""Holder, period and currency of a budget; what is granted, spent, reserved and lapsed of it, in minor units."""


def budgets_within(connection: sa.Connection, times: DateRange) -> list[BudgetRow]:
    """Return the budgets of all periods with a day in a range."""
    one = balances.c
    amounts = (one.granted_minor, one.spent_minor, one.reserved_minor, one.lapsed_minor)
    query = sa.select(one.holder, one.period, one.currency, *amounts)
    periods = times.overlapping(read_periods(connection))
    return plain_rows(connection, query.where(one.period.in_(periods)))


def budget_totals(rows: Sequence[BudgetRow], group: Group) -> dict[tuple[str, str], BudgetTotals]:
    """Return the totals of the budgets of a range by group and currency.

    A group by day, week or month has the budgets of that period; longer and shorter periods are only in the total.
    """
    if group.by in {"agent_kind", "role", "kind", "reason", "channel"}:
        return {}
    known = group.scope.holders()
    found = defaultdict[tuple[str, str], BudgetTotals](BudgetTotals)
    for holder, period, currency, granted, spent, reserved, lapsed in rows:
        if known is not None and holder not in known:
            continue
        kind, _, name = holder.partition(":")
        if group.by in {"team", "agent"} and kind != group.by:
            continue
        label = name if group.by in {"team", "agent"} else period if group.by else ""
        if group.by in PERIODS and kind_of(period) != group.by:
            continue
        totals = found[label, currency]
        totals.holders.add(holder)
        totals.granted_minor += granted + lapsed
        totals.spent_minor += spent
        totals.reserved_minor += reserved
        totals.lapsed_minor += lapsed
    return found
