"""The service-quality report: paths of interactions, first-contact resolution, satisfaction and evenness."""

import json
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st

from app.runtime.session import Session
from app.runtime.views import read_view
from domain.analytics import service_quality
from domain.analytics.labels import Labels
from domain.analytics.satisfaction import FeedbackScore, satisfaction
from domain.analytics.service_quality import DAY, NOT_SAID, InteractionColumns
from ledger.store.cloudevents import parse_time
from projections.reading import AccessScope
from projections.reports.service_quality import interaction_story, quality_report
from projections.views.journeys import journeys as journeys_table
from tests.support.builders import event, reported_action
from tests.support.documents import Document
from tests.support.environment import ROOT, long_only
from tests.support.forked_cli import CommandLine
from tests.support.prepared_ledgers import PreparedLedger
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of

BPI = ROOT.parent / "shared" / "data" / "bpic2013_incidents.csv.gz"


def journeys(*some: Document) -> InteractionColumns:
    usual: Document = {
        "customer": 0,
        "channel": "phone",
        "team": "T",
        "reason": "late",
        "order": -1,
        "matter": 0,
        "opened": 0.0,
        "first_resolved": 10.0,
        "resolved": 10.0,
        "first_action": math.nan,
        "highest_line": 1.0,
        "moved_up": False,
        "transfers": 0,
        "came_back": False,
        "repeated_stories": math.nan,
        "reopened": 0,
    }
    columns = {name: [one.get(name, value) for one in some] for name, value in usual.items()}
    texts = {"channel", "team", "reason"}
    return InteractionColumns._make(
        Labels.of(column, NOT_SAID) if name in texts else np.array(column) for name, column in columns.items()
    )


def test_a_first_contact_is_known_when_its_window_is_over() -> None:
    found = service_quality.judged(
        journeys(
            {},
            {"opened": 3 * DAY, "first_resolved": 3 * DAY + 10},
            {"customer": 1},
            {"customer": 2, "opened": 20 * DAY, "first_resolved": 20 * DAY + 1},
            {"customer": -1},
            {"customer": 3, "first_resolved": math.nan},
            {"customer": 4, "transfers": 1},
            {"customer": 5, "reopened": 1},
        ),
        21 * DAY,
    )
    nan = math.nan
    np.testing.assert_array_equal(found.first_contact, [0, 1, 1, nan, nan, nan, 0, 0])
    np.testing.assert_array_equal(found.one_touch, [1, 1, 1, 1, 1, nan, 0, 0])
    np.testing.assert_array_equal(found.back, [1, 0, 0, nan, nan, nan, 0, 0])
    told = service_quality.line(found)
    assert (told["first_contact"]["k"], told["first_contact"]["n"], told["stories_repeated"]["share"]) == (2, 5, None)


@pytest.mark.parametrize(
    ("first", "later", "same"),
    [
        ({"order": 1}, {"order": 1, "matter": 5}, 1),
        ({"order": 1}, {"order": 2}, 0),
        ({"order": 1}, {}, 1),
        ({}, {"order": 1}, 1),
        ({}, {"matter": 5}, 0),
        ({"matter": -1}, {"matter": -1}, 0),
        ({}, {"opened": 7 * DAY + 10}, 1),
        ({}, {"opened": 7 * DAY + 11}, 0),
        ({}, {"opened": 0.0}, 0),
    ],
    ids=["order", "other order", "its reason", "their reason", "other reason", "no reason", "edge", "late", "at once"],
)
def test_a_later_contact_is_of_the_same_order_else_the_same_reason(first: Document, later: Document, same: int) -> None:
    found = service_quality.judged(journeys(first, {"opened": DAY, "first_resolved": math.nan} | later), 30 * DAY)
    assert found.same_matter[0] == same


def test_a_report_without_interactions_has_no_figures() -> None:
    found = service_quality.line(service_quality.judged(journeys(), 0.0))
    assert (found["interactions"], found["mean_transfers"], found["hours_to_resolution"]["median"]) == (0, None, None)


def test_evenness_is_pearsons_test_over_groups_of_thirty() -> None:
    """Two groups, 20 of 40 and 30 of 40: chi-squared with Yates's correction 4.3200, p = 0.03767."""
    some = journeys(
        *(
            {"customer": 40 * place + n, "channel": channel, "transfers": int(n >= good)}
            for place, (channel, good) in enumerate((("phone", 20), ("chat", 30)))
            for n in range(40)
        )
    )
    parts = service_quality.groups(service_quality.judged(some, 8 * DAY))["channel"]
    found = service_quality.evenness(parts, "channel", "first_contact")
    assert found is not None
    assert (found["lowest"][0], found["highest"][0]) == ("phone", "chat")
    assert found["p"] == pytest.approx(0.03767, abs=1e-5)
    assert service_quality.evenness(parts[:1], "channel", "first_contact") is None


def test_satisfaction_by_instrument() -> None:
    """CSAT is a share on its own scale, in either direction; NPS are points; no scale becomes another."""
    answers = [FeedbackScore("csat", score, 1, 5, f"I-{score}") for score in (3, 4, 5)]
    answers += [FeedbackScore("csat", score, 5, 1) for score in (1, 2, 3)] + [FeedbackScore("csat", 1, 0, 1)]
    answers += [FeedbackScore("nps", score, 0, 10) for score in (10, 9, 8, 6)] + [FeedbackScore("nps", 5, 1, 5)]
    two, usual, turned, points, other = satisfaction(answers, 30)
    assert [one["satisfied"] and one["satisfied"]["k"] for one in (two, usual, turned, points)] == [1, 2, 2, None]
    assert (two["threshold"], usual["threshold"], turned["threshold"]) == (1, 4, 2)
    assert (usual["mean"], usual["response"]["share"]) == (4, 0.1)
    assert usual["interval"] == pytest.approx([4 - 4.302653 / 3**0.5, 5])
    assert (points["points"], other["points"], other["mean"]) == (25, None, 5)


@pytest.mark.parametrize(("worst", "best"), [(1, 5), (5, 1)])
def test_the_interval_of_a_mean_stays_on_its_scale(worst: float, best: float) -> None:
    """Two answers say nearly nothing: Student's interval would reach from -9.7 to 15.7 on 1 to 5."""
    (found,) = satisfaction([FeedbackScore("ces", score, worst, best) for score in (2, 4)], 2)
    assert found["interval"] == [1, 5]


def test_the_interval_of_a_mean_includes_scores_beyond_the_scale() -> None:
    """A source may report 9 on a scale of 1 to 5; the interval holds the mean all the same."""
    (found,) = satisfaction([FeedbackScore("ces", score, 1, 5) for score in (8, 9)], 2)
    assert found["mean"] == 8.5
    assert found["interval"] == pytest.approx([8.5 - 12.7062047 / 2, 9])


@pytest.mark.parametrize(("score", "points", "end"), [(10, 100, 1), (0, -100, 0)])
def test_the_interval_of_points_stays_on_its_scale(score: float, points: float, end: int) -> None:
    """Ten promoters give 100 points with an interval up to 100, not to 106."""
    (found,) = satisfaction([FeedbackScore("nps", score, 0, 10)] * 10, 10)
    assert found["points"] == points
    assert found["points_interval"] is not None
    assert found["points_interval"][end] == points


async def way(upstream: Upstream) -> None:
    """Return an interaction that moves up and back, is resolved and reopened, and two answers to surveys."""
    opened: Document = {"interaction_id": "I", "customer_id": "C", "channel": "phone", "team_id": "A", "line": 1}
    at = iter(f"2026-01-05T10:{minute:02}:00Z" for minute in range(60))
    await upstream.record(event("o", "interaction.opened", time=next(at), **opened))
    for number, (team, line, again) in enumerate((("B", 2, True), ("A", 1, None), ("B", 2, False))):
        told: Document = {} if again is None else {"story_repeated": again}
        await upstream.record(
            event(
                f"t-{number}",
                "interaction.transferred",
                time=next(at),
                interaction_id="I",
                to_team_id=team,
                line=line,
                **told,
            )
        )
    await upstream.record(reported_action("a", "4.00", request_id="q", interaction_id="I"))
    for name, step in (("r", "resolved"), ("n", "reopened"), ("s", "resolved")):
        await upstream.record(event(name, f"interaction.{step}", time=next(at), interaction_id="I"))
    for name, score in (("f", 2), ("g", 5)):
        await upstream.record(
            event(
                name,
                "feedback.received",
                customer_id="C",
                interaction_id="I",
                instrument="csat",
                score=score,
                best=5,
                worst=1,
            )
        )
    await upstream.record(
        event(
            "c",
            "fact.corrected",
            source_of="crm",
            id_of="f",
            reason="typed wrongly",
            data={"customer_id": "C", "instrument": "csat", "score": 3, "best": 5, "worst": 1},
        )
    )


async def test_the_path_of_an_interaction_is_its_lines_and_teams(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        await way(upstream)
    found = await quality_report(partial(read_view, session))
    whole = found["overall"]
    assert (whole["interactions"], whole["mean_transfers"]) == (1, 3)
    told = {
        name: whole[name]["k"]
        for name in ("came_back_to_a_team", "moved_up", "reopened", "stories_repeated", "resolved")
    }
    assert told == {"came_back_to_a_team": 1, "moved_up": 1, "reopened": 1, "stories_repeated": 1, "resolved": 1}
    assert (whole["first_line_only"]["k"], whole["first_contact"]["k"], whole["hours_to_first_action"]["n"]) == (
        0,
        0,
        1,
    )
    (said,) = found["satisfaction"]
    assert (said["n"], said["mean"], said["threshold"]) == (2, 4.0, 4.0)


async def test_money_reserved_for_an_escalation_is_not_yet_an_action(session: Session) -> None:
    """The first action of an interaction is the approved one; a denied escalation leaves none."""
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream)
        for name, operation in (("I-1", "deny"), ("I-2", "approve")):
            await upstream.record(event(f"o-{name}", "interaction.opened", interaction_id=name, customer_id="C"))
            asked = await upstream.action(f"r-{name}", "90.00", agent_id="D-1", escalate=True, interaction_id=name)
            assert asked["outcome"] == "escalate"
            fields = {"escalation_id": asked["escalation_id"], "decided_by": "M-1"}
            answer = await upstream.ask("escalation", request_id=f"d-{name}", operation=operation, **fields)
            assert answer["outcome"] == "done"
    assert any(b'"resolution.action.held.v1"' in one.data for one in await session.log.read_subject("ledger.budget.>"))
    found = await quality_report(partial(read_view, session))
    assert found["overall"]["hours_to_first_action"]["n"] == 1


async def test_a_contact_with_another_team_counts_as_repeated(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        for name, team, day in (("I-1", "A", "2025-01-01"), ("I-2", "B", "2025-01-03"), ("I-3", "B", "2025-06-01")):
            told = {"interaction_id": name, "customer_id": "C", "channel": "phone", "team_id": team, "reason": "late"}
            await upstream.record(event(f"o-{name}", "interaction.opened", time=f"{day}T10:00:00Z", **told))
            done = {"interaction_id": name, "customer_id": "C"}
            await upstream.record(event(f"r-{name}", "interaction.resolved", time=f"{day}T11:00:00Z", **done))
    found = await quality_report(partial(read_view, session), scope=AccessScope(frozenset(), frozenset("A")))
    first = found["overall"]["first_contact"]
    assert (found["overall"]["interactions"], first["k"], first["n"]) == (1, 0, 1)


async def test_the_story_of_one_interaction(session: Session) -> None:
    async with upstream_of(session) as upstream:
        told: tuple[tuple[str, int, Document], ...] = (
            ("interaction.opened", 0, {"customer_id": "C-1", "channel": "phone", "reason": "late"}),
            ("interaction.transferred", 4, {"to_agent_id": "A-2", "story_repeated": True}),
            ("interaction.resolved", 30, {"agent_id": "A-2"}),
        )
        for number, (name, minute, fields) in enumerate(told):
            time = f"2026-01-05T11:{minute:02}:00Z"
            await upstream.record(event(f"s-{number}", name, time=time, interaction_id="I-9", **fields))
    read = partial(read_view, session)
    story = await interaction_story(read, "I-9")
    assert story is not None
    assert [(step["later_seconds"], step["what"]) for step in story["steps"]][:2] == [
        (0, "interaction opened: phone: late"),
        (240, "transferred to A-2: told again"),
    ]
    assert story["in_short"] == "3 steps in 0.5 h; passed on 1 times; told their story again 1 times; resolved."
    assert await interaction_story(read, "I-10") is None


@long_only
@pytest.mark.skipif(not BPI.exists(), reason="BPI 2013 is not at ../shared/data")
def test_bpi_2013_by_the_commands(command: CommandLine, prepared: Callable[..., PreparedLedger]) -> None:
    prepared("import", "bpic2013_incidents", str(BPI), "--json")
    whole = json.loads(command("report", "quality", "--json").stdout)["overall"]
    shares = {
        name: round(100 * whole[name]["share"], 2) for name in ("first_line_only", "moved_up", "came_back_to_a_team")
    }
    assert shares == {"first_line_only": 60.18, "moved_up": 30.43, "came_back_to_a_team": 16.65}
    assert round(100 * whole["reopened"]["share"], 1) == 6.8
    assert "never left the first line" in command("report", "quality").stdout


@pytest.mark.parametrize(
    ("opened", "resolved"),
    [
        ("2026-01-05T10:00:00+00:00", "2026-01-05T11:00:00-00:00"),
        ("2026-01-06T00:00:00+14:00", "2026-01-05T06:00:00.000-05:00"),
        ("2026-01-05t10:00:00z", "2026-01-05T11:00:00Z"),
        ("2026-01-04T22:30:00.000000001-11:30", "2026-01-05T16:30:00.123456789+05:30"),
    ],
)
async def test_an_instant_is_the_same_with_any_offset(session: Session, opened: str, resolved: str) -> None:
    async with upstream_of(session, "intake", "projections") as upstream:
        for name, first, last in (("I-0", "2026-01-05T10:00:00Z", "2026-01-05T11:00:00Z"), ("I-1", opened, resolved)):
            told = {"interaction_id": name, "agent_id": "A-1"}
            await upstream.record(event(f"o-{name}", "interaction.opened", time=first, channel="phone", **told))
            await upstream.record(event(f"r-{name}", "interaction.resolved", time=last, **told))
        assert await quality_report(partial(read_view, session))
        query = sa.select(journeys_table.c.opened, journeys_table.c.resolved)
        rows = (await read_view(session, "journeys", lambda connection: connection.execute(query).all())).result
        (one, other) = [[parse_time(text).replace(microsecond=0) for text in row] for row in rows]
        assert one == other
        assert all(text.endswith("Z") for row in rows for text in row)


_ANY = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(_ANY, min_size=1), _ANY, _ANY)
@example([1e308, 1e308, -1e308], 1, 5)
@example([1e155, 0.0], -1e308, 1e308)
def test_any_score_of_any_scale_has_finite_figures_within_the_scores(
    scores: list[float], worst: float, best: float
) -> None:
    (found,) = satisfaction([FeedbackScore("csat", score, worst, best) for score in scores], 2)
    assert min(scores) <= found["mean"] <= max(scores)
    assert found["threshold"] is not None
    assert all(math.isfinite(end) for end in (found["threshold"], *(found["interval"] or ())))
