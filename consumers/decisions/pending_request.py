"""Requests from their arrival to their answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from consumers.decisions.state.actions import ActionRow
from consumers.decisions.unit_of_work import PendingDraft
from consumers.runtime.request_form import read_form
from consumers.runtime.source_tokens import read_token, refuse_foreign, request_refusal
from domain import commands
from domain.budgets.postings import RequestContext
from domain.commands import Preview, RequestError, action_id_of
from domain.decisions.decide import Command, InternalCommand
from domain.decisions.decision import Decision
from domain.decisions.recorded_commands import is_repeated
from domain.events.causes import NO_COMMAND
from domain.serialization import encode
from ledger.store.subject_tokens import fact_token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumers.runtime.request_form import RequestClass


_DECISIONS = dict.fromkeys(("approve", "deny", "withdraw", "forward"), commands.EscalationDecision)
COMMANDS: Mapping[str, RequestClass[Command]] = {
    "action": commands.ActionRequest,
    "preview": commands.Preview,
    "hold": commands.HoldRequest,
    "reversal": commands.ReversalRequest,
    "escalation": {"request": commands.EscalationAsk, **_DECISIONS},
    "budget": {"grant": commands.GrantRequest, "transfer": commands.TransferRequest},
    "policy": commands.PolicyRequest,
    "flag": commands.FlagRequest,
}
"""Operation -> the class of its commands, or the classes by the command's field ``operation``."""
_CLOCK_TOLERANCE = timedelta(minutes=5)


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request that waits for its answer, which ``answer`` gives; ``token`` is the source's token in the subject."""

    token: str
    operation: str
    body: bytes
    answer: Callable[[bytes], None]
    reply_subject: bytes = b""
    """The subject to which another decider may send the answer."""
    encrypted: bool = False
    refusal: RequestError | None = None
    """The answer, unless the request was answered before."""
    source: str = field(init=False)
    command: Command | InternalCommand = field(init=False)
    cause: RequestContext = field(init=False)
    now: datetime = field(init=False)
    key: bytes = b""
    old_key: bytes = b""
    """The key that an earlier version used, where it differs."""
    state_is_current: bool = False
    """True once the state was brought up to date for this request."""
    attempts: int = 0
    decision: Decision | None = None
    drafts: list[PendingDraft] = field(default_factory=list)
    """The events of the decision."""
    action_rows: list[tuple[ActionRow, int]] = field(default_factory=list)
    """The actions of the decision, each with the index of its draft."""
    answered: bool = False
    duplicates: list[PendingRequest] = field(default_factory=list)
    """Copies that arrived while this request was decided."""

    def __post_init__(self) -> None:
        self.source = read_token(self.token).source

    def finish(self, answer: Mapping[str, object]) -> None:
        """Give the answer, unless one was given."""
        if not self.answered:
            self.finish_encoded(encode(answer))

    def finish_encoded(self, answer: bytes) -> None:
        """Give an answer that is JSON text already, unless one was given."""
        if not self.answered:
            self.answered = True
            self.answer(answer)


class _AgentField(msgspec.Struct):
    agent_id: str


_agent_field = msgspec.json.Decoder(_AgentField)


def holder_in(body: bytes) -> str | None:
    """Return the holder of the agent in a request, reading nothing else of it; ``None`` where there is none."""
    try:
        return f"agent:{_agent_field.decode(body).agent_id}"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_request(request: PendingRequest, now: datetime, seen_position: int, *, history: bool) -> Command:
    """Decode and check a request's body; return its command.

    Earlier versions accepted sources that are refused now; their requests still get their first answer.

    Raises:
        RequestError: the error is the answer, even if the request was answered before.

    """
    refuse_foreign(request.token)
    request.refusal = request_refusal(request.token) or request.refusal
    wanted = COMMANDS.get(request.operation)
    if wanted is None:
        message = f"there is no request {request.operation!r}; there are {', '.join(COMMANDS)}"
        raise RequestError("unknown_operation", message)
    command, canonical, sha256, refusal = read_form(wanted, request.body, encrypted=request.encrypted)
    request.refusal = request.refusal or refusal
    request.now = now
    try:
        request.now = _time_of(command.time, now, history=history)
    except RequestError as error:
        request.refusal = request.refusal or error
    request.command = command
    request_id = command.request_id or ""
    preview = type(command) is Preview
    action_id = ""
    if not preview:
        action_id = action_id_of(request.source, request_id)
        request.key = bytes.fromhex(action_id[4:])
        if (old_source := fact_token(request.source)) != request.source:
            request.old_key = bytes.fromhex(action_id_of(old_source, request_id)[4:])
    elif request.refusal is not None:  # a preview has no first answer
        raise request.refusal
    request.cause = RequestContext(
        source=request.source,
        request_id=request_id,
        request_sha256=None if preview else sha256,
        seen_position=seen_position,
        action_id=action_id,
        command=NO_COMMAND if is_repeated(command, canonical) else msgspec.Raw(canonical),
    )
    return command


def _time_of(asked: datetime | None, now: datetime, *, history: bool) -> datetime:
    """Return the time of a request: its own in history mode, otherwise the ledger's clock."""
    if asked is None:
        return now
    if history:
        return asked.astimezone(UTC)
    if abs(asked - now) > _CLOCK_TOLERANCE:
        message = (
            "time is more than five minutes from the ledger's clock; leave it out, or report what "
            "happened earlier as resolution.action.reported.v1"
        )
        raise RequestError("clock", message, "time")
    return now
