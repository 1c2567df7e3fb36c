"""The AsyncAPI document: FastStream's description of the operations, with the schemas of their messages.

FastStream sees bytes, because each message is decoded by hand so that a bad one gets a precise answer. The schemas
come from the classes that decode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import msgspec
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI

from config import topology
from consumers.decisions.pending_request import COMMANDS
from consumers.decisions.service import declare_decisions
from consumers.intake.receipts import ReceiptRequest
from consumers.intake.service import declare_intake
from consumers.projections.service import declare_briefs, declare_views
from domain.command_fields import known_fields
from domain.commands import BriefRequest, NotificationsRequest
from domain.decisions.notices import EscalationNotice
from domain.events.decisions import Reason
from domain.events.facts import FACTS
from domain.ids import ID_SCHEMA
from domain.money import AMOUNT_PATTERN, Money

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from domain.serialization import JsonObject

_REF = "#/components/schemas/{name}"
_OpenObject = dict[str, Any]
"""An object of open shape; msgspec makes a schema of ``Any``, but not of ``object``."""


class Balance(msgspec.Struct):
    """A budget in an answer."""

    holder: str
    period: str
    granted: Money
    spent: Money
    reserved: Money
    remaining: Money


class ErrorDetail(msgspec.Struct):
    """The error of a request that recorded nothing."""

    code: str
    message: str
    field: str | None = None


class Answer(msgspec.Struct):
    """The answer to a decision request; every request gets one."""

    outcome: Literal["taken", "held", "escalate", "refused", "done", "error"]
    action_id: str | None = None
    escalation_id: str | None = None
    position: int | None = None
    policy_version: int | None = None
    reasons: tuple[Reason, ...] = ()
    budget: Balance | None = None
    available: Money | None = None
    error: ErrorDetail | None = None


class KeptNotice(EscalationNotice, frozen=True, kw_only=True):
    """A kept notification, with the sequence by which a listener goes on."""

    seq: int


class NotificationList(msgspec.Struct):
    """Kept notifications: ``next`` is ``after`` of the next request; ``complete``: there are no more now."""

    outcome: Literal["done", "error"]
    items: tuple[KeptNotice, ...] = ()
    next: int | None = None
    complete: bool | None = None
    error: ErrorDetail | None = None


class Brief(msgspec.Struct):
    """The brief for a person that takes over a customer."""

    outcome: Literal["done", "error"]
    position: int | None = None
    agent_id: str | None = None
    customer_id: str | None = None
    household: tuple[str, ...] = ()
    interactions: tuple[_OpenObject, ...] = ()
    actions: tuple[_OpenObject, ...] = ()
    promises: tuple[_OpenObject, ...] = ()
    available: dict[str, Money] = {}
    error: ErrorDetail | None = None


class Receipt(msgspec.Struct):
    """The outcome of an event; ``items`` are receipts of several, by ``ids`` or of a batch."""

    id: str | None = None
    stream: str | None = None
    seq: int | None = None
    status: Literal["recorded", "rejected", "pending", "unknown"] | None = None
    position: int | None = None
    error: ErrorDetail | None = None
    items: tuple[Receipt, ...] = ()


class Checked(msgspec.Struct):
    """The result of a check of an event, without recording it."""

    accepted: bool
    type: str | None = None
    id: str | None = None
    error: ErrorDetail | None = None


class ViewMoved(msgspec.Struct):
    """An update: the position up to which a view has read the log."""

    position: int
    at: str


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
    requests = dict.fromkeys(cls for name in COMMANDS for cls in _classes_of(name))
    answers = (Answer, Receipt, Brief, Checked, ViewMoved, EscalationNotice, NotificationList)
    classes = [*FACTS.values(), *requests, *_QUERIES, *answers]
    _, schemas = msgspec.json.schema_components(classes, schema_hook=_schema_of, ref_template=_REF)
    asked: list[type[msgspec.Struct]] = [*requests, *_QUERIES]
    for cls in asked:
        schemas[cls.__name__] = _closed(schemas[cls.__name__], known_fields(cls))
    named = {"Id": _ID, "Money": _MONEY, "RequestMoney": _REQUEST_MONEY}
    shared = {name: _shared(schema, named) for name, schema in schemas.items()}
    components: _Components = {"messages": {}, "schemas": {**named, **shared, **_facts()}}
    document["channels"] = dict(sorted(document["channels"].items()))
    document["operations"] = dict(sorted(document["operations"].items()))
    for name, channel in document["channels"].items():
        _describe(document, components, name, channel)
    document["components"] = components
    document["servers"] = {"ledger": {"host": "127.0.0.1:4222", "protocol": "nats"}}
    return document


def _describe(document: AsyncApiDocument, components: _Components, name: str, channel: JsonObject) -> None:
    channel["servers"] = [{"$ref": "#/servers/ledger"}]
    channel.pop("bindings", None)
    sent: dict[str, JsonObject]
    if name == "inbox":
        sent = {kind: {"payload": _ref(f"event.{kind}"), "contentType": _CLOUDEVENTS} for kind in FACTS}
    elif name == "check":
        sent = {name: {"payload": {"oneOf": [_ref(f"event.{kind}") for kind in FACTS]}}}
    elif name in COMMANDS:
        one_of = [_ref(cls.__name__) for cls in _classes_of(name)]
        sent = {name: {"payload": one_of[0] if len(one_of) == 1 else {"oneOf": one_of}}}
    else:
        sent = {name: {"payload": _ref(_OTHERS.get(name, "ViewMoved"))}}
    channel["messages"] = {key: {"$ref": f"#/components/messages/{key}"} for key in sent}
    components["messages"].update({key: {"name": key, **message} for key, message in sent.items()})
    operation = document["operations"][name]
    operation["messages"] = [{"$ref": f"#/channels/{name}/messages/{key}"} for key in sent]
    if name in COMMANDS or name in _REPLIES:
        reply = _REPLIES.get(name, "Answer")
        components["messages"][f"{name}.reply"] = {"name": f"{name}.reply", "payload": _ref(reply)}
        operation["reply"] = {
            "address": {"location": "$message.header#/reply"},
            "messages": [{"$ref": f"#/components/messages/{name}.reply"}],
        }


def _classes_of(name: str) -> list[type[msgspec.Struct]]:
    wanted = COMMANDS[name]
    return [wanted] if isinstance(wanted, type) else list(dict.fromkeys(wanted.values()))


_QUERIES = (ReceiptRequest, BriefRequest, NotificationsRequest)
_OTHERS = {
    "receipt": "ReceiptRequest",
    "brief": "BriefRequest",
    "notifications": "NotificationsRequest",
    "escalation_notice": "EscalationNotice",
}
_REPLIES = {"receipt": "Receipt", "brief": "Brief", "check": "Checked", "notifications": "NotificationList"}
_CLOUDEVENTS = "application/cloudevents+json"


_ID: JsonObject = {"type": "string", **ID_SCHEMA}
_MONEY: JsonObject = {
    "type": "object",
    "required": ["amount", "currency"],
    "properties": {
        "amount": {"type": "string", "pattern": f"^{AMOUNT_PATTERN.pattern}$"},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
    },
}
_BASE64 = {"type": "string", "description": "The same JSON in Base64, instead of `data`."}
_REQUEST_MONEY = _MONEY | {"additionalProperties": False}


def _closed(schema: JsonObject, known: Collection[str]) -> JsonObject:
    """Return a request's schema without unknown fields, also in its amounts of money."""
    fields = cast("JsonObject", schema["properties"])
    properties = {name: _in_requests(one) for name, one in fields.items() if name in known}
    return schema | {"properties": properties, "additionalProperties": False}


def _in_requests(schema: object) -> object:
    if schema == _MONEY:
        return _REQUEST_MONEY
    if isinstance(schema, dict) and "anyOf" in schema:
        return schema | {"anyOf": [_in_requests(one) for one in schema["anyOf"]]}
    return schema


def _shared(schema: object, named: Mapping[str, object]) -> object:
    """Return a schema with references in place of the named schemas."""
    for name, one in named.items():
        if schema == one:
            return _ref(name)
    if isinstance(schema, dict):
        return {key: _shared(value, named) for key, value in schema.items()}
    return [_shared(one, named) for one in schema] if isinstance(schema, list) else schema


def _facts() -> JsonObject:
    """Return the schema of a CloudEvent for each type of fact."""
    return {
        f"event.{name}": {
            "type": "object",
            "required": ["specversion", "id", "source", "type"],
            "properties": {
                "specversion": {"const": "1.0"},
                "id": _ref("Id"),
                "source": _ref("Id"),
                "type": {"const": name},
                "time": {
                    "type": "string",
                    "format": "date-time",
                    "description": "Event time. Without it: the time at which the inbox stored the event.",
                },
                "sequence": {
                    "type": ["string", "integer"],
                    "description": "The order of events of one source with the same time.",
                },
            },
            "oneOf": [
                {"required": ["data"], "properties": {"data": _ref(cls.__name__)}},
                {"required": ["data_base64"], "properties": {"data_base64": _BASE64}},
            ],
        }
        for name, cls in FACTS.items()
    }


def _ref(name: str) -> JsonObject:
    return {"$ref": _REF.format(name=name)}


def _schema_of(wanted: type) -> JsonObject:
    if wanted is Money:
        return _MONEY
    message = f"no schema for {wanted}"
    raise NotImplementedError(message)  # msgspec expects this from its hooks for unknown types
