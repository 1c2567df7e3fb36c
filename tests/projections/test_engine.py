"""The projection engine: exact views, rebuilds byte for byte, checkpoints, and stops at unreadable events."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from nats.aio.msg import Msg

from app.runtime.session import Session
from app.runtime.views import read_view
from domain.events.administration import ProjectionSkipped
from domain.serialization import encode
from ledger.store import subscription
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from projections.engine import row_cache, storage
from projections.engine.projector import SKIPS_SUBJECT, StoppedError, catch_up, rebuild
from projections.engine.row_cache import RowCache
from projections.engine.sqlite_store import SqliteDriver, SqliteStore
from projections.registry import MODELS
from projections.reports.explanation import explain
from projections.reports.loyalty import loyalty_report
from projections.views import balances, careers
from projections.views.audit_trail import read_trail
from projections.views.balances import Balances, read_balances
from projections.views.loyalty import read_effects
from tests.support.builders import gbp
from tests.support.documents import Document
from tests.support.upstreams import Upstream, upstream_of
from tests.support.view_rows import record_history, rows_of
from tests.support.waiting import eventually, wait_until


@pytest.fixture
async def stopped(session: Session) -> Upstream:
    """Return the upstream of a ledger with a history, on which no role runs any more."""
    async with upstream_of(session, history=True) as upstream:
        await record_history(upstream)
    return upstream


async def all_answers(session: Session) -> bytes:
    """Return the whole answer of every view."""
    parts = [
        await read_view(session, "budget_balances", read_balances),
        await read_view(session, "loyalty_effects", read_effects),
        await read_view(session, "audit_trail", read_trail),
    ]
    return encode([[part.result, part.progress.anchor.position] for part in parts])


async def test_balances_are_exact(stopped: Upstream) -> None:
    found = (await read_view(stopped.session, "budget_balances", read_balances)).result
    assert [(item["period"], item["granted"], item["spent"], item["remaining"], item["closed"]) for item in found] == [
        ("2026-01", gbp("5.00"), gbp("5.00"), gbp("0.00"), True),
        ("2026-02", gbp("250.00"), gbp("9.00"), gbp("241.00"), False),
    ]
    assert {item["holder"] for item in found} == {"agent:A-1"}


async def test_loyalty_compares_complete_windows_only(stopped: Upstream) -> None:
    answer = await read_view(stopped.session, "loyalty_effects", read_effects)
    first, reported = answer.result
    assert first["cost"] == gbp("5.00")
    assert first["windows"]["30"]["before"] == {"purchases": 1, "revenue": gbp("20.00"), "returned": gbp("0.00")}
    assert first["windows"]["30"]["after"] == {"purchases": 1, "revenue": gbp("30.00"), "returned": gbp("3.00")}
    assert first["windows"]["90"] == {"before": None, "after": None}  # history begins and ends too near
    assert reported["kind"] == "refund"
    report = await loyalty_report(partial(read_view, stopped.session), ())
    (whole,) = report["currencies"]
    assert "why" not in whole
    assert whole["summary"][0] == {
        "days": 30,
        "n": 1,
        "mean_before": gbp("20.00"),
        "mean_before_interval": None,
        "mean_after": gbp("30.00"),
        "mean_after_interval": None,
        "mean_cost": gbp("5.00"),
        "mean_cost_interval": None,
    }


async def test_the_trail_finds_events_by_any_id(stopped: Upstream) -> None:
    whole = (await read_view(stopped.session, "audit_trail", read_trail)).result
    assert [line["position"] for line in whole] == list(range(1, await stopped.session.log.last_position() + 1))

    async def of(kind: str, name: str) -> list[str]:
        answer = await read_view(stopped.session, "audit_trail", lambda c: read_trail(c, [(kind, name)]))
        return [line["type"].removeprefix("resolution.").removesuffix(".v1") for line in answer.result]

    assert await of("interaction", "I-1") == ["interaction.opened", "action.taken", "authority.fell_short"]
    assert await of("agent", "M-1") == ["employee.joined"]
    assert "action.reported" in await of("customer", "C-1")
    action = next(line for line in whole if line["type"] == "resolution.action.taken.v1")
    assert await of("action", action["action_id"]) == ["action.taken"]
    assert "5.00 GBP" in action["what"]


async def test_an_action_is_explained(stopped: Upstream) -> None:
    whole = (await read_view(stopped.session, "audit_trail", read_trail)).result
    action_id = next(line["action_id"] for line in whole if line["type"] == "resolution.action.taken.v1")
    views = stopped.session.views
    engine = views.open_generation(MODELS["audit_trail"](), 1)
    with engine.connect() as connection:
        found = await explain(stopped.session.log, connection, action_id)
        assert await explain(stopped.session.log, connection, "act-none") is None
    engine.dispose()
    assert found
    assert found["policy"]["version"] == 1
    rules = found["policy"]["rules"]
    assert isinstance(rules, dict)
    assert rules["limits"]["refund"] == "50.00"
    assert (found["budget_before"]["remaining"], found["budget_after"]["remaining"]) == (gbp("200.00"), gbp("195.00"))
    assert [line["type"] for line in found["interaction"]][-1] == "resolution.authority.fell_short.v1"


async def test_views_dropped_and_rebuilt_answer_byte_for_byte_the_same(
    stopped: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view has the same rows when one batch builds it and when small batches without cached rows do."""
    before = await all_answers(stopped.session)
    views = stopped.session.views
    for name, make in MODELS.items():
        await rebuild(make(), views, await stopped.session.connection(name), stopped.session.log)
    assert views.live_generation(Balances()) == 2
    assert await all_answers(stopped.session) == before
    whole = {name: rows_of(views, make()) for name, make in MODELS.items()}
    monkeypatch.setattr(subscription, "_BATCH_EVENTS", 3)
    for module in (row_cache, careers, balances):
        monkeypatch.setattr(module, "_CACHED" if module is careers else "_CACHED_ROWS", 0)
    models = {name: make() for name, make in MODELS.items()}
    for name, model in models.items():
        await rebuild(model, views, await stopped.session.connection(name), stopped.session.log)
    cached = [rows for model in models.values() for rows in vars(model).values() if isinstance(rows, RowCache)]
    assert cached
    assert not any(rows._cached for rows in cached)
    assert {name: rows_of(views, make()) for name, make in MODELS.items()} == whole
    for path in (stopped.session.data_dir / "views").iterdir():
        path.unlink()
    assert await all_answers(stopped.session) == before


async def test_a_projection_resumes_at_its_checkpoint(stopped: Upstream) -> None:
    await all_answers(stopped.session)
    async with upstream_of(stopped.session, "intake", "decisions", history=True) as upstream:
        await upstream.action("r-9", "1.00", time="2026-02-12T12:00:00Z")
    found = (await read_view(stopped.session, "budget_balances", read_balances)).result
    assert found[-1]["spent"] == gbp("10.00")


async def test_an_unreadable_event_stops_one_projection_until_it_is_skipped(stopped: Upstream) -> None:
    session = stopped.session
    before = (await read_view(session, "budget_balances", read_balances)).result
    strange = encode_event("resolution-ledger", "x", "resolution.budget.exploded.v1", datetime.now(UTC), b"{}")
    position = await session.log.append([Draft("ledger.budget.x.2026-01", strange)])
    for name in ("budget_balances", "audit_trail"):
        with pytest.raises(StoppedError) as caught:
            await read_view(session, name, read_balances)
        assert (caught.value.stop.position, caught.value.stop.type) == (position, "resolution.budget.exploded.v1")
    views = session.views
    engine = views.open_generation(Balances(), 1)
    with engine.connect() as connection:
        assert read_balances(connection) == before
        assert storage.read_progress(connection).stopped == caught.value.stop
    engine.dispose()
    record = ProjectionSkipped(projection="budget_balances", position=position, reason="a test", by="M-1")
    skip = encode_event("resolution-ledger", "s", "resolution.projection.skipped.v1", datetime.now(UTC), encode(record))
    await session.log.append([Draft(SKIPS_SUBJECT, skip, 0)])
    answer = await read_view(session, "budget_balances", read_balances)
    assert (answer.result, answer.progress.anchor.position) == (before, position + 1)
    with pytest.raises(StoppedError):
        await read_view(session, "audit_trail", read_trail)


async def test_a_view_of_another_log_stops(stopped: Upstream) -> None:
    await all_answers(stopped.session)
    views = stopped.session.views
    engine = views.open_generation(Balances(), 1)
    with engine.begin() as connection:
        progress = storage.read_progress(connection)
        storage.write_progress(
            connection, progress._replace(anchor=progress.anchor._replace(digest="other")), progress.anchor.position
        )
    engine.dispose()
    with pytest.raises(Exception, match="the log has changed"):
        await catch_up(Balances(), views, await stopped.session.connection("x"), stopped.session.log)


async def test_running_projections_follow_announce_and_go_over_to_a_rebuilt_view(session: Session) -> None:
    news: list[Document] = []
    async with upstream_of(session, "intake", "decisions", "projections") as upstream:

        async def hear(message: Msg) -> None:
            news.append(json.loads(message.data))

        await upstream.client.subscribe("resolution.views.budget_balances", cb=hear)
        await upstream.client.flush()
        await upstream.set_up_basics()
        await upstream.action("r-1")
        answer = await read_view(session, "budget_balances", read_balances)
        assert answer.result[0]["spent"] == gbp("5.00")
        views = session.views
        await rebuild(Balances(), views, await session.connection("x"), session.log)
        assert views.live_generation(Balances()) == 2
        await upstream.action("r-2")
        answer = await eventually(
            lambda: read_view(session, "budget_balances", read_balances),
            lambda answer: answer.result[0]["spent"] == gbp("10.00"),
        )
        await wait_until(lambda: news and news[-1]["position"] >= answer.progress.anchor.position)
        assert {"position", "at"} == news[-1].keys()


def test_a_new_version_of_a_model_makes_a_new_generation(tmp_path: Path) -> None:
    model, views = Balances(), SqliteStore(tmp_path)
    views.open_generation(model, 1).dispose()
    views.switch_to(model, 1)
    assert views.live_generation(model) == 1
    newer = Balances()
    newer.version = Balances.version + 1
    assert views.live_generation(newer) is None
    assert views.next_generation(newer) == 2


def test_many_readers_open_a_generation_that_does_not_exist_yet(tmp_path: Path) -> None:
    """SQLite refuses one of two readers that begin to write, and does not wait for the time-out."""
    readers = 6
    for generation in range(1, 11):
        start = threading.Barrier(readers)

        def open_new(generation: int, start: threading.Barrier) -> int:
            start.wait()
            engine = SqliteStore(tmp_path).open_generation(Balances(), generation)
            with closing(engine.raw_connection()) as connection:
                tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table'").fetchone()[0]
            engine.dispose()
            return int(tables)

        with ThreadPoolExecutor(readers) as threads:
            opened = [threads.submit(open_new, generation, start) for _ in range(readers)]
        assert {one.result() for one in opened} == {len(Balances.metadata.tables) + 2}


def _is_in_transaction(connection: sa.Connection) -> bool:
    driver = storage.driver(connection)
    assert isinstance(driver, SqliteDriver)
    return driver.in_transaction


async def test_a_command_reads_all_views_at_one_position(session: Session) -> None:
    """Rows and position: also where a query is text for the driver, which begins no transaction by itself."""
    answer = await read_view(session, "budget_balances", _is_in_transaction)
    assert answer.result
