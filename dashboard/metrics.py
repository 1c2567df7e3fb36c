"""Metrics for Prometheus: positions of the log and of each view, and the state of each role."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from config import topology
from ledger.store.role_status import ask_roles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dashboard.view_reader import ViewReader
    from ledger.nats.client import LedgerClient
    from ledger.store.role_status import RoleAnswers

_TIMEOUT_SECONDS = 1.0
_CACHE_SECONDS = 2.0
"""Answers of roles are cached this long, so that simultaneous scrapes ask only once."""


class Metrics:
    """Gauges that are computed for each scrape."""

    def __init__(self, views: ViewReader, client: LedgerClient) -> None:
        self._views = views
        self._client = client
        self._heard: Mapping[str, RoleAnswers] = {}
        self._heard_at = float("-inf")
        self._lock = asyncio.Lock()

    async def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        registry = CollectorRegistry()
        await self._add_views(registry)
        self._add_roles(registry, await self._roles())
        return generate_latest(registry)

    async def _add_views(self, registry: CollectorRegistry) -> None:
        end = Gauge("resolution_ledger_last_position", "The log's last position", registry=registry)
        at = Gauge("resolution_ledger_view_position", "A view's position", ["view"], registry=registry)
        lag = Gauge("resolution_ledger_view_lag_seconds", "Age of the oldest unread event", ["view"], registry=registry)
        stopped = Gauge("resolution_ledger_view_stopped", "1 if a view has stopped", ["view"], registry=registry)
        end.set(await self._views.end())
        for state in await self._views.states():
            at.labels(state.view).set(state.position)
            lag.labels(state.view).set(state.lag_seconds)
            stopped.labels(state.view).set(state.stopped is not None)

    async def _roles(self) -> Mapping[str, RoleAnswers]:
        async with self._lock:
            if time.monotonic() - self._heard_at > _CACHE_SECONDS:
                patience = dict.fromkeys(topology.ROLES, _TIMEOUT_SECONDS)
                self._heard = await ask_roles(self._client, topology.ROLES_SUBJECT, patience)
                self._heard_at = time.monotonic()
        return self._heard

    @staticmethod
    def _add_roles(registry: CollectorRegistry, heard: Mapping[str, RoleAnswers]) -> None:
        def gauge(name: str, words: str) -> Gauge:
            return Gauge(f"resolution_ledger_role_{name}", words, ["role"], registry=registry)

        alive = gauge("processes", "Processes of a role that answer")
        silent = gauge("silent_seconds", "Seconds since the slowest loop of a role finished a round")
        waits = gauge("waits_seconds", "Seconds that a role has waited")
        at = gauge("position", "A role's position in the log")
        for role, one in heard.items():
            loops = [loop for status in one.statuses for loop in status.loops]
            alive.labels(role).set(len(one.statuses))
            silent.labels(role).set(max((loop.silent_seconds for loop in loops), default=0.0))
            waits.labels(role).set(max((loop.waits_seconds for loop in loops), default=0.0))
            readings = [reading.position or 0 for status in one.statuses for reading in status.readings]
            if readings and role != "projections":  # each view has its own gauge
                at.labels(role).set(max(readings))
