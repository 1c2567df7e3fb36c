"""The writer of flags: reads events for the guard, and records each flag once, even with several guards."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from config import topology
from domain.abuse.flag_book import FlagDraft
from domain.abuse.guard import Guard
from domain.abuse.history import GuardEvent
from domain.commands import action_id_of
from domain.events import decisions, facts
from domain.events.administration import AccessRecorded
from domain.events.decisions import LEDGER_SOURCE, TYPE_OF
from domain.events.flags import (
    CaseEvent,
    CaseOpened,
    CaseRanked,
    CaseUpdated,
    FlagRaised,
    FlagReviewed,
    FlagUpdated,
)
from domain.keyed_state import LostRowError
from domain.money import Money
from domain.serialization import encode
from ledger.errors import ConflictError, LostEventsError, StateError
from ledger.nats.incidents import report
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from ledger.store.subject_tokens import token_of_id
from projections.engine.events import UnknownEventError, read_event, types_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.abuse.cases import CaseDraft
    from domain.abuse.findings import Parameters
    from domain.abuse.rule_interface import CountingRule
    from domain.keyed_state import State
    from ledger.store.log import Log, Recorded

_TYPES = types_of(
    decisions.ActionTaken,
    decisions.ActionHeld,
    decisions.ActionSettled,
    decisions.ActionVoided,
    decisions.ActionReversed,
    decisions.ActionCharged,
    decisions.AuthorityFellShort,
    decisions.PolicyPublished,
    decisions.BudgetGranted,
    decisions.BudgetTransferred,
    decisions.BudgetDrawn,
    decisions.EscalationRequested,
    decisions.EscalationApproved,
    decisions.EscalationDenied,
    facts.ActionReported,
    facts.InteractionOpened,
    facts.InteractionTransferred,
    facts.CustomerLinked,
    facts.CustomerUnlinked,
    facts.EmployeeJoined,
    facts.EmployeeChanged,
    facts.EmployeeLeft,
    facts.RelationshipDeclared,
    facts.RecognitionGiven,
    facts.ShiftStarted,
    facts.ShiftEnded,
    facts.PurchaseCompleted,
    facts.PurchaseReturned,
    facts.FeedbackReceived,
    facts.CustomerReferred,
    facts.DelegationDeclared,
    facts.FactCorrected,
    AccessRecorded,
    FlagReviewed,
)


class NumberedRecord(NamedTuple):
    """A flag or case to be recorded: its number and subject, and its event without the recorded time."""

    number: int
    subject: str
    data: bytes


class FlagWriter:
    """Runs the guard over the log in order. The same log always gives the same flags."""

    def __init__(
        self,
        parameters: Mapping[str, Parameters] | None = None,
        *,
        event_times: bool = False,
        plugins: Sequence[CountingRule] = (),
        state: State | None = None,
    ) -> None:
        """``event_times``: use event times instead of recorded times, for an imported history."""
        self.guard = Guard(parameters, plugins, state)
        self._event_times = event_times
        self.position = 0

    def take(self, batch: Sequence[Recorded]) -> list[FlagDraft]:
        """Return the flags that the guard raises for these events.

        Raises:
            StateError: the guard's state cannot be read.
            LostRowError: a row of the state is missing.

        """
        raised: list[FlagDraft] = []
        for recorded in batch:
            self.position = recorded.position
            if any(kind in recorded.data for kind in _IGNORED):
                continue
            try:
                raised += self._raised_by(recorded)
            except (StateError, LostRowError):
                raise  # the state cannot be read, so nothing may follow from it
            except Exception as error:  # noqa: BLE001 - an event on which a rule fails must not hide others
                report("the guard cannot judge an event", recorded.position, error)
        return raised

    def take_cases(self) -> list[CaseDraft]:
        """Return the events of cases since the last call."""
        return self.guard.take_cases()

    def _raised_by(self, recorded: Recorded) -> list[FlagDraft]:
        try:
            event = read_event(recorded, _TYPES)
        except UnknownEventError:
            return []  # no rule needs it
        body, stored = event.body, event.stored
        if isinstance(body, FlagReviewed):
            moment = event.time if self._event_times else event.recorded
            self.guard.reviewed(body.flag_id, recorded.position, body.verdict, moment.timestamp())
            return []
        action_id = action_id_of(stored.source, stored.id) if isinstance(body, facts.ActionReported) else ""
        at = event.time.timestamp()
        recorded_at = at if self._event_times else event.recorded.timestamp()
        name = f"{stored.source}\0{stored.id}"
        return self.guard.take(GuardEvent(recorded.position, at, recorded_at, body, action_id, name, stored.corrects))


_IGNORED = (
    b'"type":"resolution.gap.v1"',
    b'"type":"resolution.flag.raised.v1"',
    b'"type":"resolution.flag.updated.v1"',
    b'"type":"resolution.case.',
)


def flag_of(raised: FlagDraft) -> NumberedRecord:
    """Return the event of a flag; its id, time and content depend on the log alone."""
    finding, moment = raised.finding, datetime.fromtimestamp(raised.recorded, UTC)
    make = FlagRaised if raised.number == 1 else partial(FlagUpdated, number=raised.number)
    record = make(
        flag_id=raised.flag_id,
        source=LEDGER_SOURCE,
        request_id=f"{raised.flag_id}.{raised.number}",
        seen_position=raised.position,
        rule=finding.rule,
        rule_version=finding.version,
        about=finding.about,
        explanation=finding.explanation,
        evidence=finding.evidence,
    )
    name = TYPE_OF[type(record)]
    data = encode_event(LEDGER_SOURCE, f"{raised.flag_id}.{raised.number}", name, moment, encode(record))
    return NumberedRecord(raised.number, f"{topology.FLAG_SUBJECT}.{token_of_id(raised.flag_id)}", data)


def case_of(draft: CaseDraft) -> NumberedRecord:
    """Return the event of a case; its id, time and content depend on the log alone."""
    moment, name = datetime.fromtimestamp(draft.recorded, UTC), f"{draft.case_id}.{draft.number}"
    record = _CASES[draft.state](
        case_id=draft.case_id,
        number=draft.number,
        source=LEDGER_SOURCE,
        request_id=name,
        seen_position=draft.position,
        subject=draft.subject,
        about=draft.about,
        flag_ids=draft.flag_ids,
        rules=draft.rules,
        rank=draft.rank,
        score=draft.score,
        expected_loss=None if draft.loss is None else Money(*draft.loss),
        explanation=draft.explanation,
    )
    data = encode_event(LEDGER_SOURCE, name, TYPE_OF[type(record)], moment, encode(record))
    return NumberedRecord(draft.number, f"{topology.CASE_SUBJECT}.{token_of_id(draft.case_id)}", data)


_CASES = {"ranked": CaseRanked, "opened": CaseOpened, "updated": CaseUpdated}


async def record_draft(log: Log, draft: FlagDraft | CaseDraft) -> bool:
    """Record the event of a flag or a case unless it is recorded already; return whether it was new.

    Raises:
        LostEventsError: an earlier event of it is missing.

    """
    record = flag_of(draft) if isinstance(draft, FlagDraft) else case_of(draft)
    while True:
        there = await log.read_subject(record.subject)
        numbers = {_number_of(read_event(stored).body) for stored in there}
        if record.number in numbers:
            return False
        if record.number > 1 and record.number - 1 not in numbers:
            raise LostEventsError(f"{record.subject} is not what it was", draft.position)
        try:
            await log.append([Draft(record.subject, record.data, there[-1].position if there else 0)])
        except ConflictError:
            continue  # another guard, or a reviewer
        return True


def _number_of(body: object) -> int:
    return body.number if isinstance(body, (FlagUpdated, CaseEvent)) else 1 if isinstance(body, FlagRaised) else 0
