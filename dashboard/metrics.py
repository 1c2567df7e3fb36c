"""Metrics for Prometheus: latency, traffic, errors and saturation of every part, and figures of the business.

A scrape is answered from memory and the views' positions. The rest is asked for every few seconds, as long as scrapes
come: roles over NATS, inboxes, and totals of the views. Nothing reads more of the log than single events.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest

from config import topology
from dashboard.http import request_metrics
from dashboard.http.request_metrics import RequestMetrics
from dashboard.metric_families import Exposition
from dashboard.role_totals import RoleTotals
from domain.money import Money
from ledger.store.backlog import backlog_of
from ledger.store.cloudevents import parse_time
from ledger.store.role_status import ask_roles
from ledger.store.role_totals import DECISION_BOUNDS
from ledger.store.streams import filled_streams
from ledger.store.subscription import ReadCursor
from projections.engine.storage import Progress
from projections.views.balances import read_current_totals
from projections.views.cases import count_open_cases
from projections.views.casework import read_waiting_escalations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from dashboard.view_reader import ViewReader
    from ledger.nats.client import LedgerClient
    from ledger.store.role_status import RoleAnswers

_TIMEOUT_SECONDS = 1.0
_REFRESH_SECONDS = 5.0
_CERTIFICATES_SECONDS = 600.0
_SCRAPED_SECONDS = 120.0
"""Without a scrape for so long, nothing is asked for any more."""
_LAGGING = ("decisions", "guard", "seal")
"""Roles that read every event at once; the archive writes whole files, and each view has its own metric."""


class Metrics:
    """The metrics of a ledger, as one dashboard knows them."""

    def __init__(
        self,
        views: ViewReader,
        client: LedgerClient,
        data_dir: Path,
        ends: Callable[[], Awaitable[Mapping[str, datetime]]] | None = None,
    ) -> None:
        """``ends`` returns the ends of servers' certificates by the names of the servers."""
        self.requests = RequestMetrics()
        self._views = views
        self._client = client
        self._data_dir = data_dir
        self._ends, self._ends_known, self._ends_read_at = ends, dict[str, datetime](), float("-inf")
        self._totals = RoleTotals(datetime.now(UTC))
        self._asked = Exposition()
        self._lock = asyncio.Lock()
        self._scraped_at = 0.0
        self._refreshing: asyncio.Task[None] | None = None

    async def text(self) -> bytes:
        """Return all metrics in Prometheus's text format.

        Raises:
            UnavailableError: the NATS server does not answer.

        """
        self._scraped_at = time.monotonic()
        async with self._lock:
            if self._refreshing is None or self._refreshing.done():
                await self._refresh()
                self._refreshing = asyncio.create_task(self._keep_fresh())
                self._refreshing.add_done_callback(_retrieve_exception)
        now = Exposition()
        await self._put_views(now)
        self._put_requests(now)
        with suppress(OSError):
            disk = shutil.disk_usage(self._data_dir)
            now.put("disk_free_bytes", disk.free)
            now.put("disk_size_bytes", disk.total)
        registry = CollectorRegistry()
        registry.register(now)
        registry.register(self._asked)
        return generate_latest(registry)

    async def stop(self) -> None:
        """Stop asking."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def _keep_fresh(self) -> None:
        """Ask again as long as scrapes come; after an error, the next scrape begins anew."""
        while time.monotonic() - self._scraped_at < _SCRAPED_SECONDS:
            await asyncio.sleep(_REFRESH_SECONDS)
            await self._refresh()

    async def _refresh(self) -> None:
        asked = Exposition()
        patience = dict.fromkeys(topology.ROLES, _TIMEOUT_SECONDS)
        heard = await ask_roles(self._client, topology.ROLES_SUBJECT, patience)
        await self._put_roles(asked, heard)
        self._put_totals(asked, heard)
        await self._put_inboxes(asked)
        await self._put_business(asked)
        await self._put_certificates(asked)
        self._asked = asked

    async def _put_views(self, to: Exposition) -> None:
        to.put("last_position", await self._views.end())
        for state in await self._views.states():
            to.put("view_position", state.position, state.view)
            to.put("view_lag_seconds", state.lag_seconds, state.view)
            to.put("view_stopped", state.stopped is not None, state.view)

    def _put_requests(self, to: Exposition) -> None:
        to.put("http_requests_in_progress", self.requests.in_progress)
        for kind, durations in self.requests.durations.items():
            name, bounds = "http_request_duration_seconds", request_metrics.BOUNDS
            to.put_histogram(name, bounds, durations.counts, durations.seconds, *kind)

    async def _put_roles(self, to: Exposition, heard: Mapping[str, RoleAnswers]) -> None:
        for role, one in heard.items():
            loops = [loop for status in one.statuses for loop in status.loops]
            to.put("role_processes", len(one.statuses), role)
            to.put("role_starting", one.starting_count, role)
            to.put("role_working", one.working_count, role)
            to.put("role_silent_seconds", max((loop.silent_seconds for loop in loops), default=0.0), role)
            to.put("role_waits_seconds", max((loop.waits_seconds for loop in loops), default=0.0), role)
            readings = [reading.position or 0 for status in one.statuses for reading in status.readings]
            if readings and role != "projections":  # each view has its own metric
                to.put("role_position", max(readings), role)
            if readings and role in _LAGGING:
                to.put("role_lag_seconds", await self._views.lag(Progress(ReadCursor(max(readings)))), role)

    def _put_totals(self, to: Exposition, heard: Mapping[str, RoleAnswers]) -> None:
        self._totals.add(status for one in heard.values() for status in one.statuses)
        buckets, seconds = [0.0] * (len(DECISION_BOUNDS) + 1), 0.0
        to.put("facts_recorded_total", self._totals.sums.get(("facts_recorded", ()), 0.0))
        for (name, labels), value in self._totals.sums.items():
            match name, labels:
                case "decisions", _:
                    to.put("decisions_total", value, *labels)
                case "facts_rejected", _:
                    to.put("facts_rejected_total", value, *labels)
                case "decision_duration_seconds", (number,):
                    buckets[int(number)] = value
                case "decision_duration_seconds", ():
                    seconds = value
        to.put_histogram("decision_duration_seconds", DECISION_BOUNDS, buckets, seconds)

    async def _put_inboxes(self, to: Exposition) -> None:
        names = topology.inbox_streams(await filled_streams(self._client))
        found = [await backlog_of(self._client, name, topology.INTAKE_CONSUMER) for name in names]
        backlogs = [backlog for backlog in found if backlog is not None]
        ages = [(backlog.now - backlog.first).total_seconds() for backlog in backlogs]
        to.put("facts_waiting", sum(backlog.waiting for backlog in backlogs))
        to.put("facts_waiting_oldest_seconds", max(0.0, *ages, 0.0))

    async def _put_certificates(self, to: Exposition) -> None:
        if self._ends is not None and time.monotonic() - self._ends_read_at > _CERTIFICATES_SECONDS:
            self._ends_known |= await self._ends()
            self._ends_read_at = time.monotonic()
        for server, end in self._ends_known.items():
            to.put("certificate_end_seconds", end.timestamp(), server)

    async def _put_business(self, to: Exposition) -> None:
        """Put the figures of the views that are built already."""
        now = datetime.now(UTC)
        if self._views.is_built("budget_balances"):
            totals = (await self._views.read("budget_balances", lambda one: read_current_totals(one, now))).result
            for currency, (spent_minor, left_minor) in totals.items():
                to.put("open_budgets_spent", _units(spent_minor, currency), currency)
                to.put("open_budgets_remaining", _units(left_minor, currency), currency)
        if self._views.is_built("casework"):
            number, oldest = (await self._views.read("casework", read_waiting_escalations)).result
            to.put("escalations_waiting", number)
            age = 0.0 if oldest is None else (now - parse_time(oldest)).total_seconds()
            to.put("escalations_waiting_oldest_seconds", max(0.0, age))
        if self._views.is_built("flags"):
            to.put("cases_open", (await self._views.read("flags", count_open_cases)).result)


def _units(minor: int, currency: str) -> float:
    """Return an amount in units of its currency, such as pounds."""
    return float(Money(minor, currency).text)


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    """Retrieve the exception of a finished task; the next scrape meets the same one, or none."""
    if not task.cancelled():
        task.exception()
