"""From JSON to typed immutable records and back, with errors that name the field."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, get_args, get_type_hints

import msgspec

from domain.money import Money, MoneyError, money_from_wire, wire_of

_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_EMAIL = r"[^@\s]+@[^@\s]+\.[^@\s]+"
_TELEPHONE = (
    r"\+[0-9][0-9 ().-]{5,}"  # +44 7700 900123
    r"|0[1-9][0-9]{8,9}"  # 07700900123
    r"|\(?0[0-9]{1,5}\)?([ -][0-9]{2,}){1,4}"  # (020) 7946 0958
    r"|\(?[0-9]{3}\)?[ .-]?[0-9]{3}[.-][0-9]{4}"  # 555-123-4567
)
ID_PATTERN = rf"^(?!({_EMAIL})\Z)(?!({_TELEPHONE})\Z)[^{_CONTROL}]{{1,128}}\Z"
ID_RULE = (
    "an id is 1 to 128 characters without control characters or line separators, and opaque: "
    "not an e-mail address or telephone number"
)

is_id = re.compile(ID_PATTERN).search
"""Whether a text is an id (a match, or nothing)."""
Id = Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
"""An opaque identifier (contract: Events)."""
Personal = Annotated[str, msgspec.Meta(extra={"personal": True})]
"""Text that may say something about a person: encrypted before it is recorded (ledger.keys)."""

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment, RFC 3339 with its zone."""


@lru_cache(maxsize=256)
def personal_fields(cls: type[msgspec.Struct]) -> frozenset[str]:
    """The fields of a class that are marked as personal."""
    hints = get_type_hints(cls, include_extras=True)
    return frozenset(name for name, hint in hints.items() if Personal in (hint, *get_args(hint)))


_AT = re.compile(r"(?s)(.*?)(?: - at `(?:key in )?(\$[^`]*)`)?\Z")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")


class FieldError(ValueError):
    """Data that does not fit its type. ``field`` is the path, e.g. ``data.total.amount``."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


def _from_wire(wanted: type, value: Any) -> Any:
    if wanted is Money:
        try:
            return money_from_wire(value)
        except MoneyError as error:  # the field rides along: msgspec keeps only the text
            suffix = f"|{error.field}" if error.field else ""
            message = f"{error}{suffix}"
            raise ValueError(message) from None
    message = f"no wire form for {wanted}"
    raise NotImplementedError(message)  # what msgspec asks of its hooks for a type they do not know


_raw_money: dict[tuple[int, str], msgspec.Raw] = {}
_REMEMBERED = 65_536


def raw_of(minor: int, currency: str) -> msgspec.Raw:
    """Money in its JSON form, as text; what was asked for lately is remembered."""
    raw = _raw_money.get((minor, currency))
    if raw is None:
        if len(_raw_money) > _REMEMBERED:
            _raw_money.clear()
        raw = _raw_money[minor, currency] = msgspec.Raw(msgspec.json.encode(wire_of(minor, currency)))
    return raw


def _to_wire(value: Any) -> Any:
    if isinstance(value, Money):
        return raw_of(value.minor, value.currency)
    message = f"no wire form for {type(value)}"
    raise NotImplementedError(message)  # what msgspec asks of its hooks for a type they do not know


_encoder = msgspec.json.Encoder(enc_hook=_to_wire)


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decoder_of(wanted: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of a type, for readers in a hurry: it raises msgspec's own errors."""
    decoder = _decoders.get(wanted)
    if decoder is None:
        decoder = _decoders[wanted] = msgspec.json.Decoder(wanted, dec_hook=_from_wire)
    return decoder


def decode[T](wanted: type[T], data: bytes | str | msgspec.Raw, at: str = "data") -> T:
    """A typed record from JSON text.

    Raises:
        FieldError: with the path of the first field that does not fit, below ``at``.

    """
    try:
        decoded: T = decoder_of(wanted).decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _field_error(error, at) from None
    return decoded


def convert[T](wanted: type[T], value: Any, at: str = "data") -> T:
    """A typed record from plain Python values; raises ``FieldError`` like ``decode``."""
    try:
        return msgspec.convert(value, wanted, dec_hook=_from_wire)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _field_error(error, at) from None


def encode(value: Any) -> bytes:
    """JSON text of a record, list or mapping; absent optional fields are left out of records."""
    return _encoder.encode(value)


def plain(value: Any) -> Any:
    """A record as plain JSON-ready Python values."""
    return msgspec.to_builtins(value, enc_hook=_to_builtins)


def _to_builtins(value: Any) -> Any:
    return value.wire() if isinstance(value, Money) else _to_wire(value)


def _field_error(error: Exception, at: str) -> FieldError:
    matched = _AT.match(str(error))
    text, path = (matched[1], matched[2] or "$") if matched else (str(error), "$")
    text, _, money_field = text.partition("|") if "amount" in text or "currency" in text else (text, "", "")
    parts = [at, path[1:].lstrip(".")] if at else [path[1:].lstrip(".")]
    if missing := _MISSING.match(text):
        parts.append(missing[1])
        text = f"`{missing[1]}` is required"
    if "matching regex" in text:
        text = ID_RULE
    if isinstance(error, RecursionError):
        text = "nested too deeply"
    parts.append(money_field)
    return FieldError(text, ".".join(part for part in parts if part))
