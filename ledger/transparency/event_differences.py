"""Differences between the stream and the seal: runs of positions, each of one kind."""

from __future__ import annotations

import itertools
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from ledger.transparency.sealer import decode_entry

if TYPE_CHECKING:
    from collections.abc import Sequence


class SealFinding(NamedTuple):
    """One finding: its kind, first and last position, and a sentence."""

    kind: str
    first: int
    last: int
    text: str

    def wire(self) -> dict[str, object]:
        """Return the finding as JSON."""
        return self._asdict()


class EventDifference(NamedTuple):
    """A position at which stream and seal differ; contents are hashes without the position, empty if there is none."""

    position: int
    sealed: bytes
    found: bytes


def describe_differences(differences: Sequence[EventDifference], size: int, last_position: int) -> list[SealFinding]:
    """Return runs of differing positions with their kind: edited, removed, swapped, inserted, rewritten or cut."""
    found: list[SealFinding] = []
    for run in _runs(differences):
        first, last = run[0].position, run[-1].position
        sealed = {difference.sealed: difference.position for difference in run}
        moved = [(difference.position, sealed[difference.found]) for difference in run if difference.found in sealed]
        is_shift = len(moved) > 1 and 2 * len(moved) > len(run)
        if all(not difference.found for difference in run):
            cut = first > last_position
            kind, text = ("cut", "the log ends before them") if cut else ("removed", "the stream has nothing there")
        elif is_shift and all(found_at > sealed_at for found_at, sealed_at in moved):
            count = moved[0][0] - moved[0][1]
            kind, text = "inserted", f"{count} in the middle; later events have moved to higher positions"
        elif is_shift and all(found_at < sealed_at for found_at, sealed_at in moved):
            kind, text = "removed", "later events have moved to lower positions"
        elif all(not difference.sealed for difference in run):
            kind, text = "added", "nothing was sealed there"
        elif len(moved) == len(run) and len(run) > 1:
            kind, text = "swapped", "the same events in another order"
        elif last == size and len(run) > 1:
            kind, text = "rewritten", "other events are at these positions"
        else:
            kind, text = "edited", "the event is not what was sealed"
        where = f"position {first:,}" if first == last else f"positions {first:,} to {last:,}"
        found.append(SealFinding(kind, first, last, f"{where}: {text}"))
    return _merge_swaps(found, differences)


def _merge_swaps(found: list[SealFinding], differences: Sequence[EventDifference]) -> list[SealFinding]:
    """Merge two distant single positions with exchanged contents into one finding."""
    by_position = {one.position: one for one in differences}
    edited = [wrong for wrong in found if wrong.kind == "edited"]
    for one, other in itertools.combinations(edited[:200], 2):
        first, second = by_position[one.first], by_position[other.first]
        if first.sealed == second.found and second.sealed == first.found:
            found.remove(one)
            found.remove(other)
            text = f"positions {first.position:,} and {second.position:,}: their events have changed places"
            found.append(SealFinding("swapped", first.position, second.position, text))
    return found


def _runs(differences: Sequence[EventDifference]) -> list[list[EventDifference]]:
    """Group neighbouring positions, separately for positions with and without an event."""
    runs: list[list[EventDifference]] = []
    for difference in sorted(differences):
        previous = runs[-1][-1] if runs else None
        if previous and difference.position == previous.position + 1 and bool(difference.found) == bool(previous.found):
            runs[-1].append(difference)
        else:
            runs.append([difference])
    return runs


def entry_content_hash(entry: bytes) -> bytes:
    """Return the hash of an entry without its position; empty for a gap."""
    try:
        return b"" if not entry or decode_entry(entry).is_gap else sha256(entry[9:]).digest()
    except ValueError:
        return sha256(entry).digest()
