"""Differences between the stream and the seal: runs of positions, each of one kind."""

from __future__ import annotations

import itertools
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger.transparency.sealer import decode_entry

if TYPE_CHECKING:
    from collections.abc import Sequence


class SealFinding(NamedTuple):
    """One finding: which kind, from which position to which, in words."""

    kind: str
    first: int
    last: int
    text: str

    def wire(self) -> dict[str, Any]:
        """As machines get it."""
        return self._asdict()


class EventDifference(NamedTuple):
    """A position where the stream and the seal differ; contents are hashes without the position, empty: nothing."""

    position: int
    sealed: bytes
    found: bytes


def describe_differences(differs: Sequence[EventDifference], size: int, last_position: int) -> list[SealFinding]:
    """Runs of differing positions, and what each is: edited, removed, swapped, inserted, rewritten, cut."""
    found: list[SealFinding] = []
    for run in _runs(differs):
        first, last = run[0].position, run[-1].position
        sealed = {one.sealed: one.position for one in run}
        moved = [(one.position, sealed[one.found]) for one in run if one.found in sealed]
        if all(not one.found for one in run):
            cut = first > last_position
            kind, text = ("cut", "the log ends before them") if cut else ("removed", "the stream has nothing there")
        elif len(moved) >= 2 and all(here > was for here, was in moved) and 2 * len(moved) > len(run):  # noqa: PLR2004
            count = moved[0][0] - moved[0][1]
            kind, text = "inserted", f"{count} in the middle; those behind have moved on"
        elif len(moved) >= 2 and all(here < was for here, was in moved) and 2 * len(moved) > len(run):  # noqa: PLR2004
            kind, text = "removed", "and those behind have moved up"
        elif all(not one.sealed for one in run):
            kind, text = "added", "nothing was sealed there"
        elif len(moved) == len(run) and len(run) > 1:
            kind, text = "swapped", "the same events in another order"
        elif last == size and len(run) > 1:
            kind, text = "rewritten", "other events stand where these were sealed"
        else:
            kind, text = "edited", "the event is not what was sealed"
        where = f"position {first:,}" if first == last else f"positions {first:,} to {last:,}"
        found.append(SealFinding(kind, first, last, f"{where}: {text}"))
    return _merge_swaps(found, differs)


def _merge_swaps(found: list[SealFinding], differs: Sequence[EventDifference]) -> list[SealFinding]:
    """Two single positions far apart whose contents changed places are one finding."""
    by_position = {one.position: one for one in differs}
    edited = [wrong for wrong in found if wrong.kind == "edited"]
    for one, other in itertools.combinations(edited[:200], 2):
        a, b = by_position[one.first], by_position[other.first]
        if a.sealed == b.found and b.sealed == a.found:
            found.remove(one)
            found.remove(other)
            text = f"positions {a.position:,} and {b.position:,}: their events have changed places"
            found.append(SealFinding("swapped", a.position, b.position, text))
    return found


def _runs(differs: Sequence[EventDifference]) -> list[list[EventDifference]]:
    """Neighbouring positions together, those with nothing apart from those with something else."""
    runs: list[list[EventDifference]] = []
    for one in sorted(differs):
        previous = runs[-1][-1] if runs else None
        if previous and one.position == previous.position + 1 and bool(one.found) == bool(previous.found):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def entry_content_hash(entry: bytes) -> bytes:
    """The hash of what an entry holds besides its position; empty where it holds nothing."""
    try:
        return b"" if not entry or decode_entry(entry).is_gap else sha256(entry[9:]).digest()
    except ValueError:
        return sha256(entry).digest()
