"""The report on the empowerment gap: escalations, their outcomes and costs, and the recommended limit."""

import json
from functools import partial
from itertools import pairwise
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.session import Session
from app.runtime.views import read_view
from domain.analytics import empowerment_gap
from domain.analytics.empowerment_gap import AuthorityRequest, Shortfall
from domain.analytics.procedure_cost import long_way, procedure
from domain.money import Money
from domain.policy.parsing import parse_policy
from projections.policy_history import published_policies
from projections.reports.empowerment_gap import gap_report
from tests.support.builders import event, gbp
from tests.support.environment import ROOT
from tests.support.forked_cli import CommandLine
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of

BPI = ROOT.parent / "shared" / "data" / "bpic2020_request_for_payment.csv.gz"
COST = 1160
"""14 minutes at 24.00 and 8 minutes at 45.00 an hour."""


def asked(minor: int, *, yes: bool, waited: float = 600.0) -> AuthorityRequest:
    outcome = "approved" if yes else "denied"
    return AuthorityRequest(
        1,
        "refund",
        "late",
        "agent",
        "T",
        "GBP",
        minor,
        2,
        outcome,
        minor if yes else 0,
        waited,
        "M",
        ("per_action",),
        None,
        0.0,
    )


def test_a_share_has_wilsons_interval() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    found = empowerment_gap.share(81, 263)
    assert found["interval"] is not None
    assert [round(bound, 4) for bound in found["interval"]] == [0.2553, 0.3662]
    z, n, p = 1.959964, 263, 81 / 263
    middle, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n),
    )
    assert found["interval"] == pytest.approx([middle - half, middle + half], abs=1e-6)
    assert empowerment_gap.share(0, 0)["share"] is None


def test_the_recommended_limit_is_where_asking_stops_being_worth_it() -> None:
    """Below 60.00 nearly all are approved, above half: 11.60 is more than (1 - a) x only below."""
    low = [asked(1000 + 10 * n, yes=n % 50 != 0) for n in range(400)]
    high = [asked(6000 + 10 * n, yes=n % 2 == 0) for n in range(400)]
    found = empowerment_gap.recommended(low + high, COST, None)
    assert found["limit"] is not None
    assert 4700 < found["limit"] < 5000  # to a band of amounts
    assert empowerment_gap.recommended(low + high, COST, 1500)["limit"] == 3000  # a step is at most twice today's
    within = [one for one in low if one.minor <= found["limit"]]
    assert found["approved"] == empowerment_gap.share(sum(one.anyway for one in within), len(within))
    halved, doubled, *_ = (one["limit"] for one in found["cases"])
    assert halved is not None
    assert doubled is not None
    assert halved <= found["limit"] <= doubled
    never = empowerment_gap.recommended([asked(100_000, yes=n % 2 == 0) for n in range(100)], COST, None)
    assert never["limit"] is None
    assert empowerment_gap.recommended(low[:20], COST, None)["limit"] is None


def test_a_matter_is_blocked_once_seven_days_passed_without_an_escalation() -> None:
    told = [Shortfall("M", "refund", "late", 0.0), Shortfall("M", "refund", "late", 86_400.0)]

    def found(now_days: float, *at_days: float) -> bool | None:
        (one,) = empowerment_gap.matters(told, [("M", at * 86_400) for at in at_days], now_days * 86_400)
        return one.followed

    assert [found(7.9), found(8), found(8, 8), found(9, 8.1), found(9, -1)] == [None, False, True, False, False]
    assert found(7.9, 2) is None


@given(st.lists(st.tuples(st.integers(1, 10**6), st.booleans()), max_size=400))
def test_a_survival_curve_counts_each_case_once_and_never_rises(requests: list[tuple[int, bool]]) -> None:
    points = empowerment_gap.curve([asked(minor, yes=yes) for minor, yes in requests])
    assert sum(point["n"] for point in points) in (0, len(requests))
    smoothed = [point["smoothed"] for point in points]
    assert all(a >= b - 1e-9 for a, b in pairwise(smoothed))
    assert all(point["n"] >= empowerment_gap.A_BAND and point["lower"] <= point["smoothed"] + 1e-9 for point in points)
    assert sorted({point["up_to"] for point in points}) == [point["up_to"] for point in points]


async def stories(upstream: Upstream) -> None:
    """Asked and approved; asked for less; given up in silence; asked elsewhere, denied, then approved."""
    costs = {"agent_hour": "24.00", "manager_hour": "45.00", "customer_hour": "10.00"}
    await set_up_organisation(upstream, FULL_POLICY | {"costs": costs})
    for number in range(3):
        request = {
            "agent_id": "A-1",
            "kind": "refund",
            "amount": gbp("55.00"),
            "reason": "late",
            "interaction_id": f"I-{number}",
        }
        fell = await upstream.ask("action", request_id=f"f-{number}", **request)
        assert fell["outcome"] == "escalate"
        if number < 2:
            filed = await upstream.ask("escalation", operation="request", request_id=f"q-{number}", **request)
            assert filed["outcome"] == "done", filed
            await upstream.ask(
                "escalation",
                operation="approve",
                request_id=f"d-{number}",
                decided_by="M-1",
                escalation_id=filed["escalation_id"],
            )
    await upstream.record(event("r", "escalation.reported", escalation_id="E", amount=gbp("70.00"), kind="credit"))
    for verdict in ("denied", "approved", "denied"):
        await upstream.record(
            event(
                f"o-{verdict}-{upstream._requests}", "escalation.outcome_reported", escalation_id="E", verdict=verdict
            )
        )
        upstream._requests += 1
    await upstream.record(event("w", "escalation.reported", escalation_id="W", amount=gbp("70.00"), kind="credit"))
    await upstream.record(event("ob", "obstacle.reported", obstacle_id="O", employee_id="A-1", text="no vouchers"))


async def test_the_gap_reports_words_are_those_of_the_glossary(session: Session, command: CommandLine) -> None:
    async with upstream_of(session) as upstream:
        await stories(upstream)
        shown = " ".join(command("report", "gap").stdout.split())
    assert "of the matters beyond an agent's authority; no escalation followed within 7 days. 3 may still be" in shown
    assert "ilent gap" not in shown


async def test_the_gap_report_counts_escalations_of_the_ledger_and_of_other_systems(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await stories(upstream)
    found = await gap_report(partial(read_view, session), await published_policies(session.log))
    overall = found["overall"]
    assert (overall["asked"], overall["approved_anyway"]["k"], overall["approved_anyway"]["n"]) == (4, 3, 3)
    assert overall["waiting"]["undecided"] == 1
    kinds = {one["kind"]: one["asked"] for one in found["by_kind"]}
    assert kinds == {"refund": 2, "credit": 2}
    silent = found["silent_gap"]
    assert (silent["fell_short"], silent["pending"], silent["never_asked"]["n"]) == (3, 3, 0)
    (_, first) = found["cannot_do"]
    assert first["text"].startswith("Refund, late: 0 blocked, 2 escalated; 2 approved in full, ")
    assert first["text"].endswith(" hours waited")
    assert [one["employee_id"] for one in found["obstacles"]] == ["A-1"]
    assert found["procedure"] == []  # nobody gave anything by their own authority
    assert found["position"] == await session.log.last_position()


@pytest.mark.skipif(not BPI.exists(), reason="BPI 2020 is not at ../shared/data")
def test_bpi_2020_by_the_commands(command: CommandLine) -> None:
    assert command("import", "bpic2020_request_for_payment", str(BPI), "--json").returncode == 0
    done = command("report", "gap", "--agent-hour", "24.00", "--manager-hour", "45.00", "--json")
    found = json.loads(done.stdout)
    overall = found["overall"]
    assert (overall["asked"], overall["approved_anyway"]["k"]) == (6688, 6238)
    assert round(overall["of_all_asked"]["share"], 4) == 0.9327
    assert round(overall["waiting"]["median_hours_to_approval"], 1) == 48.6
    (limit,) = found["recommended_limits"]
    assert 100 < float(limit["limit"]["amount"]) < 2000
    assert limit["cost_of_asking"] == {"amount": "11.60", "currency": "EUR"}
    shown = command("report", "gap", "--agent-hour", "24.00", "--manager-hour", "45.00").stdout
    assert "Recommended limit" in shown
    wrong = command("report", "gap", "--agent-hour", "x")
    assert (wrong.returncode, "--agent-hour" in wrong.stderr) == (2, True)


def test_an_escalation_costs_the_minutes_of_two_people_and_the_return_of_goods() -> None:
    """14 minutes at 24.00 and 8 at 45.00 an hour are 11.60; goods that come back 5.00 more."""
    document = FULL_POLICY | {"costs": {"agent_hour": "24.00", "manager_hour": "45.00", "return_processing": "5.00"}}
    policy = parse_policy(document)
    kept, refunds = procedure([("keep_item", "GBP", 900), ("refund", "GBP", 500), ("keep_item", "GBP", 2000)], policy)
    assert (kept["kind"], kept["n"], kept["given"]) == ("keep_item", 2, gbp("29.00"))
    assert (kept["long_way_each"], kept["long_way"], kept["cheaper_than_asking"]) == (gbp("16.60"), gbp("33.20"), 1)
    assert refunds["long_way_each"] == gbp("11.60")
    slower = parse_policy(document | {"asking": {"agent_minutes": 20, "approver_minutes": 12}})
    assert long_way("refund", slower) == Money.parse("17.00", "GBP")
    half = parse_policy(document | {"asking": {"agent_minutes": 5}})
    assert long_way("refund", half) == Money.parse("8.00", "GBP")
    assert long_way("refund", parse_policy(FULL_POLICY)) is None
    (other,) = procedure([("refund", "EUR", 500)], policy)
    assert other["long_way"] is None
