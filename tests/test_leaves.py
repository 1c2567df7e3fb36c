"""Leaves hashed in bulk are what they are one by one."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.archive import as_table, gap_marker
from ledger.leaves import _root, leaf_hashes
from ledger.log import Recorded
from ledger.merkle import root_of
from ledger.seal import entry_of

EVENT = b'{"id":"%d","source":"s","type":"t","time":"2026-01-10T00:00:00Z","recordedtime":"2026-01-10T00:00:00Z"}'
PLACES = st.tuples(st.booleans(), st.sampled_from(["ledger.fact.a", "ledger.fact.ü", "ledger.decision.x"]))


@given(st.lists(PLACES, min_size=1, max_size=150), st.integers(1, 2**40))
def test_leaves_with_gaps_among_them(places: list[tuple[bool, str]], first: int) -> None:
    events = [
        gap_marker(first + at, "2026-01-10T00:00:00Z") if gap else Recorded(first + at, subject, EVENT % at)
        for at, (gap, subject) in enumerate(places)
    ]
    expected = [sha256(b"\x00" + entry_of(*event)).digest() for event in events]
    assert leaf_hashes(as_table(events)) == b"".join(expected)
    assert leaf_hashes(as_table(events).slice(1)) == b"".join(expected[1:])


@pytest.mark.parametrize("number", [0, 1, 2, 3, 63, 64, 127, 128, 129, 255, 257, 1000, 5000])
def test_a_root_made_in_bulk(number: int) -> None:
    hashes = [sha256(b"%d" % at).digest() for at in range(number)]
    assert _root(b"".join(hashes)) == root_of(hashes)
