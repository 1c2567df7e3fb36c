"""The figures over all worlds, with 95 % intervals (Wilson), and tables of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import takewhile
from math import isinf
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from app.demo.organisations.organisation import QUARTER_DAYS
from benchmarks.detection.measurement import CAPACITIES, DEFAULT, Kind, PlantedCase
from domain.abuse.findings import rule_order
from domain.statistics import binomial_tail, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from benchmarks.detection.measurement import MeasuredWorld

_LEVEL = 0.05


class Share(NamedTuple):
    """A share of a number, with its interval."""

    hits: int
    of: int

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low, high = wilson_interval(self.hits, self.of)
        return f"{self.hits / self.of:.2f} ({low:.2f} to {high:.2f}; {self.hits} of {self.of})"


def found(planted: Iterable[PlantedCase], capacity: int = DEFAULT) -> Share:
    """Return the share of planted misuse that an opened case proves, at a capacity (a place in ``CAPACITIES``)."""
    some = list(planted)
    return Share(sum(one.opened[capacity] for one in some), len(some))


def show(worlds: Sequence[MeasuredWorld], console: Console) -> None:
    """Print the figures; worlds with far more misuse count for recall alone."""
    ordinary = [world for world in worlds if world.kind is Kind.ORDINARY]
    people = sum(world.people for world in ordinary)
    console.print(
        f"{len(ordinary)} worlds, {people:,} people, {sum(world.events for world in ordinary):,} events, "
        f"{sum(world.flags for world in ordinary):,} flags; {len(worlds) - len(ordinary)} worlds for recall alone"
    )
    _curve(worlds, ordinary, console)
    _by_rule(worlds, ordinary, console)
    _variants(worlds, console)
    _fairness(ordinary, console)


def _curve(worlds: Sequence[MeasuredWorld], ordinary: Sequence[MeasuredWorld], console: Console) -> None:
    """Print the figures that have targets, for several capacities."""
    table = Table(title="Opened cases by capacity, in cases a week for 100 people", title_justify="left")
    rows = {place: headline(worlds, ordinary, place) for place in range(len(CAPACITIES))}
    table.add_column("capacity")
    for heading in rows[DEFAULT]:
        table.add_column(heading)
    for place, row in rows.items():
        name = "no limit" if isinf(CAPACITIES[place]) else f"{CAPACITIES[place]:g}"
        table.add_row(f"{name} (default)" if place == DEFAULT else name, *row.values())
    console.print(table)


def headline(worlds: Sequence[MeasuredWorld], ordinary: Sequence[MeasuredWorld], capacity: int) -> dict[str, str]:
    """Return the figures that have targets."""
    cases = [case for world in ordinary for case in world.cases if case.opened[capacity]]
    wrong = sum(not case.right for case in cases)
    actions = sum(world.honest_actions for world in ordinary)
    quarters = sum(len(world.honest) * world.days / QUARTER_DAYS for world in ordinary)
    named = sum(person.opened[capacity] for world in ordinary for person in world.honest)
    moderate = [one for world in worlds for one in world.planted if one.moderate]
    in_ordinary = [one for world in ordinary for one in world.planted if one.moderate]
    return {
        "precision (right subject and evidence)": str(Share(len(cases) - wrong, len(cases))),
        "recall, moderate": str(found(moderate, capacity)),
        "in ordinary worlds": str(found(in_ordinary, capacity)),
        "cases per 1,000 honest actions": f"{1000 * len(cases) / max(actions, 1):.2f} ({wrong} wrong of {len(cases)})",
        "honest people named a quarter": f"{named / max(quarters, 1):.1%} ({named} people)",
    }


def _by_rule(worlds: Sequence[MeasuredWorld], ordinary: Sequence[MeasuredWorld], console: Console) -> None:
    table = Table(title="By rule: moderate recall, and opened cases in ordinary worlds", title_justify="left")
    for heading in ("rule", "opened by any rule", "by its own rule", "flagged", "right cases", "wrong", "wrong alone"):
        table.add_column(heading)
    planted = [one for world in worlds for one in world.planted]
    right, wrong, alone = Counter[str](), Counter[str](), Counter[str]()
    for world in ordinary:
        for case in (one for one in world.cases if one.opened[DEFAULT]):
            (right if case.right else wrong).update(case.rules)
            if not case.right and len(case.rules) == 1:
                alone.update(case.rules)
    for rule in sorted({one.rule for one in planted} | right.keys() | wrong.keys(), key=rule_order):
        moderate = [one for one in planted if one.rule == rule and one.moderate]
        own = Share(sum(rule in one.found_by and one.opened[DEFAULT] for one in moderate), len(moderate))
        flagged = Share(sum(one.flagged for one in moderate), len(moderate))
        counts = str(right[rule]), str(wrong[rule]), str(alone[rule])
        table.add_row(rule, str(found(moderate)), str(own), str(flagged), *counts)
    console.print(table)


def _variants(worlds: Sequence[MeasuredWorld], console: Console) -> None:
    table = Table(title="Recall by strength, and of evasions at moderate strength", title_justify="left")
    for heading in ("rule", "strength or evasion", "opened", "flagged"):
        table.add_column(heading)
    groups = defaultdict[tuple[str, bool, str], list[PlantedCase]](list)
    for one in (one for world in worlds for one in world.planted):
        groups[one.rule, bool(one.evasion), one.evasion or one.strength].append(one)
    for (rule, _, name), mine in sorted(groups.items(), key=lambda pair: (rule_order(pair[0][0]), pair[0][1:])):
        table.add_row(rule, name, str(found(mine)), str(Share(sum(one.flagged for one in mine), len(mine))))
    console.print(table)


def _fairness(ordinary: Sequence[MeasuredWorld], console: Console) -> None:
    """Print each honest group's share of people named, and whether it is far above twice the others' share.

    By its own interval: the lower bound of 95 % is above. Of many small groups without any difference, those with one
    person named are. So the second judgement corrects for all groups of a dimension: binomial tails at twice the
    others' share, by Holm's method at 5 % (Holm 1979).
    """
    table = Table(title="Honest people named by opened cases, by group", title_justify="left")
    for heading in ("dimension", "group", "named", "others", "by its interval", "of all groups"):
        table.add_column(heading)
    people = [person for world in ordinary for person in world.honest]
    total = Share(sum(person.opened[DEFAULT] for person in people), len(people))
    groups = defaultdict[str, dict[str, list[bool]]](lambda: defaultdict(list))
    for person in people:
        for dimension, group in person.groups.items():
            groups[dimension][group].append(person.opened[DEFAULT])
    for dimension, named in sorted(groups.items()):
        shares = {group: Share(sum(some), len(some)) for group, some in sorted(named.items())}
        rests = {group: Share(total.hits - mine.hits, total.of - mine.of) for group, mine in shares.items()}
        wide = {group for group, mine in shares.items() if _is_far(mine, rests[group])}
        sure = far_of_all(shares, rests)
        if dimension == "team":
            table.add_row("team", f"{len(shares)} teams", "", "", f"{len(wide)} far above", f"{len(sure)} far above")
        for group in sure if dimension == "team" else shares:
            far = ["far above" if group in some else "" for some in (wide, sure)]
            table.add_row(dimension, group, str(shares[group]), str(rests[group]), *far)
    console.print(table)


def _is_far(mine: Share, rest: Share) -> bool:
    return bool(rest.of) and wilson_interval(*mine)[0] > 2 * rest.hits / rest.of


def far_of_all(shares: Mapping[str, Share], rests: Mapping[str, Share]) -> list[str]:
    """Return the groups with a share above twice the others'; the chance that any is named wrongly is 5 %."""
    chances = sorted(
        (binomial_tail(mine.hits, mine.of, min(2 * (rests[group].hits + 1) / (rests[group].of + 2), 0.95)), group)
        for group, mine in shares.items()
    )
    sure = takewhile(lambda one: one[1][0] <= _LEVEL / (len(chances) - one[0]), enumerate(chances))
    return [group for _, (_, group) in sure]


def wrong_cases(worlds: Sequence[MeasuredWorld], console: Console) -> None:
    """Print each wrong case that was opened, for tuning."""
    for world in worlds:
        for case in world.cases:
            if case.opened[DEFAULT] and not case.right and world.kind is Kind.ORDINARY:
                console.print(f"world {world.seed}, chance {case.chance:.2f}: {case.text}")
