"""The leaves of an archive's file are those of the events that were written into it."""

import tempfile
from hashlib import sha256
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ledger.archive.event_archive import gap_marker
from ledger.archive.parquet import parquet_bytes, read_batches
from ledger.archive.verification import event_leaf_hash
from ledger.store.log import Recorded
from ledger.transparency.sealer import encode_entry

EVENT = b'{"id":"%d","source":"s","type":"t","time":"2026-01-10T00:00:00Z","recordedtime":"2026-01-10T00:00:00Z"}'
PLACES = st.tuples(st.booleans(), st.sampled_from(["ledger.fact.a", "ledger.fact.ü", "ledger.decision.x"]))


@given(st.lists(PLACES, min_size=1, max_size=150), st.integers(1, 2**40))
def test_leaves_with_gaps_among_them(places: list[tuple[bool, str]], first: int) -> None:
    events = [
        gap_marker(first + at, "2026-01-10T00:00:00Z") if gap else Recorded(first + at, subject, EVENT % at)
        for at, (gap, subject) in enumerate(places)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "1.parquet")
        file.write_bytes(parquet_bytes(events))
        found = [event for batch in read_batches(file) for event in batch]
    assert found == events
    assert [event_leaf_hash(event) for event in found] == [
        sha256(b"\x00" + encode_entry(*event)).digest() for event in events
    ]
