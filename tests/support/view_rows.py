"""A little of every kind of event, and all rows of a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from projections.engine import storage
from tests.support.builders import event, gbp, reported_action
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from projections.engine.projection import Projection
    from projections.engine.storage import ViewStore
    from tests.support.upstreams import Upstream


async def record_history(upstream: Upstream) -> None:
    """Record a little of everything: facts, decisions, a reported action."""
    await upstream.set_up_basics()
    for number, day in enumerate(("2026-01-01", "2026-01-20", "2026-02-20", "2026-03-20")):
        bought = event(
            f"b-{number}",
            "purchase.completed",
            time=f"{day}T12:00:00Z",
            order_id=f"O-{number}",
            customer_id="C-1",
            total=gbp(f"{number + 1}0.00"),
        )
        await upstream.publish(bought)
    await upstream.publish(event("i-1", "interaction.opened", interaction_id="I-1", customer_id="C-1", agent_id="A-1"))
    await upstream.record(
        event("back", "purchase.returned", time="2026-02-01T12:00:00Z", customer_id="C-1", total=gbp("3.00"))
    )
    await upstream.action("r-1", "5.00", customer_id="C-1", interaction_id="I-1", time="2026-01-31T12:00:00Z")
    await upstream.action("r-2", "99.00", customer_id="C-1", interaction_id="I-1", time="2026-01-31T12:01:00Z")
    await upstream.record(
        reported_action("rep", "2.00", time="2026-02-10T12:00:00Z", reason="no signal", customer_id="C-1")
    )
    await upstream.action("r-3", "7.00", time="2026-02-11T12:00:00Z")
    await eventually(lambda: upstream.recorded("action.charged"))  # the reported action is posted to its budget


def rows_of(views: ViewStore, model: Projection) -> dict[str, list[str]]:
    """Return all rows of a view."""
    generation = views.live_generation(model)
    assert generation is not None
    with storage.reading(views, model, generation) as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table)).fetchall()))
            for table in model.metadata.sorted_tables
        }
