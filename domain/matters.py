"""Matters: requests of one agent for the same kind of action on the same interaction, order or customer."""

from __future__ import annotations

from typing import Protocol

SECONDS = 7 * 86_400
"""An escalation filed within this time after a request was told to escalate belongs to that request."""


class Requested(Protocol):
    """A request for an action, as decisions and escalations record it."""

    @property
    def agent_id(self) -> str:
        """The agent."""

    @property
    def kind(self) -> str:
        """The kind of action."""

    @property
    def interaction_id(self) -> str | None:
        """The interaction."""

    @property
    def order_id(self) -> str | None:
        """The order."""

    @property
    def customer_id(self) -> str | None:
        """The customer."""


def matter_of(request: Requested, minor: int, currency: str) -> tuple[str, ...]:
    """Return the key of a matter: agent, kind, and the interaction, else the order, else the customer.

    Requests that name none of them are one matter where they ask for the same amount.
    """
    for name in ("interaction_id", "order_id", "customer_id"):
        if (what := getattr(request, name)) is not None:
            return request.agent_id, request.kind, name, what
    return request.agent_id, request.kind, "amount", f"{minor} {currency}"
