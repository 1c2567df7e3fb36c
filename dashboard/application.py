"""The HTTP API: lists, reports, events, proofs and commands, each answer with the log position behind it.

A command is forwarded as a NATS request in the name of the token's bearer. Errors are problem details (RFC 9457).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware

from dashboard.auth.admission import AdmittingRoute
from dashboard.http.body_limits import BodyBounds
from dashboard.http.host_check import HostCheck
from dashboard.metrics import Metrics
from dashboard.problem_details import add_problems
from dashboard.routes.commands import CommandClient, add_acting
from dashboard.routes.lists import ListReader, add_lists
from dashboard.routes.proofs import add_proving
from dashboard.routes.reports import add_reports
from dashboard.routes.sources import add_upstreams
from dashboard.routes.system import add_system
from dashboard.routes.updates import add_updates
from dashboard.routes.web_page import add_page
from dashboard.schemas import PROBLEMS

if TYPE_CHECKING:
    from dashboard.context import ApiContext


def make_api(context: ApiContext) -> FastAPI:
    """Return the FastAPI application of a context."""
    views, log, keys, doors = context.views, context.log, context.keys, context.doors
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
    api.add_middleware(HostCheck, names=context.hosts)
    add_lists(api, ListReader(views, log), keys, doors)
    add_reports(api, views, log, doors)
    add_system(api, views, log, keys, doors, Metrics(views, context.client))
    add_updates(api, views, context.news, doors)
    add_proving(api, views, log, keys, doors, context.data_dir)
    add_acting(api, views, log, doors, CommandClient(context.client, views))
    add_upstreams(api, views, context.rejected, context.client, doors)
    add_problems(api)
    add_page(api, doors)
    return api
