"""The document of `report loyalty`, computed from views."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from itertools import batched
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, final

import numpy as np
import sqlalchemy as sa

from domain.analytics.empowerment_gap import band_of
from domain.analytics.loyalty.evaluation import (
    MAIN_DAYS,
    ActionSample,
    CustomerValue,
    Ladder,
    Limited,
    ProblemSample,
    ValueFigures,
)
from domain.analytics.loyalty.experiments import raises, randomised
from domain.analytics.loyalty.purchases import History, Moments, first_of_each
from domain.analytics.retention import CohortRetention, retention
from domain.currencies import digits_of
from domain.money import Money
from projections.engine.row_cache import plain_rows
from projections.engine.temporal_tables import as_of
from projections.reading import EVERYBODY
from projections.views import casework, journeys, loyalty

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from domain.analytics.loyalty.purchases import Ints
    from domain.events.decisions import PolicyPublished
    from projections.reading import AccessScope, Reader

NOBODY = "no action with a customer is recorded"
NOT_SAID = "not said"
HELPED_AT_MOST = 4000
"""The most helped customers that are evaluated; more are sampled, with an equal share of others, to bound the time."""
_ASKED_AT_ONCE = 10_000
"""Names in one query of a view; SQLite's limit is 32,766."""


class CurrencyTotals(TypedDict):
    """Purchases and treated customers of a currency; ``told_by_sales``: refunds stand for unrecorded actions."""

    currency: str
    purchases: int
    treated: int
    told_by_sales: bool
    retention: list[CohortRetention]
    """Of all customers, whether they were helped or not."""


@final
class UnknownValue(CurrencyTotals):
    """A currency without figures, and the reason."""

    ladder: list[Ladder]
    why: str


@final
class KnownValue(CurrencyTotals, ValueFigures):
    """A currency with its figures."""


class LoyaltyReport(TypedDict):
    """The document of `report loyalty`."""

    currencies: list[UnknownValue | KnownValue]
    by_time: str
    """`recorded`, or `happened` where events count up to an event time, also if recorded later."""
    position: int
    drawn_customers: int | None
    main_window_days: int


type Purchase = tuple[str, str, str, int, int | None, int]
"""Customer, time, currency, total and margin in minor units, and whether it was a return."""
type DoneAction = tuple[str | None, str, str, str, int, str, str | None]
"""Id, customer, time, currency, cost in minor units, kind and agent."""
type LimitedRequest = tuple[str, str, str, str, int, int]
"""Customer, kind, time, currency, and the amount requested and the limit in minor units."""
type Place = tuple[str | None, str | None, str | None, str | None, str | None]
"""Channel, reason, team, escalation and interaction of an action."""
type Problem = tuple[str, str, str | None, str | None, str | None]
"""Customer, time, channel, reason and first team of an interaction."""


class LoyaltyArrays:
    """The data of the views in one currency as arrays: customers as numbers, times in seconds."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.customers: dict[str, int] = {}
        self._strata: dict[Hashable, int] = {}

    def numbers(self, names: Sequence[str]) -> Ints:
        """Return customers as numbers."""
        known = self.customers
        return np.array([known.setdefault(name, len(known)) for name in names], np.int64)

    def strata(self, of: Sequence[Hashable]) -> Ints:
        """Return strata as numbers, equal for the same reason and channel; -1 for ``None``."""
        known = self._strata
        return np.array([-1 if one is None else known.setdefault(one, len(known)) for one in of], np.int64)

    def history(self, rows: Sequence[Purchase], amounts: Sequence[int]) -> History:
        """Return purchases as a history of these amounts."""
        customers, times = self.numbers([row[0] for row in rows]), _seconds([row[1] for row in rows])
        return History(customers, times, np.array(amounts, np.int64))


def _seconds(texts: Sequence[str]) -> Ints:
    return np.array([text[:19] for text in texts], "datetime64[s]").astype(np.int64)


async def loyalty_report(
    read: Reader,
    published: Sequence[PolicyPublished],
    at: int | None = None,
    until: str | None = None,
    scope: AccessScope = EVERYBODY,
) -> LoyaltyReport:
    """Return the effect of actions by evidence level; money as objects, shares from 0 to 1, each with its interval.

    ``published`` are all policies; trials and raised limits are read from them. The report is as of position ``at``, or
    counts only events up to the event time ``until``. A ``scope`` limits it to actions of its people.
    """
    answer = await read("loyalty_effects", lambda c: _selling(c, at, until, scope))
    known, drawn, bought, done, asked = answer.result
    cohorts = (await read("loyalty_effects", lambda c: _cohorts(c, at, until))).result
    where = (await read("casework", lambda c: _where(c, at, drawn))).result
    problems = (await read("journeys", lambda c: _problems(c, at, drawn))).result
    position = answer.progress.anchor.position if at is None else at
    by_currency = [
        await asyncio.to_thread(
            _of_currency,
            known_of,
            [row for row in bought if row[2] == known_of.currency],
            [row for row in done if row[3] == known_of.currency],
            [row for row in asked if row[3] == known_of.currency],
            where,
            problems,
            published,
            scope,
            cohorts.get(known_of.currency, []),
        )
        for known_of in known
    ]
    return {
        "currencies": by_currency,
        "by_time": "recorded" if until is None else "happened",
        "position": position,
        "drawn_customers": None if drawn is None else len(drawn),
        "main_window_days": MAIN_DAYS,
    }


class _Known(NamedTuple):
    """Totals over all customers of a currency: purchases, customers helped, and the first and last recorded time."""

    currency: str
    purchases: int
    treated: int
    first: str | None
    last: str | None


def _selling(
    connection: sa.Connection, at: int | None, until: str | None, scope: AccessScope
) -> tuple[list[_Known], list[str] | None, list[Purchase], list[DoneAction], list[LimitedRequest]]:
    """Return totals by currency, the sampled customers (``None``: all), and their purchases, actions and requests."""
    bought, done, asked = as_of(loyalty.purchases, at), as_of(loyalty.actions, at), loyalty.requests
    ends = () if at is None else (asked.c.position <= at,)
    sold = _named(bought, "customer_id at currency total_minor margin_minor returned", until, ~bought.c.withdrawn)
    acted = _named(done, "action_id customer_id at currency cost_minor kind agent_id", until, ~done.c.withdrawn)
    limited = _named(asked, "customer_id kind at currency asked_minor limit_minor", until, *ends)
    theirs = acted if scope.people is None else acted.where(done.c.agent_id.in_(scope.people))
    known = _known(connection, sold.order_by(None).subquery(), theirs.order_by(None).subquery())
    drawn = _draw(connection)
    purchases, actions, requests = (
        _rows_of(connection, query, one.c.customer_id, drawn)
        for query, one in ((sold, bought), (acted, done), (limited, asked))
    )
    return known, drawn, purchases, actions, requests


def _named(
    source: sa.FromClause, columns: str, until: str | None, *where: sa.ColumnElement[bool]
) -> sa.Select[*tuple[Any, ...]]:
    """Return a query of rows with a customer up to the event time ``until``, in an order without positions."""
    ends = () if until is None else (source.c.at <= until,)
    shown = [source.c[name] for name in columns.split()]
    return sa.select(*shown).where(source.c.customer_id.is_not(None), *where, *ends).order_by(source.c.at, *shown)


def _known(connection: sa.Connection, bought: sa.Subquery, done: sa.Subquery) -> list[_Known]:
    every = sa.func.count(done.c.customer_id.distinct())
    sold = sa.func.sum(sa.case((bought.c.returned, 0), else_=1))
    times = (sa.func.min(bought.c.at), sa.func.max(bought.c.at))
    sales = {
        row[0]: row[1:]
        for row in plain_rows(connection, sa.select(bought.c.currency, sold, *times).group_by(bought.c.currency))
    }
    helped = {
        row[0]: row[1:] for row in plain_rows(connection, sa.select(done.c.currency, every).group_by(done.c.currency))
    }
    nothing = (0, None, None)
    return [
        _Known(
            currency, sales.get(currency, nothing)[0], helped.get(currency, (0,))[0], *sales.get(currency, nothing)[1:]
        )
        for currency in sorted(sales.keys() | helped.keys())
    ]


def _cohorts(connection: sa.Connection, at: int | None, until: str | None) -> dict[str, list[CohortRetention]]:
    """Return the retention of customers by currency and cohort of first purchase."""
    bought = as_of(loyalty.purchases, at)
    query = _named(bought, "currency customer_id at", until, ~bought.c.withdrawn, ~bought.c.returned).order_by(None)
    some = defaultdict[str, list[tuple[str, str]]](list)
    for currency, customer, time in plain_rows(connection, query):
        some[currency].append((customer, time))
    found: dict[str, list[CohortRetention]] = {}
    for currency, rows in some.items():
        customers = LoyaltyArrays(currency).numbers([row[0] for row in rows])
        times = np.array([row[1].removesuffix("Z") for row in rows], "datetime64[us]").astype(np.int64)
        found[currency] = retention(customers, times)
    return found


def _draw(connection: sa.Connection) -> list[str] | None:
    """Return a random sample of customers with about `HELPED_AT_MOST` helped ones, or ``None`` for all.

    A hash of the name decides, so a customer stays in the sample as long as the share does.
    """
    bought, helped = (
        {row[0] for row in plain_rows(connection, sa.select(one.c.customer_id).distinct())} - {None}
        for one in (loyalty.purchases, loyalty.actions)
    )
    if len(helped) <= HELPED_AT_MOST:
        return None
    below = int(HELPED_AT_MOST / len(helped) * 2**64)
    return sorted(name for name in bought | helped if _lot(name) < below)


def _lot(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def _rows_of[*Values](
    connection: sa.Connection, query: sa.Select[*Values], customer: sa.ColumnElement[str], drawn: Sequence[str] | None
) -> list[tuple[*Values]]:
    """Return the rows of the sampled customers."""
    if drawn is None:
        return plain_rows(connection, query)
    return [
        row
        for some in batched(drawn, _ASKED_AT_ONCE)
        for row in plain_rows(connection, query.where(customer.in_(some)))
    ]


def _where(connection: sa.Connection, at: int | None, drawn: Sequence[str] | None) -> dict[str, Place]:
    """Return, by action, channel and reason of its interaction, its team, and its escalation if it had one."""
    done, interactions = as_of(casework.actions, at), as_of(casework.interactions, at)
    query = sa.select(
        done.c.action_id,
        interactions.c.channel,
        interactions.c.reason,
        done.c.team_id,
        done.c.escalation_id,
        done.c.interaction_id,
    )
    query = query.outerjoin(interactions, interactions.c.interaction_id == done.c.interaction_id)
    return {row[0]: row[1:] for row in _rows_of(connection, query, done.c.customer_id, drawn)}


def _problems(connection: sa.Connection, at: int | None, drawn: Sequence[str] | None) -> list[Problem]:
    """Return customers' interactions: customer, time, channel, reason, team."""
    source = as_of(journeys.journeys, at)
    query = sa.select(source.c.customer_id, source.c.opened, source.c.channel, source.c.reason, source.c.first_team)
    query = query.where(source.c.opened.is_not(None), source.c.customer_id.is_not(None))
    return _rows_of(connection, query.order_by(source.c.interaction_id), source.c.customer_id, drawn)


def _of_currency(
    known: _Known,
    bought: list[Purchase],
    done: list[DoneAction],
    asked: list[LimitedRequest],
    where: dict[str, Place],
    problems: list[Problem],
    published: Sequence[PolicyPublished],
    scope: AccessScope,
    cohorts: list[CohortRetention],
) -> UnknownValue | KnownValue:
    currency = known.currency
    arrays = LoyaltyArrays(currency)
    sold = [row for row in bought if not row[5]]
    buying = arrays.history(sold, [row[3] for row in sold])
    if known.first is not None and known.last is not None:
        buying.first, buying.last = _seconds([known.first, known.last]).tolist()
    told_by_sales = not done
    if told_by_sales:  # without actions, refunds stand for them
        done = [(None, row[0], row[1], row[2], row[3], "refund", None) for row in bought if row[5]]
    first_actions = _first_actions(arrays, done, where, scope)
    treated = int(first_actions.of.at.size) if told_by_sales else known.treated
    found: CurrencyTotals = {
        "currency": currency,
        "purchases": known.purchases,
        "treated": treated,
        "told_by_sales": told_by_sales,
        "retention": cohorts,
    }
    if first_actions.of.at.size == 0 or len(buying) == 0:
        return {**found, "ladder": [], "why": NOBODY if first_actions.of.at.size == 0 else "no purchase is recorded"}
    told = [(row, row[4]) for row in sold if row[4] is not None]
    margins = arrays.history([row for row, _ in told], [margin for _, margin in told])
    margins.first, margins.last = buying.first, buying.last
    problem_sample = ProblemSample(
        Moments(arrays.numbers([row[0] for row in problems]), _seconds([row[1] for row in problems])),
        arrays.strata([(row[3], row[2]) for row in problems]),
        [row[4] or "" for row in problems],
    )
    limited = Limited(
        Moments(arrays.numbers([row[0] for row in asked]), _seconds([row[2] for row in asked])),
        [row[1] for row in asked],
        np.array([row[4] / max(row[5], 1) for row in asked], float),
    )
    back = [row for row in bought if row[5]]
    returned = Moments(arrays.numbers([row[0] for row in back]), _seconds([row[1] for row in back]))
    value = CustomerValue(buying, margins, first_actions, problem_sample, limited, returned, len(arrays.customers))
    figures = value.figures(randomised(published), raises(published), lambda minor: Money(minor, currency).wire())
    return {**found, **figures}


def _first_actions(
    arrays: LoyaltyArrays, done: list[DoneAction], where: dict[str, Place], scope: AccessScope
) -> ActionSample:
    """Return each customer's first action that may be shown, and the moments of all actions.

    All moments are needed, because a helped customer cannot be a control.
    """
    of = Moments(arrays.numbers([row[1] for row in done]), _seconds([row[2] for row in done]))
    unknown = (None, None, None, None, None)
    first = first_of_each(of)
    first = first[np.array([scope.shows(done[place][6]) for place in first.tolist()], bool)]
    known = [(done[place], where.get(done[place][0] or "", unknown)) for place in first.tolist()]
    digits = digits_of(arrays.currency)
    labels = {
        "kind": [row[5] for row, _ in known],
        "band": [band_of(row[4], digits) for row, _ in known],
        "channel": [at[0] or NOT_SAID for _, at in known],
        "team": [at[2] or NOT_SAID for _, at in known],
    }
    return ActionSample(
        of.some(first),
        of,
        np.array([row[4] for row, _ in known], np.int64),
        labels,
        arrays.strata([(at[1], at[0]) if at[4] is not None else None for _, at in known]),
        np.array([at[3] is not None for _, at in known], bool),
    )
