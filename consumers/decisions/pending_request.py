"""Requests as they come: read, checked, and waiting for their answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from consumers.decisions.handlers.requests import REQUESTS, CommandResult
from consumers.runtime.request_form import read_form
from consumers.runtime.source_tokens import read_token, refuse_foreign, request_refusal
from domain.budgets.postings import RequestContext
from domain.commands import Preview, RequestError, action_id_of
from domain.serialization import encode
from ledger.store.subject_tokens import fact_token

if TYPE_CHECKING:
    from collections.abc import Callable

_CLOCK_TOLERANCE = timedelta(minutes=5)


class PendingRequest:
    """A request that waits for its answer."""

    __slots__ = (
        "_answer",
        "answer_to",
        "answered",
        "attempts",
        "body",
        "cause",
        "duplicates",
        "key",
        "now",
        "old_key",
        "operation",
        "refusal",
        "request",
        "rows",
        "ruling",
        "sealed",
        "source",
        "state_is_current",
        "token",
    )

    cause: RequestContext
    now: datetime

    def __init__(
        self,
        token: str,
        operation: str,
        body: bytes,
        answer: Callable[[bytes], None],
        answer_to: bytes = b"",
        *,
        sealed: bool = False,
        refusal: RequestError | None = None,
    ) -> None:
        self.token = token  # of its source, in the subject
        self.source = read_token(token).source
        self.operation = operation
        self.body = body
        self.sealed = sealed
        self.refusal = refusal  # the answer, unless the request was answered before
        self.answered = False
        self.ruling = CommandResult(None, {})
        self._answer = answer
        self.answer_to = answer_to  # the subject that the answer goes to, where another may send it
        self.state_is_current = False  # whether the directory was brought up to date for this request
        self.request: Any = None
        self.key = b""
        self.old_key = b""  # what an earlier version named it by, where that differs
        self.attempts = 0
        self.rows: list[tuple[Any, int]] = []  # what it gives, each with the number of its entry
        self.duplicates: list[PendingRequest] = []  # the same request again, while this one was being decided

    def finish(self, answer: dict[str, Any]) -> None:
        """Give the answer, once."""
        if not self.answered:
            self.answered = True
            self._answer(encode(answer))

    def pass_on(self, answer: bytes) -> None:
        """Give an answer that somebody else gave."""
        if not self.answered:
            self.answered = True
            self._answer(answer)


class _Asked(msgspec.Struct):
    agent_id: str


_asked = msgspec.json.Decoder(_Asked)


def holder_in(body: bytes) -> str | None:
    """Whose budget it is that the agent in a request acts on, at a glance; the rest may be no request at all."""
    try:
        return f"agent:{_asked.decode(body).agent_id}"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_request(waiting: PendingRequest, now: datetime, seen_position: int, *, history: bool) -> None:
    """Understand a request.

    Earlier versions took sources that are refused now; a request of theirs still gets its first answer.

    Raises:
        RequestError: the error is the answer, whatever was answered before.

    """
    refuse_foreign(waiting.token)
    waiting.refusal = request_refusal(waiting.token) or waiting.refusal
    wanted = REQUESTS.get(waiting.operation)
    if wanted is None:
        message = f"there is no request {waiting.operation!r}; there are {', '.join(REQUESTS)}"
        raise RequestError("unknown_operation", message)
    request, sha256, refusal = read_form(wanted, waiting.body, sealed=waiting.sealed)
    waiting.refusal = waiting.refusal or refusal
    waiting.now = now
    try:
        waiting.now = _time_of(request.time, now, history=history)
    except RequestError as error:
        waiting.refusal = waiting.refusal or error
    waiting.request = request
    request_id = request.request_id or ""
    preview = type(request) is Preview
    action_id = ""
    if not preview:
        action_id = action_id_of(waiting.source, request_id)
        waiting.key = bytes.fromhex(action_id[4:])  # as `request_key` has it
        if (old_source := fact_token(waiting.source)) != waiting.source:
            waiting.old_key = bytes.fromhex(action_id_of(old_source, request_id)[4:])
    elif waiting.refusal is not None:  # a preview has no first answer
        raise waiting.refusal
    waiting.cause = RequestContext(
        source=waiting.source,
        request_id=request_id,
        request_sha256=None if preview else sha256,
        seen_position=seen_position,
        action_id=action_id,
    )


def _time_of(asked: datetime | None, now: datetime, *, history: bool) -> datetime:
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
