"""A policy that changes its time zone or period: an open budget is used to its end, and nothing is granted twice."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.session import Session
from domain.budgets.budget import Budget
from domain.budgets.postings import opening, period_to_book
from domain.periods import PeriodKind, bounds_of, days_of, kind_of
from domain.policy.history import PolicyHistory
from domain.policy.model import Rules
from domain.policy.parsing import PolicyError, parse_policy, read_policy
from ledger.store.subscription import Follower
from projections.policy_history import published_policies
from projections.reports.policy_simulation import PolicySimulation, try_policy
from tests.support.builders import event, gbp, request_context
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY
from tests.support.upstreams import upstream_of

ZONES = (
    "Pacific/Auckland",
    "Pacific/Pago_Pago",
    "Pacific/Kiritimati",
    "Asia/Kolkata",
    "Europe/London",
    "UTC",
    "America/New_York",
    "America/Havana",
)
GRANTS: dict[str, str] = {"day": "20.00", "week": "100.00", "month": "400.00", "quarter": "1200.00"}
LONGEST: dict[str, int] = {"day": 1, "week": 7, "month": 31, "quarter": 92}
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SHIFT = timedelta(hours=26)  # from the earliest zone to the latest


class Change(NamedTuple):
    """A policy that begins so many hours after the one before."""

    hours: int
    zone: str
    kind: PeriodKind


def rules(version: int, begins: datetime, zone: str, kind: PeriodKind) -> Rules:
    agent = {"budget": GRANTS[kind], "limits": {"refund": "20.00"}}
    changes = {"time_zone": zone, "period": kind, "effective_from": begins.isoformat(), "roles": {"agent": agent}}
    return Rules(version, parse_policy(BASIC_POLICY | changes))


class Holder:
    """An agent under changing policies; `opened` holds each budget with the moment of its opening."""

    def __init__(self, policies: PolicyHistory) -> None:
        self.policies = policies
        self.opened: list[tuple[datetime, Budget]] = []

    def asks(self, now: datetime) -> Budget:
        in_force, before = self.policies.in_force(now), self.opened[-1][1] if self.opened else None
        assert in_force is not None
        period = period_to_book(in_force, before, self.policies, now)
        if before is None or before.period != period:
            record, _ = opening(in_force, "agent:A-1", period, before, request_context(1), "agent", "GBP")
            self.opened.append((now, Budget.open(record, now)))
        return self.opened[-1][1]


changes = st.lists(
    st.builds(Change, st.integers(1, 24 * 40), st.sampled_from(ZONES), st.sampled_from(get_args(PeriodKind))),
    min_size=1,
    max_size=6,
)


@given(changes, st.lists(st.integers(0, 60 * 24 * 12), min_size=1, max_size=60))
def test_under_any_policies_one_budget_is_open_and_no_day_is_granted_twice(
    told: list[Change], minutes: list[int]
) -> None:
    begins, versions = BEGIN, []
    for number, change in enumerate(told, 1):
        versions.append(rules(number, begins, change.zone, change.kind))
        begins += timedelta(hours=change.hours)
    holder, now = Holder(PolicyHistory(versions)), BEGIN
    for step in minutes:
        now += timedelta(minutes=step)
        budget = holder.asks(now)  # never refused: nobody is locked out
        since, in_force = holder.opened[-1][0], holder.policies.in_force(now)
        assert in_force is not None
        granted, kind = budget.opening_grant_minor, in_force.policy.period
        assert granted > 0
        # The same budget is used at most as long as its period lasts, and the hours between two zones.
        assert now - since < timedelta(days=LONGEST[kind_of(budget.period)]) + 2 * SHIFT
        if since == now and len(holder.opened) > 1:
            _, before = holder.opened[-2]
            own = holder.policies[before.policy_version].policy.time_zone
            assert now >= bounds_of(before.period, ZoneInfo(own))[1]  # it had ended where it was opened
            whole = round(float(GRANTS[kind]) * 100)
            assert granted == (whole if kind_of(budget.period) == kind else min(whole, before.opening_grant_minor))
    names = [budget.period for _, budget in holder.opened]
    assert len(set(names)) == len(names)
    days = [days_of(name) for name in names]
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(days))  # none covers another


@pytest.mark.parametrize(
    ("before", "zone", "kind", "after"),
    [  # a period opened, and what comes when it has ended and another zone or length rules
        ("2026-11-21", "Pacific/Pago_Pago", "day", "2026-11-22"),
        ("2026-11-10", "Pacific/Auckland", "month", "2026-11-11"),
        ("2026-11-30", "Pacific/Auckland", "month", "2026-12"),
        ("2026-11", "Pacific/Auckland", "week", "2026-W49"),
        ("2026-W48", "Pacific/Auckland", "month", "2026-W49"),
        ("2026-W49", "Pacific/Auckland", "month", "2026-12"),
        ("2026-10", "Pacific/Auckland", "quarter", "2026-11"),
        ("2026-12", "Pacific/Auckland", "quarter", "2027-Q1"),
        ("2026-Q4", "Pacific/Auckland", "day", "2027-01-01"),
    ],
)
def test_a_period_opened_in_auckland_has_one_successor(before: str, zone: str, kind: PeriodKind, after: str) -> None:
    first, end = bounds_of(before, ZoneInfo("Pacific/Auckland"))
    old = rules(1, first - timedelta(days=1), "Pacific/Auckland", kind_of(before))
    new = rules(2, first + timedelta(hours=1), zone, kind)
    holder = Holder(PolicyHistory([old, new]))
    opened = holder.asks(first)
    assert opened.period == before
    ends = max(end, bounds_of(before, ZoneInfo(zone))[1])
    assert holder.asks(ends - timedelta(microseconds=1)) is opened
    assert holder.asks(ends).period == after


def test_a_holder_without_a_grant_gets_the_longer_period_at_once() -> None:
    first = datetime(2026, 11, 10, tzinfo=UTC)
    holder = Holder(PolicyHistory([rules(1, BEGIN, "UTC", "day"), rules(2, first, "UTC", "month")]))
    nothing, _ = opening(holder.policies[1], "agent:A-1", "2026-11-10", None, request_context(1), None, "GBP")
    holder.opened.append((first, Budget.open(nothing, first)))
    assert holder.asks(datetime(2026, 11, 11, tzinfo=UTC)).period == "2026-11"


def test_the_rest_of_a_prolonged_period_is_carried_into_the_longer_one() -> None:
    carrying = BASIC_POLICY["roles"]["agent"] | {"budget": "90.00", "carry_over": "50.00"}
    week = Rules(1, parse_policy(BASIC_POLICY | {"period": "week", "roles": {"agent": carrying}}))
    last, _ = opening(week, "agent:A-1", "2026-11", None, request_context(1), "agent", "GBP")
    opened, closed = opening(
        week, "agent:A-1", "2026-W49", Budget.open(last, BEGIN), request_context(2), "agent", "GBP"
    )
    assert closed is not None  # the week began in November, and the month ended within it: nothing lies between
    assert (opened.carried_over.text, closed.lapsed.text) == ("50.00", "40.00")
    assert days_of("2026-W49")[0] < date(2026, 12, 1)


async def test_a_move_from_auckland_to_pago_pago_blocks_no_decision(session: Session) -> None:
    """The same calendar day comes again; its budget is used until the day has ended in Pago Pago, too."""

    def policy(zone: str, **changes: Any) -> Document:
        agent = BASIC_POLICY["roles"]["agent"] | {"budget": "20.00", "carry_over": "0"}
        return BASIC_POLICY | {"time_zone": zone, "period": "day", "roles": {"agent": agent}} | changes

    async with upstream_of(session, history=True) as upstream:
        asked: Document = {"published_by": "owner", "time": "2026-11-20T11:00:00Z"}
        await upstream.ask("policy", request_id="p-1", policy=policy("Pacific/Auckland"), **asked)
        await upstream.record(event("join", "employee.joined", employee_id="A-1", role="agent", team_ids=[]))
        first = await upstream.action("r-0", "5.00", time="2026-11-20T12:00:00Z")  # 01:00 on the 21st in Auckland
        assert (first["outcome"], first["budget"]["period"]) == ("taken", "2026-11-21")
        moved = policy("Pacific/Pago_Pago", effective_from="2026-11-20T12:00:00Z")
        await upstream.ask("policy", request_id="p-2", policy=moved, **asked)
        for hour in range(1, 80):
            moment = datetime(2026, 11, 20, 12, tzinfo=UTC) + timedelta(hours=hour)
            answer = await upstream.action(f"r-{hour}", "0.20", time=moment.isoformat())
            assert answer["outcome"] == "taken", answer
            ended = hour >= 47  # Pago Pago's 21st ended
            day = "2026-11-21" if not ended else "2026-11-22" if hour < 71 else "2026-11-23"
            assert (answer["budget"]["period"], answer["budget"]["granted"]) == (day, gbp("20.00"))


async def test_an_open_budget_is_used_to_its_end_eastwards_too(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        new_york = BASIC_POLICY | {"time_zone": "America/New_York", "period": "day"}
        asked: Document = {"published_by": "owner", "time": "2026-11-20T12:00:00Z"}
        await upstream.ask("policy", request_id="p-1", policy=new_york, **asked)
        await upstream.record(event("join", "employee.joined", employee_id="A-1", role="agent", team_ids=[]))
        await upstream.action("r-1", "5.00", time="2026-11-21T12:00:00Z")
        await upstream.ask("policy", request_id="p-2", policy=BASIC_POLICY | {"period": "day"}, **asked)
        late = await upstream.action("r-2", "5.00", time="2026-11-22T04:59:59Z")  # the 22nd in London, not in New York
        assert (late["budget"]["period"], late["budget"]["spent"]) == ("2026-11-21", gbp("10.00"))
        assert (await upstream.action("r-3", "5.00", time="2026-11-22T05:00:00Z"))["budget"]["period"] == "2026-11-22"


async def test_a_longer_period_waits_for_its_beginning_and_grants_no_day_twice(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        agent = BASIC_POLICY["roles"]["agent"] | {"carry_over": "0"}
        days = BASIC_POLICY | {"period": "day", "roles": {"agent": agent | {"budget": "20.00"}}}
        asked: Document = {"published_by": "owner", "time": "2026-11-20T12:00:00Z"}
        await upstream.ask("policy", request_id="p-1", policy=days, **asked)
        await upstream.record(event("join", "employee.joined", employee_id="A-1", role="agent", team_ids=[]))
        await upstream.action("r-1", "5.00", time="2026-11-20T12:00:00Z")
        months = BASIC_POLICY | {"roles": {"agent": agent | {"budget": "400.00"}}}
        await upstream.ask("policy", request_id="p-2", policy=months, **asked)
        seen = [
            (await upstream.action(f"d-{day}", "5.00", time=f"2026-{day}T12:00:00Z"))["budget"]
            for day in ("11-20", "11-21", "11-30", "12-01", "12-02")
        ]
        assert [(one["period"], one["granted"]["amount"]) for one in seen] == [
            ("2026-11-20", "20.00"),
            ("2026-11-21", "20.00"),
            ("2026-11-30", "20.00"),
            ("2026-12", "400.00"),
            ("2026-12", "400.00"),
        ]


async def test_a_simulation_uses_the_periods_of_the_ledger(session: Session) -> None:
    """A simulation of the policy in force differs nowhere, although zone and length changed while budgets were open."""
    agent = BASIC_POLICY["roles"]["agent"] | {"carry_over": "0", "per_interaction": None}
    months = {"time_zone": "Pacific/Pago_Pago", "roles": {"agent": agent | {"budget": "45.00"}}}
    async with upstream_of(session, history=True) as upstream:
        asked: Document = {"published_by": "owner", "time": "2026-11-19T00:00:00Z"}
        days = BASIC_POLICY | {
            "time_zone": "Pacific/Auckland",
            "period": "day",
            "roles": {"agent": agent | {"budget": "20.00"}},
        }
        await upstream.ask("policy", request_id="p-1", policy=days, **asked)
        await upstream.record(event("join", "employee.joined", employee_id="A-1", role="agent", team_ids=[]))
        await upstream.action("r-0", "5.00", time="2026-11-20T12:00:00Z")
        await upstream.ask("policy", request_id="p-2", policy=BASIC_POLICY | months, **asked)
        outcomes = [
            (await upstream.action(f"r-{hour}", "15.00", time=(BEGIN + timedelta(days=323, hours=hour)).isoformat()))
            for hour in range(13, 340, 6)
        ]
        assert {one["outcome"] for one in outcomes} == {"taken", "escalate"}
        assert len({one["budget"]["period"] for one in outcomes}) > 10
        published = await published_policies(session.log)
        trying = PolicySimulation(parse_policy(published[-1].policy), published, None, flags=False)
        batches = Follower(await session.connection("what-if"), session.log, "what-if").batches(
            until=await session.log.last_position()
        )
        found = await try_policy(session.log, batches, trying, lambda _: None)
    assert (found["decisions"], found["items"]) == (len(outcomes), [])
    assert all(period["spent"] == period["would_be_spent"] for period in found["spend"])


async def test_a_budget_opened_by_a_clock_ahead_does_not_block_the_present_period(session: Session) -> None:
    ahead = datetime.now(UTC) + timedelta(days=40)
    async with upstream_of(session, history=True) as upstream:
        await upstream.set_up_basics()
        before = await upstream.action("r-1", "5.00", time=datetime.now(UTC).isoformat())
        early = await upstream.action("r-2", "5.00", time=ahead.isoformat())
        assert early["budget"]["period"] > before["budget"]["period"]
    async with upstream_of(session) as upstream:  # the clock is right again, and rules
        after = await upstream.action("r-3", "5.00")
        assert (after["outcome"], after["budget"]["period"]) == ("taken", before["budget"]["period"])
        assert after["budget"]["granted"] == before["budget"]["granted"]
        assert after["budget"]["spent"] == gbp("10.00")  # what was spent before and since; no grant is made twice


def test_a_stored_policy_with_an_unknown_time_zone_is_read_as_utc() -> None:
    gone = BASIC_POLICY | {"time_zone": "Atlantis/Poseidonis", "period": "day"}
    policy = read_policy(gone)
    assert policy.period_at(datetime(2026, 11, 21, 23, 59, tzinfo=UTC)) == "2026-11-21"
    old, new = Rules(1, policy), rules(2, datetime(2026, 11, 21, tzinfo=UTC), "Europe/London", "day")
    holder = Holder(PolicyHistory([old, new]))
    assert [holder.asks(datetime(2026, 11, day, 12, tzinfo=UTC)).period for day in (20, 21)] == [
        "2026-11-20",
        "2026-11-21",
    ]
    with pytest.raises(PolicyError, match="IANA"):
        parse_policy(gone)
