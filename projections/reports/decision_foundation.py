"""The events that the decision on one action rests on: with these alone, the decision can be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from domain.events import decisions, facts
from domain.events.causes import Caused
from domain.events.decisions import Done
from ledger.store.subject_tokens import token_of_id
from projections.engine.events import UnknownEventError, read_event
from projections.engine.pages import PageRequest
from projections.policy_history import POLICY_SUBJECT
from projections.views.audit_trail import read_trail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import sqlalchemy as sa

    from ledger.store.log import Log
    from projections.engine.events import Event

_STAFF = ("employee.", "training.", "relationship.", "delegation.")
_ACTIONS = ("action.", "refund.", "customer.linked", "customer.unlinked")
_BUDGET = "ledger.budget."
_SOURCES = "ledger.sources"


class Foundation(NamedTuple):
    """A decision's events, from ``first`` to ``last``, and the positions of these and of all that it rests on."""

    first: int
    last: int
    positions: list[int]


async def foundation_of(log: Log, connection: sa.Connection, position: int) -> Foundation | None:
    """Return the foundation of the decision at a position; ``None`` where a fact is there.

    The earlier events are the policies, the budgets, the facts about the people
    concerned, the actions on the interaction and for the customer's group, and the escalation. Corrections come with
    the facts that they correct.
    """
    group = await _group_at(log, position)
    if not group:
        return None
    first = min(event.position for event in group)
    found = {event.position for event in group}
    found |= {one.position for one in await log.read_subject(POLICY_SUBJECT) if one.position < first}
    people = {name for event in group for name in _people(event.body)}
    staff = _named(connection, [("agent", name) for name in people], _STAFF, first)
    found |= set(staff)
    teams = {team for event in await _events(log, staff) for team in getattr(event.body, "team_ids", None) or ()}
    for subject in _budgets(group, teams):
        found |= {one.position for one in await log.read_subject(subject) if one.position < first}
    customers = {str(name) for event in group if (name := getattr(event.body, "customer_id", None))}
    found |= await _given_to(log, connection, customers, first)
    wanted = {
        (kind, getattr(event.body, f"{kind}_id"))
        for event in group
        for kind in ("interaction", "escalation", "action")
        if getattr(event.body, f"{kind}_id", None)
    }
    found |= set(_named(connection, sorted(wanted), ("action.", "refund.", "escalation."), first))
    orders = [("order", order) for event in group if (order := _order_of(event.body)) is not None]
    on_order = _named(connection, orders, ("purchase.", "action.", "refund."), first)
    done = {("action", event.body.action_id) for event in await _events(log, on_order) if isinstance(event.body, Done)}
    found |= {*on_order, *_named(connection, sorted(done), ("action.",), first)}
    found |= {one.position for one in await log.read_subject(_SOURCES) if orders and one.position < first}
    positions = sorted(found | await _corrections(log, connection, found, first))
    return Foundation(first, max(event.position for event in group), positions)


async def _group_at(log: Log, position: int) -> list[Event]:
    """Return the events of the decision at a position: they are adjacent and have one cause."""
    event = await _event_at(log, position)
    if event is None or (cause := _cause(event)) is None:
        return []
    group = [event]
    for step in (-1, 1):
        at = position + step
        while (event := await _event_at(log, at)) is not None and _cause(event) == cause:
            group.append(event)
            at += step
    return group


async def _event_at(log: Log, position: int) -> Event | None:
    recorded = await log.at(position)
    try:
        return None if recorded is None else read_event(recorded)
    except UnknownEventError:
        return None


def _cause(event: Event) -> tuple[object, ...] | None:
    body = event.body
    return (body.source, body.request_id, body.seen_position) if isinstance(body, Caused) else None


def _order_of(body: object) -> str | None:
    """Return the order of an entitlement or a correction; its account was looked at."""
    return None if getattr(body, "basis", "goodwill") == "goodwill" else getattr(body, "order_id", None)


def _people(body: object) -> list[str]:
    names = (getattr(body, name, None) for name in ("agent_id", "decided_by", "on_behalf_of"))
    return [name for name in names if name is not None]


def _budgets(group: Sequence[Event], teams: Iterable[str]) -> set[str]:
    """Return the subjects of the budgets that a decision wrote to, and of the pools that it may have looked at."""
    own = {event.subject for event in group if event.subject.startswith(_BUDGET)}
    parts = [subject.removeprefix(_BUDGET).split(".") for subject in own]
    pools = {f"{_BUDGET}{token_of_id(f'team:{team}')}.{currency}.*" for team in teams for _, currency, _ in parts}
    return own | pools


def _named(
    connection: sa.Connection, wanted: Iterable[tuple[str, str]], types: Sequence[str], before: int
) -> list[int]:
    """Return the positions before ``before`` of events of these types that name one of ``wanted``, (kind, id) each."""
    prefixes = tuple(f"resolution.{name}" for name in types)
    return [
        line["position"]
        for one in wanted
        for line in read_trail(connection, [one], PageRequest(at=before - 1))
        if line["type"].startswith(prefixes)
    ]


async def _given_to(log: Log, connection: sa.Connection, customers: set[str], before: int) -> set[int]:
    """Return the actions for customers and for all that were ever linked with them, and the links."""
    found: set[int] = set()
    todo, known = list(customers), set(customers)
    while todo:
        positions = _named(connection, [("customer", todo.pop())], _ACTIONS, before)
        found |= set(positions)
        for event in await _events(log, positions):
            if isinstance(event.body, (facts.CustomerLinked, facts.CustomerUnlinked)):
                more = {event.body.a, event.body.b} - known
                known |= more
                todo += more
    return found


async def _corrections(log: Log, connection: sa.Connection, found: set[int], before: int) -> set[int]:
    """Return the corrections of facts among these positions."""
    corrections: set[int] = set()
    for event in await _events(log, sorted(found)):
        if isinstance(event.body, decisions.Record):
            continue
        (line,) = read_trail(connection, page=PageRequest(1, event.position - 1))
        if line["position"] == event.position and line["corrected_by"] and line["corrected_by"] < before:
            corrections.add(line["corrected_by"])
    return corrections


async def _events(log: Log, positions: Iterable[int]) -> list[Event]:
    found = [await _event_at(log, position) for position in positions]
    return [event for event in found if event is not None]
