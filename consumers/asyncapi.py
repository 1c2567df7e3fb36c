"""The AsyncAPI document: FastStream's description of the operations, with the schemas of their messages.

FastStream sees bytes, because each message is decoded by hand so that a bad one gets a precise answer. The schemas
come from the classes that decode.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypedDict, cast

from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI

from config import topology
from consumers.decisions.pending_request import COMMANDS
from consumers.decisions.service import declare_decisions
from consumers.intake.service import declare_intake
from consumers.projections.service import declare_briefs, declare_views
from domain.documents import replies
from domain.events.facts import FACTS
from projections.json_schemas import SchemaBook
from projections.published_schemas import NAMES, REQUESTS, fill

if TYPE_CHECKING:
    import msgspec

    from domain.serialization import JsonObject


class _Components(TypedDict):
    messages: dict[str, JsonObject]
    schemas: JsonObject


class AsyncApiDocument(TypedDict):
    """The parts of an AsyncAPI document that are completed here; FastStream sets the others."""

    channels: dict[str, JsonObject]
    operations: dict[str, JsonObject]
    components: _Components
    servers: JsonObject


def asyncapi_document() -> AsyncApiDocument:
    """Return the AsyncAPI 3.0 document of all messages that sources may publish, request and subscribe to."""
    broker = NatsBroker(logger=None)
    declare_intake(broker, None)
    declare_decisions(broker, None, fast=True)
    declare_views(broker)
    declare_briefs(broker, None)
    broker.publisher(
        f"{topology.ESCALATION_SUBJECT}.*",
        title="escalation_notice",
        description="A step of an escalation, to the source that filed it. Kept for seven days.",
    )
    document = cast(
        "AsyncApiDocument",
        AsyncAPI(
            broker,
            title="Resolution Ledger",
            version="1",
            description="An event-sourced ledger of remedies for customers.",
        )
        .to_specification()
        .to_jsonable(),
    )
    book = SchemaBook(requests=REQUESTS, names=NAMES, facts=FACTS.values())
    fill(book, FACTS)
    components: _Components = {"messages": {}, "schemas": dict(sorted(book.schemas.items()))}
    document["channels"] = dict(sorted(document["channels"].items()))
    document["operations"] = dict(sorted(document["operations"].items()))
    for name, channel in document["channels"].items():
        _describe(document, components, name, channel)
    document["components"] = components | {"securitySchemes": _SECURITY}  # type: ignore[typeddict-item]
    document["servers"] = {"ledger": _SERVER}
    return document


def asyncapi_text() -> str:
    """Return the AsyncAPI document as JSON text; each channel, operation, message and schema has a line of its own."""
    return _lines(asyncapi_document(), 3) + "\n"


def _lines(value: object, depth: int, indent: str = "") -> str:
    if depth == 0 or not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = f"{indent} "
    parts = (f"{inner}{json.dumps(name)}: {_lines(one, depth - 1, inner)}" for name, one in value.items())
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"


_SECURITY: JsonObject = {
    "sourceUser": {"type": "userPassword", "description": "The user of the source, in `sources/<source>.json`."},
    "credentials": {
        "type": "X509",
        "description": "A credentials file, an nkey or a certificate, as the operator gives.",
    },
}
_SERVER: JsonObject = {
    "host": "127.0.0.1:4222",
    "protocol": "nats",
    "description": "The NATS server of the ledger; `connection.json` has its address.",
    "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY],
}
_SOURCE: JsonObject = {
    "description": "The subject token of the source: its UTF-8 bytes, those outside A-Za-z0-9_-:~ percent-encoded.",
    "examples": ["crm"],
}
_TRACEPARENT: JsonObject = {
    "type": "string",
    "description": "The sender's trace (W3C Trace Context); an invalid one is ignored.",
    "examples": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
}
_REQUEST_HEADERS: JsonObject = {"type": "object", "properties": {"traceparent": _TRACEPARENT}}
_HEADERS: JsonObject = {
    "type": "object",
    "properties": {
        "Content-Type": {
            "type": "string",
            "description": "The content mode of CloudEvents; without it the structured mode.",
            "examples": ["application/cloudevents+json"],
        },
        "Nats-Msg-Id": {
            "type": "string",
            "description": "The server drops a second message with this id within two minutes.",
            "examples": ["case-17-opened"],
        },
        "traceparent": _TRACEPARENT,
    },
}


def _describe(document: AsyncApiDocument, components: _Components, name: str, channel: JsonObject) -> None:
    if "*" in str(channel["address"]):
        channel["address"] = str(channel["address"]).replace("*", "{source}")
        channel["parameters"] = {"source": _SOURCE}
    channel["servers"] = [{"$ref": "#/servers/ledger"}]
    channel.pop("bindings", None)
    sent = _messages_of(name)
    channel["messages"] = {key: {"$ref": f"#/components/messages/{key}"} for key in sent}
    operation = document["operations"][name]
    operation["messages"] = [{"$ref": f"#/channels/{name}/messages/{key}"} for key in sent]
    operation["bindings"] = {"nats": {"bindingVersion": "0.1.0"}}
    for key, payload in sent.items():
        message: JsonObject = {"name": key, "contentType": "application/json", "payload": payload}
        if name == "inbox":
            message |= {"contentType": _CLOUDEVENTS, "headers": _HEADERS}
        elif name in COMMANDS or name in _REPLIES:
            message["headers"] = _REQUEST_HEADERS
        components["messages"][key] = message | _examples_of(components, payload)
    if name in COMMANDS or name in _REPLIES:
        answer = _REPLIES.get(name) or replies.ANSWERS[name].__name__
        reply: JsonObject = {"name": f"{name}.reply", "contentType": "application/json", "payload": _ref(answer)}
        components["messages"][f"{name}.reply"] = reply | _examples_of(components, _ref(answer))
        channel["messages"] = {key: {"$ref": f"#/components/messages/{key}"} for key in (*sent, f"{name}.reply")}
        operation["reply"] = {
            "address": {"location": "$message.header#/reply"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{name}.reply"}],
        }


def _messages_of(name: str) -> dict[str, JsonObject]:
    """Return the payload of each message of a channel, by the message's name."""
    if name == "inbox":
        return {kind: _ref(f"event.{kind}") for kind in FACTS}
    if name == "check":
        return {name: {"oneOf": [_ref(f"event.{kind}") for kind in FACTS]}}
    if name in COMMANDS:
        one_of = [_ref(NAMES.get(cls, cls.__name__)) for cls in _classes_of(name)]
        return {name: one_of[0] if len(one_of) == 1 else {"oneOf": one_of}}
    return {name: _ref(_OTHERS.get(name, "ViewMoved"))}


def _examples_of(components: _Components, payload: JsonObject) -> JsonObject:
    """Return the examples of a message: those of its schemas."""
    refs = (payload.get("oneOf") or [payload])[:3]  # type: ignore[index] # a list
    assert isinstance(refs, list)
    schemas = [components["schemas"][str(one["$ref"]).rpartition("/")[2]] for one in refs]
    found = [schema["examples"][0] for schema in schemas if isinstance(schema, dict) and schema.get("examples")]
    return {"examples": [{"payload": one} for one in found if isinstance(one, dict)]}


def _classes_of(name: str) -> list[type[msgspec.Struct]]:
    wanted = COMMANDS[name]
    return [wanted] if isinstance(wanted, type) else list(dict.fromkeys(wanted.values()))


_OTHERS = {
    "receipt": "ReceiptRequest",
    "brief": "BriefRequest",
    "notifications": "NotificationsRequest",
    "escalation_notice": "EscalationNotice",
}
_REPLIES = {"receipt": "EventOutcome", "brief": "Brief", "check": "Checked", "notifications": "NotificationList"}
_CLOUDEVENTS = "application/cloudevents+json"


def _ref(name: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{name}"}
