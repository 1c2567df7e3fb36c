"""Routes of reports, which are computed from views."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Response

from dashboard.report_cache import ReportCache
from dashboard.routes.lists import After, AsOf, Limit, ListReader
from dashboard.schemas import Json, Report
from projections.policy_history import policy_in_force, published_policies
from projections.reports.empowerment_gap import gap_report
from projections.reports.loyalty import loyalty_report
from projections.reports.recognition import recognition_report
from projections.reports.service_quality import quality_report
from projections.views.loyalty import read_effects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from projections.reading import AccessScope


def add_report_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of reports."""
    views, log, authorizer = context.views, context.log, context.authorizer
    lists, reports = ListReader(views, log), ReportCache()
    caller, not_agents = Depends(authorizer.viewer), [Depends(authorizer.allowed("manager", "auditor", "operator"))]

    async def given(
        name: str,
        view: str,
        at: int | None,
        scope: AccessScope,
        make: Callable[[int | None, AccessScope], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        async def made() -> dict[str, Any]:
            document = await make(at, scope)
            progress = (await views.read(view, lambda _connection: None, short=True)).progress
            return document | {"lag_seconds": await views.lag(progress)}

        return await reports.get((name, at, scope), made)

    @api.get(
        "/api/v1/loyalty", response_model=Report, dependencies=not_agents, summary="Customer value, by evidence level"
    )
    async def loyalty(as_of: AsOf = None, after: After = 0, limit: Limit = 100, viewer: Principal = caller) -> Response:
        at, scope = await lists.at(as_of), await authorizer.scope(viewer)
        found = await views.read("loyalty_effects", lambda c: read_effects(c, limit, after, at, people=scope.people))
        ladder = await given("loyalty", "loyalty_effects", at, scope, loyalty_of)
        items = found.result
        return Json(ladder | {"items": items, "next": items[-1]["position"] if len(items) == limit else None})

    async def loyalty_of(at: int | None, scope: AccessScope) -> dict[str, Any]:
        return await loyalty_report(views.read, await published_policies(log), at, scope=scope)

    @api.get("/api/v1/gap", response_model=Report, dependencies=not_agents, summary="The authority gap")
    async def gap(as_of: AsOf = None, viewer: Principal = caller) -> Response:
        async def made(at: int | None, scope: AccessScope) -> dict[str, Any]:
            return await gap_report(views.read, await policy_in_force(log, at), at=at, scope=scope)

        at, scope = await lists.at(as_of), await authorizer.scope(viewer)
        return Json(await given("gap", "authority", at, scope, made))

    @api.get("/api/v1/quality", response_model=Report, dependencies=not_agents, summary="Service quality")
    async def quality(as_of: AsOf = None, viewer: Principal = caller) -> Response:
        made = partial(quality_report, views.read)
        at, scope = await lists.at(as_of), await authorizer.scope(viewer)
        return Json(await given("quality", "journeys", at, scope, made))

    @api.get(
        "/api/v1/recognition",
        response_model=Report,
        dependencies=not_agents,
        summary="Recognition, training, ideas, morale and retention",
    )
    async def recognition(as_of: AsOf = None, viewer: Principal = caller) -> Response:
        async def made(at: int | None, scope: AccessScope) -> dict[str, Any]:
            return await recognition_report(views.read, await policy_in_force(log, at), at, scope)

        at, scope = await lists.at(as_of), await authorizer.scope(viewer)
        return Json(await given("recognition", "people", at, scope, made))
