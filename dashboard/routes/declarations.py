"""Routes by which the signed-in person declares a fact: a delegation, an answer, a decision on an idea, thanks."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from fastapi import Depends, HTTPException, Response
from pydantic import AwareDatetime, Field

from config import topology
from dashboard.nats_requests import ask_raw
from dashboard.openapi import answers
from dashboard.problem_details import ParameterError
from dashboard.routes.commands import CommandBody, Id, PathId
from dashboard.schemas import EventReceipt, JsonResponse
from domain.serialization import encode, plain
from domain.sources import SIGNED_IN_SOURCE
from ledger.errors import UnavailableError
from projections.views.people import read_people, read_voices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

    from dashboard.auth.authorization import Authorizer
    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.view_reader import ViewReader
    from domain.serialization import Json
    from ledger.nats.client import LedgerClient

Text = Annotated[str, Field(max_length=2_000, pattern=r"\S")]


class Delegation(CommandBody):
    """The person and the time of a delegation; the signed-in person delegates."""

    to_employee_id: Id
    from_time: AwareDatetime | None = Field(None, description="Default: now.")
    until_time: AwareDatetime
    request_id: Id | None = Field(None, description="Idempotency key: repeats with the same content have no effect.")


class ObstacleReply(CommandBody):
    """The answer to an obstacle, in words."""

    text: Text = Field(description="The answer; personal, so it is encrypted.")
    request_id: Id | None = Field(None, description="Idempotency key: repeats with the same content have no effect.")


class IdeaDecision(CommandBody):
    """The decision on an idea."""

    decision: Literal["accepted", "tried out", "declined"]
    request_id: Id | None = Field(None, description="Idempotency key: repeats with the same content have no effect.")


class Thanks(CommandBody):
    """Recognition of an employee by the signed-in person."""

    receiver_id: Id
    reason: Literal["helped a customer", "helped a colleague", "good idea", "good work"] = Field(
        description="The reason; a code, because it is not encrypted."
    )
    interaction_id: Id | None = None
    request_id: Id | None = Field(None, description="Idempotency key: repeats with the same content have no effect.")


class _PubAck(msgspec.Struct):
    """The acknowledgement of a stream; without a sequence, the message was not stored."""

    stream: str = ""
    seq: int = 0


def add_declaration_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes by which the signed-in person declares facts; each refuses requests of other sites."""
    _add_delegations(api, context.client, context.authorizer)
    _add_answers(api, context.client, context.views, context.authorizer)
    _add_recognition(api, context.client, context.views, context.authorizer)


def _add_delegations(api: FastAPI, client: LedgerClient, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.post(
        "/api/v1/delegations",
        status_code=202,
        responses=answers(EventReceipt, 202),
        summary="Delegate the own decisions to another person for a time",
        dependencies=[*authorizer.command_gates, Depends(authorizer.allowed("manager"))],
    )
    async def delegation(command: Delegation, viewer: Principal = caller) -> Response:
        now = datetime.now(UTC)
        start, end = command.from_time or now, command.until_time
        if end <= max(start, now):
            raise ParameterError("until_time", "it must lie in the future, and after from_time")
        if command.to_employee_id == viewer.person_id:
            raise ParameterError("to_employee_id", "delegate to another person")
        name = _name_of("delegation.declared", command.request_id, viewer)
        data = {"from_employee_id": viewer.person_id, "to_employee_id": command.to_employee_id}
        data |= {"from_time": plain(start), "until_time": plain(end)}
        return await _declare(client, name, "delegation.declared", data)


def _add_answers(api: FastAPI, client: LedgerClient, views: ViewReader, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)
    gates = [*authorizer.command_gates, Depends(authorizer.allowed("manager"))]

    async def check_visible(what: str, name: str, viewer: Principal) -> None:
        """Check that an idea or an obstacle is of a person below the viewer.

        Raises:
            HTTPException: 404, it is not visible; 409, it is the viewer's own.

        """
        scope = await authorizer.scope(viewer)
        found = (await views.read("people", lambda c: read_voices(c, voice_id=f"{what} {name}"), short=True)).result
        if not found or not scope.shows(found[0]["employee_id"]):
            raise HTTPException(404, f"no {what} with this id is visible to this token")
        if found[0]["employee_id"] == viewer.person_id:
            raise HTTPException(409, f"this {what} is your own: another person answers it")

    @api.post(
        "/api/v1/obstacles/{obstacle_id}",
        status_code=202,
        responses=answers(EventReceipt, 202),
        summary="Answer an obstacle that an employee has reported",
        dependencies=gates,
    )
    async def obstacle(obstacle_id: PathId, command: ObstacleReply, viewer: Principal = caller) -> Response:
        await check_visible("obstacle", obstacle_id, viewer)
        data = {"obstacle_id": obstacle_id, "answered_by": viewer.person_id, "text": command.text}
        name = _name_of("obstacle.answered", command.request_id, viewer)
        return await _declare(client, name, "obstacle.answered", data)

    @api.post(
        "/api/v1/ideas/{idea_id}",
        status_code=202,
        responses=answers(EventReceipt, 202),
        summary="Decide an idea that an employee has submitted",
        dependencies=gates,
    )
    async def idea(idea_id: PathId, command: IdeaDecision, viewer: Principal = caller) -> Response:
        await check_visible("idea", idea_id, viewer)
        data = {"idea_id": idea_id, "decision": command.decision, "decided_by": viewer.person_id}
        name = _name_of("idea.decided", command.request_id, viewer)
        return await _declare(client, name, "idea.decided", data)


def _add_recognition(api: FastAPI, client: LedgerClient, views: ViewReader, authorizer: Authorizer) -> None:
    caller = Depends(authorizer.viewer)

    @api.post(
        "/api/v1/recognitions",
        status_code=202,
        responses=answers(EventReceipt, 202),
        summary="Thank an employee",
        dependencies=[*authorizer.command_gates, Depends(authorizer.allowed("agent", "manager"))],
    )
    async def recognition(command: Thanks, viewer: Principal = caller) -> Response:
        receiver = command.receiver_id
        if receiver == viewer.person_id:
            raise ParameterError("receiver_id", "thank another person")
        people = (await views.read("people", read_people)).result
        if (known := people.get(receiver)) is None or known["role"] is None or known["left"] is not None:
            raise ParameterError("receiver_id", "no employee with this id works here")
        scope = await authorizer.scope(viewer)
        name = _name_of("recognition.given", command.request_id, viewer)
        data = {"recognition_id": name, "giver_id": viewer.person_id} | command.model_dump(
            exclude_none=True, exclude={"request_id"}
        )
        data["giver_kind"] = "manager" if scope.shows(receiver) else "peer"
        return await _declare(client, name, "recognition.given", data)


def _name_of(kind: str, request_id: str | None, viewer: Principal) -> str:
    """Return the id of an event: the same for the same person and request, and of no other person."""
    if request_id is None:
        return str(uuid.uuid4())
    return str(uuid.uuid5(uuid.NAMESPACE_OID, encode([kind, viewer.person_id, request_id]).decode()))


async def _declare(client: LedgerClient, name: str, kind: str, data: Mapping[str, Json]) -> Response:
    """Publish a fact to the inbox; return its receipt.

    Raises:
        UnavailableError: the inbox does not take it.

    """
    event = {
        "specversion": "1.0",
        "id": name,
        "source": SIGNED_IN_SOURCE,
        "type": f"resolution.{kind}.v1",
        "data": data,
    }
    stored = await ask_raw(client, f"{topology.IMPORT_SUBJECT}.{SIGNED_IN_SOURCE}", encode(event), "intake")
    ack = msgspec.json.decode(stored, type=_PubAck)
    if not ack.seq:
        raise UnavailableError(f"the inbox does not take the event {kind}; try again later")
    return JsonResponse({"id": name, "status": "pending", "stream": ack.stream, "seq": ack.seq}, status_code=202)
