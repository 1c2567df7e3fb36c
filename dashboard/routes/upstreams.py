"""Routes for sources that speak HTTP: events, receipts, decisions and the brief, as over NATS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import msgspec
from fastapi import Depends, Header, Path, Query, Request, Response
from pydantic import WithJsonSchema

from config import topology
from dashboard.auth.source_limits import SourceLimits, tell
from dashboard.event_gateway import EventGateway, FaultyEventsError, events_of_request
from dashboard.nats_requests import ask_raw
from dashboard.openapi import EVENT_BODY, answers, request_body
from dashboard.problem_details import ParameterError, problem
from dashboard.schemas import JsonResponse, PublishedEvents, checked_by
from domain.commands import (
    ActionRequest,
    EscalationAsk,
    EscalationDecision,
    HoldRequest,
    Preview,
    ReversalRequest,
)
from domain.documents.replies import ANSWERS, REPEATABLE, Brief, EventOutcome, NotificationList
from domain.ids import ID_SCHEMA, fault_of
from domain.serialization import encode
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastapi import FastAPI

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from domain.serialization import Json
    from ledger.store.content_modes import Headers

    type _Ask = Callable[[Principal, str, bytes, str], Awaitable[Response]]

_STATUS = {"source_not_allowed": 403, "too_large": 413} | dict.fromkeys(REPEATABLE, 503)
"""The status of an error's code; others are 422."""
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_Id = Annotated[str, checked_by(fault_of), WithJsonSchema({"type": "string", **ID_SCHEMA})]
_OPERATIONS: dict[str, tuple[tuple[type, ...], str]] = {
    "action": ((ActionRequest,), "Take an action for a customer, if the agent may"),
    "preview": ((Preview,), "Check whether an action would be allowed, without taking it"),
    "hold": ((HoldRequest,), "Settle held money, or release it"),
    "reversal": ((ReversalRequest,), "Reverse an action, all or a part"),
    "escalation": (
        (EscalationAsk, EscalationDecision),
        "Request, approve, deny, withdraw or forward an escalation",
    ),
}
"""The bodies and the summary of each operation."""
_Key = Annotated[str | None, Header(description="The `request_id`; retries get one answer.")]


class _Outcome(msgspec.Struct):
    """The parts of an answer that decide the HTTP status."""

    error: dict[str, str] | None = None
    position: int = 0


class _Named(msgspec.Struct):
    request_id: msgspec.Raw = msgspec.Raw()


_named_decoder = msgspec.json.Decoder(_Named)


def add_upstream_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes for sources; each needs a token of a source."""
    limits, gateway = SourceLimits(), EventGateway(context.client, context.check)
    caller = Depends(context.authorizer.source)

    async def asked(viewer: Principal, subject: str, body: bytes, role: str) -> Response:
        allowed = limits.take(viewer.name, "requests")
        reply = await ask_raw(context.client, f"{subject.format(token_of_source(viewer.source or ''))}", body, role)
        return tell(_answer(context, reply), allowed)

    @api.post(
        "/api/v1/events",
        status_code=202,
        responses=answers(PublishedEvents, 202),
        summary="Publish CloudEvents: one (structured or binary mode), or a batch",
        openapi_extra=EVENT_BODY,
    )
    async def events(request: Request, viewer: Principal = caller) -> Response:
        found = events_of_request(await request.body(), _content_headers(request))
        allowed = limits.take(viewer.name, "events", len(found))
        try:
            receipts = await gateway.publish(viewer.source or "", found)
        except FaultyEventsError as error:
            return tell(_refused(error, len(found)), allowed)
        return tell(JsonResponse({"receipts": receipts}, 202), allowed)

    @api.get(
        "/api/v1/receipts/{id:path}",
        responses=answers(EventOutcome),
        summary="The outcome of a published event: recorded, rejected with a reason, pending or unknown",
    )
    async def receipt(
        event_id: Annotated[str, Path(alias="id", max_length=128)], viewer: Principal = caller
    ) -> Response:
        return await asked(viewer, f"{topology.READ_SUBJECT}.{{}}.receipt", encode({"id": event_id}), "intake")

    for operation in _OPERATIONS:
        _add_decision(api, operation, caller, asked)

    _add_readings(api, caller, asked)


def _add_readings(api: FastAPI, caller: Principal, asked: _Ask) -> None:
    """Add the routes of notifications and of the brief."""

    @api.get(
        "/api/v1/notifications",
        responses=answers(NotificationList),
        summary="Each step of the source's escalations, kept for seven days",
    )
    async def notifications(
        viewer: Principal = caller,
        after: Annotated[int, Query(ge=0, le=2**53, description="The `next` of the answer before.")] = 0,
        limit: Annotated[int, Query(ge=1, le=500, description="The most notifications to return.")] = 100,
    ) -> Response:
        body = encode({"after": after, "limit": limit})
        return await asked(viewer, f"{topology.READ_SUBJECT}.{{}}.notifications", body, "decisions")

    @api.get(
        "/api/v1/brief",
        responses=answers(Brief),
        summary="A customer's matters, and what an agent may give now",
    )
    async def brief(
        viewer: Principal = caller,
        customer_id: Annotated[_Id | None, Query()] = None,
        interaction_id: Annotated[_Id | None, Query()] = None,
        agent_id: Annotated[_Id | None, Query()] = None,
    ) -> Response:
        query = {"customer_id": customer_id, "interaction_id": interaction_id, "agent_id": agent_id}
        body = encode({name: value for name, value in query.items() if value is not None})
        return await asked(viewer, f"{topology.READ_SUBJECT}.{{}}.brief", body, "projections")


def _add_decision(api: FastAPI, operation: str, caller: Principal, asked: _Ask) -> None:
    """Add the route of one operation."""
    requests, summary = _OPERATIONS[operation]

    @api.post(
        f"/api/v1/decisions/{operation}",
        responses=answers(ANSWERS[operation]),
        summary=summary,
        openapi_extra=request_body(*requests),
    )
    async def decision(request: Request, viewer: Principal = caller, idempotency_key: _Key = None) -> Response:
        body = _with_request_id(await request.body(), _key_of(idempotency_key), required=operation != "preview")
        return await asked(viewer, f"{topology.DECIDE_SUBJECT}.{{}}.{operation}", body, "decisions")


def _content_headers(request: Request) -> Headers:
    """Return the headers that describe the content; bytes that are not UTF-8 become surrogates, as over NATS."""
    return tuple(
        (name.decode("latin-1"), value.decode(errors="surrogateescape").strip(" \t"))
        for name, value in request.scope["headers"]
        if name.startswith(b"ce-") or name == b"content-type"
    )


def _refused(error: FaultyEventsError, events: int) -> Response:
    """Return the problem details about faulty events: the first fault, and each of them in `errors`."""
    first = error.faults[0]
    text = f"{first.field}: {first.message}" if first.field else first.message
    if events > 1:
        text = f"event {first.number} of the batch: {text}; none of its events was taken"
    errors: list[Json] = [dict(one._asdict()) for one in error.faults]
    return problem(_STATUS.get(first.code, 422), text, code=first.code, field=first.field or None, errors=errors)


def _answer(context: ApiContext, reply: bytes) -> Response:
    """Return an answer that came over NATS as a response."""
    found = msgspec.json.decode(reply, type=_Outcome)
    if found.error is None:
        context.views.observe_end(found.position)
        return Response(reply, media_type="application/json")
    return error_response(found.error)


def error_response(error: Mapping[str, str]) -> Response:
    """Return the problem details of an error that came over NATS; the status depends on its code."""
    code, message, field = (error.get(name, "") for name in ("code", "message", "field"))
    status = _STATUS.get(code, 422)
    headers = {"Retry-After": "1"} if status == _STATUS["unavailable"] else None
    return problem(status, f"{field}: {message}" if field else message, headers, code=code, field=field or None)


def _key_of(header: str | None) -> str | None:
    """Return the key of an `Idempotency-Key`, which may be quoted as a structured field (RFC 9651)."""
    if header is None:
        return None
    try:
        text = header.encode("latin-1").decode().strip()
    except UnicodeError:
        raise ParameterError("Idempotency-Key", "is not UTF-8 text", status=400) from None
    quoted = _QUOTED.fullmatch(text)
    return re.sub(r'\\(["\\])', r"\1", quoted[1]) if quoted else text


def _with_request_id(body: bytes, key: str | None, *, required: bool) -> bytes:
    """Return a request's body with the `request_id` that its header names.

    Raises:
        ParameterError: 400, it is no JSON object, or no key is named; 422, the header and the body name two.

    """
    try:
        named = bytes(_named_decoder.decode(body).request_id)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ParameterError("", f"a request is a JSON object: {error}", status=400) from None
    if key is None:
        if required and not named:
            raise ParameterError("Idempotency-Key", "name the request: this header, or `request_id`", status=400)
        return body
    if not named:
        rest = body.lstrip(b" \t\r\n")[1:]
        comma = b"" if rest.lstrip(b" \t\r\n").startswith(b"}") else b","
        return b'{"request_id":' + encode(key) + comma + rest
    if named != encode(key) and msgspec.json.decode(named) != key:
        raise ParameterError("Idempotency-Key", "differs from the body's `request_id`: send one of them")
    return body
