"""View casework: the current state of interactions, actions and escalations, and links between customers.

It serves an agent's takeover of a case, and shows promised payments that never came.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import sqlalchemy as sa

from domain.actions import ACTION_FIELDS, change_of, is_reservation
from domain.commands import action_id_of
from domain.customers import connected, is_linked_after
from domain.events import decisions, facts
from domain.money import wire_of
from projections.engine.events import types_of
from projections.engine.pages import WHOLE, PageRequest, page_rows
from projections.engine.row_cache import RowCache, plain_rows
from projections.engine.storage import texts
from projections.engine.temporal_tables import as_of, happened, past_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import msgspec

    from domain.customers import CustomerLink
    from projections.engine.events import Correction, Event
    from projections.engine.storage import Row

metadata = sa.MetaData()
interactions = sa.Table(
    "interactions",
    metadata,
    sa.Column("interaction_id", sa.Text, primary_key=True),
    sa.Column("customer_id", sa.Text, index=True),
    *texts("status", "opened", "channel", "reason", "agent_id", "team_id"),
    sa.Column("line", sa.Integer),
    sa.Column("order_id", sa.Text),
    sa.Column("transfers", sa.Integer),
    sa.Column("stories_repeated", sa.Integer),
    sa.Column("resolution", sa.Text),
    sa.Column("happened", sa.Text),  # event time of the last event
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(interactions)
actions = sa.Table(
    "actions",
    metadata,
    sa.Column("action_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, index=True),
    *texts("time", "state", "agent_id", "team_id"),
    sa.Column("customer_id", sa.Text, index=True),
    sa.Column("interaction_id", sa.Text, index=True),
    *texts("kind", "basis", "currency"),
    sa.Column("amount_minor", sa.BigInteger),
    sa.Column("reversed_minor", sa.BigInteger),
    sa.Column("settled_minor", sa.BigInteger),
    *texts("reason", "holder", "period", "escalation_id", "decided_by"),
    sa.Column("happened", sa.Text),  # event time of the last event
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("actions_by_agent", "agent_id", "position"),
)
past_of(actions)
escalations = sa.Table(
    "escalations",
    metadata,
    sa.Column("escalation_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, index=True),
    *texts("requested", "status", "agent_id", "team_id"),
    sa.Column("customer_id", sa.Text, index=True),
    sa.Column("interaction_id", sa.Text, index=True),
    sa.Column("kind", sa.Text),
    sa.Column("currency", sa.Text),
    sa.Column("asked_minor", sa.BigInteger),
    sa.Column("amount_minor", sa.BigInteger),
    *texts("reason", "asked_of", "due", "decided_by"),
    sa.Column("waited_seconds", sa.Float),
    sa.Column("action_id", sa.Text),
    sa.Column("happened", sa.Text),  # event time of the last event
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("escalations_by_agent", "agent_id", "position"),
)
past_of(escalations)
households = sa.Table(
    "households",
    metadata,
    sa.Column("pair", sa.Text, primary_key=True),
    sa.Column("a", sa.Text, index=True),
    sa.Column("b", sa.Text),
    sa.Column("linked", sa.Boolean),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(households)


NEVER_HAPPENED = "never happened"
_OF_ACTIONS = tuple(name for name in ACTION_FIELDS if name in actions.c)
_OF_ESCALATIONS = ("action_id", *(name for name in ACTION_FIELDS if name in escalations.c))
_ON_INTERACTIONS = {
    facts.InteractionOpened,
    facts.InteractionTransferred,
    facts.InteractionResolved,
    facts.InteractionReopened,
}
type _Action = decisions.ActionTaken | decisions.ActionHeld | facts.ActionReported
type _Escalation = decisions.EscalationRequested | decisions.EscalationStep


class Casework:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "casework"
    version = 5
    metadata = metadata
    prefixes = ("ledger.",)
    types = types_of(
        decisions.ActionTaken,
        decisions.ActionHeld,
        decisions.Posting,
        decisions.EscalationRequested,
        decisions.EscalationStep,
        facts.ActionReported,
        facts.RefundSettled,
        facts.CustomerLinked,
        facts.CustomerUnlinked,
        facts.FactCorrected,
        facts.InteractionOpened,
        facts.InteractionTransferred,
        facts.InteractionResolved,
        facts.InteractionReopened,
    )

    def __init__(self) -> None:
        self._interactions = RowCache(interactions)
        self._actions = RowCache(actions)
        self._escalations = RowCache(escalations)
        self._households = RowCache(households)

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Update the rows that these events concern."""
        for event in events:
            body = event.body
            match body:
                case facts.CustomerLinked() | facts.CustomerUnlinked():
                    self._link(connection, event, body)
                case decisions.ActionTaken() | decisions.ActionHeld() | facts.ActionReported():
                    self._act(connection, event, body)
                case decisions.Posting():
                    self._post(connection, event, body)
                case facts.RefundSettled():
                    row = self._actions.get(connection, body.action_id)
                    settled = (row["settled_minor"] if row else None) or 0
                    values = {"settled_minor": settled + body.total.minor, "currency": body.total.currency}
                    self._actions.put(connection, body.action_id, values, event.position, event.stored.time)
                case decisions.EscalationRequested() | decisions.EscalationStep():
                    self._escalate(connection, event, body)
                case facts.FactCorrected() if event.correction:
                    self._correct(connection, event, event.correction)
                case _:
                    self._handle(connection, event, body)
        for rows in self._tables:
            rows.write(connection)

    def forget(self) -> None:
        """Drop cached rows."""
        for rows in self._tables:
            rows.forget()

    @property
    def _tables(self) -> tuple[RowCache, ...]:
        return self._interactions, self._actions, self._escalations, self._households

    def _handle(self, connection: sa.Connection, event: Event, body: msgspec.Struct) -> None:
        """Apply an event of an interaction."""
        match body:
            case facts.InteractionOpened():
                names = ("customer_id", "channel", "reason", "agent_id", "team_id", "line", "order_id")
                values = {name: getattr(body, name) for name in names}
                values |= {"status": "open", "opened": event.stored.time, "transfers": 0, "stories_repeated": 0}
            case facts.InteractionTransferred():
                row = self._interactions.get(connection, body.interaction_id) or {}
                values = {
                    "transfers": (row.get("transfers") or 0) + 1,
                    "stories_repeated": (row.get("stories_repeated") or 0) + bool(body.story_repeated),
                    "agent_id": body.to_agent_id,
                    "team_id": body.to_team_id or row.get("team_id"),
                    "line": body.line or row.get("line"),
                }
            case facts.InteractionResolved():
                values = {"status": "resolved", "resolution": body.resolution}
            case facts.InteractionReopened():
                values = {"status": "open"}
            case _:
                return
        self._interactions.put(connection, body.interaction_id, values, event.position, event.stored.time)

    def _correct(  # noqa: C901 - one case for each type of fact
        self,
        connection: sa.Connection,
        event: Event,
        correction: Correction,
    ) -> None:
        """Apply a correction to the rows; decisions made in the meantime stand."""
        told = correction.before or correction.after
        if told is None:
            return
        before = correction.before.body if correction.before else None
        after = correction.after.body if correction.after else None
        match before or after:
            case facts.CustomerLinked() | facts.CustomerUnlinked():
                for link, undo in ((before, True), (after, False)):
                    if isinstance(link, facts.CustomerLinked | facts.CustomerUnlinked):
                        self._link(connection, event, link, undo=undo)
            case facts.RefundSettled():
                for fact, sign in ((before, -1), (after, 1)):
                    if isinstance(fact, facts.RefundSettled):
                        known = self._actions.get(connection, fact.action_id) or {}
                        settled = (known.get("settled_minor") or 0) + sign * fact.total.minor
                        self._actions.put(
                            connection, fact.action_id, {"settled_minor": settled}, event.position, told.stored.time
                        )
            case facts.ActionReported():
                self._correct_report(connection, event, correction)
            case fact if (interaction_id := getattr(fact, "interaction_id", None)) and type(fact) in _ON_INTERACTIONS:
                row = self._interactions.get(connection, interaction_id)
                if row is not None:
                    values = _interaction_values(correction, row)
                    self._interactions.put(connection, interaction_id, values, event.position, told.stored.time)

    def _correct_report(self, connection: sa.Connection, event: Event, correction: Correction) -> None:
        told = correction.before or correction.after
        assert told is not None
        action_id = action_id_of(told.stored.source, told.stored.id)
        values: Row = {"state": NEVER_HAPPENED, "amount_minor": 0}
        if correction.after is not None and isinstance(body := correction.after.body, facts.ActionReported):
            values = {name: getattr(body, name) for name in _OF_ACTIONS}
            values |= {"currency": body.amount.currency, "amount_minor": body.amount.minor}
        self._actions.put(connection, action_id, values, event.position, told.stored.time)

    def _act(self, connection: sa.Connection, event: Event, body: _Action) -> None:
        if isinstance(body, decisions.ActionHeld) and is_reservation(body):
            return
        if isinstance(body, facts.ActionReported):
            action_id = action_id_of(event.stored.source, event.stored.id)
        else:
            action_id = body.action_id
        values = {name: getattr(body, name) for name in _OF_ACTIONS} | {
            name: getattr(body, name, None) for name in ("holder", "period", "escalation_id", "decided_by")
        }
        values |= {"position": event.position, "time": event.stored.time, "state": body.state, "reversed_minor": 0}
        values |= {"currency": body.amount.currency, "amount_minor": body.amount.minor}
        self._actions.put(connection, action_id, values, event.position, event.stored.time)

    def _post(self, connection: sa.Connection, event: Event, body: decisions.Posting) -> None:
        row = self._actions.get(connection, body.action_id)
        if row is None or row["position"] is None:
            return
        change = change_of(body)
        values: Row = {"reversed_minor": row["reversed_minor"] + change.reversed_minor}
        if change.state is not None:
            values["state"] = change.state
        if change.amount_minor is not None:
            values["amount_minor"] = change.amount_minor
        if isinstance(body, decisions.ActionSettled) and body.relates_to is None:
            values["settled_minor"] = body.amount.minor  # a fact's amount is counted from the fact itself
        elif isinstance(body, decisions.ActionCharged):
            values |= {"holder": body.holder, "period": body.period}
        self._actions.put(connection, body.action_id, values, event.position, event.stored.time)

    def _escalate(self, connection: sa.Connection, event: Event, body: _Escalation) -> None:
        if isinstance(body, decisions.EscalationRequested):
            values = {name: getattr(body, name) for name in _OF_ESCALATIONS} | {
                "position": event.position,
                "requested": event.stored.time,
                "status": "waiting",
                "currency": body.amount.currency,
                "asked_minor": body.amount.minor,
                "asked_of": json.dumps(body.to),
                "due": body.due.isoformat(),
            }
        elif isinstance(body, decisions.EscalationForwarded):
            values = {"asked_of": json.dumps(body.to), "due": body.due.isoformat()}
        else:
            values = {
                "status": body.status,
                "decided_by": body.decided_by,
                "waited_seconds": body.waited_seconds,
                "amount_minor": body.amount.minor if body.status == "approved" else 0,
            }
        self._escalations.put(connection, body.escalation_id, values, event.position, event.stored.time)

    def _link(
        self,
        connection: sa.Connection,
        event: Event,
        body: CustomerLink,
        *,
        undo: bool = False,
    ) -> None:
        for a, b in ((body.a, body.b), (body.b, body.a)):
            pair = f"{len(a)}:{a}:{b}:{body.relation}"
            linked = is_linked_after(body, undo=undo)
            self._households.put(
                connection, pair, {"a": a, "b": b, "linked": linked}, event.position, event.stored.time
            )


def _interaction_values(correction: Correction, row: Row) -> Row:
    """Return the changes to an interaction's row: fields that still show the wrong data, and counts."""
    before = correction.before.body if correction.before else None
    after = correction.after.body if correction.after else None
    values: Row = {}
    for column, field in _SHOWN.get(type(before or after), {}).items():
        if row.get(column) == getattr(before, field, None):
            values[column] = getattr(after, field, None)
    match before or after:
        case facts.InteractionTransferred():
            values["transfers"] = (row.get("transfers") or 0) - (before is not None) + (after is not None)
            told_again = bool(getattr(after, "story_repeated", None)) - bool(getattr(before, "story_repeated", None))
            values["stories_repeated"] = (row.get("stories_repeated") or 0) + told_again
        case facts.InteractionOpened() if (before is None) != (after is None):
            values["status"] = "open" if after is not None else "never happened"
        case facts.InteractionResolved() if after is None and row.get("status") == "resolved":
            values["status"] = "open"
        case facts.InteractionReopened() if after is None and row.get("status") == "open":
            values["status"] = "resolved"
    return values


_SHOWN: dict[type, dict[str, str]] = {
    facts.InteractionOpened: {
        name: name for name in ("customer_id", "channel", "reason", "agent_id", "team_id", "line", "order_id")
    },
    facts.InteractionTransferred: {"agent_id": "to_agent_id", "team_id": "to_team_id", "line": "line"},
    facts.InteractionResolved: {"resolution": "resolution"},
}


def customer_group_of(connection: sa.Connection, customer_id: str) -> list[str]:
    """Return the customer and all customers linked with them, directly or over others."""
    return _connected(connection, customer_id)


def same_person(connection: sa.Connection, customer_id: str) -> list[str]:
    """Return the customer and all ids of the same person, directly or over others."""
    return _connected(connection, customer_id, households.c.pair.endswith(":same_person", autoescape=True))


def _connected(connection: sa.Connection, customer_id: str, *where: sa.ColumnElement[bool]) -> list[str]:
    def linked_to(one: str) -> Iterable[str]:
        query = sa.select(households.c.b).where(households.c.a == one, households.c.linked, *where)
        return connection.execute(query).scalars()

    return sorted(connected(customer_id, linked_to))


def read_interactions(
    connection: sa.Connection, customers: Sequence[str] = (), interaction_id: str | None = None
) -> list[Row]:
    """Return the interactions of these customers, or one interaction, the newest first."""
    query = sa.select(interactions).order_by(interactions.c.opened.desc(), interactions.c.interaction_id)
    if interaction_id is not None:
        query = query.where(interactions.c.interaction_id == interaction_id)
    else:
        query = query.where(interactions.c.customer_id.in_(customers))
    return [
        {name: value for name, value in row.items() if name not in HIDDEN}
        for row in connection.execute(query).mappings()
    ]


def read_actions(
    connection: sa.Connection,
    *where: sa.ColumnElement[bool],
    page: PageRequest = WHOLE,
    source: sa.FromClause | None = None,
    **equal: str | None,
) -> list[Row]:
    """Return a page of actions in the order of the log; ``source`` is the table that ``where`` is about."""
    rows = page_rows(connection, actions, page, where, equal, source=source)
    return [_with_money(row, ("amount", "reversed", "settled")) for row in rows]


def read_first_actions(connection: sa.Connection, position: int | None = None) -> dict[str, str]:
    """Return the time of the first action of each interaction, as of a position."""
    done = as_of(actions, position)
    given = done.c.interaction_id.is_not(None), done.c.time.is_not(None), done.c.state != NEVER_HAPPENED
    query = sa.select(done.c.interaction_id, sa.func.min(done.c.time)).where(*given).group_by(done.c.interaction_id)
    return dict(plain_rows(connection, query))


def read_where_done(connection: sa.Connection) -> list[Row]:
    """Return position, time, kind, agent, team, interaction and channel of every action."""
    done = actions.c
    query = sa.select(
        done.position, done.time, done.kind, done.agent_id, done.team_id, done.interaction_id, interactions.c.channel
    )
    query = query.outerjoin(interactions, interactions.c.interaction_id == done.interaction_id)
    found = connection.execute(query.where(done.position.is_not(None)).order_by(done.position))
    return [dict(row) for row in found.mappings()]


def read_actions_happened(connection: sa.Connection, moment: str) -> list[Row]:
    """Return actions that count only changes up to an event time, even those reported later."""
    rows = happened(connection, actions, moment, counted=("reversed_minor", "settled_minor"))
    found = sorted((row for row in rows if row["position"] is not None), key=lambda row: int(row["position"]))
    return [_with_money(row, ("amount", "reversed", "settled")) for row in found]


def read_escalations_happened(connection: sa.Connection, moment: str) -> list[Row]:
    """Return escalations that count only changes up to an event time, even those reported later."""
    rows = happened(connection, escalations, moment)
    found = sorted((row for row in rows if row["position"] is not None), key=lambda row: int(row["position"]))
    return [{**_with_money(row, ("asked", "amount")), "asked_of": json.loads(row["asked_of"])} for row in found]


def unsettled(before: str, source: sa.FromClause = actions) -> sa.ColumnElement[bool]:
    """Return a condition for money promised before this time without a settlement, or with another amount."""
    return sa.and_(
        source.c.kind.in_(MONEY_KINDS),
        source.c.state.in_(("taken", "charged", "held", "settled")),
        source.c.time < before,
        source.c.amount_minor > source.c.reversed_minor,
        sa.func.coalesce(source.c.settled_minor, 0) != source.c.amount_minor,
    )


MONEY_KINDS = ("refund", "credit", "fee_waiver")
"""Kinds of actions that a payment system pays."""


def read_escalations(
    connection: sa.Connection,
    *where: sa.ColumnElement[bool],
    page: PageRequest = WHOLE,
    source: sa.FromClause | None = None,
    **equal: str | None,
) -> list[Row]:
    """Return a page of escalations in the order of the log; ``source`` is the table that ``where`` is about."""
    rows = page_rows(connection, escalations, page, where, equal, source=source, time="requested")
    shown = [_with_money(row, ("asked", "amount")) for row in rows]
    return [{**row, "asked_of": json.loads(row["asked_of"])} for row in shown]


HIDDEN = ("currency", "since", "happened")


def _with_money(row: Row, names: Sequence[str]) -> Row:
    """Return a row as answers show it, with money as objects."""
    shown = {name: value for name, value in row.items() if name not in HIDDEN and not name.endswith("_minor")}
    for name in names:
        minor = row[f"{name}_minor"]
        shown[name] = None if minor is None else wire_of(minor, row["currency"])
    return shown
