"""The loyalty report: evidence levels in simulated worlds of known truth, from policies, and on Online Retail."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.views import read_view
from benchmarks.coverage import coverage
from domain.analytics.loyalty import estimators
from domain.analytics.loyalty.estimators import LimitRaise
from domain.analytics.loyalty.experiments import raises, randomised
from domain.analytics.loyalty.purchases import DAY, NEVER_DAYS, History, Moments, first_of_each
from domain.events.decisions import PolicyPublished
from projections.policy_history import published_policies
from projections.reading import AccessScope
from projections.reports.loyalty import loyalty_report
from tests.support.builders import event, gbp, reported_action
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.organisations import FULL_POLICY
from tests.support.prepared_ledgers import PreparedLedger
from tests.support.upstreams import Upstream, set_up_organisation

RETAIL = Path(__file__).resolve().parents[3] / "shared" / "data" / "online_retail.csv.gz"
events = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 400), st.integers(-50, 500)), max_size=40)


@given(events, st.integers(0, 3), st.integers(1, 400), st.integers(-100, 0), st.integers(0, 100))
def test_window_counts_equal_counting_by_hand(told: Any, customer: int, at: int, start: int, end: int) -> None:
    columns = [np.array([one[place] for one in told], np.int64) for place in range(3)]
    history = History(*columns)
    of = Moments(np.array([customer]), np.array([at]))
    mine = [(when, minor) for who, when, minor in told if who == customer]
    inside = [minor for when, minor in mine if at + start < when <= at + end]
    assert (history.count(of, start, end)[0], history.total(of, start, end)[0]) == (len(inside), sum(inside))
    earlier = [(when, minor) for when, minor in mine if when < at]
    assert history.before(of)[0] == len(earlier)
    past = history.past(of, 1)
    since_last, since_first = ((at - edge(earlier)[0]) / DAY if earlier else None for edge in (max, min))
    assert past.events[0] == len(earlier)
    assert past.amount[0] == sum(minor for _, minor in earlier)
    assert past.days_since_last[0] == pytest.approx(NEVER_DAYS if since_last is None else since_last)
    assert past.days_since_first[0] == pytest.approx(since_first or 0.0)
    first = first_of_each(Moments(columns[0], columns[1]))
    assert sorted(columns[0][first].tolist()) == sorted({one[0] for one in told})


@pytest.mark.long
def test_intervals_hold_the_truth_and_lower_rungs_warn() -> None:
    """A few seeds of the measurement that `python -m benchmarks.coverage` makes over 200."""
    found = {(line["world"], line["rung"]): line for line in coverage(12, workers=1)}
    for world, rung in (
        ("at random", "2 matched"),
        ("trial", "4 trial"),
        ("staggered", "4 staggered"),
        ("step", "3 step"),
        ("at random", "3 difference in differences"),
    ):
        assert found[world, rung]["held_interval"][1] >= 0.95, (world, rung)
    assert found["trial", "4 trial"]["says_something"] > 0.7
    assert found["trial, no effect", "4 trial"]["says_something"] < 0.3
    assert found["selection, no effect", "2 matched"]["refused_or_warned"] == 1
    assert found["regression, no effect", "1 before and after"]["refused_or_warned"] == 1
    assert found["regression, no effect", "3 difference in differences"]["refused_or_warned"] == 1
    assert found["bunched", "3 step"]["refused_or_warned"] > found["step", "3 step"]["refused_or_warned"]


def test_only_level_four_is_called_an_effect() -> None:
    few = estimators.trial(np.array([0, 1]), np.array([1.0, 0.0]), np.array([True, False]))
    assert (few.value, few.called) == (None, "not an effect")
    team = np.repeat(np.arange(8), 50)
    came = np.random.default_rng(1).random(400)
    found = estimators.trial(team, came, np.arange(8) < 4)
    assert (found.rung, found.called) == (4, "effect")
    late = LimitRaise(1000, np.array([0]), np.array([1, 2, 3]))
    assert estimators.staggered(team, np.full(400, 1000), came, [late], 90).value is None
    assert "fewer than" in estimators.discontinuity(np.array([0.9, 1.1]), np.array([1.0, 0.0])).caveats[0]


def published(version: int, policy: Document, trial_teams: tuple[str, ...] = ()) -> PolicyPublished:
    return PolicyPublished(
        source="s",
        request_id=f"{version}",
        seen_position=0,
        policy=policy,
        version=version,
        published_by="owner",
        sha256="",
        trial_teams=trial_teams,
    )


def test_trials_and_limits_raised_in_some_teams_first_are_read_from_the_policies() -> None:
    def policy(day: int, **changes: Any) -> Document:
        return FULL_POLICY | {"effective_from": f"2026-01-{day:02}T00:00:00Z"} | changes

    def teams(**limits: str) -> Document:
        return {name: {"limits": {"agent": {"refund": limit}}} for name, limit in limits.items()}

    trial = {
        "limit": {"role": "agent", "kind": "refund", "amount": "80.00"},
        "share_of_teams": 0.5,
        "seed": 7,
        "until": "2026-03-01T00:00:00Z",
    }
    told = [
        published(1, policy(1, teams=teams(A="50.00"))),
        published(2, policy(5, teams=teams(A="50.00", B="70.00"))),
        published(3, policy(9, teams=teams(A="70.00", B="70.00"), trial=trial), ("A",)),
        published(4, policy(10, teams=teams(A="70.00", B="70.00"), trial=trial), ("A",)),
        published(5, policy(12, teams=teams(A="20.00", B="70.00"), mode="shadow")),
    ]
    assert [(one.version, one.kind, one.teams) for one in raises(told)] == [
        (2, "refund", frozenset("B")),
        (3, "refund", frozenset("A")),
    ]
    (found,) = randomised(told)
    assert (found.version, found.teams) == (3, frozenset("A"))
    assert datetime.fromtimestamp(found.begins, UTC).day == 9


async def test_the_report_has_each_rung_groups_and_sides(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await upstream.record(
        event(
            "b-1",
            "purchase.completed",
            time="2026-01-01T00:00:00Z",
            order_id="o-1",
            customer_id="C-1",
            total=gbp("20.00"),
            margin=gbp("8.00"),
        )
    )
    assert (await upstream.action("r-1", "10.00", customer_id="C-1"))["outcome"] == "taken"
    await upstream.action("r-2", "70.00", customer_id="C-2")
    found = await loyalty_report(partial(read_view, upstream.session), await published_policies(upstream.session.log))
    (one,) = found["currencies"]
    assert "why" not in one
    assert (one["treated"], [rung["days"] for rung in one["ladder"]]) == (1, [30, 90, 180])
    lines = [*one["ladder"][0]["spending"], *one["ladder"][0]["coming_back"]]
    assert [line["rung"] for line in lines] == [1, 3, 2, 2, 3, 4, 4]
    assert all(line["value"] is None and line["caveats"] for line in lines)
    assert one["groups"]["kind"][0]["kind"] == "refund"
    assert one["payback"]["why"] == "fewer than 20 pairs with 180 complete days"
    empty = await loyalty_report(partial(read_view, upstream.session), (), 3)
    assert empty["currencies"] == []


async def test_of_very_many_customers_some_are_drawn(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    await set_up_organisation(upstream)
    for number in range(40):
        await upstream.record(
            event(
                f"b-{number}",
                "purchase.completed",
                time="2026-01-01T00:00:00Z",
                order_id=f"o-{number}",
                customer_id=f"C-{number}",
                total=gbp("20.00"),
            )
        )
        await upstream.record(
            reported_action(f"a-{number}", "1.00", request_id=f"q-{number}", customer_id=f"C-{number}")
        )
    read = partial(read_view, upstream.session)
    assert (await loyalty_report(read, ()))["drawn_customers"] is None
    monkeypatch.setattr("projections.reports.loyalty.HELPED_AT_MOST", 10)
    monkeypatch.setattr("projections.reports.loyalty._ASKED_AT_ONCE", 4)
    found = await loyalty_report(read, ())
    (one,) = found["currencies"]
    assert "why" not in one
    assert found["drawn_customers"] is not None
    assert (one["treated"], one["purchases"]) == (40, 40)  # of all
    assert 0 < found["drawn_customers"] < 20
    assert one["groups"]["kind"][0]["treated"] == found["drawn_customers"]
    again = await loyalty_report(read, ())
    assert found | {"position": again["position"]} == again  # what was reported may still be being charged


async def test_customers_helped_by_others_are_no_controls(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    for number in range(60):
        who = f"C-{number}"
        for day in ("2025-01-01", "2025-09-01"):
            await upstream.record(
                event(
                    f"b-{day}-{number}",
                    "purchase.completed",
                    time=f"{day}T00:00:00Z",
                    order_id=f"o-{day}-{number}",
                    customer_id=who,
                    total=gbp("20.00"),
                )
            )
        if number < 50:
            await upstream.record(
                reported_action(
                    f"a-{number}",
                    "1.00",
                    time="2025-02-01T00:00:00Z",
                    customer_id=who,
                    request_id=f"q-{number}",
                    agent_id=f"A-{1 + number % 2}",
                )
            )
    read = partial(read_view, upstream.session)

    async def of(people: frozenset[str] | None) -> tuple[int, bool, list[int]]:
        (one,) = (await loyalty_report(read, (), scope=AccessScope(people, frozenset())))["currencies"]
        lines = one["ladder"][0]["coming_back"] if one["ladder"] else []
        return one["treated"], one["told_by_sales"], [line["n"] for line in lines if line["method"] == "matched"]

    await upstream.record(
        event(
            "back",
            "purchase.returned",
            time="2025-03-01T00:00:00Z",
            order_id="o-2025-01-01-59",
            customer_id="C-59",
            total=gbp("20.00"),
        )
    )
    assert await of(None) == (50, False, [10])  # ten whom nobody helped: ten pairs
    assert await of(frozenset({"A-1"})) == (25, False, [10])
    assert await of(frozenset()) == (0, False, [])


@pytest.mark.skipif(not RETAIL.exists(), reason="Online Retail is not at ../shared/data")
def test_online_retail(command: CommandLine, prepared: Callable[..., PreparedLedger]) -> None:
    prepared("import", "online_retail", str(RETAIL), "--json")
    (one,) = json.loads(command("report", "loyalty", "--json").stdout)["currencies"]
    main = one["ladder"][1]
    before_after, difference = main["spending"]
    assert (before_after["n"], before_after["value"]) == (668, {"amount": "-142.54", "currency": "GBP"})
    assert difference["value"] is None  # they did not run in parallel before
    matched, censored = main["coming_back"][:2]
    assert 0.08 <= matched["value"] <= 0.13
    assert matched["value"] < censored["value"]  # to look into the future invents some
    assert {line["called"] for line in (before_after, matched, censored)} == {"not an effect"}
    text = " ".join(command("report", "loyalty").stdout.split())
    assert "-142.54 GBP" in text
    assert "not an effect" in text
