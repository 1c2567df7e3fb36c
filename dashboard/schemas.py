"""Response models of the API for its OpenAPI document (items: docs/integrate/http.md, docs/reference/sql.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from fastapi import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from domain.serialization import JsonObject  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.ids import IdFault

PROBLEM = "application/problem+json"


class JsonResponse(Response):
    """A JSON response, encoded by msgspec."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Return the content as JSON."""
        return msgspec.json.encode(content)


def checked_by(fault_of: Callable[[str], IdFault | None]) -> AfterValidator:
    """Return a validator of texts that rejects those with a fault."""

    def check(text: str) -> str:
        if (fault := fault_of(text)) is not None:
            raise PydanticCustomError(fault.code, "{message}", {"message": fault.message})
        return text

    return AfterValidator(check)


class Page(BaseModel):
    """A page of items, with the view's position and its age."""

    items: list[JsonObject]
    position: int = Field(ge=0, description="Position up to which the view has read the log.")
    lag_seconds: float = Field(ge=0, description="Age of the oldest event that the view has not read, else 0.")
    next: int | str | None = Field(None, description="`after` of the next page; null on the last page.")
    begin: str | None = Field(None, alias="from", description="The first event time, if the request limits it.")
    end: str | None = Field(None, alias="to", description="The first event time behind the last one.")
    time_zone: str | None = Field(None, description="The time zone of the request's days.")
    by_time: str | None = Field(None, description="`happened`: the range limits event times.")


class Report(BaseModel):
    """A report, with its position and age."""

    model_config = ConfigDict(extra="allow")
    position: int = Field(ge=0)
    lag_seconds: float = Field(0, ge=0)


class CommandAnswer(BaseModel, title="Said"):
    """The answer to a command or a check."""

    __qualname__ = "Said"  # the schema's name in the OpenAPI document
    model_config = ConfigDict(extra="allow")


class EventReceipt(BaseModel, title="Receipt"):
    """The receipt of a published event; `GET /api/v1/receipts/{id}` has its outcome."""

    __qualname__ = "Receipt"  # the schema's name in the OpenAPI document
    id: str = Field(description="The event's id; empty where it cannot be read.")
    status: str = Field(description="`pending`: durable in the inbox, and not yet recorded or rejected.")
    stream: str = Field(description="The inbox's stream.")
    seq: int = Field(ge=1, description="The sequence of its message in this stream.")


class PublishedEvents(BaseModel, title="Receipts"):
    """The receipts of published events, in the order of the request."""

    __qualname__ = "Receipts"  # the schema's name in the OpenAPI document

    receipts: list[EventReceipt]


class ProposalState(BaseModel, title="PolicyProposal"):
    """A proposed policy, and how far it has come."""

    __qualname__ = "PolicyProposal"  # the schema's name in the OpenAPI document
    sha256: str
    state: Literal["open", "objected", "published"]
    policy: JsonObject
    replaces: int
    proposed_by: str
    at: str
    signed_in: bool
    due: str | None = Field(None, description="The end of the time for objections.")
    approved_by: list[str]
    missing: int = Field(description="The approvals that it still needs.")


class PolicyProposals(BaseModel):
    """All proposals, the newest first."""

    items: list[ProposalState]
    position: int


class Caller(BaseModel, title="Me"):
    """The caller, and the people that they may see; without ``people``, all."""

    __qualname__ = "Me"  # the schema's name in the OpenAPI document
    name: str
    role: str
    person_id: str | None
    people: list[str] | None
    teams: list[str]


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    code: str | None = None


TITLES = {
    400: "bad request",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    408: "request timeout",
    409: "conflict",
    413: "content too large",
    421: "misdirected request",
    422: "unprocessable content",
    429: "too many requests",
    431: "request header fields too large",
    503: "service unavailable",
}
PROBLEMS: dict[int | str, JsonObject] = {
    status: {"description": title, "content": {PROBLEM: {"schema": Problem.model_json_schema()}}}
    for status, title in TITLES.items()
}
"""The errors that any request may get, for the OpenAPI document."""
LIST_ANSWERS: dict[int | str, JsonObject] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
"""The other form of a list, for the OpenAPI document."""
