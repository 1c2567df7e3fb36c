"""How those are protected who do the work: who reads about them is recorded, flags go without names at first.

Both as the policy in force says (`privacy.record_reads`, `privacy.pseudonyms`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from domain.events.administration import TrailRead
from domain.events.decisions import LEDGER_SOURCE, TYPE_OF
from domain.ids import fault_of
from domain.serialization import encode
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from projections.policy_history import policy_in_force

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ledger.encryption.keyring import Keyring
    from ledger.store.log import Log

SUBJECT = "ledger.trail"
_OWNER = "pseudonyms"


async def privacy_in_force(log: Log) -> dict[str, bool]:
    """What the policy in force says of privacy."""
    said: dict[str, bool] = (await policy_in_force(log)).get("privacy", {})
    return said


async def record_reading(log: Log, about: Sequence[str], up_to: int, reader: str) -> None:
    """Record that somebody read about these, each ``kind:id``, if the policy in force wants it; before it is shown.

    Raises:
        ValueError: the reader is no id.

    """
    if not about or not (await privacy_in_force(log)).get("record_reads"):
        return
    if fault_of(reader) is not None:
        message = f"who reads must be an id, not {reader!r}"
        raise ValueError(message)
    now = datetime.now(UTC)
    record = TrailRead(read_by=reader, about=tuple(about), up_to=up_to)
    identifier = f"trail.read {reader} {now.timestamp()}"
    await log.append([Draft(SUBJECT, encode_event(LEDGER_SOURCE, identifier, TYPE_OF[TrailRead], now, encode(record)))])


async def without_names(log: Log, keys: Keyring, flags: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flags as they are to be shown: those that nobody looked at yet under pseudonyms, where policy wants that.

    A pseudonym, ``~`` and eight hex digits, is the same for one person in every flag.
    """
    if not (await privacy_in_force(log)).get("pseudonyms"):
        return [dict(flag) for flag in flags]
    key = (await keys.ensure([_OWNER]))[_OWNER]

    def masked(flag: Mapping[str, Any]) -> dict[str, Any]:
        if flag.get("status", "open") != "open" or flag.get("unmasked_by"):
            return dict(flag)
        names = {about: f"~{key.hash_of(about)[:8]}" for about in flag["about"]}
        text = flag["explanation"]
        for about, pseudonym in names.items():
            name = about.partition(":")[2]
            text = re.sub(rf"(?<![\w~-]){re.escape(name)}(?![\w-])", pseudonym, text)
        about = [f"{one.partition(':')[0]}:{pseudonym}" for one, pseudonym in names.items()]
        return {**flag, "about": about, "explanation": text}

    return [masked(flag) for flag in flags]
