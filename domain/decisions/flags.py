"""Reviews of flags, and answers to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.commands import RequestError
from domain.decisions.streams import FlagStream
from domain.events.flags import FlagAnswered, FlagReviewed, FlagUnmasked

if TYPE_CHECKING:
    from domain.budgets.postings import RequestContext
    from domain.commands import FlagRequest
    from domain.decisions.decision import Decision


def review_flag(command: FlagRequest, decision: Decision) -> Decision:
    """Record the review of a flag, the answer of the person concerned, or that a reviewer looked up the names."""
    record = _record_of(command, decision.cause)
    stream = FlagStream(command.flag_id)
    if not decision.streams.last_position(stream):
        raise RequestError("unknown_flag", f"no flag {command.flag_id} was raised", "flag_id")
    decision.write_to(stream, record)
    return decision.answer_with(record)


def _record_of(command: FlagRequest, cause: RequestContext) -> FlagReviewed | FlagAnswered | FlagUnmasked:
    flag_id, answer = command.flag_id, cause.answer()
    if command.unmasked_by is not None and command.verdict is None and command.text is None:
        return FlagUnmasked(flag_id=flag_id, unmasked_by=command.unmasked_by, **answer)
    if command.verdict is not None and command.reviewed_by is not None:
        return FlagReviewed(
            flag_id=flag_id, verdict=command.verdict, reviewed_by=command.reviewed_by, note=command.note, **answer
        )
    if command.employee_id is not None and command.text is not None:
        return FlagAnswered(flag_id=flag_id, employee_id=command.employee_id, text=command.text, **answer)
    field = "reviewed_by" if command.verdict is not None else "verdict"
    raise RequestError(
        "invalid", "a review needs verdict and reviewed_by; an answer employee_id and text; or unmasked_by", field
    )
