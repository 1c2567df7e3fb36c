"""Schedules of faults: which faults happen to which process, when and for how long, as a pure function of a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

DECIDERS = ("decisions-1", "decisions-2")
PROCESSES = ("intake", *DECIDERS, "projections", "guard", "seal")
"""The processes of roles: a role, and a number where it runs more than once."""
_ONE = ("server",)
_THREE = ("leader", "leader", "follower")
"""Servers by what they are at the time of the fault to the stream `LEDGER`; the leader more often."""
CLIENT = "client"


class Kind(NamedTuple):
    """A kind of fault: its targets, and the least and the most seconds that it lasts."""

    name: str
    targets: tuple[str, ...]
    seconds: tuple[float, float]


_ROLE_KINDS = (
    Kind("kill", PROCESSES, (0.0, 1.5)),
    Kind("restart", PROCESSES, (0.0, 0.0)),
    Kind("suspend", PROCESSES, (1.0, 6.0)),
    Kind("stall", PROCESSES, (1.0, 6.0)),
    Kind("cut", PROCESSES, (0.5, 4.0)),
    Kind("fill disk", ("intake", "decisions-1", "projections", "guard", "seal"), (1.0, 4.0)),
    Kind("deliver again", (CLIENT,), (0.0, 0.0)),
)
"""`stall` and `cut`: the network between a process and all servers delays everything, or drops all connections."""
_SERVER_KINDS = (("kill", (0.0, 1.5)), ("restart", (0.0, 0.0)), ("suspend", (1.0, 5.0)), ("fill disk", (1.0, 4.0)))
_PLANNED_STOPS = (Kind("lame duck", _THREE, (0.0, 0.0)), Kind("step down", ("leader",), (0.0, 0.0)))
_SLOW = {"lame duck", "fill disk"}
_LONGEST_QUICK_SECONDS = 1.0
_TOGETHER = 0.2
"""The share of faults that begin together with the one before."""


@dataclass(frozen=True)
class Step:
    """One fault: ``pause`` seconds after the one before has ended, or together with it."""

    kind: str
    target: str
    pause: float
    seconds: float
    together: bool = False

    def __str__(self) -> str:
        begin = "at the same time" if self.together else f"after {self.pause:.1f} s"
        return f"{begin}: {self.kind}, {self.target}" + (f", {self.seconds:.1f} s" if self.seconds else "")


@dataclass(frozen=True)
class Schedule:
    """Faults for a ledger on one server or on three."""

    seed: int
    servers: int
    steps: tuple[Step, ...]

    def groups(self) -> list[list[Step]]:
        """Return the steps, those together that happen at the same time."""
        found: list[list[Step]] = []
        for step in self.steps:
            if step.together and found:
                found[-1].append(step)
            else:
                found.append([step])
        return found


def kinds_of(servers: int, *, quick: bool = False) -> list[Kind]:
    """Return the kinds of faults of a ledger on so many servers; ``quick`` ones take a second or two."""
    targets = _ONE if servers == 1 else _THREE
    kinds = [*_ROLE_KINDS, *(Kind(name, targets, seconds) for name, seconds in _SERVER_KINDS)]
    kinds += _PLANNED_STOPS if servers > 1 else ()
    return [kind for kind in kinds if not quick or kind.name not in _SLOW]


def schedule_of(seed: int, *, quick: bool = False, upgrades: bool = False) -> Schedule:
    """Return the schedule of a seed: three to five faults; ``quick``: two short ones on one server.

    ``upgrades``: the processes run an earlier version at first, and are replaced one by one between the other faults.
    """
    chance = Random(f"faults {seed} {quick} {upgrades}")
    servers = 1 if quick else chance.choice((1, 3))
    kinds = kinds_of(servers, quick=quick)
    steps: list[Step] = []
    for _ in range(2 if quick else chance.randint(3, 5)):
        kind = chance.choice(kinds)
        seconds = round(chance.uniform(*kind.seconds), 1)
        step = Step(
            kind=kind.name,
            target=chance.choice(kind.targets),
            pause=round(chance.uniform(0.3, 1.5), 1),
            seconds=min(seconds, _LONGEST_QUICK_SECONDS) if quick else seconds,
            together=bool(steps) and chance.random() < _TOGETHER,
        )
        if step.together and step.target == steps[-1].target:
            continue  # a process has one fault at a time
        steps.append(step)
    return Schedule(seed, servers, tuple(_with_upgrades(steps, chance) if upgrades else steps))


def decider_schedule(seed: int) -> Schedule:
    """Return a schedule of faults of deciders alone: each is killed or restarted, at work or standing by."""
    chance = Random(f"deciders {seed}")
    steps = [
        Step(chance.choice(("kill", "restart")), chance.choice(DECIDERS), round(chance.uniform(0.5, 1.5), 1), 0.0)
        for _ in range(6)
    ]
    return Schedule(seed, chance.choice((1, 3)), tuple(steps))


def planned_schedule(seed: int) -> Schedule:
    """Return a schedule of planned stops of three servers alone: lame duck and step-down."""
    chance = Random(f"planned {seed}")
    stops = (("lame duck", "leader"), ("lame duck", "leader"), ("lame duck", "follower"), ("step down", "leader"))
    steps = [Step(*chance.choice(stops), round(chance.uniform(0.5, 1.5), 1), 0.0) for _ in range(5)]
    return Schedule(seed, 3, tuple(steps))


def _with_upgrades(steps: list[Step], chance: Random) -> list[Step]:
    """Return the steps with an upgrade of each process among them, in a random order."""
    found = list(steps)
    order = chance.sample(PROCESSES, len(PROCESSES))
    places = sorted(chance.randint(0, len(steps)) for _ in order)
    for number, (place, process) in enumerate(zip(places, order, strict=True)):
        at = place + number
        while at < len(found) and found[at].together:  # two at the same time stay so
            at += 1
        found.insert(at, Step("upgrade", process, round(chance.uniform(0.3, 1.0), 1), 0.0))
    return found
