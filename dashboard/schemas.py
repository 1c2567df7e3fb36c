"""What the API answers, for its OpenAPI document; items are as docs/integrate/http.md and docs/reference/sql.md say."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

PROBLEM = "application/problem+json"


class Json(Response):
    """A document."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """As JSON."""
        return msgspec.json.encode(content)


class Page(BaseModel):
    """Items, up to where the view behind them had read the log, and how old that is."""

    items: list[dict[str, Any]]
    position: int = Field(ge=0, description="Up to here the log had been read.")
    lag_seconds: float = Field(ge=0, description="Age of what is shown, where the log goes on behind it; else 0.")
    next: int | None = Field(None, description="`after` of the next page; none: this was the last.")


class Report(BaseModel):
    """A document of its own, with position and age."""

    model_config = ConfigDict(extra="allow")
    position: int = Field(ge=0)
    lag_seconds: float = Field(0, ge=0)


class Said(BaseModel):
    """What was answered to whoever asked for something to be done."""

    model_config = ConfigDict(extra="allow")


class Me(BaseModel):
    """Who asks, and whom they are shown; without ``people``: everybody."""

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
    401: "who are you?",
    403: "not here",
    404: "not found",
    405: "not this way",
    408: "request timeout",
    409: "not as things are",
    413: "content too large",
    421: "misdirected request",
    422: "cannot be used",
    429: "too often",
    431: "request header fields too large",
    503: "not ready",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": title, "content": {PROBLEM: {"schema": Problem.model_json_schema()}}}
    for status, title in TITLES.items()
}
"""What may be wrong with any request."""
