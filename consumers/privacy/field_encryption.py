"""The encryption of personal data in facts and requests, with the key of its person, before it is recorded.

The personal data of a fact are the data fields that are marked as personal or unknown, and the attributes that are
neither required nor in ``NON_PERSONAL_ATTRIBUTES``.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

import msgspec

from consumers.runtime.source_tokens import read_token
from domain.events.facts import FACTS
from domain.serialization import personal_fields
from ledger.store.cloudevents import NON_PERSONAL_ATTRIBUTES, REQUIRED, stored_decoder
from ledger.store.duplicate_events import content_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumers.intake.validation import Accepted
    from ledger.encryption.keyring import Key, Keyring

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_OWNERS = (
    ("customer_id", "customer"),
    ("interaction_id", "interaction"),
    ("employee_id", "employee"),
    ("answered_by", "employee"),
)
_NOTE, _ESCAPED = b'"note', b"\\u00"
_NOTES = "ledger:notes"
_PERSONAL_IN_RECORDS = frozenset({"note", "text"})
_OPEN = frozenset(REQUIRED) | NON_PERSONAL_ATTRIBUTES | {"time", "timeassumed"}
"""Members of an event that are never encrypted as attributes."""


@lru_cache(maxsize=256)
def _open_fields(cls: type[msgspec.Struct]) -> frozenset[str]:
    """Return the fields of a class that are not personal."""
    return frozenset(cls.__struct_fields__) - personal_fields(cls)


def is_personal(type_name: str, fields: Iterable[str], attributes: Iterable[str] = ()) -> bool:
    """Return whether a fact with these fields and attributes has personal data."""
    return not (_OPEN.issuperset(attributes) and _open_fields(FACTS[type_name]).issuperset(fields))


def owner_of(fields: Mapping[str, object], source: str) -> str:
    """Return the owner of the key: the customer, else the interaction, the employee, or the source."""
    for field, kind in _OWNERS:
        value = fields.get(field)
        if isinstance(value, msgspec.Raw):
            value = msgspec.json.decode(value)
        if isinstance(value, str):
            return f"{kind}:{value}"
    return f"source:{source}"


async def encrypt_facts(keys: Keyring, facts: Sequence[Accepted]) -> list[Accepted]:
    """Return the facts with their personal data encrypted, and with the content hash of that form."""
    events = [_fields.decode(fact.json) if fact.personal else None for fact in facts]
    data = [_fields.decode(event["data"]) if event is not None else {} for event in events]
    owners = [
        owner_of(fields, fact.source) if event is not None else ""
        for fact, event, fields in zip(facts, events, data, strict=True)
    ]
    known = await keys.ensure({owner for owner in owners if owner})
    return [
        fact if event is None else _encrypted(fact, event, fields, known[owner])
        for fact, event, fields, owner in zip(facts, events, data, owners, strict=True)
    ]


def _encrypted(fact: Accepted, event: dict[str, msgspec.Raw], fields: dict[str, msgspec.Raw], key: Key) -> Accepted:
    event["data"] = _raw(encrypted_fields(fields, FACTS[fact.type], key, f"{fact.source}\x00{fact.id}"))
    if fact.corrects is None:  # the key of a correction is known only with its original
        _encrypt_attributes(event, key)
    json = _encoder.encode(event)
    return fact._replace(json=json, content=content_hash(json))


def _encrypt_attributes(event: dict[str, msgspec.Raw], key: Key) -> None:
    """Encrypt the personal attributes of an event."""
    if _OPEN.issuperset(event):
        return
    named = (msgspec.json.decode(event[name], type=str) for name in ("source", "id"))
    context = "\x00".join(named)
    for name in event.keys() - _OPEN:
        event[name] = _raw(key.encrypt(bytes(event[name]), f"{context}\x00\x00{name}"))


def encrypted_fields(
    fields: Mapping[str, msgspec.Raw], cls: type[msgspec.Struct], key: Key, context: str
) -> dict[str, object]:
    """Return fields with the personal ones encrypted; null stays null."""
    keep = _open_fields(cls)
    return {
        name: value if name in keep or bytes(value) == b"null" else key.encrypt(bytes(value), f"{context}\x00{name}")
        for name, value in fields.items()
    }


async def encrypt_correction(keys: Keyring, fact: Accepted, original: bytes) -> Accepted:
    """Return a correction with its personal data encrypted.

    ``original`` is the stored fact that it corrects; its type tells the personal fields of the corrected data. The
    attributes are encrypted with the same key, or without corrected data, with the key of the original's person.
    """
    event, stored = _fields.decode(fact.json), stored_decoder.decode(original)
    outer = dict(_fields.decode(event["data"]))
    inner = None if bytes(outer["data"]) == b"null" else _fields.decode(outer["data"])
    if inner is None and _OPEN.issuperset(event):
        return fact
    owner = owner_of(_fields.decode(stored.data) if inner is None else inner, fact.source)
    key = (await keys.ensure([owner]))[owner]
    if inner is not None:
        outer["data"] = _raw(encrypted_fields(inner, FACTS[stored.type], key, f"{fact.source}\x00{fact.id}\x00data"))
        event["data"] = _raw(outer)
    _encrypt_attributes(event, key)
    json = _encoder.encode(event)
    return fact._replace(json=json, content=content_hash(json))


def encrypted_texts(stored: bytes) -> list[bytes]:
    """Return the encrypted values of a stored event: those at the places of personal data.

    Values elsewhere may look encrypted, because senders choose ids.
    """
    try:
        event = _fields.decode(stored)
        fields = _fields.decode(event["data"])
        fact = FACTS.get(msgspec.json.decode(event["type"], type=str))
    except (msgspec.MsgspecError, KeyError, RecursionError):  # the log is damaged, which other checks report
        return []
    if fact is None:
        return [bytes(fields[name]) for name in _PERSONAL_IN_RECORDS & fields.keys()]
    values = [event[name] for name in event.keys() - _OPEN - {"recordedtime", "corrects"}]
    values += [value for name, value in fields.items() if name not in _open_fields(fact)]
    if "corrects" in event and bytes(fields["data"]) != b"null":
        values += [value for name, value in _fields.decode(fields["data"]).items() if name not in _open_somewhere()]
    return [bytes(value) for value in values]


@cache
def _open_somewhere() -> frozenset[str]:
    """Return the names of fields that are not personal in at least one fact."""
    return frozenset().union(*map(_open_fields, FACTS.values()))


def may_have_note(body: bytes) -> bool:
    """Return whether a request may hold personal text; JSON may write the letters of ``note`` as escapes."""
    return _NOTE in body or _ESCAPED in body


async def encrypt_request(keys: Keyring, token: str, body: bytes) -> bytes:
    """Return a request with its note or text encrypted; unchanged where it has none or is invalid."""
    source = read_token(token).source
    try:
        fields = dict(_fields.decode(body))
        name = "text" if "text" in fields else "note"
        note, request_id = (msgspec.json.decode(fields.get(one, b"null")) for one in (name, "request_id"))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return body
    fields.pop("note_hash", None)
    if not isinstance(note, str) or not isinstance(request_id, str):
        return _encoder.encode(fields)
    try:
        owner = owner_of(fields, source)
        found = await keys.ensure([owner, _NOTES])
        key = found[owner]
    except (msgspec.MsgspecError, UnicodeError):  # the later check of the request reports the fault
        return body
    fields["note_hash"] = _raw(found[_NOTES].hash_of(normal_form(note)))
    fields[name] = _raw(key.encrypt(_encoder.encode(note), f"{source}\x00{request_id}\x00{name}"))
    return _encoder.encode(fields)


def normal_form(note: str) -> str:
    """Return a note without case, digits, extra spaces and punctuation, so that copies of a note are equal."""
    return " ".join("".join(c if c.isalpha() else " " for c in note.casefold()).split())


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(value))
