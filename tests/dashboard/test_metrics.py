"""Metrics for Prometheus: what they count, compared with the answers given and with the log itself."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send

from app.runtime.roles import running
from app.runtime.session import Session
from config import topology
from dashboard import metrics
from dashboard.http.request_metrics import RequestMetrics, RequestTimer
from dashboard.metric_families import FAMILIES, PREFIX
from dashboard.role_totals import RoleTotals
from dashboard.view_reader import ViewReader
from ledger.store.cloudevents import time_text
from ledger.store.role_status import RoleStatus, StatusResponder
from ledger.store.role_totals import Total
from tests.support.builders import event
from tests.support.http_api import dashboard_of, read_current
from tests.support.independent_books import Kept
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import set_up_organisation, upstream_of
from tests.support.waiting import eventually

type Scrape = Mapping[tuple[str, tuple[str, ...]], float]


async def scraped(client: httpx.AsyncClient) -> Scrape:
    """Scrape a dashboard; see ``values_in``."""
    return values_in((await client.get("/metrics")).text)


def values_in(text: str) -> Scrape:
    """Return a scrape as Prometheus's own parser reads it: name without prefix and values of labels -> value."""
    found: dict[tuple[str, tuple[str, ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            declared = (
                FAMILIES.get(family.name.removeprefix(PREFIX)) or FAMILIES[f"{family.name.removeprefix(PREFIX)}_total"]
            )
            assert (family.type, {*sample.labels} - {"le"}) == (declared.kind, {*declared.labels}), sample
            found[
                sample.name.removeprefix(PREFIX),
                tuple(sample.labels[name] for name in (*declared.labels, "le") if name in sample.labels),
            ] = sample.value
    return found


async def budgets_of(session: Session) -> Scrape:
    """Return the metrics of budgets by a computation of the tests' own, from the events alone."""
    books = Kept()
    for position in range(1, await session.log.last_position() + 1):
        recorded = await session.log.at(position)
        assert recorded is not None
        books.read(recorded)
    sums = books.books.values()
    left = sum(book["granted"] - book["spent"] - book["reserved"] for book in sums)
    return {
        ("open_budgets_spent", ("GBP",)): sum(book["spent"] for book in sums) / 100,
        ("open_budgets_remaining", ("GBP",)): left / 100,
    }


@pytest.mark.integration
async def test_a_scrape_counts_requests_facts_and_what_the_log_holds(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_REFRESH_SECONDS", 0.1)
    monkeypatch.setattr(metrics, "_TIMEOUT_SECONDS", 0.2)  # for roles that do not run here
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream, FULL_POLICY)
        async with dashboard_of(session) as client, running(session, ["guard", "seal"]):
            before = await scraped(client)
            for number, agent in enumerate(("A-1", "A-2", "D-1")):
                assert (await upstream.action(f"t-{number}", "5.50", agent_id=agent))["outcome"] == "taken"
            assert (await upstream.action("t-0", "5.50", agent_id="A-1"))["outcome"] == "taken"  # asked again
            assert (await upstream.action("e-1", "90.00", agent_id="A-1", escalate=True))["outcome"] == "escalate"
            wrong = await upstream.action("e-2", "nothing")
            assert wrong["outcome"] == "error"
            await upstream.record(event("s-1", "shift.started", employee_id="A-1"))
            await upstream.publish(event("s-2", "shift.started", wrong="field"))
            rejected = await upstream.receipt("s-2")
            assert rejected["status"] == "rejected"
            await read_current(client, "escalations")
            await read_current(client, "balances")
            assert (await client.get("/api/v1/nothing")).status_code == 404

            expected: Scrape = {
                ("facts_recorded_total", ()): before["facts_recorded_total", ()] + 1,
                ("facts_rejected_total", (rejected["error"]["code"],)): 1,
                ("facts_waiting", ()): 0,
                ("facts_waiting_oldest_seconds", ()): 0,
                ("decisions_total", ("action", "taken", "")): 4,
                ("decisions_total", ("action", "escalate", "")): 1,
                ("decisions_total", ("action", "error", wrong["error"]["code"])): 1,
                ("http_request_duration_seconds_count", ("GET", "other", "4xx")): 1,
                ("http_requests_in_progress", ()): 1,  # this scrape
                ("role_processes", ("guard",)): 1,
                ("role_processes", ("seal",)): 1,
                ("role_starting", ("seal",)): 0,
                **{("role_working", (role,)): 1 for role in ("intake", "decisions", "guard", "seal", "projections")},
                ("escalations_waiting", ()): len(await upstream.recorded("escalation.requested")),
                ("cases_open", ()): 0,
                **await budgets_of(session),
            }
            assert expected["escalations_waiting", ()] == 1
            assert expected["open_budgets_spent", ("GBP",)] == 3 * 5.5
            after = await eventually(lambda: scraped(client), lambda found: expected.items() <= found.items())
            answered = after["decision_duration_seconds_count", ()]
            assert answered - before["decision_duration_seconds_count", ()] == 5  # one could not be read
            assert 0 < after["decision_duration_seconds_sum", ()] < answered
            assert after["http_request_duration_seconds_count", ("GET", "/api/v1/balances", "2xx")] >= 1
            assert {("role_lag_seconds", (role,)) for role in ("decisions", "guard", "seal")} <= after.keys()
            assert 0 < after["escalations_waiting_oldest_seconds", ()] < 60
            assert 0 < after["disk_free_bytes", ()] < after["disk_size_bytes", ()]
            names = {name for name, _ in after}
            absent = {name for name in FAMILIES if not {name, f"{name}_count"} & names}
            assert absent == {"certificate_end_seconds"}  # nothing has TLS here: tests/system/test_deployment.py


@pytest.mark.integration
async def test_facts_that_no_intake_records_are_counted_with_their_age(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without roles and views the other metrics are there, too: alerts need those that tell what is missing."""
    monkeypatch.setattr(metrics, "_TIMEOUT_SECONDS", 0.1)
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(event("s-0", "shift.started", employee_id="A-1"))
    begun = time.monotonic()
    for number in (1, 2):
        await upstream.publish(event(f"s-{number}", "shift.started", employee_id="A-1"))
    await asyncio.sleep(0.2)
    starting = StatusResponder(session.client, topology.ROLES_SUBJECT, "decisions", session.data_dir)
    await starting.start()
    views = ViewReader(session.views, session.log)
    of_ledger = metrics.Metrics(views, session.client, session.data_dir)
    found = values_in((await of_ledger.text()).decode())
    await of_ledger.stop()
    await starting.stop()
    views.close()
    decider = [found[name, ("decisions",)] for name in ("role_processes", "role_starting", "role_working")]
    assert decider == [1, 1, 0]
    assert found["facts_waiting", ()] == 2
    assert 0.2 < found["facts_waiting_oldest_seconds", ()] < time.monotonic() - begun + 0.1
    assert found["role_processes", ("intake",)] == 0
    assert found["last_position", ()] == 1
    assert "escalations_waiting" not in {name for name, _ in found}


def test_totals_of_processes_never_fall_and_count_nothing_twice() -> None:
    begun = datetime.now(UTC)
    totals = RoleTotals(begun)

    def answered(instance: str, value: float, since: timedelta) -> RoleStatus:
        total = Total("facts_recorded", (), value)
        return RoleStatus(role="intake", instance=instance, since=time_text(begun + since), totals=(total,))

    def facts_after(*answers: RoleStatus) -> float:
        totals.add(answers)
        return totals.sums["facts_recorded", ()]

    older, newer = timedelta(hours=-1), timedelta(hours=1)
    assert facts_after(answered("old", 1000, older)) == 0  # counted by whoever ran before
    assert facts_after(answered("old", 1003, older)) == 3
    assert facts_after() == 3  # no answer
    assert facts_after(answered("old", 1004, older), answered("new", 5, newer)) == 9
    assert facts_after(answered("new", 7, newer)) == 11  # the old one has ended
    assert facts_after(answered("old", 1004, older), answered("new", 7, newer)) == 11
    starting = RoleStatus(role="intake", instance="third", since=time_text(begun + newer), starting=True)
    assert facts_after(starting) == 11
    assert facts_after(answered("third", 2, newer)) == 13


async def test_a_request_is_measured_until_its_answer_begins_and_by_its_route() -> None:
    """A path without a route and an unknown method share one label: clients choose them, without end."""
    measured = RequestMetrics()
    seen: list[int] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(measured.in_progress)
        if scope["path"] == "/broken":
            raise ValueError
        await send({"type": "http.response.start", "status": 204, "headers": []})
        seen.append(measured.in_progress)

    async def nothing(*_: object) -> Any:
        """Neither receive nor send anything."""

    timer = RequestTimer(app, measured)
    for path, method in (("/a", "GET"), ("/b", "GET"), ("/c", "SURPRISE"), ("/broken", "POST")):
        with suppress(ValueError):
            await timer({"type": "http", "path": path, "method": method}, nothing, nothing)
    assert (seen, measured.in_progress) == ([1, 0, 1, 0, 1, 0, 1], 0)
    found = {kind: sum(durations.counts) for kind, durations in measured.durations.items()}
    assert found == {("GET", "other", "2xx"): 2, ("other", "other", "2xx"): 1, ("POST", "other", "5xx"): 1}
