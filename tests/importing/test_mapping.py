"""Mappings: a mistake is an error that names its part, line and remedy."""

import json
from pathlib import Path

import pytest

from app.importing.mapping import MappingError, build_mapping, load_mapping, shipped_mappings
from tests.support.documents import Document
from tests.support.imports import from_text, mapping_of

CSV = "no,customer,amount,at\n1,K-1,4.00,02/06/2026 09:00\n"
WRONG: list[tuple[Document, str]] = [
    (mapping_of(source=5), "source"),
    (mapping_of(source=" "), "source"),
    (mapping_of(surprise=1), "surprise: unknown name"),
    (mapping_of(time_zone="Mars/Base"), "time_zone"),
    (mapping_of(time_zone=["UTC"]), "time_zone"),
    (mapping_of(time_zone="../etc"), "time_zone"),
    (mapping_of(ambiguous="first"), "ambiguous: must be earlier, later or reject"),
    (mapping_of(id_prefix=[1]), "id_prefix"),
    (mapping_of(events=[]), "events"),
    (mapping_of(events={"a": 1}), "events"),
    (mapping_of(events=[{"type": "purchase.returned"}]), r"events\[0\].select: is required"),
    (mapping_of(name="purchase.returnd"), r"events\[0\].type: .*did you mean purchase.returned"),
    (mapping_of(name="fact.corrected"), r"events\[0\].type"),
    (mapping_of(views={"returns": "SELECT 1"}), "views.returns"),
    (mapping_of(views={"a b": "SELECT 1"}), "views.a b"),
    (mapping_of(files={"a b": {}}), "files.a b"),
    (mapping_of(files={"a": {}, "A": {}}), "two tables have the same name"),
    *(
        (mapping_of(files={"returns": {key: value}}), f"files.returns.{key}")
        for key, value in (
            ("encoding", "rot13"),
            ("encoding", "base64"),
            ("encoding", "no\x00pe"),
            ("delimiter", ";;"),
            ("delimiter", 5),
            ("delimiter", '"'),
            ("decimal", "x"),
            ("decimal", ""),
            ("thousands", "."),
            ("format", "sqlite"),
            ("sheet", []),
            ("surprise", 1),
        )
        if (key, value) != ("thousands", ".")
    ),
    (mapping_of(files={"returns": {"thousands": "."}}), "files.returns.decimal"),
]
OUTSIDE = (
    "read_csv('/etc/passwd')",
    "glob('/*')",
    "duckdb_settings()",
    "query('SELECT uuid()')",
    "query_table('returns')",
)
SAMPLES = ("USING SAMPLE 50%", "TABLESAMPLE 1 ROWS")
SELECTS: list[tuple[str, str]] = [
    ("SELEC 1", "syntax error"),
    *(
        (statement, f"{word} is not allowed for purchase.returned: one SELECT is expected.*remove {word}.*as files")
        for statement, word in (
            ("DELETE FROM returns", "DELETE"),
            ("ATTACH '/tmp/other.db'", "ATTACH"),
            ("COPY (SELECT 1) TO '/tmp/stolen.csv'", "COPY"),
            ("SET memory_limit = '10GB'", "SET"),
            ("INSTALL httpfs", "INSTALL or LOAD"),
            ("SELECT no FROM returns; -- then\nATTACH '/tmp/other.db'", "ATTACH"),
        )
    ),
    ("SELECT 1; SELECT 2", "one SELECT is expected for purchase.returned, not 2"),
    ("-- nothing", "one SELECT is expected for purchase.returned, not 0"),
    ("SELECT no AS id FROM returns", "needs a column `time`"),
    ('SELECT no AS id, "at" AS time, no AS ordr FROM returns', "has no field ordr"),
    ('SELECT no AS id, "at" AS time, price FROM returns', "price.*returns has no, customer, amount, at"),
    ('SELECT no AS id, "at" AS time FROM sales', "no table sales; the files are returns"),
    ("SELECT no AS id, now() AS time FROM returns", r"now\(\) gives another result in each run"),
    ('SELECT uuid() AS id, "at" AS time FROM returns', r"uuid\(\) gives another"),
    ("SELECT current_timestamp AS time, no AS id FROM returns", "current_timestamp gives another"),
    ("SELECT ago(INTERVAL 1 DAY) AS time, no AS id FROM returns", r"ago\(\) gives another"),
    ("SELECT * FROM '/etc/passwd'", "no table /etc/passwd"),
    ("SELECT * FROM information_schema.tables", "no table information_schema.tables"),
    *((f"SELECT * FROM {one}", "reads something else than the files") for one in OUTSIDE),
    ("SUMMARIZE returns", "give no rows of the files"),
    ('SELECT #1 AS id, "at" AS time FROM returns', "#1 names no column: write its name"),
    *((f'SELECT no AS id, "at" AS time FROM returns {one}', "a sample has other rows") for one in SAMPLES),
    ('SELECT no AS id, "at" AS time FROM returns', "purchase.returned needs total, too"),
]


@pytest.mark.parametrize(("document", "says"), WRONG, ids=lambda one: json.dumps(one)[:70])
def test_a_wrong_envelope_is_an_error_that_names_the_part(document: Document, says: str) -> None:
    with pytest.raises(MappingError, match=says) as caught:
        build_mapping(document)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(("select", "says"), SELECTS, ids=lambda one: one[:40])
def test_a_wrong_select_is_an_error_that_names_the_part(tmp_path: Path, select: str, says: str) -> None:
    with pytest.raises(MappingError, match=f"(?s)events.0..select: .*{says}"):
        from_text(tmp_path, mapping_of(select), CSV)


@pytest.mark.parametrize("depth", [300, 900, 3_000])
def test_a_select_that_is_nested_too_deeply_is_an_error(tmp_path: Path, depth: int) -> None:
    select = "SELECT no" + " || 'x'" * depth + ' AS id, "at" AS time FROM returns'
    with pytest.raises(MappingError, match=r"too many nested expressions|expression depth"):
        from_text(tmp_path, mapping_of(select), CSV)


def test_an_error_in_a_mapping_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("source: till\nevents:\n  - type: purchase.completed\n    selct: SELECT 1\n")
    with pytest.raises(MappingError, match=r"line 4, column 5: events\[0\]\.selct: unknown name"):
        load_mapping(str(file))


@pytest.mark.parametrize("text", ["- a", "{", "x"])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(MappingError):
        load_mapping(str(file))


def test_an_unknown_name_is_answered_with_the_shipped_ones() -> None:
    with pytest.raises(MappingError, match="online_retail"):
        load_mapping("nowhere")


@pytest.mark.parametrize("name", shipped_mappings())
def test_shipped_mappings_are_valid(name: str) -> None:
    assert load_mapping(name).events
