"""View casework: the current state of interactions, actions and escalations, and links between customers.

It serves an agent's takeover of a case, and shows promised payments that never came.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import sqlalchemy as sa

from domain.actions import ACTION_FIELDS, change_of, is_reservation, named_team
from domain.commands import action_id_of
from domain.customers import connected, is_linked_after
from domain.events import decisions, facts
from domain.money import Money, wire_of
from projections.engine.columns import texts
from projections.engine.day_blocks import DayBlocks, DayTable, days_of
from projections.engine.day_spans import DaySpans, spans_of
from projections.engine.entities import EntityRows, facts_of, last_fact_column, waited_seconds
from projections.engine.events import types_of
from projections.engine.pages import WHOLE, PageRequest, count_rows, page_rows
from projections.engine.row_cache import RowCache, plain_rows
from projections.engine.sql_functions import listed_rows
from projections.engine.temporal_tables import as_of, happened, past_of
from projections.views.authority import reported_asking
from projections.views.careers import MOVES, Careers, ReportedRows, careers_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import msgspec

    from projections.amount_ranges import AmountRange
    from projections.engine.entities import KeptFact
    from projections.engine.events import Correction, Event
    from projections.engine.storage import Row
    from projections.reading import AccessScope

metadata = sa.MetaData()
interactions = sa.Table(
    "interactions",
    metadata,
    sa.Column("interaction_id", sa.Text, primary_key=True),
    sa.Column("customer_id", sa.Text, index=True),
    sa.Column("status", sa.Text),
    sa.Column("opened", sa.Text, index=True),
    *texts("channel", "reason", "first_agent", "first_team", "agent_id", "team_id"),
    sa.Column("line", sa.Integer),
    sa.Column("order_id", sa.Text),
    sa.Column("transfers", sa.Integer),
    sa.Column("stories_repeated", sa.Integer),
    sa.Column("resolution", sa.Text),
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(interactions)
facts_of(interactions)
actions = sa.Table(
    "actions",
    metadata,
    sa.Column("action_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger),
    *texts("time", "state", "agent_id", "team_id"),
    sa.Column("customer_id", sa.Text, index=True),
    sa.Column("interaction_id", sa.Text, index=True),
    *texts("role", "kind", "basis", "currency"),
    sa.Column("amount_minor", sa.BigInteger),
    sa.Column("reversed_minor", sa.BigInteger),
    sa.Column("settled_minor", sa.BigInteger),
    sa.Column("paid_minor", sa.BigInteger),  # the part that payment systems reported
    *texts("reason", "holder", "period", "escalation_id", "decided_by", "manager_id", "agent_kind", "named_team"),
    sa.Column("happened", sa.Text),  # event time of the last event
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("actions_by_position", "position", "time"),
    sa.Index("actions_by_time", "time", "position"),
    sa.Index("actions_by_agent", "agent_id", "position", "time"),
    sa.Index("actions_by_team", "team_id", "position", "time"),
    sa.Index("actions_by_kind", "kind", "position", "time"),
    sa.Index("actions_by_period", "period", "position", "time"),
)
past_of(actions)
escalations = sa.Table(
    "escalations",
    metadata,
    sa.Column("asking", sa.Text, primary_key=True),  # its id; that of another system behind the name of its source
    sa.Column("escalation_id", sa.Text),
    sa.Column("position", sa.BigInteger, index=True),
    *texts("requested", "status", "agent_id", "team_id"),
    sa.Column("customer_id", sa.Text, index=True),
    sa.Column("interaction_id", sa.Text, index=True),
    sa.Column("kind", sa.Text),
    sa.Column("currency", sa.Text),
    sa.Column("asked_minor", sa.BigInteger),
    sa.Column("amount_minor", sa.BigInteger),
    *texts("reason", "asked_of", "due", "decided_by", "manager_id", "agent_kind", "named_team", "role"),
    sa.Column("waited_seconds", sa.Float),
    sa.Column("action_id", sa.Text),
    sa.Column("reported_by", sa.Text),  # the system that handles it, where that is not the ledger
    sa.Column("happened", sa.Text),  # event time of the last event
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("escalations_by_time", "requested", "position"),
    sa.Index("escalations_by_agent", "agent_id", "position", "requested"),
    sa.Index("escalations_by_status", "status", "position", "requested"),
)
past_of(escalations)
facts_of(escalations)
for _listed in (actions, escalations):
    spans_of(_listed)
households = sa.Table(
    "households",
    metadata,
    sa.Column("pair", sa.Text, primary_key=True),
    sa.Column("a", sa.Text, index=True),
    sa.Column("b", sa.Text, index=True),
    sa.Column("linked", sa.Boolean),
    last_fact_column(),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(households)
facts_of(households)
careers = careers_in(metadata)
NEVER_HAPPENED = "never happened"
GIVEN = ("taken", "settled", "reported", "charged", "reversed")
"""The states of an action that was given to the customer; what another system reports was given before."""


def _divisions(one: sa.ColumnCollection[str, sa.Column[str]]) -> list[sa.ColumnElement[str]]:
    """Return the columns by which totals of actions and of escalations are divided."""
    return [
        one.agent_id.label("agent"),
        one.team_id.label("team"),
        one.named_team.label("named"),
        one.agent_kind,
        one.role,
        one.kind,
        one.reason,
        interactions.c.channel,
        one.currency,
    ]


def _stale(time: sa.ColumnElement[str], interaction: sa.ColumnElement[str]) -> sa.Select[tuple[str]]:
    """Return a query of the days of rows whose interaction is the second watched column of the changed rows."""
    return days_of(time).where(interaction.in_(sa.select(listed_rows("touched").c.b)))


def _action_days() -> DayTable:
    """Return the blocks of actions, with the channels of their interactions."""
    done, at = actions.c, interactions.c
    query = sa.select(
        done.time,
        *_divisions(done),
        done.state,
        sa.case((done.basis == "goodwill", 1), else_=0).label("goodwill"),
        sa.func.coalesce(done.amount_minor, 0).label("minor"),
        sa.func.coalesce(done.reversed_minor, 0).label("reversed_minor"),
    )
    query = query.outerjoin(interactions, at.interaction_id == done.interaction_id)
    query = query.where(done.position.is_not(None), done.state != NEVER_HAPPENED)
    stale = _stale(done.time, done.interaction_id)
    numbers = dict.fromkeys(("goodwill", "minor", "reversed_minor"), "number")
    return DayTable(actions, query, numbers, {"interactions": stale})


def _interaction_days() -> DayTable:
    """Return the blocks of interactions: whether goodwill was given in them."""
    one, done = interactions.c, actions.c
    given = (done.basis == "goodwill", sa.or_(*(done.state == one for one in GIVEN)), done.amount_minor > 0)
    helped = sa.select(1).where(done.interaction_id == one.interaction_id, *given).exists()
    query = sa.select(
        one.opened,
        one.first_agent.label("agent"),
        one.first_team.label("team"),
        one.reason,
        one.channel,
        helped.label("helped"),
    )
    stale = _stale(one.opened, one.interaction_id)
    return DayTable(interactions, query, {"helped": "number"}, {"actions": stale})


def _escalation_days() -> DayTable:
    """Return the blocks of escalations, with the channels of their interactions."""
    one, at = escalations.c, interactions.c
    query = sa.select(
        one.requested,
        *_divisions(one),
        one.status,
        one.asked_minor,
        sa.func.coalesce(one.amount_minor, 0).label("approved_minor"),
        one.waited_seconds,
    )
    query = query.outerjoin(interactions, at.interaction_id == one.interaction_id).where(one.status.is_not(None))
    stale = _stale(one.requested, one.interaction_id)
    forms = {"asked_minor": "number", "approved_minor": "number", "waited_seconds": "real"}
    return DayTable(escalations, query, forms, {"interactions": stale})


ACTION_DAYS, INTERACTION_DAYS, ESCALATION_DAYS = _action_days(), _interaction_days(), _escalation_days()
_OF_ACTIONS = tuple(name for name in ACTION_FIELDS if name in actions.c)
_OF_DECISIONS = ("role", "holder", "period", "escalation_id", "decided_by", "manager_id", "agent_kind")
_OF_DECIDED = ("action_id", "manager_id", "agent_kind", "role")
_OF_ESCALATIONS = (*_OF_DECIDED, *(name for name in ACTION_FIELDS if name in escalations.c and name not in _OF_DECIDED))


class Casework:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "casework"
    version = 17
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
        facts.EscalationReported,
        facts.EscalationOutcomeReported,
        facts.CustomerLinked,
        facts.CustomerUnlinked,
        *MOVES,
        facts.FactCorrected,
        facts.InteractionOpened,
        facts.InteractionTransferred,
        facts.InteractionResolved,
        facts.InteractionReopened,
    )

    def __init__(self) -> None:
        self.day_blocks = DayBlocks(ACTION_DAYS, INTERACTION_DAYS, ESCALATION_DAYS)
        self._action_spans, self._escalation_spans = DaySpans(actions), DaySpans(escalations)
        self._careers = Careers(careers)
        self._interactions = EntityRows(
            interactions,
            {
                facts.InteractionOpened: _OPENED,
                facts.InteractionTransferred: ("to_agent_id", "to_team_id", "line", "story_repeated"),
                facts.InteractionResolved: ("resolution",),
                facts.InteractionReopened: (),
            },
            _handled,
            openings=1,
            blocks=self.day_blocks,
            watched=("opened", "interaction_id"),
        )
        self._households = EntityRows(
            households,
            dict.fromkeys((facts.CustomerLinked, facts.CustomerUnlinked), ("a", "b", "relation")),
            _linked,
            key_of=_pair,
        )
        self._actions = RowCache(actions, self.day_blocks, ("time", "interaction_id"))
        self._escalations = EntityRows(
            escalations,
            {
                facts.EscalationReported: _REPORTED,
                facts.EscalationOutcomeReported: ("escalation_id", "verdict", "decided_by", "amount"),
            },
            _escalated,
            openings=1,
            key_of=reported_asking,
            kept=("position",),
            completed=self._careers.completes("requested"),
            blocks=self.day_blocks,
            watched=("requested", "interaction_id"),
        )
        self._careers.reported = (
            ReportedRows(self._actions, actions, "time", "agent_kind IS NULL"),
            ReportedRows(self._escalations, escalations, "requested", "reported_by IS NOT NULL"),
        )
        self._take = self._handlers()

    def _handlers(self) -> dict[type[msgspec.Struct], Callable[[sa.Connection, Event], None]]:
        """Return the handler of each class of events."""
        taken: tuple[tuple[type[msgspec.Struct], Callable[[sa.Connection, Event], None]], ...] = (
            *((cls, rows.add) for rows in (self._interactions, self._households) for cls in rows.classes),
            *((cls, self._careers.add) for cls in MOVES),
            (facts.EscalationReported, self._report),
            (facts.EscalationOutcomeReported, self._escalations.add),
            (facts.FactCorrected, self._correct),
            (facts.RefundSettled, self._settle),
            *((cls, self._act) for cls in (decisions.ActionTaken, decisions.ActionHeld, facts.ActionReported)),
            (decisions.Posting, self._post),
            (decisions.EscalationRequested, self._ask),
            (decisions.EscalationStep, self._escalate),
        )
        return {cls: next(take for base, take in taken if issubclass(cls, base)) for cls in self.types.values()}

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Update the rows that these events concern."""
        self._actions.read_ahead(connection, filter(None, map(_action_of, events)))
        own = decisions.EscalationRequested | decisions.EscalationStep
        self._escalations.read_ahead(
            connection, (one.body.escalation_id for one in events if isinstance(one.body, own))
        )
        for entities in (self._interactions, self._households, self._escalations, self._careers.rows):
            entities.read_entities(connection, events)
        for event in events:
            self._take[type(event.body)](connection, event)
        for rows in self._tables:
            rows.write(connection)
        for spans in (self._action_spans, self._escalation_spans):
            spans.write(connection)
        self.day_blocks.drop(connection)

    def forget(self) -> None:
        """Drop cached rows."""
        self.day_blocks.forget()
        for rows in self._tables:
            rows.forget()
        for spans in (self._action_spans, self._escalation_spans):
            spans.forget()

    @property
    def _tables(self) -> tuple[RowCache | Careers, ...]:
        return self._interactions, self._actions, self._escalations, self._households, self._careers

    def _report(self, connection: sa.Connection, event: Event) -> None:
        self._escalations.add(connection, event)
        self._place(connection, event, event.position)

    def _place(self, connection: sa.Connection, told: Event, position: int) -> None:
        """Note the place of a reported escalation in the list: it keeps the position of its first report."""
        row = self._escalations.get(connection, reported_asking(told)) or {}
        self._escalation_spans.note(told.stored.time, row.get("position") or position)

    def reported_until(self, connection: sa.Connection, moment: str) -> list[Row]:
        """Return the escalations of other systems, of their facts up to an event time alone."""
        return self._escalations.until(connection, moment)

    def _correct(self, connection: sa.Connection, event: Event) -> None:
        """Apply a correction to the rows; decisions made in the meantime stand."""
        if (correction := event.correction) is None:
            return
        for rows in (self._interactions, self._households, self._escalations):
            rows.correct(connection, correction, event.position)
        self._careers.correct(connection, correction, event.position)
        if correction.after is not None and isinstance(correction.after.body, facts.EscalationReported):
            self._place(connection, correction.after, correction.position)
        for fact, sign in ((correction.before, -1), (correction.after, 1)):
            if fact is None or not isinstance(body := fact.body, facts.RefundSettled):
                continue
            if body.action_id is not None:
                total = Money(sign * body.total.minor, body.total.currency)
                self._pay(connection, body.action_id, total, event.position, fact.stored.time)
        told = correction.before or correction.after
        if told is not None and isinstance(told.body, facts.ActionReported):
            self._correct_report(connection, event, correction)

    def _settle(self, connection: sa.Connection, event: Event) -> None:
        body = event.body
        assert isinstance(body, facts.RefundSettled)
        if body.action_id is not None:
            self._pay(connection, body.action_id, body.total, event.position, event.stored.time)

    def _pay(self, connection: sa.Connection, action_id: str, total: Money, position: int, time: str) -> None:
        """Add a payment to an action, or take it back; the amount that a request settled counts without payments."""
        row = self._actions.get(connection, action_id) or {}
        paid = (row.get("paid_minor") or 0) + total.minor
        settled = row["amount_minor"] if not paid and row.get("state") == "settled" else paid
        values = {"paid_minor": paid, "settled_minor": settled, "currency": row.get("currency") or total.currency}
        self._actions.put(connection, action_id, values, position, time)

    def _correct_report(self, connection: sa.Connection, event: Event, correction: Correction) -> None:
        told = correction.before or correction.after
        assert told is not None
        action_id = action_id_of(told.stored.source, told.stored.id)
        row = self._actions.get(connection, action_id)
        if _is_decided(row or {}):
            return
        values: Row = {"state": NEVER_HAPPENED, "amount_minor": 0}
        if correction.after is not None and isinstance(body := correction.after.body, facts.ActionReported):
            values = {name: getattr(body, name) for name in _OF_ACTIONS}
            values |= {"currency": body.amount.currency, "amount_minor": body.amount.minor, "named_team": body.team_id}
            values["state"] = "charged" if row is not None and row["holder"] is not None else body.state
            values |= self._careers.fields(connection, values | {"time": told.stored.time}, "time")
        self._actions.put(connection, action_id, values, event.position, told.stored.time)

    def _act(self, connection: sa.Connection, event: Event) -> None:
        body = event.body
        assert isinstance(body, decisions.ActionTaken | decisions.ActionHeld | facts.ActionReported)
        if isinstance(body, decisions.ActionHeld) and is_reservation(body):
            return
        if isinstance(body, facts.ActionReported):
            action_id = action_id_of(event.stored.source, event.stored.id)
        else:
            action_id = body.action_id
        known = self._actions.get(connection, action_id) or {}
        is_report = isinstance(body, facts.ActionReported)
        if is_report and _is_decided(known):
            return  # the row is that of the decision, and `action.charged` says what the report adds
        values = {name: getattr(body, name) for name in _OF_ACTIONS}
        state = known.get("state")
        if not is_report:
            values |= {name: getattr(body, name, None) for name in _OF_DECISIONS}
            state = state if state == "charged" else body.state
        values["named_team"] = named_team(body)
        values |= {"position": event.position, "time": event.stored.time, "state": state or body.state}
        if isinstance(body, facts.ActionReported):
            values |= self._careers.fields(connection, values, "time")
        values |= {"currency": body.amount.currency, "amount_minor": body.amount.minor}
        values["reversed_minor"] = known.get("reversed_minor") or 0
        self._action_spans.note(event.stored.time, event.position)
        self._actions.put(connection, action_id, values, event.position, event.stored.time)

    def _post(self, connection: sa.Connection, event: Event) -> None:
        body = event.body
        assert isinstance(body, decisions.Posting)
        row = self._actions.get(connection, body.action_id) or {}
        if row.get("position") is None and not isinstance(body, decisions.ActionCharged | decisions.ActionReversed):
            return  # an escalation's reservation, which is no action
        change = change_of(body)
        values: Row = {"reversed_minor": (row.get("reversed_minor") or 0) + change.reversed_minor}
        if change.state is not None and row.get("state") != NEVER_HAPPENED:
            values["state"] = change.state
        if change.amount_minor is not None:
            values["amount_minor"] = change.amount_minor
        if isinstance(body, decisions.ActionSettled) and body.relates_to is None:
            values["settled_minor"] = row.get("paid_minor") or body.amount.minor
        elif isinstance(body, decisions.ActionCharged):
            if body.decided is None:
                values |= {"holder": body.holder, "period": body.period}
            if _is_decided(row) and row["currency"] == body.amount.currency:
                values["amount_minor"] = row["amount_minor"] + body.amount.minor
        self._actions.put(connection, body.action_id, values, event.position, event.stored.time)

    def _ask(self, connection: sa.Connection, event: Event) -> None:
        body = event.body
        assert isinstance(body, decisions.EscalationRequested)
        self._escalation_spans.note(event.stored.time, event.position)
        values = {name: getattr(body, name) for name in _OF_ESCALATIONS} | {
            "escalation_id": body.escalation_id,
            "named_team": named_team(body),
            "position": event.position,
            "requested": event.stored.time,
            "status": "waiting",
            "currency": body.amount.currency,
            "asked_minor": body.amount.minor,
            "asked_of": json.dumps(body.to),
            "due": body.due.isoformat(),
        }
        self._escalations.put(connection, body.escalation_id, values, event.position, event.stored.time)

    def _escalate(self, connection: sa.Connection, event: Event) -> None:
        body = event.body
        assert isinstance(body, decisions.EscalationStep)
        values: Row
        if isinstance(body, decisions.EscalationForwarded):
            values = {"asked_of": json.dumps(body.to), "due": body.due.isoformat()}
        else:
            values = {
                "status": body.status,
                "decided_by": body.decided_by,
                "waited_seconds": body.waited_seconds,
                "amount_minor": body.amount.minor if body.status == "approved" else 0,
            }
        self._escalations.put(connection, body.escalation_id, values, event.position, event.stored.time)


def _action_of(event: Event) -> str | None:
    """Return the id of the action that an event is about, if it is about one."""
    if isinstance(event.body, facts.ActionReported):
        return action_id_of(event.stored.source, event.stored.id)
    return getattr(event.body, "action_id", None)


def _is_decided(row: Row) -> bool:
    """Return whether a row is of an action that the ledger decided; no report has a kind of agent."""
    return row.get("agent_kind") is not None


_OPENED = ("customer_id", "channel", "reason", "agent_id", "team_id", "line", "order_id")


def _handled(row: Row, body: msgspec.Struct, fact: KeptFact) -> Row:
    """Return the changes that a fact makes to an interaction's row; a second opening fills only blank fields."""
    match body:
        case facts.InteractionOpened():
            values: Row = {name: row[name] or getattr(body, name) for name in _OPENED}
            values |= {"first_agent": values["agent_id"], "first_team": values["team_id"]}
            if row["opened"] is None:
                values |= {"status": "open", "opened": fact.time, "transfers": 0, "stories_repeated": 0}
            return values
        case facts.InteractionTransferred():
            return {
                "transfers": (row["transfers"] or 0) + 1,
                "stories_repeated": (row["stories_repeated"] or 0) + bool(body.story_repeated),
                "agent_id": body.to_agent_id,
                "team_id": body.to_team_id or row["team_id"],
                "line": body.line or row["line"],
            }
        case facts.InteractionResolved():
            return {"status": "resolved", "resolution": body.resolution}
        case _:
            return {"status": "open"}


_REPORTED = ("escalation_id", "kind", "amount", "requested_by", "interaction_id", "customer_id", "reason")


def _escalated(row: Row, body: msgspec.Struct, fact: KeptFact) -> Row:
    """Return the changes that a fact makes to an escalation in another system; an outcome alone makes none."""
    if isinstance(body, facts.EscalationReported):
        told = {"agent_id": body.requested_by} | {name: getattr(body, name) for name in _TOLD}
        values: Row = {name: row[name] or value for name, value in told.items()}
        if row["requested"] is None:
            values |= {"escalation_id": body.escalation_id, "reported_by": fact.source, "requested": fact.time}
            values |= {"position": row["position"] or fact.position, "status": "waiting"}
            values |= {"currency": body.amount.currency, "asked_minor": body.amount.minor}
        return values
    assert isinstance(body, facts.EscalationOutcomeReported)
    if row["requested"] is None or row["status"] == "approved":  # an approval is final
        return {}
    approved = body.verdict == "approved"
    return {
        "status": body.verdict,
        "decided_by": body.decided_by,
        "waited_seconds": waited_seconds(row["requested"], fact.time),
        "amount_minor": (body.amount.minor if body.amount else row["asked_minor"]) if approved else 0,
    }


_TOLD = ("kind", "interaction_id", "customer_id", "reason")


def _linked(_row: Row, body: msgspec.Struct, _fact: KeptFact) -> Row:
    """Return the state of a link between two customers after a fact."""
    assert isinstance(body, facts.CustomerLinked | facts.CustomerUnlinked)
    a, b = sorted((body.a, body.b))
    return {"a": a, "b": b, "linked": is_linked_after(body)}


def _pair(event: Event) -> str:
    """Return the key of a link, the same from both sides."""
    body = event.body
    assert isinstance(body, facts.CustomerLinked | facts.CustomerUnlinked)
    a, b = sorted((body.a, body.b))
    return f"{len(a)}:{a}:{b}:{body.relation}"


def customer_group_of(connection: sa.Connection, customer_id: str) -> list[str]:
    """Return the customer and all customers linked with them, directly or over others."""
    return _connected(connection, customer_id)


def same_person(connection: sa.Connection, customer_id: str) -> list[str]:
    """Return the customer and all ids of the same person, directly or over others."""
    return _connected(connection, customer_id, households.c.pair.endswith(":same_person", autoescape=True))


def _connected(connection: sa.Connection, customer_id: str, *where: sa.ColumnElement[bool]) -> list[str]:
    def linked_to(one: str) -> Iterable[str]:
        sides = ((households.c.a, households.c.b), (households.c.b, households.c.a))
        some = (sa.select(other).where(mine == one, households.c.linked, *where) for mine, other in sides)
        return connection.execute(sa.union_all(*some)).scalars()

    return sorted(connected(customer_id, linked_to))


def read_interactions(
    connection: sa.Connection, customers: Sequence[str] = (), interaction_id: str | None = None
) -> list[Row]:
    """Return the interactions of these customers, or one interaction, the newest first."""
    query = sa.select(interactions).where(interactions.c.last_fact.is_not(None))
    query = query.order_by(interactions.c.opened.desc().nulls_last(), interactions.c.interaction_id)
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


def count_actions(
    connection: sa.Connection,
    *where: sa.ColumnElement[bool],
    page: PageRequest = WHOLE,
    source: sa.FromClause | None = None,
    **equal: str | None,
) -> int:
    """Return the number of actions in a list; the parameters are those of ``read_actions``."""
    return count_rows(connection, actions, page, where, equal, source=source)


def read_first_actions(connection: sa.Connection, position: int | None = None) -> dict[str, str]:
    """Return the time of the first action of each interaction, as of a position."""
    done = as_of(actions, position)
    given = done.c.interaction_id.is_not(None), done.c.time.is_not(None), done.c.state != NEVER_HAPPENED
    query = sa.select(done.c.interaction_id, sa.func.min(done.c.time)).where(*given).group_by(done.c.interaction_id)
    return dict(plain_rows(connection, query))


def read_given(connection: sa.Connection, position: int | None = None) -> list[tuple[str, str, str, int]]:
    """Return the goodwill given as of a position: interaction, kind, currency and minor units, each sum once."""
    return plain_rows(connection, _sums_given(as_of(actions, position)))


def _sums_given(done: sa.FromClause) -> sa.Select[str, str, str, int]:
    """Return a query of the goodwill given by interaction, kind and currency."""
    one = done.c
    query = sa.select(one.interaction_id, one.kind, one.currency, sa.func.sum(one.amount_minor))
    query = query.where(one.interaction_id.is_not(None), one.basis == "goodwill", one.amount_minor > 0)
    query = query.where(one.position.is_not(None), one.state.in_(GIVEN))
    return query.group_by(one.interaction_id, one.kind, one.currency)


def read_opened(
    connection: sa.Connection, begin: str | None, end: str | None
) -> list[tuple[str, str | None, str | None, str | None]]:
    """Return the interactions that were opened in [begin, end): id, channel, first team, reason."""
    one = interactions.c
    query = sa.select(one.interaction_id, one.channel, one.first_team, one.reason)
    return plain_rows(connection, query.where(*_opened_within(begin, end)))


def read_given_within(connection: sa.Connection, begin: str | None, end: str | None) -> list[tuple[str, str, str, int]]:
    """Return what ``read_given`` returns, of the interactions that were opened in [begin, end)."""
    query = _sums_given(actions).join(interactions, interactions.c.interaction_id == actions.c.interaction_id)
    return plain_rows(connection, query.where(*_opened_within(begin, end)))


def _opened_within(begin: str | None, end: str | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that an interaction was opened in [begin, end); ``None`` is without limit."""
    opened = interactions.c.opened
    limits: list[sa.ColumnElement[bool]] = [opened.is_not(None)]
    if begin is not None:
        limits.append(opened >= begin)
    if end is not None:
        limits.append(opened < end)
    return limits


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
    rows = [row for row in happened(connection, escalations, moment) if row["last_fact"] is None]
    rows += Casework().reported_until(connection, moment)
    found = sorted((row for row in rows if row["status"] is not None), key=lambda row: int(row["position"]))
    return [_as_escalation(row) for row in found]


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
    """Return a page of escalations in the order of the log; ``source`` is the table that ``where`` is about.

    Those of other systems have ``reported_by``, the source, and no approvers.
    """
    rows = page_rows(
        connection, escalations, page, where, equal, source=source, time="requested", without_blank="status"
    )
    return [_as_escalation(row) for row in rows]


def count_escalations(
    connection: sa.Connection,
    *where: sa.ColumnElement[bool],
    page: PageRequest = WHOLE,
    source: sa.FromClause | None = None,
    **equal: str | None,
) -> int:
    """Return the number of escalations in a list; the parameters are those of ``read_escalations``."""
    return count_rows(
        connection, escalations, page, where, equal, source=source, time="requested", without_blank="status"
    )


def read_waiting_escalations(connection: sa.Connection) -> tuple[int, str | None]:
    """Return the number of the ledger's own escalations that wait, and the event time of the oldest one."""
    one = escalations.c
    query = sa.select(sa.func.count(), sa.func.min(one.requested))
    number, oldest = connection.execute(query.where(one.status == "waiting", one.reported_by.is_(None))).one()
    return int(number), oldest


def _as_escalation(row: Row) -> Row:
    shown = _with_money(row, ("asked", "amount"))
    shown.pop("role", None)  # it is kept for totals alone
    return shown | {"asked_of": json.loads(row["asked_of"] or "[]")}


HIDDEN = ("currency", "since", "happened", "last_fact", "first_agent", "first_team", "named_team", "asking")


def _with_money(row: Row, names: Sequence[str]) -> Row:
    """Return a row as answers show it, with money as objects."""
    shown = {name: value for name, value in row.items() if name not in HIDDEN and not name.endswith("_minor")}
    for name in names:
        minor = row[f"{name}_minor"]
        shown[name] = None if minor is None else wire_of(minor, row["currency"])
    return shown


def was_given(source: sa.FromClause, given: bool | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that actions were given to the customer, or were not; none for ``None``."""
    if given is None:
        return []
    found = source.c.state.in_(GIVEN)
    return [found if given else ~found]


def has_amount(
    source: sa.FromClause, minor: sa.ColumnElement[int], amounts: AmountRange | None
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that an amount in minor units lies in a range; none for ``None``."""
    if amounts is None:
        return []
    return [source.c.currency == amounts.currency, minor.between(amounts.least, amounts.most)]


def seen_by(source: sa.FromClause, scope: AccessScope, *, asked: str | None = None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions under which a reader may see actions or escalations.

    ``asked``: a person, who sees the escalations that they were asked to decide, too.
    """
    if scope.people is None:
        return []
    columns = source.c
    seen: list[sa.ColumnElement[bool]] = [columns.agent_id.in_(scope.people)]
    if scope.teams:
        seen.append(columns.named_team.in_(scope.teams))
    if asked is not None:
        seen.append(columns.asked_of.contains(json.dumps(asked), autoescape=True))
    return [sa.or_(*seen)]
