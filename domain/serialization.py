"""Convert JSON to typed immutable records and back, with errors that name the field."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, get_args, get_type_hints

import msgspec

from domain.currencies import currency_fault
from domain.ids import ID_SCHEMA, MOST_CHARACTERS, canonical_form, fault_of, is_plain
from domain.money import Money, MoneyError, money_from_wire, wire_of

Id = Annotated[str, msgspec.Meta(extra={"id": True}, extra_json_schema=ID_SCHEMA)]
"""An opaque identifier (domain.ids). ``check_ids`` checks it in new data, never in stored events."""
RecordedId = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_CHARACTERS)]
"""The id of an earlier event or request, which may not be valid by today's rules."""
Holder = Annotated[
    str,
    msgspec.Meta(
        extra={"holder": True},
        extra_json_schema={"pattern": "^(agent|team):.", "description": "agent:<id> or team:<id>"},
    ),
]
"""The holder of a budget."""
Personal = Annotated[str, msgspec.Meta(extra={"personal": True})]
"""Text that may say something about a person; it is encrypted before it is recorded (ledger.encryption)."""

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment: RFC 3339 with its zone, e.g. ``2026-11-21T09:30:00Z``."""

Json = object
"""A JSON value of open shape: text, number, bool, ``None``, list or object. Readers narrow or ``convert`` it."""
JsonObject = dict[str, Json]
"""A JSON object of open shape. Code that only reads one takes a ``Mapping[str, Json]``, which every TypedDict is.

A field of a ``msgspec.Struct`` needs ``dict[str, Any]`` instead: msgspec takes ``object`` for a class of its own.
"""


@lru_cache(maxsize=256)
def personal_fields(cls: type[msgspec.Struct]) -> frozenset[str]:
    """Return the fields of a class that are marked as personal."""
    return _marked(cls, Personal)


@lru_cache(maxsize=256)
def _fields_with_ids(cls: type[msgspec.Struct]) -> tuple[tuple[str, bool], ...]:
    """Return the fields of a class that hold ids, each with whether it is a holder (``agent:<id>``)."""
    holders = _marked(cls, Holder)
    return tuple((name, name in holders) for name in cls.__struct_fields__ if name in _marked(cls, Id) | holders)


@lru_cache(maxsize=256)
def _fields_with_money(cls: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields of a class that hold an amount."""
    marked = _marked(cls, Money)
    return tuple(name for name in cls.__struct_fields__ if name in marked)


def _marked(cls: type[msgspec.Struct], mark: object) -> frozenset[str]:
    """Return the fields of a class that have the type ``mark``, also if optional or a tuple."""
    hints = get_type_hints(cls, include_extras=True)
    return frozenset(name for name, hint in hints.items() if mark in (hint, *get_args(hint)))


_AT = re.compile(r"(?s)(.*?)(?: - at `(?:key in )?(\$[^`]*)`)?\Z")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")


class FieldError(ValueError):
    """An error about data that does not fit its type.

    Attributes:
        message: the fault and its remedy.
        field: the path, e.g. ``data.total.amount``.
        code: a stable word for programs, e.g. ``id_not_canonical``.

    """

    def __init__(self, message: str, field: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.code = code


def _from_wire(wanted: type, value: object) -> Money:
    if wanted is Money:
        try:
            return money_from_wire(value)
        except MoneyError as error:  # the field goes into the text, because msgspec keeps nothing else of the error
            suffix = f"|{error.field}" if error.field else ""
            message = f"{error}{suffix}"
            raise ValueError(message) from None
    message = f"no wire form for {wanted}"
    raise NotImplementedError(message)  # msgspec requires this error for an unsupported type


_raw_money: dict[tuple[int, str], msgspec.Raw] = {}
_REMEMBERED = 65_536


def raw_of(minor: int, currency: str) -> msgspec.Raw:
    """Return money in its JSON form as text, cached, because amounts repeat."""
    raw = _raw_money.get((minor, currency))
    if raw is None:
        if len(_raw_money) > _REMEMBERED:
            _raw_money.clear()
        raw = _raw_money[minor, currency] = msgspec.Raw(msgspec.json.encode(wire_of(minor, currency)))
    return raw


def _to_wire(value: object) -> msgspec.Raw:
    if isinstance(value, Money):
        return _raw_money.get((value.minor, value.currency)) or raw_of(value.minor, value.currency)
    message = f"no wire form for {type(value)}"
    raise NotImplementedError(message)  # msgspec requires this error for an unsupported type


_encoder = msgspec.json.Encoder(enc_hook=_to_wire)
_sorting_encoder = msgspec.json.Encoder(enc_hook=_to_wire, order="sorted")


_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def decoder_of[T](wanted: type[T]) -> msgspec.json.Decoder[T]:
    """Return the decoder of a type, for hot paths; it raises msgspec's own errors."""
    decoder = _decoders.get(wanted)
    if decoder is None:
        decoder = _decoders[wanted] = msgspec.json.Decoder(wanted, dec_hook=_from_wire)
    return decoder


def decode[T](wanted: type[T], data: bytes | str | msgspec.Raw, at: str = "data") -> T:
    """Return a typed record from JSON text.

    Raises:
        FieldError: with the path of the first field that does not fit, below ``at``.

    """
    try:
        return decoder_of(wanted).decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _field_error(error, at) from None


@lru_cache(maxsize=256)
def _required_texts(cls: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the required fields of a class that hold any text."""
    hints = get_type_hints(cls, include_extras=True)
    required = {field.name for field in msgspec.structs.fields(cls) if field.required}
    return tuple(name for name in cls.__struct_fields__ if name in required and hints[name] in (str, Personal))


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: no character but spaces and invisible ones."""
    return not is_plain(text) and (not text.strip() or not canonical_form(text))


def check_ids(record: msgspec.Struct, at: str = "data", recorded: msgspec.Struct | None = None) -> None:
    """Reject a record with an invalid id, or with a blank text in a required field.

    A value that ``recorded`` has in the same field is accepted, because stored data is not checked again.

    Raises:
        FieldError: with the code and the path of the first such field.

    """
    for name, is_holder in _fields_with_ids(type(record)):
        value = getattr(record, name)
        if value is None or (not is_holder and type(value) is str and is_plain(value)):
            continue
        if recorded is not None and value == getattr(recorded, name, None):
            continue
        for number, text in enumerate((value,) if isinstance(value, str) else value):
            fault = fault_of(text.partition(":")[2] or "-" if is_holder else text)
            if fault is not None:
                part = "" if isinstance(value, str) else f"[{number}]"
                raise FieldError(fault.message, f"{at}.{name}{part}" if at else f"{name}{part}", fault.code)
    for name in _required_texts(type(record)):
        value = getattr(record, name)
        if is_blank(value) and (recorded is None or value != getattr(recorded, name, None)):
            raise FieldError(f"`{name}` must not be blank", f"{at}.{name}" if at else name)
    for name in _fields_with_records(type(record)):
        if (inner := getattr(record, name)) is not None:
            check_ids(inner, f"{at}.{name}" if at else name, getattr(recorded, name, None))


@lru_cache(maxsize=256)
def _fields_with_records(cls: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields of a class that hold another record."""
    parts = {field.name: (field.type, *get_args(field.type)) for field in msgspec.structs.fields(cls)}
    return tuple(
        name
        for name, some in parts.items()
        if any(isinstance(part, type) and issubclass(part, msgspec.Struct) for part in some)
    )


def check_currencies(
    record: msgspec.Struct, moment: datetime | None = None, at: str = "data", grace: timedelta = timedelta(0)
) -> None:
    """Reject a record with an amount in a currency that is not valid at a moment (see ``currency_fault``).

    Raises:
        FieldError: with the path of the first such field.

    """
    for name in _fields_with_money(type(record)):
        money = getattr(record, name)
        if money is not None and (fault := currency_fault(money.currency, moment, grace)):
            raise FieldError(fault, f"{at}.{name}.currency" if at else f"{name}.currency")
    for name in _fields_with_records(type(record)):
        if (inner := getattr(record, name)) is not None:
            check_currencies(inner, moment, f"{at}.{name}" if at else name, grace)


def convert[T](wanted: type[T], value: object, at: str = "data") -> T:
    """Return a typed record from plain Python values.

    Raises:
        FieldError: as ``decode`` does.

    """
    try:
        return msgspec.convert(value, wanted, dec_hook=_from_wire)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _field_error(error, at) from None


def encode_sorted(value: object) -> bytes:
    """Return the JSON text of a document with sorted names, for hashes."""
    return _sorting_encoder.encode(value)


def encode(value: object) -> bytes:
    """Return the JSON text of a record, list or mapping; absent optional fields of records are left out."""
    return _encoder.encode(value)


def plain(value: object) -> Any:
    """Return a record as plain Python values that fit into JSON."""
    return msgspec.to_builtins(value, enc_hook=_to_builtins)


def _to_builtins(value: object) -> Any:
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    return value.wire() if isinstance(value, Money) else _to_wire(value)


def _field_error(error: Exception, at: str) -> FieldError:
    matched = _AT.match(str(error))
    text, path = (matched[1], matched[2] or "$") if matched else (str(error), "$")
    text, _, money_field = text.partition("|") if "amount" in text or "currency" in text else (text, "", "")
    parts = [at, path[1:].lstrip(".")] if at else [path[1:].lstrip(".")]
    if missing := _MISSING.match(text):
        parts.append(missing[1])
        text = f"`{missing[1]}` is required"
    if isinstance(error, RecursionError):
        text = "nested too deeply"
    parts.append(money_field)
    return FieldError(text, ".".join(part for part in parts if part))
