"""Resolution Ledger: an event-sourced ledger of remedies that front-line staff give to customers.

This package, ``resolution_ledger``, is the public face; it keeps to semantic versioning. The distribution's other
top-level packages are private and change without notice: ``domain``, ``ledger``, ``projections``, ``consumers``,
``config``, ``dashboard`` and ``app``. The one exception is ``ledger.persistence`` (docs/integrate/eventsourcing.md).
Other systems reach a running ledger by ``Client`` (docs/integrate/client.md), or by plain NATS and HTTP, which
docs/integrate/ describes; the command line is ``resolution-ledger``.

Another package adds a guard rule or a projection by an entry point (docs/integrate/plugins.md)::

    [project.entry-points."resolution_ledger.guard_rules"]
    "acme.repeated-gift" = "acme_ledger:RepeatedGift"

    [project.entry-points."resolution_ledger.projections"]
    acme_days = "acme_ledger:Days"

An entry point names a class, or a function without arguments, that makes a new rule or projection at each call.

Client:
    ``Client``, ``NewEvent``; requests ``ActionRequest``, ``Preview``, ``HoldRequest``, ``ReversalRequest``,
    ``EscalationAsk``, ``EscalationDecision``; errors ``ClientError``, ``RejectedError``, ``EventsRejectedError``,
    ``NotAllowedError``, ``NoAnswerError``. ``replies``: the module of the classes of answers.
Guard rules:
    ``GuardRule``: the protocol of a rule. ``Rule``: its id, version and pattern. ``RuleFinding``: its result.
    ``GuardEvent``, ``ObservedAction``, ``GuardHistory``: the arguments of a rule.
Projections:
    ``Projection``: the protocol of a read model. ``Event``: a decoded event with its position and times.
Events and values:
    ``facts``, ``decisions``: modules of the classes of events. ``Money``: whole minor units and a currency.
Schemas:
    ``json_schema``: the JSON Schema (2020-12) of an event type, a request or an answer.
Groups of entry points:
    ``GUARD_RULES``, ``PROJECTIONS``.

A rule or a projection cannot write to the log and takes no part in a decision. An error in a rule is logged with the
package's name and stops no other rule; an error in a projection stops that projection alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from domain.abuse.findings import Rule, RuleFinding
    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction
    from domain.abuse.rule_interface import GuardRule
    from domain.commands import (
        ActionRequest,
        EscalationAsk,
        EscalationDecision,
        HoldRequest,
        Preview,
        ReversalRequest,
    )
    from domain.documents import replies
    from domain.events import decisions, facts
    from domain.money import Money
    from projections.engine.events import Event
    from projections.engine.projection import Projection
    from projections.published_schemas import json_schema
    from resolution_ledger.client import Client, NewEvent
    from resolution_ledger.errors import (
        ClientError,
        EventsRejectedError,
        NoAnswerError,
        NotAllowedError,
        RejectedError,
    )

__version__ = "0.1.0"
__all__ = [
    "GUARD_RULES",
    "PROJECTIONS",
    "ActionRequest",
    "Client",
    "ClientError",
    "EscalationAsk",
    "EscalationDecision",
    "Event",
    "EventsRejectedError",
    "GuardEvent",
    "GuardHistory",
    "GuardRule",
    "HoldRequest",
    "Money",
    "NewEvent",
    "NoAnswerError",
    "NotAllowedError",
    "ObservedAction",
    "Preview",
    "Projection",
    "RejectedError",
    "ReversalRequest",
    "Rule",
    "RuleFinding",
    "__version__",
    "decisions",
    "facts",
    "json_schema",
    "replies",
]
GUARD_RULES: Final = "resolution_ledger.guard_rules"
"""The group of entry points that add guard rules; an entry point's name is the rule's id."""
PROJECTIONS: Final = "resolution_ledger.projections"
"""The group of entry points that add projections; an entry point's name is the projection's name."""

_HOMES: Final = {
    "ActionRequest": "domain.commands",
    "Client": "resolution_ledger.client",
    "ClientError": "resolution_ledger.errors",
    "EscalationAsk": "domain.commands",
    "EscalationDecision": "domain.commands",
    "Event": "projections.engine.events",
    "EventsRejectedError": "resolution_ledger.errors",
    "GuardEvent": "domain.abuse.history",
    "GuardHistory": "domain.abuse.history",
    "GuardRule": "domain.abuse.rule_interface",
    "HoldRequest": "domain.commands",
    "Money": "domain.money",
    "NewEvent": "resolution_ledger.client",
    "NoAnswerError": "resolution_ledger.errors",
    "NotAllowedError": "resolution_ledger.errors",
    "ObservedAction": "domain.abuse.history",
    "Preview": "domain.commands",
    "Projection": "projections.engine.projection",
    "json_schema": "projections.published_schemas",
    "RejectedError": "resolution_ledger.errors",
    "ReversalRequest": "domain.commands",
    "Rule": "domain.abuse.findings",
    "RuleFinding": "domain.abuse.findings",
}
"""Names are imported when they are first used, because the command line starts by importing this package."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name from its module."""
        if name in {"decisions", "facts"}:
            return import_module(f"domain.events.{name}")
        if name == "replies":
            return import_module("domain.documents.replies")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
