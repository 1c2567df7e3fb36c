"""The measurement of one world: flags joined by subject into cases, and each case compared with the ground truth."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.detection.organisation import Organisation, draw
from benchmarks.detection.schemes import plant, plant_densely
from benchmarks.detection.traffic import HonestTraffic
from benchmarks.detection.world import BEGIN, World
from domain.abuse.fairness import tenure_of
from domain.abuse.flag_book import FlagDraft
from domain.abuse.guard import Guard
from domain.abuse.history import DAY
from domain.events import decisions, facts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.detection.organisation import Person

TUNING = range(1, 11)
"""The seeds of the worlds on which rules may be tuned."""
REPORTING = range(1_001, 1_023)
"""The seeds of the worlds whose figures are published; nothing is tuned on them."""
DENSE = range(2_001, 2_016)
"""The seeds of further reporting worlds with far more misuse, for recall by rule alone."""
DENSE_TUNING = range(101, 104)
"""The seeds of tuning worlds with far more misuse."""
_DENSE_EACH = 4
_TUNING_SIZES = (50, 60, 80, 100, 120, 150, 150, 200, 250, 300)
_REPORTING_SIZES = (50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 150, 160, 180, 200, 220, 250, 280, 320, 400)
_LARGE_SIZES = (1_000, 2_000)


class SeedError(ValueError):
    """A seed of the reporting worlds was asked for outside a report."""


class PlantedCase(NamedTuple):
    """A planted misuse: its rule, strength and evasion, and the rules of opened cases that prove it."""

    rule: str
    strength: str
    evasion: str
    found_by: tuple[str, ...]

    @property
    def moderate(self) -> bool:
        """Whether it counts for the recall of moderate cases."""
        return self.strength == "moderate" and not self.evasion


class MeasuredPerson(NamedTuple):
    """An honest person: the groups, and the rules of the cases that name the person."""

    groups: dict[str, str]
    named_by: tuple[str, ...]


class MeasuredCase(NamedTuple):
    """A case: its rules, whether its subject and its evidence are a planted misuse's, and when it began."""

    rules: tuple[str, ...]
    right: bool
    at: float


@dataclass
class MeasuredWorld:
    """The figures of one world."""

    seed: int
    dense: bool
    people: int
    days: int
    events: int
    honest_actions: int
    flags: int
    planted: list[PlantedCase] = field(default_factory=list)
    cases: list[MeasuredCase] = field(default_factory=list)
    honest: list[MeasuredPerson] = field(default_factory=list)


@dataclass
class _Case:
    flags: list[FlagDraft] = field(default_factory=list)

    @property
    def about(self) -> set[str]:
        return {name for flag in self.flags for name in flag.finding.about}


def make_world(seed: int, *, report: bool = False) -> World:
    """Return the world of a seed, with its honest days and its misuse.

    Raises:
        SeedError: the seed is a reporting world's, and this is not a report.

    """
    if seed not in TUNING and seed not in DENSE_TUNING and not report:
        message = f"seed {seed} is not a tuning world's: use --report"
        raise SeedError(message)
    world = World(draw(seed, *_shape(seed)))
    HonestTraffic(world).add()
    if _is_dense(seed):
        plant_densely(world, _DENSE_EACH)
    else:
        plant(world)
    return world


def _is_dense(seed: int) -> bool:
    return seed in DENSE or seed in DENSE_TUNING


def _shape(seed: int) -> tuple[int, int]:
    """Return the number of people and days of a world; large organisations are watched for less time."""
    if seed in TUNING:
        return _TUNING_SIZES[seed - TUNING.start], 90
    if _is_dense(seed):
        return 250, 80
    place = seed - REPORTING.start
    sizes = (*_REPORTING_SIZES, *_LARGE_SIZES)
    return sizes[place], 90 if sizes[place] <= 400 else 65


def measure(seed: int, *, report: bool = False) -> MeasuredWorld:
    """Run the guard over the world of a seed, and compare its cases with the truth."""
    world = make_world(seed, report=report)
    events, positions = world.events()
    guard, raised = Guard(), list[FlagDraft]()
    actions = 0
    for event in events:
        actions += isinstance(event.body, (decisions.ActionTaken, facts.ActionReported))
        raised += guard.take(event)
    organisation = world.organisation
    planted = [frozenset(positions[number] for number in one.numbers) for one in world.truth]
    honest_actions = actions - sum(map(len, planted))
    result = MeasuredWorld(
        seed,
        _is_dense(seed),
        len(organisation.people),
        organisation.days,
        len(events),
        honest_actions,
        sum(one.number == 1 for one in raised),
    )
    proofs = defaultdict[int, set[str]](set)
    named = defaultdict[str, set[str]](set)
    for case in joined(raised):
        right = False
        for flag in case.flags:
            for place, misuse in enumerate(world.truth):
                about = misuse.subjects.intersection(flag.finding.about)
                if about and not planted[place].isdisjoint(flag.finding.evidence):
                    proofs[place].add(flag.finding.rule)
                    right = True
        rules = tuple(sorted({flag.finding.rule for flag in case.flags}))
        result.cases.append(MeasuredCase(rules, right, case.flags[0].recorded))
        for name in case.about:
            named[name].update(rules)
    for place, misuse in enumerate(world.truth):
        found_by = tuple(sorted(proofs[place]))
        result.planted.append(PlantedCase(misuse.rule, misuse.strength, misuse.evasion, found_by))
    culprits = {name for misuse in world.truth for name in misuse.subjects}
    for person in organisation.people:
        name = f"agent:{person.employee_id}"
        if name not in culprits:
            result.honest.append(MeasuredPerson(_groups(organisation, person), tuple(sorted(named[name]))))
    return result


def joined(raised: Iterable[FlagDraft]) -> list[_Case]:
    """Return the flags joined by subject: the first agent concerned, else the customer."""
    of = dict[str, _Case]()
    for flag in raised:
        agents = [name for name in flag.finding.about if name.startswith("agent:")]
        subjects = agents or list(flag.finding.about)
        case = next((of[name] for name in subjects if name in of), None) or of.setdefault(subjects[0], _Case())
        case.flags.append(flag)
    return list(of.values())


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


def day_of(recorded: float) -> float:
    """Return a recorded time as days since the world's beginning."""
    return (recorded - BEGIN) / DAY
