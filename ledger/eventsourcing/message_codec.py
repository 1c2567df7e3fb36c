"""Stored events of the `eventsourcing` library as messages: CloudEvents 1.0, JSON, structured mode.

``type`` is the library's topic, ``subject`` the originator's id, ``originatorversion`` its version. The state is in
``data`` if it is a JSON object, as the library's default transcoder writes it. Any other state (compressed, encrypted,
another transcoder's) is in ``data_base64``. Both keep every byte.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from eventsourcing.persistence import DataError, Notification, StoredEvent

from ledger.store.subject_tokens import token_of_id

if TYPE_CHECKING:
    from ledger.store.log import Recorded

_MAX_TOKEN = 512
"""Characters. The whole subject must fit into one line of the protocol, 4 KiB."""
_MIN_VERSION, _MAX_VERSION = -(2**63), 2**63 - 1


class _Message(msgspec.Struct, omit_defaults=True, gc=False):
    specversion: str
    id: str
    source: str
    type: str
    subject: str
    originatorversion: int
    originatoridtype: str = "text"
    outoforder: bool = False
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: bytes = b""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode
_skip = msgspec.json.Decoder(msgspec.Raw).decode


@lru_cache(maxsize=100_000)
def originator_token(originator_id: UUID | str) -> str:
    """Return the subject token of an id. A UUID and its text name the same sequence.

    Raises:
        DataError: the id cannot be encoded in UTF-8 (a lone surrogate).
    """
    text = str(originator_id)
    try:
        token = token_of_id(text)
    except UnicodeEncodeError as error:
        raise DataError(f"originator_id {text!a} cannot be written in UTF-8: {error.reason}") from None
    if 0 < len(token) <= _MAX_TOKEN:
        return token
    # Percent-encoding never produces "%s" or a single "%", so that these differ from every other id's token.
    return "%sha256-" + hashlib.sha256(text.encode()).hexdigest() if token else "%"


def to_message(event: StoredEvent, identifier: str, source: str, *, out_of_order: bool) -> bytes:
    """Return the message of a stored event; ``identifier`` is its unique id.

    Raises:
        DataError: its topic cannot be encoded in UTF-8, or its version exceeds 64 bits.
    """
    if not _MIN_VERSION <= event.originator_version <= _MAX_VERSION:
        raise DataError(f"originator_version {event.originator_version} does not fit into 64 bits")
    message = _Message(
        "1.0",
        identifier,
        source,
        event.topic,
        str(event.originator_id),
        event.originator_version,
        "uuid" if isinstance(event.originator_id, UUID) else "text",
        out_of_order,
    )
    if _is_json_object(event.state):
        message.data = msgspec.Raw(event.state)
    else:
        message.data_base64 = event.state
    try:
        return _encode(message)
    except UnicodeEncodeError as error:
        raise DataError(f"topic {event.topic!a} cannot be written in UTF-8: {error.reason}") from None


def _is_json_object(state: bytes) -> bool:
    if not (state.startswith(b"{") and state.endswith(b"}")):
        return False
    try:
        state.decode()
        _skip(state)
    except ValueError:
        return False
    return True


def is_out_of_order(recorded: Recorded) -> bool:
    """Return whether an earlier message of the sequence has a higher version."""
    return _decode(recorded.data).outoforder


def to_stored(recorded: Recorded) -> StoredEvent:
    """Return the stored event in a message, unchanged."""
    message = _decode(recorded.data)
    return StoredEvent(
        _id_of(message), message.originatorversion, message.type, bytes(message.data) or message.data_base64
    )


def to_notification(recorded: Recorded) -> Notification:
    """Return the stored event in a message, with its position."""
    message = _decode(recorded.data)
    return Notification(
        _id_of(message),
        message.originatorversion,
        message.type,
        bytes(message.data) or message.data_base64,
        recorded.position,
    )


def _id_of(message: _Message) -> UUID | str:
    return _uuid(message.subject) if message.originatoridtype == "uuid" else message.subject


_uuid = lru_cache(maxsize=10_000)(UUID)
