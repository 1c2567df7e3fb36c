"""The guard's memory: actions, contacts, customers' groups, and policies. Pure; folded in the log's order."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from domain.abuse.peers import PeerRates, Regulars, WorkDays
from domain.actions import is_reservation
from domain.customers import CustomerLinks
from domain.decisions.authority import Agent
from domain.events import decisions, facts
from domain.policy.history import PolicyHistory, rules_of

DAY = 86_400.0
HOUR = 3_600.0
REMEMBERED_SECONDS = 90 * DAY


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


class ObservedAction:
    """An action for a customer, with the limit in force at its time (``None``: unknown or unlimited)."""

    __slots__ = (
        "action_id",
        "agent",
        "approved",
        "at",
        "basis",
        "bounded",
        "currency",
        "customer",
        "goodwill",
        "group",
        "interaction",
        "kind",
        "limit",
        "minor",
        "note",
        "order",
        "position",
        "reason",
        "reported",
        "reversed_by",
        "role",
        "team",
    )

    def __init__(self, event: GuardEvent, body: Action, history: GuardHistory) -> None:
        self.position, self.at = event.position, event.at
        self.action_id = event.action_id if isinstance(body, facts.ActionReported) else body.action_id
        self.agent = body.agent_id
        self.customer = body.customer_id
        self.group = history.group(body.customer_id) if body.customer_id else None
        self.kind = body.kind
        self.basis = body.basis
        self.goodwill = body.basis == "goodwill"
        limits = getattr(body, "limits", ())
        self.bounded = self.goodwill or any(limit.name == "per_action" for limit in limits)
        self.approved = getattr(body, "decided_by", None) is not None
        self.minor = body.amount.minor
        self.currency = body.amount.currency
        self.interaction = body.interaction_id
        self.order = body.order_id
        self.reason = body.reason
        self.note: str | None = getattr(body, "note_hash", None)
        self.reported = isinstance(body, facts.ActionReported)
        self.team = body.team_id
        self.role: str = getattr(body, "role", None) or history.role(self.agent, event.at)
        self.limit = history.limit_of(body, self.role, self.currency, event.at)
        self.reversed_by: str | None = None

    @property
    def order_or_interaction(self) -> str | None:
        """The order that the action was for, else the interaction."""
        return f"order {self.order}" if self.order else f"interaction {self.interaction}" if self.interaction else None


class Contact(NamedTuple):
    """An agent's contact with a customer's group in an interaction."""

    at: float
    agent: str
    group: str | None
    interaction: str
    unit: str


class _Matter:
    """An interaction: its start, its customer and its agents."""

    __slots__ = ("agents", "begun", "customer")

    def __init__(self) -> None:
        self.begun: float | None = None
        self.customer: str | None = None
        self.agents: tuple[str, ...] = ()


class GuardHistory:
    """The history that rules look at; it keeps no longer than the longest window needs."""

    def __init__(self) -> None:
        self.by_agent: dict[str, deque[ObservedAction]] = defaultdict(deque)
        self.by_group: dict[str, list[ObservedAction]] = {}
        self.by_action: dict[str, ObservedAction] = {}
        self.actions: deque[ObservedAction] = deque()
        self.contacts: dict[str, deque[float]] = defaultdict(deque)
        self.group_contacts: dict[str, list[Contact]] = {}
        self._contacts: deque[Contact] = deque()
        self._matters: dict[str, _Matter] = {}
        self._opened: deque[tuple[float, str]] = deque()
        self.related: dict[str, dict[str, str]] = defaultdict(dict)
        self.roles: dict[str, str] = {}
        self.teams: dict[str, tuple[str, ...]] = {}
        self.left: dict[str, float] = {}
        self.policies = PolicyHistory()
        self.work = WorkDays()
        self.regulars = Regulars()
        self._rates: tuple[float, PeerRates] | None = None
        self._customers = CustomerLinks()
        self.group = self._customers.name_of

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
            case facts.InteractionOpened():
                matter = self._matter(body.interaction_id, event.at)
                matter.customer = body.customer_id or matter.customer
                if matter.begun is None:
                    matter.begun = event.at
                self._contact(body.agent_id, body.interaction_id, event.at)
            case facts.InteractionTransferred():
                self._contact(body.to_agent_id, body.interaction_id, event.at)
            case facts.CustomerLinked() | facts.CustomerUnlinked():
                self._customers.apply(body)
            case facts.EmployeeJoined() | facts.EmployeeChanged():
                self.roles[body.employee_id], self.teams[body.employee_id] = body.role, body.team_ids
                self.left.pop(body.employee_id, None)
            case facts.EmployeeLeft():
                self.left[body.employee_id] = event.at
            case facts.RelationshipDeclared():
                self.related[body.employee_id][body.customer_id] = body.nature
            case decisions.PolicyPublished():
                self.policies.add(rules_of(body))
            case _:
                pass
        return None

    def _observe(self, event: GuardEvent, body: Action) -> ObservedAction:
        action = ObservedAction(event, body, self)
        self.actions.append(action)
        self.by_agent[action.agent].append(action)
        self.by_action[action.action_id] = action
        if action.goodwill:
            work = self.work.of(self.unit(action.agent), action.agent, event.at)
            work.gifts += 1
            work.loose += action.interaction is None
        if action.group is not None:
            self.by_group.setdefault(action.group, []).append(action)
        if action.interaction is not None:
            matter = self._matter(action.interaction, event.at)
            matter.customer = matter.customer or action.customer
            self._contact(action.agent, action.interaction, event.at)
        return action

    def _contact(self, agent: str | None, interaction: str, at: float) -> None:
        matter = self._matter(interaction, at)
        if agent is None or agent in matter.agents:
            return
        matter.agents = (*matter.agents, agent)
        unit = self.unit(agent)
        self.contacts[agent].append(at)
        self.work.of(unit, agent, at).contacts += 1
        group = self.group(matter.customer) if matter.customer is not None else None
        contact = Contact(at, agent, group, interaction, unit)
        if group is not None:
            self.group_contacts.setdefault(group, []).append(contact)
            self.regulars.count(unit, agent, group, 1)
        self._contacts.append(contact)

    def _matter(self, interaction: str, at: float) -> _Matter:
        matter = self._matters.get(interaction)
        if matter is None:
            matter = self._matters[interaction] = _Matter()
            self._opened.append((at, interaction))
        return matter

    def forget_before(self, moment: float) -> None:
        """Drop history that no window reaches any more."""
        self.work.forget_before(moment)
        while self.actions and self.actions[0].at < moment:
            action = self.actions.popleft()
            self.by_action.pop(action.action_id, None)
            if self.by_agent[action.agent]:
                self.by_agent[action.agent].popleft()
            _drop_first(self.by_group, action.group)
        while self._contacts and self._contacts[0].at < moment:
            contact = self._contacts.popleft()
            if self.contacts[contact.agent]:
                self.contacts[contact.agent].popleft()
            _drop_first(self.group_contacts, contact.group)
            if contact.group is not None:
                self.regulars.count(contact.unit, contact.agent, contact.group, -1)
        while self._opened and self._opened[0][0] < moment:
            self._matters.pop(self._opened.popleft()[1], None)

    # ------------------------------------------------------------------ queries

    def unit(self, agent: str) -> str:
        """Return the agent's unit of peers: the first team, else the role."""
        teams = self.teams.get(agent, ())
        return teams[0] if teams else self.roles.get(agent, "")

    def mates(self, agent: str) -> list[str]:
        """Return all agents of the agent's unit, itself included."""
        unit = self.unit(agent)
        return [other for other in self.roles if self.unit(other) == unit] or [agent]

    @property
    def last_rates(self) -> PeerRates | None:
        """The rates of the last nightly run; ``None`` before the first."""
        return self._rates[1] if self._rates is not None else None

    def peer_rates(self, end: float) -> PeerRates:
        """Return peers' rates over the remembered days before a moment; the rules of one run share them."""
        if self._rates is None or self._rates[0] != end:
            self._rates = end, PeerRates(self, end - REMEMBERED_SECONDS, end)
        return self._rates[1]

    def contacts_between(self, agent: str, start: float, end: float) -> int:
        """Return how many contacts of an agent began in [start, end)."""
        times = self.contacts.get(agent, deque())
        return bisect_left(times, end) - bisect_left(times, start)

    def begun(self, interaction: str | None) -> float | None:
        """Return when an interaction was opened, or ``None`` where that is unknown."""
        matter = self._matters.get(interaction or "")
        return matter.begun if matter is not None else None

    def actions_of(self, agent: str, start: float, end: float) -> list[ObservedAction]:
        """Return the agent's goodwill actions in [start, end), oldest first."""
        return [action for action in self.by_agent.get(agent, ()) if start <= action.at < end and action.goodwill]


def people_at_work(history: GuardHistory) -> int:
    """Return the number of people who acted in the days that the guard remembers."""
    return sum(bool(actions) for actions in history.by_agent.values())


def _drop_first[T](lists: dict[str, list[T]], key: str | None) -> None:
    if key is not None and key in lists:
        del lists[key][0]
        if not lists[key]:
            del lists[key]
