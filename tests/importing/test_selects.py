"""SELECTs: joins, groups, windows and conditions over files; each event has the line that it comes from."""

import itertools
import random
import resource
import sys
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.importing.csv_rows import ImportFileError
from app.importing.database import Fence, ImportDatabase
from app.importing.import_report import ImportReport
from app.importing.importer import opened_import
from app.importing.mapping import build_mapping
from tests.support.imports import RETURNS, from_text, imported, mapping_of

pytestmark = pytest.mark.long

HEADER = "no,customer,amount,at\n"
ORDERS = "SELECT no AS id, min(\"at\") AS time, no AS order_id, {'amount': %s, 'currency': 'GBP'} AS total FROM returns"
SUM = ORDERS % "sum(CAST(amount AS DECIMAL(12, 2)))" + " GROUP BY no"


def test_an_event_of_a_group_has_the_line_of_its_first_row(tmp_path: Path) -> None:
    text = HEADER + "2,K,1,2026-01-02\n1,K,2.50,2026-01-01\n2,K,3,2026-01-03\n"
    made = from_text(tmp_path, mapping_of(SUM, "purchase.completed"), text)
    assert [(one["id"], one["sequence"], one["data"]["total"]["amount"]) for one in made.events] == [
        ("2", "2", "4.00"),
        ("1", "3", "2.50"),
    ]


@pytest.mark.parametrize("cast", ["CAST", "TRY_CAST"])
def test_a_group_with_an_unreadable_amount_is_rejected_whole(tmp_path: Path, cast: str) -> None:
    """A sum without one of its rows would be a wrong amount; TRY_CAST says that the row may be left out."""
    text = HEADER + "1,K,1,2026-01-02\n1,K,many,2026-01-02\n2,K,3,2026-01-03\n"
    select = SUM.replace("CAST", cast)
    made = from_text(tmp_path, mapping_of(select, "purchase.completed"), text)
    assert made.amounts == (["3.00 GBP"] if cast == "CAST" else ["1.00 GBP", "3.00 GBP"])
    if cast == "CAST":
        (rejected,) = made.report.rejected
        assert (rejected.line, rejected.field) == (3, "amount")
        assert "amount 'many'" in rejected.message


def test_three_files_are_joined(tmp_path: Path) -> None:
    files = {
        "orders.csv": "order_id,customer_id,purchased\no1,c1,2018-01-01 10:00:00\no2,c2,2018-01-02 10:00:00\n",
        "items.csv": "order_id,price,freight\no1,10.00,1.50\no1,5.00,0.50\no2,7.00,\n",
        "reviews.csv": "review_id,order_id,score,made\nr1,o1,5,2018-02-01 00:00:00\nr2,o9,1,2018-02-01 00:00:00\n",
    }
    paths = [tmp_path / name for name in files]
    for path in paths:
        path.write_text(files[path.name])
    purchases = """
        SELECT order_id AS id, purchased AS time, order_id, customer_id, {'amount': sum(CAST(price AS DECIMAL(9, 2))
          + coalesce(CAST(freight AS DECIMAL(9, 2)), 0)), 'currency': 'BRL'} AS total
        FROM orders JOIN items USING (order_id) GROUP BY order_id, customer_id, purchased"""
    reviews = """
        SELECT review_id AS id, made AS time, customer_id, 'review' AS instrument, score, 1 AS worst, 5 AS best
        FROM reviews JOIN orders USING (order_id)"""
    mapping = mapping_of(
        files={"orders": None, "items": {}, "reviews": {}},
        events=[
            {"type": "purchase.completed", "select": purchases},
            {"type": "feedback.received", "select": reviews},
        ],
    )
    made = imported(tmp_path, mapping, paths)
    assert [(one["id"], one["data"].get("score"), one["data"]["customer_id"]) for one in made.events] == [
        ("o1", None, "c1"),
        ("o2", None, "c2"),
        ("r1", 5, "c1"),
    ]
    assert made.events[0]["data"]["total"]["amount"] == "17.00"


@pytest.mark.parametrize(("at", "year"), [("03/06/26 09:00", "26"), ("30/12/1899 00:00", "1899")])
def test_a_year_that_no_record_has_is_rejected_with_the_way_to_read_two_digits(
    tmp_path: Path, at: str, year: str
) -> None:
    made = from_text(tmp_path, mapping_of(), HEADER + f"1,K,4.00,{at}\n2,K,5.00,02/06/2026 09:00\n")
    assert (made.amounts, made.faults) == (["5.00 GBP"], [(2, "at")])
    assert year in made.report.rejected[0].message
    assert "%y" in made.report.rejected[0].message
    two_digits = mapping_of(RETURNS.replace("%Y", "%y"))
    assert from_text(tmp_path, two_digits, HEADER + "1,K,4.00,03/06/26 09:00\n").events[0]["time"][:4] == "2026"


@pytest.mark.parametrize("amount", ["0.40", "007.5", "1e0"])
def test_a_text_is_compared_with_a_number_as_a_number(tmp_path: Path, amount: str) -> None:
    """DuckDB alone casts the text to a whole number, so that `'0.40' > 0` is false."""
    text = HEADER + f"1,K,{amount},02/06/2026 09:00\n"
    made = from_text(tmp_path, mapping_of(RETURNS + " WHERE amount > 0"), text)
    assert len(made.events) + made.report.rejected_count == 1


def test_rows_that_a_select_leaves_out_are_counted_with_their_reasons(tmp_path: Path) -> None:
    select = RETURNS.replace("AS total", "AS total, CASE WHEN amount = 0 THEN 'nothing paid' END AS _skip")
    text = HEADER + "1,K,0.00,02/06/2026 09:00\n2,K,1,02/06/2026 09:00\n"
    made = from_text(tmp_path, mapping_of(select), text)
    assert (made.amounts, dict(made.report.skipped)) == (["1.00 GBP"], {"nothing paid": 1})


def test_computed_amounts_are_rounded_half_even_and_texts_are_exact(tmp_path: Path) -> None:
    text = HEADER + "1,K,0.125,02/06/2026 09:00\n2,K,0.135,02/06/2026 09:00\n"
    computed = RETURNS.replace("'amount': amount", "'amount': CAST(amount AS DECIMAL(9, 3))")
    assert from_text(tmp_path, mapping_of(computed), text).amounts == ["0.12 GBP", "0.14 GBP"]
    made = from_text(tmp_path, mapping_of(), text)
    assert (made.faults, "round the amount" in made.report.rejected[0].message) == (
        [(2, "amount"), (3, "amount")],
        True,
    )


def test_one_id_with_two_contents_is_rejected_and_with_one_is_a_duplicate(tmp_path: Path) -> None:
    row = "1,K,4.00,02/06/2026 09:00\n"
    made = from_text(tmp_path, mapping_of(), HEADER + row + row + row.replace("4.00", "5.00"))
    assert (len(made.events), made.report.duplicate) == (1, 1)
    assert [(one.line, one.code) for one in made.report.rejected] == [(4, "id_reused")]


@pytest.mark.parametrize(
    "time", ["to_timestamp(1780000000)", "TIMESTAMPTZ '2026-05-28 22:26:40+02'", "'2026-05-28T22:26:40+02:00'"]
)
def test_instants_with_a_zone_stay_instants(tmp_path: Path, time: str) -> None:
    select = RETURNS.replace("try_strptime(\"at\", '%d/%m/%Y %H:%M')", time)
    made = from_text(tmp_path, mapping_of(select), HEADER + "1,K,4.00,x\n")
    assert [one["time"] for one in made.events] == ["2026-05-28T20:26:40.000000Z"]


def test_ids_have_the_prefix_of_the_mapping(tmp_path: Path) -> None:
    made = from_text(tmp_path, mapping_of(id_prefix="v2/"), HEADER + "1,K,4.00,02/06/2026 09:00\n")
    assert [one["id"] for one in made.events] == ["v2/1"]


def test_events_of_several_selects_come_in_the_order_of_lines(tmp_path: Path) -> None:
    odd, even = (f"{RETURNS} WHERE CAST(no AS INTEGER) % 2 = {rest}" for rest in (1, 0))
    events = [{"type": "purchase.returned", "select": one} for one in (odd, even)]
    text = HEADER + "".join(f"{n},K,4.00,02/06/2026 09:00\n" for n in range(1, 30))
    made = from_text(tmp_path, mapping_of(events=events), text)
    assert [one["id"] for one in made.events] == [str(n) for n in range(1, 30)]


def test_a_select_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    endless = RETURNS.replace("FROM returns", "FROM returns, range(100000000) a, range(100000) b WHERE a.range = -1")
    path = tmp_path / "returns.csv"
    path.write_text(HEADER + "1,K,4.00,02/06/2026 09:00\n")
    with (
        opened_import(
            build_mapping(mapping_of(endless)), [path], tmp_path, ImportReport(), str, Fence(64, 0.5)
        ) as made,
        pytest.raises(ImportFileError, match="took longer than"),
    ):
        made.load(lambda _: None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot bound the memory of a process")
@pytest.mark.parametrize("value", ["len(range(200000000))", "length(repeat('x', 1500000000))"])
def test_a_value_that_takes_too_much_memory_is_stopped(tmp_path: Path, value: str) -> None:
    """DuckDB's own limit counts no lists and texts. Each of these would take 1.5 GB."""
    select = RETURNS.replace("no AS id", f"no || {value} AS id")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(ImportFileError, match="more memory than it may use: raise --memory"):
        from_text(tmp_path, mapping_of(select), HEADER + "1,K,4.00,02/06/2026 09:00\n")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize(
    "text",
    ["amount", "coalesce(amount, '0')", "CASE WHEN no = '1' THEN amount END", "json_object('a', amount)->>'$.a'"],
)
@pytest.mark.parametrize("kind", ["INTEGER", "TINYINT", "INT8", "UHUGEINT"])
def test_a_cast_to_a_whole_number_neither_rounds_a_text_nor_reads_signs_of_programs(
    tmp_path: Path, text: str, kind: str
) -> None:
    """DuckDB alone reads `1.5` and `15e-1` as 2, `1e-1` as 0, `0x1F` as 31 and `1_0` as 10."""
    cells = ("7", " 8.0", "1.5", "15e-1", "1e-1", "0x1F", "1_0")
    rows = "".join(f"1,K,{cell},02/06/2026 09:00\n" for cell in cells)
    select = RETURNS.replace("no AS id", "_line || no AS id").replace(
        "'amount': amount", f"'amount': CAST({text} AS {kind})::BIGINT"
    )
    made = from_text(tmp_path, mapping_of(select), HEADER + rows)
    assert made.amounts == ["7.00 GBP", "8.00 GBP"]
    assert [one.line for one in made.report.rejected] == [4, 5, 6, 7, 8]


def test_texts_of_a_view_are_cast_exactly_and_its_numbers_are_rounded(tmp_path: Path) -> None:
    view = 'SELECT _line AS n, "at", amount AS paid, CAST(amount AS DECIMAL(9, 2)) AS amount FROM returns'
    select = """SELECT n AS id, try_strptime("at", '%d/%m/%Y %H:%M') AS time,
                       {'amount': CAST(COLUMN AS INTEGER), 'currency': 'GBP'} AS total FROM sums"""
    rows = HEADER + "1,K,3.00,02/06/2026 09:00\n2,K,1.75,02/06/2026 09:00\n"
    made = {
        column: from_text(tmp_path, mapping_of(select.replace("COLUMN", column), views={"sums": view}), rows)
        for column in ("paid", "amount")
    }
    assert made["paid"].amounts == ["3.00 GBP"]
    assert [one.line for one in made["paid"].report.rejected] == [3]
    assert made["amount"].amounts == ["3.00 GBP", "2.00 GBP"]


@pytest.mark.parametrize(
    ("expression", "cell", "says"),
    [
        ("10 // (CAST(customer AS INTEGER) - 1)", "1", "Division by zero"),
        ('from_json(customer, \'{"a": "JSON"}\').a', "bad", "Malformed JSON"),
        ("timezone(customer, TIMESTAMP '2026-01-01')", "CEST", "customer 'CEST': no time zone: CEST, such as Europe/"),
    ],
)
def test_a_value_that_a_function_refuses_rejects_its_row(tmp_path: Path, expression: str, cell: str, says: str) -> None:
    """Division by zero, a text that is no JSON, and an unknown zone are no errors of data for DuckDB."""
    select = RETURNS.replace("customer AS", f"CAST({expression} AS VARCHAR) AS")
    text = HEADER + f"1,,4.00,02/06/2026 09:00\n2,{cell},4.00,02/06/2026 09:00\n"
    made = from_text(tmp_path, mapping_of(select), text)
    assert ([one["id"] for one in made.events], made.faults) == (["1"], [(3, "customer")])
    assert says in made.report.rejected[0].message


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("customer AS", "to_json(returns)->>'$.customer' AS"),
        ("FROM returns", "FROM returns WHERE COLUMNS(* EXCLUDE (_bad)) IS NOT NULL"),
    ],
)
def test_a_row_as_a_whole_has_every_column(tmp_path: Path, before: str, after: str) -> None:
    """Only the columns that a SELECT names are read; a row as a whole names all of them."""
    select = RETURNS.replace("customer AS", "no AS") if before.startswith("FROM") else RETURNS
    text = HEADER + "1,K-1,4.00,02/06/2026 09:00\n" + ("2,,1,x\n" if "FROM" in before else "")
    made = from_text(tmp_path, mapping_of(select.replace(before, after)), text)
    assert [one["data"]["customer_id"] for one in made.events] == ["K-1" if "json" in after else "1"]
    assert made.faults == []


def test_names_of_results_may_be_in_capital_letters(tmp_path: Path) -> None:
    made = from_text(tmp_path, mapping_of(RETURNS.replace("AS id", "AS ID")), HEADER + "1,K,4.00,02/06/2026 09:00\n")
    assert [one["id"] for one in made.events] == ["1"]


@pytest.mark.parametrize("score", ["'NaN'::DOUBLE", "'inf'::DOUBLE", "'1e999999999'", "'1e400'", "'nan'"])
def test_a_number_is_finite(tmp_path: Path, score: str) -> None:
    select = f"SELECT no AS id, TIMESTAMP '2026-01-01' AS time, customer AS customer_id, 'csat' AS instrument, {score} AS score, 1 AS worst, 5 AS best FROM returns"
    made = from_text(tmp_path, mapping_of(select, "feedback.received"), HEADER + "1,K,x,x\n")
    assert [(one.line, "is not a number" in one.message) for one in made.report.rejected] == [(2, True)]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "returns.csv"
    path.write_text(HEADER + "1,K,4.00,02/06/2026 09:00\n")
    data = tmp_path / "data"
    with opened_import(build_mapping(mapping_of()), [path], data, ImportReport(), str) as made:
        made.load(lambda _: None)
        assert list((data / "import").iterdir())
    assert not data.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/stolen.csv'",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "LOAD spatial",
        "SET memory_limit = '10GB'",
        "SET enable_external_access = true",
        "PRAGMA database_list; COPY (SELECT 1) TO '/tmp/stolen.csv'",
    ],
)
def test_the_fence_stops_statements_that_reach_outside(tmp_path: Path, statement: str) -> None:
    with ImportDatabase(tmp_path, str, Fence()) as database, pytest.raises(duckdb.Error):
        database.run(statement)


@settings(max_examples=max(10, settings().max_examples // 5))
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10_000)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_sums_are_those_of_python_in_any_order_of_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int]], shuffled: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    lines = [f"{order},K,{minor // 100}.{minor % 100:02d},2026-01-01\n" for order, minor in rows]
    expected = {
        str(order): sum(minor for _, minor in some)
        for order, some in itertools.groupby(sorted(rows), key=lambda row: row[0])
    }
    for _ in range(2):
        made = from_text(folder, mapping_of(SUM, "purchase.completed"), HEADER + "".join(lines))
        found = {one["id"]: round(float(one["data"]["total"]["amount"]) * 100) for one in made.events}
        assert found == expected
        shuffled.shuffle(lines)
