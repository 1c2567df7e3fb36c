"""A guard rule and a projection that a package adds to Resolution Ledger (docs/integrate/plugins.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert  # SQLite understands it, too

from resolution_ledger import Rule, decisions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from resolution_ledger import Event, GuardEvent, GuardHistory, ObservedAction, RuleFinding

DAY_SECONDS = 86_400


class RepeatedGift:
    """A guard rule: one agent gives one customer goodwill twice within a day."""

    rule = Rule("acme.repeated-gift", 1, "goodwill twice within a day", {})

    def on(self, history: GuardHistory, event: GuardEvent, action: ObservedAction | None, /) -> Iterator[RuleFinding]:
        """Yield a finding at the second gift; its evidence is the positions of both."""
        if action is None or not action.goodwill or action.group is None:
            return
        gifts = [
            one
            for one in history.given_to(action.group)
            if one.goodwill and one.agent == action.agent and one.at > event.at - DAY_SECONDS
        ]
        if len(gifts) > 1:
            text = f"{action.agent} gave {action.group} goodwill {len(gifts)} times within a day"
            about = (f"agent:{action.agent}", f"customer:{action.group}")
            yield self.rule.finding(about, "", text, [one.position for one in gifts])


metadata = sa.MetaData()
days = sa.Table(
    "days",
    metadata,
    sa.Column("day", sa.Text, primary_key=True, comment="day of the event time, UTC"),
    sa.Column("currency", sa.Text, primary_key=True, comment="ISO 4217 code"),
    sa.Column("actions", sa.Integer, nullable=False, comment="number of actions"),
    sa.Column("amount_minor", sa.BigInteger, nullable=False, comment="cost to the company"),
    comment="Actions that the ledger allowed, by day.",
)


class Days:
    """A projection: actions and their amount, by day and currency."""

    name = "acme_days"
    version = 1
    metadata = metadata
    prefixes = ("ledger.budget.",)
    types: Mapping[str, type[object]] = {"resolution.action.taken.v1": decisions.ActionTaken}

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Add each action to its day; the engine commits this together with the position of the last event."""
        for event in events:
            if isinstance(event.body, decisions.ActionTaken):
                added = insert(days).values(
                    day=event.time.date().isoformat(),
                    currency=event.body.amount.currency,
                    actions=1,
                    amount_minor=event.body.amount.minor,
                )
                total = {
                    "actions": days.c.actions + added.excluded.actions,
                    "amount_minor": days.c.amount_minor + added.excluded.amount_minor,
                }
                connection.execute(added.on_conflict_do_update(index_elements=["day", "currency"], set_=total))

    def forget(self) -> None:
        """Drop cached rows; this projection caches none."""
