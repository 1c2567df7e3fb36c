"""The writer of flags: reads events for the guard, and records each flag once, even with several guards."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from config import topology
from domain.abuse.guard import Guard
from domain.abuse.history import GuardEvent
from domain.commands import action_id_of
from domain.events import decisions, facts
from domain.events.administration import AccessRecorded
from domain.events.decisions import LEDGER_SOURCE, TYPE_OF
from domain.events.flags import FlagRaised, FlagReviewed, FlagUpdated
from domain.serialization import encode
from ledger.errors import ConflictError, LostEventsError
from ledger.nats.incidents import report
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from ledger.store.subject_tokens import token_of_id
from projections.engine.events import UnknownEventError, read_event, types_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.abuse.findings import Parameters
    from domain.abuse.flag_book import FlagDraft
    from domain.abuse.rule_interface import CountingRule
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


class FlagRecord(NamedTuple):
    """A flag to be recorded: its id, number and subject, and its event without the recorded time."""

    flag_id: str
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
    ) -> None:
        """``event_times``: use event times instead of recorded times, for an imported history."""
        self.guard = Guard(parameters, plugins)
        self._event_times = event_times
        self.position = 0

    def take(self, batch: Sequence[Recorded]) -> list[FlagDraft]:
        """Return the flags that the guard raises for these events."""
        raised: list[FlagDraft] = []
        for recorded in batch:
            self.position = recorded.position
            if any(kind in recorded.data for kind in _IGNORED):
                continue
            try:
                raised += self._raised_by(recorded)
            except Exception as error:  # noqa: BLE001 - an event on which a rule fails must not hide others
                report("the guard cannot judge an event", recorded.position, error)
        return raised

    def _raised_by(self, recorded: Recorded) -> list[FlagDraft]:
        try:
            event = read_event(recorded, _TYPES)
        except UnknownEventError:
            return []  # no rule needs it
        body, stored = event.body, event.stored
        if isinstance(body, FlagReviewed):
            self.guard.reviewed(body.flag_id, recorded.position)
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
)


def flag_of(raised: FlagDraft) -> FlagRecord:
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
    return FlagRecord(raised.flag_id, raised.number, f"{topology.FLAG_SUBJECT}.{token_of_id(raised.flag_id)}", data)


async def record_flag(log: Log, raised: FlagDraft) -> bool:
    """Record a flag unless it is recorded already; return whether it was new.

    Raises:
        LostEventsError: an earlier event of the flag is missing.

    """
    flag = flag_of(raised)
    while True:
        there = await log.read_subject(flag.subject)
        numbers = {_number_of(read_event(stored).body) for stored in there}
        if flag.number in numbers:
            return False
        if flag.number > 1 and flag.number - 1 not in numbers:
            raise LostEventsError(f"flag {flag.flag_id} is not what it was", raised.position)
        try:
            await log.append([Draft(flag.subject, flag.data, there[-1].position if there else 0)])
        except ConflictError:
            continue  # another guard, or a reviewer
        return True


def _number_of(body: object) -> int:
    return body.number if isinstance(body, FlagUpdated) else 1 if isinstance(body, FlagRaised) else 0
