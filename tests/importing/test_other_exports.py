"""Ten invented exports of other shapes, with mappings as docs/integrate/importing.md describes them.

Each has one wrong cell at least. Its rejection must name line, column and value; the other rows are recorded.
"""

import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.documents import Document
from tests.support.imports import imported
from tests.support.workbooks import workbook

pytestmark = pytest.mark.long


class Export(NamedTuple):
    """An export: its file, its mapping, and the events and rejections that it makes."""

    file: str
    content: bytes
    envelope: Document
    events: list[tuple[str, str]]
    """Type and SELECT."""
    made: list[tuple[str, str, object]]
    """Id, time, and a figure of each event."""
    rejected: list[tuple[int, str, str]]
    """Line, column, and value of each rejection."""


def total(event: Document) -> str:
    """Return the total of an event as text."""
    money = event["data"]["total"]
    return f"{money['amount']} {money['currency']}"


def parquet(columns: Document) -> bytes:
    """Return a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def german_till() -> Export:
    """Semicolons, decimal commas, Windows-1252, dates with points, and a last row of totals."""
    text = "Beleg;Datum;Käufer;Betrag €\n4711;24.12.2025 09:30;Jörg;1.234,50\n4712;24.12.2025 10:00;Ännchen;12,3,4\n"
    return Export(
        "till.csv",
        (text + "Summe;;;1.246,50\n").encode("cp1252"),
        {
            "time_zone": "Europe/Berlin",
            "files": {"till": {"delimiter": ";", "decimal": ",", "thousands": ".", "encoding": "cp1252"}},
        },
        [
            (
                "purchase.completed",
                """SELECT Beleg AS id, try_strptime(Datum, '%d.%m.%Y %H:%M') AS time, Beleg AS order_id,
                   {'amount': "Betrag €", 'currency': 'EUR'} AS total,
                   CASE WHEN Beleg = 'Summe' THEN 'row of totals' END AS _skip FROM till""",
            )
        ],
        [("4711", "2025-12-24T08:30:00", "1234.50 EUR")],
        [(3, "Betrag €", "12,3,4")],
    )


def utf16_excel_text() -> Export:
    """Text of a spreadsheet program: UTF-16 with a mark, tabs, quotes and line breaks in cells, CRLF."""
    text = 'id\tnote\tat\tamount\r\n1\t"two\r\nlines, ""quoted"""\t2026-01-05 10:00\t3.50\r\n2\tx\t05.01.2026\t4.00\r\n'
    return Export(
        "notes.txt",
        text.encode("utf-16"),
        {"time_zone": "Europe/London", "files": {"notes": {"format": "csv", "delimiter": "\t"}}},
        [
            (
                "purchase.returned",
                """SELECT id, "at" AS time, {'amount': amount, 'currency': 'GBP'} AS total
                   FROM notes WHERE note IS NOT NULL""",
            )
        ],
        [("1", "2026-01-05T10:00:00", "3.50 GBP")],
        [(4, "at", "05.01.2026")],
    )


def nested_json() -> Export:
    """Orders in JSON Lines: nested customers, items in a list, and times as milliseconds since 1970."""
    rows: list[Document] = [
        {"order": {"id": 7, "items": [{"price": "1.25", "n": 2}, {"price": "0.10", "n": 1}]}, "ts": 1_767_607_200_123},
        {"order": {"id": 8, "items": [{"price": "cheap", "n": 2}]}, "ts": 1_767_607_200_123},
        {"order": {"id": 9, "items": [{"price": "1.00", "n": 1}]}, "ts": "soon"},
    ]
    return Export(
        "orders.jsonl",
        "".join(json.dumps(row) + "\n" for row in rows).encode(),
        {
            "files": {"orders": {}},
            "views": {
                "items": """SELECT "order"->>'$.id' AS id, ts, unnest(from_json("order"->'$.items', '["JSON"]')) AS item
                            FROM orders""",
                "sums": """SELECT id, any_value(ts) AS ts, sum(CAST(item->>'$.price' AS DECIMAL(9, 2))
                           * CAST(item->>'$.n' AS INTEGER)) AS total FROM items GROUP BY id""",
            },
        },
        [
            (
                "purchase.completed",
                """SELECT id, make_timestamp(1000 * CAST(ts AS BIGINT)) || 'Z' AS time, id AS order_id,
                   {'amount': total, 'currency': 'USD'} AS total FROM sums""",
            )
        ],
        [("7", "2026-01-05T10:00:00", "2.60 USD")],
        [(2, "item", "cheap"), (3, "ts", "soon")],
    )


def excel_dates() -> Export:
    """A workbook whose times are numbers of days since 1899-12-30, with an empty row."""
    rows: list[list[object]] = [["no", "day", "paid"], [1, 46027.4375, 9.99], [], [2, "tomorrow", 1.5]]
    return Export(
        "book.xlsx",
        workbook(rows),
        {"time_zone": "Europe/London", "files": {"book": {}}},
        [
            (
                "purchase.returned",
                """SELECT no AS id, TIMESTAMP '1899-12-30' + to_seconds(round(CAST(day AS DOUBLE) * 86400)) AS time,
                   {'amount': paid, 'currency': 'GBP'} AS total FROM book""",
            )
        ],
        [("1", "2026-01-05T10:30:00", "9.99 GBP")],
        [(4, "day", "tomorrow")],
    )


def typed_parquet() -> Export:
    """Parquet with a decimal, a time with a zone and a boolean."""
    zoned = pa.timestamp("us", tz="America/New_York")
    times = pa.array([datetime.fromisoformat("2026-01-05T10:00:00+00:00")] * 3, zoned)
    amounts = pa.array(["5.00", "-1.00", "2.00"]).cast(pa.decimal128(9, 2))
    return Export(
        "rows.parquet",
        parquet({"id": [1, 2, 3], "at": times, "amount": amounts, "kept": [True, False, None]}),
        {"files": {"rows": {}}},
        [
            (
                "purchase.returned",
                """SELECT id, "at" AS time, {'amount': amount, 'currency': 'CAD'} AS total, kept AS item_kept
                   FROM rows""",
            )
        ],
        [("1", "2026-01-05T10:00:00", "5.00 CAD"), ("3", "2026-01-05T10:00:00", "2.00 CAD")],
        [(2, "amount", "-1.00")],
    )


def wide_table() -> Export:
    """A spreadsheet with a column for each month, to be turned into rows."""
    text = "shop,2026-01,2026-02\nLeeds,10.00,n/a\nYork,abc,7.00\n"
    return Export(
        "months.csv",
        text.encode(),
        {"time_zone": "Europe/London", "files": {"months": {"blank": ["n/a"]}}},
        [
            (
                "purchase.completed",
                """SELECT shop || '/' || month AS id, month || '-28' AS time, shop || '/' || month AS order_id,
                   {'amount': amount, 'currency': 'GBP'} AS total
                   FROM (SELECT shop, unnest(['2026-01', '2026-02']) AS month,
                                unnest(["2026-01", "2026-02"]) AS amount FROM months)
                   WHERE amount IS NOT NULL""",
            )
        ],
        [("Leeds/2026-01", "2026-01-28T00:00:00", "10.00 GBP"), ("York/2026-02", "2026-02-28T00:00:00", "7.00 GBP")],
        [(3, "amount", "abc")],
    )


def symbols_in_cells() -> Export:
    """Amounts with the symbol of their currency in the same cell."""
    text = "ref,when,value\nA,2026-01-05T10:00:00Z,£12.00\nB,2026-01-05T11:00:00Z,€ 3.5\nC,2026-01-05T12:00:00Z,¥900\n"
    return Export(
        "mixed.csv",
        (text + "D,2026-01-05T12:00:00Z,12 gold\n").encode(),
        {"files": {"mixed": {}}},
        [
            (
                "purchase.returned",
                """SELECT ref AS id, "when" AS time, {'amount': trim(value, '£€¥ '),
                     'currency': CASE left(value, 1) WHEN '£' THEN 'GBP' WHEN '€' THEN 'EUR' WHEN '¥' THEN 'JPY' END}
                     AS total FROM mixed""",
            )
        ],
        [
            ("A", "2026-01-05T10:00:00", "12.00 GBP"),
            ("B", "2026-01-05T11:00:00", "3.50 EUR"),
            ("C", "2026-01-05T12:00:00", "900 JPY"),
        ],
        [(5, "value", "12 gold")],
    )


def status_history() -> Export:
    """A table of changes of status, where the last change of a case counts."""
    text = (
        "case,status,changed,by\n17,open,2026-01-05T10:00:00Z,A-1\n17,closed,2026-01-05T12:00:00Z,A-2\n"
        "18,closed,2026-01-05T13:00:00Z,A-3\n18,open,2026-01-05T14:00:00Z,A-3\n19,closed,yesterday,A-4\n"
    )
    return Export(
        "changes.csv",
        text.encode(),
        {
            "files": {"changes": {}},
            "views": {
                "latest": """SELECT * FROM changes
                             QUALIFY row_number() OVER (PARTITION BY "case" ORDER BY changed DESC) = 1"""
            },
        },
        [
            (
                "interaction.resolved",
                """SELECT "case" || '/closed' AS id, changed AS time, "case" AS interaction_id, "by" AS agent_id
                   FROM latest WHERE status = 'closed'""",
            )
        ],
        [("17/closed", "2026-01-05T12:00:00", "A-2")],
        [(6, "changed", "yesterday")],
    )


def twelve_hours() -> Export:
    """American dates on a clock of 12 hours, with the zone's name in each row."""
    text = (
        "id,stamp,zone,amount\n1,01/05/2026 01:15 PM,America/Chicago,5.00\n2,01/05/2026 13:15 PM,America/Chicago,5.00\n"
    )
    return Export(
        "us.csv",
        text.encode(),
        {"files": {"us": {}}},
        [
            (
                "purchase.returned",
                """SELECT id, timezone(zone, try_strptime(stamp, '%m/%d/%Y %I:%M %p')) AS time,
                   {'amount': amount, 'currency': 'USD'} AS total FROM us""",
            )
        ],
        [("1", "2026-01-05T19:15:00", "5.00 USD")],
        [(3, "zone, stamp", "01/05/2026 13:15 PM")],
    )


def survey_answers() -> Export:
    """Answers of a survey: all cells quoted, truth values as words, a comment with commas, and a score out of range."""
    text = '"id","who","when","score","liked"\n"1","K-1","2026-01-05T10:00Z","4","Yes"\n"2","K-2","2026-01-05T10:00Z","9+","No"\n'
    return Export(
        "survey.csv",
        text.encode("utf-8-sig"),
        {"files": {"survey": {"required": ["score"], "optional": ["note"]}}},
        [
            (
                "feedback.received",
                """SELECT id, "when" AS time, who AS customer_id, 'csat' AS instrument, score, 1 AS worst, 5 AS best,
                   note AS comment FROM survey WHERE liked IN ('Yes', 'No')""",
            )
        ],
        [("1", "2026-01-05T10:00:00", 4)],
        [(3, "score", "9+")],
    )


FIGURES: dict[str, Callable[[Document], object]] = {
    "feedback.received": lambda event: event["data"]["score"],
    "interaction.resolved": lambda event: event["data"]["agent_id"],
}


@pytest.mark.parametrize(
    "export",
    [
        german_till,
        utf16_excel_text,
        nested_json,
        excel_dates,
        typed_parquet,
        wide_table,
        symbols_in_cells,
        status_history,
        twelve_hours,
        survey_answers,
    ],
)
def test_an_export_of_another_shape_is_imported_and_its_wrong_cells_are_named(
    tmp_path: Path, export: Callable[[], Export]
) -> None:
    one = export()
    path = tmp_path / one.file
    path.write_bytes(one.content)
    events = [{"type": name, "select": select} for name, select in one.events]
    made = imported(tmp_path, {"source": "shop", **one.envelope, "events": events}, [path])
    figure = FIGURES.get(one.events[0][0], total)
    assert [(event["id"], event["time"][:19], figure(event)) for event in made.events] == one.made
    assert [(fault.line, fault.field) for fault in made.report.rejected] == [fault[:2] for fault in one.rejected]
    for fault, (_, _, value) in zip(made.report.rejected, one.rejected, strict=True):
        assert value in fault.message
    assert made.report.nothing == []
