"""The events of the demo's world as facts to publish and requests to decide, in order of time."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from app.demo.organisation import ABROAD, HEAD, HEAD_TEAM, OFFLINE, make_organisation
from app.demo.organisations.schemes import plant_strongly
from app.demo.organisations.traffic import HonestTraffic
from app.demo.organisations.world import BEGIN, World
from app.demo.service_days import add_service_days
from domain.abuse.history import DAY
from domain.commands import action_id_of, escalation_id_of
from domain.events import decisions, facts
from domain.events.causes import Caused
from domain.events.facts import FACTS
from domain.money import Money
from domain.serialization import JsonObject, plain
from ledger.store.cloudevents import time_text

if TYPE_CHECKING:
    from app.demo.organisations.world import WorldEvent

SOURCE = "desk"
"""The source of the demo's requests."""
PLANTED = ("R1", "R2", "R3", "R7", "R10")
"""The rules that the five planted cases break."""
_ASKED = (decisions.ActionTaken, decisions.AuthorityFellShort, facts.ActionReported)
_DECIDED = (Caused, facts.ActionReported)
_TYPES = {cls: name for name, cls in FACTS.items()}
_DAYS_BEFORE = 60
_FIRST_NAMES = ("Amira", "Ben", "Chloe", "Daniel", "Elif", "Fergus", "Grace", "Hamid", "Isla", "Jonas", "Kavya")
_LAST_NAMES = ("Abbott", "Baker", "Chen", "Doyle", "Evans", "Fisher", "Gupta", "Hughes", "Ivanov", "Jones")
_TEXTS = {
    "late": "Parcel came late",
    "damaged": "Item arrived damaged",
    "missing": "Item missing from the parcel",
    "wrong item": "Wrong item in the parcel",
    "billing": "Charged twice",
    "rude": "Complaint about a call",
    "waited": "Waited too long in the queue",
    "quality": "Quality below the description",
    "fee": "Delivery fee charged by mistake",
    "promotion": "Promotion code did not work",
    "recall": "Recalled kettle",
    "storm": "Round cancelled by the storm",
}


type AskedAction = decisions.ActionTaken | decisions.AuthorityFellShort | facts.ActionReported


class DemoFact(NamedTuple):
    """A fact of the demo: when it is published (``due``), its own time, source, id, type and data."""

    due: float
    at: datetime
    source: str
    id: str
    type: str
    data: JsonObject


class DemoRequest(NamedTuple):
    """A request of the demo at its time; requests that share a key keep their order."""

    due: float
    operation: str
    body: JsonObject
    keys: tuple[str, ...]


def make_world(seed: int) -> World:
    """Return the world of the demo, with its five planted cases."""
    world = World(make_organisation(seed))
    world.purchases_from = -_DAYS_BEFORE * DAY
    HonestTraffic(world).add()
    plant_strongly(world, PLANTED)
    add_service_days(world)
    return world


def moments_of(world: World) -> tuple[deque[DemoFact], deque[DemoRequest]]:
    """Return the facts of a world in order of their publication, and its requests in order of time."""
    translation = _Translation(world)
    for event in world.happened():
        translation.take(event)
    translation.facts.sort(key=lambda one: (one.due, one.id))
    translation.requests.sort(key=lambda one: (one.due, str(one.body["request_id"])))
    return deque(translation.facts), deque(translation.requests)


class _Translation:
    def __init__(self, world: World) -> None:
        self._seed = world.organisation.seed
        self._people = {person.employee_id: person for person in world.organisation.people}
        self._request_ids: dict[str, str] = {}
        """The request of an action, by the action's id in the world."""
        self._asked = {
            event.body.interaction_id: event.body.to[0]
            for event in world.happened()
            if isinstance(event.body, decisions.EscalationRequested)
        }
        self._given = Counter[str]()
        for event in world.happened():
            if isinstance(event.body, _ASKED) and event.body.order_id is not None:
                self._given[event.body.order_id] += event.body.amount.minor
        self._denied = {
            event.body.interaction_id
            for event in world.happened()
            if isinstance(event.body, decisions.EscalationDenied)
        }
        self.facts: list[DemoFact] = []
        self.requests: list[DemoRequest] = []
        head: JsonObject = {"employee_id": HEAD, "role": "head", "team_ids": [HEAD_TEAM], "name": "Rosa Quinn"}
        self._add_fact(BEGIN - 20 * DAY, BEGIN - 900 * DAY, "hr", "head", "resolution.employee.joined.v1", head)

    def take(self, event: WorldEvent) -> None:
        """Add what an event of the world becomes; the ledger itself records decisions, postings and its policy."""
        body = event.body
        agent = getattr(body, "agent_id", None)
        if agent in self._people and self._people[agent].team.team_id == ABROAD and isinstance(body, _DECIDED):
            self._abroad(event)
            return
        match body:
            case decisions.ActionTaken() if body.decided_by is None:
                self._action(event, body)
            case decisions.AuthorityFellShort():
                self._action(event, body)
            case decisions.ActionReversed():
                self._reversal(event, body)
            case decisions.BudgetGranted():
                self._grant(event, body)
            case facts.ActionReported() if self._people[body.agent_id].team.desk not in OFFLINE:
                self._action(event, body)  # an office has a signal
            case facts.RecognitionGiven() if not self._is_here(body.receiver_id, event):
                pass
            case facts.Fact():
                self._fact(event, body)
            case _:
                pass

    def _is_here(self, name: str, event: WorldEvent) -> bool:
        """Return whether a person is employed: some get thanks before their first day, or after the last."""
        return self._people[name].here(int((event.at - BEGIN) // DAY))

    # ------------------------------------------------------------------ facts

    def _add_fact(self, published: float, at: float, source: str, name: str, kind: str, data: JsonObject) -> None:
        identifier = f"demo-{self._seed}-{name}"
        self.facts.append(DemoFact(published, datetime.fromtimestamp(round(at), UTC), source, identifier, kind, data))

    def _fact(self, event: WorldEvent, body: facts.Fact) -> None:
        data: JsonObject = plain(body)
        match body:
            case facts.InteractionOpened() if body.team_id == ABROAD:
                return
            case facts.InteractionOpened():
                data["line"] = 1
            case facts.EmployeeJoined():
                number = int(body.employee_id.rpartition("-")[2])
                first = _FIRST_NAMES[number % len(_FIRST_NAMES)]
                data["name"] = f"{first} {_LAST_NAMES[number % len(_LAST_NAMES)]}"
                data.setdefault("manager_id", HEAD)
                if body.team_ids == ("doorstep",) and body.role == "agent":
                    data["role"] = "driver"
            case facts.EmployeeLeft():
                data["reason"] = "another job"
            case facts.PurchaseCompleted():
                total = max(body.total.minor, round(1.1 * self._given[body.order_id]))  # no more is given than was paid
                data["total"] = plain(Money(total, body.total.currency))
                data["margin"] = plain(Money(round(total * 0.3), body.total.currency))
            case facts.ActionReported():
                data |= self._reported(event, body)
            case _:
                pass
        self._add_fact(event.recorded, *self._named(event, body), data)

    def _named(self, event: WorldEvent, body: facts.Fact) -> tuple[float, str, str, str]:
        kind = _TYPES[type(body)]
        return event.at, _source_of(body, kind), f"{event.number}", kind

    def _reported(self, event: WorldEvent, body: facts.ActionReported) -> JsonObject:
        abroad = body.team_id == ABROAD
        name = f"demo-{self._seed}-{event.number}"
        self._request_ids[event.action_id] = action_id_of("till-dublin" if abroad else "driver-app", name)
        return {"offline_reason": "decided by the till" if abroad else "no signal at the doorstep"}

    # ------------------------------------------------------------------ requests

    def _action(self, event: WorldEvent, body: AskedAction) -> None:
        person, number = self._people[body.agent_id], event.number
        request_id = f"demo-{self._seed}-{number}"
        planned = isinstance(body, decisions.AuthorityFellShort)
        filed = body.interaction_id in self._asked if planned else _fraction(request_id, "asks") < 0.6
        asked: JsonObject = {
            "request_id": request_id,
            "time": time_text(datetime.fromtimestamp(round(event.at), UTC)),
            "agent_id": body.agent_id,
            "kind": body.kind,
            "amount": plain(body.amount),
            "reason": body.reason,
            "basis": body.basis,
            "escalate": filed,
        }
        asked |= {
            name: value
            for name in ("customer_id", "interaction_id", "order_id")
            if (value := getattr(body, name)) is not None
        }
        note = body.note_hash if isinstance(body, decisions.ActionTaken) else None
        if note is not None:
            asked["note"] = self._text(note, body)
        if body.kind == "keep_item":
            asked["guideline"] = "keep-it"
        keys = _keys(body.agent_id, body.customer_id, request_id, person.team.team_id)
        self.requests.append(DemoRequest(event.at, "action", asked, keys))
        if isinstance(body, decisions.ActionTaken):
            self._request_ids[body.action_id] = action_id_of(SOURCE, request_id)
        if filed:
            self._decision(event, body, request_id, keys)

    def _decision(self, event: WorldEvent, body: AskedAction, request_id: str, keys: tuple[str, ...]) -> None:
        """Add the answer of a manager to a request that may be escalated; some are never answered."""
        waits = _fraction(request_id, "waits")
        if waits > 0.97:
            return
        own = self._people[body.agent_id].team.members[0].employee_id
        manager = self._asked.get(body.interaction_id) or (HEAD if own == body.agent_id else own)
        denied = body.interaction_id in self._denied or _fraction(request_id, "denies") < 0.06
        at = event.at + 240 + 7.5 * 3600 * waits**3
        decision: JsonObject = {
            "request_id": f"{request_id}-answer",
            "operation": "deny" if denied else "approve",
            "time": time_text(datetime.fromtimestamp(round(at), UTC)),
            "escalation_id": escalation_id_of(SOURCE, request_id),
            "decided_by": manager,
        }
        self.requests.append(DemoRequest(at, "escalation", decision, (*keys, f"agent:{manager}")))

    def _abroad(self, event: WorldEvent) -> None:
        """Report what the till of the shop abroad decided by itself: what the law gives for an order paid."""
        match event.body:
            case (decisions.ActionTaken() | facts.ActionReported()) as body if body.order_id is not None:
                fact: facts.Fact = facts.ActionReported(
                    agent_id=body.agent_id,
                    kind=body.kind,
                    amount=body.amount,
                    reason=body.reason,
                    customer_id=body.customer_id,
                    order_id=body.order_id,
                    team_id=body.team_id,
                    basis="entitlement",
                )
            case decisions.EscalationRequested() as body:
                fact = facts.EscalationReported(
                    escalation_id=body.escalation_id,
                    kind=body.kind,
                    amount=body.amount,
                    requested_by=body.agent_id,
                    customer_id=body.customer_id,
                    reason=body.reason,
                )
            case decisions.EscalationApproved() | decisions.EscalationDenied() as body:
                approved = isinstance(body, decisions.EscalationApproved)
                fact = facts.EscalationOutcomeReported(
                    escalation_id=body.escalation_id,
                    verdict="approved" if approved else "denied",
                    decided_by=body.decided_by,
                    amount=body.amount if approved else None,
                )
            case _:
                return
        self._fact(event, fact)

    def _reversal(self, event: WorldEvent, body: decisions.ActionReversed) -> None:
        if body.action_id not in self._request_ids:
            return
        request_id = f"demo-{self._seed}-{event.number}"
        reversal: JsonObject = {
            "request_id": request_id,
            "time": time_text(datetime.fromtimestamp(round(event.at), UTC)),
            "action_id": self._request_ids[body.action_id],
            "reversed_by": body.reversed_by,
            "reason": body.reason,
            "recovered": True,
        }
        agent = body.agent_id or ""
        self.requests.append(
            DemoRequest(event.at, "reversal", reversal, (f"agent:{agent}", f"agent:{body.reversed_by}"))
        )

    def _grant(self, event: WorldEvent, body: decisions.BudgetGranted) -> None:
        agent = body.holder.removeprefix("agent:")
        if self._people[agent].team.team_id == ABROAD or not self._is_here(agent, event):
            return
        grant: JsonObject = {
            "request_id": f"demo-{self._seed}-{event.number}",
            "operation": "grant",
            "time": time_text(datetime.fromtimestamp(round(event.at), UTC)),
            "holder": body.holder,
            "amount": plain(body.amount),
            "granted_by": body.granted_by,
            "reason": body.reason,
        }
        self.requests.append(DemoRequest(event.at, "budget", grant, (body.holder, f"agent:{body.granted_by}")))

    def _text(self, note: str, body: AskedAction) -> str:
        """Return the text of a note: a team's macro, a person's phrase, or a text of its own."""
        said = _TEXTS.get(body.reason, body.reason)
        if note.startswith("macro"):
            return f"{said}: put right as in our template."
        if note.startswith("phrase"):
            return f"Sorry again from {body.agent_id}."
        return f"{said}, as {body.customer_id} said on {note.removeprefix('note-')}."


def _source_of(body: facts.Fact, kind: str) -> str:
    """Return the source that reports a fact."""
    if isinstance(body, facts.PurchaseCompleted | facts.PurchaseReturned):
        return "shop"
    if isinstance(body, facts.EscalationReported | facts.EscalationOutcomeReported):
        return "till-dublin"
    if isinstance(body, facts.ActionReported):
        return "till-dublin" if body.team_id == ABROAD else "driver-app"
    crm = ("interaction", "feedback", "customer")
    return "crm" if kind.split(".")[1] in crm else "hr"


def _keys(agent: str, customer: str | None, request_id: str, team: str) -> tuple[str, ...]:
    pool = (f"team:{team}",) if team == "doorstep" else ()
    return f"agent:{agent}", f"customer:{customer}", request_id, *pool


def _fraction(name: str, purpose: str) -> float:
    """Return a number between 0 and 1 that is derived from a name and a purpose."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {name}".encode()).digest()[:6]) / 2**48
