"""The lists of the HTTP API: pages to the end, order, ranges of days, CSV, Parquet, and refused parameters."""

import csv
import io
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
import sqlalchemy as sa

from app.runtime.session import Session
from domain.documents.rows import ActionRow, CaseRow, FlagRow
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from projections.parquet import ListWriter
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.http_api import read_current, served
from tests.support.upstreams import Upstream

LISTS = ("balances", "actions", "escalations", "flags", "cases", "trail")
SHIFT = "resolution.shift.started.v1"
FORMULA = '=HYPERLINK("http://x")'


@pytest_asyncio.fixture
async def api(session: Session) -> AsyncIterator[tuple[Upstream, httpx.AsyncClient]]:
    """An API over four agents' actions, and events with event times on both sides of a midnight in London."""
    async with served(session) as (upstream, client):
        for agent in ("B-1", "C-1", "D-1"):
            assert (await upstream.action(f"r-{agent}", agent_id=agent, reason=FORMULA))["outcome"] == "taken"
        for name, when in (("before", "2026-06-01T22:59:59Z"), ("after", "2026-06-01T23:00:00Z")):
            await upstream.record(event(name, "interaction.opened", time=when, interaction_id=f"I-{name}"))
        for name, day in (("first", 1), ("second", 2)):
            told: Document = {"escalation_id": f"E-{name}", "amount": gbp("30.00"), "requested_by": "B-1"}
            await upstream.record(event(f"e-{name}", "escalation.reported", time=f"2026-05-0{day}T12:00:00Z", **told))
        for path in LISTS:
            await read_current(client, path)
        yield upstream, client


async def _pages(client: httpx.AsyncClient, path: str, **query: Any) -> list[Document]:
    """Return the items of all pages, following `next`."""
    found: list[Document] = []
    while True:
        page = await read_current(client, path, **query)
        found += page["items"]
        if page["next"] is None:
            return found
        query["after"] = page["next"]


async def test_every_list_has_a_next_until_its_end(api: tuple[Upstream, httpx.AsyncClient]) -> None:
    """No page is empty, and balances are no exception."""
    _, client = api
    for path in LISTS:
        for order in ("asc", "desc"):
            whole = (await read_current(client, path, limit=1000, order=order))["items"]
            assert await _pages(client, path, limit=1, order=order) == whole
            backwards = await read_current(client, path, limit=1000, order={"asc": "desc", "desc": "asc"}[order])
            assert backwards["items"] == whole[::-1]
    assert len(await _pages(client, "balances", limit=1)) == 4


async def test_escalations_of_other_systems_are_listed(api: tuple[Upstream, httpx.AsyncClient]) -> None:
    _, client = api
    found = (await read_current(client, "escalations", status="waiting", agent="B-1"))["items"]
    assert [(one["escalation_id"], one["reported_by"]) for one in found] == [("E-second", "crm"), ("E-first", "crm")]
    day = {"from": "2026-05-02", "to": "2026-05-02"}
    assert [one["escalation_id"] for one in (await read_current(client, "escalations", **day))["items"]] == ["E-second"]
    assert (await read_current(client, "escalations", agent="C-1"))["items"] == []


async def test_the_newest_comes_first(api: tuple[Upstream, httpx.AsyncClient]) -> None:
    upstream, client = api
    first = await read_current(client, "actions", limit=2)
    assert [one["agent_id"] for one in first["items"]] == ["D-1", "C-1"]
    await upstream.action("r-new", agent_id="E-1")
    second = await read_current(client, "actions", limit=2, after=first["next"])
    assert [one["agent_id"] for one in second["items"]] == ["B-1", "A-1"]


async def test_the_next_page_is_also_a_link(api: tuple[Upstream, httpx.AsyncClient]) -> None:
    _, client = api
    first = await client.get("/api/v1/actions", params={"limit": 2, "kind": "refund", "from": "2020-01-01"})
    second = await client.get(first.links["next"]["url"])
    assert second.json()["items"][0]["position"] < first.json()["items"][-1]["position"]
    last = await client.get("/api/v1/actions", params={"limit": 1000})
    assert (len(last.json()["items"]) >= 4, "next" in last.links) == (True, False)


async def test_days_are_those_of_the_policys_zone_or_of_another(api: tuple[Upstream, httpx.AsyncClient]) -> None:
    _, client = api

    async def opened(**query: Any) -> list[str]:
        found = await read_current(client, "trail", **query)
        return [one["interaction_id"] for one in found["items"] if one["interaction_id"]]

    policy_zone = (await read_current(client, "trail", **{"from": "2026-06-01"}))["time_zone"]
    london = {"tz": "Europe/London"}
    assert await opened(**london, **{"from": "2026-06-01", "to": "2026-06-01"}) == ["I-before"]
    assert await opened(**london, **{"from": "2026-06-02", "to": "2026-06"}) == ["I-after"]
    assert await opened(tz="UTC", **{"from": "2026-06-01", "to": "2026-06-01"}) == ["I-after", "I-before"]
    assert await opened(**{"from": "2026-06-01T22:59:59Z", "to": "2026-06-01T23:00:00Z"}) == ["I-before"]
    told = await read_current(client, "trail", **london, **{"from": "2026-06-02", "to": "2026-06-03"})
    assert [told[name] for name in ("from", "to", "time_zone", "by_time")] == [
        "2026-06-01T23:00:00.000000Z",
        "2026-06-03T23:00:00.000000Z",
        "Europe/London",
        "happened",
    ]
    assert policy_zone in {"UTC", "Europe/London"}


@pytest.mark.parametrize("path", ["trail", "actions", "escalations"])
async def test_the_total_of_a_list_is_that_of_all_its_pages(api: tuple[Upstream, httpx.AsyncClient], path: str) -> None:
    _, client = api
    for query in ({}, {"from": "2026-05-01", "to": "2026-06-02"}, {"agent": "B-1"}, {"amount": "5.00 to 30.00 GBP"}):
        every = await _pages(client, path, limit=2, **query)
        assert every or path != "trail"
        for limit in (1, 1000):
            page = await read_current(client, path, limit=limit, count=True, **query)
            assert page["total"] == len(every), (query, limit)


async def test_a_range_of_recorded_times_has_the_events_recorded_in_it(api: tuple[Upstream, httpx.AsyncClient]) -> None:
    """With `by_time=recorded`, a late event is listed at the time at which the ledger recorded it."""
    upstream, client = api
    old: Document = {"employee_id": "B-1", "obstacle_id": "O-0", "text": "t", "kind": "form"}
    await upstream.record(event("o-0", "obstacle.reported", time="2026-01-01T00:00:00Z", **old))
    trail = (await read_current(client, "trail", order="asc", limit=1000))["items"]
    (recorded,) = [one["recorded"] for one in trail if one["type"].endswith("obstacle.reported.v1")]
    for bound, ids in (("from", ["O-0"]), ("to", [])):
        found = await read_current(client, "obstacles", by_time="recorded", **{bound: recorded})
        assert ([one["obstacle_id"] for one in found["items"]], found["by_time"]) == (ids, "recorded"), bound
    begin, end = trail[len(trail) // 3]["recorded"], trail[-3]["recorded"]
    within = {one["position"] for one in trail if begin <= one["recorded"] < end}
    assert any(one["time"] < begin for one in trail if one["position"] in within)
    for path in ("trail", "actions", "escalations"):
        every = {one["position"] for one in (await read_current(client, path, limit=1000))["items"]}
        query = {"from": begin, "to": end, "by_time": "recorded"}
        found = await read_current(client, path, limit=1000, **query)
        assert {one["position"] for one in found["items"]} == every & within
        for order in ("asc", "desc"):
            pages = [one["position"] for one in await _pages(client, path, limit=2, order=order, **query)]
            assert pages == sorted(every & within, reverse=order == "desc")
        assert (found["by_time"], found["from"]) == ("recorded", begin)


async def test_the_changes_of_a_list_are_what_differs_from_an_earlier_position(
    api: tuple[Upstream, httpx.AsyncClient],
) -> None:
    """Beside them stands the total of the whole list."""
    upstream, client = api
    told: Document = {"escalation_id": "E-third", "amount": gbp("30.00"), "requested_by": "F-1"}
    await upstream.record(event("e-third", "escalation.reported", time="2026-05-03T12:00:00Z", **told))
    denied: Document = {"escalation_id": "E-third", "verdict": "denied", "decided_by": "M-1"}
    await upstream.record(event("e-end", "escalation.outcome_reported", time="2026-05-04T12:00:00Z", **denied))
    for path in ("actions", "escalations"):
        now = {row["position"]: row for row in (await read_current(client, path, limit=1000))["items"]}
        differing = 0
        for position in sorted(now)[-3:]:
            then = {
                row["position"]: row for row in (await read_current(client, path, limit=1000, as_of=position))["items"]
            }
            found = await read_current(client, path, limit=1000, changed_after=position, count=True)
            changed = {row["position"]: row for row in found["items"]}
            assert changed == {at: row for at, row in now.items() if row != then.get(at)}
            assert found["total"] == len(now)
            differing += any(row != now[at] for at, row in then.items())
        assert differing or path == "actions"


async def test_lists_are_searched_by_an_amount_or_a_range(session: Session) -> None:
    async with served(session) as (upstream, client):
        for name, amount in {"a": "5.01", "b": "15.00"}.items():
            await upstream.action(name, amount, customer_id=name)
        euros = {"amount": "5.00", "currency": "EUR"}
        await upstream.record(event("p", "purchase.completed", order_id="o", customer_id="c", total=euros))
        for text, least, most, currency in (
            ("5.00 GBP", 5, 5, "GBP"),
            ("5 to 14.99 GBP", 5, 14.99, "GBP"),
            ("5.01 to 99.00 GBP", 5.01, 99, "GBP"),
            ("5.00 EUR", 5, 5, "EUR"),
        ):
            found = {one["position"] for one in (await read_current(client, "trail", amount=text))["items"]}
            events = {one["position"]: one["data"] for one in await upstream.replay()}
            named = {
                position: [data[name] for name in ("amount", "asked", "total") if isinstance(data.get(name), dict)]
                for position, data in events.items()
            }
            expected = {
                position
                for position, amounts in named.items()
                if any(least <= float(one["amount"]) <= most and one["currency"] == currency for one in amounts)
            }
            assert found == expected, text
            shown = {one["position"] for one in (await read_current(client, "actions", amount=text))["items"]}
            assert shown == {position for position in expected if "action_id" in events[position]}, text
            assert found


async def test_balances_of_a_range_are_those_of_periods_with_a_day_in_it(
    api: tuple[Upstream, httpx.AsyncClient],
) -> None:
    _, client = api
    (period,) = {one["period"] for one in (await read_current(client, "balances"))["items"]}
    assert len((await read_current(client, "balances", **{"from": period, "to": period}))["items"]) == 4
    assert (await read_current(client, "balances", to="2020-01-31"))["items"] == []


async def test_csv_has_all_rows_and_no_formula(api: tuple[Upstream, httpx.AsyncClient]) -> None:
    _, client = api
    for path in LISTS:
        answer = await client.get(f"/api/v1/{path}", params={"format": "csv"})
        assert answer.headers["Content-Type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        whole = await read_current(client, path, limit=1000)
        assert len(rows) == len(whole["items"])
        assert answer.headers["Ledger-Position"] == str(whole["position"])
        for row, item in zip(rows, whole["items"], strict=True):
            assert item.keys() <= row.keys()
    answer = await client.get("/api/v1/actions", params={"format": "csv", "limit": 1})
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["reason"], row["amount"], row["amount_currency"]) == (f"'{FORMULA}", "5.00", "GBP")
    assert "next" in answer.links


async def test_a_file_of_more_than_a_page_is_of_one_position(session: Session) -> None:
    async with served(session) as (upstream, client):
        made = [
            encode_event("crm", f"f-{number}", SHIFT, datetime.now(UTC), b'{"employee_id": "E"}')
            for number in range(1200)
        ]
        for begin in range(0, 1200, 400):
            await upstream.session.log.append([Draft("ledger.fact.crm", one) for one in made[begin : begin + 400]])
        end = (await read_current(client, "trail", limit=1))["position"]
        answer = await client.get("/api/v1/trail", params={"format": "csv", "order": "asc"})
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [int(row["position"]) for row in rows] == list(range(1, end + 1))
        answer = await client.get("/api/v1/trail", params={"format": "parquet", "order": "asc"})
        table = pq.read_table(io.BytesIO(answer.content))
        assert table["position"].to_pylist() == list(range(1, end + 1))
        whole = await _pages(client, "trail", order="asc", limit=1000)
        assert table.to_pylist() == [_cells(item, table.schema) for item in whole]


TIME, AMOUNT = pa.timestamp("us", tz="UTC"), pa.decimal128(38, 4)
COLUMNS = {
    "balances": {"closed": pa.bool_(), "opened": TIME, "remaining": AMOUNT},
    "actions": {"position": pa.int64(), "time": TIME, "settled": AMOUNT, "settled_currency": pa.string()},
    "escalations": {"due": TIME, "waited_seconds": pa.float64(), "asked_of": pa.list_(pa.string())},
    "flags": {"raised": TIME, "evidence": pa.list_(pa.int64())},
    "cases": {"found": TIME, "score": pa.float64(), "expected_loss": AMOUNT},
    "trail": {"recorded": TIME, "corrected_by": pa.int64()},
    "employees": {"joined": TIME, "team_ids": pa.list_(pa.string())},
    "obstacles": {"time": TIME, "answered_at": TIME},
    "thanks": {"time": TIME, "points": pa.int64()},
    "ideas": {"time": TIME, "decided_at": TIME},
    "arrivals": {"recorded": TIME, "position": pa.int64()},
}
"""The expected types of some columns of each list; they do not depend on its rows."""


def _rows_of(content: bytes, folder: Path) -> list[Document]:
    """Return the rows of a Parquet file as DuckDB reads them: a reader that shares no code with the writer."""
    file = folder / "list.parquet"
    file.write_bytes(content)
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        rows: list[Document] = database.read_parquet(str(file)).to_arrow_table().to_pylist()
        return rows


def _cells(item: Document, schema: pa.Schema) -> Document:
    """Return the cells that the row of an item in JSON must have."""
    cells: Document = {}
    for name, value in item.items():
        kind = schema.field(name).type
        if kind == AMOUNT:
            cells[name] = None if value is None else Decimal(value["amount"])
            cells[f"{name}_currency"] = None if value is None else value["currency"]
        elif kind == TIME:
            cells[name] = None if value is None else datetime.fromisoformat(value)
        else:
            cells[name] = value
    return cells


async def test_parquet_has_every_cell_of_every_list(api: tuple[Upstream, httpx.AsyncClient], tmp_path: Path) -> None:
    upstream, client = api
    said: Document = {"employee_id": "B-1", "text": FORMULA}
    await upstream.record(event("o-1", "obstacle.reported", obstacle_id="O-1", kind="form", **said))
    await upstream.record(event("i-1", "idea.submitted", idea_id="Y-1", **said))
    thanks: Document = {
        "recognition_id": "T-1",
        "giver_id": "C-9",
        "receiver_id": "B-1",
        "reason": FORMULA,
        "points": 5,
    }
    await upstream.record(event("t-1", "recognition.given", **thanks))
    filled = set()
    for path, kinds in COLUMNS.items():
        query = {"source": "crm"} if path == "arrivals" else {}
        whole = await read_current(client, path, limit=1000, **query)
        answer = await client.get(f"/api/v1/{path}", params={"format": "parquet", **query})
        assert answer.headers["Content-Type"] == "application/vnd.apache.parquet"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{path}.parquet"'
        assert answer.headers["Ledger-Position"] == str(whole["position"])
        schema = pq.read_schema(io.BytesIO(answer.content))
        assert {name: schema.field(name).type for name in kinds} == kinds
        assert _rows_of(answer.content, tmp_path) == [_cells(item, schema) for item in whole["items"]], path
        filled |= {path} if whole["items"] else set()
    assert filled >= COLUMNS.keys() - {"flags", "cases"}
    answer = await client.get("/api/v1/balances", params={"format": "parquet", "to": "2020-01-31"})
    empty = pq.read_table(io.BytesIO(answer.content))
    assert (empty.num_rows, empty.schema.field("remaining").type) == (0, AMOUNT)
    answer = await client.get("/api/v1/actions", params={"format": "parquet", "limit": 1})
    assert (pq.read_table(io.BytesIO(answer.content)).num_rows, "next" in answer.links) == (1, True)


_NOW = "2026-02-09T08:00:00.000001Z"
_FLAG: Document = dict.fromkeys(FlagRow.__annotations__) | {
    "flag_id": "F",
    "position": 2**53,
    "rule": "R1",
    "rule_version": 2,
    "about": [],
    "explanation": "\u202e=1\n🛒",
    "evidence": [1, 2**53],
    "raised": _NOW,
    "status": "open",
}
_CASE: Document = dict.fromkeys(CaseRow.__annotations__) | {
    "case_id": "C",
    "position": 1,
    "subject": "agent:A",
    "about": ["agent:A", "agent:B"],
    "score": 0.1,
    "expected_loss": {"amount": "922337203685477.5807", "currency": "QQQ"},
    "reviewed_flags": [],
    "found": _NOW,
}
_ACTION: Document = dict.fromkeys(ActionRow.__annotations__) | {
    "action_id": "X",
    "time": "0001-01-01T00:00:00.000000Z",
    "amount": {"amount": "-9223372036854775807", "currency": "JPY"},
    "reversed": {"amount": "0.001", "currency": "BHD"},
}


@pytest.mark.parametrize(("row", "item"), [(FlagRow, _FLAG), (CaseRow, _CASE), (ActionRow, _ACTION)])
def test_parquet_keeps_the_widest_values(row: type, item: Document, tmp_path: Path) -> None:
    """The largest amounts in minor units, of currencies with none to four digits; the first year; lists without items."""
    file = io.BytesIO()
    with ListWriter(file, row) as writer:
        writer.add([item, item])
    schema = pq.read_schema(io.BytesIO(file.getvalue()))
    assert _rows_of(file.getvalue(), tmp_path) == [_cells(item, schema)] * 2


def test_parquet_of_a_table_has_the_types_of_its_columns_even_where_the_first_rows_are_null() -> None:
    types: dict[str, sa.types.TypeEngine[Any]] = {
        "key": sa.Integer(),
        "share": sa.Float(),
        "open": sa.Boolean(),
        "more": sa.JSON(),
        "text": sa.Text(),
    }
    table = sa.Table("t", sa.MetaData(), *(sa.Column(name, kind) for name, kind in types.items()))
    rows: list[Document] = [dict.fromkeys(types), {"key": 1, "share": 0.5, "open": 1, "more": {"a": [1]}, "text": "=1"}]
    file = io.BytesIO()
    with ListWriter(file, table) as writer:
        for row in rows * 20_000:
            writer.add([row])
    found = pq.ParquetFile(io.BytesIO(file.getvalue()))
    assert [str(one) for one in found.schema_arrow.types] == ["int64", "double", "bool", "string", "string"]
    assert found.read().to_pylist() == [rows[0], rows[1] | {"open": True, "more": '{"a":[1]}'}] * 20_000
    assert found.num_row_groups == 3


async def test_parquet_without_its_library_says_what_to_install(
    api: tuple[Upstream, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = api
    for name in ("projections.parquet", "ledger.archive.parquet"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = await client.get("/api/v1/actions", params={"format": "parquet"})
    assert (answer.status_code, answer.json()["field"]) == (422, "format")
    assert "pip install 'resolution-ledger[archive]'" in answer.json()["detail"]


_WRONG = [
    ({"form": "csv"}, "form"),
    ({"format": "xml"}, "format"),
    ({"order": "up"}, "order"),
    ({"limit": "0"}, "limit"),
    ({"limit": "1001"}, "limit"),
    ({"limit": ""}, "limit"),
    ({"after": "!"}, "after"),
    ({"from": "yesterday"}, "from"),
    ({"from": ""}, "from"),
    ({"to": "2026-13-01"}, "to"),
    ({"to": "2026-11-21T10:00:00"}, "to"),
    ({"from": "2026-11-22", "to": "2026-11-21"}, "to"),
    ({"tz": "Mars/Olympus"}, "tz"),
    ({"tz": "../../etc/passwd"}, "tz"),
    ({"as_of": "then"}, "as_of"),
    ({"until": "2026-11-21"}, "until"),
    ({"by_time": "said"}, "by_time"),
    ({"amount": "45.00"}, "amount"),
    ({"amount": "45.00 to 40.00 GBP"}, "amount"),
]


async def test_a_wrong_parameter_is_refused_by_name(api: tuple[Upstream, httpx.AsyncClient]) -> None:
    _, client = api
    for query, field in _WRONG:
        for path in LISTS:
            answer = await client.get(f"/api/v1/{path}", params=query)
            problem = answer.json()
            assert (answer.status_code, problem["field"]) == (422, field), (path, query)
            assert problem["detail"].startswith(f"{field}: "), (path, query)


async def test_each_list_has_a_range_without_rows(api: tuple[Upstream, httpx.AsyncClient]) -> None:
    _, client = api
    for query in ({"to": "2000-01-01"}, {"from": "2000-01-01", "to": "2000-01-02", "order": "asc"}):
        for path in LISTS:
            answer = await client.get(f"/api/v1/{path}", params=query)
            assert (answer.status_code, answer.json()["items"]) == (200, []), (path, query)


async def test_the_trail_of_an_order_has_its_purchases_and_its_actions(session: Session) -> None:
    async with served(session) as (upstream, client):
        for order in ("O-1", "O-2"):
            bought = event(f"buy-{order}", "purchase.completed", order_id=order, customer_id="C-1", total=gbp("9.00"))
            await upstream.record(bought)
        assert (await upstream.action("of-order", "2.00", customer_id="C-1", order_id="O-1"))["outcome"] == "taken"
        found = (await read_current(client, "trail", order_id="O-1", order="asc"))["items"]
        kinds = [one["type"].split(".")[1] for one in found]
        assert kinds == ["purchase", "action"]
        assert (await read_current(client, "trail", order_id="o-1"))["items"] == []  # ids are compared exactly
