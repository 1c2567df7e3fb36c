"""The alarm: one durable message that stops all writers until a person clears it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import nats.errors

from ledger.errors import LedgerError, UnavailableError
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from ledger.nats.client import LedgerClient

STREAM = "ALARM"
SUBJECT = "alarm.seal"


class AlarmError(LedgerError):
    """The log has changed; nothing may be written."""


class Alarm(NamedTuple):
    """Time, position and reason of the alarm."""

    at: str
    position: int
    reason: str

    def error(self) -> AlarmError:
        """Return the error with which writers stop."""
        return AlarmError(
            f"the alarm is on since {self.at}: {self.reason}. Nothing is written until an operator has checked the log "
            "(`resolution-ledger audit verify`) and cleared the alarm (`resolution-ledger admin alarm --clear`)"
        )


async def raise_alarm(client: LedgerClient, position: int, reason: str) -> None:
    """Store the alarm durably."""
    body = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "position": position, "reason": reason}
    try:
        await client.request(SUBJECT, json.dumps(body).encode(), timeout=5)
    except (nats.errors.Error, OSError) as error:
        raise UnavailableError(f"the alarm could not be stored: {error}; the reason was: {reason}") from error


async def read_alarm(client: LedgerClient) -> Alarm | None:
    """Return the alarm, None if it is off."""
    answer = await js_api(client, f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": SUBJECT})
    if "error" in answer:
        if answer["error"].get("code") == 404:  # noqa: PLR2004 - no message, or no stream yet
            return None
        raise UnavailableError(f"the alarm could not be read: {answer['error'].get('description')}")
    return Alarm(**json.loads(base64.b64decode(answer["message"]["data"])))


async def clear_alarm(client: LedgerClient) -> None:
    """Clear the alarm."""
    answer = await js_api(client, f"STREAM.PURGE.{STREAM}")
    if "error" in answer:
        raise UnavailableError(f"the alarm could not be cleared: {answer['error'].get('description')}")
