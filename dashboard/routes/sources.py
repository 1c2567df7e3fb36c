"""Routes of sources, for their engineers: recorded events, rejections, and a check of an event."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, cast

import msgspec
import sqlalchemy as sa
from fastapi import Body, Depends, HTTPException, Query, Response
from pydantic import WithJsonSchema

from config import topology
from dashboard.list_query import (  # noqa: TC001 - FastAPI reads the annotations
    After,
    FeedQuery,
    FeedRangeQuery,
    PageQuery,
)
from dashboard.list_reader import Listing, ListReader
from dashboard.nats_requests import SOURCE, ask
from dashboard.openapi import answers
from dashboard.schemas import JsonResponse, Page, checked_by
from domain.documents.replies import Checked
from domain.documents.rows import ArrivalRow, RejectionRow, SourceRow
from domain.ids import ID_SCHEMA
from domain.serialization import JsonObject  # noqa: TC001 - FastAPI reads the annotations
from domain.sources import fact_source_fault, source_fault
from ledger.store.subject_tokens import fact_token, token_of_source
from projections.engine.pages import page_rows
from projections.views.audit_trail import Trail, trail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.list_reader import Cursor
    from dashboard.nats_requests import ReplyFields
    from domain.serialization import Json
    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log
    from projections.engine.storage import Progress, Row

_SEARCHED_REJECTIONS, _SEARCHES = 5000, 20
"""Rejections of all sources that are searched at once, and how often for one page."""
_ARRIVAL = ("event_id", "type", "time", "recorded", "position")

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


async def _newest_rejections(
    rejected: Log, source: str, before: int, limit: int
) -> tuple[list[JsonObject], int | None]:
    """Return the newest rejections of a source before an entry, and the entry before which the next page begins."""
    found: list[JsonObject] = []
    upper = before
    for _ in range(_SEARCHES):
        lower = max(1, upper - _SEARCHED_REJECTIONS)
        for token in {token_of_source(source), fact_token(source)}:  # the second is the form of earlier versions
            async for batch in rejected.subject_batches(f"{topology.REJECTED_SUBJECT}.{token}.>", lower - 1):
                for one in batch:
                    if one.position < upper:
                        entry = msgspec.json.decode(one.data, type=_Rejected)
                        reason = {name: getattr(entry, name) for name in ("code", "field", "message")}
                        found.append({"entry": one.position, **reason, "recorded": entry.recordedtime})
                if batch[-1].position >= upper:
                    break
        upper = lower
        if len(found) > limit or upper == 1:
            break
    found.sort(key=itemgetter("entry"), reverse=True)
    if len(found) > limit:
        return found[:limit], cast("int", found[limit - 1]["entry"])
    return found, upper if upper > 1 else None


def add_source_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of sources."""
    views, rejected, authorizer = context.views, context.rejected, context.authorizer
    lists, caller = ListReader(views, context.log), Depends(authorizer.viewer)
    auditors = Depends(authorizer.allowed("auditor", "operator"))

    async def page(items: Sequence[Mapping[str, Json]], progress: Progress) -> Response:
        position, lag = progress.anchor.position, await views.lag(progress)
        return JsonResponse({"items": items, "position": position, "lag_seconds": lag})

    @api.get(
        "/api/v1/sources",
        responses=answers(Page[SourceRow]),
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
        responses=answers(Page[ArrivalRow], tables=True),
        dependencies=[auditors],
        summary="The recorded events of a source, the newest first",
    )
    async def arrivals(
        source: Source,
        page: Annotated[PageQuery, Depends()],
        feed: Annotated[FeedQuery, Depends()],
        within: Annotated[FeedRangeQuery, Depends()],
        viewer: Principal = caller,
    ) -> Response:
        times = await lists.feed_range(within)

        def read(connection: sa.Connection, limit: int, after: Cursor, _at: int | None) -> list[Row]:
            rows = page_rows(connection, trail, feed.page(limit, after, None, times), equal={"source": source})
            return [{name: row[name] for name in _ARRIVAL} for row in rows]

        listing = Listing(
            "arrivals", ArrivalRow, Trail.name, read, itemgetter("position"), feed.after, more=times.told()
        )
        return await lists.answer(listing, page, viewer)

    @api.get(
        "/api/v1/rejections",
        responses=answers(Page[RejectionRow]),
        dependencies=[auditors],
        summary="The rejections of a source with their reasons, the newest first",
    )
    async def rejections(source: Source, limit: ShortLimit = 50, after: After = None) -> Response:
        last = await rejected.last_position()
        items, following = await _newest_rejections(rejected, source, after or last + 1, limit)
        return JsonResponse({"items": items, "position": last, "lag_seconds": 0.0, "next": following})

    @api.post(
        "/api/v1/check",
        responses=answers(Checked),
        summary="Check whether the intake would accept an event, without recording it",
        dependencies=[Depends(authorizer.viewer), *authorizer.command_gates],
    )
    async def check(event: Annotated[JsonObject, Body(description="A CloudEvent in structured JSON.")]) -> Response:
        answer = await _check(context.client, event)
        if "accepted" not in answer:
            raise HTTPException(503, str(answer.get("message", "no answer from the intake")))
        return JsonResponse(answer)
