"""Ideas and obstacles that were recorded between two positions, against the events."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from projections.views.people import VoicePage, read_ideas, read_obstacles
from tests.support.report_histories import RandomHistory
from tests.support.report_oracle import HistoryLedger

LEDGER = HistoryLedger(RandomHistory(6, 4.0).events())
SAID = [one["position"] for one in LEDGER.events if one["type"].endswith((".reported.v1", ".submitted.v1"))]
EDGES = st.sampled_from([edge for position in SAID for edge in (position, position + 1)])
LISTS = {"obstacle": (read_obstacles, "obstacle.reported"), "idea": (read_ideas, "idea.submitted")}


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(LISTS)), EDGES, EDGES, st.none() | EDGES)
def test_a_range_of_positions_has_what_was_recorded_in_it(what: str, first: int, behind: int, at: int | None) -> None:
    """It is the first event of an obstacle or idea that counts, however late it is answered."""
    read, name = LISTS[what]
    page = VoicePage(1000, first=first, behind=behind, at=at)
    found = asyncio.run(LEDGER.read("people", lambda connection: read(connection, page, None, answered=None))).result
    recorded: dict[str, int] = {}
    for one in LEDGER.events[:at]:
        if one["type"] == f"resolution.{name}.v1":
            recorded.setdefault(one["data"][f"{what}_id"], one["position"])
    expected = {voice for voice, position in recorded.items() if first <= position < behind}
    assert {row[f"{what}_id"] for row in found} == expected
    assert len(found) == len(expected)


def test_the_history_has_answers_that_come_later() -> None:
    types = [one["type"] for one in LEDGER.events]
    assert types.count("resolution.obstacle.answered.v1") > 5
