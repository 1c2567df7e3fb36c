"""Reports over facts in any order: real data reversed, shuffled and with coarse times give equal figures."""

import csv
import gzip
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.importing.importer import import_events, load_mapping
from app.publisher import Outcome
from ledger.store.log import Recorded
from projections.reports.service_quality import quality_report
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.view_histories import RECORDED, Views

LONG = "VIEW_EXAMPLES" in os.environ
"""Set by `make test-long`: all orders of the large data sets."""
DATA = ROOT.parent / "shared" / "data"
INCIDENTS = DATA / "bpic2013_incidents.csv.gz"


def imported(mapping: str, path: Path) -> list[bytes]:
    """Return the events that an import of a file makes, in its order."""
    outcome = Outcome()
    made = [one.data for one in import_events(load_mapping(mapping), [path], outcome, lambda _: None)]
    assert not outcome.rejected
    return made


def logged(events: Sequence[bytes], source: str) -> list[Recorded]:
    """Return facts of a source as the log holds them in this order."""
    return [Recorded(at, f"ledger.fact.{source}", one[:-1] + RECORDED) for at, one in enumerate(events, 1)]


def orders(events: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the events shuffled, and in `make test-long` also as they are and reversed."""
    if LONG:
        yield "as it is", events
        yield "reversed", events[::-1]
    yield "shuffled", random.Random(20130331).sample(events, len(events))


async def quality_of(folder: Path, messages: Sequence[Recorded]) -> Document:
    views = Views(folder, ["journeys", "casework"]).take(messages, 2000)
    found: Document = dict(await quality_report(views.read))
    views.close()
    return found


def shares(found: Document) -> dict[str, float]:
    """Return the figures of BPI 2013 that are known."""
    whole = found["overall"]
    names = ("first_line_only", "moved_up", "came_back_to_a_team", "reopened")
    return {name: round(100 * whole[name]["share"], 1 if name == "reopened" else 2) for name in names}


KNOWN = {"first_line_only": 60.18, "moved_up": 30.43, "came_back_to_a_team": 16.65, "reopened": 6.8}


@pytest.mark.long
@pytest.mark.skipif(not INCIDENTS.exists(), reason="BPI 2013 is not at ../shared/data")
async def test_bpi_2013_with_times_cut_to_minutes(tmp_path: Path) -> None:
    """1,507 cases have facts with one time; only the source's own order tells their path."""
    cut = tmp_path / "cut.csv"
    with gzip.open(INCIDENTS, "rt", newline="") as whole, cut.open("w", newline="") as file:
        rows = csv.DictReader(whole)
        assert rows.fieldnames is not None
        written = csv.DictWriter(file, rows.fieldnames)
        written.writeheader()
        for row in rows:
            written.writerow(row | {"time:timestamp": row["time:timestamp"][:17] + "00" + row["time:timestamp"][19:]})
    events = imported("bpic2013_incidents", cut)
    for name, some in orders(events):
        assert shares(await quality_of(tmp_path / name, logged(some, "bpic2013"))) == KNOWN, name


@pytest.mark.skipif(not LONG, reason="`make test-long` runs it")
@pytest.mark.skipif(not INCIDENTS.exists(), reason="BPI 2013 is not at ../shared/data")
async def test_bpi_2013_in_any_order(tmp_path: Path) -> None:
    events = imported("bpic2013_incidents", INCIDENTS)
    found = {name: await quality_of(tmp_path / name, logged(some, "bpic2013")) for name, some in orders(events)}
    assert shares(found["as it is"]) == KNOWN
    assert found["reversed"] == found["shuffled"] == found["as it is"]
