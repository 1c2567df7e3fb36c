"""Sources that send facts and requests while faults happen, and remember each acknowledgement and first answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import nats.errors

from config import topology
from tests.support.builders import event
from tests.support.independent_books import money
from tests.support.organisations import BASIC_POLICY

if TYPE_CHECKING:
    from ledger.nats.client import LedgerClient
    from tests.support.documents import Document

SOURCE = "desk-1"
AGENTS = 8
PUBLISHERS = 2
_PATIENCE_SECONDS = 1.0
_PAUSE_SECONDS = 0.05
_TRY_AGAIN = {"unavailable", "busy"}
_TOGETHER = 50
_ASKED_AGAIN, _ASKED_TOGETHER = 300, 8
"""Each repeated request reads its budget's events, so that many at once would time out on a slow machine."""
_LIMIT_MINOR = 2_000
POLICY = BASIC_POLICY | {
    "roles": {
        "agent": {"budget": "400.00", "limits": {"refund": "20.00"}},
        "manager": {"budget": "2000.00", "limits": {"refund": "500.00"}, "approves": {"refund": "500.00"}},
    },
    "escalation": {"payer": "approver", "after_hours": 48},
}
"""Budgets are small enough to be used up under a longer load."""


class Asked(NamedTuple):
    """A request that was answered, with its first answer."""

    operation: str
    body: Document
    answer: Document


class Gaps(NamedTuple):
    """The longest times without an answer, in seconds.

    ``holder``: without a decision for one of the holders, the worst; ``decisions``: without any decision;
    ``facts``: without the acknowledgement of a fact.
    """

    holder: float
    decisions: float
    facts: float


class Load:
    """Sources of one schedule: agents that request decisions, and publishers of facts."""

    def __init__(self, client: LedgerClient, tag: str) -> None:
        """``tag`` begins all ids; the bodies are a function of it."""
        self.client, self.tag = client, tag
        self.acknowledged: dict[str, Document] = {}
        self.late: list[Document] = []
        """Facts that their source holds back until ``deliver_again``."""
        self.asked: dict[str, Asked] = {}
        self.faults: list[str] = []
        self.refusals: Counter[str] = Counter()
        """Answers that are errors of the request, by code; they are not recorded."""
        self._answered: dict[str, list[float]] = {f"A-{number}": [] for number in range(AGENTS)}
        self._stored: list[float] = []
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Announce the agents and their policy where that has not happened, and start the load."""
        policy = {"request_id": "policy", "policy": POLICY, "published_by": "owner"}
        subject = f"{topology.OPERATE_SUBJECT}.{SOURCE}.policy"
        said = await self._until_answered(subject, policy)
        if said["outcome"] != "done":
            raise RuntimeError(f"no policy can be published: {said}")
        staff = [(agent, "agent") for agent in self._answered] + [("M-1", "manager")]
        for name, role in staff:
            await self.publish(
                event(f"join-{name}", "employee.joined", SOURCE, employee_id=name, role=role, team_ids=["T-1"])
            )
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(AGENTS)]
        self._tasks += [asyncio.create_task(self._publish(number)) for number in range(PUBLISHERS)]
        await self.until_answered(time.monotonic())

    async def end(self) -> None:
        """Finish what was begun, then stop."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def cancel(self) -> None:
        """Stop at once what still runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until_answered(self, since: float, timeout_seconds: float = 90.0) -> bool:
        """Wait until each agent had an answer, and a fact was acknowledged, since a time; False if that does not come."""
        everything = [*self._answered.values(), self._stored]
        while not all(moments and moments[-1] > since for moments in everything):
            if time.monotonic() > since + timeout_seconds or any(task.done() for task in self._tasks):
                return False
            await asyncio.sleep(0.02)
        return True

    def gaps(self, since: float, until: float) -> Gaps:
        """Return the longest times without an answer between two times."""

        def longest(moments: list[float]) -> float:
            inside = [since, *(moment for moment in moments if since < moment < until), until]
            return max(later - earlier for earlier, later in pairwise(inside))

        of_all = sorted(moment for moments in self._answered.values() for moment in moments)
        return Gaps(max(map(longest, self._answered.values())), longest(of_all), longest(self._stored))

    async def deliver_again(self, number: int) -> None:
        """Publish facts again that were acknowledged long ago, and for the first time those that are late."""
        facts = Random(f"{self.tag} again {number}").sample(sorted(self.acknowledged), min(200, len(self.acknowledged)))
        late, self.late = self.late, []
        for begin in range(0, len(facts), _TOGETHER):
            await asyncio.gather(*(self.publish(self.acknowledged[name]) for name in facts[begin : begin + _TOGETHER]))
        for fact in late:
            await self.publish(fact)

    async def ask_again(self, names: list[str] | None = None) -> None:
        """Repeat answered requests (without names, at most 300 of all), and compare each answer with the first one."""
        chosen = names or Random(f"{self.tag} asked").sample(sorted(self.asked), min(_ASKED_AGAIN, len(self.asked)))

        async def one(name: str) -> None:
            asked = self.asked[name]
            again = await self._until_answered(_subject(asked.operation), asked.body)
            if again != asked.answer:
                self.faults.append(f"{name} was answered {asked.answer}, then {again}")

        for begin in range(0, len(chosen), _ASKED_TOGETHER):
            await asyncio.gather(*(one(name) for name in chosen[begin : begin + _ASKED_TOGETHER]))

    async def publish(self, fact: Document) -> None:
        """Publish a fact until the server acknowledges it."""
        body = json.dumps(fact).encode()
        while True:
            try:
                reply = await self.client.request(f"{topology.INBOX_SUBJECT}.{SOURCE}", body, timeout=_PATIENCE_SECONDS)
                if "seq" in json.loads(reply.data):
                    break
            except (nats.errors.Error, TimeoutError):
                pass
            await asyncio.sleep(_PAUSE_SECONDS)
        self.acknowledged[fact["id"]] = fact
        self._stored.append(time.monotonic())

    async def _until_answered(self, subject: str, body: Document) -> Document:
        """Send a request, again and again under its id, until it is answered by more than a request to try again."""
        while True:
            try:
                reply = await self.client.request(subject, json.dumps(body).encode(), timeout=_PATIENCE_SECONDS)
                answer: Document = json.loads(reply.data)
                if answer["outcome"] != "error" or answer["error"]["code"] not in _TRY_AGAIN:
                    return answer
            except (nats.errors.Error, TimeoutError):
                pass
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(self, number: int) -> None:
        """Request one decision after the other for one agent; some of them twice at once, or again later."""
        agent, chance = f"A-{number}", Random(f"{self.tag} {number}")
        for count in range(10**9):
            if self._stopping:
                return
            name = f"{self.tag}-r-{number}-{count}"
            operation, body = self._request(chance, agent)
            body = {"request_id": name, **body}
            times = 2 if chance.random() < 0.1 else 1
            answers = await asyncio.gather(*(self._until_answered(_subject(operation), body) for _ in range(times)))
            self._take(name, operation, body, answers)
            self._answered[agent].append(time.monotonic())
            if chance.random() < 0.1 and (earlier := self._of(agent)):
                await self.ask_again([chance.choice(earlier)])
            await asyncio.sleep(_PAUSE_SECONDS)

    def _take(self, name: str, operation: str, body: Document, answers: list[Document]) -> None:
        for answer in answers:
            if answer["outcome"] == "error":
                code = answer["error"]["code"]
                self.refusals[code] += 1
                if code == "internal":
                    self.faults.append(f"{name}: {answer}")
                continue
            first = self.asked.setdefault(name, Asked(operation, body, answer)).answer
            if answer != first:
                self.faults.append(f"{name} was sent twice at once and answered {first} and {answer}")

    def _of(self, agent: str) -> list[str]:
        return [name for name, asked in self.asked.items() if asked.body.get("agent_id") == agent]

    def _request(self, chance: Random, agent: str) -> tuple[str, Document]:
        given = [self.asked[name] for name in self._of(agent)[-20:]]
        held = [one.answer["action_id"] for one in given if one.answer["outcome"] == "held"]
        taken = [one.answer["action_id"] for one in given if one.answer["outcome"] == "taken"]
        kind = chance.random()
        if kind < 0.1 and held:
            return "hold", {"operation": chance.choice(("settle", "void")), "action_id": chance.choice(held)}
        if kind < 0.2 and taken:
            back = {"reversed_by": "M-1", "reason": "back", "recovered": chance.random() < 0.7}
            return "reversal", {"action_id": chance.choice(taken), **back}
        minor = _LIMIT_MINOR + 1 if kind > 0.9 else chance.randint(1, 500)
        fields: dict[str, Any] = {"hold": True} if 0.2 < kind < 0.35 else {"escalate": True} if kind > 0.9 else {}
        customer = f"C-{chance.randint(1, 30)}"
        action = {
            "agent_id": agent,
            "kind": "refund",
            "amount": money(minor),
            "reason": "late",
            "customer_id": customer,
        }
        return "action", action | fields

    async def _publish(self, number: int) -> None:
        """Publish one fact after the other; some of them twice, others late."""
        chance = Random(f"{self.tag} facts {number}")
        for count in range(10**9):
            if self._stopping:
                return
            name, customer = f"{self.tag}-f-{number}-{count}", f"C-{chance.randint(1, 30)}"
            if chance.random() < 0.7:
                fact = event(
                    name, "purchase.completed", SOURCE, order_id=f"O-{name}", customer_id=customer, total=money(900)
                )
            else:
                asked = event(name, "interaction.opened", SOURCE, customer_id=customer, interaction_id=f"I-{name}")
                asked["data"] |= {"channel": "phone", "reason": "late"}
                fact = asked
            if chance.random() < 0.1:
                self.late.append(fact)
            else:
                for _ in range(2 if chance.random() < 0.15 else 1):
                    await self.publish(fact)
            await asyncio.sleep(_PAUSE_SECONDS)


def _subject(operation: str) -> str:
    return f"{topology.DECIDE_SUBJECT}.{SOURCE}.{operation}"
