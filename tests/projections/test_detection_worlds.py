"""The worlds of the detection benchmark: one seed gives one world, the truth stays apart, and a log gives the same flags."""

from datetime import UTC, datetime

import pytest

from app.demo.organisations.organisation import draw
from app.demo.organisations.schemes import plant_densely
from app.demo.organisations.traffic import HonestTraffic
from app.demo.organisations.world import World
from app.runtime.session import Session
from benchmarks.detection.measurement import SAMPLES, SeedError, make_world, opened_at, watch
from benchmarks.detection.summary import Share, far_of_all
from consumers.guard.flag_writer import FlagWriter
from domain.abuse.flag_book import FlagDraft
from domain.abuse.guard import Guard
from domain.abuse.history import GuardEvent
from domain.events.decisions import TYPE_OF
from domain.events.facts import FACTS
from domain.policy.model import CASES_PER_WEEK
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


def test_tuning_cannot_read_a_reporting_world_nor_a_report_a_tuning_world() -> None:
    seeds = [seed for sample in SAMPLES.values() for seed in sample.seeds]
    assert len(seeds) == len(set(seeds))
    for sample in SAMPLES.values():
        with pytest.raises(SeedError, match="a reporting world's"):
            make_world(sample.seeds[0], report=not sample.report)


def test_the_benchmark_opens_the_cases_that_the_product_opens() -> None:
    watched = watch(small_world().events()[0])
    assert watched.opened
    assert opened_at(watched.nights, CASES_PER_WEEK) == watched.opened
    assert opened_at(watched.nights, 0.0) == set()
    assert opened_at(watched.nights, 100.0) >= watched.opened


def test_a_small_group_with_one_person_named_is_no_proof_of_a_higher_rate() -> None:
    """One of 354 teams of eight has four people named; 17 have one, as chance alone would have."""
    named = [4] + [1] * 17 + [0] * 336
    shares = {f"team-{number:03}": Share(hits, 8) for number, hits in enumerate(named)}
    rests = {group: Share(sum(named) - mine.hits, 8 * 353) for group, mine in shares.items()}
    assert far_of_all(shares, rests) == ["team-000"]
