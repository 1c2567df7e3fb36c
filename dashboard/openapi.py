"""The OpenAPI document: the answers, bodies and parameters of every operation, with descriptions and examples.

Routes name the class of each answer. The schemas are made from the classes when the document is asked for.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from dashboard.auth.admission import publish_bounds
from dashboard.schemas import PROBLEM, TITLES, Problem
from domain.commands import Preview
from domain.ids import ID_SCHEMA
from domain.serialization import JsonObject  # noqa: TC001 - FastAPI reads the annotations
from projections.field_meanings import example_in, meaning_of, parameter_meaning
from projections.json_schemas import SchemaBook, name_of
from projections.reports.explanation import ExplainedAction
from projections.reports.summary import Figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

_NAMES: dict[type, str] = {Preview: "PreviewRequest", Figures: "SummaryFigures"}
"""Schemas with another name than their class."""
_OPEN = (ExplainedAction,)
"""Documents that hold further fields: those of the event that they show."""
_CSV = {"schema": {"type": "string", "description": "The same as a table with a header, for a spreadsheet."}}
_PARQUET = {
    "schema": {"type": "string", "format": "binary", "description": "The same as a Parquet file, with typed columns."}
}
_WAIT: JsonObject = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}, "example": 1}}
_HEADERS: dict[int, JsonObject] = {429: _WAIT, 503: _WAIT}
_SOURCES = ("/api/v1/events", "/api/v1/receipts", "/api/v1/decisions", "/api/v1/brief", "/api/v1/notifications")
_TAGS = {
    "sources": "For systems that report facts and ask for decisions, with a token of a source.",
    "read": "Lists, reports, events and proofs, with a token of a person.",
    "act": "Commands of the person of the token.",
    "server": "The state of this server, and descriptions for machines.",
}
_documents: dict[str, object] = {}
"""The class of each schema that a route refers to, by its name."""
_requests: dict[str, type] = {}
"""The classes of requests, by name: they refuse unknown fields."""


def answers(hint: object, status: int = 200, *, tables: bool = False, text: str = "") -> dict[int | str, JsonObject]:
    """Return the response of a route for its documentation; ``tables``: it is also a CSV or Parquet file."""
    content: JsonObject = {"application/json": {"schema": _refer(hint)}}
    if tables:
        content |= {"text/csv": _CSV, "application/vnd.apache.parquet": _PARQUET}
    return {status: {"description": text or "The answer.", "content": content}}


def request_body(*classes: type) -> JsonObject:
    """Return the body of a route for its documentation; with several classes, `operation` names one."""
    refs = []
    for cls in classes:
        name = _NAMES.get(cls, cls.__name__)
        _requests[name] = cls
        refs.append(_ref(name))
    schema = refs[0] if len(refs) == 1 else {"oneOf": refs}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _refer(hint: object) -> JsonObject:
    name = name_of(hint)
    _documents[name] = hint
    return _ref(name)


def _ref(name: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{name}"}


PROBLEMS: dict[int | str, JsonObject] = {
    status: {
        "description": title,
        "content": {PROBLEM: {"schema": _refer(Problem)}},
        "headers": _HEADERS.get(status, {}),
    }
    for status, title in TITLES.items()
}
"""The errors that any request may get."""


def openapi_document(api: FastAPI) -> JsonObject:
    """Return the OpenAPI document of an application."""
    document: dict[str, Any] = publish_bounds(copy.deepcopy(api.openapi()))
    components = document["components"]["schemas"]
    for name, schema in components.items():
        _describe_model(name, schema)
    book = SchemaBook(requests=[*_requests.values()], optional=("request_id",), names=_NAMES, open_classes=_OPEN)
    for hint in (*_requests.values(), *_documents.values()):
        book.of(hint)
    assert not components.keys() & book.schemas.keys(), components.keys() & book.schemas.keys()
    components |= book.schemas
    components["CloudEvent"] = CLOUD_EVENT
    components.pop("HTTPValidationError", None)
    components.pop("ValidationError", None)
    document["components"]["schemas"] = dict(sorted(components.items()))
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    for path, method, operation in _operations(document):
        operation["operationId"] = _operation_id(method, path)
        operation["tags"] = [_tag_of(method, path)]
        for parameter in operation.get("parameters", ()):
            text, example = parameter_meaning(parameter["name"])
            parameter.setdefault("description", parameter["schema"].pop("description", text))
            shown = parameter["schema"].pop("examples", parameter["schema"].get("enum", [example]))[0]
            parameter.setdefault("example", shown)
            if parameter["name"] == "If-None-Match":
                operation["responses"]["304"] = {"description": "The client's copy is current; no body."}
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _operation_id(method: str, path: str) -> str:
    """Return the name of an operation, such as ``get_events_position``."""
    return "_".join((method, *re.findall(r"[a-z0-9_]+", path.removeprefix("/api/v1").lower())))


def _tag_of(method: str, path: str) -> str:
    if path.startswith("/schemas"):
        return "server"
    if path.startswith(_SOURCES) and not path.startswith("/api/v1/events/"):
        return "sources"
    if not path.startswith("/api/v1/") or path == "/api/v1/session":
        return "server"
    return "read" if method == "get" else "act"


def _describe_model(name: str, schema: dict[str, Any]) -> None:
    """Add the descriptions and examples that a model of a body lacks."""
    if "description" not in schema:
        schema["description"] = meaning_of("", name.lower())
    for field, one in schema.get("properties", {}).items():
        if "description" not in one:
            one["description"] = meaning_of(name, field)
        example = example_in(name, field)
        kinds = (one, *one.get("anyOf", ()))
        listed = next((part["enum"][0] for part in kinds if "enum" in part), one.get("const"))
        is_money = any(part.get("$ref", "").endswith("/Amount") for part in kinds)
        shown = {"amount": "5.00", "currency": "GBP"} if is_money else listed if listed is not None else example
        one.setdefault("examples", [shown])
    if properties := schema.get("properties"):
        schema["examples"] = [{field: properties[field]["examples"][0] for field in schema.get("required", ())}]
    else:
        schema["examples"] = [*schema.get("enum", ())][:1]


CLOUD_EVENT: JsonObject = {
    "type": "object",
    "description": "A CloudEvent 1.0; `/schemas/events/` has the schema of each type.",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"type": "string", "const": "1.0", "description": "The version of CloudEvents."},
        "id": {"type": "string", **ID_SCHEMA, "description": "The event's id, unique within its source."},
        "source": {"type": "string", **ID_SCHEMA, "description": "The source of the token."},
        "type": {"type": "string", "description": "A type of fact."},
        "time": {
            "type": "string",
            "format": "date-time",
            "description": "The event time. Without it: the time at which the inbox stored the event.",
        },
        "sequence": {
            "anyOf": [{"type": "string"}, {"type": "integer"}],
            "description": "The order of events of one source with the same time.",
        },
        "data": {"type": "object", "description": "The data of the fact.", "additionalProperties": True},
        "data_base64": {"type": "string", "description": "The same JSON in Base64, instead of `data`."},
    },
    "examples": [
        {
            "specversion": "1.0",
            "id": "order-77",
            "source": "shop",
            "type": "resolution.purchase.completed.v1",
            "time": "2026-11-21T10:00:00Z",
            "data": {"order_id": "O-77", "total": {"amount": "12.00", "currency": "GBP"}},
        }
    ],
}
EVENT_BODY: JsonObject = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "Binary mode: the data of the fact; its attributes are `ce-` headers.",
                    "additionalProperties": True,
                }
            },
            "application/cloudevents+json": {"schema": _ref("CloudEvent")},
            "application/cloudevents-batch+json": {
                "schema": {"type": "array", "maxItems": 1000, "items": _ref("CloudEvent")}
            },
        },
    }
}
