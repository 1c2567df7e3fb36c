"""The brief: what whoever takes a customer over needs to know, so that nobody explains twice.

Read from the views, brought up to the log's end first; what may be given now is the decider's to say.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import nats.errors

from config import topology
from consumers.runtime.request_form import read_question
from domain.commands import BriefRequest, RequestError
from domain.policy.model import KINDS
from domain.serialization import encode
from ledger.errors import UnavailableError
from projections.engine import storage
from projections.views import casework
from projections.views.audit_trail import Trail, read_trail
from projections.views.casework import Casework

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import sqlalchemy as sa

    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log

_INTERACTIONS_AT_MOST = 20
_ACTIONS_AT_MOST = 100
_PATIENCE_SECONDS = 3.0


class Briefs:
    """Answers requests for briefs."""

    def __init__(self, client: LedgerClient, log: Log, folder: Path) -> None:
        self._client = client
        self._log = log
        self._folder = folder

    async def answer(self, source: str, body: bytes) -> bytes:
        """The brief that a request asks for.

        Raises:
            RequestError: it is no request, or names neither a customer nor an interaction, or one that nobody recorded.
            UnavailableError: the views are away, or behind.

        """
        request = read_question(BriefRequest, body)
        if request.customer_id is None and request.interaction_id is None:
            raise RequestError("missing", "name a customer_id or an interaction_id", "customer_id")
        end = await self._log.last_position()
        found = await self._read(Casework(), end, lambda connection: _matters(connection, request))
        customers, named = found["household"], [("interaction", one["interaction_id"]) for one in found["interactions"]]
        stories = await self._read(
            Trail(), end, lambda connection: {name: read_trail(connection, [(kind, name)]) for kind, name in named}
        )
        for interaction in found["interactions"]:
            lines = stories[interaction["interaction_id"]]
            interaction["story"] = [{name: line[name] for name in _TOLD} for line in lines]
        found["available"] = await self._available(source, request, customers[0] if customers else None)
        return encode({"outcome": "done", "position": end, "agent_id": request.agent_id, **found})

    async def _read[T](self, model: Any, end: int, query: Callable[[sa.Connection], T]) -> T:
        """Ask a view as soon as it has read the log up to its end."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            try:
                while True:
                    generation = storage.live_generation(self._folder, model)
                    if generation is not None:
                        found = await asyncio.to_thread(self._ask, model, generation, end, query)
                        if found is not None:
                            return found
                    await asyncio.sleep(0.02)
            except TimeoutError:
                message = f"the view {model.name} is behind; see `resolution-ledger admin projections status`"
                raise UnavailableError(message) from None

    def _ask[T](self, model: Any, generation: int, end: int, query: Callable[[sa.Connection], T]) -> T | None:
        engine = storage.open_generation(self._folder, model, generation)
        try:
            with engine.connect() as connection, connection.begin():
                behind = storage.read_progress(connection).anchor.position < end
                return None if behind else query(connection)
        finally:
            engine.dispose()

    async def _available(self, source: str, request: BriefRequest, customer_id: str | None) -> dict[str, Any]:
        """What the agent could give this customer now without asking, by kind."""
        named = {"customer_id": customer_id, "interaction_id": request.interaction_id}
        asked = {"agent_id": request.agent_id, **{name: value for name, value in named.items() if value is not None}}
        subject = f"{topology.DECIDE_SUBJECT}.{source}.preview"
        try:
            replies = await asyncio.gather(
                *(self._client.request(subject, encode({"kind": kind, **asked}), timeout=5) for kind in KINDS)
            )
        except (nats.errors.Error, TimeoutError) as error:
            message = f"nobody says what may be given: {error or 'time-out'}; is `run decisions` there?"
            raise UnavailableError(message) from error
        answers = dict(zip(KINDS, (json.loads(reply.data) for reply in replies), strict=True))
        for answer in answers.values():
            if answer["outcome"] == "error":
                raise RequestError(**answer["error"])
        return {kind: answer["available"] for kind, answer in answers.items() if answer["outcome"] == "taken"}


def _matters(connection: sa.Connection, request: BriefRequest) -> dict[str, Any]:
    customer_id = request.customer_id
    if customer_id is None:
        rows = casework.read_interactions(connection, interaction_id=request.interaction_id)
        if not rows:
            raise RequestError("unknown_interaction", "nobody recorded this interaction", "interaction_id")
        customer_id = rows[0]["customer_id"]
    household = casework.household_of(connection, customer_id) if customer_id is not None else []
    if household:
        interactions = casework.read_interactions(connection, household)[:_INTERACTIONS_AT_MOST]
        mine: sa.ColumnElement[bool] = casework.actions.c.customer_id.in_(household)
        asked: sa.ColumnElement[bool] = casework.escalations.c.customer_id.in_(household)
    else:
        interactions = casework.read_interactions(connection, interaction_id=request.interaction_id)
        mine = casework.actions.c.interaction_id == request.interaction_id
        asked = casework.escalations.c.interaction_id == request.interaction_id
    actions = casework.read_actions(connection, mine)[-_ACTIONS_AT_MOST:]
    never = casework.read_actions(connection, mine, casework.unsettled("9999"))
    waiting = casework.read_escalations(connection, asked, casework.escalations.c.status == "waiting")
    promises = [{"what": "not settled yet", **_short(action)} for action in never]
    promises += [{"what": "waits for an answer", **_short(escalation)} for escalation in waiting]
    return {
        "customer_id": customer_id,
        "household": household,
        "interactions": interactions,
        "actions": actions,
        "promises": promises,
    }


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _PROMISED if row.get(name) is not None}


_TOLD = ("time", "who", "what", "position")
_PROMISED = (
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
