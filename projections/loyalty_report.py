"""`report loyalty`: the ladder, from views."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from domain.gap import band_of
from domain.loyalty.history import History, Moments, first_of_each
from domain.loyalty.trials import raises, randomised
from domain.loyalty.worth import MAIN_DAYS, Deeds, Limited, Matters, Worth
from domain.money import EXPONENTS, Money
from projections import casework, journeys, loyalty
from projections.history import as_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.loyalty.history import Ints
    from domain.records import PolicyPublished
    from projections.answers import Reader

NOBODY = "no action with a customer is recorded"
NOT_SAID = "not said"


class World:
    """What the views tell in one currency, in arrays: customers by number, times in seconds."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.customers: dict[str, int] = {}
        self._strata: dict[Any, int] = {}

    def numbers(self, names: Sequence[str]) -> Ints:
        """Customers by number."""
        known = self.customers
        return np.array([known.setdefault(name, len(known)) for name in names], np.int64)

    def strata(self, of: Sequence[Any]) -> Ints:
        """The same reason and channel by the same number; where there is none, -1."""
        known = self._strata
        return np.array([-1 if one is None else known.setdefault(one, len(known)) for one in of], np.int64)

    def history(self, rows: Sequence[Any], amount: int) -> History:
        """Rows of purchases, with one of their columns."""
        return History(self.numbers([row[0] for row in rows]), _seconds([row[1] for row in rows]),
                       np.array([row[amount] for row in rows], np.int64))  # fmt: skip


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[Any]:
    """Plain tuples: a million rows in a second."""
    return list(connection.execute(query).cursor.fetchall())


def _seconds(texts: Sequence[str]) -> Ints:
    return np.array([text[:19] for text in texts], "datetime64[s]").astype(np.int64)


async def loyalty_report(read: Reader, published: Sequence[PolicyPublished], at: int | None = None,
                         until: str | None = None) -> dict[str, Any]:  # fmt: skip
    """What it was worth, rung by rung; money as objects, shares from 0 to 1, each with its interval.

    ``published`` are all policies, for the trials and the raised limits among them. As it was behind position ``at``;
    or with only what had happened by the time ``until``.
    """
    purchases, actions, requests = loyalty.purchases, loyalty.actions, loyalty.requests

    def selling(connection: sa.Connection) -> Any:
        bought, done = as_of(purchases, at), as_of(actions, at)
        asked = sa.select(requests.c.customer_id, requests.c.kind, requests.c.at, requests.c.currency,
                          requests.c.asked_minor, requests.c.limit_minor, requests.c.position)  # fmt: skip
        named = (bought.c.customer_id.is_not(None), sa.not_(bought.c.withdrawn))
        return (
            _rows(connection, sa.select(
                bought.c.customer_id, bought.c.at, bought.c.currency, bought.c.total_minor, bought.c.margin_minor,
                bought.c.returned,
            ).where(*named).order_by(bought.c.position)),
            _rows(connection, sa.select(done.c.action_id, done.c.customer_id, done.c.at, done.c.currency,
                                        done.c.cost_minor, done.c.kind).where(
                                            done.c.customer_id.is_not(None), sa.not_(done.c.withdrawn)
                                        ).order_by(done.c.position)),
            [row for row in _rows(connection, asked.order_by(requests.c.position)) if at is None or row[-1] <= at],
        )  # fmt: skip

    answer = await read("loyalty_effects", selling)
    bought, done, asked = ([row for row in rows if until is None or row[place] <= until]
                           for rows, place in zip(answer.result, (1, 2, 2), strict=True))  # fmt: skip
    where = {row[0]: row[1:] for row in (await read("casework", lambda c: _where(c, at))).result}
    problems = (await read("journeys", lambda c: _problems(c, at))).result
    position = answer.progress.anchor.position if at is None else at
    by_currency = [
        await asyncio.to_thread(
            _of_currency, currency, [row for row in bought if row[2] == currency],
            [row for row in done if row[3] == currency], [row for row in asked if row[3] == currency], where, problems,
            published,
        )
        for currency in sorted({row[2] for row in bought} | {row[3] for row in done})
    ]  # fmt: skip
    return {"currencies": by_currency, "position": position, "main_window_days": MAIN_DAYS}


def _where(connection: sa.Connection, at: int | None) -> list[Any]:
    """By action: its interaction's channel and reason, team, whether somebody else had to approve."""
    done, matters = as_of(casework.actions, at), as_of(casework.interactions, at)
    query = sa.select(done.c.action_id, matters.c.channel, matters.c.reason, done.c.team_id, done.c.escalation_id,
                      done.c.interaction_id)  # fmt: skip
    return _rows(connection, query.outerjoin(matters, matters.c.interaction_id == done.c.interaction_id))


def _problems(connection: sa.Connection, at: int | None) -> list[Any]:
    """Interactions of customers: id, customer, when, channel, reason, team."""
    source = as_of(journeys.journeys, at)
    query = sa.select(source.c.interaction_id, source.c.customer_id, source.c.opened, source.c.channel, source.c.reason,
                      source.c.first_team)  # fmt: skip
    query = query.where(source.c.opened.is_not(None), source.c.customer_id.is_not(None))
    return _rows(connection, query.order_by(source.c.interaction_id))


def _of_currency(currency: str, bought: list[Any], done: list[Any], asked: list[Any], where: dict[str, Any],
                 problems: list[Any], published: Sequence[PolicyPublished]) -> dict[str, Any]:  # fmt: skip
    world = World(currency)
    sold = [row for row in bought if not row[5]]
    buying = world.history(sold, 3)
    if bought:
        times = _seconds([row[1] for row in bought])
        buying.first, buying.last = int(times.min()), int(times.max())
    told_by_sales = not done
    if told_by_sales:  # money that was given back stands for what was done
        done = [(None, row[0], row[1], row[2], row[3], "refund") for row in bought if row[5]]
    deeds = _deeds(world, done, where)
    found: dict[str, Any] = {"currency": currency, "purchases": len(sold), "treated": int(deeds.of.at.size),
                             "told_by_sales": told_by_sales}  # fmt: skip
    if deeds.of.at.size == 0 or len(buying) == 0:
        return found | {"ladder": [], "why": NOBODY if deeds.of.at.size == 0 else "no purchase is recorded"}
    margins = world.history([row for row in sold if row[4] is not None], 4)
    margins.first, margins.last = buying.first, buying.last
    matters = Matters(
        Moments(world.numbers([row[1] for row in problems]), _seconds([row[2] for row in problems])),
        world.strata([(row[4], row[3]) for row in problems]), [row[5] or "" for row in problems],
    )  # fmt: skip
    limited = Limited(
        Moments(world.numbers([row[0] for row in asked]), _seconds([row[2] for row in asked])),
        [row[1] for row in asked], np.array([row[4] / max(row[5], 1) for row in asked], float),
    )  # fmt: skip
    back = [row for row in bought if row[5]]
    returned = Moments(world.numbers([row[0] for row in back]), _seconds([row[1] for row in back]))
    worth = Worth(buying, margins, deeds, matters, limited, returned, len(world.customers))
    return found | worth.figures(randomised(published), raises(published), lambda minor: Money(minor, currency).wire())


def _deeds(world: World, done: list[Any], where: dict[str, Any]) -> Deeds:
    """Each customer's first action, and the moments of all."""
    of = Moments(world.numbers([row[1] for row in done]), _seconds([row[2] for row in done]))
    unknown = (None, None, None, None, None)
    first = first_of_each(of)
    known = [(done[place], where.get(done[place][0], unknown)) for place in first.tolist()]
    digits = EXPONENTS.get(world.currency, 2)
    labels = {
        "kind": [row[5] for row, _ in known],
        "band": [band_of(row[4], digits) for row, _ in known],
        "channel": [at[0] or NOT_SAID for _, at in known],
        "team": [at[2] or NOT_SAID for _, at in known],
    }
    return Deeds(
        of.some(first), of, np.array([row[4] for row, _ in known], np.int64), labels,
        world.strata([(at[1], at[0]) if at[4] is not None else None for _, at in known]),
        np.array([at[3] is not None for _, at in known], bool),
    )  # fmt: skip
