"""Views in PostgreSQL: the rows, reports and pages of SQLite, one writer, switches that readers survive, a reader's role."""

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
import sqlalchemy as sa

from app.runtime.projection_states import projection_states
from app.runtime.session import Session
from app.runtime.views import read_view
from benchmarks.views import facts
from config.settings import load_settings
from ledger.errors import UnavailableError
from ledger.store.log import Recorded
from projections.date_ranges import DateRange
from projections.engine import postgres_store, storage
from projections.engine.pages import PageRequest
from projections.engine.postgres_store import READER, PostgresStore
from projections.engine.projector import Projector, rebuild
from projections.engine.storage import FencedError
from projections.registry import MODELS
from projections.reports.summary import summary
from projections.views.audit_trail import Trail, read_trail
from projections.views.balances import Balances, read_balances
from projections.views.casework import read_actions
from projections.views.people import People
from tests.support.any_order import DECISIONS, OPENED
from tests.support.builders import event, gbp
from tests.support.http_api import read_current, served
from tests.support.loyalty_comparisons import loyalty_differences
from tests.support.postgres import new_database, postgres_server
from tests.support.range_comparisons import beyond_differences, even_differences, some_days
from tests.support.report_comparisons import gap_differences, quality_differences
from tests.support.report_histories import RandomHistory
from tests.support.report_oracle import HistoryLedger
from tests.support.summary_comparisons import summary_differences
from tests.support.view_histories import RECORDED, Views, recorded

pytestmark = pytest.mark.integration
ALWAYS = DateRange(None, None, ZoneInfo("Europe/London"))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    return new_database(server)


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    found = PostgresStore(url)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("postgresql://u@a:5432,b:5433/ledger", (("a", 5432), ("b", 5433))),
        ("postgresql://u@a,b/ledger", (("a", 5432), ("b", 5432))),
        ("host=a,b port=6000", (("a", 6000), ("b", 6000))),
        ("host=a,/run/postgresql,b port=,1,7", (("a", 5432), ("b", 7))),
        ("postgresql:///ledger", ()),
        ("postgresql://a:port/ledger", ()),
        ("postgresql://a:1:2/?nothing=1", ()),
    ],
)
def test_a_url_may_name_several_servers(url: str, addresses: tuple[tuple[str, int], ...]) -> None:
    """The first connection, not the metric of certificates, says what is wrong with a URL."""
    assert PostgresStore(url).addresses == addresses


def story(interactions: int) -> list[Recorded]:
    """Return facts out of order, with decisions and corrections among them: enough rows in a batch to copy them."""
    told = [
        Recorded(at, "ledger.fact.bench", data.replace(b": ", b":").replace(b", ", b",")[:-1] + RECORDED)
        for at, data in enumerate(random.Random(18).sample(list(facts(interactions)), k=interactions * 4), 2)
    ]
    wrong = [event(f"w-{n}", "interaction.opened", "crm", interaction_id=f"I-00000{n}", channel="mail") for n in (1, 2)]
    right: list[Any] = [
        event("c-1", "fact.corrected", "crm", source_of="crm", id_of="w-1", reason="typed wrongly", data=None),
        event("j-1", "employee.joined", "crm", employee_id="A-01", role="agent", team_ids=["T-9"]),
    ]
    days: list[Any] = [
        event(
            f"late-{n}",
            "action.reported",
            "crm",
            f"2026-02-0{2 + n}T10:00:00Z",
            agent_id="A-01",
            kind="refund",
            reason="late",
            amount=gbp("3.00"),
            interaction_id=f"I-00000{n}",
        )
        for n in range(6)
    ]
    late = recorded([OPENED, *days, *[wrong[0]] * len(told), *wrong, *right, *DECISIONS])
    moved = [one._replace(position=one.position + len(days)) for one in told]
    return [*late[: len(days) + 1], *moved, *late[len(days) + len(told) + 1 :]]


async def all_rows(views: Views, name: str) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of all tables of a view, with earlier versions and facts, without arrays of days."""

    def read(connection: sa.Connection) -> dict[str, list[tuple[object, ...]]]:
        tables = [one for one in MODELS[name]().metadata.sorted_tables if not one.name.endswith("days")]
        return {
            one.name: sorted((tuple(row) for row in connection.execute(sa.select(one))), key=repr) for one in tables
        }

    return (await views.read(name, read)).result


async def test_every_row_and_page_is_that_of_sqlite(
    store: PostgresStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows are copied, and where totals come from blocks of days that later facts have changed."""
    monkeypatch.setattr(postgres_store, "_FEW_ROWS", 5)
    messages = story(60)
    half = len(messages) // 2
    here, there = (Views(place).take(messages[:half], originals=messages) for place in (tmp_path, store))
    assert there.settle(1_000_000)
    for views in (here, there):
        views.take(messages[half:], originals=messages)
    for by in (None, "day", "channel"):
        totals = [await summary(one.read, ALWAYS, by) for one in (here, there)]
        assert totals[0] == totals[1], by
    for name in MODELS:
        ours, others = await all_rows(here, name), await all_rows(there, name)
        assert others == ours, name
    pages = [
        PageRequest(7, 0, newest, at, *within)
        for newest in (True, False)
        for at in (None, half)
        for within in ((None, None), ("2026-01-01T03:00", "2026-01-01T05:00"))
    ]
    for page in pages:
        for view, query in (("audit_trail", read_trail), ("casework", read_actions)):
            found = [(await one.read(view, partial(query, page=page))).result for one in (here, there)]
            assert found[0] == found[1], (view, page)
            assert found[0], (view, page)
    here.close()
    there.close()


def test_reports_from_postgresql_are_those_of_sql_over_the_log(store: PostgresStore) -> None:
    """Totals are compared twice: from the rows, and from the blocks of their days."""
    ledger = HistoryLedger(RandomHistory(3, 0.4).events(), store)
    found = [
        *gap_differences(ledger),
        *quality_differences(ledger),
        *loyalty_differences(ledger),
        *summary_differences(ledger, None, None, "UTC"),
        *(line for times in some_days(ledger)[1:3] for line in beyond_differences(ledger, times)),
        *even_differences(ledger, some_days(ledger)[1]),
    ]
    for engine, projector in ledger.views():
        assert projector.settle(1_000_000)
        engine.dispose()
    assert [*found, *summary_differences(ledger, None, None, "UTC")] == []


async def test_a_ledger_serves_its_views_from_postgresql_through_a_rebuild(url: str, tmp_path: Path) -> None:
    settings = load_settings({"data_dir": str(tmp_path), "database_url": url}, {})
    async with Session(settings) as session:
        async with served(session) as (upstream, client):
            assert len((await read_current(client, "actions"))["items"]) == 3
            for name in ("casework", "budget_balances"):
                await rebuild(MODELS[name](), session.views, await session.connection(name), session.log)
                assert (await client.get("/api/v1/actions", params={"limit": 1, "count": True})).json()["total"] == 3
            await upstream.action("r-9", reason="later")
            assert [one["reason"] for one in (await read_current(client, "actions"))["items"]][:2] == [
                "later",
                "late 2",
            ]
            (balance,) = (await read_current(client, "balances"))["items"]
            reply = await upstream.client.request(
                "resolution.read.test.brief", b'{"agent_id": "A-1", "customer_id": "C-1"}', timeout=20
            )
            assert json.loads(reply.data)["outcome"] == "done"
        found = (await read_view(session, "budget_balances", read_balances)).result
        assert [one["spent"] for one in found] == [balance["spent"]]
        states = {one.projection: one for one in await projection_states(session)}
        assert (states["casework"].generation, states["casework"].stopped) == (2, None)
    assert not (tmp_path / "views").exists()


def test_one_process_runs_a_view(url: str, store: PostgresStore) -> None:
    other = PostgresStore(url)
    with store.claim("people") as ours, other.claim("people") as theirs, other.claim("journeys") as another:
        assert (ours, theirs, another) == (True, False, True)
    with other.claim("people") as theirs:
        assert theirs
    other.close()


def test_a_process_that_lost_its_claim_writes_nothing(store: PostgresStore) -> None:
    engine = store.open_generation(People(), 1)
    one, other = Projector(People(), engine), Projector(People(), engine)
    told = recorded(
        [event(f"j-{n}", "employee.joined", employee_id=f"A-{n}", role="agent", team_ids=[]) for n in (1, 2)]
    )
    one.take(told[:1])
    with pytest.raises(FencedError):
        other.take(told)
    one.take(told[1:])
    assert one.progress.anchor.position == 2
    engine.dispose()


def test_a_view_goes_on_after_the_database_has_closed_its_connections(url: str, store: PostgresStore) -> None:
    engine = store.open_generation(People(), 1)
    view = Projector(People(), engine)
    told = recorded(
        [event(f"j-{n}", "employee.joined", employee_id=f"A-{n}", role="agent", team_ids=[]) for n in (1, 2)]
    )
    view.take(told[:1])
    store.switch_to(People(), 1)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
    with pytest.raises(storage.FAILURES):
        view.take(told[1:])
    view.take(told[1:])
    progress = store.progress_of(People())
    assert (progress and progress.anchor.position) == 2
    engine.dispose()


def test_other_tools_read_the_live_generation_by_stable_names(url: str, store: PostgresStore) -> None:
    def asked(question: str, role: str = READER) -> list[Any]:
        with psycopg.connect(url) as connection:
            connection.execute(f"SET ROLE {role}".encode())
            return connection.execute(question.encode()).fetchall()

    told = recorded([event("j-1", "employee.joined", employee_id="A-1", role="agent", team_ids=[])])
    for generation, part in ((1, []), (2, told)):
        assert store.next_generation(People()) == generation
        engine = store.open_generation(People(), generation)
        for message in part:
            Projector(People(), engine).take([message])
        store.switch_to(People(), generation)
        assert asked("SELECT employee_id, role FROM ledger.people_employees") == [("A-1", "agent")] * len(part)
        engine.dispose()
    assert asked("SELECT position FROM ledger.people_progress") == [(1,)]
    schemas = asked("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'people%'", "postgres")
    assert schemas == [(f"people_v{People.version}_g2",)]
    for forbidden in (f"DELETE FROM {schemas[0][0]}.employees", "DELETE FROM ledger.people_employees"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asked(forbidden)
    newer = People()
    newer.version = People.version + 1
    assert (store.live_generation(People()), store.live_generation(newer), store.is_new(newer)) == (2, None, False)
    assert store.is_new(Balances())


def test_a_text_with_a_nul_is_kept_without_it(store: PostgresStore) -> None:
    told = event("i-1", "interaction.opened", interaction_id="I-1", reason="a\0b")
    views = Views(store, ["casework", "audit_trail"]).take(recorded([told]))
    assert views.rows("casework")["interactions"][0]["reason"] == "a\ufffdb"
    views.close()


def test_a_reader_is_cut_off_in_time_and_changes_nothing(store: PostgresStore) -> None:
    store.open_generation(Trail(), 1).dispose()
    engine = store.open_generation(Trail(), 1, read_only=True)
    with engine.connect() as connection, storage.driver(connection).limited(0.05), pytest.raises(storage.FAILURES):
        connection.execute(sa.text("SELECT pg_sleep(5)"))
    with engine.connect() as connection, pytest.raises(sa.exc.InternalError, match="read-only"):
        connection.execute(sa.text("DELETE FROM trail"))
    engine.dispose()


def test_a_database_that_is_away_is_named(tmp_path: Path) -> None:
    away = PostgresStore("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    with pytest.raises(UnavailableError, match="database_url: PostgreSQL does not serve views"):
        away.live_generation(People())


def test_texts_compare_by_their_bytes_whatever_the_language_of_the_database(store: PostgresStore) -> None:
    """SQLite compares so, and pages, times and days rest on it."""
    query = sa.text(
        "SELECT DISTINCT collation_name FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND data_type = 'text'"
    )
    engine = store.open_generation(Trail(), 1)
    with engine.connect() as connection:
        assert list(connection.execute(query).scalars()) == ["C"]
    engine.dispose()
