"""The metrics of `/metrics`: kind, meaning and labels of each, and their values at one scrape.

No label has values that grow with the ledger: none names an employee, a customer or a source.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PREFIX = "resolution_ledger_"


class Family(NamedTuple):
    """One metric. A counter's name ends in `_total`; a histogram has `_bucket`, `_sum` and `_count` behind its name."""

    kind: Literal["gauge", "counter", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()


_VIEW, _ROLE, _CURRENCY = ("view",), ("role",), ("currency",)
FAMILIES: Mapping[str, Family] = {
    "last_position": Family("gauge", "position of the last event in the log"),
    "view_position": Family("gauge", "position that a view has read", _VIEW),
    "view_lag_seconds": Family("gauge", "age of the oldest event that a view has not read", _VIEW),
    "view_stopped": Family("gauge", "1 if a view has stopped at an event", _VIEW),
    "role_processes": Family("gauge", "processes of a role that answer", _ROLE),
    "role_starting": Family("gauge", "processes of a role that are starting, and cannot work yet", _ROLE),
    "role_working": Family("gauge", "processes of a role that do its work; the others stand by", _ROLE),
    "role_silent_seconds": Family("gauge", "seconds since the slowest loop of a role finished a round", _ROLE),
    "role_waits_seconds": Family("gauge", "seconds that a role has waited, for example for a full disk", _ROLE),
    "role_position": Family("gauge", "position that a role has read", _ROLE),
    "role_lag_seconds": Family("gauge", "age of the oldest event that decisions, guard or seal have not read", _ROLE),
    "http_requests_in_progress": Family("gauge", "requests over HTTP whose answer has not begun"),
    "http_request_duration_seconds": Family(
        "histogram", "seconds until the answer to a request over HTTP began", ("method", "route", "status")
    ),
    "decisions_total": Family("counter", "answers to requests of decisions", ("operation", "outcome", "code")),
    "decision_duration_seconds": Family("histogram", "seconds from the arrival of a request to its answer"),
    "facts_recorded_total": Family("counter", "facts recorded in the log"),
    "facts_rejected_total": Family("counter", "events rejected", ("code",)),
    "facts_waiting": Family("gauge", "messages in inboxes that are neither recorded nor rejected yet"),
    "facts_waiting_oldest_seconds": Family("gauge", "age of the oldest of these messages; 0 without one"),
    "open_budgets_spent": Family("gauge", "spent in budgets of current periods, in units of the currency", _CURRENCY),
    "open_budgets_remaining": Family("gauge", "not spent and not reserved in these budgets", _CURRENCY),
    "escalations_waiting": Family("gauge", "escalations of the ledger that wait for a decision"),
    "escalations_waiting_oldest_seconds": Family("gauge", "age of the oldest of these escalations; 0 without one"),
    "cases_open": Family("gauge", "open cases of possible misuse"),
    "certificate_end_seconds": Family("gauge", "time at which a server's certificate ends, in Unix time", ("server",)),
    "disk_free_bytes": Family("gauge", "free bytes on the disk of the dashboard's data directory"),
    "disk_size_bytes": Family("gauge", "size of that disk"),
}
"""Name without ``PREFIX`` -> the metric."""


class Exposition(Collector):
    """The values of metrics at one scrape, to be registered with prometheus_client."""

    def __init__(self) -> None:
        self._found: dict[str, Metric] = {}

    def collect(self) -> Iterable[Metric]:
        """Return the metrics that have a value."""
        return self._found.values()

    def put(self, name: str, value: float, *labels: str) -> None:
        """Add a value of a gauge or a counter, by its name in ``FAMILIES``, with the values of its labels."""
        self._add(name, "", value, dict(zip(FAMILIES[name].labels, labels, strict=True)))

    def put_histogram(
        self, name: str, bounds: Sequence[float], counts: Sequence[float], seconds: float, *labels: str
    ) -> None:
        """Add the values of a histogram: the number in each bucket, the last one without bound, and the sum."""
        named = dict(zip(FAMILIES[name].labels, labels, strict=True))
        for bound, number in zip((*map(str, bounds), "+Inf"), accumulate(counts), strict=True):
            self._add(name, "_bucket", number, named | {"le": bound})
        self._add(name, "_sum", seconds, named)
        self._add(name, "_count", sum(counts), named)

    def _add(self, name: str, suffix: str, value: float, labels: dict[str, str]) -> None:
        metric = self._found.get(name)
        if metric is None:
            family = FAMILIES[name]
            metric = self._found[name] = Metric(PREFIX + name.removesuffix("_total"), family.meaning, family.kind)
        metric.add_sample(PREFIX + name + suffix, labels, value)
