"""Routes that admit a request before its body is read: gates, then query parameters, then strict JSON."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from fastapi.routing import APIRoute

from dashboard.auth.authorization import Gate
from dashboard.problem_details import ParameterError, hint_of
from domain.policy.document import DocumentError, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from fastapi import Response
    from fastapi.dependencies.models import Dependant

    from domain.serialization import Json

_PARAMETERS, _VALUE_CHARACTERS, _SHOWN = 50, 2_000, 40
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TEXT_PATTERN = r"^[^\x00-\x1f\x7f]*$"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class AdmittingRoute(APIRoute):
    """A route that passes its gates before the body is read, and rejects unknown query parameters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[object, None, Response]]:
        """Return the handler with the checks before it."""
        handle = super().get_route_handler()
        flat = list(_dependants(self.dependant))
        named = {owner for one in flat if isinstance(owner := getattr(one.call, "__self__", None), Gate)}
        gates = sorted(named.union(*(gate.needs for gate in named)), key=lambda gate: gate.rank)
        names = frozenset(field.alias for one in flat for field in one.query_params)

        async def admitted(request: Request) -> Response:
            for gate in gates:
                await gate.admit(request)
            check_query(request.scope["query_string"], names)
            return await handle(_StrictRequest(request.scope, request.receive))

        return admitted


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for one in dependant.dependencies:
        yield from _dependants(one)


def check_query(query: bytes, names: frozenset[str]) -> None:
    """Reject a query string with unknown or repeated parameters, or with invalid text.

    Raises:
        ParameterError: 422, with the parameter's name.

    """
    pairs = [pair for pair in query.split(b"&") if pair]
    if len(pairs) > _PARAMETERS:
        raise ParameterError("query", f"more than {_PARAMETERS} parameters")
    seen = set()
    for pair in pairs:
        raw_name, _, raw_value = pair.replace(b"+", b" ").partition(b"=")
        shown = unquote_to_bytes(raw_name).decode("utf-8", "replace")[:_SHOWN]
        name = _text(raw_name, shown)
        if name not in names:
            raise ParameterError(shown, f"unknown parameter{hint_of(shown, names)}", code="unknown_parameter")
        if name in seen:
            raise ParameterError(name, "occurs twice", code="repeated_parameter")
        seen.add(name)
        _text(raw_value, name)


def _text(raw: bytes, name: str) -> str:
    if _BAD_ESCAPE.search(raw):
        raise ParameterError(name, "% must be followed by two hexadecimal digits: write %25 for a percent sign")
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise ParameterError(name, "is not UTF-8 text") from None
    if _CONTROL.search(text):
        raise ParameterError(name, "contains control characters")
    if len(text) > _VALUE_CHARACTERS:
        raise ParameterError(name, f"is longer than {_VALUE_CHARACTERS} characters")
    return text


def publish_bounds(document: dict[str, Any]) -> dict[str, Any]:
    """Add the bounds of :func:`check_query` to an OpenAPI document; return it."""
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    schema = parameter["schema"]
                    for one in (schema, *schema.get("anyOf", ())):
                        if one.get("type") == "string" and "format" not in one:
                            one.update({"maxLength": _VALUE_CHARACTERS, "pattern": _TEXT_PATTERN} | one)
    return document


class _StrictRequest(Request):
    """A request with strictly parsed JSON."""

    async def json(self) -> Json:
        """Return the body's document.

        Raises:
            ParameterError: 422, the body is not JSON, or is JSON that two parsers may read differently.

        """
        try:
            return read_json(await self.body())
        except DocumentError as error:
            raise ParameterError(error.field, str(error.message), code=error.code) from None
