"""Reviews of flags, and answers to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.commands import RequestError
from domain.decisions.governance import CODE, is_operator, refuse_own_benefit, require_named
from domain.decisions.streams import FlagStream
from domain.events.flags import FlagAnswered, FlagReviewed, FlagUnmasked

if TYPE_CHECKING:
    from domain.budgets.postings import RequestContext
    from domain.commands import FlagRequest
    from domain.decisions.decision import Decision
    from domain.decisions.known import KnownFlag


def review_flag(command: FlagRequest, decision: Decision) -> Decision:
    """Record the review of a flag, the answer of the person concerned, or that a reviewer looked up the names."""
    record = _record_of(command, decision.cause)
    stream = FlagStream(command.flag_id)
    flag = decision.streams.flag(stream)
    if flag is None:
        raise RequestError("unknown_flag", f"no flag {command.flag_id} was raised", "flag_id")
    if not isinstance(record, FlagAnswered):
        _check_reviewer(record, flag, decision)
    decision.write_to(stream, record)
    return decision.answer_with(record)


def _check_reviewer(record: FlagReviewed | FlagUnmasked, flag: KnownFlag, decision: Decision) -> None:
    """Refuse a reviewer with an interest in the flag, or without the right by the governance in force.

    Raises:
        RequestError: the person may not review this flag.

    """
    field, person_id = (
        ("reviewed_by", record.reviewed_by) if isinstance(record, FlagReviewed) else ("unmasked_by", record.unmasked_by)
    )
    people = [name for kind, _, name in (subject.partition(":") for subject in flag.about)]
    refuse_own_benefit(decision, person_id, people, field, "review a flag about")
    if person_id in flag.givers:
        raise RequestError(CODE, "nobody reviews a flag about an approval or a grant that they gave", field)
    rules = decision.state.policies.in_force(decision.now)
    if rules is not None and rules.policy.governance is not None and not is_operator(decision.cause):
        require_named(decision, person_id, rules.policy.governance.reviews, field, "review flags")


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
