"""The check of requests in JSON text: known fields only, each of them once, with canonical ids."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from config import topology
from domain.command_fields import LEDGERS_OWN, check_fields, check_names, known_fields
from domain.commands import RequestError
from domain.serialization import FieldError, check_currencies, check_ids, decode, is_blank
from ledger.store.json_text import Parsed, parse, repeated_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from domain.serialization import JsonObject

_QUERY_BYTES = 1_000_000
"""The limit of a query: it may name a thousand ids, and it is not stored. The server's own limit is a megabyte."""
NO_OPERATION = ""
"""The operation of a class whose requests have no field ``operation``."""
type RequestClass[T: msgspec.Struct] = type[T] | Mapping[str, type[T]]
"""The class of an operation's requests, or the classes by the request's field ``operation``."""


class Form[T: msgspec.Struct](NamedTuple):
    """A decoded request, its canonical text, the hash of that text (16 bytes), and its refusal.

    Earlier versions accepted some requests that are refused now. So ``refusal`` is the answer only to a request that
    was not answered before.
    """

    request: T
    canonical: bytes
    digest: bytes
    refusal: RequestError | None


def read_form[T: msgspec.Struct](
    wanted: RequestClass[T], body: bytes, *, encrypted: bool = False, most: int = topology.MAX_EVENT_BYTES
) -> Form[T]:
    """Return the request in a JSON text of at most ``most`` bytes.

    ``encrypted``: the ledger has encrypted the personal text and may have added fields.

    Raises:
        RequestError: no version of the ledger accepts it.

    """
    if len(body) > most:
        message = f"a request is at most {most} bytes, not {len(body)}"
        raise RequestError("too_large", message)
    parsed = _parsed(body)
    cls = wanted if isinstance(wanted, type) else _class_of(wanted, parsed.value)
    refusal = None
    try:
        check_fields(parsed.value, cls, LEDGERS_OWN if encrypted else frozenset())
    except RequestError as error:
        refusal = error
    refusal = refusal or _repeated(parsed, body)
    try:
        request = decode(cls, body, at="")
    except FieldError as error:
        raise refusal or _error_of(error) from None
    try:
        check_ids(request, at="")
        check_currencies(request, at="")
    except FieldError as error:
        refusal = refusal or _error_of(error)
    return Form(request, parsed.canonical, hashlib.sha256(parsed.canonical).digest()[:16], refusal)


def read_query[T: msgspec.Struct](wanted: type[T], body: bytes) -> T:
    """Return a request that only reads.

    Raises:
        RequestError: it is invalid.

    """
    form = read_form(wanted, body, most=_QUERY_BYTES)
    if form.refusal is not None:
        raise form.refusal
    return form.request


def lost_by_encryption(body: bytes) -> RequestError | None:
    """Return the refusal of a request that encryption would hide: a repeated or blank field, or one of the ledger's.

    ``read_form`` refuses text that is no request at all.
    """
    try:
        parsed = _parsed(body)
    except RequestError:
        return None
    if (own := next((name for name in parsed.value if name in LEDGERS_OWN), None)) is not None:
        return RequestError("unknown_field", f"`{own}` is set by the ledger; leave it out", own)
    text = parsed.value.get("text")
    if isinstance(text, str) and is_blank(text):
        return RequestError("invalid", "`text` must not be blank", "text")
    return _repeated(parsed, body)


def _parsed(body: bytes) -> Parsed:
    try:
        parsed = parse(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("invalid", f"not a request: {error}") from None
    if not isinstance(parsed.value, dict):
        raise RequestError("invalid", "a request is a JSON object")
    return parsed


def _class_of[T: msgspec.Struct](wanted: Mapping[str, type[T]], value: JsonObject) -> type[T]:
    operation = value.get("operation")
    if isinstance(operation, str) and operation in wanted:
        return wanted[operation]
    if "operation" not in value and NO_OPERATION in wanted:
        return wanted[NO_OPERATION]
    check_names(value, frozenset(name for cls in wanted.values() for name in known_fields(cls)))
    if "operation" not in value:
        raise RequestError("invalid", "`operation` is required", "operation")
    raise RequestError("invalid", f"operation must be one of {', '.join(filter(None, wanted))}", "operation")


def _repeated(parsed: Parsed, body: bytes) -> RequestError | None:
    path = repeated_key(body, parsed.canonical)
    if path is None:
        return None
    return RequestError("duplicate_field", f"{path or 'a field'} occurs twice; send it once", path or None)


def _error_of(error: FieldError) -> RequestError:
    return RequestError(error.code, error.message, error.field or None)
