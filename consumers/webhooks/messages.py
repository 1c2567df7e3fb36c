"""Messages of webhooks: a CloudEvent, and its form for a chat, a mail or a program."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from config import topology
from domain.serialization import JsonObject
from domain.webhooks import ESCALATION_STEP, THIN_BUDGET
from ledger.encryption.keyring import ENCRYPTED_FIELD
from projections.webhooks import Feed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from domain.serialization import Json
    from domain.webhooks import BodyFormat
    from ledger.encryption.keyring import Keyring

_NAMES = ("about", "subject", "explanation")
"""Fields of flags and cases that name people."""
_ABOUT_PEOPLE = ("resolution.flag.", "resolution.case.")
_IDS = ("interaction_id", "order_id", "action_id", "customer_id", "employee_id", "agent_id")
_TEAMS_SCHEMA = "http://adaptivecards.io/schemas/adaptive-card.json"


class WebhookMessage(NamedTuple):
    """A message to deliver: its feed and place there, the subject whose messages keep their order, and the event."""

    feed: Feed
    position: int
    subject: str
    event: JsonObject
    """A CloudEvent in structured form."""

    @property
    def type(self) -> str:
        """The event's type."""
        return str(self.event["type"])

    def id_for(self, webhook: str) -> str:
        """Return the `webhook-id`: the same at each attempt, so that a receiver recognises a duplicate."""
        name = f"{webhook}\0{self.event['source']}\0{self.event['id']}"
        return f"msg_{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"


async def event_message(data: bytes, position: int, stream: str, keys: Keyring, *, personal: bool) -> WebhookMessage:
    """Return the message of a recorded event; without ``personal``, personal fields are left out.

    ``stream`` is its subject in the log.
    """
    event = msgspec.json.decode(await keys.decrypt_fields(data) if personal else data, type=dict[str, object])
    if not personal:
        event = cast("JsonObject", _without_personal(event))
        if str(event["type"]).startswith(_ABOUT_PEOPLE) and isinstance(fields := event["data"], dict):
            event["data"] = {name: value for name, value in fields.items() if name not in _NAMES}
    return WebhookMessage("events", position, _order_key(event, stream), {**event, "position": position})


def _order_key(event: JsonObject, stream: str) -> str:
    """Return the subject whose messages keep their order.

    The log has one stream for all facts of a source, so a fact's is its `subject`, or else the first id in its data.
    """
    if not stream.startswith(f"{topology.FACT_SUBJECT}."):
        return stream
    data = event["data"]
    fields = data if isinstance(data, dict) else {}
    named = event.get("subject") or next((fields[name] for name in _IDS if name in fields), "")
    return f"{event['source']} {named}"


def _without_personal(value: Json) -> Json:
    """Return a JSON value without its encrypted fields."""
    match value:
        case dict():
            return {name: _without_personal(one) for name, one in value.items() if not _is_encrypted(one)}
        case list():
            return [_without_personal(one) for one in value if not _is_encrypted(one)]
    return value


def _is_encrypted(value: Json) -> bool:
    return (
        isinstance(value, str)
        and value.startswith("sealed:")
        and ENCRYPTED_FIELD.fullmatch(f'"{value}"'.encode()) is not None
    )


class Body(NamedTuple):
    """A request's body and its media type."""

    media_type: str
    content: bytes


def body_of(event: JsonObject, body: BodyFormat) -> Body:
    """Return an event in the form that a subscriber asked for."""
    if body == "cloudevents":
        return Body("application/cloudevents+json", msgspec.json.encode(event))
    sentence = sentence_of(event)
    match body:
        case "slack":
            escaped = sentence.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            return Body("application/json", msgspec.json.encode({"text": escaped}))
        case "teams":
            card = {
                "$schema": _TEAMS_SCHEMA,
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [{"type": "TextBlock", "text": sentence, "wrap": True}],
            }
            attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
            return Body("application/json", msgspec.json.encode({"type": "message", "attachments": [attachment]}))
        case "text":
            return Body("text/plain; charset=utf-8", sentence.encode())


def sentence_of(event: JsonObject) -> str:
    """Return an event as one sentence for people."""
    data = event["data"]
    fields: Mapping[str, Json] = data if isinstance(data, dict) else {}
    say = _SENTENCES.get(str(event["type"]))
    if say is not None:
        return say(fields)
    place = f" at position {event['position']}" if "position" in event else ""
    return f"{event['type']} was recorded{place}."


def _money(value: Json) -> str:
    return f"{value.get('amount')} {value.get('currency')}" if isinstance(value, dict) else "an unknown amount"


def _people(value: Json) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) and value else "nobody"


def _escalation(step: Mapping[str, Json]) -> str:
    name, amount = f"Escalation {step['escalation_id']}", _money(step.get("amount"))
    reason = f" Reason: {step['reason']}." if step.get("reason") else ""
    match step.get("status"):
        case "requested":
            due = f", due {step['due']}" if "due" in step else ""
            return (
                f"{name}: {step['requested_by']} asks for {amount}. To decide: {_people(step.get('to'))}{due}.{reason}"
            )
        case "approved":
            asked = f" of {_money(step['asked'])} asked for" if "asked" in step else ""
            return f"{name}: {amount}{asked} approved by {step.get('decided_by')}.{reason}"
        case "forwarded":
            return f"{name} over {amount} was forwarded to {_people(step.get('to'))}.{reason}"
        case status:
            by = f" by {step['decided_by']}" if step.get("decided_by") else ""
            return f"{name} over {amount}: {status}{by}.{reason}"


def _thin_budget(budget: Mapping[str, Json]) -> str:
    left, granted = _money(budget["remaining"]), _money(budget["granted"])
    return f"The budget of {budget['holder']} for {budget['period']} has {left} of {granted} left."


def _opened_case(case: Mapping[str, Json]) -> str:
    loss = f" Expected loss: {_money(case['expected_loss'])}." if "expected_loss" in case else ""
    about = f" It concerns {case['subject']}." if "subject" in case else ""
    rules = f" Rules: {_people(case['rules'])}." if case.get("rules") else ""
    return f"Case {case['case_id']} waits for a review.{about}{rules}{loss}"


_SENTENCES: Mapping[str, Callable[[Mapping[str, Json]], str]] = {
    ESCALATION_STEP: _escalation,
    THIN_BUDGET: _thin_budget,
    "resolution.case.opened.v1": _opened_case,
}
