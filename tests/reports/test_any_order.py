"""Reports over facts in any order: real data reversed, shuffled and with coarse times give equal figures."""

import asyncio
import csv
import gzip
import json
import os
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from app.demo.run import run_demo
from app.importing.import_report import ImportReport
from app.importing.importer import import_events
from app.importing.mapping import load_mapping
from app.runtime.session import Session
from config.settings import load_settings
from ledger.store.cloudevents import time_text
from ledger.store.log import Recorded
from projections.date_ranges import DateRange
from projections.reports.empowerment_gap import gap_report
from projections.reports.loyalty import loyalty_report
from projections.reports.recognition import recognition_report
from projections.reports.service_quality import interaction_story, quality_report
from projections.reports.summary import summary
from projections.views.loyalty import read_effects
from tests.support.any_order import History, histories, permuted
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.view_histories import RECORDED, Views, recorded

EXAMPLES = int(os.environ.get("VIEW_EXAMPLES", settings().max_examples // 10))
LONG = "VIEW_EXAMPLES" in os.environ
"""Set by `make test-long`: all orders of the large data sets."""
DATA = ROOT.parent / "shared" / "data"
INCIDENTS = DATA / "bpic2013_incidents.csv.gz"
PAYMENTS = DATA / "bpic2020_request_for_payment.csv.gz"
GAP_VIEWS = ("authority", "people", "budget_balances", "casework", "audit_trail")
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def imported(mapping: str, path: Path) -> list[bytes]:
    """Return the events that an import of a file makes, in its order."""
    outcome = ImportReport()
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
    views = Views(folder, ["journeys", "casework", "audit_trail"]).take(messages, 2000)
    found: Document = dict(await quality_report(views.read))
    views.close()
    return found


def shares(found: Document) -> dict[str, float]:
    """Return the figures of BPI 2013 that are known."""
    whole = found["overall"]
    names = ("first_line_only", "moved_up", "came_back_to_a_team", "reopened")
    return {name: round(100 * whole[name]["share"], 1 if name == "reopened" else 2) for name in names}


KNOWN = {"first_line_only": 60.18, "moved_up": 30.43, "came_back_to_a_team": 16.65, "reopened": 6.8}


def unplaced(value: Any) -> Any:
    """Return a document without positions, which are those of one order."""
    if isinstance(value, dict):
        return {name: unplaced(one) for name, one in value.items() if name not in PLACES}
    return [unplaced(one) for one in value] if isinstance(value, list) else value


PLACES = ("position", "since", "last_fact", "corrected_by", "recorded", "happened")
VIEWS = (
    "audit_trail",
    "authority",
    "budget_balances",
    "casework",
    "decisions",
    "journeys",
    "loyalty_effects",
    "people",
)
LEFT_OUT = {"audit_trail": ("what",)}  # the text of a correction names a position


async def answers(views: Views) -> dict[str, Any]:
    """Return the answers of every report, without positions."""
    found: dict[str, Any] = {
        "quality": await quality_report(views.read),
        "gap": await gap_report(views.read, ()),
        "recognition": await recognition_report(views.read, None),
        "loyalty": await loyalty_report(views.read, ()),
        "summary": await summary(views.read, DateRange(None, None, ZoneInfo("Europe/London")), "day"),
        "effects": sorted((await views.read("loyalty_effects", read_effects)).result, key=lambda row: row["action_id"]),
    }
    for name in ("I-1", "I-2"):
        story = await interaction_story(views.read, name)
        steps = [] if story is None else [(one["time"], one["type"], one["who"]) for one in story["steps"]]
        found[name] = {"in_short": story and story["in_short"], "steps": steps}
    return {name: unplaced(one) for name, one in found.items()}


@settings(max_examples=EXAMPLES, phases=[Phase.reuse, Phase.generate])  # shrinking takes minutes
@given(histories(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_views_and_reports_are_functions_of_a_set(history: History, batch: int, random: random.Random) -> None:
    """A permutation of the facts changes no row of a view and no figure of a report."""
    with TemporaryDirectory() as folder:
        one = Views(Path(folder) / "one", VIEWS).take(recorded(history))
        other = Views(Path(folder) / "other", VIEWS).take(recorded(permuted(history, random)), batch)
        for name in VIEWS:
            if name != "decisions":  # the input of `report what-if`: facts as the decider knew them, in its order
                without = (*PLACES, *LEFT_OUT.get(name, ()))
                assert one.rows(name, without) == other.rows(name, without), name
        assert asyncio.run(answers(one)) == asyncio.run(answers(other))
        for views in (one, other):
            views.close()


@pytest.mark.skipif(not LONG, reason="`make test-long` runs it")
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


@pytest.mark.skipif(not LONG, reason="`make test-long` runs it")
@pytest.mark.skipif(not PAYMENTS.exists(), reason="BPI 2020 is not at ../shared/data")
async def test_bpi_2020_in_any_order(tmp_path: Path) -> None:
    events = imported("bpic2020_request_for_payment", PAYMENTS)
    found: dict[str, Document] = {}
    for name, some in orders(events):
        views = Views(tmp_path / name, GAP_VIEWS).take(logged(some, "bpic2020"), 2000)
        found[name] = unplaced(dict(await gap_report(views.read, ())))
        views.close()
    whole = found["as it is"]["overall"]
    assert round(100 * whole["approved_anyway"]["share"], 2) == 93.27
    assert round(whole["waiting"]["median_hours_to_approval"], 1) == 48.6
    assert found["reversed"] == found["shuffled"] == found["as it is"]


def desk(interactions: int) -> list[bytes]:
    """Return the facts of a help desk: tickets with seven steps on average, times to the minute, some without opening."""
    random_of = random.Random(4580)
    found: list[tuple[str, bytes]] = []
    for number in range(interactions):
        moment = MONDAY + timedelta(minutes=random_of.randrange(500_000))
        steps = [
            "opened",
            *random_of.choices(["transferred", "resolved", "reopened"], [5, 2, 1], k=random_of.randrange(12)),
        ]
        for place, step in enumerate(steps[1:] if number % 50 == 0 else steps):
            moment += timedelta(minutes=random_of.randrange(3))
            data: Document = {"interaction_id": f"T-{number}"}
            if step == "opened":
                data |= {"customer_id": f"C-{number % 3000}", "channel": random_of.choice(["phone", "mail"]), "line": 1}
            elif step == "transferred":
                data |= {"to_team_id": f"G-{random_of.randrange(9)}", "line": random_of.randrange(1, 4)}
            fact = event(f"{number}/{place}", f"interaction.{step}", "desk", time_text(moment), **data)
            found.append((fact["time"], json.dumps(fact | {"sequence": f"{place}"}).encode()))
    return [data for _, data in sorted(found, key=lambda one: one[0])]


@pytest.mark.skipif(not LONG, reason="`make test-long` runs it")
async def test_a_help_desk_in_any_order(tmp_path: Path) -> None:
    events = desk(20_000)
    found = {name: await quality_of(tmp_path / name, logged(some, "desk")) for name, some in orders(events)}
    assert found["as it is"]["overall"]["interactions"] == 19_600
    assert found["as it is"]["incomplete"] > 300
    assert unplaced(found["reversed"]) == unplaced(found["shuffled"]) == unplaced(found["as it is"])


@pytest.mark.integration
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it")
async def test_the_demo_in_any_order(tmp_path: Path) -> None:
    """The facts of the demo are permuted among its decisions, which stay where they are."""
    ledger = load_settings({"data_dir": str(tmp_path / "demo")}, {})
    await run_demo(ledger, seed=8, days=30, quiet=True)
    async with Session(ledger) as session:
        last = await session.log.last_position()
        log = [one for position in range(1, last + 1) if (one := await session.log.at(position)) is not None]
    facts = [one for one in log if one.subject.startswith("ledger.fact.")]
    found: dict[str, Any] = {}
    for name, some in orders([one.data for one in facts]):
        rest = iter(some)
        subjects = {one.data: one.subject for one in facts}
        messages = [
            Recorded(one.position, subjects[data], data) if one.subject.startswith("ledger.fact.") else one
            for one in log
            for data in [next(rest) if one.subject.startswith("ledger.fact.") else b""]
        ]
        views = Views(tmp_path / name, VIEWS).take(messages, 2000)
        found[name] = await answers(views)
        views.close()
    assert found["as it is"]["quality"]["overall"]["interactions"] > 100
    assert found["reversed"] == found["shuffled"] == found["as it is"]
