"""The measurement of one world: the cases that the guard opens at several capacities, beside the ground truth."""

from __future__ import annotations

import gc
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from app.demo.organisations.organisation import Organisation, draw
from app.demo.organisations.schemes import plant, plant_densely, plant_variants
from app.demo.organisations.traffic import HonestTraffic
from app.demo.organisations.world import World
from domain.abuse.cases import FLOOR, Capacity, CaseDraft, RankedCase
from domain.abuse.fairness import tenure_of
from domain.abuse.findings import RuleFinding
from domain.abuse.guard import Guard, next_night
from domain.abuse.history import DAY, people_at_work
from domain.events import decisions, facts
from domain.policy.model import CASES_PER_WEEK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.demo.organisations.organisation import Person
    from app.demo.organisations.world import Misuse
    from domain.abuse.history import GuardEvent

CAPACITIES = (0.25, 0.5, 1.0, CASES_PER_WEEK, 4.0, inf)
"""The capacities measured, in cases a week for 100 people; the last one opens all cases above the floor."""
DEFAULT = CAPACITIES.index(CASES_PER_WEEK)
DENSE_TIMES = 10.0
"""Dense worlds have ten times the misuse of others, and so ten times the capacity."""
_EACH = 4


class Kind(StrEnum):
    """A sort of world: as in life, with many moderate cases of each rule, or with all strengths and evasions."""

    ORDINARY = "ordinary"
    DENSE = "dense"
    VARIANTS = "variants"


class Sample(NamedTuple):
    """A range of seeds and the sizes of their worlds; nothing is tuned on the worlds of a report."""

    seeds: range
    sizes: tuple[int, ...]
    days: int
    kind: Kind
    report: bool


SAMPLES = {
    "tuning": Sample(range(1, 11), (50, 60, 80, 100, 120, 150, 150, 200, 250, 300), 90, Kind.ORDINARY, report=False),
    "dense tuning": Sample(range(101, 104), (300,), 70, Kind.DENSE, report=False),
    "variants tuning": Sample(range(201, 202), (300,), 70, Kind.VARIANTS, report=False),
    "reporting": Sample(
        range(6_001, 6_022),
        (50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 150, 160, 180, 200, 220, 250, 280, 320, 400, 1_000),
        90,
        Kind.ORDINARY,
        report=True,
    ),
    "dense": Sample(range(7_001, 7_016), (300,), 70, Kind.DENSE, report=True),
    "variants": Sample(range(8_001, 8_004), (300,), 70, Kind.VARIANTS, report=True),
}
_LARGE_DAYS = 62
"""An organisation of a thousand people or more is watched for less time."""


class SeedError(ValueError):
    """A seed of the reporting worlds was asked for outside a report."""


class PlantedCase(NamedTuple):
    """A planted misuse: its rule, strength and evasion, the rules that found it, and the capacities that opened it."""

    rule: str
    strength: str
    evasion: str
    found_by: tuple[str, ...]
    opened: tuple[bool, ...]
    flagged: bool

    @property
    def moderate(self) -> bool:
        """True for misuse that counts for the recall of moderate cases."""
        return self.strength == "moderate" and not self.evasion


class MeasuredPerson(NamedTuple):
    """An honest person: the groups, and the capacities at which an opened case names the person."""

    groups: dict[str, str]
    opened: tuple[bool, ...]


class MeasuredCase(NamedTuple):
    """A case: its rules, whether its subject and evidence are a planted misuse's, and the capacities that open it."""

    rules: tuple[str, ...]
    right: bool
    chance: float
    opened: tuple[bool, ...]
    text: str


@dataclass
class MeasuredWorld:
    """The figures of one world."""

    seed: int
    kind: Kind
    people: int
    days: int
    events: int
    honest_actions: int
    flags: int
    planted: list[PlantedCase] = field(default_factory=list)
    cases: list[MeasuredCase] = field(default_factory=list)
    honest: list[MeasuredPerson] = field(default_factory=list)


class Night(NamedTuple):
    """The cases that were not closed at the end of a night, best first, and the people at work."""

    moment: float
    people: int
    ranking: list[RankedCase]


@dataclass
class Watched:
    """The guard's output for a world: each flag and each case as last told, and all nights."""

    flags: dict[str, RuleFinding] = field(default_factory=dict)
    cases: dict[str, CaseDraft] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)
    """The cases that the product opened."""
    nights: list[Night] = field(default_factory=list)
    actions: int = 0


def sample_of(seed: int) -> Sample:
    """Return the sample that a seed belongs to.

    Raises:
        SeedError: no sample has the seed.

    """
    for sample in SAMPLES.values():
        if seed in sample.seeds:
            return sample
    message = f"no sample has the seed {seed}"
    raise SeedError(message)


def make_world(seed: int, *, report: bool = False) -> World:
    """Return the world of a seed, with its honest days and its misuse.

    Raises:
        SeedError: the seed is a reporting world's, and this is not a report, or the reverse.

    """
    sample = sample_of(seed)
    if sample.report != report:
        message = f"seed {seed} is {'not ' if report else ''}a reporting world's"
        raise SeedError(message)
    size = sample.sizes[(seed - sample.seeds.start) % len(sample.sizes)]
    world = World(draw(seed, size, sample.days if size < 1_000 else _LARGE_DAYS))
    HonestTraffic(world).add()
    match sample.kind:
        case Kind.DENSE:
            plant_densely(world, _EACH)
        case Kind.VARIANTS:
            plant_variants(world)
        case Kind.ORDINARY:
            plant(world)
    return world


def watch(events: Sequence[GuardEvent]) -> Watched:
    """Run the guard over the events of a world as the product does."""
    guard, watched = Guard(), Watched()
    due = next_night(events[0].recorded)
    for event in events:
        watched.actions += isinstance(event.body, (decisions.ActionTaken, facts.ActionReported))
        for flag in guard.take(event):
            watched.flags[flag.flag_id] = flag.finding
        for draft in guard.take_cases():
            watched.cases[draft.case_id] = draft
            if draft.state == "opened":
                watched.opened.add(draft.case_id)
        if event.recorded >= due:
            due = next_night(event.recorded)
            ranking = guard.cases.ranking(guard.history)
            watched.nights.append(Night(due - DAY, people_at_work(guard.history), ranking))
    return watched


def opened_at(nights: Sequence[Night], capacity: float) -> set[str]:
    """Return the cases that a capacity opens, by the product's own rank, floor and counter."""
    opened, left = set[str](), Capacity()
    for night in nights:
        left.grow(capacity * night.people / 100, night.moment)
        for case in night.ranking:
            if case.case_id not in opened and case.chance >= FLOOR and left.take():
                opened.add(case.case_id)
    return opened


def measure(seed: int, *, report: bool = False) -> MeasuredWorld:
    """Run the guard over the world of a seed, and compare its cases with the truth."""
    world, sample = make_world(seed, report=report), sample_of(seed)
    events, positions = world.events()
    gc.freeze()  # the collector need not look at the world again and again
    watched = watch(events)
    times = 1.0 if sample.kind is Kind.ORDINARY else DENSE_TIMES
    opened = [opened_at(watched.nights, times * capacity) for capacity in CAPACITIES]
    if times == 1:
        opened[DEFAULT] = watched.opened
    planted = [frozenset(positions[number] for number in one.numbers) for one in world.truth]
    organisation = world.organisation
    result = MeasuredWorld(
        seed,
        sample.kind,
        len(organisation.people),
        organisation.days,
        len(events),
        watched.actions - sum(map(len, planted)),
        len(watched.flags),
    )
    found_by, found = defaultdict[int, set[str]](set), defaultdict[int, set[str]](set)
    named = defaultdict[str, set[str]](set)
    chances = {case.case_id: case.chance for night in watched.nights for case in night.ranking}
    for name, case in watched.cases.items():
        proves = _proves(case, watched, list(zip(world.truth, planted, strict=True)))
        for place, rule in proves:
            found_by[place].add(rule)
            found[place].add(name)
        at = tuple(name in some for some in opened)
        result.cases.append(MeasuredCase(case.rules, bool(proves), chances.get(name, 0.0), at, case.explanation))
        for who in case.about:
            named[who].add(name)
    for place, misuse in enumerate(world.truth):
        at = tuple(not found[place].isdisjoint(some) for some in opened)
        result.planted.append(
            PlantedCase(misuse.rule, misuse.strength, misuse.evasion, tuple(found_by[place]), at, bool(found[place]))
        )
    culprits = {name for misuse in world.truth for name in misuse.subjects}
    for person in organisation.people:
        who = f"agent:{person.employee_id}"
        if who not in culprits:
            at = tuple(not named[who].isdisjoint(some) for some in opened)
            result.honest.append(MeasuredPerson(_groups(organisation, person), at))
    return result


def _proves(case: CaseDraft, watched: Watched, truth: Sequence[tuple[Misuse, frozenset[int]]]) -> list[tuple[int, str]]:
    """Return the misuse whose subject the case has and whose events its flags name, by place and rule."""
    return [
        (place, watched.flags[flag].rule)
        for place, (misuse, planted) in enumerate(truth)
        for flag in case.flag_ids
        if case.subject in misuse.subjects and not planted.isdisjoint(watched.flags[flag].evidence)
    ]


def _groups(organisation: Organisation, person: Person) -> dict[str, str]:
    team = person.team
    return {
        "team": f"{organisation.seed} {team.team_id}",
        "channel": team.channel,
        "desk": team.desk,
        "shift": team.rota,
        "tenure": tenure_of((organisation.days / 2 - person.joined_day) * DAY),
        "role": person.role,
        "kind": person.kind,
    }
