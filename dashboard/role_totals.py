"""Totals of roles over all their processes, as counters of Prometheus need them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.store.cloudevents import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from ledger.store.role_status import RoleStatus

type TotalKey = tuple[str, tuple[str, ...]]
_KEPT_PROCESSES = 200


class RoleTotals:
    """Adds what processes have done since a moment; a sum does not fall where a process ends or gives no answer.

    The totals of a process that is older count from its first answer on. So a restart of this process begins at zero,
    which Prometheus recognises, and never repeats what it has counted.
    """

    def __init__(self, since: datetime) -> None:
        self.sums: dict[TotalKey, float] = {}
        """Name and labels of a total -> its sum."""
        self._since = since
        self._last: dict[str, dict[TotalKey, float]] = {}

    def add(self, statuses: Iterable[RoleStatus]) -> None:
        """Add what has been done since the last answer of each process."""
        for status in statuses:
            if status.starting:
                continue
            now = {(total.name, total.labels): total.value for total in status.totals}
            before = self._last.pop(status.instance, None)
            if before is None:
                before = now if parse_time(status.since) < self._since else {}
            for key, value in now.items():
                self.sums[key] = self.sums.get(key, 0.0) + value - before.get(key, 0.0)
            self._last[status.instance] = now
        while len(self._last) > _KEPT_PROCESSES:
            del self._last[next(iter(self._last))]
