"""Errors of the client: each has the fault, its field and the remedy.

::

    ClientError
    ├── RejectedError        the ledger recorded nothing; change the request or the event first
    │   ├── EventsRejectedError   one or more events of a batch are at fault (``faults``)
    │   └── NotAllowedError       the source, its credential or its profile does not allow it
    └── NoAnswerError        no answer within the client's patience; the same call may be repeated safely
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from domain.documents.replies import REPEATABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_ALLOWED = frozenset(("source_not_allowed", "unauthorized", "forbidden"))
_REMEDIES = {
    "request_id_reused": "give a new request a new request_id; repeat the first body to get the first answer",
    "source_not_allowed": "let an operator widen the source's profile: resolution-ledger admin sources change",
    "source_mismatch": "publish in the name of the source that the credential belongs to",
    "unauthorized": "use a token of resolution-ledger admin tokens make NAME --source SOURCE",
    "forbidden": "use the token of a source, not that of a person",
    "unknown_agent": "announce the employee first, by employee.joined",
    "unknown_type": "check the spelling of the type; docs/integrate/fact-types.md lists them",
    "unknown_field": "use the field that the message names",
    "id_reused": "give another event another id",
    "clock": "leave the time out, or set the clock of this machine",
    "too_large": "send less at once",
}
_CHANGE = "correct the field that the message names, and send it again"
_REPEAT = "repeat the call with the same id: it has no second effect"


class ClientError(Exception):
    """The base of the client's errors.

    Attributes:
        code: a stable word for programs (docs/integrate/errors.md).
        message: the fault.
        field: the path of the field at fault, if there is one.
        remedy: the next step.

    """

    remedy = _CHANGE

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        self.remedy = _REMEDIES.get(code, type(self).remedy)
        super().__init__(f"{code}: {message}{f' (field {field})' if field else ''}; {self.remedy}")
        self.code, self.message, self.field = code, message, field


class RejectedError(ClientError):
    """The ledger recorded nothing, and would not by a repetition."""


class NotAllowedError(RejectedError):
    """The source, its credential or its profile does not allow this."""


class NoAnswerError(ClientError):
    """No answer came within the client's patience, or only that a part of the ledger does not answer now."""

    remedy = _REPEAT


class EventFault(NamedTuple):
    """The fault of one event: its number in the batch, from 0, and the intake's code, field and message."""

    number: int
    id: str
    code: str
    field: str
    message: str


class EventsRejectedError(RejectedError):
    """Some events of a batch are at fault; none of the batch was published."""

    def __init__(self, faults: Sequence[EventFault]) -> None:
        first = faults[0]
        super().__init__(first.code, f"event {first.number} ({first.id}): {first.message}", first.field or None)
        self.faults = tuple(faults)


def error_of(code: str, message: str, field: str | None = None) -> ClientError:
    """Return the error of a code."""
    if code in REPEATABLE:
        return NoAnswerError(code, message, field)
    return (NotAllowedError if code in NOT_ALLOWED else RejectedError)(code, message, field)
