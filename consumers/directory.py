"""What the decider knows besides budgets: who works here, the policies, which requests were answered.

It follows the log and keeps what it learned in an index, committed with the position; so it is
complete up to ``position`` and can be thrown away.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from config import topology
from domain.deciding import Agent
from domain.facts import (
    EmployeeChanged,
    EmployeeJoined,
    EmployeeLeft,
    Fact,
    RelationshipDeclared,
    TrainingCompleted,
)
from domain.policy import Policy, parse_policy
from domain.records import RECORDS, TYPE_OF, Answered, PolicyPublished
from ledger.cloudevents import name_key
from ledger.errors import UnavailableError
from ledger.follow import Anchor, Follower
from ledger.index import Name, NameIndex
from ledger.log import digest_of
from projections.events import TYPES, UnknownEventError, read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.connection import LedgerClient
    from ledger.log import Log, Recorded

_log = logging.getLogger(__name__)
_WHOLE_LOG = "*"
_RETRY_SECONDS = 1.0


class InForce(NamedTuple):
    """A policy and the version under which it was published."""

    version: int
    policy: Policy


class _Employee(msgspec.Struct):
    role: str | None = None
    team_ids: tuple[str, ...] = ()
    left: bool = False
    training: dict[str, datetime | None] = {}
    related: tuple[str, ...] = ()


class Directory:
    """Answers from memory; ``follow`` keeps it up to date."""

    def __init__(self, index: NameIndex) -> None:
        self.index = index
        self._employees: dict[str, _Employee] = {}
        self._policies: dict[int, InForce] = {}
        self.anchor = index.head(_WHOLE_LOG)
        self.policy_position = 0
        self._moved = asyncio.Condition()
        self._recent: dict[bytes, Name] = {}
        self._own: dict[int, Name] = {}
        for key, value in index.notes().items():
            kind, _, name = key.partition(" ")
            if kind == "employee":
                self._employees[name] = msgspec.json.decode(value, type=_Employee)
            else:
                position, document = msgspec.json.decode(value, type=tuple[int, dict[str, object]])
                self._learn_policy(int(name), document, position)

    @property
    def position(self) -> int:
        """Up to where this directory has read the log."""
        return self.anchor.position

    def agent(self, agent_id: str, default_role: str | None) -> Agent | None:
        """What is known of an agent; nobody, where neither a fact nor the policy gives a role."""
        known = self._employees.get(agent_id) or _Employee()
        role = known.role or default_role
        if role is None:
            return None
        return Agent(
            agent_id=agent_id,
            role=role,
            team_ids=known.team_ids,
            left=known.left,
            training=known.training,
            related=frozenset(known.related),
        )

    def in_force(self, now: datetime) -> InForce | None:
        """The newest policy whose ``effective_from`` is not after this moment."""
        for version in sorted(self._policies, reverse=True):
            if self._policies[version].policy.effective_from <= now:
                return self._policies[version]
        return None

    @property
    def newest_version(self) -> int:
        """The highest version published, 0 without any."""
        return max(self._policies, default=0)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Name]:
        """Requests that were answered, by key, as far as this directory knows."""
        found = self.index.find(keys)
        found.update((key, self._recent[key]) for key in keys if key in self._recent)
        return found

    def remember(self, names: Sequence[Name]) -> None:
        """Know of answers that were just recorded, before they are read back from the log."""
        for name in names:
            if name.position > self.position:  # else it has been read back already
                self._recent[name.key] = self._own[name.position] = name

    async def follow(self, client: LedgerClient, log: Log, *, until: int | None = None) -> None:
        """Read on from where the index ends; for ever, or up to a position."""
        follower = Follower(client, log, "directory", self.anchor)
        async for batch in follower.batches(until=until):
            while True:
                try:
                    self.take(batch)
                    break
                except UnavailableError as error:  # what was learned is known; only its file waits
                    _log.warning("the directory waits: %s", error)
                    await asyncio.sleep(_RETRY_SECONDS)
            log.saw(batch[-1].data)
            async with self._moved:
                self._moved.notify_all()

    async def reach(self, position: int, patience_seconds: float = 2) -> bool:
        """Wait until this directory has read up to a position; false where it takes too long."""
        try:
            async with asyncio.timeout(patience_seconds), self._moved:
                await self._moved.wait_for(lambda: self.position >= position)
        except TimeoutError:
            return False
        return True

    def take(self, batch: Sequence[Recorded]) -> None:
        """Learn from events, in order, and commit what was learned with the position."""
        names: list[Name] = []
        notes: dict[str, tuple[int, bytes]] = {}
        for recorded in batch:
            own = self._own.pop(recorded.position, None)
            if own is not None and not recorded.subject.startswith(topology.POLICY_SUBJECT):
                names.append(own)
                continue
            try:
                event = read_event(recorded, _TYPES)
            except UnknownEventError:
                continue  # nothing that a decision depends on
            match event.body:
                case PolicyPublished() as published:
                    self._learn_policy(published.version, published.policy, recorded.position)
                    note = msgspec.json.encode((recorded.position, published.policy))
                    notes[f"policy {published.version}"] = recorded.position, note
                    names.append(_answered(published, recorded.position))
                case _Answer() as answered:
                    names.append(_answered(answered, recorded.position))
                case Fact() as fact if employee_id := self._learn(fact):
                    note = msgspec.json.encode(self._employees[employee_id])
                    notes[f"employee {employee_id}"] = recorded.position, note
                case _:
                    pass
        anchor = Anchor(batch[-1].position, digest_of(batch[-1].data))
        self.index.commit(names, {_WHOLE_LOG: anchor}, notes=[(key, *note) for key, note in notes.items()])
        self.anchor = anchor
        for name in names:
            self._recent.pop(name.key, None)

    def _learn(self, fact: Fact) -> str | None:
        match fact:
            case EmployeeJoined() | EmployeeChanged():
                known = self._known(fact.employee_id)
                known.role, known.team_ids, known.left = fact.role, fact.team_ids, False
            case EmployeeLeft():
                self._known(fact.employee_id).left = True
            case TrainingCompleted():
                known = self._known(fact.employee_id)
                known.training = {**known.training, fact.course_id: fact.valid_until}
            case RelationshipDeclared():
                known = self._known(fact.employee_id)
                known.related = (*known.related, fact.customer_id)
            case _:
                return None
        return fact.employee_id

    def _known(self, employee_id: str) -> _Employee:
        return self._employees.setdefault(employee_id, _Employee())

    def _learn_policy(self, version: int, document: dict[str, object], position: int) -> None:
        self._policies[version] = InForce(version, parse_policy(document))
        self.policy_position = max(self.policy_position, position)


class _Answer(msgspec.Struct):
    """What the directory needs of an event that answered a request."""

    source: str
    request_id: str
    request_sha256: str


_TYPES: dict[str, type[Any]] = {
    TYPE_OF[cls]: _Answer for cls in RECORDS.values() if issubclass(cls, Answered) and cls is not PolicyPublished
} | {
    name: cls
    for name, cls in TYPES.items()
    if cls in (PolicyPublished, EmployeeJoined, EmployeeChanged, EmployeeLeft, RelationshipDeclared, TrainingCompleted)
}


def _answered(record: _Answer | PolicyPublished, position: int) -> Name:
    key = name_key(record.source, record.request_id)
    return Name(key, position, bytes.fromhex(record.request_sha256))
