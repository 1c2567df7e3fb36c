"""Totals of views over a range of event times, by group: sums that SQL makes, so that history may have any length."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

import sqlalchemy as sa

from domain.analytics.service_quality import NOT_SAID, REPEAT_DAYS
from domain.periods import PeriodKind, kind_of, period_of
from domain.serialization import encode
from ledger.store.cloudevents import time_text
from projections.date_ranges import DateRange
from projections.engine.row_cache import plain_rows
from projections.reading import AccessScope
from projections.views.authority import asked
from projections.views.balances import balances
from projections.views.casework import actions, interactions
from projections.views.journeys import feedback, journeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


type By = Literal["day", "week", "month", "team", "agent", "role", "kind", "reason", "channel"]
PERIODS: tuple[By, ...] = ("day", "week", "month")
GIVEN = ("taken", "settled", "charged", "reversed")
"""The states of an action that was given to the customer."""
_HOUR_DIGITS, _HOUR = len("2026-11-21T10"), 3600
_MINUTE_DIGITS = len("2026-11-21T10:15")


class Group(NamedTuple):
    """A range of event times, and how it is divided; ``by`` is ``None`` for one total."""

    times: DateRange
    by: By | None
    scope: AccessScope

    def label(self, key: str | None) -> str:
        """Return the group of a key that a query returned."""
        if self.by not in PERIODS:
            return "" if self.by is None else key or NOT_SAID
        assert key is not None
        whole = key if len(key) > _HOUR_DIGITS else f"{key}:00"
        return period_of(datetime.fromisoformat(f"{whole}:00+00:00"), _period_kind(self.by), self.times.zone)

    def labels(self, keys: Iterable[str | None]) -> Mapping[str | None, str]:
        """Return the group of each key."""
        return {key: self.label(key) for key in set(keys)}

    def within(self, column: sa.ColumnElement[str | None]) -> list[sa.ColumnElement[bool]]:
        """Return the conditions that a time lies in the range."""
        begin, end = self.times.texts
        return [*([] if begin is None else [column >= begin]), *([] if end is None else [column < end])]

    def key(self, time: sa.ColumnElement[str | None], **columns: sa.ColumnElement[str | None]) -> _Key:
        """Return the expression to group by; rows without such a property are one group."""
        if self.by is None:
            return sa.literal("")
        if self.by in PERIODS:
            return sa.func.substr(time, 1, _MINUTE_DIGITS if _has_odd_offset(self.times) else _HOUR_DIGITS)
        return columns.get(self.by, sa.literal(""))

    def seen(self, agent: sa.ColumnElement[str | None], team: sa.ColumnElement[str | None]) -> _Conditions:
        """Return the conditions that the reader may see a row of this agent and team."""
        if self.scope.people is None:
            return []
        return [agent.in_(self.scope.people) | team.in_(self.scope.teams)]


type _Key = sa.ColumnElement[str] | sa.ColumnElement[str | None]
type _Conditions = list[sa.ColumnElement[bool]]


def _period_kind(by: By | None) -> PeriodKind:
    return "week" if by == "week" else "month" if by == "month" else "day"


def _has_odd_offset(times: DateRange) -> bool:
    """Return whether a day of the zone may begin within an hour of UTC."""
    begin, end = times.begin or datetime(2000, 1, 1, tzinfo=UTC), times.end or datetime(2100, 1, 1, tzinfo=UTC)
    months = range(0, max(1, (end - begin).days + 1), 28)
    offsets = (times.zone.utcoffset(begin.astimezone(times.zone) + timedelta(days=day)) for day in months)
    return any(offset is not None and offset.total_seconds() % _HOUR for offset in offsets)


class ActionTotals:
    """Actions of a group: their number by state, and in each currency the amounts of those that were given."""

    def __init__(self) -> None:
        self.states = Counter[str]()
        self.number = Counter[str]()
        self.minor = Counter[str]()
        self.goodwill_minor = Counter[str]()
        self.reversed_minor = Counter[str]()
        self.goodwill_amounts = defaultdict[str, Counter[int]](Counter)

    def add(self, other: ActionTotals) -> None:
        """Add the totals of another group."""
        for mine, more in (
            (self.states, other.states),
            (self.number, other.number),
            (self.minor, other.minor),
            (self.goodwill_minor, other.goodwill_minor),
            (self.reversed_minor, other.reversed_minor),
        ):
            mine.update(more)
        for currency, amounts in other.goodwill_amounts.items():
            self.goodwill_amounts[currency].update(amounts)


def action_totals(connection: sa.Connection, group: Group) -> dict[str, ActionTotals]:
    """Return the totals of actions by group; an action belongs to its event time."""
    done, columns = actions.c, actions.c
    key = group.key(
        done.time,
        team=columns.team_id,
        agent=columns.agent_id,
        role=columns.role,
        kind=columns.kind,
        reason=columns.reason,
        channel=interactions.c.channel,
    )
    goodwill = sa.case((done.basis == "goodwill", done.amount_minor))
    query = sa.select(
        sa.type_coerce(key, sa.Text).label("key"),
        done.currency,
        done.state,
        goodwill.label("goodwill"),
        sa.func.count(),
        sa.func.sum(done.amount_minor),
        sa.func.sum(done.reversed_minor),
    )
    if group.by == "channel":
        query = query.outerjoin(interactions, interactions.c.interaction_id == done.interaction_id)
    query = query.where(done.position.is_not(None), done.state != "never happened")
    query = query.where(*group.within(done.time), *group.seen(done.agent_id, done.team_id))
    found = defaultdict[str, ActionTotals](ActionTotals)
    rows = plain_rows(connection, query.group_by("key", done.currency, done.state, "goodwill"))
    labels = group.labels(row[0] for row in rows)
    for one, currency, state, amount, number, minor, reversed_minor in rows:
        totals = found[labels[one]]
        totals.states[state] += number
        if state in GIVEN:
            totals.number[currency] += number
            totals.minor[currency] += minor
            totals.reversed_minor[currency] += reversed_minor
            if amount is not None:
                totals.goodwill_minor[currency] += amount * number
                totals.goodwill_amounts[currency][amount] += number
    return found


def helped_interactions(connection: sa.Connection) -> list[str]:
    """Return the interactions in which goodwill was given."""
    done = actions.c
    query = sa.select(done.interaction_id).distinct()
    where = (done.interaction_id.is_not(None), done.basis == "goodwill", done.state.in_(GIVEN), done.amount_minor > 0)
    return list(connection.execute(query.where(*where)).scalars())


def asked_interactions(connection: sa.Connection, group: Group) -> list[str]:
    """Return the interactions of a group's escalations."""
    one = asked.c
    query = sa.select(one.interaction_id).where(one.interaction_id.is_not(None), *group.within(one.requested))
    return list(connection.execute(query.distinct()).scalars())


def channels_of(connection: sa.Connection, ids: Sequence[str]) -> dict[str, str | None]:
    """Return the channel of each of these interactions."""
    listed = sa.func.json_each(encode(ids).decode()).table_valued("value")
    query = sa.select(interactions.c.interaction_id, interactions.c.channel)
    return dict(plain_rows(connection, query.where(interactions.c.interaction_id.in_(sa.select(listed.c.value)))))


class EscalationTotals:
    """Escalations of a group: their number by outcome, the amounts asked and approved, and the hours waited."""

    def __init__(self) -> None:
        self.outcomes = Counter[str]()
        self.asked_minor = Counter[str]()
        self.approved_minor = Counter[str]()
        self.hours: list[float] = []

    def add(self, other: EscalationTotals) -> None:
        """Add the totals of another group."""
        self.outcomes.update(other.outcomes)
        self.asked_minor.update(other.asked_minor)
        self.approved_minor.update(other.approved_minor)
        self.hours += other.hours


def escalation_totals(
    connection: sa.Connection, group: Group, channels: Mapping[str, str | None]
) -> dict[str, EscalationTotals]:
    """Return the totals of escalations by group; an escalation belongs to the time of its request.

    ``channels`` has the channels of interactions, for a group by channel.
    """
    one = asked.c
    key = group.key(
        one.requested,
        team=one.team_id,
        agent=one.agent_id,
        role=one.role,
        kind=one.kind,
        reason=one.reason,
        channel=one.interaction_id,
    )
    query = sa.select(
        sa.type_coerce(key, sa.Text), one.currency, one.outcome, one.asked_minor, one.approved_minor, one.waited_seconds
    )
    query = query.where(one.asked_minor.is_not(None), one.requested.is_not(None), *group.within(one.requested))
    rows = plain_rows(connection, query.where(*group.seen(one.agent_id, one.team_id)))
    found = defaultdict[str, EscalationTotals](EscalationTotals)
    if group.by == "channel":
        labels: Mapping[str | None, str] = {row[0]: channels.get(row[0] or "") or NOT_SAID for row in rows}
    else:
        labels = group.labels(row[0] for row in rows)
    for at, currency, outcome, asked_minor, approved_minor, waited in rows:
        totals = found[labels[at]]
        totals.outcomes[outcome or "open"] += 1
        totals.asked_minor[currency] += asked_minor or 0
        totals.approved_minor[currency] += approved_minor or 0
        if waited is not None and outcome in {"approved", "denied"}:
            totals.hours.append(waited / _HOUR)
    return found


class InteractionTotals(NamedTuple):
    """Interactions of a group; ``known`` is the number of those whose first contact can be judged."""

    opened: int
    resolved: int
    transferred: int
    transfers: int
    reopened: int
    told: int
    repeated: int
    known: int
    first_contact: int
    helped: int

    def plus(self, numbers: Sequence[int]) -> InteractionTotals:
        """Return these totals and those of another group."""
        return InteractionTotals(*(a + b for a, b in zip(self, numbers, strict=True)))


NO_INTERACTIONS = InteractionTotals(*(0,) * 10)


def interaction_totals(
    connection: sa.Connection, group: Group, helped: Sequence[str], now: datetime
) -> dict[str, InteractionTotals]:
    """Return the totals of interactions by group; an interaction belongs to the time of its opening.

    ``helped`` are interactions in which something was given. A first contact is judged ``REPEAT_DAYS`` days after the
    first resolution, if these days are over at ``now``.
    """
    one = journeys.c
    key = group.key(one.opened, team=one.first_team, agent=one.first_agent, reason=one.reason, channel=one.channel)
    listed = sa.func.json_each(encode(helped).decode()).table_valued("value")
    over = sa.func.strftime("%Y-%m-%dT%H:%M:%fZ", one.first_resolved, f"+{REPEAT_DAYS} days")
    known = sa.and_(
        one.customer_id.is_not(None),
        one.first_resolved <= time_text(now - timedelta(days=REPEAT_DAYS)),
    )
    alone = sa.and_(known, one.transfers == 0, one.reopened == 0, sa.not_(_followed(over)))
    columns = (
        one.resolved.is_not(None),
        one.transfers > 0,
        one.transfers,
        one.reopened > 0,
        one.repeated_stories.is_not(None),
        one.repeated_stories > 0,
        known,
        alone,
        one.interaction_id.in_(sa.select(listed.c.value)),
    )
    query = sa.select(
        sa.type_coerce(key, sa.Text).label("key"),
        sa.func.count(),
        *(sa.func.coalesce(sa.func.sum(column), 0) for column in columns),
    )
    query = query.where(one.opened.is_not(None), *group.within(one.opened))
    rows = plain_rows(connection, query.where(*group.seen(one.first_agent, one.first_team)).group_by("key"))
    labels = group.labels(row[0] for row in rows)
    found: dict[str, InteractionTotals] = {}
    for at, *numbers in rows:
        found[labels[at]] = found.get(labels[at], NO_INTERACTIONS).plus(numbers)
    return found


def _followed(over: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return a condition: the customer opened another interaction in the same matter later, and by then.

    It names the same order, or the same reason if one of them names no order.
    """
    one, other = journeys.c, journeys.alias("other").c
    no_order = sa.or_(one.order_id.is_(None), other.order_id.is_(None))
    same = sa.or_(other.order_id == one.order_id, sa.and_(no_order, other.reason == one.reason))
    later = (other.customer_id == one.customer_id, other.opened > one.opened, other.opened <= over)
    return sa.select(1).where(*later, same).exists()


class ScoreTotals(NamedTuple):
    """Answers to one survey instrument in a group, with the sums that its figure needs."""

    number: int
    top: int
    promoters: int
    detractors: int
    total: float

    def plus(self, numbers: Sequence[float]) -> ScoreTotals:
        """Return these totals and those of another group."""
        number, top, promoters, detractors, total = numbers
        return ScoreTotals(
            self.number + int(number),
            self.top + int(top),
            self.promoters + int(promoters),
            self.detractors + int(detractors),
            self.total + total,
        )


NO_SCORES = ScoreTotals(0, 0, 0, 0, 0.0)


def score_totals(connection: sa.Connection, group: Group) -> dict[tuple[str, str], ScoreTotals]:
    """Return the totals of customers' feedback by group and instrument; it belongs to its own event time.

    ``top`` counts scores from three quarters of the way from the worst to the best on.
    """
    one, of = feedback.c, journeys.c
    key = group.key(one.time, team=of.first_team, agent=of.first_agent, reason=of.reason, channel=of.channel)
    bar = one.worst + 0.75 * (one.best - one.worst)
    top = sa.case((one.best > one.worst, one.score >= bar), else_=one.score <= bar)
    query = sa.select(
        sa.type_coerce(key, sa.Text).label("key"),
        one.instrument,
        sa.func.count(),
        sa.func.sum(top),
        sa.func.sum(one.score >= 9),  # noqa: PLR2004 - the scale of the net promoter score
        sa.func.sum(one.score <= 6),  # noqa: PLR2004
        sa.func.sum(one.score),
    )
    query = query.outerjoin(journeys, of.interaction_id == one.interaction_id)
    query = query.where(one.score.is_not(None), *group.within(one.time), *group.seen(of.first_agent, of.first_team))
    rows = plain_rows(connection, query.group_by("key", one.instrument))
    labels = group.labels(row[0] for row in rows)
    found: dict[tuple[str, str], ScoreTotals] = {}
    for at, instrument, *numbers in rows:
        place = labels[at], instrument
        found[place] = found.get(place, NO_SCORES).plus(numbers)
    return found


class BudgetTotals:
    """Budgets of a group in one currency."""

    def __init__(self) -> None:
        self.holders = set[str]()
        self.granted_minor = self.spent_minor = self.reserved_minor = 0


def budget_totals(connection: sa.Connection, group: Group) -> dict[tuple[str, str], BudgetTotals]:
    """Return the totals of budgets by group and currency, of periods with a day in the range.

    A group by day, week or month has the budgets of that period; longer and shorter periods are only in the total.
    """
    if group.by in {"role", "kind", "reason", "channel"}:
        return {}
    one = balances.c
    query = sa.select(one.holder, one.period, one.currency, one.granted_minor, one.spent_minor, one.reserved_minor)
    rows = plain_rows(connection, query)
    periods = set(group.times.overlapping({row[1] for row in rows}))
    known = group.scope.holders()
    found = defaultdict[tuple[str, str], BudgetTotals](BudgetTotals)
    for holder, period, currency, granted, spent, reserved in rows:
        if period not in periods or (known is not None and holder not in known):
            continue
        kind, _, name = holder.partition(":")
        if group.by in {"team", "agent"} and kind != group.by:
            continue
        label = name if group.by in {"team", "agent"} else period if group.by else ""
        if group.by in PERIODS and kind_of(period) != group.by:
            continue
        totals = found[label, currency]
        totals.holders.add(holder)
        totals.granted_minor += granted
        totals.spent_minor += spent
        totals.reserved_minor += reserved
    return found
