"""Files as outsiders send them: nothing false is recorded silently, and each error names place and remedy."""

import decimal
import gzip
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.importing import csv_rows
from app.importing.csv_rows import ImportFileError, RowFault
from app.importing.excel_rows import ExcelReader
from app.importing.mapping import MappingError, TableOptions
from app.importing.source_files import FileReport, SourceFile
from tests.support.documents import Document
from tests.support.imports import RETURNS, from_text, imported, mapping_of
from tests.support.workbooks import workbook

NAMES = ["no", "customer", "amount", "at"]
AT = datetime.fromisoformat("2026-06-02T09:00")
TYPED = RETURNS.replace("try_strptime(\"at\", '%d/%m/%Y %H:%M')", '"at"')
HEADER = "no,customer,amount,at\n"
LINE = {"no": 1, "customer": "K-1", "amount": "4.00", "at": "2026-06-02"}


def parquet(folder: Path, name: str = "returns.parquet", **columns: Any) -> Path:
    """Write a Parquet file of two returns with some other columns."""
    own = {"no": ["1", "2"], "customer": ["K-1", "K-2"], "amount": ["4.00", "5.00"], "at": [AT, AT]}
    path = folder / name
    pq.write_table(pa.table(own | columns), path)
    return path


def rows_of(path: Path, content: bytes, **options: Any) -> tuple[list[dict[str, Any]], list[RowFault], list[str]]:
    """Return the rows of a file, its faults and its warnings, without a database."""
    path.write_bytes(content)
    faults: list[RowFault] = []
    warnings: list[str] = []
    file = SourceFile(path, TableOptions("t", **options), FileReport(faults.append, warnings.append, lambda _: None))
    rows: list[dict[str, Any]] = []
    for _, columns in file.chunks(lambda _: True):
        rows += pa.table(columns).to_pylist()
    return rows, faults, warnings


def excel(rows: list[list[Any]], sheet: str | None = None, **parts: str) -> tuple[list[Any], list[RowFault], list[str]]:
    """Return the first column of a workbook, its faults and its warnings."""
    faults: list[RowFault] = []
    warnings: list[str] = []
    reader = ExcelReader(workbook(rows, **parts), "x.xlsx", sheet, faults.append, warnings.append)
    found = [value for _, columns in reader.chunks([0]) for value in columns[0].to_pylist()]
    return found, faults, warnings


# ---------------------------------------------------------------------- Excel


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ((' t="e"', "<v>#N/A</v>"), "no has the error #N/A"),
        ((' t="e"', "<f>1/0</f><v>#DIV/0!</v>"), "no has the error #DIV/0!"),
        (("", "<f>2+2</f><v></v>"), "a formula without a value"),
        (("", "<f>2+2</f><v />"), "a formula without a value"),
        (1234567890123456789, "more digits than the 15 that Excel keeps"),
    ],
)
def test_a_cell_without_an_exact_value_rejects_its_row(cell: object, says: str) -> None:
    """Two ids of 19 digits would be one, and an error a blank cell."""
    found, faults, _ = excel([["no"], ["1"], [cell], ["2"]])
    assert found == ["1", "2"]
    assert [(fault.line, says in fault.message) for fault in faults] == [(3, True)]


def test_a_formula_with_an_empty_text_is_blank_and_a_table_may_begin_anywhere() -> None:
    empty = (' t="str"', "<f>A1</f><v></v>")
    assert excel([["no", "b"], ["1", empty], [123456.0, "x"]])[:2] == (["1", "123456"], [])
    assert excel([[], ["", "no"], ["", "7"]])[0] == ["7"]


def test_hidden_sheets_are_passed_over_and_others_are_named() -> None:
    one, two = ('<sheet name="A" sheetId="1" state="hidden" r:id="r1"/>', '<sheet name="B" sheetId="2" r:id="r1"/>')
    assert excel([["no"], ["1"]], sheets=one + two)[2] == []
    assert "the sheet 'B' is read, and not 'C'" in excel([["no"]], sheets=one + two + two.replace("B", "C"))[2][0]
    with pytest.raises(ImportFileError, match="all sheets are hidden"):
        excel([["no"]], sheets=one)
    with pytest.raises(ImportFileError, match="no sheet 'D'; it has 'A', 'B'"):
        excel([["no"]], "D", sheets=one + two)


def test_a_sheet_that_no_memory_can_hold_is_refused() -> None:
    """The reader's process would be aborted."""
    with pytest.raises(ImportFileError, match="'S' reaches to XFD1048576: delete the cells outside"):
        excel([["no"]], head='<dimension ref="A1:XFD1048576"/>')


def test_an_encrypted_workbook_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="is encrypted"):
        rows_of(tmp_path / "x.xlsx", b"\xd0\xcf\x11\xe0" + "EncryptedPackage".encode("utf-16-le"))


# ---------------------------------------------------------------------- Parquet


def test_types_of_columns_stay_exact(tmp_path: Path) -> None:
    """Names are trimmed as those of CSV are; dictionaries differ from chunk to chunk; times may have nanoseconds."""
    nanoseconds = pa.array([1767607200123456789, 1767607200000000000], pa.timestamp("ns", tz="UTC"))
    path = parquet(tmp_path, at=nanoseconds, customer=pa.array(["K-1", None]).dictionary_encode())
    pq.write_table(pq.read_table(path).rename_columns([" no", "customer ", "amount", "at"]), path)
    made = imported(tmp_path, mapping_of(TYPED), [path])
    found = [(one["id"], one["data"].get("customer_id"), one["time"]) for one in made.events]
    assert found == [("1", "K-1", "2026-01-05T10:00:00.123456Z"), ("2", None, "2026-01-05T10:00:00.000000Z")]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("no", [1, 2], ["X-1", "2"]),
        ("at", [AT, AT], pa.array([AT, AT], pa.timestamp("us", tz="UTC"))),
        ("amount", *([decimal.Decimal(1).scaleb(-digits)] * 2 for digits in (2, 3))),
    ],
)
def test_a_column_has_one_type_in_all_files_of_a_table(tmp_path: Path, name: str, first: Any, second: Any) -> None:
    """Else the second file's values would be rounded, or moved to another zone, as they are stored."""
    paths = [parquet(tmp_path, "a.parquet", **{name: first}), parquet(tmp_path, "b.parquet", **{name: second})]
    with pytest.raises(ImportFileError, match=f"b.parquet: column '{name}' is .* in an earlier file.*UNION ALL"):
        imported(tmp_path, mapping_of(TYPED), paths)


def test_files_without_values_or_rows_have_the_columns_of_the_others(tmp_path: Path) -> None:
    files = {
        "a.parquet": {"customer": pa.nulls(2)},
        "b.parquet": {"no": ["3", "4"], "customer": pa.array([{"id": "K-3"}] * 2)},
    }
    paths = [parquet(tmp_path, name, **columns) for name, columns in files.items()]
    pq.write_table(pq.read_table(paths[1]).slice(0, 0), tmp_path / "c.parquet")
    select = mapping_of(TYPED.replace("customer AS", "customer.id AS"))
    made = imported(tmp_path, select, [*paths, tmp_path / "c.parquet"])
    assert [one["data"].get("customer_id") for one in made.events] == [None, None, "K-3", "K-3"]
    assert imported(tmp_path, select, [tmp_path / "c.parquet"]).events == []


def test_a_column_that_cannot_be_stored_or_read_is_an_error(tmp_path: Path) -> None:
    for columns, says in (
        (
            {"amount": pa.array([decimal.Decimal(1)] * 2, pa.decimal256(50, 2))},
            "returns.parquet: rows cannot be stored",
        ),
        ({"_line": [7, 8]}, "returns.parquet: each table has a _line of its own"),
    ):
        select = TYPED.replace("no AS", "_line || no AS")
        with pytest.raises(ImportFileError, match=says):
            imported(tmp_path, mapping_of(select), [parquet(tmp_path, **columns)])
    content = parquet(tmp_path, amount=["4.00" * 5_000, "5"]).read_bytes()
    with pytest.raises(ImportFileError, match="not a readable parquet file"):
        rows_of(tmp_path / "x.parquet", content[:4] + b"\xff" * 400 + content[404:])


# ---------------------------------------------------------------------- JSON Lines


def lines(*rows: Document | bytes) -> bytes:
    """Return JSON Lines."""
    return b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": 1, "A": 2}',
        b'{"a": "\xff"}',
        b'{"a\xff": 1}',
        b'{"a": ["\xff"]}',
        b'{"a": "\\ud800"}',
        b'{"a\\u0000": 1}',
        b'{"a": NaN}',
        b'{"a": ' + b"[" * 100_000,
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=range(10),
)
def test_a_line_that_is_no_clear_object_is_rejected(tmp_path: Path, line: bytes) -> None:
    rows, faults, _ = rows_of(tmp_path / "x.jsonl", lines({"a": 1}, line, b"", {"A": 12345678901234567890}))
    assert rows == [{"a": "1"}, {"a": "12345678901234567890"}]
    assert {fault.line for fault in faults} == {2}


def test_a_file_without_any_row_says_why(tmp_path: Path) -> None:
    for content, says in ((b"[\n{}\n]", "no row can be read; line 1: not a JSON object"), (b"", "the file is empty")):
        with pytest.raises(ImportFileError, match=says):
            from_text(tmp_path, mapping_of(), content, "returns.jsonl")


# ---------------------------------------------------------------------- CSV


def test_a_file_of_another_format_is_named_so(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    for name, content, says in (
        ("a.csv", buffer.getvalue(), "is a Parquet file, and is read as csv: say `format: parquet`"),
        ("a.jsonl", workbook([["no"]]), "is a workbook or a ZIP file"),
        ("a.csv", gzip.compress(b"a,b"), "give its name the ending .gz"),
        ("a.csv", b'{"a": 1}', "is JSON"),
        ("a.csv", b"a\0b,c\n1,2\n", "has a NUL"),
    ):
        with pytest.raises(ImportFileError, match=says):
            rows_of(tmp_path / name, content)


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "MOST_CHARACTERS", 1_000)
    monkeypatch.setattr(csv_rows, "_BLOCK_CHARACTERS", 10)
    for text in ("x" * 2_000, f"a,b\n{'x' * 2_000}", f'a,b\n"x","{"x" * 2_000}",\n'):
        with pytest.raises(ImportFileError, match="a line has 1,000 characters or more"):
            rows_of(tmp_path / "x.csv", text.encode())


def test_a_long_text_is_no_open_quote(tmp_path: Path) -> None:
    """Python's own limit is 131,072 characters; the body of a ticket may have more."""
    assert rows_of(tmp_path / "x.csv", b'a,b\n1,"' + b"x" * 200_000 + b'"\n')[0] == [{"a": "1", "b": "x" * 200_000}]


def test_line_breaks_in_the_name_of_a_column_are_spaces(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "x.csv", b'"amount\r\n(GBP)",b\n1,2\n')[0] == [{"amount (GBP)": "1", "b": "2"}]


def test_more_columns_than_a_table_can_have_are_refused(tmp_path: Path) -> None:
    more = ",".join(f"c{number}" for number in range(1_000))
    row = "1,K,4.00,02/06/2026 09:00" + "," * 1_000
    select = RETURNS.replace("FROM returns", "FROM (SELECT * FROM returns)")
    with pytest.raises(ImportFileError, match="at most 1,000 columns: name those that are needed"):
        from_text(tmp_path, mapping_of(select), f"{HEADER.strip()},{more}\n{row}\n")
    assert len(from_text(tmp_path, mapping_of(), f"{HEADER.strip()},{more}\n{row}\n").events) == 1


def test_two_files_with_the_name_of_one_table_are_refused(tmp_path: Path) -> None:
    mapping = mapping_of()
    del mapping["files"]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "returns.csv").write_text(HEADER)
    with pytest.raises(MappingError, match="same table by their names: name both in `files`"):
        imported(tmp_path, mapping, [tmp_path / "a" / "returns.csv", tmp_path / "b" / "Returns.csv"])


def test_the_name_of_a_file_may_have_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ret\udcff'urns.csv"
    path.write_text(HEADER + "1,K,x,02/06/2026 09:00\n")
    assert [one.line for one in imported(tmp_path, mapping_of(), [path]).report.rejected] == [2]
