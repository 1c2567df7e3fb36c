"""The worlds of the detection benchmark: one seed gives one world, the truth stays apart, and a log gives the same flags."""

from datetime import UTC, datetime

import pytest

from app.demo.organisations.organisation import draw
from app.demo.organisations.schemes import plant_densely
from app.demo.organisations.traffic import HonestTraffic
from app.demo.organisations.world import World
from app.runtime.session import Session
from benchmarks.detection.measurement import DENSE, DENSE_TUNING, REPORTING, TUNING, SeedError, joined, make_world
from consumers.guard.flag_writer import FlagWriter
from domain.abuse.flag_book import FlagDraft
from domain.abuse.guard import Guard
from domain.abuse.history import GuardEvent
from domain.events.decisions import TYPE_OF
from domain.events.facts import FACTS
from domain.serialization import encode
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft

TYPES = TYPE_OF | {cls: name for name, cls in FACTS.items()}


def small_world() -> World:
    world = World(draw(3, 30, 62))
    HonestTraffic(world).add()
    plant_densely(world, 1)
    return world


def core(raised: list[FlagDraft]) -> list[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    return [(one.finding.rule, one.finding.about, one.finding.evidence) for one in raised]


async def test_a_world_in_the_log_raises_the_same_flags_as_in_memory(session: Session) -> None:
    begin = await session.log.last_position()
    ordered = sorted(small_world().events()[0], key=lambda event: (event.at, event.position))
    events = [
        GuardEvent(begin + place, one.at, one.at, one.body, one.action_id) for place, one in enumerate(ordered, 1)
    ]
    drafts = [
        Draft(
            "ledger.test",
            encode_event(
                "world",
                f"w-{one.position}",
                TYPES[type(one.body)],
                datetime.fromtimestamp(one.at, UTC),
                encode(one.body),
            ),
        )
        for one in events
    ]
    for start in range(0, len(drafts), 900):
        await session.log.append(drafts[start : start + 900])
    stored = [one async for batch in session.log.subject_batches("ledger.test") for one in batch]
    assert [one.position for one in stored] == [one.position for one in events]
    guard = Guard()
    expected = [raised for event in events for raised in guard.take(event)]
    assert len(expected) > 10
    assert core(FlagWriter(event_times=True).take(stored)) == core(expected)


def test_one_seed_gives_one_world() -> None:
    one, other = small_world(), small_world()
    assert one.events() == other.events()
    assert one.truth == other.truth


def test_a_planted_event_differs_from_honest_ones_in_nothing_but_what_was_done() -> None:
    """The guard cannot tell planted events by a type, or by the form of an id, that honest days do not have."""
    world = small_world()
    events, positions = world.events()
    planted = {positions[number] for misuse in world.truth for number in misuse.numbers}
    honest = {type(event.body) for event in events if event.position not in planted}
    assert {type(event.body) for event in events if event.position in planted} <= honest
    assert 0 < len(planted) < len(events) / 5


def test_tuning_cannot_read_a_reporting_world() -> None:
    assert not {*TUNING, *DENSE_TUNING} & {*REPORTING, *DENSE}
    for seed in (REPORTING[0], DENSE[0], 77):
        with pytest.raises(SeedError, match="is not a tuning world's"):
            make_world(seed)


def test_flags_about_one_person_are_one_case() -> None:
    guard = Guard()
    raised = [flag for event in small_world().events()[0] for flag in guard.take(event)]
    cases = joined(raised)
    assert sum(len(case.flags) for case in cases) == len(raised)
    agents = [
        name
        for case in cases
        for name in {flag.finding.about[0] for flag in case.flags if len(flag.finding.about) == 1}
    ]
    assert len(agents) == len(set(agents))
