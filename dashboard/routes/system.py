"""Routes of the system itself: single events, states of views, the caller, metrics and health."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException, Path, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from dashboard.caller import caller_document
from dashboard.openapi import answers, openapi_document
from dashboard.schemas import Caller, EventAnswer, Health, JsonResponse, Page, SchemaList
from domain.documents.rows import ViewRow
from projections.engine.events import UnknownEventError, read_event
from projections.published_schemas import published_schema, schema_paths
from projections.views.event_summaries import describe

if TYPE_CHECKING:
    from dashboard.auth.authorization import Authorizer
    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.view_reader import ViewReader


def add_system_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of the system itself."""
    views, log, authorizer = context.views, context.log, context.authorizer
    _add_health(api, views)
    caller, auditors = Depends(authorizer.viewer), Depends(authorizer.allowed("auditor", "operator"))

    @api.get(
        "/api/v1/events/{position}",
        responses=answers(EventAnswer),
        dependencies=[auditors],
        summary="One event as it was recorded, and in one sentence",
    )
    async def event(position: Annotated[int, Path(ge=0, le=2**53)]) -> Response:
        found = await log.at(position) if position > 0 else None
        if found is None:
            raise HTTPException(404, f"no event has position {position}")
        shown = json.loads(await context.keys.decrypt_fields(found.data)) | {"position": position}
        try:
            what = describe(read_event(found).body)
        except UnknownEventError as error:  # of a later version
            what = str(error)
        return JsonResponse({"event": shown, "what": what, "position": await log.last_position(), "lag_seconds": 0.0})

    @api.get(
        "/api/v1/projections",
        responses=answers(Page[ViewRow]),
        dependencies=[caller],
        summary="Position and lag of each view",
    )
    async def projections() -> Response:
        items = [state._asdict() for state in await views.states()]
        return JsonResponse({"items": items, "position": await views.end(), "lag_seconds": 0.0})

    @api.get("/openapi.json", dependencies=[Depends(authorizer.any_token)], include_in_schema=False)
    async def openapi() -> Response:
        return JsonResponse(openapi_document(api))

    _add_schemas(api, authorizer)

    @api.get("/api/v1/me", responses=answers(Caller), summary="The caller, and the people whose data they see")
    async def me(viewer: Principal = caller) -> Response:
        return JsonResponse(await caller_document(context, viewer))

    @api.get("/metrics", dependencies=[auditors], summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(await context.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_schemas(api: FastAPI, authorizer: Authorizer) -> None:
    anyone = [Depends(authorizer.any_token)]

    @api.get("/schemas", dependencies=anyone, summary="The paths of all JSON Schemas", responses=answers(SchemaList))
    async def schemas() -> Response:
        return JsonResponse({"items": [f"/schemas/{path}" for path in schema_paths()]})

    @api.get(
        "/schemas/{kind}/{name}",
        dependencies=anyone,
        summary="A JSON Schema: of an event type, of a request, or of an answer",
        responses={200: {"content": {"application/schema+json": {"schema": {"type": "object"}}}}},
    )
    async def schema(kind: Literal["events", "messages"], name: str) -> Response:
        try:
            found = published_schema(f"{kind}/{name}")
        except KeyError:
            raise HTTPException(404, f"no schema is called {name}; /schemas lists all of them") from None
        return JsonResponse(found, media_type="application/schema+json")


def _add_health(api: FastAPI, views: ViewReader) -> None:
    @api.get("/healthz", summary="Liveness of this process", responses=answers(Health))
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/readyz", summary="Readiness of the log and of every view", responses=answers(Health))
    async def readyz() -> dict[str, str]:
        await views.end()
        waiting = [state.view for state in await views.states() if state.stopped is not None]
        if waiting:
            raise HTTPException(503, f"these views are not ready: {', '.join(waiting)}")
        return {"status": "ok"}
