"""Random commands against a real server and two deciders: every amount is accounted for.

The books are kept a second time (`kept.py`), from nothing but the events.
"""

import asyncio
import itertools
import os
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.runtime.redecide import redecide_log
from app.runtime.session import Session
from app.runtime.views import read_view
from config.settings import load_settings
from domain.policy.parsing import parse_policy
from ledger.store.subscription import Follower
from projections.engine.events import read_event
from projections.engine.projector import rebuild
from projections.policy_history import published_policies
from projections.reports.policy_simulation import PolicySimulation, try_policy, try_quickly
from projections.views.balances import Balances, read_balances
from tests.support.builders import event, reported_action
from tests.support.documents import Document
from tests.support.independent_books import Kept, minor_of, money
from tests.support.organisations import FULL_POLICY, STAFF
from tests.support.upstreams import set_up_organisation, two_at_work

pytestmark = pytest.mark.integration

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "6"))
people = st.sampled_from([name for name in STAFF if name != "X-1"])
amounts = st.sampled_from([0, 1, 500, 1999, 2500, 5000, 5001, 6000, 12000, 60000])
kinds = st.sampled_from(["refund", "credit", "keep_item", "fix", "gift"])
customers = st.sampled_from([None, "C-1", "C-2", "C-3"])
interactions = st.sampled_from([None, "I-1", "I-2"])


class Authority(RuleBasedStateMachine):
    """Two deciders at work, a clock that moves, and requests of any kind by any employee."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.now = datetime(2026, 3, 20, 9, tzinfo=UTC)
        self.numbers = itertools.count()
        self.asked: list[tuple[str, Document, Document]] = []
        self.escalations: list[str] = []
        self.actions: list[str] = []
        self.kept = Kept()
        self.read = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    @initialize()
    def begin(self) -> None:
        async def work() -> None:
            folder = self.stack.enter_context(tempfile.TemporaryDirectory())
            self.session = await self.stack.enter_async_context(Session(load_settings({"data_dir": folder}, {})))
            self.upstream = await self.stack.enter_async_context(two_at_work(self.session, history=True))
            await set_up_organisation(self.upstream)
            await self.upstream.record(event("link", "customer.linked", a="C-1", b="C-2", relation="household"))

        self.run(work())

    def ask(self, operation: str, /, **fields: Any) -> Document:
        request = {"request_id": f"r-{next(self.numbers)}", "time": self.now.isoformat(), **fields}
        answer: Document = self.run(self.upstream.ask(operation, **request))
        assert answer.get("error", {}).get("code") not in {"internal", "busy", "unavailable"}, answer
        if answer["outcome"] != "error" and operation != "preview":
            self.asked.append((operation, request, answer))
        if "escalation_id" in answer:
            self.escalations.append(answer["escalation_id"])
        if "action_id" in answer:
            self.actions.append(answer["action_id"])
        return answer

    @rule(
        agent=people,
        kind=kinds,
        minor=amounts,
        customer=customers,
        interaction=interactions,
        hold=st.booleans(),
        escalate=st.booleans(),
        basis=st.sampled_from(["goodwill", "goodwill", "correction"]),
    )
    def act(
        self,
        agent: str,
        kind: str,
        minor: int,
        customer: str | None,
        interaction: str | None,
        hold: bool,
        escalate: bool,
        basis: str,
    ) -> None:
        named = (("customer_id", customer), ("interaction_id", interaction))
        fields: Document = {"agent_id": agent, "kind": kind, "amount": money(minor), "reason": "late"}
        fields |= {"hold": hold, "escalate": escalate, "basis": basis} | {name: value for name, value in named if value}
        before = self.run(self._quiet())
        preview = self.ask("preview", **fields)
        answer = self.ask("action", **fields)
        assert preview["outcome"] == answer["outcome"] or self.run(self._others_since(before))

    async def _quiet(self) -> int:
        """Let both deciders read the log; return its end."""
        await asyncio.sleep(0.05)
        return await self.session.log.last_position()

    async def _others_since(self, position: int) -> bool:
        """Return whether the clock or a fact caused events since: then an earlier preview may rightly differ."""
        bodies = [read_event(one).body for one in await self.session.log.read_subject(">", position)]
        return len({getattr(body, "request_id", None) for body in bodies}) > 2  # its note, and the action's answer

    @rule(agents=st.lists(people, min_size=2, max_size=12), minor=amounts)
    def act_at_once(self, agents: list[str], minor: int) -> None:
        async def work() -> None:
            await asyncio.gather(
                *(
                    self.upstream.ask(
                        "action",
                        request_id=f"r-{next(self.numbers)}",
                        time=self.now.isoformat(),
                        agent_id=agent,
                        kind="refund",
                        amount=money(minor),
                        reason="late",
                        customer_id="C-3",
                    )
                    for agent in agents
                )
            )

        self.run(work())

    @precondition(lambda self: self.escalations)
    @rule(
        number=st.integers(0, 99),
        operation=st.sampled_from(["approve", "deny", "withdraw", "forward"]),
        by=people,
        less=st.booleans(),
    )
    def decide(self, number: int, operation: str, by: str, less: bool) -> None:
        escalation_id = self.escalations[number % len(self.escalations)]
        extra = {"amount": money(1)} if less and operation == "approve" else {}
        self.ask("escalation", operation=operation, escalation_id=escalation_id, decided_by=by, **extra)

    @precondition(lambda self: self.actions)
    @rule(number=st.integers(0, 99), operation=st.sampled_from(["settle", "void"]), part=st.booleans())
    def settle(self, number: int, operation: str, part: bool) -> None:
        extra = {"amount": money(1)} if part else {}
        self.ask("hold", action_id=self.actions[number % len(self.actions)], operation=operation, **extra)

    @precondition(lambda self: self.actions)
    @rule(number=st.integers(0, 99), recovered=st.booleans(), part=st.booleans())
    def undo(self, number: int, recovered: bool, part: bool) -> None:
        extra = {"amount": money(1)} if part else {}
        self.ask(
            "reversal",
            action_id=self.actions[number % len(self.actions)],
            reversed_by="M-1",
            reason="back",
            recovered=recovered,
            **extra,
        )

    @rule(giver=people, taker=people, minor=amounts)
    def transfer(self, giver: str, taker: str, minor: int) -> None:
        self.ask(
            "budget",
            operation="transfer",
            holder=f"agent:{giver}",
            to_holder=f"agent:{taker}",
            amount=money(minor),
            granted_by="M-1",
            reason="busy",
        )

    @rule(holder=st.sampled_from(["agent:A-1", "team:doorstep", "team:phone"]), minor=amounts)
    def grant(self, holder: str, minor: int) -> None:
        self.ask("budget", operation="grant", holder=holder, amount=money(minor), granted_by="M-1", reason="busy")

    @rule(agent=people, minor=amounts, currency=st.sampled_from(["GBP", "GBP", "EUR"]), days=st.integers(0, 40))
    def report(self, agent: str, minor: int, currency: str, days: int) -> None:
        name = f"off-{next(self.numbers)}"
        when = (self.now - timedelta(days=days)).isoformat()
        fact = reported_action(name, time=when, agent_id=agent, reason="no network", amount=money(minor, currency))
        self.run(self.upstream.record(fact))

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 99), minor=amounts)
    def report_request(self, number: int, minor: int) -> None:
        """The same id again is a duplicate, or is rejected."""
        _, request, _ = self.asked[number % len(self.asked)]
        fact = reported_action(request["request_id"], time=self.now.isoformat(), amount=money(minor))
        self.run(self.upstream.publish(fact))

    @precondition(lambda self: self.actions)
    @rule(number=st.integers(0, 99))
    def settled_elsewhere(self, number: int) -> None:
        action_id = self.actions[number % len(self.actions)]
        fact = event(f"set-{next(self.numbers)}", "refund.settled", action_id=action_id, total=money(700))
        self.run(self.upstream.record(fact))

    @rule(period=st.sampled_from(["month", "week", "quarter"]), budget=st.sampled_from(["200.00", "20.00"]))
    def publish(self, period: str, budget: str) -> None:
        roles = FULL_POLICY["roles"]
        policy = FULL_POLICY | {"period": period, "roles": roles | {"agent": roles["agent"] | {"budget": budget}}}
        assert self.ask("policy", policy=policy, published_by="owner")["outcome"] == "done"

    @rule(hours=st.sampled_from([1, 25, 49, 24 * 8, 24 * 33]))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 99))
    def ask_again(self, number: int) -> None:
        operation, request, answer = self.asked[number % len(self.asked)]
        assert self.run(self.upstream.ask(operation, **request)) == answer
        other = self.run(self.upstream.ask(operation, **(request | {"reason": "another", "extra": 1})))
        assert other["error"]["code"] == "request_id_reused"

    @invariant()
    def every_amount_is_explained(self) -> None:
        if not hasattr(self, "upstream"):
            return

        async def work() -> None:
            end = await self.session.log.last_position()
            while self.read < end:
                for recorded in (await self.session.log.read_batch(">", self.read, 500))[0]:
                    self.kept.read(recorded)
                    self.read = recorded.position

        self.run(work())
        assert len(self.kept.charged) == len(set(self.kept.charged))

    def teardown(self) -> None:
        try:
            if hasattr(self, "upstream"):
                self.run(self._views_agree())
        finally:
            self.loop.run_until_complete(self.stack.aclose())
            self.loop.close()

    async def _views_agree(self) -> None:
        """The live view, a rebuilt view and the independent books agree."""
        await asyncio.sleep(0.3)  # what the clock and the facts still ask for
        session, views = self.session, self.session.views
        live = (await read_view(session, "budget_balances", read_balances)).result
        await rebuild(Balances(), views, await session.connection("rebuild"), session.log)
        assert (await read_view(session, "budget_balances", read_balances)).result == live
        for recorded in await session.log.read_subject(">", self.read):
            self.kept.read(recorded)
            self.read = recorded.position
        seen = {
            (row["holder"], row["period"], row["granted"]["currency"]): (
                minor_of(row["granted"]),
                minor_of(row["spent"]),
                minor_of(row["reserved"]),
            )
            for row in live
        }
        assert seen == self.kept.shown()
        await self._policy_in_force_gives_history()
        await self._decisions_come_out_equal()

    async def _decisions_come_out_equal(self) -> None:
        """Each decision of the two deciders comes out again as it was recorded."""
        with tempfile.TemporaryDirectory() as folder:
            client = await self.session.connection("redecide")
            found = await redecide_log(client, self.session.log, Path(folder), 1, self.read, lambda _done, _of: None)
        assert found.differences == []
        assert found.out_of_reach == 0

    async def _policy_in_force_gives_history(self) -> None:
        """A simulation of the policy that was in force, with budgets of its own, differs nowhere."""
        session = self.session
        published = await published_policies(session.log)
        trying = PolicySimulation(parse_policy(published[-1].policy), published, None, flags=False)
        batches = Follower(await session.connection("what-if"), session.log, "what-if").batches(until=self.read)
        found = await try_policy(session.log, batches, trying, lambda _: None)
        again = PolicySimulation(parse_policy(published[-1].policy), published, None, flags=False)
        assert await try_quickly(partial(read_view, session), again, lambda _: None) == found
        assert found["items"] == []
        for period in found["spend"]:
            assert period["spent"] == period["would_be_spent"]


Authority.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestAuthority = Authority.TestCase
