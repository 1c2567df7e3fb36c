"""Routes of lists: items of a view, with the view's position and lag."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException, Response

from dashboard.auth.authorization import note_reading
from dashboard.list_query import (
    AfterKey,
    AmountText,
    ByKey,
    ChangesQuery,
    FeedQuery,
    FeedRangeQuery,
    PageQuery,
    PastQuery,
    RangeQuery,
    amounts_of,
    told,
)
from dashboard.list_reader import Listing, ListReader, check_cursor
from dashboard.openapi import answers
from dashboard.routes.people import readable
from dashboard.schemas import KeyPage, Page, PluginRow
from domain.documents.rows import ActionRow, BalanceRow, CaseRow, EscalationRow, FlagRow, TrailRow
from domain.events.facts import AgentKind  # noqa: TC001 - FastAPI reads the annotations
from projections.access import cases_without_names, without_names
from projections.engine.pages import cursor_of, key_of, source_of
from projections.plugin_views import plugin_table
from projections.views import casework
from projections.views.audit_trail import Trail, count_trail, read_trail
from projections.views.balances import balances as balances_table
from projections.views.balances import read_balances_page, read_periods
from projections.views.cases import read_cases
from projections.views.flags import read_flags

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from dashboard.auth.authorization import Authorizer
    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.list_reader import Cursor
    from ledger.encryption.keyring import Keyring
    from projections.engine.storage import Row

_position = itemgetter("position")


def add_list_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of lists."""
    lists, authorizer = ListReader(context.views, context.log), context.authorizer
    _add_balances(api, lists, authorizer)
    _add_actions(api, lists, authorizer)
    _add_escalations(api, lists, authorizer)
    _add_flags(api, lists, context.keys, authorizer)
    _add_cases(api, lists, context.keys, authorizer)
    _add_trail(api, lists, authorizer)
    _add_plugin_views(api, lists, authorizer)


def _add_balances(api: FastAPI, lists: ListReader, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/balances",
        responses=answers(KeyPage[BalanceRow], tables=True),
        summary="Budgets: granted, spent, reserved, remaining",
    )
    async def balances(
        page: Annotated[PageQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        within: Annotated[RangeQuery, Depends()],
        after: AfterKey = None,
        order: ByKey = "asc",
        holder: str | None = None,
        period: str | None = None,
        team: str | None = None,
        closed: bool | None = None,
        viewer: Principal = caller,
    ) -> Response:
        times, at = await lists.times(within), await lists.at(past.as_of)
        seen = (await authorizer.scope(viewer)).holders()
        holders = (
            seen if (named := await authorizer.of_team(team)) is None else named & (named if seen is None else seen)
        )
        bounded = times.begin is not None or times.end is not None

        def read(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> list[Row]:
            return read_balances_page(
                connection,
                {"holder": holder, "period": period},
                at,
                holders=holders,
                periods=times.overlapping(read_periods(connection)) if bounded else None,
                after=None if after is None else key_of(balances_table, str(after)),
                closed=closed,
                limit=limit,
                descending=order == "desc",
            )

        def cursor(row: Row) -> str:
            return cursor_of((row["holder"], row["period"], row["granted"]["currency"]))

        check_cursor(balances_table, after)
        return await lists.answer(
            Listing("balances", BalanceRow, "budget_balances", read, cursor, after, at, more=told(times)), page, viewer
        )


def _add_actions(api: FastAPI, lists: ListReader, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/actions", responses=answers(Page[ActionRow], tables=True), summary="Actions with their present state"
    )
    async def actions(
        page: Annotated[PageQuery, Depends()],
        feed: Annotated[FeedQuery, Depends()],
        past: Annotated[ChangesQuery, Depends()],
        within: Annotated[FeedRangeQuery, Depends()],
        agent: str | None = None,
        team: str | None = None,
        kind: str | None = None,
        holder: str | None = None,
        period: str | None = None,
        agent_kind: AgentKind | None = None,
        reason: str | None = None,
        customer: str | None = None,
        given: bool | None = None,
        amount: AmountText = None,
        viewer: Principal = caller,
    ) -> Response:
        times, at, scope = await lists.feed_range(within), await lists.at(past.as_of), await authorizer.scope(viewer)
        amounts = amounts_of(amount)
        equal = {"agent_id": agent, "team_id": team, "kind": kind, "holder": holder, "period": period}
        equal |= {"agent_kind": agent_kind, "reason": reason, "customer_id": customer}

        def select[T](
            query: Callable[..., T], connection: sa.Connection, limit: int, after: Cursor, at: int | None
        ) -> T:
            some = feed.page(limit, after, at, times)
            source = source_of(casework.actions, some)
            where = casework.seen_by(source, scope) + casework.was_given(source, given)
            where += casework.has_amount(source, source.c.amount_minor, amounts)
            if query is casework.read_actions and past.changed_after is not None:
                where += (source.c.since > past.changed_after,)
            return query(connection, *where, page=some, source=source, **equal)

        read, total = partial(select, casework.read_actions), partial(select, casework.count_actions)
        listing = Listing("actions", ActionRow, "casework", read, _position, feed.after, at, more=times.told())
        return await lists.answer(listing._replace(total=total, has_part=past.changed_after is not None), page, viewer)


def _add_escalations(api: FastAPI, lists: ListReader, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/escalations",
        responses=answers(Page[EscalationRow], tables=True),
        summary="Escalations with their outcome",
    )
    async def escalations(
        page: Annotated[PageQuery, Depends()],
        feed: Annotated[FeedQuery, Depends()],
        past: Annotated[ChangesQuery, Depends()],
        within: Annotated[FeedRangeQuery, Depends()],
        agent: str | None = None,
        team: str | None = None,
        kind: str | None = None,
        status: str | None = None,
        agent_kind: AgentKind | None = None,
        reason: str | None = None,
        customer: str | None = None,
        amount: AmountText = None,
        viewer: Principal = caller,
    ) -> Response:
        times, at, scope = await lists.feed_range(within), await lists.at(past.as_of), await authorizer.scope(viewer)
        amounts = amounts_of(amount)
        equal = {"agent_id": agent, "team_id": team, "kind": kind, "status": status, "agent_kind": agent_kind}
        equal |= {"reason": reason, "customer_id": customer}

        def select[T](
            query: Callable[..., T], connection: sa.Connection, limit: int, after: Cursor, at: int | None
        ) -> T:
            some = feed.page(limit, after, at, times)
            source = source_of(casework.escalations, some)
            where = casework.seen_by(source, scope, asked=viewer.person_id)
            where += casework.has_amount(source, source.c.asked_minor, amounts)
            if query is casework.read_escalations and past.changed_after is not None:
                where += (source.c.since > past.changed_after,)
            return query(connection, *where, page=some, source=source, **equal)

        read, total = partial(select, casework.read_escalations), partial(select, casework.count_escalations)
        listing = Listing("escalations", EscalationRow, "casework", read, _position, feed.after, at, more=times.told())
        return await lists.answer(listing._replace(total=total, has_part=past.changed_after is not None), page, viewer)


def _add_flags(api: FastAPI, lists: ListReader, keys: Keyring, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/flags",
        responses=answers(Page[FlagRow], tables=True),
        summary="Flags of possible misuse for human review",
    )
    async def flags(
        page: Annotated[PageQuery, Depends()],
        feed: Annotated[FeedQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        within: Annotated[FeedRangeQuery, Depends()],
        rule: str | None = None,
        about: str | None = None,
        status: str | None = None,
        viewer: Principal = caller,
    ) -> Response:
        times, at, scope = await lists.feed_range(within), await lists.at(past.as_of), await authorizer.scope(viewer)
        now = datetime.now(UTC)

        def read(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> list[Row]:
            some = feed.page(limit, after, at, times)
            return read_flags(connection, now, rule=rule, status=status, page=some, seen=scope.sees_all)

        async def masked(found: list[Row]) -> list[Row]:
            shown = await without_names(lists.log, keys, found)  # filtered after masking: a filter reveals no name
            shown = [_for_reader(one, flag, viewer) for one, flag in zip(shown, found, strict=True)]
            shown = await readable(keys, shown, ("note", "answer"))
            return [one for one in shown if about is None or about in one["about"]]

        return await lists.answer(
            Listing("flags", FlagRow, "flags", read, _position, feed.after, at, masked, times.told()), page, viewer
        )


def _for_reader(shown: Row, flag: Row, viewer: Principal) -> Row:
    """Return a flag as this reader may see it: employees named by it see their own answer and no note."""
    concerned = f"agent:{viewer.person_id}" in flag["about"]
    answer = flag["answer"] if concerned and viewer.person_id == flag["answered_by"] else shown["answer"]
    return {**shown, "answer": answer, "note": None if concerned or viewer.role == "agent" else shown["note"]}


def _add_cases(api: FastAPI, lists: ListReader, keys: Keyring, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/cases",
        responses=answers(Page[CaseRow], tables=True),
        summary="Cases of possible misuse: flags about one subject; `below` shows those that wait below the line",
    )
    async def cases(
        page: Annotated[PageQuery, Depends()],
        feed: Annotated[FeedQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        within: Annotated[FeedRangeQuery, Depends()],
        status: Literal["open", "below", "closed"] | None = None,
        subject: str | None = None,
        viewer: Principal = caller,
    ) -> Response:
        times, at, scope = await lists.feed_range(within), await lists.at(past.as_of), await authorizer.scope(viewer)

        def read(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> list[Row]:
            some = feed.page(limit, after, at, times)
            return read_cases(connection, status=status, page=some, seen=scope.sees_all)

        async def masked(found: list[Row]) -> list[Row]:
            shown = await cases_without_names(lists.log, keys, found)  # filtered after masking, as flags
            return [one for one in shown if subject is None or one["subject"] == subject]

        return await lists.answer(
            Listing("cases", CaseRow, "flags", read, _position, feed.after, at, masked, times.told()), page, viewer
        )


def _add_trail(api: FastAPI, lists: ListReader, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/trail",
        responses=answers(Page[TrailRow], tables=True),
        summary="The audit trail: events with positions",
    )
    async def trail(
        page: Annotated[PageQuery, Depends()],
        feed: Annotated[FeedQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        within: Annotated[FeedRangeQuery, Depends()],
        interaction: str | None = None,
        action: str | None = None,
        agent: str | None = None,
        customer: str | None = None,
        order_id: str | None = None,
        amount: AmountText = None,
        viewer: Principal = caller,
    ) -> Response:
        times, at, scope = await lists.feed_range(within), await lists.at(past.as_of), await authorizer.scope(viewer)
        if scope.people is not None and agent not in scope.people:
            raise HTTPException(403, f"the role {viewer.role} reads only the trail of people it sees: name an `agent`")
        named = {"interaction": interaction, "action": action, "agent": agent, "customer": customer, "order": order_id}
        amounts = amounts_of(amount)
        named_ids = [(kind, name) for kind, name in named.items() if name is not None]
        read_about = [f"{kind}:{name}" for kind, name in named_ids if kind not in ("interaction", "order")]
        if read_about:
            await note_reading(lists.log, viewer, read_about, at or await lists.end())

        def read(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> list[Row]:
            return read_trail(connection, named_ids, feed.page(limit, after, at, times), amounts=amounts)

        def total(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> int:
            return count_trail(connection, named_ids, feed.page(limit, after, at, times), amounts)

        listing = Listing("trail", TrailRow, Trail.name, read, _position, feed.after, at, more=times.told())
        return await lists.answer(listing._replace(total=total), page, viewer)


def _add_plugin_views(api: FastAPI, lists: ListReader, authorizer: Authorizer) -> None:
    caller, auditors = Depends(authorizer.viewer), Depends(authorizer.allowed("auditor", "operator"))

    @api.get(
        "/api/v1/views/{view}/{table}",
        responses=answers(KeyPage[PluginRow], tables=True),
        dependencies=[auditors],
        summary="Rows of a view that another package adds",
    )
    async def rows(
        view: str,
        table: str,
        page: Annotated[PageQuery, Depends()],
        after: AfterKey = None,
        order: ByKey = "asc",
        viewer: Principal = caller,
    ) -> Response:
        try:
            found = plugin_table(view, table)
        except LookupError as error:
            raise HTTPException(404, str(error)) from None

        def read(connection: sa.Connection, limit: int, after: Cursor, _at: int | None) -> list[Row]:
            key = None if after is None else key_of(found.table, str(after))
            return found.read(connection, limit, key, descending=order == "desc")

        def cursor(row: Row) -> str:
            return cursor_of([row[column.name] for column in found.table.primary_key])

        check_cursor(found.table, after)
        return await lists.answer(Listing(table, found.table, view, read, cursor, after), page, viewer)
