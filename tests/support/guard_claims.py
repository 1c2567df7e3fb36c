"""Claims of one customer by several agents, which the guard flags."""

from __future__ import annotations

from tests.support.builders import reported_action
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually


async def claims(upstream: Upstream, number: int = 6, start: int = 0) -> None:
    """Record claims of one customer, with goodwill by one agent after the other."""
    for one in range(start, start + number):
        fact = reported_action(
            f"a-{one}",
            "4.00",
            request_id=f"q-{one}",
            agent_id=f"A-{one % 5}",
            reason=f"reason {one}",
            customer_id="C-claims",
            order_id=f"O-{one}",
        )
        await upstream.record(fact)
    # The decider posts each of them to its budget.
    await eventually(lambda: upstream.recorded("action.charged"), lambda charged: len(charged) >= start + number)
