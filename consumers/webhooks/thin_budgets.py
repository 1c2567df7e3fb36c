"""Notifications of budgets that run out, from the view budget_balances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumers.webhooks.messages import WebhookMessage
from domain.events.decisions import LEDGER_SOURCE
from domain.webhooks import THIN_BUDGET, THIN_SHARE
from projections.engine import storage
from projections.views.balances import Balances, read_thin

if TYPE_CHECKING:
    from domain.serialization import JsonObject
    from projections.engine.storage import Row, ViewStore

_TOLD = ("holder", "period", "granted", "spent", "reserved", "remaining", "position")


class ThinBudgets:
    """Finds the budgets that fell below ``THIN_SHARE`` of their grant after a position of the view."""

    def __init__(self, views: ViewStore, position: int) -> None:
        self._views = views
        self.position = position

    def read(self) -> list[WebhookMessage]:
        """Return a message for each budget that fell below the threshold since the last call."""
        generation = self._views.live_generation(Balances())
        progress = self._views.progress_of(Balances())
        if generation is None or progress is None or progress.anchor.position <= self.position:
            return []
        with storage.reading(self._views, Balances(), generation) as connection:
            reached = storage.read_progress(connection).anchor.position  # first: the snapshot begins here
            found = read_thin(connection, THIN_SHARE, self.position)
        self.position = reached
        return [WebhookMessage("budgets", reached, f"budget {row['holder']}", _event(row)) for row in found]


def _event(row: Row) -> JsonObject:
    """Return the notification of a thin budget as a CloudEvent; its id is the same whenever it is found."""
    currency = row["granted"]["currency"]
    return {
        "specversion": "1.0",
        "id": f"budget_thin {row['holder']} {row['period']} {currency} {row['position']}",
        "source": LEDGER_SOURCE,
        "type": THIN_BUDGET,
        "subject": row["holder"],
        "time": row["happened"],
        "datacontenttype": "application/json",
        "data": {name: row[name] for name in _TOLD},
    }
