"""Protection of employees: reads about a named person are recorded, and new flags show pseudonyms.

The policy in force switches both on (`privacy.record_reads`, `privacy.pseudonyms`).
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from domain.events.administration import AccessRecorded, TrailRead
from domain.events.decisions import LEDGER_SOURCE, TYPE_OF
from domain.ids import fault_of
from domain.serialization import encode
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from projections.policy_history import policy_in_force

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.encryption.keyring import Key, Keyring
    from ledger.store.log import Log
    from projections.engine.storage import Row

SUBJECT = "ledger.trail"
ACCESS_SUBJECT = "ledger.access"
_OWNER = "pseudonyms"


async def record_reading(log: Log, about: Sequence[str], up_to: int, reader: str) -> None:
    """Record a read about named subjects before it is shown, if the policy in force asks for it.

    ``about`` are subjects such as ``agent:A-7``.

    Raises:
        ValueError: the reader is not a valid id.

    """
    policy = await policy_in_force(log) if about else None
    if policy is None or not policy.privacy.record_reads:
        return
    if fault_of(reader) is not None:
        message = f"the reader must be an id, not {reader!r}"
        raise ValueError(message)
    now = datetime.now(UTC)
    record = TrailRead(read_by=reader, about=tuple(about), up_to=up_to)
    identifier = f"trail.read {reader} {now.timestamp()}"
    await log.append([Draft(SUBJECT, encode_event(LEDGER_SOURCE, identifier, TYPE_OF[TrailRead], now, encode(record)))])


async def record_access(log: Log, who: str, what: str, via: str, patience_seconds: float = 10) -> int:
    """Record a sign-in, a sign-out, or an operator's use of a right without an event of its own; see the event.

    Returns:
        the position.

    Raises:
        UnavailableError: the log does not answer within ``patience_seconds``.

    """
    now = datetime.now(UTC)
    identifier = f"access {secrets.token_hex(16)}"
    record = encode(AccessRecorded(who=who, what=what, via=via))
    event = encode_event(LEDGER_SOURCE, identifier, TYPE_OF[AccessRecorded], now, record)
    return await log.append([Draft(ACCESS_SUBJECT, event)], patience_seconds)


async def without_names(log: Log, keys: Keyring, flags: Sequence[Row]) -> list[Row]:
    """Return flags as they may be shown: under pseudonyms until their review, where the policy asks for it.

    A pseudonym is ``~`` and eight hexadecimal digits. It is the same for one person in every flag.
    """
    policy = await policy_in_force(log)
    if policy is None or not policy.privacy.pseudonyms:
        return [dict(flag) for flag in flags]
    key = (await keys.ensure([_OWNER]))[_OWNER]
    return [
        dict(flag) if flag.get("status", "open") != "open" or flag.get("unmasked_by") else _masked(flag, key)
        for flag in flags
    ]


async def cases_without_names(log: Log, keys: Keyring, cases: Sequence[Row]) -> list[Row]:
    """Return cases as they may be shown: under pseudonyms until all their flags are reviewed."""
    policy = await policy_in_force(log)
    if policy is None or not policy.privacy.pseudonyms:
        return [dict(case) for case in cases]
    key = (await keys.ensure([_OWNER]))[_OWNER]
    found = []
    for case in cases:
        if case["status"] == "closed":
            found.append(dict(case))
        else:
            masked = _masked(case, key)
            found.append({**masked, "subject": masked["about"][0]})
    return found


def _masked(row: Row, key: Key) -> Row:
    """Return a flag or a case with pseudonyms for its people, and without the answer, which may name its author."""
    names = {about: f"~{key.hash_of(about)[:8]}" for about in row["about"]}
    text = row["explanation"]
    for about, pseudonym in names.items():
        name = about.partition(":")[2]
        text = re.sub(rf"(?<![\w~-]){re.escape(name)}(?![\w-])", pseudonym, text)
    about = [f"{one.partition(':')[0]}:{pseudonym}" for one, pseudonym in names.items()]
    hidden: Row = {}
    if row.get("answered_by") is not None:
        hidden = {"answered_by": f"~{key.hash_of(f'agent:{row["answered_by"]}')[:8]}", "answer": None}
    return {**row, "about": about, "explanation": text, **hidden}
