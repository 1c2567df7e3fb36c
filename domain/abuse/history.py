"""The guard's memory: actions, contacts, customers' groups, and policies. Pure; folded in the log's order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from domain.abuse.peers import PeerRates, Units, WorkDays
from domain.abuse.stored_bodies import StoredBody
from domain.actions import is_reservation
from domain.customers import CustomerLinks
from domain.decisions.authority import Agent
from domain.events import decisions, facts
from domain.keyed_state import Queue, keyed
from domain.policy.history import PolicyHistory, rules_of
from domain.staff import brings_back

if TYPE_CHECKING:
    from domain.keyed_state import State

DAY = 86_400.0
HOUR = 3_600.0
REMEMBERED_SECONDS = 90 * DAY
FREQUENT = 4
"""Actions or contacts from which on a customer's group is listed."""


class GuardEvent(NamedTuple):
    """An event for the guard: its position, its event time and recorded time (seconds since 1970), and its body."""

    position: int
    at: float
    recorded: float
    body: msgspec.Struct
    action_id: str = ""
    name: str = ""
    """Its source and id, which order events of one moment."""
    corrects: int | None = None
    """The position of the fact that it corrects."""


type Action = decisions.ActionTaken | decisions.ActionHeld | facts.ActionReported


class ObservedAction(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    """An action for a customer, with the limit in force at its time (``None``: unknown or unlimited)."""

    position: int
    at: float
    action_id: str
    agent: str
    customer: str | None
    group: str | None
    kind: str
    basis: str
    goodwill: bool
    bounded: bool
    approved: bool
    minor: int
    currency: str
    interaction: str | None
    order: str | None
    reason: str
    note: str | None
    reported: bool
    team: str | None
    role: str
    limit: int | None

    @property
    def order_or_interaction(self) -> str | None:
        """The order that the action was for, else the interaction."""
        return f"order {self.order}" if self.order else f"interaction {self.interaction}" if self.interaction else None


def _observed(event: GuardEvent, body: Action, history: GuardHistory) -> ObservedAction:
    limits, currency, agent = getattr(body, "limits", ()), body.amount.currency, body.agent_id
    role = getattr(body, "role", None) or history.role(agent, event.at)
    reported = isinstance(body, facts.ActionReported)
    return ObservedAction(
        position=event.position,
        at=event.at,
        action_id=event.action_id if isinstance(body, facts.ActionReported) else body.action_id,
        agent=agent,
        customer=body.customer_id,
        group=history.group(body.customer_id) if body.customer_id else None,
        kind=body.kind,
        basis=body.basis,
        goodwill=body.basis == "goodwill",
        bounded=body.basis == "goodwill" or any(limit.name == "per_action" for limit in limits),
        approved=getattr(body, "decided_by", None) is not None,
        minor=body.amount.minor,
        currency=currency,
        interaction=body.interaction_id,
        order=body.order_id,
        reason=body.reason,
        note=getattr(body, "note_hash", None),
        reported=reported,
        team=body.team_id,
        role=role,
        limit=history.limit_of(body, role, currency, event.at),
    )


class Contact(NamedTuple):
    """An agent's contact with a customer's group in an interaction."""

    at: float
    agent: str
    group: str | None
    interaction: str
    unit: str


class ActionMark(NamedTuple):
    """One of an agent's actions, in brief."""

    at: float
    position: int
    action_id: str
    goodwill: bool


class _Matter(msgspec.Struct, array_like=True, gc=False):
    """An interaction: its start, its customer and its agents."""

    begun: float | None = None
    customer: str | None = None
    agents: tuple[str, ...] = ()


class _Customer(msgspec.Struct, array_like=True):
    """A customer's group: its contacts and its actions, oldest first."""

    contacts: list[Contact] = []
    actions: list[ObservedAction] = []


class _People(msgspec.Struct):
    """Everything that grows with people alone."""

    roles: dict[str, str] = {}
    teams: dict[str, tuple[str, ...]] = {}
    left: dict[str, float] = {}
    related: dict[str, dict[str, str]] = {}
    last_action: dict[str, float] = {}
    policies: list[StoredBody] = []
    frequent: set[str] = set()
    regulars: set[str] = set()
    forgotten: float = float("-inf")


class _Rates(msgspec.Struct, array_like=True):
    """The work days from which the last nightly run took its rates."""

    end: float
    days: dict[int, Units]


class GuardHistory:
    """The history that rules look at; it keeps no longer than the longest window needs."""

    def __init__(self, state: State) -> None:
        self._people = people = state.record("people", _People)
        self.roles, self.teams, self.left, self.related = people.roles, people.teams, people.left, people.related
        self._units: dict[str, list[str]] | None = None
        """The agents of each unit, from the first question after a change on."""
        self.frequent = people.frequent
        """The customers' groups with ``FREQUENT`` actions or more."""
        self.regulars = people.regulars
        """The customers' groups with ``FREQUENT`` contacts or more."""
        self.actions = Queue(state, "actions", list[ObservedAction])
        self._decided = state.table("decided actions", bool)
        self._contacts = Queue(state, "contacts", list[Contact])
        self._opened = Queue(state, "interactions opened", list[tuple[float, str]])
        self._matters = state.table("interactions", _Matter)
        self._customers = state.table("customers", _Customer)
        self._by_day = state.table("actions by agent and day", list[ActionMark])
        published = (one.body for one in people.policies)
        self.policies = PolicyHistory.of(one for one in published if isinstance(one, decisions.PolicyPublished))
        self.work = WorkDays(state)
        self._last_rates = state.table("rates", _Rates)
        self._rates: tuple[float, PeerRates] | None = None
        self.links = CustomerLinks(state, "links as recorded")
        self.group = self.links.name_of

    # ------------------------------------------------------------------ customers, agents and limits

    def role(self, agent: str, at: float) -> str:
        """Return the agent's known role, else the default role of the policy in force at a moment."""
        known, rules = self.roles.get(agent), self.policies.in_force_at(at)
        return known or (rules is not None and rules.policy.default_role) or ""

    def limit_of(self, body: Action, role: str, currency: str, at: float) -> int | None:
        """Return the limit of one action in minor units: the recorded one, else that of the policy then in force."""
        for limit in getattr(body, "limits", ()):
            if limit.name == "per_action":
                return limit.limit.minor if limit.limit is not None and limit.limit.currency == currency else None
        rules = self.policies.in_force_at(at)
        if rules is None:
            return None
        agent = Agent(agent_id=body.agent_id, role=role, team_ids=self.teams.get(body.agent_id, ()))
        found = rules.limits_for(role, agent.teams_for(body.team_id), datetime.fromtimestamp(at, UTC)).get(body.kind)
        return found.minor if found is not None and found.currency == currency else None

    # ------------------------------------------------------------------ learning

    def learn(self, event: GuardEvent) -> ObservedAction | None:  # noqa: C901 - a case for each kind of event
        """Apply an event; return the action, if the event is one."""
        body = event.body
        match body:
            case decisions.ActionTaken() | facts.ActionReported():
                return self._observe(event, body)
            case decisions.ActionHeld() if not is_reservation(body):
                return self._observe(event, body)
            case decisions.ActionVoided():
                self._decided.drop(body.action_id)
            case facts.InteractionOpened():
                matter = self._matter(body.interaction_id, event.at)
                matter.customer = body.customer_id or matter.customer
                if matter.begun is None:
                    matter.begun = event.at
                self._contact(body.agent_id, body.interaction_id, matter, event.at)
            case facts.InteractionTransferred():
                matter = self._matter(body.interaction_id, event.at)
                self._contact(body.to_agent_id, body.interaction_id, matter, event.at)
            case facts.CustomerLinked() | facts.CustomerUnlinked():
                self.links.apply(body)
            case facts.EmployeeJoined() | facts.EmployeeChanged():
                self._employ(body)
            case facts.EmployeeLeft():
                self.left[body.employee_id] = event.at
            case facts.RelationshipDeclared():
                self.related.setdefault(body.employee_id, {})[body.customer_id] = body.nature
            case decisions.PolicyPublished():
                self._people.policies.append(StoredBody(body))
                self.policies.add(rules_of(body))
            case _:
                pass
        return None

    def _employ(self, fact: facts.EmployeeJoined | facts.EmployeeChanged) -> None:
        self.roles[fact.employee_id], self.teams[fact.employee_id] = fact.role, fact.team_ids
        self._units = None
        if brings_back(fact):
            self.left.pop(fact.employee_id, None)

    def _observe(self, event: GuardEvent, body: Action) -> ObservedAction | None:
        """Note an action; the report of an action that the ledger decided is none."""
        if isinstance(body, facts.ActionReported):
            if self._decided.get(event.action_id) is not None:
                return None
        else:
            self._decided.put(body.action_id, True)  # noqa: FBT003 - the value of a set's entry
        action = _observed(event, body, self)
        agent, last = action.agent, self._people.last_action
        self.actions.append(action)
        last[agent] = max(last.get(agent, event.at), event.at)
        day = _day_key(agent, event.at)
        marks = self._by_day.get(day) or []
        marks.append(ActionMark(event.at, event.position, action.action_id, action.goodwill))
        self._by_day.put(day, marks)
        if action.goodwill:
            self.work.add(self.unit(agent), agent, event.at, gifts=1, loose=int(action.interaction is None))
        if action.group is not None:
            customer = self._customers.get(action.group) or _Customer()
            customer.actions.append(action)
            self._customers.put(action.group, customer)
            if len(customer.actions) >= FREQUENT:
                self.frequent.add(action.group)
        if action.interaction is not None:
            matter = self._matter(action.interaction, event.at)
            matter.customer = matter.customer or action.customer
            self._contact(agent, action.interaction, matter, event.at)
        return action

    def _contact(self, agent: str | None, interaction: str, matter: _Matter, at: float) -> None:
        if agent is not None and agent not in matter.agents:
            matter.agents = (*matter.agents, agent)
            unit = self.unit(agent)
            self.work.add(unit, agent, at, contacts=1)
            group = self.group(matter.customer) if matter.customer is not None else None
            contact = Contact(at, agent, group, interaction, unit)
            self._contacts.append(contact)
            if group is not None:
                customer = self._customers.get(group) or _Customer()
                customer.contacts.append(contact)
                self._customers.put(group, customer)
                if len(customer.contacts) >= FREQUENT:
                    self.regulars.add(group)
        self._matters.put(interaction, matter)

    def _matter(self, interaction: str, at: float) -> _Matter:
        matter = self._matters.get(interaction)
        if matter is None:
            matter = _Matter()
            self._opened.append((at, interaction))
        return matter

    def forget_before(self, moment: float) -> None:
        """Drop history that no window reaches any more."""
        self._people.forgotten = moment
        self.work.forget_before(moment)
        while (action := self.actions.first()) is not None and action.at < moment:
            self.actions.pop_first()
            self._decided.drop(action.action_id)
            self._by_day.drop(_day_key(action.agent, action.at))
            if action.group is not None and (customer := self._customers.get(action.group)) is not None:
                del customer.actions[:1]
                self._keep(action.group, customer)
                if len(customer.actions) < FREQUENT:
                    self.frequent.discard(action.group)
        while (contact := self._contacts.first()) is not None and contact.at < moment:
            self._contacts.pop_first()
            if contact.group is not None and (customer := self._customers.get(contact.group)) is not None:
                customer.contacts.remove(contact)
                if len(customer.contacts) < FREQUENT:
                    self.regulars.discard(contact.group)
                self._keep(contact.group, customer)
        while (opened := self._opened.first()) is not None and opened[0] < moment:
            self._matters.drop(self._opened.pop_first()[1])

    def _keep(self, group: str, customer: _Customer) -> None:
        if customer.actions or customer.contacts:
            self._customers.put(group, customer)
        else:
            self._customers.drop(group)

    # ------------------------------------------------------------------ queries

    def unit(self, agent: str) -> str:
        """Return the agent's unit of peers: the first team, else the role."""
        teams = self.teams.get(agent, ())
        return teams[0] if teams else self.roles.get(agent, "")

    def mates(self, agent: str) -> list[str]:
        """Return all agents of the agent's unit, itself included."""
        if self._units is None:
            self._units = {}
            for other in self.roles:
                self._units.setdefault(self.unit(other), []).append(other)
        return self._units.get(self.unit(agent)) or [agent]

    def active_agents(self) -> list[str]:
        """Return the agents with an action in the remembered days."""
        return [agent for agent, at in self._people.last_action.items() if at >= self._people.forgotten]

    @property
    def last_rates(self) -> PeerRates | None:
        """The rates of the last nightly run; ``None`` before the first."""
        if self._rates is None and (kept := self._last_rates.get("last")) is not None:
            self._rates = kept.end, PeerRates(kept.end, kept.days)
        return self._rates[1] if self._rates is not None else None

    def peer_rates(self, end: float) -> PeerRates:
        """Return peers' rates over the remembered days before a moment; the rules of one run share them."""
        if self._rates is None or self._rates[0] != end:
            days = self.work.between(end - REMEMBERED_SECONDS, end)
            self._last_rates.put("last", _Rates(end, days))
            self._rates = end, PeerRates(end, days)
        return self._rates[1]

    def begun(self, interaction: str | None) -> float | None:
        """Return when an interaction was opened, or ``None`` where that is unknown."""
        matter = self._matters.get(interaction) if interaction else None
        return matter.begun if matter is not None else None

    def given_to(self, group: str) -> list[ObservedAction]:
        """Return the actions for a customer's group, in the order of the log."""
        customer = self._customers.get(group)
        return [] if customer is None else customer.actions

    def contacts_of(self, group: str) -> list[Contact]:
        """Return the contacts of a customer's group, in the order of the log."""
        customer = self._customers.get(group)
        return [] if customer is None else customer.contacts

    def actions_of(self, agent: str, start: float, end: float) -> list[ActionMark]:
        """Return the agent's actions in [start, end), by day and in the order of the log."""
        days = range(int(max(start, self._people.forgotten) // DAY), int(end // DAY) + 1) if end > start else range(0)
        marks = [mark for day in days for mark in self._by_day.get(_day_key(agent, day * DAY)) or ()]
        return [mark for mark in marks if start <= mark.at < end]


def people_at_work(history: GuardHistory) -> int:
    """Return the number of people with an action in the remembered days."""
    return len(history.active_agents())


def _day_key(agent: str, at: float) -> str:
    return keyed(agent, str(int(at // DAY)))
