"""Routes of people: the employees with their names, and the obstacles and ideas that they have reported."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import sqlalchemy as sa  # noqa: TC002 - the functions that read have it in their signatures
from fastapi import Depends, FastAPI, Query, Response

from dashboard.list_query import (
    AfterKey,
    ByKey,
    FeedRange,
    FeedRangeQuery,
    NewestFirst,
    PageQuery,
    PastQuery,
    RangeQuery,
)
from dashboard.list_reader import Listing, ListReader, check_cursor
from dashboard.openapi import answers
from dashboard.problem_details import ParameterError
from dashboard.schemas import AuthorityAnswer, EmployeeNames, JsonResponse, KeyPage
from domain.documents.rows import EmployeeRow, IdeaRow, ObstacleRow, ThanksRow
from domain.serialization import encode
from projections.date_ranges import DateRange, zone_named
from projections.engine.pages import cursor_of, key_of
from projections.policy_history import published_policies
from projections.reports.authority_now import authority_now
from projections.views.people import (
    THANKS_ORDER,
    VOICE_ORDER,
    VoicePage,
    read_employees,
    read_ideas,
    read_names,
    read_obstacles,
    read_thanks,
    voices,
)
from projections.views.people import employees as employees_table
from projections.views.people import thanks as thanks_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dashboard.auth.authorization import Authorizer
    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.list_reader import Cursor
    from ledger.encryption.keyring import Keyring
    from projections.engine.storage import Progress, Row
    from projections.reading import AccessScope, ReadResult


Ids = Annotated[str, Query(description="The ids as a JSON list.", examples=['["A-7","B-1"]'])]


def add_people_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of people."""
    lists = ListReader(context.views, context.log)
    _add_employees(api, lists, context.authorizer, context.keys)
    _add_names(api, context)
    _add_obstacles_and_ideas(api, lists, context.authorizer, context.keys)
    _add_thanks(api, lists, context.authorizer)
    _add_authority(api, context)


def _add_employees(api: FastAPI, lists: ListReader, authorizer: Authorizer, keys: Keyring) -> None:
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/employees",
        responses=answers(KeyPage[EmployeeRow], tables=True),
        summary="The employees that the caller sees, with names, roles, teams and managers",
    )
    async def employees(
        page: Annotated[PageQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        after: AfterKey = None,
        order: ByKey = "asc",
        viewer: Principal = caller,
    ) -> Response:
        at, scope = await lists.at(past.as_of), await authorizer.scope(viewer)

        def read(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> list[Row]:
            key = None if after is None else key_of(employees_table, str(after))
            down = order == "desc"
            return read_employees(connection, scope.people, at, after=key, limit=limit, descending=down)

        async def named(found: list[Row]) -> list[Row]:
            return await readable(keys, found, ("name", "manager_name"))

        def cursor(row: Row) -> str:
            return cursor_of([row["employee_id"]])

        check_cursor(employees_table, after)
        return await lists.answer(
            Listing("employees", EmployeeRow, "people", read, cursor, after, at, named), page, viewer
        )


def _add_names(api: FastAPI, context: ApiContext) -> None:
    views, authorizer, keys = context.views, context.authorizer, context.keys
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/names",
        responses=answers(EmployeeNames),
        summary="The names of some employees that the caller sees, and of their managers",
    )
    async def names(ids: Ids, viewer: Principal = caller) -> Response:
        try:
            asked = msgspec.json.decode(ids, type=list[str])
        except msgspec.MsgspecError:
            raise ParameterError("ids", 'write the ids as a JSON list, such as ["A-7","B-1"]') from None
        people = (await authorizer.scope(viewer)).people
        found = await views.read("people", lambda c: read_names(c, asked, people), short=True)
        position, lag = found.progress.anchor.position, await views.lag(found.progress)
        items = await readable(keys, found.result, ("name",))
        return JsonResponse({"items": items, "position": position, "lag_seconds": lag})


class _VoiceQuery:
    """The parameters of a list of obstacles or of ideas."""

    def __init__(
        self,
        after: AfterKey = None,
        order: NewestFirst = "desc",
        agent: str | None = None,
        answered: bool | None = None,
    ) -> None:
        self.after, self.newest_first, self.agent, self.answered = after, order == "desc", agent, answered


def _people_of(scope: AccessScope, agent: str | None) -> frozenset[str] | None:
    """Return the people whose rows are listed: all in scope (``None``: everybody), or of these the one asked for."""
    if agent is None:
        return scope.people
    return frozenset((agent,)) if scope.people is None else scope.people & {agent}


def _add_obstacles_and_ideas(api: FastAPI, lists: ListReader, authorizer: Authorizer, keys: Keyring) -> None:
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/obstacles",
        responses=answers(KeyPage[ObstacleRow], tables=True),
        summary="Obstacles that employees have reported, with their answers",
    )
    async def obstacles(
        page: Annotated[PageQuery, Depends()],
        query: Annotated[_VoiceQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        within: Annotated[FeedRangeQuery, Depends()],
        viewer: Principal = caller,
    ) -> Response:
        return await _answer("obstacle", page, query, past, within, viewer)

    @api.get(
        "/api/v1/ideas",
        responses=answers(KeyPage[IdeaRow], tables=True),
        summary="Ideas that employees have submitted, with their decisions",
    )
    async def ideas(
        page: Annotated[PageQuery, Depends()],
        query: Annotated[_VoiceQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        within: Annotated[FeedRangeQuery, Depends()],
        viewer: Principal = caller,
    ) -> Response:
        return await _answer("idea", page, query, past, within, viewer)

    async def _answer(
        what: str, page: PageQuery, query: _VoiceQuery, past: PastQuery, within: FeedRangeQuery, viewer: Principal
    ) -> Response:
        at, scope, times = await lists.at(past.as_of), await authorizer.scope(viewer), await lists.feed_range(within)
        people = _people_of(scope, query.agent)
        rows_of, row_class = (read_obstacles, ObstacleRow) if what == "obstacle" else (read_ideas, IdeaRow)

        def read(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> list[Row]:
            key = None if after is None else key_of(voices, str(after), VOICE_ORDER)
            some = VoicePage(limit, key, query.newest_first, at, *times.event_times, times.first, times.behind)
            return rows_of(connection, some, people, answered=query.answered)

        async def decrypted(found: list[Row]) -> list[Row]:
            return await readable(keys, found, ("text", "answer") if what == "obstacle" else ("text",))

        def cursor(row: Row) -> str:
            return cursor_of([row["time"], f"{what} {row[f'{what}_id']}"])

        check_cursor(voices, query.after, VOICE_ORDER)
        listing = Listing(f"{what}s", row_class, "people", read, cursor, query.after, at, decrypted, times.told())
        return await lists.answer(listing, page, viewer)


def _add_thanks(api: FastAPI, lists: ListReader, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/thanks",
        responses=answers(KeyPage[ThanksRow], tables=True),
        summary="Recognition that employees got, from customers, peers and managers",
    )
    async def thanks(
        page: Annotated[PageQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        within: Annotated[RangeQuery, Depends()],
        after: AfterKey = None,
        order: NewestFirst = "desc",
        agent: str | None = None,
        viewer: Principal = caller,
    ) -> Response:
        at, scope = await lists.at(past.as_of), await authorizer.scope(viewer)
        times = FeedRange(DateRange(None, None, zone_named("UTC")))
        if (within.begin, within.end, within.zone) != (None, None, None):
            times = FeedRange(await lists.times(within))
        people = _people_of(scope, agent)

        def read(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> list[Row]:
            key = None if after is None else key_of(thanks_table, str(after), THANKS_ORDER)
            return read_thanks(connection, VoicePage(limit, key, order == "desc", at, *times.event_times), people)

        def cursor(row: Row) -> str:
            return cursor_of([row["time"], row["recognition_id"]])

        check_cursor(thanks_table, after, THANKS_ORDER)
        listing = Listing("thanks", ThanksRow, "people", read, cursor, after, at, more=times.told())
        return await lists.answer(listing, page, viewer)


def _add_authority(api: FastAPI, context: ApiContext) -> None:
    views, log, authorizer = context.views, context.log, context.authorizer
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/authority",
        responses=answers(AuthorityAnswer),
        summary="The authority of the caller, or of an employee that the caller sees: limits, budget, courses",
    )
    async def authority(agent: str | None = None, viewer: Principal = caller) -> Response:
        employee_id = agent or viewer.person_id
        if employee_id is None:
            raise ParameterError("agent", "this token belongs to no employee: name one")
        scope = await authorizer.scope(viewer)
        if employee_id != viewer.person_id and not scope.shows(employee_id):
            raise ParameterError("agent", "no employee with this id is visible to this token")
        read: list[Progress] = []

        async def noted[T](name: str, query: Callable[[sa.Connection], T], /) -> ReadResult[T]:
            answer = await views.read(name, query)
            read.append(answer.progress)
            return answer

        found = await authority_now(noted, await published_policies(log), datetime.now(UTC), employee_id)
        lags = [await views.lag(progress) for progress in read]
        return JsonResponse({**found, "lag_seconds": max(lags)})


async def readable(keys: Keyring, rows: list[Row], fields: Sequence[str]) -> list[Row]:
    """Return rows with these encrypted fields decrypted; null where the key was destroyed."""
    found: list[Row] = json.loads(await keys.decrypt_fields(encode(rows)))
    for shown, stored in zip(found, rows, strict=True):
        for field in fields:
            if shown[field] == stored[field]:  # it is still as it was stored
                shown[field] = None
    return found
