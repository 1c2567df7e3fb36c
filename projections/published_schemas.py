"""The published JSON Schemas: of each type of event, and of each request and answer, as documents of their own.

A schema has a stable path: `events/<type>.json` for the CloudEvents of a type, `messages/<Class>.json` for a request or
an answer. Over HTTP the paths are below `/schemas/`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from domain import commands
from domain.decisions.notices import EscalationNotice
from domain.documents import replies
from domain.events.decisions import LEDGER_SOURCE, RECORDS
from domain.events.facts import FACTS
from domain.ids import ID_SCHEMA
from domain.serialization import JsonObject, encode
from projections.json_schemas import DIALECT, SchemaBook, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from domain.serialization import Json

NAMES: Final[dict[type, str]] = {commands.Preview: "PreviewRequest"}
"""Schemas with another name than their class."""
REQUESTS: Final[tuple[type, ...]] = (
    commands.ActionRequest,
    commands.Preview,
    commands.HoldRequest,
    commands.ReversalRequest,
    commands.EscalationAsk,
    commands.EscalationDecision,
    commands.GrantRequest,
    commands.TransferRequest,
    commands.FlagRequest,
    commands.PolicyRequest,
    commands.PolicyProposal,
    commands.PolicyApproval,
    commands.PolicyObjection,
    commands.ReceiptRequest,
    commands.BriefRequest,
    commands.NotificationsRequest,
)
ANSWERS: Final[tuple[type, ...]] = (
    *replies.ANSWERS.values(),
    replies.EventOutcome,
    replies.Brief,
    replies.Checked,
    replies.NotificationList,
    EscalationNotice,
    replies.ViewMoved,
)
_REFERENCE = re.compile(rb'"#/\$defs/([^"]+)"')
_BASE64 = {"type": "string", "description": "The same JSON in Base64, instead of `data`.", "examples": ["e30="]}
_TIME: JsonObject = {
    "type": "string",
    "format": "date-time",
    "description": "The event time. Without it: the time at which the inbox stored the event.",
    "examples": ["2026-11-21T10:00:00Z"],
}
_RECORDED_TIME = _TIME | {"description": "The time when the ledger recorded the event; it never decreases."}
_SEQUENCE: JsonObject = {
    "type": ["string", "integer"],
    "description": "The order of events of one source with the same time.",
    "examples": ["17"],
}


def fill(book: SchemaBook, events: Mapping[str, type]) -> None:
    """Add the schemas of events, and of all requests and answers, to a book."""
    for cls in (*REQUESTS, *ANSWERS):
        book.of(cls)
    for name, event in events.items():
        book.add(f"event.{name}", event_schema(book, name, event))


def event_schema(book: SchemaBook, name: str, cls: type) -> JsonObject:
    """Return the schema of the CloudEvents of one type."""
    data, is_fact = book.of(cls), name in FACTS
    example = book.schemas[name_of(cls)]["examples"]
    identifier: JsonObject = {"type": "string", **ID_SCHEMA} if is_fact else {"type": "string"}
    properties: dict[str, Json] = {
        "specversion": {"const": "1.0", "description": "The version of CloudEvents.", "examples": ["1.0"]},
        "id": identifier | {"description": "The event's id, unique within its source.", "examples": ["case-17"]},
        "source": identifier | {"description": "The system that the event comes from.", "examples": ["crm"]},
        "type": {"const": name, "description": "The type of the event.", "examples": [name]},
        "time": _TIME,
        "sequence": _SEQUENCE,
    }
    if not is_fact:
        properties |= {"source": {"const": LEDGER_SOURCE, "description": "The ledger.", "examples": [LEDGER_SOURCE]}}
        properties |= {"recordedtime": _RECORDED_TIME}
    schema: JsonObject = {
        "type": "object",
        "description": str(book.schemas[name_of(cls)]["description"]),
        "required": ["specversion", "id", "source", "type"],
        "properties": properties,
    }
    by_data: JsonObject = {"required": ["data"], "properties": {"data": data}}
    schema |= {"oneOf": [by_data, {"required": ["data_base64"], "properties": {"data_base64": _BASE64}}]}
    source = "crm" if is_fact else LEDGER_SOURCE
    shown = {"specversion": "1.0", "id": "case-17", "source": source, "type": name, "time": "2026-11-21T10:00:00Z"}
    assert isinstance(example, list)
    return schema | {"examples": [shown | {"data": example[0]}]}


@cache
def _definitions() -> dict[str, JsonObject]:
    book = SchemaBook("#/$defs/{}", requests=REQUESTS, names=NAMES, facts=FACTS.values())
    fill(book, {**FACTS, **RECORDS})
    return book.schemas


@cache
def schema_paths() -> dict[str, str]:
    """Return the name of each published schema by its path."""
    found = {f"events/{name}.json": f"event.{name}" for name in (*FACTS, *RECORDS)}
    classes = (NAMES.get(cls, cls.__name__) for cls in (*REQUESTS, *ANSWERS))
    return found | {f"messages/{name}.json": name for name in classes}


@cache
def published_schema(path: str) -> JsonObject:
    """Return the schema at a path, such as `events/resolution.purchase.completed.v1.json`, complete in itself.

    Raises:
        KeyError: no schema has this path.

    """
    name, known = schema_paths()[path], _definitions()
    needed, waiting = dict[str, JsonObject](), [name]
    while waiting:
        one = waiting.pop()
        if one not in needed:
            needed[one] = known[one]
            waiting += [found.decode() for found in _REFERENCE.findall(encode(known[one]))]
    root = known[name]
    if encode(f"#/$defs/{name}") in encode(needed):  # it contains itself
        root = {part: root[part] for part in ("description", "examples")} | {"$ref": f"#/$defs/{name}"}
    else:
        del needed[name]
    head: JsonObject = {"$schema": DIALECT, "$id": f"/schemas/{path}", "title": name.removeprefix("event.")}
    return head | root | {"$defs": dict(sorted(needed.items()))}


def json_schema(name: str) -> JsonObject:
    """Return the JSON Schema of an event type, or of a request or an answer by its class's name.

    Example: ``json_schema("resolution.purchase.completed.v1")``, ``json_schema("ActionRequest")``.

    Raises:
        KeyError: no such schema is published; ``schema_paths`` lists them.

    """
    return published_schema(f"{'events' if name.startswith('resolution.') else 'messages'}/{name}.json")
