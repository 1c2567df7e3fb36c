"""R13, copied note: one text, which peers do not use, on far more of an agent's actions than the agent's own habit."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import prod
from typing import TYPE_CHECKING

from domain.abuse.findings import Parameters, Rule, RuleFinding
from domain.abuse.history import DAY, GuardHistory, ObservedAction
from domain.statistics import fisher_greater

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE = Rule("R13", 3, "copied note", {"days": 30, "actions": 12, "share": 0.2, "alike": 0.1, "p": 1e-3})
_ENOUGH = 12
_TIMES = 3.0
"""The factor by which a text must be more usual than before."""


def over(history: GuardHistory, end: float, parameters: Parameters) -> tuple[list[RuleFinding], int]:
    """Return findings over candidates: a text with ``actions`` uses by one agent, on ``share`` of their noted actions.

    A text with at least ``alike`` of its uses by others is a macro, and is left out. A standing phrase is found in
    earlier notes as well. Two tests compare with those, and the smaller chance counts twice (Bonferroni): Fisher's
    exact test of the shares in and before the window, and the permutation test of the first use. With k uses among N
    notes, all of them among the last M, its chance is C(M, k) / C(N, k). An agent without enough earlier notes may have
    a standing phrase, and is not judged. The chance is multiplied by the share of agents that have a standing phrase of
    their own. Notes are compared only by a keyed hash of their normal form, so the rule still works after a customer is
    forgotten.
    """
    start = end - parameters["days"] * DAY
    noted, before = defaultdict[str, list[ObservedAction]](list), defaultdict[str, Counter[str]](Counter)
    everywhere, written = Counter[str](), defaultdict[str, list[str]](list)
    for action in history.actions:
        if action.note and action.at < end:
            everywhere[action.note] += 1
            written[action.agent].append(action.note)
            if action.at >= start:
                noted[action.agent].append(action)
            else:
                before[action.agent][action.note] += 1
    candidates = list(_candidates(noted, before, everywhere, parameters))
    if not candidates:
        return [], 0
    phrases, found = _with_phrase(written, everywhere, parameters), list[RuleFinding]()
    for agent, note, count in candidates:
        of, earlier = len(noted[agent]), before[agent]
        fisher = _chance(count, of, earlier[note], earlier.total())
        p = phrases * min(2 * fisher, 2 * _so_late(written[agent], note), 1.0)
        if p < parameters["p"]:
            others = everywhere[note] - count - earlier[note]
            text = (
                f"{agent} wrote the same note on {count} of {of} actions in {parameters['days']} days, and on "
                f"{earlier[note]} of {earlier.total()} before; peers wrote it {others} times (chance {p:.1g})"
            )
            evidence = [action.position for action in noted[agent] if action.note == note]
            found.append(RULE.finding((f"agent:{agent}",), note, text, evidence, p))
    return found, len(candidates)


def _candidates(
    noted: dict[str, list[ObservedAction]],
    before: dict[str, Counter[str]],
    everywhere: Counter[str],
    parameters: Parameters,
) -> Iterator[tuple[str, str, int]]:
    """Yield agent, text and uses, where the text is new to the agent and no macro."""
    for agent, actions in noted.items():
        earlier = before[agent]
        for note, count in Counter(action.note or "" for action in actions).items():
            others = everywhere[note] - count - earlier[note]
            habit = earlier[note] / max(earlier.total(), 1)
            if (
                count >= max(parameters["actions"], parameters["share"] * len(actions))
                and others < parameters["alike"] * everywhere[note]
                and count / len(actions) >= _TIMES * habit
            ):
                yield agent, note, count


def _with_phrase(written: dict[str, list[str]], everywhere: Counter[str], parameters: Parameters) -> float:
    """Return the share of agents with a text of their own on ``share`` of their notes, at least one of them."""
    some = 1
    for notes in written.values():
        note, uses = Counter(notes).most_common(1)[0]
        own = everywhere[note] - uses < parameters["alike"] * everywhere[note]
        some += own and uses >= max(_ENOUGH / 2, parameters["share"] / 2 * len(notes))
    return min(some / len(written), 1.0)


def _so_late(notes: list[str], note: str) -> float:
    """Return the chance that none of so many uses of a text is before the first one; 1 without earlier notes."""
    first, uses, number = notes.index(note), notes.count(note), len(notes)
    if first < _ENOUGH:
        return 1.0
    return prod((number - first - place) / (number - place) for place in range(uses))


def _chance(count: int, of: int, count_before: int, before: int) -> float:
    """Return the chance of so many notes with one text, given the agent's habit; 1 where that is not known."""
    if before < _ENOUGH:
        return 1.0
    return fisher_greater((count, of - count), (count_before, before - count_before))
