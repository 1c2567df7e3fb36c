"""The measurement of one world: flags joined by subject into cases, and each case compared with the ground truth."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from app.demo.organisations.organisation import Organisation, draw
from app.demo.organisations.schemes import plant, plant_densely
from app.demo.organisations.traffic import HonestTraffic
from app.demo.organisations.world import World
from domain.abuse.fairness import tenure_of
from domain.abuse.flag_book import FlagDraft
from domain.abuse.guard import Guard
from domain.abuse.history import DAY
from domain.events import decisions, facts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.demo.organisations.organisation import Person

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
    """A planted misuse: its rule, strength and evasion, and the rules of cases that prove it."""

    rule: str
    strength: str
    evasion: str
    found_by: tuple[str, ...]
    chance: float
    """The highest chance of a case that proves it; 0 without one."""

    @property
    def moderate(self) -> bool:
        """True for misuse that counts for the recall of moderate cases."""
        return self.strength == "moderate" and not self.evasion


class MeasuredPerson(NamedTuple):
    """An honest person: the groups, and the rules of the cases that name the person."""

    groups: dict[str, str]
    named_by: tuple[str, ...]
    chance: float


class MeasuredCase(NamedTuple):
    """A case: its rules, whether its subject and its evidence are a planted misuse's, and when it began."""

    rules: tuple[str, ...]
    right: bool
    chance: float


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
    def chance(self) -> float:
        """The strength of all flags together: 1 less the product of their doubts.

        The doubt of a test is p^(1/10), e.g. 0.5 for p = 0.001. A flag that counts has half of the doubt, and each
        update halves it again, since the evidence has grown by half.
        """
        last = {flag.flag_id: flag for flag in self.flags}
        doubt = 1.0
        for flag in last.values():
            p = flag.finding.p
            doubt *= 0.5**flag.number if p is None else max(p, 1e-100) ** 0.1
        return 1 - doubt

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
    proofs, best = defaultdict[int, set[str]](set), defaultdict[int, float](float)
    named, worst = defaultdict[str, set[str]](set), defaultdict[str, float](float)
    for case in joined(raised):
        right, chance = False, case.chance
        for flag in case.flags:
            for place, misuse in enumerate(world.truth):
                about = misuse.subjects.intersection(flag.finding.about)
                if about and not planted[place].isdisjoint(flag.finding.evidence):
                    proofs[place].add(flag.finding.rule)
                    best[place] = max(best[place], chance)
                    right = True
        rules = tuple(sorted({flag.finding.rule for flag in case.flags}))
        result.cases.append(MeasuredCase(rules, right, chance))
        for name in case.about:
            named[name].update(rules)
            worst[name] = max(worst[name], chance)
    for place, misuse in enumerate(world.truth):
        found_by = tuple(sorted(proofs[place]))
        result.planted.append(PlantedCase(misuse.rule, misuse.strength, misuse.evasion, found_by, best[place]))
    culprits = {name for misuse in world.truth for name in misuse.subjects}
    for person in organisation.people:
        name = f"agent:{person.employee_id}"
        if name not in culprits:
            groups = _groups(organisation, person)
            result.honest.append(MeasuredPerson(groups, tuple(sorted(named[name])), worst[name]))
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
