"""The validation of facts: all checks before the log, each with a code, a field and a remedy."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from config import topology
from consumers.privacy.field_encryption import is_personal
from consumers.runtime.source_tokens import read_token
from domain.currencies import GRACE
from domain.events.decisions import RESERVED
from domain.events.facts import FACTS, FactCorrected
from domain.ids import fault_of
from domain.serialization import FieldError, check_currencies, check_ids, convert, decode
from domain.sources import LEDGER_SOURCES, fact_source_fault
from ledger.errors import EventError
from ledger.store.cloudevents import event_key, parse_event, parse_time, stored_decoder
from ledger.store.subject_tokens import fact_token, token_of_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.events.facts import Fact
    from ledger.store.cloudevents import Envelope
    from ledger.store.content_modes import Headers

AHEAD_AT_MOST = timedelta(hours=24)
CORRECTED = "resolution.fact.corrected.v1"


class Accepted(NamedTuple):
    """A valid fact: its source and id, its token in the log, its key, the hash of its content, and its JSON.

    A fact with a ``flaw`` is rejected unless it is recorded already, because older versions accepted it.
    """

    source: str
    id: str
    type: str
    token: str
    key: bytes
    content: bytes
    json: bytes
    corrects: FactCorrected | None = None
    personal: bool = False
    flaw: Rejection | None = None
    rounded: bool = False
    """Equal content hashes do not prove equal content (``Envelope.rounded``)."""
    by_old_token: bool = False
    """Sent under the token that earlier versions gave its source, which others may share."""
    by_operator: bool = False
    """Sent by the ledger's own commands, which no profile limits."""
    run: str = ""
    """The id of the import that sent it, or empty."""


class Rejection(NamedTuple):
    """The reason why a message cannot be recorded: a stable code, the field, and a message with the remedy."""

    code: str
    field: str
    message: str


def accept(
    data: bytes,
    now: datetime,
    headers: Headers = (),
    token: str | None = None,
    received: Callable[[], datetime] | None = None,
) -> Accepted | Rejection:
    """Validate one event.

    ``token`` is the source's token in the inbox's subject. ``received`` returns the time when the inbox stored the
    event; it is the event's time if the event has none.
    """
    try:
        return _accepted(data, now, headers, token, received or (lambda: now))
    except (EventError, FieldError) as error:
        return Rejection(error.code, error.field, error.message)


def check_new(fact: Accepted | Rejection) -> Accepted | Rejection:
    """Return the result of ``accept`` for a fact that is not recorded already: its flaw rejects it."""
    return fact.flaw if isinstance(fact, Accepted) and fact.flaw is not None else fact


def _accepted(
    data: bytes, now: datetime, headers: Headers, token: str | None, received: Callable[[], datetime]
) -> Accepted:
    if len(data) > topology.MAX_EVENT_BYTES:
        raise EventError("too_large", f"an event is at most {topology.MAX_EVENT_BYTES} bytes, not {len(data)}")
    event = parse_event(data, headers, received)
    if len(event.json) > topology.MAX_STORED_BYTES:
        raise EventError("too_large", "with its attributes as JSON the event is too large")
    own_token, in_log = token_of_source(event.source), fact_token(event.source)
    if token is not None and token not in (own_token, in_log):
        rejection = mismatch(token, event.source)
        raise EventError(rejection.code, rejection.message, rejection.field)
    if event.source in LEDGER_SOURCES and (fault := fact_source_fault(event.source)):
        raise EventError(fault.code, fault.message, "source")
    _check_type(event.type)
    if event.time > now + AHEAD_AT_MOST and not event.assumed:
        raise EventError("time_ahead", "time is more than 24 h ahead; check the sender's clock", "time")
    fact = decode(FACTS[event.type], event.data)
    if isinstance(fact, FactCorrected) and fact.source_of != event.source:
        raise EventError("not_your_fact", "only the source of a fact corrects it", "data.source_of")
    key = event_key(event.source, event.id)
    corrects = fact if isinstance(fact, FactCorrected) else None
    return Accepted(
        event.source,
        event.id,
        event.type,
        in_log,
        key,
        event.content,
        event.json,
        corrects,
        is_personal(event.type, event.fields, event.extras),
        _flaw(event, fact),
        event.rounded,
        token is not None and token != own_token,
    )


def _flaw(event: Envelope, fact: Fact) -> Rejection | None:
    """Return the fault of a fact that older versions accepted, in an attribute, an id or a currency; or ``None``."""
    if (fault := fact_source_fault(event.source)) is not None:
        return Rejection(fault.code, "source", fault.message)
    if event.flaw is not None:
        return Rejection(event.flaw.code, event.flaw.field, event.flaw.message)
    if (fault := fault_of(event.id)) is not None:
        return Rejection(fault.code, "id", fault.message)
    try:
        check_ids(fact)
        check_currencies(fact, event.time, grace=GRACE)
    except FieldError as error:
        return Rejection(error.code, error.field, error.message)
    return None


def mismatch(token: str, source: str) -> Rejection:
    """Return the rejection of an event under a token that is not its source's."""
    read = read_token(token)
    if read.fault is not None and not read.is_own:
        return Rejection(read.fault.code, "source", read.fault.message)
    return Rejection("source_mismatch", "source", wrong_token(token, source))


def wrong_token(token: str, source: str) -> str:
    """Return the message for an event under a token that is not its source's."""
    return f"sent as {token}, but the event says {source!r}, whose token is {token_of_source(source)}"


def _check_type(name: str) -> None:
    if name in RESERVED:
        raise EventError("reserved_type", f"only the ledger itself records {name}", "type")
    if name not in FACTS:
        message = f"{name[:80]!r} is not a type of fact; see docs/integrate/fact-types.md"
        raise EventError("unknown_type", message, "type")


def check_correction(correction: FactCorrected, original: bytes) -> Rejection | None:
    """Return the rejection of a correction that does not fit the stored fact, or ``None``."""
    stored = stored_decoder.decode(original)
    type_name = stored.type
    if type_name not in FACTS or type_name == CORRECTED:
        text = f"{type_name} cannot be corrected; to correct a correction, correct the first fact again"
        return Rejection("not_correctable", "data.id_of", text)
    if correction.data is None:
        return None
    try:
        right = convert(FACTS[type_name], correction.data, at="data.data")
        check_ids(right, "data.data", recorded=decode(FACTS[type_name], stored.data))
        check_currencies(right, parse_time(stored.time), "data.data", GRACE)
    except FieldError as error:
        return Rejection(error.code, error.field, f"as {type_name}: {error.message}")
    return None
