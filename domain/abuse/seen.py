"""What the guard remembers of history: deeds, contacts, who is who, limits then. Pure; folded in the log's order."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from typing import Any, NamedTuple

from domain import facts, records
from domain.policy_document import parse_policy

DAY = 86_400.0
HOUR = 3_600.0
REMEMBERED_SECONDS = 90 * DAY


class Seen(NamedTuple):
    """An event as the guard sees it: where, when it happened and was recorded (seconds of the epoch), what it says."""

    position: int
    at: float
    recorded: float
    body: Any
    action_id: str = ""


class Deed:
    """Something done for a customer, with the limit in force then (none: not known, or unlimited)."""

    __slots__ = (
        "action_id", "agent", "at", "currency", "customer", "goodwill", "group", "interaction", "kind", "limit",
        "minor", "note", "order", "position", "reason", "reported", "reversed_by", "role", "team",
    )  # fmt: skip

    def __init__(self, seen: Seen, world: World) -> None:
        body = seen.body
        self.position, self.at, self.action_id = seen.position, seen.at, seen.action_id or body.action_id
        self.agent: str = body.agent_id
        self.customer: str | None = body.customer_id
        self.group = world.group(body.customer_id) if body.customer_id else None
        self.kind: str = body.kind
        self.goodwill = body.basis == "goodwill"
        self.minor: int = body.amount.minor
        self.currency: str = body.amount.currency
        self.interaction: str | None = body.interaction_id
        self.order: str | None = body.order_id
        self.reason: str = body.reason
        self.note: str | None = getattr(body, "note_hash", None)
        self.reported = isinstance(body, facts.ActionReported)
        self.team: str | None = body.team_id
        self.role: str = getattr(body, "role", None) or world.role(self.agent)
        self.limit = world.limit_of(body, self.role, self.currency)
        self.reversed_by: str | None = None

    @property
    def order_or_interaction(self) -> str | None:
        """What it was for."""
        return f"order {self.order}" if self.order else f"interaction {self.interaction}" if self.interaction else None


class World:
    """The history that rules look at; nothing in it is older than what the longest window needs."""

    def __init__(self) -> None:
        self.by_agent: dict[str, deque[Deed]] = defaultdict(deque)
        self.by_group: dict[str, deque[Deed]] = defaultdict(deque)
        self.by_action: dict[str, Deed] = {}
        self.deeds: deque[Deed] = deque()
        self.contacts: dict[str, deque[float]] = defaultdict(deque)
        self.pair_contacts: dict[tuple[str, str], int] = defaultdict(int)
        self.group_contacts: dict[str, deque[float]] = defaultdict(deque)
        self._contact_times: deque[tuple[float, str, str | None]] = deque()
        self._handled: set[tuple[str, str]] = set()
        self.customer_of: dict[str, str] = {}
        self.begun: dict[str, float] = {}
        self.related: dict[str, dict[str, str]] = defaultdict(dict)
        self.roles: dict[str, str] = {}
        self.teams: dict[str, tuple[str, ...]] = {}
        self.left: dict[str, float] = {}
        self.limits: dict[str, dict[str, int | None]] = {}
        self.default_role = ""
        self._links: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._groups: dict[str, str] = {}

    # ------------------------------------------------------------------ who is who

    def group(self, customer: str) -> str:
        """The name of the customer's group: its first member, or the customer alone."""
        if customer not in self._links:
            return customer
        if customer not in self._groups:
            members, todo = {customer}, [customer]
            while todo:
                new = {other for other, _ in self._links.get(todo.pop(), ())} - members
                members |= new
                todo += new
            self._groups |= dict.fromkeys(members, min(members))
        return self._groups[customer]

    def role(self, agent: str) -> str:
        """The agent's role as it is known."""
        return self.roles.get(agent, self.default_role)

    def limit_of(self, body: Any, role: str, currency: str) -> int | None:
        """The limit of one action in minor units: the one that was met, else the present policy's."""
        for limit in getattr(body, "limits", ()):
            if limit.name == "per_action":
                return limit.limit.minor if limit.limit is not None and limit.limit.currency == currency else None
        return self.limits.get(role, {}).get(body.kind)

    # ------------------------------------------------------------------ learning

    def learn(self, seen: Seen) -> Deed | None:  # noqa: C901 - a case for each kind of event
        """Take an event in; the deed, where it is one."""
        body = seen.body
        match body:
            case records.ActionTaken() | facts.ActionReported():
                return self._deed(seen)
            case records.ActionHeld() if body.escalation_id is None:
                return self._deed(seen)
            case facts.InteractionOpened():
                if body.customer_id:
                    self.customer_of[body.interaction_id] = body.customer_id
                self.begun.setdefault(body.interaction_id, seen.at)
                self._contact(body.agent_id, body.interaction_id, seen.at)
            case facts.InteractionTransferred():
                self._contact(body.to_agent_id, body.interaction_id, seen.at)
            case facts.CustomerLinked() | facts.CustomerUnlinked():
                self._link(body, linked=isinstance(body, facts.CustomerLinked))
            case facts.EmployeeJoined() | facts.EmployeeChanged():
                self.roles[body.employee_id], self.teams[body.employee_id] = body.role, body.team_ids
                self.left.pop(body.employee_id, None)
            case facts.EmployeeLeft():
                self.left[body.employee_id] = seen.at
            case facts.RelationshipDeclared():
                self.related[body.employee_id][body.customer_id] = body.nature
            case records.PolicyPublished():
                self._policy(body.policy)
            case _:
                pass
        return None

    def _deed(self, seen: Seen) -> Deed:
        deed = Deed(seen, self)
        self.deeds.append(deed)
        self.by_agent[deed.agent].append(deed)
        self.by_action[deed.action_id] = deed
        if deed.group is not None:
            self.by_group[deed.group].append(deed)
        if deed.interaction is not None:
            if deed.customer is not None:
                self.customer_of.setdefault(deed.interaction, deed.customer)
            self._contact(deed.agent, deed.interaction, seen.at)
        return deed

    def _contact(self, agent: str | None, interaction: str, at: float) -> None:
        if agent is None or (agent, interaction) in self._handled:
            return
        self._handled.add((agent, interaction))
        self.contacts[agent].append(at)
        customer = self.customer_of.get(interaction)
        group = self.group(customer) if customer is not None else None
        if group is not None:
            self.pair_contacts[agent, group] += 1
            self.group_contacts[group].append(at)
        self._contact_times.append((at, agent, group))

    def _link(self, body: facts.CustomerLinked | facts.CustomerUnlinked, *, linked: bool) -> None:
        for one, other in ((body.a, body.b), (body.b, body.a)):
            if linked:
                self._links[one].add((other, body.relation))
            else:
                self._links[one].discard((other, body.relation))
        self._groups.clear()

    def _policy(self, document: dict[str, Any]) -> None:
        policy = parse_policy(document)
        if policy.mode != "enforced":
            return
        self.default_role = policy.default_role or ""
        self.limits = {
            name: {kind: amount.minor if amount is not None else None for kind, amount in role.limits.items()}
            for name, role in policy.roles.items()
        }

    def forget_before(self, moment: float) -> None:
        """Drop what no window reaches any more."""
        while self.deeds and self.deeds[0].at < moment:
            deed = self.deeds.popleft()
            self.by_action.pop(deed.action_id, None)
            for index, key in ((self.by_agent, deed.agent), (self.by_group, deed.group)):
                queue = index.get(key) if key is not None else None
                if queue and queue[0] is deed:
                    queue.popleft()
        while self._contact_times and self._contact_times[0][0] < moment:
            _, agent, group = self._contact_times.popleft()
            if self.contacts[agent]:
                self.contacts[agent].popleft()
            if group is not None:
                self.group_contacts[group].popleft()
                if not self.group_contacts[group]:
                    del self.group_contacts[group]
                self.pair_contacts[agent, group] -= 1
                if self.pair_contacts[agent, group] <= 0:
                    del self.pair_contacts[agent, group]

    # ------------------------------------------------------------------ asking

    def contacts_between(self, agent: str, start: float, end: float) -> int:
        """How many contacts began in [start, end)."""
        times = self.contacts.get(agent, deque())
        return bisect_left(times, end) - bisect_left(times, start)

    def deeds_of(self, agent: str, start: float, end: float) -> list[Deed]:
        """The agent's goodwill in [start, end), oldest first."""
        return [deed for deed in self.by_agent.get(agent, ()) if start <= deed.at < end and deed.goodwill]
