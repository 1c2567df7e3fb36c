"""Requests from their arrival to their answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from consumers.decisions.budget_repository import BudgetStream
from consumers.decisions.state.actions import Name
from consumers.decisions.unit_of_work import PendingDraft
from consumers.runtime.request_form import NO_OPERATION, read_form
from consumers.runtime.source_tokens import read_token, refuse_foreign, request_refusal
from domain import commands
from domain.budgets.postings import RequestContext
from domain.commands import Preview, RequestError, action_id_of
from domain.decisions.decide import Command, InternalCommand
from domain.decisions.decision import Decision
from domain.decisions.recorded_commands import is_repeated
from domain.events.causes import NO_COMMAND
from ledger.store.subject_tokens import fact_token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumers.runtime.request_form import RequestClass
    from ledger.spans import RequestSpan  # noqa: TC004 - it needs an extra, and no request is decoded into this class


_DECISIONS = dict.fromkeys(("approve", "deny", "withdraw", "forward"), commands.EscalationDecision)
COMMANDS: Mapping[str, RequestClass[Command]] = {
    "action": commands.ActionRequest,
    "preview": commands.Preview,
    "hold": commands.HoldRequest,
    "reversal": commands.ReversalRequest,
    "escalation": {"request": commands.EscalationAsk, **_DECISIONS},
    "budget": {"grant": commands.GrantRequest, "transfer": commands.TransferRequest},
    "policy": {
        NO_OPERATION: commands.PolicyRequest,
        "propose": commands.PolicyProposal,
        "approve": commands.PolicyApproval,
        "object": commands.PolicyObjection,
    },
    "flag": commands.FlagRequest,
}
"""Operation -> the class of its commands, or the classes by the command's field ``operation``."""
_CLOCK_TOLERANCE = timedelta(minutes=5)


class PendingRequest(msgspec.Struct, eq=False):
    """A request that waits for its answer, which ``answer`` gives."""

    operation: str
    answer: Callable[[bytes], None]
    command: Command | InternalCommand
    cause: RequestContext
    now: datetime
    refusal: RequestError | None = None
    """The answer, unless the request was answered before."""
    key: bytes = b""
    old_key: bytes = b""
    """The key that an earlier version used, where it differs."""
    content: bytes = b""
    """The hash of the body."""
    received_at: float = 0.0
    """Seconds of the monotonic clock."""
    state_is_current: bool = False
    """True once the state was brought up to date for this request."""
    attempts: int = 0
    decision: Decision | None = None
    drafts: list[PendingDraft] = []
    """The events of the decision."""
    read: list[BudgetStream] = []
    """The streams that the decision depends on."""
    counted: set[Name] = set()
    """The names of the actions that the decision has counted."""
    answered: bool = False
    duplicates: list[PendingRequest] = []
    """Copies that arrived while this request was decided."""
    span: RequestSpan | None = None
    """Its span, where traces are on."""

    def finish_encoded(self, answer: bytes) -> None:
        """Give an answer in JSON text, unless one was given."""
        if not self.answered:
            self.answered = True
            self.answer(answer)


def read_request(
    token: str,
    operation: str,
    body: bytes,
    answer: Callable[[bytes], None],
    now: datetime,
    *,
    history: bool,
    encrypted: bool = False,
    refusal: RequestError | None = None,
    via: str | None = None,
) -> PendingRequest:
    """Decode and check a request's body; ``via``: see ``RequestContext``.

    Earlier versions accepted sources that are refused now; their requests still get their first answer.

    Raises:
        RequestError: the error is the answer, even if the request was answered before.

    """
    read = read_token(token)
    if read.fault is not None:
        refuse_foreign(token)
        refusal = request_refusal(token) or refusal
    wanted = COMMANDS.get(operation)
    if wanted is None:
        message = f"there is no request {operation!r}; there are {', '.join(COMMANDS)}"
        raise RequestError("unknown_operation", message)
    command, canonical, content, fault = read_form(wanted, body, encrypted=encrypted)
    refusal = refusal or fault
    if command.time is not None:
        try:
            now = _time_of(command.time, now, history=history)
        except RequestError as error:
            refusal = refusal or error
    source, request_id = read.source, command.request_id or ""
    body_of_command = NO_COMMAND if is_repeated(command, canonical) else msgspec.Raw(canonical)
    if type(command) is Preview:
        if refusal is not None:  # a preview has no first answer
            raise refusal
        cause = RequestContext(source=source, request_id=request_id, seen_position=0, command=body_of_command, via=via)
        return PendingRequest(operation, answer, command, cause, now)
    action_id = action_id_of(source, request_id)
    cause = RequestContext(
        source=source,
        request_id=request_id,
        seen_position=0,
        request_sha256=content.hex(),
        action_id=action_id,
        command=body_of_command,
        via=via,
    )
    old_source = fact_token(source)
    return PendingRequest(
        operation,
        answer,
        command,
        cause,
        now,
        refusal,
        key=bytes.fromhex(action_id[4:]),
        old_key=b"" if old_source == source else bytes.fromhex(action_id_of(old_source, request_id)[4:]),
        content=content,
    )


def _time_of(asked: datetime, now: datetime, *, history: bool) -> datetime:
    """Return the time of a request that names one: its own in history mode, otherwise the ledger's clock."""
    if history:
        return asked.astimezone(UTC)
    if abs(asked - now) > _CLOCK_TOLERANCE:
        message = (
            "time is more than five minutes from the ledger's clock; leave it out, or report what "
            "happened earlier as resolution.action.reported.v1"
        )
        raise RequestError("clock", message, "time")
    return now
