"""The schema that SQL dashboards build on: every column said, the document current, and a plain SQL tool reads it."""

import sqlite3
from typing import Any

from app.runtime.views import up_to_date
from projections.engine.projector import rebuild
from projections.registry import MODELS
from projections.schema_docs import UNLISTED, columns, schema_text
from tests.support.environment import ROOT
from tests.support.upstreams import Upstream


def test_every_column_is_described_and_the_document_is_current() -> None:
    found = list(columns())
    assert {(one.view, one.table) for one in found} == {
        (view, table.name)
        for view, make in MODELS.items()
        for table in make().metadata.sorted_tables
        if not table.name.endswith(UNLISTED)
    }
    assert all(one.meaning for one in found)
    assert (ROOT / "docs" / "reference" / "sql.md").read_text() == schema_text(), "run `make docs`"


async def test_a_plain_sql_client_reads_the_views(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    await upstream.action("r-1", "5.00")
    session = upstream.session

    def asked(view: str, question: str) -> list[Any]:
        with sqlite3.connect(f"file:{session.data_dir}/views/{view}.sqlite?mode=ro", uri=True) as connection:
            return connection.execute(question).fetchall()

    for view in MODELS:
        await up_to_date(session, view)
    assert asked("budget_balances", "SELECT spent_minor, currency FROM balances") == [(500, "GBP")]
    for one in columns():
        shown = asked(one.view, f'SELECT typeof("{one.name}"), count(*) FROM "{one.table}" GROUP BY 1')
        wanted = {"0 or 1": "integer"}.get(one.type, one.type)
        assert {kind for kind, _ in shown} <= {wanted, "null"}, one
    model = MODELS["budget_balances"]()
    await rebuild(model, session.views, await session.connection("again"), session.log)
    assert asked("budget_balances", "SELECT spent_minor, currency FROM balances") == [(500, "GBP")]
