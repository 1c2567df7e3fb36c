"""Reports at a million events, and the simulation of another policy."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import batched
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from app.runtime.session import Session
from app.runtime.views import read_view
from benchmarks.contest import Contest, contest
from benchmarks.seal import NEEDED, constant_target
from config import topology
from config.settings import load_settings
from consumers.decisions.budget_repository import subject_of
from consumers.decisions.unit_of_work import stored_form
from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext, opening, period_to_book
from domain.commands import ActionRequest, action_id_of
from domain.decisions.authority import Agent, DecisionContext, Gift, SoftState, fell_short, judge, taken
from domain.events.decisions import PolicyPublished
from domain.money import Money
from domain.policy.history import PolicyHistory
from domain.policy.model import Rules
from domain.policy.parsing import parse_policy
from domain.serialization import encode
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from projections.date_ranges import read_range, zone_named
from projections.policy_history import policy_in_force, published_policies
from projections.reports.empowerment_gap import gap_report
from projections.reports.loyalty import loyalty_report
from projections.reports.policy_simulation import PolicySimulation, try_quickly
from projections.reports.recognition import recognition_report
from projections.reports.service_quality import quality_report
from projections.reports.summary import summary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from benchmarks.contest import Run
    from benchmarks.context import BenchmarkContext

EVENTS = 1_000_000
DAYS, AGENTS, TEAMS, CUSTOMERS = 720, 500, 24, 50_000
BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
_KINDS, _CHANNELS, _REASONS = ("refund", "credit", "keep_item"), ("phone", "chat", "email"), ("late", "broken", "wrong")
POLICY: dict[str, Any] = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2020-01-01T00:00:00Z",
    "roles": {
        "agent": {
            "budget": "600.00",
            "limits": {"refund": "25.00", "credit": "20.00", "keep_item": "20.00"},
            "per_interaction": "60.00",
            "per_customer": {"amount": "100.00", "days": 90},
        },
    },
    "costs": {"agent_hour": "24.00", "manager_hour": "45.00"},
}


async def reports(context: BenchmarkContext) -> list[Contest]:
    """Measure each report with current views, and simulated decisions a second."""
    number = context.scaled(EVENTS)
    folder = context.folder / "worth"
    async with Session(load_settings({"data_dir": str(folder)}, {})) as session:
        decisions = await fill(session, number)
        read, policy = partial(read_view, session), await policy_in_force(session.log)
        published = await published_policies(session.log)
        made: dict[str, Callable[[], Awaitable[Any]]] = {
            "loyalty": lambda: loyalty_report(read, published),
            "gap": lambda: gap_report(read, published),
            "quality": lambda: quality_report(read),
            "recognition": lambda: recognition_report(read, policy),
            "summary": lambda: summary(read, read_range(None, None, zone_named(POLICY["time_zone"])), "day"),
        }
        found = []
        for name, make in made.items():
            await make()  # the views come to the end of the log
            title = f"report {name} at {number:,} events"
            found.append(
                await contest(
                    title, "s", {"ledger": _timed(make), NEEDED: constant_target(5)}, needs={NEEDED: 1}, rounds=3
                )
            )
        stricter = dict(POLICY, roles={"agent": POLICY["roles"]["agent"] | {"per_interaction": "24.00"}})
        for title, document in (("the policy in force", POLICY), ("another policy", stricter)):
            runs: dict[str, Run] = {"ledger": _judged(session, document, decisions), NEEDED: constant_target(20_000)}
            found.append(await contest(f"what-if, {title}", "decisions/s", runs, needs={NEEDED: 1}, rounds=3))
    return found


def _timed(make: Callable[[], Awaitable[Any]]) -> Run:
    async def run(_round: int) -> float:
        begun = time.perf_counter()
        await make()
        return time.perf_counter() - begun

    return run


def _judged(session: Session, document: dict[str, Any], decisions: int) -> Run:
    async def run(_round: int) -> float:
        trying = PolicySimulation(parse_policy(document), await published_policies(session.log), None, flags=False)
        begun = time.perf_counter()
        found = await try_quickly(partial(read_view, session), trying, lambda _: None)
        took = time.perf_counter() - begun
        assert found["decisions"] == decisions
        assert (found["differences"] == 0) == (document is POLICY)
        return decisions / took

    return run


async def fill(session: Session, number: int) -> int:
    """Record two years of an organisation; return the number of decisions."""
    organisation = Organisation(number)
    for batch in batched(organisation.drafts(), 1000):
        await session.log.append(batch)
    return organisation.decisions


class Organisation:
    """Drafts in order of time: a fifth are decisions, the others are the facts around them."""

    def __init__(self, number: int) -> None:
        self.decisions = 0
        self._number = number
        self._rng = np.random.default_rng(5)
        self._rules = Rules(1, parse_policy(POLICY))
        self._agents = [
            Agent(agent_id=f"A-{at:04d}", role="agent", team_ids=(f"T-{at % TEAMS:02d}",)) for at in range(AGENTS)
        ]
        self._budgets: dict[str, Budget] = {}
        self._given: dict[str, list[Gift]] = {}

    def drafts(self) -> Iterator[Draft]:
        """Yield all drafts."""
        cause = RequestContext(source="bench", request_id="policy", request_sha256="00" * 32, seen_position=0)
        record = PolicyPublished(policy=POLICY, version=1, published_by="owner", sha256="", **cause.answer())
        yield Draft(topology.POLICY_SUBJECT, stored_form(record, BEGAN))
        for agent in self._agents:
            yield self._fact(
                f"j-{agent.agent_id}",
                "employee.joined",
                BEGAN,
                employee_id=agent.agent_id,
                role="agent",
                team_ids=agent.team_ids,
            )
        rounds = self._number // 5
        for at in range(rounds):
            moment = BEGAN + timedelta(days=DAYS * at / rounds)
            customer = f"C-{int(self._rng.integers(0, CUSTOMERS)):06d}"
            other = f"C-{int(self._rng.integers(0, CUSTOMERS)):06d}"
            agent = self._agents[int(self._rng.integers(0, AGENTS))]
            matter = {"interaction_id": f"I-{at:07d}"}
            yield self._fact(
                f"o-{at}",
                "interaction.opened",
                moment,
                customer_id=customer,
                channel=_CHANNELS[at % 3],
                reason=_REASONS[at // 3 % 3],
                agent_id=agent.agent_id,
                team_id=agent.team_ids[0],
                **matter,
            )
            if at % 8:
                yield from self._decides(at, moment + timedelta(minutes=5), agent, customer)
            yield from self._around(at, moment, agent, customer)
            for more, buyer in enumerate((other, customer)[at % 5 == 0 :]):
                total = {"amount": f"{self._rng.integers(5, 90)}.00", "currency": "GBP"}
                yield self._fact(
                    f"b-{at}-{more}",
                    "purchase.completed",
                    moment + timedelta(minutes=6),
                    order_id=f"O-{at}-{more}",
                    customer_id=buyer,
                    total=total,
                    margin={"amount": "3.00", "currency": "GBP"},
                )
            yield self._fact(f"r-{at}", "interaction.resolved", moment + timedelta(minutes=9), **matter)

    def _around(self, at: int, moment: datetime, agent: Agent, customer: str) -> Iterator[Draft]:
        """Yield an answer to a survey for a fifth of the interactions, transfers and escalations for some."""
        matter = {"interaction_id": f"I-{at:07d}"}
        if at % 5 == 0:
            yield self._fact(
                f"s-{at}",
                "feedback.received",
                moment + timedelta(hours=1),
                customer_id=customer,
                instrument="csat",
                score=1 + at % 7 % 5,
                best=5,
                worst=1,
                **matter,
            )
        if at % 9 == 0:
            to = self._agents[(at // 9) % AGENTS]
            names = {"to_agent_id": to.agent_id, "to_team_id": to.team_ids[0]}
            later = moment + timedelta(minutes=4)
            yield self._fact(f"t-{at}", "interaction.transferred", later, **names, **matter)
        if at % 16 == 0:
            named = {"escalation_id": f"E-{at:07d}"}
            amount = {"amount": f"{30 + at % 40}.00", "currency": "GBP"}
            yield self._fact(
                f"e-{at}",
                "escalation.reported",
                moment + timedelta(minutes=5),
                kind=_KINDS[at % 3],
                amount=amount,
                requested_by=agent.agent_id,
                reason=_REASONS[at // 3 % 3],
                **named,
                **matter,
            )
            verdict = ("approved", "denied")[at // 16 % 2]
            by = {"verdict": verdict, "decided_by": self._agents[0].agent_id}
            later = moment + timedelta(hours=2)
            yield self._fact(f"f-{at}", "escalation.outcome_reported", later, **named, **by)

    def _fact(self, name: str, fact: str, moment: datetime, /, **data: Any) -> Draft:
        stored = encode_event("bench", name, f"resolution.{fact}.v1", moment, encode(data))
        return Draft(f"{topology.FACT_SUBJECT}.bench", stored)

    def _decides(self, at: int, moment: datetime, agent: Agent, customer: str) -> Iterator[Draft]:
        self.decisions += 1
        cause = RequestContext(source="bench", request_id=f"q-{at}", request_sha256="00" * 32, seen_position=AGENTS + 1)
        budget = self._budgets.get(agent.agent_id)
        period = period_to_book(self._rules, budget, PolicyHistory([self._rules]), moment)
        holder = f"agent:{agent.agent_id}"
        if budget is None or budget.period != period:
            opened, closed = opening(self._rules, holder, period, budget, cause, "agent", "GBP")
            if closed is not None and budget is not None:
                yield Draft(subject_of(holder, "GBP", budget.period), stored_form(closed, moment))
            budget = self._budgets[agent.agent_id] = Budget.open(opened, moment)
            yield Draft(subject_of(holder, "GBP", period), stored_form(opened, moment))
        request = ActionRequest(
            request_id=f"q-{at}",
            agent_id=agent.agent_id,
            kind=cast("Any", _KINDS[at % 3]),
            reason=_REASONS[at // 3 % 3],
            amount=Money(int(self._rng.integers(100, 2_800)), "GBP"),
            customer_id=customer,
            interaction_id=f"I-{at:07d}",
            team_id=agent.team_ids[0],
        )
        gifts = self._given.setdefault(customer, [])
        asking = DecisionContext(
            request=request,
            agent=agent,
            rules=self._rules,
            source="bench",
            now=moment,
            budget=budget,
            seen=SoftState(group=frozenset((customer,)), customer=gifts),
        )
        verdict = judge(asking, request.amount)
        record: Any
        if verdict.outcome == "taken":
            record = taken(asking, 1, verdict, cause, action_id_of("bench", request.request_id))
            gifts.append(Gift(agent.agent_id, moment.timestamp(), request.amount.minor, "GBP"))
        else:
            record = fell_short(request, request.amount, verdict, cause, asking=asking)
        budget.record(record, moment)
        yield Draft(subject_of(holder, "GBP", period), stored_form(record, moment))
