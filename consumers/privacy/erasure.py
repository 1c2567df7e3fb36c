"""The erasure of a person: first its event, then its keys; repeated where a backup brings keys back."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import msgspec

from config import topology
from consumers.rejections import RejectedEntry
from domain.events.administration import CustomerForgotten, EmployeeForgotten
from domain.events.decisions import LEDGER_SOURCE, TYPE_OF
from domain.serialization import encode
from ledger.encryption.keyring import owner_token
from ledger.errors import LedgerError
from ledger.store.cloudevents import encode_event, stored_decoder
from ledger.store.log import Draft
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.encryption.keyring import Keyring
    from ledger.store.log import Log

SUBJECT = "ledger.forgotten"
_INTERACTIONS_A_RECORD = 400
"""Interactions in one record, because the size of a message is limited."""


class HeldError(LedgerError):
    """A legal hold forbids the erasure of a person."""


type Forgotten = CustomerForgotten | EmployeeForgotten


_CLASS_OF: dict[str, type[Forgotten]] = {TYPE_OF[cls]: cls for cls in (CustomerForgotten, EmployeeForgotten)}


class Erasure(NamedTuple):
    """A finished erasure: its persons, the position of its event, and the numbers of destroyed keys and entries."""

    customers: list[str]
    employees: list[str]
    position: int
    keys: int
    rejected: int
    backups_until: str


async def hold(keys: Keyring, customer_id: str, reason: str, by: str) -> None:
    """Place a legal hold: a court or a claim needs the customer's data, so it must not be erased."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    await keys.note(
        f"hold.{owner_token(customer_id)}", {"customer_id": customer_id, "reason": reason, "by": by, "at": at}
    )


async def release(keys: Keyring, customer_id: str) -> None:
    """Release a legal hold."""
    await keys.note(f"hold.{owner_token(customer_id)}", None)


async def holds(keys: Keyring) -> list[dict[str, str]]:
    """Return the current legal holds."""
    return list((await keys.notes("hold.*")).values())


async def forget(
    log: Log,
    rejected: Log,
    keys: Keyring,
    customers: Sequence[str],
    interactions: Sequence[str],
    requested_by: str,
    reason: str | None,
) -> Erasure:
    """Record the erasure of these customers, all one person; then destroy their keys and those of the interactions.

    Raises:
        HeldError: one of them has a legal hold.

    """
    active = {one["customer_id"]: one for one in await holds(keys)}
    for customer_id in customers:
        if (found := active.get(customer_id)) is not None:
            message = (
                f"{customer_id} has a legal hold since {found['at']} (by {found['by']}: {found['reason']}); "
                f"release it first: resolution-ledger admin hold {customer_id} --release"
            )
            raise HeldError(message)
    records = [
        CustomerForgotten(
            customer_id=customer_id,
            requested_by=requested_by,
            reason=reason,
            interactions=tuple(interactions[at : at + _INTERACTIONS_A_RECORD]),
        )
        for customer_id in customers
        for at in range(0, max(1, len(interactions)), _INTERACTIONS_A_RECORD)
    ]
    position, destroyed = await _record_and_destroy(log, keys, records)
    gone = await _delete_rejected(rejected, keys, customers)
    return Erasure(list(customers), [], position, destroyed, gone, await _backups_until(keys))


async def forget_employee(
    log: Log, rejected: Log, keys: Keyring, employee_id: str, requested_by: str, reason: str | None
) -> Erasure:
    """Record the erasure of an employee; then destroy the keys of their name and their words.

    Decisions keep the employee's id, because the company has to account for them.
    """
    record = EmployeeForgotten(employee_id=employee_id, requested_by=requested_by, reason=reason)
    position, destroyed = await _record_and_destroy(log, keys, [record])
    gone = await _delete_rejected(rejected, keys, [employee_id])
    return Erasure([], [employee_id], position, destroyed, gone, await _backups_until(keys))


async def _record_and_destroy(log: Log, keys: Keyring, records: Sequence[Forgotten]) -> tuple[int, int]:
    """Append the events of an erasure, then destroy its keys; return the last position, and the number of keys."""
    now = datetime.now(UTC)
    drafts = []
    for number, record in enumerate(records):
        person = record.customer_id if isinstance(record, CustomerForgotten) else f"employee:{record.employee_id}"
        identifier = f"forgotten-{owner_token(person)}-{now.timestamp()}-{number}"
        drafts.append(
            Draft(SUBJECT, encode_event(LEDGER_SOURCE, identifier, TYPE_OF[type(record)], now, encode(record)))
        )
    first = await log.append(drafts)
    owners = dict.fromkeys(owner for record in records for owner in _owners_of(record))
    return first + len(records) - 1, sum([await keys.destroy(owner) for owner in owners])


def _owners_of(record: Forgotten) -> list[str]:
    """Return the owners of the keys that an erasure destroys."""
    if isinstance(record, EmployeeForgotten):
        return [f"employee:{record.employee_id}"]
    return [f"customer:{record.customer_id}", *(f"interaction:{name}" for name in record.interactions)]


async def forget_again(keys: Keyring, log: Log) -> int:
    """Destroy keys of forgotten persons that a restored backup brought back; return their number.

    Only keys made before the erasure are destroyed, since a forgotten person may return. The earlier of event time
    and recorded time counts, because a clock that ran ahead may have put the recorded time into the future.
    """
    count = 0
    for recorded in await log.read_subject(SUBJECT):
        stored = stored_decoder.decode(recorded.data)
        for owner in _owners_of(msgspec.json.decode(stored.data, type=_CLASS_OF[stored.type])):
            count += await keys.destroy(owner, made_before=min(stored.time, stored.recordedtime))
    return count


async def _delete_rejected(rejected: Log, keys: Keyring, persons: Sequence[str]) -> int:
    """Delete rejected events whose body or headers name one of these persons; return their number."""
    count = 0
    async for batch in rejected.subject_batches(f"{topology.REJECTED_SUBJECT}.>"):
        for recorded in batch:
            entry = msgspec.json.decode(await keys.decrypt_fields(recorded.data), type=RejectedEntry)
            try:
                body = base64.b64decode(entry.data)
            except ValueError:
                continue
            headers = "\n".join(unquote(value) for _, value in entry.original_headers)
            if any(msgspec.json.encode(name) in body or _contains_id(headers, name) for name in persons):
                await js_api(rejected.client, f"STREAM.MSG.DELETE.{topology.REJECTED}", {"seq": recorded.position})
                count += 1
    return count


def _contains_id(text: str, name: str) -> bool:
    """Return whether a text contains an id that is not a part of a longer one."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


async def _backups_until(keys: Keyring) -> str:
    """Return the time until which a backup of the keys is kept, or an empty string."""
    return max((one["kept_until"] for one in (await keys.notes("backup.*")).values()), default="")
