"""Random sequences of requests by any mix of principals: only those with governance change limits, budgets and roles."""

import asyncio
import tempfile
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from domain.decisions.decision import Decision
from domain.decisions.governance import ungoverned_refusal
from domain.decisions.source_authority import command_refusal
from domain.events import decisions
from domain.events.administration import SourceRegistered
from domain.source_registry import SourceRegistry
from tests.support.decision_commands import (
    action,
    approve,
    approve_policy,
    ask,
    grant,
    object_to_policy,
    propose,
    publish,
    review,
    transfer,
)
from tests.support.decision_company import company, policy
from tests.support.decision_events import NOW, flag_raised, joined, linked, sha256_of
from tests.support.decision_scenarios import Scenario, given
from tests.support.documents import Document
from tests.support.redecisions import ForgedLog, redecide

PER_PERIOD = 10_000
"""The most that a manager grants in a period, in minor units."""
GOVERNANCE: Document = {
    "policies": {"propose": ["role:head"], "approvals": 1},
    "grants": {"manager": {"per_period": "100.00", "to": "own_teams"}},
    "transfers": {"manager": "own_teams"},
    "reviews": ["role:auditor"],
}
STAFF = (joined("H-1", "head"), joined("H-2", "head"), joined("H-3", "head"), joined("U-1", "auditor"))
GOVERNORS = ("H-1", "H-2", "H-3", "M-1", "M-2")
PEOPLE = ("A-7", "A-8", "D-1", "X-1", "U-1", "nobody")
"""People without a right to change a policy or a budget."""
PROFILES = {
    "crm": "desk",
    "psp": "payments",
    "hr": "people",
    "inbox": "approvals",
    "till": "facts",
    "board": "governance",
}
TYPES = (decisions.PolicyPublished, decisions.BudgetGranted, decisions.BudgetTransferred)
HOLDERS = st.sampled_from(["agent:A-7", "agent:A-8", "agent:D-1", "agent:M-1", "agent:M-2", "team:doorstep"])
AMOUNTS = st.sampled_from(["0.01", "1.00", "40.00", "60.00", "100.00", "9000.00"])


class Requests(RuleBasedStateMachine):
    """A company with governance; every step is one request of one principal."""

    governors_act = True
    """False: no signed-in governor and no source with the profile `governance` sends anything."""
    people = st.sampled_from((*PEOPLE, *GOVERNORS))
    ways = st.sampled_from(["http", *PROFILES])
    """A signed-in person, or the name of a source."""
    scenario: Scenario

    @initialize(governed=st.booleans())
    def begin(self, governed: bool) -> None:
        """Publish a policy, with governance or without."""
        self.governance = GOVERNANCE if governed else None
        described = company(governance=self.governance)
        self.scenario = given(described, STAFF, linked("M-2", "D-1"), flag_raised())
        self.begun = self.scenario.position
        self.sources = SourceRegistry(admits_others=False)
        for name, profile in PROFILES.items():
            self.sources.apply(SourceRegistered(source=name, profile=profile, by="operator"))
        self.number = 0
        self.documents = [
            policy(governance=GOVERNANCE, agent={"budget": f"{100 * n}.00"}, effective_from="2026-04-01T00:00:00Z")
            for n in (3, 4)
        ]

    def send(self, way: str, person: str, command: Any) -> Decision | None:
        """Send a request as the pipeline does; return its decision, or ``None`` for an error."""
        if not self.governors_act and (way == "board" or (way == "http" and person in GOVERNORS)):
            return None
        self.number += 1
        named = msgspec.structs.replace(command, request_id=f"r-{self.number}")
        via, source = ("http", "dashboard") if way == "http" else (None, way)
        now, state = NOW + timedelta(seconds=self.number), self.scenario.state
        refusal = None if via else command_refusal(named, source, now, state, self.sources)
        if refusal or ungoverned_refusal(named, via, now, state):
            return None
        result = self.scenario.when(named, at=now, source=source, via=via).result
        if isinstance(result, Decision):
            self.scenario.record(result)
            return result
        return None

    @rule(way=ways, person=people, holder=HOLDERS, to=HOLDERS, amount=AMOUNTS)
    def move_money(self, way: str, person: str, holder: str, to: str, amount: str) -> None:
        """Grant, then transfer."""
        self.send(way, person, grant(holder, amount, granted_by=person))
        self.send(way, person, transfer(holder, to, amount, granted_by=person))

    @rule(way=ways, person=people, number=st.integers(0, 1))
    def change_the_policy(self, way: str, person: str, number: int) -> None:
        """Publish, propose, approve and object."""
        document = self.documents[number]
        self.send(way, person, publish(document, published_by=person))
        self.send(way, person, publish(document, published_by=person, break_glass=True, reason="x"))
        self.send(way, person, propose(document, proposed_by=person))
        self.send(way, person, approve_policy(sha256_of(document), approved_by=person))

    @rule(way=ways, person=people)
    def review_the_flag(self, way: str, person: str) -> None:
        """Review a flag."""
        self.send(way, person, review(verdict="dismissed", reviewed_by=person))

    @rule(way=ways, agent=st.sampled_from(["A-7", "D-1"]), amount=AMOUNTS, person=people)
    def give(self, way: str, agent: str, amount: str, person: str) -> None:
        """Take an action, file an escalation and approve it."""
        self.send(way, agent, action(amount, agent_id=agent))
        filed = self.send(way, agent, ask(amount, agent_id=agent))
        if filed is not None and "escalation_id" in filed.answer:
            self.send(way, person, approve(str(filed.answer["escalation_id"]), person))

    def written(self) -> list[decisions.Record]:
        """Return the events that changed a policy or a budget since the beginning."""
        records = [one.body for one in self.scenario._stored[self.begun :]]
        return [one for one in records if isinstance(one, TYPES)]

    def teardown(self) -> None:
        """Make all decisions again from the log."""
        if getattr(self, "scenario", None) is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(redecide(ForgedLog(self.scenario.recorded), Path(folder), self.begun + 1))
        assert found.differences == []


class WithoutGovernance(Requests):
    """Principals without governance change nothing, whomever their sources name."""

    governors_act = False

    @invariant()
    def nothing_has_changed(self) -> None:
        """No policy, grant or transfer was recorded, and roles and limits are as before."""
        if not hasattr(self, "scenario"):
            return
        assert self.written() == []
        state = self.scenario.state
        assert state.policies.newest_version == 1
        roles = {one.agent_id: one.role for one in state.staff.everybody(None)}
        assert roles["A-7"] == "agent"
        assert "nobody" not in roles


class WithGovernors(Requests):
    """Governors act too: each change of a policy has its people, each grant its bounds."""

    @rule(way=Requests.ways, person=Requests.people, number=st.integers(0, 1))
    def object_to_it(self, way: str, person: str, number: int) -> None:
        """Object to a proposal."""
        self.send(way, person, object_to_policy(sha256_of(self.documents[number]), objected_by=person))

    @invariant()
    def changes_are_within_bounds(self) -> None:
        """Each publication had two people who signed in; grants stay within the period's amount and reach."""
        if not hasattr(self, "scenario"):
            return
        given_minor: defaultdict[str, int] = defaultdict(int)
        for one in self.written():
            assert self.governance is not None, one
            match one:
                case decisions.PolicyPublished():
                    assert one.approved_by
                    assert not {one.published_by, *one.approved_by} - {"H-1", "H-2", "H-3"}
                    assert one.published_by not in one.approved_by
                case decisions.BudgetGranted():
                    assert one.granted_by in ("M-1", "M-2")
                    assert one.holder != f"agent:{one.granted_by}"
                    assert (one.granted_by, one.holder) != ("M-2", "agent:D-1")
                    given_minor[one.granted_by] += one.amount.minor
                case decisions.BudgetTransferred():
                    assert one.granted_by in ("M-1", "M-2")
        assert max(given_minor.values(), default=0) <= PER_PERIOD


TestWithoutGovernance = WithoutGovernance.TestCase
TestWithoutGovernance.settings = settings(
    max_examples=settings().max_examples * 3 // 2, stateful_step_count=25, deadline=None
)
TestWithGovernors = WithGovernors.TestCase
TestWithGovernors.settings = settings(
    max_examples=settings().max_examples * 3 // 2, stateful_step_count=30, deadline=None
)
