"""The HTTP API: lists, documents, events and news of views, each with the position behind it; and acting.

What acts is asked over NATS, like any upstream's, as whoever the token is. Errors are problem details (RFC 9457).
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import WithJsonSchema

from dashboard.auth.admission import AdmittingRoute, publish_bounds
from dashboard.auth.authorization import note_reading
from dashboard.http.body_limits import BodyBounds
from dashboard.http.host_check import HostCheck
from dashboard.metrics import Metrics
from dashboard.problem_details import ParameterError, add_problems
from dashboard.report_cache import ReportCache
from dashboard.routes.commands import CommandClient, add_acting
from dashboard.routes.proofs import add_proving
from dashboard.routes.sources import add_upstreams
from dashboard.routes.web_page import add_page
from dashboard.schemas import PROBLEMS, Json, Me, Page, Report
from dashboard.view_updates import EventStream, said
from ledger.store.position_lookup import position_of
from projections.access import without_names
from projections.engine import temporal_tables
from projections.policy_history import policy_in_force, published_policies
from projections.reports.empowerment_gap import gap_report
from projections.reports.loyalty import loyalty_report
from projections.reports.recognition import recognition_report
from projections.reports.service_quality import quality_report
from projections.views import casework
from projections.views.audit_trail import Trail, read_trail
from projections.views.balances import read_balances
from projections.views.flags import flags as flags_table
from projections.views.flags import read_flags
from projections.views.loyalty import read_effects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dashboard.auth.authorization import Authorizer
    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.view_reader import ViewReader
    from dashboard.view_updates import ViewUpdates
    from ledger.encryption.keyring import Keyring
    from ledger.store.log import Log
    from projections.reading import AccessScope, ReadResult

_DIGITS = 19
MOST, _FEW = 1000, 200
"""Items of a page; so many are read without a thread."""
type Items = list[dict[str, Any]]
Limit = Annotated[int, Query(ge=1, le=MOST, description="At most so many items.")]
After = Annotated[int, Query(ge=0, le=2**53, description="Only items behind this position: `next` of the page before.")]
AsOf = Annotated[
    str | None,
    Query(alias="as_of", description="As it was behind this position, or at this time."),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}]}),
]
Same = Annotated[str | None, Header(alias="If-None-Match")]


def make_api(house: ApiContext) -> FastAPI:
    """The application."""
    views, log, keys, doors = house.views, house.log, house.keys, house.doors
    api = FastAPI(
        title="Resolution Ledger",
        version="1",
        description=__doc__ or "",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses=PROBLEMS,
    )
    api.router.route_class = AdmittingRoute
    api.add_middleware(GZipMiddleware, minimum_size=1000)
    api.add_middleware(BodyBounds)
    api.add_middleware(HostCheck, names=house.hosts)
    _lists(api, _Lists(views, log), keys, doors)
    _documents(api, views, log, doors)
    _others(api, views, log, keys, doors, Metrics(views, house.client))
    _health(api, views)
    _live(api, views, house.news, doors)
    add_proving(api, views, log, keys, doors, house.data_dir)
    add_acting(api, views, log, doors, CommandClient(house.client, views))
    add_upstreams(api, views, house.rejected, house.client, doors)
    add_problems(api)
    add_page(api, doors)
    return api


class _Lists:
    """Answers with items, position and lag; unchanged ones as 304."""

    def __init__(self, views: ViewReader, log: Log) -> None:
        self._views = views
        self.log = log

    async def end(self) -> int:
        return await self._views.end()

    async def at(self, as_of: str | None) -> int | None:
        if as_of is None:
            return None
        try:
            end = await self.end()
            return min(end, await position_of(self.log, as_of, end))
        except (OverflowError, ValueError) as error:
            raise ParameterError("as_of", str(error)) from None

    async def answer(
        self,
        view: str,
        query: Callable[[Any], list[dict[str, Any]]],
        same: str | None,
        limit: int,
        at: int | None = None,
        *,
        next_by: str | None = "position",
        viewer: Principal,
        then: Callable[[Items], Awaitable[Items]] | None = None,
    ) -> Response:
        if same is not None:  # what has not changed is not read again
            unchanged = await self._views.read(view, lambda _connection: None, short=True)
            if same == _tag(view, unchanged, viewer):
                return Response(status_code=304, headers={"ETag": same})
        found = await self._views.read(view, query, short=limit <= _FEW)
        position = found.progress.anchor.position if at is None else min(at, found.progress.anchor.position)
        last = found.result[-1][next_by] if next_by is not None and len(found.result) == limit else None
        items = found.result if then is None else await then(found.result)
        document = {
            "items": items,
            "position": position,
            "lag_seconds": await self._views.lag(found.progress),
            "next": last,
        }
        return Json(
            document,
            headers={"ETag": _tag(view, found, viewer), "Cache-Control": "no-cache", "Vary": "Authorization, Cookie"},
        )


def _tag(view: str, found: ReadResult, viewer: Principal) -> str:
    return f'"{view}-{found.progress.anchor.position}-{viewer.role[0]}{viewer.person_id or ""}"'


def _lists(api: FastAPI, lists: _Lists, keys: Keyring, doors: Authorizer) -> None:
    known, log = Depends(doors.viewer), lists.log

    @api.get("/api/v1/balances", response_model=Page, summary="Budgets: granted, spent, reserved, remaining")
    async def balances(
        holder: str | None = None,
        period: str | None = None,
        as_of: AsOf = None,
        limit: Limit = 100,
        team: str | None = None,
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        same: Same = None,
        viewer: Any = known,
    ) -> Response:
        at, scope = await lists.at(as_of), await doors.scope(viewer)
        holders = await doors.of_team(team)
        return await lists.answer(
            "budget_balances",
            lambda c: [
                one
                for one in read_balances(c, holder, period, position=at)
                if scope.sees_holder(one["holder"]) and (holders is None or one["holder"] in holders)
            ][offset : offset + limit],
            same,
            limit,
            at,
            next_by=None,
            viewer=viewer,
        )

    @api.get("/api/v1/actions", response_model=Page, summary="What was done, as it stands")
    async def actions(
        agent: str | None = None,
        team: str | None = None,
        kind: str | None = None,
        as_of: AsOf = None,
        after: After = 0,
        limit: Limit = 100,
        same: Same = None,
        viewer: Any = known,
    ) -> Response:
        at = await lists.at(as_of)
        source = temporal_tables.as_of(casework.actions, at)
        where = _seen_by(source, await doors.scope(viewer))
        return await lists.answer(
            "casework",
            lambda c: casework.read_actions(
                c,
                *where,
                after=after,
                limit=limit,
                source=source,
                agent_id=agent,
                team_id=team,
                kind=kind,
            ),
            same,
            limit,
            at,
            viewer=viewer,
        )

    @api.get("/api/v1/escalations", response_model=Page, summary="Who asked for what, and what came of it")
    async def escalations(
        agent: str | None = None,
        team: str | None = None,
        kind: str | None = None,
        status: str | None = None,
        as_of: AsOf = None,
        after: After = 0,
        limit: Limit = 100,
        same: Same = None,
        viewer: Any = known,
    ) -> Response:
        at = await lists.at(as_of)
        source = temporal_tables.as_of(casework.escalations, at)
        where = _seen_by(source, await doors.scope(viewer))
        return await lists.answer(
            "casework",
            lambda c: casework.read_escalations(
                c,
                *where,
                after=after,
                limit=limit,
                source=source,
                agent_id=agent,
                team_id=team,
                kind=kind,
                status=status,
            ),
            same,
            limit,
            at,
            viewer=viewer,
        )

    @api.get("/api/v1/flags", response_model=Page, summary="What the guard asks humans to look at")
    async def flags(
        rule: str | None = None,
        about: str | None = None,
        status: str | None = None,
        as_of: AsOf = None,
        after: After = 0,
        limit: Limit = 100,
        same: Same = None,
        viewer: Any = known,
    ) -> Response:
        at, now, scope = await lists.at(as_of), datetime.now(UTC), await doors.scope(viewer)
        source = temporal_tables.as_of(flags_table, at)

        async def masked(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
            shown = await without_names(log, keys, found)  # names are asked for after that: asking would tell
            return [one for one in shown if about is None or about in one["about"]]

        return await lists.answer(
            "flags",
            lambda c: [
                one
                for one in read_flags(c, now, rule=rule, status=status, source=source)
                if one["position"] > after and scope.sees_all(one["about"])
            ][:limit],
            same,
            limit,
            at,
            viewer=viewer,
            then=masked,
        )

    @api.get("/api/v1/trail", response_model=Page, summary="Events in order, with positions")
    async def trail(
        interaction: str | None = None,
        action: str | None = None,
        agent: str | None = None,
        customer: str | None = None,
        as_of: AsOf = None,
        after: After = 0,
        limit: Limit = 100,
        same: Same = None,
        viewer: Any = known,
    ) -> Response:
        at, scope = await lists.at(as_of), await doors.scope(viewer)
        if scope.people is not None and agent not in scope.people:
            raise HTTPException(403, f"the role {viewer.role} reads the trail of somebody it sees: name an `agent`")
        named = {"interaction": interaction, "action": action, "agent": agent, "customer": customer}
        wanted = [(kind, name) for kind, name in named.items() if name is not None]
        read_about = [f"{kind}:{name}" for kind, name in wanted if kind != "interaction"]
        if read_about:
            await note_reading(log, viewer, read_about, at or await lists.end())
        return await lists.answer(
            Trail.name, lambda c: read_trail(c, wanted, after, limit, at), same, limit, at, viewer=viewer
        )


def _seen_by(source: Any, scope: AccessScope) -> list[Any]:
    if scope.people is None:
        return []
    people = source.c.agent_id.in_(scope.people)
    return [people | source.c.team_id.in_(scope.teams) if scope.teams else people]


def _documents(api: FastAPI, views: ViewReader, log: Log, doors: Authorizer) -> None:
    lists, reports = _Lists(views, log), ReportCache()
    known, not_agents = Depends(doors.viewer), [Depends(doors.allowed("manager", "auditor", "operator"))]

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

        return await reports.give((name, at, scope), made)

    @api.get(
        "/api/v1/loyalty", response_model=Report, dependencies=not_agents, summary="What it was worth, rung by rung"
    )
    async def loyalty(as_of: AsOf = None, after: After = 0, limit: Limit = 100, viewer: Any = known) -> Response:
        at, scope = await lists.at(as_of), await doors.scope(viewer)
        found = await views.read("loyalty_effects", lambda c: read_effects(c, limit, after, at, people=scope.people))
        ladder = await given("loyalty", "loyalty_effects", at, scope, loyalty_of)
        items = found.result
        return Json(ladder | {"items": items, "next": items[-1]["position"] if len(items) == limit else None})

    async def loyalty_of(at: int | None, scope: AccessScope) -> dict[str, Any]:
        return await loyalty_report(views.read, await published_policies(log), at, scope=scope)

    @api.get("/api/v1/gap", response_model=Report, dependencies=not_agents, summary="The empowerment gap")
    async def gap(as_of: AsOf = None, viewer: Any = known) -> Response:
        async def made(at: int | None, scope: AccessScope) -> dict[str, Any]:
            return await gap_report(views.read, await policy_in_force(log, at), at=at, scope=scope)

        at, scope = await lists.at(as_of), await doors.scope(viewer)
        return Json(await given("gap", "authority", at, scope, made))

    @api.get("/api/v1/quality", response_model=Report, dependencies=not_agents, summary="Service quality")
    async def quality(as_of: AsOf = None, viewer: Any = known) -> Response:
        made = partial(quality_report, views.read)
        at, scope = await lists.at(as_of), await doors.scope(viewer)
        return Json(await given("quality", "journeys", at, scope, made))

    @api.get(
        "/api/v1/recognition",
        response_model=Report,
        dependencies=not_agents,
        summary="Thanks, training, ideas, morale, who stays",
    )
    async def recognition(as_of: AsOf = None, viewer: Any = known) -> Response:
        async def made(at: int | None, scope: AccessScope) -> dict[str, Any]:
            return await recognition_report(views.read, await policy_in_force(log, at), at, scope)

        at, scope = await lists.at(as_of), await doors.scope(viewer)
        return Json(await given("recognition", "people", at, scope, made))


def _others(api: FastAPI, views: ViewReader, log: Log, keys: Keyring, doors: Authorizer, gauges: Metrics) -> None:
    known, everybody = Depends(doors.viewer), Depends(doors.allowed("auditor", "operator"))

    @api.get(
        "/api/v1/events/{position}",
        response_model=Report,
        dependencies=[everybody],
        summary="An event as it was recorded",
    )
    async def event(position: Annotated[int, Path(ge=0, le=2**53)]) -> Response:
        found = await log.at(position) if position > 0 else None
        if found is None:
            raise HTTPException(404, f"there is no event at position {position}")
        shown = json.loads(await keys.reveal(found.data)) | {"position": position}
        return Json({"event": shown, "position": await log.last_position(), "lag_seconds": 0.0})

    @api.get("/api/v1/projections", response_model=Page, dependencies=[known], summary="How far each view is")
    async def projections() -> Response:
        items = [state._asdict() for state in await views.states()]
        return Json({"items": items, "position": await views.end(), "lag_seconds": 0.0})

    @api.get("/openapi.json", dependencies=[known], include_in_schema=False)
    async def openapi() -> Response:
        return Json(publish_bounds(api.openapi()))

    @api.get("/api/v1/me", response_model=Me, summary="Who asks, and what they are shown")
    async def me(viewer: Any = known) -> Response:
        scope = await doors.scope(viewer)
        people = None if scope.people is None else sorted(scope.people)
        return Json(
            {
                "name": viewer.name,
                "role": viewer.role,
                "person_id": viewer.person_id,
                "people": people,
                "teams": sorted(scope.teams),
            }
        )

    @api.get("/metrics", dependencies=[everybody], summary="For Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(await gauges.text(), media_type=CONTENT_TYPE_LATEST)


def _health(api: FastAPI, views: ViewReader) -> None:
    @api.get("/healthz", summary="Whether this process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/readyz", summary="Whether the log and every view answer")
    async def readyz() -> dict[str, str]:
        await views.end()
        waiting = [state.view for state in await views.states() if state.stopped is not None]
        if waiting:
            raise HTTPException(503, f"these views do not answer yet: {', '.join(waiting)}")
        return {"status": "ok"}


def _live(api: FastAPI, views: ViewReader, news: ViewUpdates, doors: Authorizer) -> None:
    known = Depends(doors.viewer)

    @api.get(
        "/api/v1/stream",
        summary="News of views, as server-sent events",
        response_class=EventStream,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def stream(
        request: Request, last: Annotated[str | None, Header(alias="Last-Event-ID")] = None, viewer: Any = known
    ) -> Response:
        since = int(last) if last and last.isascii() and last.isdigit() and len(last) < _DIGITS else None
        credential = request.state.credential

        async def lines() -> AsyncIterator[bytes]:
            chunks = news.chunks()
            coming = asyncio.ensure_future(anext(chunks))  # it listens before it looks
            try:
                for state in await views.states():  # a client that comes back hears where each view is now
                    if since is None or state.position > since:
                        yield said(state.view, state.position)
                yield await coming
                async for chunk in chunks:
                    if doors.bearer_of(credential) != viewer:  # revoked, over, or of another role now
                        return
                    if chunk:
                        yield chunk
            finally:
                coming.cancel()

        await views.end()
        return EventStream(lines(), doors.count_stream(viewer))
