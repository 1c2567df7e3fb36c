"""Routes of lists: items of a view, with the view's position and lag."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Query, Response
from pydantic import WithJsonSchema

from dashboard.auth.authorization import note_reading
from dashboard.problem_details import ParameterError
from dashboard.schemas import JsonResponse, Page
from ledger.store.cloudevents import parse_time, stored_decoder
from ledger.store.position_lookup import position_of
from projections.access import without_names
from projections.engine import temporal_tables
from projections.plugin_views import plugin_table
from projections.views import casework
from projections.views.audit_trail import Trail, read_trail
from projections.views.balances import read_balances
from projections.views.flags import flags as flags_table
from projections.views.flags import read_flags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import sqlalchemy as sa

    from dashboard.auth.authorization import Authorizer
    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.view_reader import ViewReader
    from ledger.encryption.keyring import Keyring
    from ledger.store.log import Log
    from projections.engine.storage import Progress, Row
    from projections.reading import AccessScope

PAGE_LIMIT, _SHORT_PAGE = 1000, 200
"""The most items of a page, and the most that are read without a thread."""
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT, description="The most items to return.")]
After = Annotated[int, Query(ge=0, le=2**53, description="Only items after this position (`next` of a page).")]
AsOf = Annotated[
    str | None,
    Query(alias="as_of", description="The state at this position, or at this recorded time."),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}]}),
]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match")]
Offset = Annotated[int, Query(ge=0, le=2**53)]


class PageQuery:
    """The parameters of a list: its moment, its length, and the tag of the client's copy."""

    def __init__(self, as_of: AsOf = None, limit: Limit = 100, if_none_match: IfNoneMatch = None) -> None:
        self.as_of, self.limit, self.if_none_match = as_of, limit, if_none_match


class FeedQuery(PageQuery):
    """The parameters of a list of items in the order of their positions."""

    def __init__(
        self, as_of: AsOf = None, after: After = 0, limit: Limit = 100, if_none_match: IfNoneMatch = None
    ) -> None:
        super().__init__(as_of, limit, if_none_match)
        self.after = after


def add_list_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of lists."""
    lists, authorizer = ListReader(context.views, context.log), context.authorizer
    _add_casework(api, lists, authorizer)
    _add_flags(api, lists, context.keys, authorizer)
    _add_trail(api, lists, authorizer)
    _add_plugin_views(api, lists, authorizer)


class ListReader:
    """Reads pages of views; answers 304 if the client already has the page."""

    def __init__(self, views: ViewReader, log: Log) -> None:
        self._views = views
        self.log = log

    async def end(self) -> int:
        """Return the last position of the log."""
        return await self._views.end()

    async def at(self, as_of: str | None) -> int | None:
        """Return the position that ``as_of`` names: a position, or the last one at a time.

        Raises:
            ParameterError: the text is neither.

        """
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
        query: Callable[[sa.Connection], list[Row]],
        page: PageQuery,
        at: int | None = None,
        *,
        next_by: str | None = "position",
        viewer: Principal,
        then: Callable[[list[Row]], Awaitable[list[Row]]] | None = None,
    ) -> Response:
        """Return a page of a view as JSON with an ETag and, for a past state, the event time of its last event.

        ``query`` reads up to ``page.limit`` items at position ``at``. ``next_by`` names the field that the next page
        continues from. ``then`` changes the items before they are returned.
        """
        if page.if_none_match is not None:  # an unchanged view is not read again
            unchanged = await self._views.read(view, lambda _connection: None, short=True)
            if page.if_none_match == _tag(view, unchanged.progress, viewer):
                return Response(status_code=304, headers={"ETag": page.if_none_match})
        found = await self._views.read(view, query, short=page.limit <= _SHORT_PAGE)
        position = found.progress.anchor.position if at is None else min(at, found.progress.anchor.position)
        last = found.result[-1][next_by] if next_by is not None and len(found.result) == page.limit else None
        items = found.result if then is None else await then(found.result)
        document = {
            "items": items,
            "position": position,
            "lag_seconds": await self._views.lag(found.progress),
            "next": last,
        }
        headers = {"ETag": _tag(view, found.progress, viewer), "Cache-Control": "no-cache"}
        headers["Vary"] = "Authorization, Cookie"
        if at and (event := await self.log.at(at)) is not None:
            happened = parse_time(stored_decoder.decode(event.data).time)
            headers["Last-Modified"] = format_datetime(happened.astimezone(UTC), usegmt=True)
        return JsonResponse(document, headers=headers)


def _tag(view: str, progress: Progress, viewer: Principal) -> str:
    return f'"{view}-{progress.anchor.position}-{viewer.role[0]}{viewer.person_id or ""}"'


def _add_casework(api: FastAPI, lists: ListReader, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get("/api/v1/balances", response_model=Page, summary="Budgets: granted, spent, reserved, remaining")
    async def balances(
        page: Annotated[PageQuery, Depends()],
        holder: str | None = None,
        period: str | None = None,
        team: str | None = None,
        offset: Offset = 0,
        viewer: Principal = caller,
    ) -> Response:
        at, scope = await lists.at(page.as_of), await authorizer.scope(viewer)
        holders = await authorizer.of_team(team)

        def read(connection: sa.Connection) -> list[Row]:
            return [
                one
                for one in read_balances(connection, holder, period, position=at)
                if scope.sees_holder(one["holder"]) and (holders is None or one["holder"] in holders)
            ][offset : offset + page.limit]

        return await lists.answer("budget_balances", read, page, at, next_by=None, viewer=viewer)

    @api.get("/api/v1/actions", response_model=Page, summary="Actions with their present state")
    async def actions(
        page: Annotated[FeedQuery, Depends()],
        agent: str | None = None,
        team: str | None = None,
        kind: str | None = None,
        viewer: Principal = caller,
    ) -> Response:
        at = await lists.at(page.as_of)
        source = temporal_tables.as_of(casework.actions, at)
        where = _seen_by(source, await authorizer.scope(viewer))

        def read(connection: sa.Connection) -> list[Row]:
            equal = {"agent_id": agent, "team_id": team, "kind": kind}
            return casework.read_actions(connection, *where, after=page.after, limit=page.limit, source=source, **equal)

        return await lists.answer("casework", read, page, at, viewer=viewer)

    @api.get("/api/v1/escalations", response_model=Page, summary="Escalations with their outcome")
    async def escalations(
        page: Annotated[FeedQuery, Depends()],
        agent: str | None = None,
        team: str | None = None,
        kind: str | None = None,
        status: str | None = None,
        viewer: Principal = caller,
    ) -> Response:
        at = await lists.at(page.as_of)
        source = temporal_tables.as_of(casework.escalations, at)
        where = _seen_by(source, await authorizer.scope(viewer))

        def read(connection: sa.Connection) -> list[Row]:
            equal = {"agent_id": agent, "team_id": team, "kind": kind, "status": status}
            return casework.read_escalations(
                connection, *where, after=page.after, limit=page.limit, source=source, **equal
            )

        return await lists.answer("casework", read, page, at, viewer=viewer)


def _add_flags(api: FastAPI, lists: ListReader, keys: Keyring, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get("/api/v1/flags", response_model=Page, summary="Flags of possible misuse for human review")
    async def flags(
        page: Annotated[FeedQuery, Depends()],
        rule: str | None = None,
        about: str | None = None,
        status: str | None = None,
        viewer: Principal = caller,
    ) -> Response:
        at, now, scope = await lists.at(page.as_of), datetime.now(UTC), await authorizer.scope(viewer)
        source = temporal_tables.as_of(flags_table, at)

        def read(connection: sa.Connection) -> list[Row]:
            found = read_flags(connection, now, rule=rule, status=status, source=source)
            return [one for one in found if one["position"] > page.after and scope.sees_all(one["about"])][: page.limit]

        async def masked(found: list[Row]) -> list[Row]:
            shown = await without_names(lists.log, keys, found)  # filtered after masking: a filter reveals no name
            return [one for one in shown if about is None or about in one["about"]]

        return await lists.answer("flags", read, page, at, viewer=viewer, then=masked)


def _add_trail(api: FastAPI, lists: ListReader, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get("/api/v1/trail", response_model=Page, summary="The audit trail: events in order, with positions")
    async def trail(
        page: Annotated[FeedQuery, Depends()],
        interaction: str | None = None,
        action: str | None = None,
        agent: str | None = None,
        customer: str | None = None,
        viewer: Principal = caller,
    ) -> Response:
        at, scope = await lists.at(page.as_of), await authorizer.scope(viewer)
        if scope.people is not None and agent not in scope.people:
            raise HTTPException(403, f"the role {viewer.role} reads only the trail of people it sees: name an `agent`")
        named = {"interaction": interaction, "action": action, "agent": agent, "customer": customer}
        named_ids = [(kind, name) for kind, name in named.items() if name is not None]
        read_about = [f"{kind}:{name}" for kind, name in named_ids if kind != "interaction"]
        if read_about:
            await note_reading(lists.log, viewer, read_about, at or await lists.end())
        return await lists.answer(
            Trail.name, lambda c: read_trail(c, named_ids, page.after, page.limit, at), page, at, viewer=viewer
        )


def _add_plugin_views(api: FastAPI, lists: ListReader, authorizer: Authorizer) -> None:
    caller, auditors = Depends(authorizer.viewer), Depends(authorizer.allowed("auditor", "operator"))

    @api.get(
        "/api/v1/views/{view}/{table}",
        response_model=Page,
        dependencies=[auditors],
        summary="Rows of a view that another package adds",
    )
    async def rows(
        view: str,
        table: str,
        limit: Limit = 100,
        offset: Offset = 0,
        if_none_match: IfNoneMatch = None,
        viewer: Principal = caller,
    ) -> Response:
        page = PageQuery(None, limit, if_none_match)
        try:
            found = plugin_table(view, table)
        except LookupError as error:
            raise HTTPException(404, str(error)) from None
        return await lists.answer(view, lambda c: found.read(c, limit, offset), page, next_by=None, viewer=viewer)


def _seen_by(source: sa.FromClause, scope: AccessScope) -> list[sa.ColumnElement[bool]]:
    if scope.people is None:
        return []
    people = source.c.agent_id.in_(scope.people)
    return [people | source.c.team_id.in_(scope.teams) if scope.teams else people]
