"""Routes of sources, for their engineers: recorded events, rejections, and a check of an event."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

import msgspec
import sqlalchemy as sa
from fastapi import Body, Depends, HTTPException, Query, Response
from pydantic import WithJsonSchema

from config import topology
from dashboard.nats_requests import SOURCE, ask
from dashboard.schemas import CommandAnswer, JsonResponse, Page, checked_by
from domain.ids import ID_SCHEMA
from domain.serialization import JsonObject  # noqa: TC001 - FastAPI reads the annotations
from domain.sources import fact_source_fault, source_fault
from ledger.store.subject_tokens import fact_token, token_of_source
from projections.views.audit_trail import Trail, trail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI

    from dashboard.context import ApiContext
    from dashboard.nats_requests import ReplyFields
    from domain.serialization import Json
    from ledger.nats.client import LedgerClient
    from projections.engine.storage import Progress

_SEARCHED_REJECTIONS = 5000
"""The newest rejections that are searched."""


Source = Annotated[
    str,
    checked_by(source_fault),
    WithJsonSchema({"type": "string", **ID_SCHEMA}),
    Query(description="The `source` of its events."),
]
ShortLimit = Annotated[int, Query(ge=1, le=200, description="The most items to return.")]


async def _check(client: LedgerClient, event: JsonObject) -> ReplyFields:
    """Return whether the intake would accept an event.

    A fault of its source is reported here, because an invalid source has no subject.
    """
    source = event.get("source")
    if not isinstance(source, str):
        return await ask(client, f"{topology.READ_SUBJECT}.{SOURCE}.check", event, "intake")
    if fault := fact_source_fault(source):
        return {"accepted": False, "error": {"code": fault.code, "message": fault.message, "field": "source"}}
    return await ask(client, f"{topology.READ_SUBJECT}.{token_of_source(source)}.check", event, "intake")


class _Rejected(msgspec.Struct):
    subject: str
    code: str
    field: str
    message: str
    recordedtime: str = ""


def add_source_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of sources."""
    views, rejected, authorizer = context.views, context.rejected, context.authorizer
    auditors = Depends(authorizer.allowed("auditor", "operator"))

    async def page(items: Sequence[Mapping[str, Json]], progress: Progress) -> Response:
        position, lag = progress.anchor.position, await views.lag(progress)
        return JsonResponse({"items": items, "position": position, "lag_seconds": lag})

    @api.get(
        "/api/v1/sources",
        response_model=Page,
        dependencies=[auditors],
        summary="Sources, with the number of their recorded events",
    )
    async def sources() -> Response:
        query = sa.select(trail.c.source, sa.func.count(), sa.func.max(trail.c.recorded)).group_by(trail.c.source)
        found = await views.read(Trail.name, lambda c: c.execute(query.order_by(trail.c.source)).all())
        items = [{"source": name, "events": number, "last_recorded": last} for name, number, last in found.result]
        return await page(items, found.progress)

    @api.get(
        "/api/v1/arrivals",
        response_model=Page,
        dependencies=[auditors],
        summary="The newest recorded events of a source",
    )
    async def arrivals(source: Source, limit: ShortLimit = 50) -> Response:
        names = (trail.c.event_id, trail.c.type, trail.c.time, trail.c.recorded, trail.c.position)
        query = sa.select(*names).where(trail.c.source == source).order_by(trail.c.position.desc()).limit(limit)
        found = await views.read(Trail.name, lambda c: [dict(row) for row in c.execute(query).mappings()])
        return await page(found.result, found.progress)

    @api.get(
        "/api/v1/rejections",
        response_model=Page,
        dependencies=[auditors],
        summary="The newest rejections of a source, with their reasons",
    )
    async def rejections(source: Source, limit: ShortLimit = 50) -> Response:
        last = await rejected.last_position()
        items: list[JsonObject] = []
        for token in {token_of_source(source), fact_token(source)}:  # the second is the form of earlier versions
            subject = f"{topology.REJECTED_SUBJECT}.{token}.>"
            async for batch in rejected.subject_batches(subject, max(0, last - _SEARCHED_REJECTIONS)):
                for one in batch:
                    entry = msgspec.json.decode(one.data, type=_Rejected)
                    reason = {name: getattr(entry, name) for name in ("code", "field", "message")}
                    items.append({"entry": one.position, **reason, "recorded": entry.recordedtime})
        items.sort(key=itemgetter("entry"), reverse=True)
        return JsonResponse({"items": items[:limit], "position": last, "lag_seconds": 0.0})

    @api.post(
        "/api/v1/check",
        response_model=CommandAnswer,
        summary="Check whether the intake would accept an event, without recording it",
        dependencies=[Depends(authorizer.viewer), *authorizer.command_gates],
    )
    async def check(event: Annotated[JsonObject, Body(description="A CloudEvent in structured JSON.")]) -> Response:
        answer = await _check(context.client, event)
        if "accepted" not in answer:
            raise HTTPException(503, str(answer.get("message", "no answer from the intake")))
        return JsonResponse(answer)
