"""The figures over all worlds, with 95 % intervals (Wilson), and tables of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from app.demo.organisations.organisation import QUARTER_DAYS
from domain.abuse.findings import rule_order
from domain.statistics import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from benchmarks.detection.measurement import MeasuredWorld, PlantedCase


LINE = 0.5
"""A case is opened where its chance is above this line: it is more likely right than not."""
_LINES = (0.0, LINE, 0.6, 0.7, 0.8, 0.9)


class Share(NamedTuple):
    """A share of a number, with its interval."""

    hits: int
    of: int

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low, high = wilson_interval(self.hits, self.of)
        return f"{self.hits / self.of:.2f} ({low:.2f} to {high:.2f}; {self.hits} of {self.of})"


def found(planted: Iterable[PlantedCase], line: float = LINE) -> Share:
    """Return the share of planted misuse that some case above the line proves."""
    some = list(planted)
    return Share(sum(one.chance > line for one in some), len(some))


def show(worlds: Sequence[MeasuredWorld], console: Console) -> None:
    """Print the figures; dense worlds count for recall alone."""
    ordinary = [world for world in worlds if not world.dense]
    planted = [one for world in worlds for one in world.planted]
    people = sum(world.people for world in ordinary)
    console.print(
        f"{len(ordinary)} worlds, {people:,} people, {sum(world.events for world in ordinary):,} events, "
        f"{sum(world.flags for world in ordinary):,} flags"
    )
    _curve(ordinary, planted, console)
    _by_rule(worlds, ordinary, console)
    _evasions(planted, console)
    _fairness(ordinary, console)


def _curve(ordinary: Sequence[MeasuredWorld], planted: Sequence[PlantedCase], console: Console) -> None:
    """Print the figures that have targets, for several lines above which cases are opened."""
    table = Table(title=f"Opened cases by line; {LINE} is the default, 0 opens all flags", title_justify="left")
    rows = {line: headline(ordinary, planted, line) for line in _LINES}
    table.add_column("line")
    for heading in rows[LINE]:
        table.add_column(heading)
    for line, row in rows.items():
        table.add_row(str(line), *row.values())
    console.print(table)


def headline(ordinary: Sequence[MeasuredWorld], planted: Sequence[PlantedCase], line: float) -> dict[str, str]:
    """Return the figures that have targets."""
    cases = [case for world in ordinary for case in world.cases if case.chance > line]
    wrong = sum(not case.right for case in cases)
    actions = sum(world.honest_actions for world in ordinary)
    quarters = sum(len(world.honest) * world.days / QUARTER_DAYS for world in ordinary)
    named = sum(person.chance > line for world in ordinary for person in world.honest)
    return {
        "precision (right subject and evidence)": str(Share(len(cases) - wrong, len(cases))),
        "recall of moderate cases": str(found((one for one in planted if one.moderate), line)),
        "cases per 1,000 honest actions": f"{1000 * len(cases) / max(actions, 1):.2f} ({wrong} wrong of {len(cases)})",
        "honest people named a quarter": f"{named / max(quarters, 1):.1%} ({named} people)",
    }


def _by_rule(worlds: Sequence[MeasuredWorld], ordinary: Sequence[MeasuredWorld], console: Console) -> None:
    table = Table(title="By rule: recall by any rule, moderate recall by its own, and cases", title_justify="left")
    for heading in (
        "rule",
        "weak",
        "moderate",
        "by its own rule",
        "strong",
        "right cases",
        "wrong cases",
        "wrong alone",
    ):
        table.add_column(heading)
    planted = [one for world in worlds for one in world.planted]
    right, wrong, alone = Counter[str](), Counter[str](), Counter[str]()
    for world in ordinary:
        for case in (one for one in world.cases if one.chance > LINE):
            (right if case.right else wrong).update(case.rules)
            if not case.right and len(case.rules) == 1:
                alone.update(case.rules)
    for rule in sorted({one.rule for one in planted} | right.keys() | wrong.keys(), key=rule_order):
        mine = [one for one in planted if one.rule == rule and not one.evasion]
        moderate = [one for one in mine if one.moderate]
        own = Share(sum(rule in one.found_by and one.chance > LINE for one in moderate), len(moderate))
        weak, strong = ([one for one in mine if one.strength == name] for name in ("weak", "strong"))
        table.add_row(
            rule,
            _short(found(weak)),
            str(found(moderate)),
            _short(own),
            _short(found(strong)),
            str(right[rule]),
            str(wrong[rule]),
            str(alone[rule]),
        )
    console.print(table)


def _short(share: Share) -> str:
    return f"{share.hits} of {share.of}"


def _evasions(planted: Sequence[PlantedCase], console: Console) -> None:
    table = Table(title="Evasions, at moderate strength", title_justify="left")
    for heading in ("rule", "evasion", "recall"):
        table.add_column(heading)
    names = {(one.rule, one.evasion) for one in planted if one.evasion}
    for rule, evading in sorted(names, key=lambda name: (rule_order(name[0]), name[1])):
        mine = [one for one in planted if (one.rule, one.evasion) == (rule, evading)]
        table.add_row(rule, evading, _short(found(mine)))
    console.print(table)


def _fairness(ordinary: Sequence[MeasuredWorld], console: Console) -> None:
    """Print each honest group's share of people named; a group is far above if its lower bound is twice the others'."""
    table = Table(title="Honest people named, by group", title_justify="left")
    for heading in ("dimension", "group", "named", "others", ""):
        table.add_column(heading)
    people = [person for world in ordinary for person in world.honest]
    total = Share(sum(person.chance > LINE for person in people), len(people))
    groups = defaultdict[tuple[str, str], list[bool]](list)
    for person in people:
        for pair in person.groups.items():
            groups[pair].append(person.chance > LINE)
    far_teams = 0
    for (dimension, group), named in sorted(groups.items()):
        mine = Share(sum(named), len(named))
        rest = Share(total.hits - mine.hits, total.of - mine.of)
        far = bool(rest.of) and wilson_interval(*mine)[0] > 2 * rest.hits / rest.of
        if dimension == "team":
            far_teams += far
        else:
            table.add_row(dimension, group, str(mine), _short(rest), "far above" if far else "")
    teams = sum(dimension == "team" for dimension, _ in groups)
    table.add_row("team", f"{teams} teams", "", "", f"{far_teams} far above")
    console.print(table)
