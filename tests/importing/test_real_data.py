"""Three public data sets through the shipped mappings, with answers known from elsewhere, in any order of rows."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from app.importing.import_report import ImportReport
from app.importing.importer import import_events
from app.importing.mapping import load_mapping
from tests.support.documents import Document
from tests.support.environment import DATA, long_only
from tests.support.forked_cli import CommandLine
from tests.support.known_answers import escalations, interactions, totals
from tests.support.prepared_ledgers import PreparedLedger

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the real data is not beside this checkout (shared/data)")
RECORDED = {"online_retail": 23_795, "bpic2013_incidents": 45_613, "bpic2020_request_for_payment": 15_185}
QUICKEST = "bpic2020_request_for_payment"


def check(name: str, events: list[Document], skipped: object, read: int) -> None:
    """Compare the events of a data set with its known answers."""
    assert len(events) == RECORDED[name]
    assert all("sequence" in event for event in events)
    match name:
        case "online_retail":
            assert skipped == {"bad debt adjustment": 3, "total zero": 2102}
            assert read == 541_909
            assert [str(one) for one in totals(events, "resolution.purchase.completed.v1")] == ["19959", "10655622.48"]
            assert [str(one) for one in totals(events, "resolution.purchase.returned.v1")] == ["3836", "896812.49"]
        case "bpic2013_incidents":
            assert interactions(events) == {
                "opened": 7554,
                "first_line_only": 60.18,
                "moved_up": 30.43,
                "came_back": 16.65,
                "reopened": 6.8,
            }
        case _:
            assert escalations(events) == {"reported": 6688, "approved": 6238, "median_hours": 48.6}
            assert skipped == {"case never submitted": 72}


@pytest.mark.parametrize("name", [pytest.param(one, marks=() if one == QUICKEST else long_only) for one in RECORDED])
def test_real_history_gives_the_known_answers_and_a_second_time_nothing(
    command: CommandLine, prepared: Callable[..., PreparedLedger], name: str
) -> None:
    words = ("import", name, str(DATA / f"{name}.csv.gz"), "--json")
    ledger = prepared(*words)
    first = json.loads(ledger.printed)
    assert (first["recorded"], first["duplicate"], first["rejected"]) == (RECORDED[name], 0, 0)
    again = json.loads(command(*words).stdout)
    assert (again["recorded"], again["duplicate"], again["rejected"]) == (0, RECORDED[name], 0)
    events = ledger.events()
    check(name, events, first["skipped"], first["read"])
    assert {event["importrun"] for event in events} == {first["run"]}


@pytest.mark.long
@pytest.mark.parametrize("name", RECORDED)
def test_rows_in_another_order_give_the_same_events(tmp_path: Path, name: str) -> None:
    def made(path: Path) -> list[bytes]:
        report = ImportReport()
        events = [one.data for one in import_events(load_mapping(name), [path], report, lambda _: None)]
        assert not report.rejected
        return sorted(events)

    path = DATA / f"{name}.csv.gz"
    header, *rows = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    random.Random(20130331).shuffle(rows)
    shuffled = tmp_path / "shuffled.csv"
    shuffled.write_bytes(header + b"".join(rows))
    assert made(shuffled) == made(path)


def test_a_replay_holds_exactly_the_imported_facts(prepared: Callable[..., PreparedLedger]) -> None:
    path = DATA / "bpic2020_request_for_payment.csv.gz"
    report = ImportReport()
    made = import_events(load_mapping("bpic2020_request_for_payment"), [path], report, lambda _: None)
    put_in = [json.loads(one.data) for one in made]
    ledger = prepared("import", "bpic2020_request_for_payment", str(path), "--json")
    done = json.loads(ledger.printed)
    for position, (one, expected) in enumerate(zip(ledger.events(), put_in, strict=True), 1):
        assert one.pop("recordedtime")
        assert (one.pop("position"), one.pop("via"), one.pop("importrun")) == (position, "cli", done["run"])
        assert one == expected
