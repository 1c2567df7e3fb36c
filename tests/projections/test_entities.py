"""Views are functions of a set: the order in which facts are recorded changes no row."""

import itertools
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.engine.entities import KeptFact, ordered
from projections.engine.temporal_tables import as_of
from projections.reports.service_quality import quality_report
from projections.views import journeys
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.view_histories import Views, recorded

LATE_STORY = ROOT.parent / "shared" / "cases" / "import" / "late_story.jsonl"
PLACES = ("position", "since", "last_fact")
"""Columns that name positions in the log, which are those of an order."""
MONDAY = datetime(2026, 1, 5, 10, tzinfo=UTC)
EXAMPLES = int(os.environ.get("VIEW_EXAMPLES", settings().max_examples // 4))
KINDS = ("opened", "transferred", "resolved", "reopened")


def kept(
    position: int, minute: int = 0, kind: int = 1, sequence: int | None = None, source: str = "crm", name: str = ""
) -> KeptFact:
    time = f"2026-01-05T10:{minute:02}:00.000000Z"
    return KeptFact(min(kind, 1), time, kind, source, name or f"e-{position}", position, sequence, ())


def test_facts_are_ordered_by_time_sequence_life_cycle_source_and_id() -> None:
    wanted = [
        kept(9, minute=5, kind=0),
        kept(8, minute=1),
        kept(7, minute=2, kind=3, sequence=10),
        kept(6, minute=2, kind=2, sequence=11),
        kept(5, minute=3, kind=1, source="b"),
        kept(4, minute=3, kind=2, source="a"),
        kept(3, minute=3, kind=2, source="b", name="e-1"),
        kept(2, minute=3, kind=2, source="b", name="e-2"),
    ]
    for some in itertools.islice(itertools.permutations(wanted), 0, 40_000, 97):
        assert ordered(some) == wanted


several = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 3),
        st.none() | st.integers(0, 3),
        st.sampled_from("ab"),
        st.sampled_from("xy"),
    ),
    max_size=8,
)


@given(several, st.randoms(use_true_random=False))
def test_the_order_depends_on_the_set_and_keeps_each_sources_own(
    some: list[tuple[int, int, int | None, str, str]], random: Random
) -> None:
    told = [kept(position, *one) for position, one in enumerate(some)]
    shuffled = list(told)
    random.shuffle(shuffled)
    found = ordered(told)
    assert ordered(shuffled) == found
    assert sorted(found) == sorted(told)
    for first, second in itertools.combinations(found, 2):
        assert (first.later, first.time) <= (second.later, second.time)
        same = (first.later, first.time, first.source) == (second.later, second.time, second.source)
        if same and first.sequence is not None and second.sequence is not None:
            assert first.sequence <= second.sequence


def interactions(steps: Sequence[tuple[int, str, int, int | None, str | None]]) -> list[Document]:
    """Return facts about two interactions, each as (interaction, what, minute, sequence, a team or channel)."""
    found = []
    for number, (which, what, minute, sequence, text) in enumerate(steps):
        data: Document = {"interaction_id": f"I-{which}"}
        if what == "opened":
            data |= {"channel": text, "customer_id": "C-1" if minute % 2 else None, "team_id": text, "line": 1}
        elif what == "transferred":
            data |= {"to_team_id": text, "line": 1 + minute % 3, "waited_seconds": minute / 3}
        zone = timedelta(hours=(number * 5) % 27 - 13)
        moment = (MONDAY + timedelta(minutes=minute) + zone).replace(tzinfo=None).isoformat()
        sign, hours = "-" if zone < timedelta(0) else "+", abs(zone) // timedelta(hours=1)
        fact = event(f"e-{number}", f"interaction.{what}", "crm" if number % 3 else "desk", **data)
        fact["time"] = f"{moment}{sign}{hours:02}:00"
        found.append(fact if sequence is None else fact | {"sequence": str(sequence)})
    return found


steps = st.lists(
    st.tuples(
        st.integers(1, 2),
        st.sampled_from(KINDS),
        st.integers(0, 4),
        st.none() | st.integers(0, 4),
        st.sampled_from([None, "A", "B", ""]),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=EXAMPLES)
@given(steps, st.data())
def test_any_order_of_facts_gives_the_same_interactions(
    some: list[tuple[int, str, int, int | None, str | None]], data: st.DataObject
) -> None:
    told = interactions(some)
    other = data.draw(st.permutations(told))
    batch = data.draw(st.integers(1, 4))
    with TemporaryDirectory() as folder:
        one = Views(Path(folder) / "one", ["journeys"]).take(recorded(told))
        two = Views(Path(folder) / "two", ["journeys"]).take(recorded(other), batch)
        assert one.rows("journeys", PLACES) == two.rows("journeys", PLACES)
        for views in (one, two):
            views.close()


async def shown(views: Views, at: int | None) -> list[Document]:
    source = as_of(journeys.journeys, at)
    return sorted(
        (await views.read("journeys", lambda c: [dict(row) for row in c.execute(source.select()).mappings()])).result,
        key=lambda row: str(row["interaction_id"]),
    )


ODD_IDS = ("a\0b", "a", "true", "null", "1", "\"'\\", "é\u2028", "x" * 300)


@pytest.mark.parametrize("key", ODD_IDS)
def test_rows_read_together_are_those_read_alone(tmp_path: Path, key: str) -> None:
    def told(number: int, name: str, interaction: str, **more: str) -> Document:
        return event(
            f"{number}-{interaction}", name, "crm", f"2026-01-04T20:00:0{number}Z", interaction_id=interaction, **more
        )

    names = (key, "p", "q", "r")
    opened = [told(0, "interaction.opened", one, customer_id="C-1", reason="late") for one in names]
    history = recorded(opened + [told(1, "interaction.resolved", one) for one in names])
    together = Views(tmp_path / "together", ["casework", "journeys"]).take(history[:4], 4)
    for projector in together._projectors.values():
        projector.model.forget()
    together.take(history[4:], 4)
    alone = Views(tmp_path / "alone", ["casework", "journeys"]).take(history, 1)
    for name in ("casework", "journeys"):
        assert together.rows(name) == alone.rows(name)
    together.close()
    alone.close()


@pytest.mark.parametrize("batch", [1, 3, 100])
async def test_a_late_fact_changes_a_row_from_its_own_position_on(tmp_path: Path, batch: int) -> None:
    told = interactions([(1, KINDS[n % 4], (7 * n) % 11, None, "AB"[n % 2]) for n in range(20)])
    messages = recorded(told)
    whole = Views(tmp_path / "whole", ["journeys"]).take(messages, batch)
    for end in range(1, len(messages) + 1):
        part = Views(tmp_path / f"part-{end}", ["journeys"]).take(messages[:end])
        assert await shown(whole, end) == await shown(part, None), end
        part.close()
    whole.close()


async def test_a_long_story_is_folded_again_once_a_commit(tmp_path: Path) -> None:
    """Three hundred transfers in reversed order, and a correction among them."""
    told = interactions([(1, "transferred", 299 - n, None, f"T-{(299 - n) % 7}") for n in range(300)])
    other = Views(tmp_path / "other", ["journeys"]).take(recorded(told), 50)
    one = Views(tmp_path / "one", ["journeys"]).take(recorded(told[::-1]), 50)
    assert one.rows("journeys", PLACES) == other.rows("journeys", PLACES)
    assert (await shown(other, None))[0]["transfers"] == len(told)


async def test_a_correction_replaces_its_fact_in_the_order(tmp_path: Path) -> None:
    told = interactions(
        [(1, "opened", 0, None, "A"), (1, "transferred", 1, None, "B"), (1, "transferred", 2, None, "A")]
    )
    right = {"interaction_id": "I-1", "to_team_id": "C"}
    corrected = event("c", "fact.corrected", source_of="crm", id_of="e-1", reason="typed wrongly", data=right)
    moved = event(
        "d", "fact.corrected", source_of="crm", id_of="e-2", reason="another", data=right | {"interaction_id": "I-2"}
    )
    never = event("f", "fact.corrected", source_of="crm", id_of="e-1", reason="none", data=None)
    views = Views(tmp_path, ["journeys"]).take(recorded([*told, corrected, moved, never]), 2)
    found = {
        at: [(row["transfers"], row["team"], row["came_back"]) for row in await shown(views, at)] for at in range(3, 7)
    }
    assert found == {
        3: [(2, "A", True)],
        4: [(2, "A", True)],
        5: [(1, "C", False), (1, "C", False)],
        6: [(0, "A", False), (1, "C", False)],
    }


async def test_half_a_story_is_counted_as_incomplete(tmp_path: Path) -> None:
    told = interactions([(1, "transferred", 1, None, "B"), (2, "resolved", 3, None, None), (2, "opened", 1, None, "A")])
    views = Views(tmp_path, ["journeys", "casework"]).take(recorded(told[:2]))
    found = await quality_report(views.read)
    assert (found["overall"]["interactions"], found["incomplete"]) == (0, 2)
    views.take(recorded(told)[2:])
    found = await quality_report(views.read)
    assert (found["overall"]["interactions"], found["overall"]["resolved"]["k"], found["incomplete"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("one", "other", "first"),
    [
        ("2026-01-05T10:00:00Z", "2026-01-05T10:00:00.5Z", "A"),
        ("2026-01-05T10:00:00.500001Z", "2026-01-05T10:00:00.5Z", "B"),
        ("2026-01-05T23:59:59.9+14:00", "2026-01-05T10:00:00Z", "A"),
        ("2026-01-05t10:00:01z", "2026-01-05T10:00:00.999-00:00", "B"),
    ],
)
def test_times_are_compared_as_instants(tmp_path: Path, one: str, other: str, first: str) -> None:
    told = [
        event(f"e-{team}", "interaction.opened", time=time, interaction_id="I-1", team_id=team, channel=team)
        for team, time in (("A", one), ("B", other))
    ]
    for number, order in enumerate((told, told[::-1])):
        views = Views(tmp_path / str(number), ["journeys"]).take(recorded(order))
        (row,) = views.rows("journeys")["journeys"]
        assert (row["first_team"], row["channel"]) == (first, first)


@pytest.mark.skipif(not LATE_STORY.exists(), reason="the cases are not at ../shared/cases")
def test_the_late_story_is_one_interaction_in_any_order(tmp_path: Path) -> None:
    """All 720 orders of its six lines, each order with ids of its own."""
    lines = LATE_STORY.read_text().splitlines()
    told = [
        json.loads(line.replace("-1", f"-1-{number}"))
        for number, order in enumerate(itertools.permutations(lines))
        for line in order
    ]
    views = Views(tmp_path, ["journeys", "casework", "authority"]).take(recorded(told), 7)
    found = views.rows("journeys", PLACES)["journeys"]
    assert len(found) == 720
    cases = views.rows("casework", PLACES)["interactions"]
    assert {(row["transfers"], row["channel"], str(row["customer_id"])[:3], row["status"]) for row in cases} == {
        (1, "phone", "C-1", "resolved")
    }
    asked = views.rows("authority", PLACES)["asked"]
    assert {(row["outcome"], row["waited_seconds"], row["approved_minor"]) for row in asked} == {
        ("approved", 3 * 3600.0, 3000)
    }
    listed = views.rows("casework", PLACES)["escalations"]
    assert {(row["status"], row["requested"], row["waited_seconds"]) for row in listed} == {
        ("approved", "2026-06-02T09:00:00.000000Z", 3 * 3600.0)
    }
    assert (len(cases), len(asked), len(listed)) == (720, 720, 720)
    for row in found:
        assert (row["transfers"], row["opened"], row["channel"], row["resolved"]) == (
            1,
            "2026-06-02T10:00:00.000000Z",
            "phone",
            "2026-06-02T11:00:00.000000Z",
        )
