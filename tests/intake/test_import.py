"""Imports of history: CSV files through a mapping, and errors in either."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.importing.importer import ImportFileError, import_events, load_mapping
from app.importing.mapping_parts import MappingError
from app.publisher import Outcome
from tests.support.documents import Document
from tests.support.environment import DATA
from tests.support.forked_cli import CommandLine
from tests.support.known_answers import escalations, interactions, totals

MAPPING: Document = {
    "source": "till",
    "time_zone": "Europe/London",
    "events": [
        {
            "type": "purchase.completed",
            "when": {"kind": ["sale", "web"], "amount": {"not": {"blank": True}}},
            "id": "${no}",
            "time": {"column": "at", "format": "%d/%m/%Y %H:%M"},
            "data": {
                "order_id": "${no}",
                "customer_id": "${customer}",
                "total": {"money": "amount", "currency": "GBP"},
            },
        }
    ],
}
CSV = "no,kind,at,customer,amount\n1,sale,05/07/2026 10:00,C-1,5.005\n2,web,05/01/2026 10:00,,7.015\n3,void,x,C-1,1\n"


def made(tmp_path: Path, mapping: Any, text: str | bytes, name: str = "a.csv") -> tuple[list[Document], Outcome]:
    where = tmp_path / "m.yaml"
    where.write_text(yaml.safe_dump(mapping))
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    outcome = Outcome()
    events = import_events(load_mapping(str(where)), [path], outcome, lambda _: None)
    return [json.loads(item.data) for item in events], outcome


def test_rows_become_events_with_zones_and_rounding(tmp_path: Path) -> None:
    events, outcome = made(tmp_path, MAPPING, CSV)
    assert [(item["id"], item["time"], item["data"]) for item in events] == [
        (
            "1",
            "2026-07-05T09:00:00.000000Z",
            {"order_id": "1", "customer_id": "C-1", "total": {"amount": "5.00", "currency": "GBP"}},
        ),
        ("2", "2026-01-05T10:00:00.000000Z", {"order_id": "2", "total": {"amount": "7.02", "currency": "GBP"}}),
    ]
    assert (outcome.read, dict(outcome.skipped)) == (3, {"no event": 1})


def test_a_value_that_cannot_be_read_is_a_rejection_with_its_line(tmp_path: Path) -> None:
    text = (
        CSV + "4,sale,31/02/2026 10:00,C-1,1\n5,sale,05/07/2026 10:00,C-1,many\n6,sale\n7,web,05/01/2026 10:00,,NaN\n"
    )
    events, outcome = made(tmp_path, MAPPING, text)
    assert len(events) == 2
    assert [(item.line, item.field) for item in outcome.rejected] == [(5, "at"), (6, "amount"), (8, "amount")]
    assert outcome.skipped["too few columns"] == 1


@pytest.mark.parametrize("template", ["${no}", {"column": "no"}, "${no}-back", {"extract": "no", "pattern": "(.+)"}])
def test_a_blank_id_is_a_rejection(tmp_path: Path, template: Any) -> None:
    mapping = MAPPING | {"events": [MAPPING["events"][0] | {"id": template}]}
    events, outcome = made(tmp_path, mapping, CSV.replace("\n1,", "\n ,"))
    assert [item["id"][:1] for item in events] == ["2"]
    assert [(one.line, one.field) for one in outcome.rejected] == [(2, "id")]
    assert "no is blank" in outcome.rejected[0].message


def test_gz_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    assert len(made(tmp_path, MAPPING, gzip.compress(("\ufeff" + CSV).encode()), "a.csv.gz")[0]) == 2


def test_damaged_files_are_reported_with_place_and_remedy(tmp_path: Path) -> None:
    packed = gzip.compress(CSV.encode() * 50)
    for content, name, says in (
        (packed[: len(packed) // 2], "a.csv.gz", "cut short"),
        (b"no gz at all", "b.csv.gz", "damaged"),
        (CSV.replace("amount", "price").encode(), "c.csv", "no column 'amount'"),
        (b"", "d.csv", "empty"),
        (CSV.encode() + b"8,sale,05/01/2026 10:00,\xff\xfe,1\n", "e.csv", "encoding"),
    ):
        with pytest.raises(ImportFileError, match=says):
            made(tmp_path, MAPPING, content, name)


WRONG: list[tuple[str, Any, str]] = [
    ("source", None, "source"),
    ("events", [], "events"),
    ("events", [{"type": "purchase.dreamt"}], r"events\[0\].type"),
    ("events", [{"type": "purchase.completed", "id": "x", "data": {}}], r"events\[0\].time"),
    ("events", [MAPPING["events"][0] | {"data": {"ordr": "x"}}], r"data.ordr"),
    ("events", [MAPPING["events"][0] | {"data": {"total": {"money": "a", "currency": "QQQ"}}}], "currency"),
    ("events", [MAPPING["events"][0] | {"when": {"kind": {"matches": "("}}}], "regular expression"),
    ("events", [MAPPING["events"][0] | {"when": {"kind": {"like": "x"}}}], "like"),
    ("time_zone", "Mars/Base", "time_zone"),
    ("each", "page", "each"),
    ("surprise", 1, "surprise"),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG)
def test_a_wrong_mapping_names_the_part(tmp_path: Path, name: str, value: Any, says: str) -> None:
    with pytest.raises(MappingError, match=says):
        made(tmp_path, MAPPING | {name: value}, CSV)


def test_no_mapping_at_all(tmp_path: Path) -> None:
    for text in ("- a", "{", "x"):
        where = tmp_path / "m.yaml"
        where.write_text(text)
        with pytest.raises(MappingError):
            load_mapping(str(where))
    with pytest.raises(MappingError, match="online_retail"):
        load_mapping("nowhere")


def test_cases_are_read_row_by_row_against_the_row_before(tmp_path: Path) -> None:
    mapping = {
        "source": "cases",
        "group_by": "case",
        "order_by": "n",
        "each": "row",
        "only_with": {"when": {"what": "open"}, "reason": "never opened"},
        "events": [
            {
                "type": "interaction.opened",
                "when": {"what": "open"},
                "once": True,
                "id": "${case}/${n}",
                "time": "at",
                "data": {"interaction_id": "${case}"},
            },
            {
                "type": "interaction.transferred",
                "when": {"changed": "who"},
                "id": "${case}/${n}/t",
                "time": "at",
                "data": {"interaction_id": "${case}", "to_agent_id": "${who}", "from_agent_id": {"previous": "who"}},
            },
        ],
    }
    text = (
        "case,n,what,who,at\na,10,x,B,2026-01-02T00:00:00Z\na,9,open,A,2026-01-01T00:00:00Z\n"
        "a,11,open,B,2026-01-04T00:00:00Z\nb,1,x,A,2026-01-03T00:00:00Z\n"
    )
    events, outcome = made(tmp_path, mapping, text)
    assert [(item["id"], item["data"].get("from_agent_id")) for item in events] == [("a/9", None), ("a/10/t", "A")]
    assert outcome.skipped["never opened"] == 1


needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real data is not beside this checkout (shared/data)")


@needs_data
@pytest.mark.parametrize(
    ("name", "recorded"),
    [("online_retail", 23_795), ("bpic2013_incidents", 45_613), ("bpic2020_request_for_payment", 15_185)],
)
def test_real_history_gives_the_known_answers_and_a_second_time_nothing(
    command: CommandLine, name: str, recorded: int
) -> None:
    words = ("import", name, str(DATA / f"{name}.csv.gz"), "--json")
    first = json.loads(command(*words).stdout)
    assert (first["recorded"], first["duplicate"], first["rejected"]) == (recorded, 0, 0)
    again = json.loads(command(*words).stdout)
    assert (again["recorded"], again["duplicate"], again["rejected"]) == (0, recorded, 0)
    events = [json.loads(line) for line in command("audit", "replay").stdout.splitlines()]
    assert len(events) == recorded
    match name:
        case "online_retail":
            assert first["skipped"] == {"bad debt adjustment": 3, "total zero": 2102}
            assert first["read"] == 541_909
            assert [str(part) for part in totals(events, "resolution.purchase.completed.v1")] == [
                "19959",
                "10655622.48",
            ]
            assert [str(part) for part in totals(events, "resolution.purchase.returned.v1")] == ["3836", "896812.49"]
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
            assert first["skipped"]["case never submitted"] == 72


@needs_data
def test_a_replay_holds_exactly_the_imported_facts(command: CommandLine, tmp_path: Path) -> None:
    path = DATA / "bpic2020_request_for_payment.csv.gz"
    command("import", "bpic2020_request_for_payment", str(path), "--json")
    put_in = [
        json.loads(item.data)
        for item in import_events(load_mapping("bpic2020_request_for_payment"), [path], Outcome(), lambda _: None)
    ]
    for recorded in (json.loads(line) for line in command("audit", "replay").stdout.splitlines()):
        expected = put_in[recorded.pop("position") - 1]
        assert recorded.pop("recordedtime")
        assert recorded.pop("via") == "cli"
        assert recorded == expected
