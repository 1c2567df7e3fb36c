"""The brief: the facts that an agent needs to take over a customer, so that the customer explains the case once.

It is read from the views, once they have reached the end of the log. The decider tells the amounts available now.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, TypedDict

import nats.errors

from config import topology
from consumers.runtime.request_form import read_query
from consumers.runtime.source_tokens import read_token
from domain.commands import BriefRequest, RequestError
from domain.policy.model import KINDS
from domain.serialization import JsonObject, encode
from ledger.errors import UnavailableError, reason_of
from projections.engine import storage
from projections.views import casework
from projections.views.audit_trail import Trail, read_trail
from projections.views.casework import Casework

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from consumers.runtime.source_watch import SourceWatch
    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log
    from projections.engine.projection import Projection
    from projections.engine.storage import Row, ViewStore

_INTERACTIONS_AT_MOST = 20
_ACTIONS_AT_MOST = 100
_PATIENCE_SECONDS = 3.0


class _BriefCase(TypedDict):
    """The part of a brief that the view `casework` holds."""

    customer_id: str | None
    household: list[str]
    interactions: list[Row]
    actions: list[Row]
    promises: list[JsonObject]


class Briefs:
    """Answers requests for briefs."""

    def __init__(self, client: LedgerClient, log: Log, views: ViewStore, sources: SourceWatch) -> None:
        self._client = client
        self._sources = sources
        self._log = log
        self._views = views

    async def answer(self, source: str, body: bytes) -> bytes:
        """Return the brief for a request.

        Raises:
            RequestError: the source may not ask; or the request is invalid, or names neither a customer nor an
                interaction, or an unknown one.
            UnavailableError: a view does not exist or is behind.

        """
        if (refusal := self._sources.registry.request_refusal(read_token(source).source, "brief")) is not None:
            raise RequestError("source_not_allowed", refusal, "source")
        request = read_query(BriefRequest, body)
        if request.customer_id is None and request.interaction_id is None:
            raise RequestError("missing", "name a customer_id or an interaction_id", "customer_id")
        end = await self._log.last_position()
        found = await self._read(Casework(), end, lambda connection: _casework(connection, request))
        customers, ids = found["household"], [one["interaction_id"] for one in found["interactions"]]
        stories = await self._read(
            Trail(), end, lambda connection: {one: read_trail(connection, [("interaction", one)]) for one in ids}
        )
        for interaction in found["interactions"]:
            lines = stories[interaction["interaction_id"]]
            interaction["story"] = [{name: line[name] for name in _STORY_FIELDS} for line in lines]
        available = await self._available(source, request, customers[0] if customers else None)
        return encode(
            {"outcome": "done", "position": end, "agent_id": request.agent_id, **found, "available": available}
        )

    async def _read[T](self, model: Projection, end: int, query: Callable[[sa.Connection], T]) -> T:
        """Query a view once it has reached this position."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while True:
                    generation = self._views.live_generation(model)
                    if generation is not None:
                        found = await asyncio.to_thread(self._query, model, generation, end, query)
                        if found is not None:
                            return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            message = f"the view {model.name} is behind; see `resolution-ledger admin projections status`"
            raise UnavailableError(message) from None

    def _query[T](self, model: Projection, generation: int, end: int, query: Callable[[sa.Connection], T]) -> T | None:
        with storage.reading(self._views, model, generation) as connection:
            behind = storage.read_progress(connection).anchor.position < end
            return None if behind else query(connection)

    async def _available(self, source: str, request: BriefRequest, customer_id: str | None) -> JsonObject:
        """Return the most that the agent could give this customer now without approval, by kind."""
        named = {"customer_id": customer_id, "interaction_id": request.interaction_id}
        fields = {"agent_id": request.agent_id, **{name: value for name, value in named.items() if value is not None}}
        subject = f"{topology.OPERATE_SUBJECT}.{source}.preview"
        try:
            replies = await asyncio.gather(
                *(self._client.request(subject, encode({"kind": kind, **fields}), timeout=5) for kind in KINDS)
            )
        except (nats.errors.Error, TimeoutError) as error:
            message = f"the decider does not answer: {reason_of(error)}; is the role `decisions` running?"
            raise UnavailableError(message) from error
        answers = dict(zip(KINDS, (json.loads(reply.data) for reply in replies), strict=True))
        for answer in answers.values():
            if answer["outcome"] == "error":
                raise RequestError(**answer["error"])
        return {kind: answer["available"] for kind, answer in answers.items() if answer["outcome"] == "taken"}


def _casework(connection: sa.Connection, request: BriefRequest) -> _BriefCase:
    customer_id = request.customer_id
    if customer_id is None:
        rows = casework.read_interactions(connection, interaction_id=request.interaction_id)
        if not rows:
            raise RequestError("unknown_interaction", "no event of this interaction is recorded", "interaction_id")
        customer_id = rows[0]["customer_id"]
    household = casework.customer_group_of(connection, customer_id) if customer_id is not None else []
    if household:
        interactions = casework.read_interactions(connection, household)[:_INTERACTIONS_AT_MOST]
        of_case: sa.ColumnElement[bool] = casework.actions.c.customer_id.in_(household)
        asked_in_case: sa.ColumnElement[bool] = casework.escalations.c.customer_id.in_(household)
    else:
        interactions = casework.read_interactions(connection, interaction_id=request.interaction_id)
        of_case = casework.actions.c.interaction_id == request.interaction_id
        asked_in_case = casework.escalations.c.interaction_id == request.interaction_id
    actions = casework.read_actions(connection, of_case)[-_ACTIONS_AT_MOST:]
    unsettled = casework.read_actions(connection, of_case, casework.unsettled("9999"))
    waiting = casework.read_escalations(connection, asked_in_case, casework.escalations.c.status == "waiting")
    promises = [_promise("not settled yet", action) for action in unsettled]
    promises += [_promise("waits for an answer", escalation) for escalation in waiting]
    return {
        "customer_id": customer_id,
        "household": household,
        "interactions": interactions,
        "actions": actions,
        "promises": promises,
    }


def _promise(status: str, row: Row) -> JsonObject:
    return {"what": status} | {name: row[name] for name in _PROMISE_FIELDS if row.get(name) is not None}


_STORY_FIELDS = ("time", "who", "what", "position")
_PROMISE_FIELDS = (
    "action_id",
    "escalation_id",
    "kind",
    "amount",
    "asked",
    "reason",
    "asked_of",
    "due",
    "time",
    "interaction_id",
)
