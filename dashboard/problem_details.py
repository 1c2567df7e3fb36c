"""Errors of the HTTP API as problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from dashboard.schemas import PROBLEM, TITLES, JsonResponse
from dashboard.view_reader import NotReadyError
from domain.suggestions import nearest
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastapi import FastAPI, Request, Response

    from domain.serialization import Json

NOT_CANONICAL = "id_not_canonical"


class ParameterError(HTTPException):
    """A parameter, header or field that cannot be used; ``code`` is stable, ``field`` is its name."""

    def __init__(self, field: str, message: str, *, code: str = "invalid", status: int = 422) -> None:
        super().__init__(status, f"{field}: {message}" if field else message)
        self.field, self.code = field, code


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Json) -> Response:
    """Return a response with problem details."""
    document = {"type": "about:blank", "title": TITLES.get(status, "error"), "status": status, "detail": detail}
    return JsonResponse(document | more, status, dict(headers or {}), media_type=PROBLEM)


def hint_of(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known name, else all known names."""
    names = sorted(known)
    if near := nearest(name, names):
        return f"; did you mean {near}?"
    return f"; known are {', '.join(names)}" if names else "; none is known here"


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the model of an annotation, which may be optional."""
    types = (one for one in (annotation, *get_args(annotation)) if isinstance(one, type))
    return next((one for one in types if issubclass(one, BaseModel)), None)


def _fields_at(request: Request, location: Sequence[str | int]) -> Iterable[str]:
    """Return the fields that the request's body model has at a place, e.g. ``("body", "amount")``."""
    body_field = getattr(request.scope.get("route"), "body_field", None)
    model = None if body_field is None else _model_in(body_field.field_info.annotation)
    for part in location[1:]:
        field = None if model is None else model.model_fields.get(str(part))
        model = None if field is None else _model_in(field.annotation)
    return () if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _allowed_methods(api: FastAPI, request: Request) -> set[str]:
    """Return the methods of all routes of this path."""
    found: set[str] = set()
    for route in api.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return found


def add_error_handlers(api: FastAPI) -> None:
    """Answer errors with problem details."""

    @api.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> Response:
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # a route has only its own method
            headers = {"Allow": ", ".join(sorted(_allowed_methods(api, request)))}
        more = {"field": error.field, "code": error.code} if isinstance(error, ParameterError) else {}
        return problem(error.status_code, str(error.detail), headers, **more)

    @api.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # it explains a missing field
        field = ".".join(str(part) for part in first["loc"][1:])
        if first["type"] == "extra_forbidden":
            hint = hint_of(str(first["loc"][-1]), _fields_at(request, first["loc"][:-1]))
            message = f"{field}: unknown field{hint}"
            return problem(422, message, field=field, code="unknown_field")
        code = first["type"] if first["type"] == NOT_CANONICAL else "invalid"
        return problem(422, f"{field}: {first['msg']}", field=field, code=code)

    @api.exception_handler(NotReadyError)
    @api.exception_handler(LedgerError)
    async def unavailable(_request: Request, error: Exception) -> Response:
        return problem(503, str(error), {"Retry-After": "1"})
