"""Routes of reports, which are computed from views."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, Response

from dashboard.list_query import (
    DEFAULT_LIMIT,
    AsOf,
    FeedQuery,
    IfNoneMatch,
    Limit,
    LimitText,
    RangeQuery,
    SummaryBy,
    limit_of,
)
from dashboard.list_reader import ListReader
from dashboard.openapi import answers
from dashboard.problem_details import ParameterError
from dashboard.report_cache import ReportRequest
from dashboard.schemas import (
    BeyondAuthorityAnswer,
    ConsistencyAnswer,
    GapAnswer,
    JsonResponse,
    LimitWhatIfAnswer,
    LoyaltyAnswer,
    QualityAnswer,
    RecognitionAnswer,
    SummaryAnswer,
    UnusedAuthorityAnswer,
)
from dashboard.view_reader import NotReadyError
from domain.events.facts import Kind  # noqa: TC001 - FastAPI reads the annotations
from projections.policy_history import in_force_now, policy_in_force, published_policies
from projections.reading import EVERYBODY, AccessScope
from projections.reports.beyond_authority import beyond_authority
from projections.reports.consistency import consistency_report
from projections.reports.empowerment_gap import gap_report
from projections.reports.limit_simulation import LimitError, what_if_of_limit
from projections.reports.loyalty import loyalty_report
from projections.reports.recognition import recognition_report
from projections.reports.service_quality import quality_report
from projections.reports.summary import summary
from projections.reports.unused_authority import unused_authority
from projections.views.loyalty import read_effects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.report_cache import Renew
    from domain.events.decisions import PolicyPublished
    from domain.serialization import Json
    from ledger.store.log import Log
    from projections.reading import Reader

PREPARED_FROM = 50_000
"""From this position on, reports are prepared at start; those of a shorter history are computed in a moment."""


class _WholeHistory:
    """The requests of the reports of the whole history, each for a position (``None``: the present) and a scope."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def loyalty(self, at: int | None, scope: AccessScope) -> ReportRequest:
        """Return the request of customer value."""
        published = await published_policies(self._log)

        async def compute(read: Reader) -> Mapping[str, Json]:
            return await loyalty_report(read, published, at, scope=scope)

        return ReportRequest(("loyalty", at, scope), compute, _versions(published))

    async def gap(self, at: int | None, scope: AccessScope) -> ReportRequest:
        """Return the request of the authority gap."""
        # Read here: the connection belongs to this event loop, and reports are computed beside it.
        published = await published_policies(self._log, at)

        async def compute(read: Reader) -> Mapping[str, Json]:
            return await gap_report(read, published, at=at, scope=scope)

        return ReportRequest(("gap", at, scope), compute, _versions(published))

    async def quality(self, at: int | None, scope: AccessScope) -> ReportRequest:
        """Return the request of service quality."""
        return ReportRequest(("quality", at, scope), lambda read: quality_report(read, at, scope))

    async def recognition(self, at: int | None, scope: AccessScope) -> ReportRequest:
        """Return the request of recognition."""
        published, policy = await published_policies(self._log), await policy_in_force(self._log, at)

        async def compute(read: Reader) -> Mapping[str, Json]:
            return await recognition_report(read, policy, at, scope)

        return ReportRequest(("recognition", at, scope), compute, _versions(published))


type _Asked = Callable[[int | None, AccessScope], Awaitable[ReportRequest]]


def _renewing(asked: _Asked, at: int | None, scope: AccessScope) -> Renew | None:
    """Return the function that renews a report of the present; a past state is computed for its reader."""
    return None if at is not None else lambda: asked(None, scope)


async def prepare_reports(context: ApiContext) -> None:
    """Compute the reports of pages for auditors and operators, before the first of them asks."""
    if await context.views.end() < PREPARED_FROM:
        return
    whole = _WholeHistory(context.log)
    for asked in (whole.loyalty, whole.gap, whole.recognition):
        with suppress(NotReadyError):
            await context.reports.prepare(partial(asked, None, EVERYBODY))


def add_report_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of reports."""
    views, authorizer, reports = context.views, context.authorizer, context.reports
    lists, whole = ListReader(views, context.log), _WholeHistory(context.log)
    caller, not_agents = Depends(authorizer.viewer), [Depends(authorizer.allowed("manager", "auditor", "operator"))]

    async def answer(asked: _Asked, as_of: str | None, viewer: Principal, known: str | None) -> Response:
        at, scope = await lists.at(as_of), await authorizer.scope(viewer)
        return await reports.answer(viewer, await asked(at, scope), known, _renewing(asked, at, scope))

    @api.get(
        "/api/v1/loyalty",
        responses=answers(LoyaltyAnswer),
        dependencies=not_agents,
        summary="Customer value, by evidence level",
    )
    async def loyalty(
        feed: Annotated[FeedQuery, Depends()],
        as_of: AsOf = None,
        limit: Limit = None,
        viewer: Principal = caller,
    ) -> Response:
        at, scope = await lists.at(as_of), await authorizer.scope(viewer)
        most = limit or DEFAULT_LIMIT
        some = feed.page(most + 1, feed.after, at, None)
        found = (await views.read("loyalty_effects", lambda c: read_effects(c, some, people=scope.people))).result
        report = await reports.get(viewer, await whole.loyalty(at, scope), _renewing(whole.loyalty, at, scope))
        items = found[:most]
        last = items[-1]["position"] if len(found) > most else None
        return JsonResponse({**report, "items": items, "next": last})

    @api.get("/api/v1/gap", responses=answers(GapAnswer), dependencies=not_agents, summary="The authority gap")
    async def gap(as_of: AsOf = None, known: IfNoneMatch = None, viewer: Principal = caller) -> Response:
        return await answer(whole.gap, as_of, viewer, known)

    @api.get("/api/v1/quality", responses=answers(QualityAnswer), dependencies=not_agents, summary="Service quality")
    async def quality(as_of: AsOf = None, known: IfNoneMatch = None, viewer: Principal = caller) -> Response:
        return await answer(whole.quality, as_of, viewer, known)

    @api.get(
        "/api/v1/recognition",
        responses=answers(RecognitionAnswer),
        dependencies=not_agents,
        summary="Recognition, training, ideas, morale and retention",
    )
    async def recognition(as_of: AsOf = None, known: IfNoneMatch = None, viewer: Principal = caller) -> Response:
        return await answer(whole.recognition, as_of, viewer, known)


def _versions(published: Sequence[PolicyPublished]) -> tuple[int, int | None]:
    """Return the number of published policies, and the version in force now."""
    rules = in_force_now(published)
    return len(published), None if rules is None else rules.version


def add_what_if_route(api: FastAPI, context: ApiContext) -> None:
    """Add the route of the effect of another limit."""
    log, authorizer, reports = context.log, context.authorizer, context.reports
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/what-if",
        responses=answers(LimitWhatIfAnswer),
        dependencies=[Depends(authorizer.allowed("manager", "auditor", "operator"))],
        summary="The effect of another limit of one action, in a replay of history",
    )
    async def what_if(role: str, kind: Kind, amount: LimitText, viewer: Principal = caller) -> Response:
        async def compute(read: Reader) -> Mapping[str, Json]:
            return await what_if_of_limit(read, published, role, kind, limit, scope)

        limit, scope, published = limit_of(amount), await authorizer.scope(viewer), await published_policies(log)
        try:
            key = "what-if", role, kind, limit, scope
            request = ReportRequest(key, compute, _versions(published), context.replaying)
            return JsonResponse(await reports.get(viewer, request))
        except LimitError as error:
            raise ParameterError(error.field, str(error)) from None


def add_summary_route(api: FastAPI, context: ApiContext) -> None:
    """Add the route of the summary."""
    authorizer, reports = context.authorizer, context.reports
    lists = ListReader(context.views, context.log)
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/summary", responses=answers(SummaryAnswer), summary="Totals of a range of days, with the range before"
    )
    async def totals(
        within: Annotated[RangeQuery, Depends()],
        by: SummaryBy = None,
        known: IfNoneMatch = None,
        viewer: Principal = caller,
    ) -> Response:
        times, scope = await lists.times(within), await authorizer.scope(viewer)
        request = ReportRequest(("summary", by, times, scope), lambda read: summary(read, times, by, scope))
        return await reports.answer(viewer, request, known)


def add_range_report_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of the reports of a range of days, which cost its days and not the whole history."""
    authorizer, reports = context.authorizer, context.reports
    lists = ListReader(context.views, context.log)
    caller, not_agents = Depends(authorizer.viewer), [Depends(authorizer.allowed("manager", "auditor", "operator"))]

    @api.get(
        "/api/v1/beyond-authority",
        responses=answers(BeyondAuthorityAnswer),
        dependencies=not_agents,
        summary="Actions beyond the front line's authority in a range of days, by kind and reason",
    )
    async def beyond(
        within: Annotated[RangeQuery, Depends()], known: IfNoneMatch = None, viewer: Principal = caller
    ) -> Response:
        times, scope = await lists.times(within), await authorizer.scope(viewer)
        request = ReportRequest(("beyond", times, scope), lambda read: beyond_authority(read, times, scope))
        return await reports.answer(viewer, request, known)

    @api.get(
        "/api/v1/consistency",
        responses=answers(ConsistencyAnswer),
        dependencies=not_agents,
        summary="How evenly goodwill was given in a range of days, across teams and channels",
    )
    async def even(
        within: Annotated[RangeQuery, Depends()], known: IfNoneMatch = None, viewer: Principal = caller
    ) -> Response:
        times, scope = await lists.times(within), await authorizer.scope(viewer)
        request = ReportRequest(("even", times, scope), lambda read: consistency_report(read, times, scope))
        return await reports.answer(viewer, request, known)


def add_unused_authority_route(api: FastAPI, context: ApiContext) -> None:
    """Add the route of unused authority."""
    log, authorizer, reports = context.log, context.authorizer, context.reports
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/unused-authority",
        responses=answers(UnusedAuthorityAnswer),
        dependencies=[Depends(authorizer.allowed("manager", "auditor", "operator"))],
        summary="Employees with less than a tenth of their budget spent in a period, by kind of action",
    )
    async def unused(period: str | None = None, known: IfNoneMatch = None, viewer: Principal = caller) -> Response:
        async def compute(read: Reader) -> Mapping[str, Json]:
            return await unused_authority(read, published, now, period, scope)

        now, scope, published = datetime.now(UTC), await authorizer.scope(viewer), await published_policies(log)
        if scope.people is not None:  # of the team, without its lead
            scope = scope._replace(people=scope.people - {viewer.person_id})
        try:
            minute = now.replace(second=0, microsecond=0)  # trainings and periods end
            request = ReportRequest(("unused", period, scope), compute, (minute, _versions(published)))
            return await reports.answer(viewer, request, known)
        except LookupError as error:
            raise ParameterError("period", str(error)) from None
