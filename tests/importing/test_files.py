"""Files of all formats and encodings: exact lines, and errors with place and remedy."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.importing import csv_rows
from app.importing.csv_rows import ImportFileError, RowFault
from app.importing.mapping import TableOptions
from app.importing.source_files import FileReport, SourceFile, read_chunks
from tests.support.imports import RETURNS, from_text, imported, mapping_of
from tests.support.workbooks import workbook

pytestmark = pytest.mark.long

HEADER = "no,customer,amount,at\n"
ROW = "1,K-1,4.00,02/06/2026 09:00\n"
UMLAUT = HEADER + "1,Jürgen,4.00,02/06/2026 09:00\n2,Zoë,5.00,02/06/2026 09:00\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "utf-32"])
@pytest.mark.parametrize("said", [True, False])
def test_encodings_are_said_or_detected(tmp_path: Path, encoding: str, said: bool) -> None:
    options = {"returns": {"encoding": encoding} if said else {}}
    made = from_text(tmp_path, mapping_of(files=options), UMLAUT.encode(encoding))
    assert [one["data"]["customer_id"] for one in made.events] == ["Jürgen", "Zoë"]
    guessed = not said and encoding in ("cp1252", "utf-16-le", "utf-16-be")
    assert len(made.report.warnings) == guessed
    assert made.report.read == 2


def test_a_wrong_encoding_late_in_the_file_begins_anew(tmp_path: Path) -> None:
    rows = "".join(f"{n},K-1,4.00,02/06/2026 09:00\n" for n in range(5_000))
    made = from_text(tmp_path, mapping_of(), (HEADER + rows + "x,Zoë,5.00,02/06/2026 09:00\n").encode("cp1252"))
    assert (len(made.events), made.report.read) == (5_001, 5_001)
    with pytest.raises(ImportFileError, match=r"not utf-8.*`encoding`"):
        from_text(tmp_path, mapping_of(files={"returns": {"encoding": "utf-8"}}), UMLAUT.encode("cp1252"))


def test_blank_cells_and_blank_markers_are_null(tmp_path: Path) -> None:
    text = HEADER + "1,,4.00,02/06/2026 09:00\n2,  ,4.00,02/06/2026 09:00\n3,n/a,4.00,02/06/2026 09:00\n"
    made = from_text(tmp_path, mapping_of(files={"returns": {"blank": ["n/a", "-"]}}), text)
    assert ["customer_id" in one["data"] for one in made.events] == [False] * 3


@pytest.mark.parametrize(
    ("decimal", "thousands", "cell"),
    [
        (",", ".", "1.234,50"),
        (".", ",", "1,234.50"),
        (",", " ", "1 234,5"),
        (".", "'", "1'234.50"),
        (",", "", "1234,50"),
    ],
)
def test_decimal_and_thousands_signs(tmp_path: Path, decimal: str, thousands: str, cell: str) -> None:
    options = {"returns": {"decimal": decimal, "thousands": thousands, "delimiter": ";"}}
    text = (HEADER + ROW).replace(",", ";").replace("4.00", cell)
    for amount in ("amount", "CAST(amount AS DECIMAL(12, 2))"):
        select = RETURNS.replace("'amount': amount", f"'amount': {amount}")
        assert from_text(tmp_path, mapping_of(select, files=options), text).amounts == ["1234.50 GBP"], amount
        for wrong in ("1.2.3", "12,34,5", "1..5", "1,,5"):
            made = from_text(tmp_path, mapping_of(select, files=options), text.replace(cell, wrong))
            assert made.faults == [(2, "amount")], (amount, wrong)


def test_a_quoted_cell_may_hold_line_breaks_and_later_lines_are_exact(tmp_path: Path) -> None:
    text = HEADER + '1,"K\n1\n",4.00,02/06/2026 09:00\n2,K-2,x,02/06/2026 09:00\r\n\r\n3,K-3,y,02/06/2026 09:00\n'
    made = from_text(tmp_path, mapping_of(RETURNS.replace("customer AS", "no AS")), text)
    assert made.faults == [(5, "amount"), (7, "amount")]


@pytest.mark.parametrize(
    ("rows", "line", "says"),
    [
        ('1,"K,4.00,x\n', 2, "never closed"),
        ('1,K,4,x\n2,K,"5\n3,K,4,x\n', 3, "never closed"),
        ('1,"a\nb","c\nd,1\n', 3, "never closed"),
        ('1,"K"x,4.00,y\n', 2, "text after its closing quote"),
        ('1,K,4,x\n2,"' + "y\n" * 100_000 + ",5,x\n", 3, "never closed"),
    ],
)
def test_a_quote_at_fault_is_named_with_its_line(tmp_path: Path, rows: str, line: int, says: str) -> None:
    with pytest.raises(ImportFileError, match=f"line {line}: .*{says}"):
        from_text(tmp_path, mapping_of(), HEADER + rows)


def test_damaged_files_are_reported_with_their_remedy(tmp_path: Path) -> None:
    packed = gzip.compress((HEADER + ROW * 5_000).encode())
    for content, name, says in (
        (packed[: len(packed) // 2], "a.csv.gz", "cut short"),
        (b"no gz at all", "b.csv.gz", "damaged"),
        (b"", "d.csv", "empty"),
        (b"\n", "e.csv", "empty"),
        (b"no parquet", "f.parquet", "parquet"),
        (b"no excel", "g.xlsx", "Excel"),
        (b"[]", "h.json", r"\.jsonl"),
        (b"No,no,amount,at\n", "i.csv", "stands twice"),
    ):
        with pytest.raises(ImportFileError, match=says):
            from_text(tmp_path, mapping_of(), content, name)


def test_compressed_files_are_read(tmp_path: Path) -> None:
    assert len(from_text(tmp_path, mapping_of(), gzip.compress((HEADER + ROW).encode()), "a.csv.gz").events) == 1


def test_several_files_of_one_table_are_told_apart(tmp_path: Path) -> None:
    for name, row in (("a.csv", ROW), ("b.csv", ROW.replace("4.00", "x"))):
        (tmp_path / name).write_text(HEADER + row)
    made = imported(tmp_path, mapping_of(), [tmp_path / "a.csv", tmp_path / "b.csv"])
    assert [(Path(one.file).name, one.line) for one in made.report.rejected] == [("b.csv", 2)]


def test_tables_are_named_after_files_where_the_mapping_names_none(tmp_path: Path) -> None:
    mapping = mapping_of()
    del mapping["files"]
    assert len(from_text(tmp_path, mapping, HEADER + ROW, "returns.csv").events) == 1


LINES = [
    {"no": 1, "customer": "K-1", "amount": "4.00", "at": "02/06/2026 09:00", "more": {"a": [1]}},
    {"no": "2", "amount": 5.10, "at": "02/06/2026 09:00", "customer": None},
]


def test_json_lines_are_read_as_text_with_their_lines(tmp_path: Path) -> None:
    text = "\n".join([json.dumps(LINES[0]), "", "{broken", json.dumps(LINES[1]), '{"no": 1, "no": 2}'])
    made = from_text(tmp_path, mapping_of(), text, "returns.jsonl")
    assert made.amounts == ["4.00 GBP", "5.10 GBP"]
    assert [(one.line, one.code) for one in made.report.rejected] == [(3, "row"), (5, "row")]


def test_nested_json_is_reached_by_sql(tmp_path: Path) -> None:
    select = RETURNS.replace("customer AS", "more->>'$.a[0]' AS")
    made = from_text(tmp_path, mapping_of(select), json.dumps(LINES[0]), "returns.jsonl")
    assert made.events[0]["data"]["customer_id"] == "1"


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    import datetime as dt

    at = [dt.datetime(2026, 6, 2, 9), dt.datetime(2026, 10, 25, 1, 30)]
    table = pa.table({"no": [1, 2], "customer": ["K-1", None], "amount": ["4.00", "5.00"], "at": at})
    pq.write_table(table, tmp_path / "returns.parquet")
    select = RETURNS.replace("try_strptime(\"at\", '%d/%m/%Y %H:%M')", '"at"')
    made = imported(tmp_path, mapping_of(select), [tmp_path / "returns.parquet"])
    assert [(one["id"], one["time"]) for one in made.events] == [("1", "2026-06-02T08:00:00.000000Z")]
    assert made.faults == [(2, "at")]


def test_excel_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "returns.xlsx"
    path.write_bytes(workbook([["no", "customer", "amount", "at"], [5001, "K-1", 4.1, "02/06/2026 09:00"]]))
    made = imported(tmp_path, mapping_of(), [path])
    assert [(one["id"], one["data"]["total"]["amount"]) for one in made.events] == [("5001", "4.10")]


@settings(max_examples=2 * settings().max_examples)
@given(
    st.lists(
        st.lists(st.text(st.sampled_from('ab",;\n\r €ü'), max_size=6), min_size=3, max_size=3), min_size=1, max_size=30
    ),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_rows_and_lines_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], quoting: Any
) -> None:
    """The oracle is the number of line breaks that were written before each row."""
    path = tmp_path_factory.mktemp("rows") / "x.csv"
    begins: list[int] = []
    with path.open("w", encoding="utf-8", newline="") as file:
        written = csv.writer(file, quoting=quoting, lineterminator="\n")
        written.writerow(["a", "b", "c"])
        line = 2
        for row in rows:
            begins.append(line)
            written.writerow(row)
            joined = "".join(f"{cell}|" for cell in row)
            line += 1 + len(joined.replace("\r\n", "\n").replace("\r", "\n").split("\n")) - 1
    silent = FileReport(lambda _: None, lambda _: None, lambda _: None)
    file_ = SourceFile(path, TableOptions("t"), silent)
    found = [
        (line, [None if cell is None else str(cell) for cell in cells])
        for chunk in read_chunks(file_, lambda _: True, lambda: None)
        for line, cells in zip(
            chunk.lines, zip(*(array.to_pylist() for array in chunk.columns.values()), strict=True), strict=True
        )
    ]
    assert found == list(zip(begins, rows, strict=True))


@settings(max_examples=5 * settings().max_examples)
@given(
    st.text(st.sampled_from('ab",\n\r é\0\ufeff'), max_size=60),
    st.lists(st.sampled_from(["a,b,c\n", "a,b\n", '1,"x",é\n', '"p\nq",,\r\n', "\n", '"",2,"3""4"\n']), max_size=9),
    st.sampled_from([1, 5, 17, 1 << 18]),
    st.sampled_from([0, 4, 10**9]),
)
def test_rows_lines_and_faults_are_those_of_pythons_strict_reader(
    anything: str, lines: list[str], block: int, rare: int
) -> None:
    """Arrow parses plain lines; the oracle reads record by record with Python alone."""
    text = "x,y,z\n" + "".join(lines) + anything
    faults: list[RowFault] = []
    found: list[tuple[int, list[str]]] = []
    failed = 0
    with (
        mock.patch.object(csv_rows, "_BLOCK_CHARACTERS", block),
        mock.patch.object(csv_rows, "_QUOTES_ARE_RARE", rare),
    ):
        reader = csv_rows.CsvReader(io.StringIO(text, newline=""), "f", ",", faults.append)
        try:
            for chunk in reader.chunks([0, 1, 2]):
                cells = zip(*(column.to_pylist() for column in chunk.columns), strict=True)
                found += [(line, list(row)) for line, row in zip(chunk.lines, cells, strict=True)]
        except ImportFileError as error:
            failed = int(str(error).removeprefix("f, line ").partition(":")[0])
    expected, wrong, broken = strictly_read(text)
    assert failed == broken
    if not broken:
        assert (found, faults) == (expected, wrong)


def strictly_read(text: str) -> tuple[list[tuple[int, list[str]]], list[RowFault], int]:
    """Return rows with their lines, rows of another width, and the line of a record that cannot be read, or 0."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    next(reader)
    rows: list[tuple[int, list[str]]] = []
    wrong: list[RowFault] = []
    while True:
        begin = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return rows, wrong, 0
        except csv.Error:
            return rows, wrong, begin
        if len(row) == 3:
            rows.append((begin, row))
        elif row:
            wrong.append(RowFault(begin, f"{len(row)} cells for 3 columns"))
