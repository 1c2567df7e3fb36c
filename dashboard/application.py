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
from dashboard.http.request_metrics import RequestTimer
from dashboard.http.request_spans import RequestSpans
from dashboard.openapi import PROBLEMS
from dashboard.problem_details import add_error_handlers
from dashboard.routes.case_files import add_case_file_routes
from dashboard.routes.commands import add_command_routes
from dashboard.routes.declarations import add_declaration_routes
from dashboard.routes.escalation_cases import add_escalation_case_route
from dashboard.routes.evidence import add_evidence_routes
from dashboard.routes.lists import add_list_routes
from dashboard.routes.people import add_people_routes
from dashboard.routes.proofs import add_proof_routes
from dashboard.routes.reports import (
    add_range_report_routes,
    add_report_routes,
    add_summary_route,
    add_unused_authority_route,
    add_what_if_route,
)
from dashboard.routes.sources import add_source_routes
from dashboard.routes.system import add_system_routes
from dashboard.routes.updates import add_update_routes
from dashboard.routes.upstreams import add_upstream_routes
from dashboard.routes.web_page import add_page_routes
from dashboard.routes.webhooks import add_webhook_routes
from ledger import traces

if TYPE_CHECKING:
    from dashboard.auth.openid import OpenIdProvider
    from dashboard.context import ApiContext


def make_api(context: ApiContext, openid: OpenIdProvider | None = None) -> FastAPI:
    """Return the FastAPI application of a context; ``openid`` is the provider by which people sign in, if any."""
    api = FastAPI(
        title="Resolution Ledger",
        version="1",
        description=__doc__ or "",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses=PROBLEMS,
        # FastAPI's own spans and logs hold paths, addresses and messages of errors, which are personal data here.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    api.router.route_class = AdmittingRoute
    api.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=4)
    api.add_middleware(BodyBounds)
    api.add_middleware(HostCheck, names=context.hosts)
    api.add_middleware(RequestTimer, metrics=context.metrics.requests)
    if traces.spans is not None:
        api.add_middleware(RequestSpans, spans=traces.spans)
    add_error_handlers(api)
    for add_routes in (
        add_upstream_routes,  # routes are tried in this order, and sources ask most often
        add_list_routes,
        add_people_routes,
        add_report_routes,
        add_summary_route,
        add_what_if_route,
        add_range_report_routes,
        add_unused_authority_route,
        add_system_routes,
        add_update_routes,
        add_case_file_routes,
        add_proof_routes,
        add_evidence_routes,
        add_escalation_case_route,
        add_command_routes,
        add_declaration_routes,
        add_source_routes,
        add_webhook_routes,
        add_page_routes,
    ):
        add_routes(api, context)
    if openid is not None:
        from dashboard.routes.openid import add_openid_routes  # it needs the extra `oidc`

        add_openid_routes(api, context, openid)
    return api
