"""Decisions without a server: given events, when a command is decided, then events and an answer.

``given(company()).when(action("5.00")).then(opened("agent:A-7", "200.00"), taken("5.00", ...), answer={...})``

The events are folded into the decider's own state and budgets. Each record is compared whole. A field that a scenario
does not name has the value that the command, the action or the escalation gives it, or else the default of its class;
``ANY`` leaves a field out. Of an answer the named fields are compared, byte for byte.

Each command is decided twice: once as streams are loaded one after the other, and once with all of them loaded. Both
must agree, and neither may change what it read, except the budgets on which it wrote.
"""

from __future__ import annotations

import atexit
import hashlib
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from config import topology
from consumers.decisions.budget_repository import subject_of, subject_of_stream
from consumers.decisions.state.follower import DecisionState
from consumers.decisions.unit_of_work import stored_form
from domain import commands
from domain.actions import ACTION_FIELDS
from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext
from domain.commands import RequestError, action_id_of, escalation_id_of
from domain.decisions import streams
from domain.decisions.decide import NO_HOLDER, decide
from domain.decisions.decision import Decision, Retry
from domain.decisions.escalations import OverdueEscalation
from domain.decisions.fact_postings import PostingCommand
from domain.decisions.holds import OverdueHold
from domain.decisions.known import KnownFlag
from domain.decisions.policies import OverdueProposal
from domain.decisions.recorded_commands import is_repeated
from domain.decisions.streams import StreamNotLoadedError
from domain.events import decisions, facts
from domain.events.causes import NO_COMMAND, RULES_VERSION
from domain.events.decisions import LEDGER_SOURCE, Record
from domain.events.flags import FlagEvent, FlagRaised
from domain.money import Money
from domain.serialization import encode, encode_sorted, plain
from ledger.store.cloudevents import encode_event, time_text, with_corrects
from ledger.store.event_id_index import EventIdIndex
from ledger.store.log import Recorded
from projections.engine.events import TYPES
from tests.support.decision_events import ANY, EARLIER, NOW, Described, instant, money

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from domain.decisions.decide import Command, InternalCommand
    from domain.decisions.streams import BudgetKey, BudgetPeriod, LoadableStream, Stream
    from tests.support.documents import Document

_TYPE_OF = {cls: name for name, cls in TYPES.items()}
_LOADABLE = (
    *(streams.BudgetKey, streams.BudgetPeriod, streams.CustomerStream, streams.OrderStream),
    *(streams.FlagStream, streams.PolicyStream),
)
_COMPARED = frozenset(("source", "request_id", "seen_position", "request_sha256"))
_PROVENANCE = frozenset(Record.__struct_fields__) - _COMPARED
"""Fields of every record that say how a decision was made; a scenario compares them only where it names them."""
_DECIDER = "scenario"
_WAIT = timedelta(hours=48)
_HOLD = timedelta(days=7)


class Shown(NamedTuple):
    """A scenario as a document shows it: the events before, the command, and the outcome with its first reason."""

    given: tuple[Described, ...]
    command: Command | InternalCommand
    outcome: str
    reasons: tuple[decisions.Reason, ...]
    error: RequestError | None
    records: tuple[str, ...]
    """The short types of the recorded events."""
    source: str
    log: tuple[Recorded, ...]
    """All events, as the log holds them."""


TRANSCRIPT: ContextVar[list[Shown] | None] = ContextVar("TRANSCRIPT", default=None)
"""Collects the scenarios that run while it is set."""


class _Stored(NamedTuple):
    recorded: Recorded
    stream: Stream | None
    """The stream of a record; ``None`` for a fact."""
    body: msgspec.Struct
    at: datetime


def rule[F: Callable[[], None]](sentence: str) -> Callable[[F], F]:
    """Mark a scenario as the example of a rule; the documents show its last command."""

    def mark(scenario: F) -> F:
        scenario.__dict__["shown_rule"] = sentence
        return scenario

    return mark


def given(*events: Described | Iterable[Described]) -> Scenario:
    """Return a scenario that begins with these events, in order, at positions from 1 on.

    A budget that an event needs is opened before it, with the grant of the policy in force, unless the scenario opens
    that budget itself.
    """
    scenario = Scenario()
    for event in _flat(events):
        scenario.add(event)
    return scenario


def balance(
    holder: str, granted: str, *, spent: str = "0.00", reserved: str = "0.00", period: str = "2026-03"
) -> Document:
    """Return a balance as answers show it; the remaining amount follows from the others."""
    amounts = [money(text) for text in (granted, spent, reserved)]
    left = amounts[0].minor - amounts[1].minor - amounts[2].minor
    names = dict(zip(("granted", "spent", "reserved"), amounts, strict=True))
    return {"holder": holder, "period": period, **names, "remaining": Money(left, amounts[0].currency)}


class Scenario:
    """The events so far, folded into the state that decisions read."""

    def __init__(self) -> None:
        self.state = DecisionState(empty_index())
        self._stored: list[_Stored] = []
        self._shown: list[Described] = []
        self._unread = False

    @property
    def position(self) -> int:
        """The position of the newest event."""
        return len(self._stored)

    @property
    def recorded(self) -> list[Recorded]:
        """The events as the log holds them."""
        return [one.recorded for one in self._stored]

    @property
    def bodies(self) -> list[msgspec.Struct]:
        """The bodies of the events."""
        return [one.body for one in self._stored]

    def add(self, event: Described, *, read: bool = True) -> None:
        """Add an event; with ``read`` the decider's state knows it."""
        at = event.at or EARLIER
        self._shown.append(event)
        is_fact = issubclass(event.cls, facts.Fact)
        if not is_fact and event.cls is not decisions.BudgetOpened:
            self._open_budget_of(event, at)
        fields = event.fields if is_fact else self._given_fields(event, at)
        body = event.cls(**fields)
        stream = None if is_fact else _stream_of(body)
        data = self._encoded(body, at, event.source if is_fact else LEDGER_SOURCE, event.event_id)
        self._append(stream, body, at, data, read=read, corrects=event.corrects)

    def not_read_yet(self, *events: Described) -> Scenario:
        """Add events that another decider recorded and this one's state has not read; their streams are loaded."""
        for event in events:
            self.add(event, read=False)
        self._unread = True
        return self

    def when(
        self,
        command: Command,
        *,
        at: str | datetime = NOW,
        source: str = "crm",
        request_id: str | None = None,
        current: bool | None = None,
        history: bool = False,
        via: str | None = None,
        rules_version: int = RULES_VERSION,
    ) -> Outcome:
        """Decide a command of a source.

        ``current``: the state was brought up to date for it; otherwise the decider may have to read on first. It is
        where all events of the scenario are read.
        """
        if request_id is not None:
            command = msgspec.structs.replace(command, request_id=request_id)
        named = command.request_id or ""
        is_preview = type(command) is commands.Preview
        body = encode_sorted(command)
        cause = RequestContext(
            source=source,
            request_id=named,
            request_sha256=None if is_preview else hashlib.sha256(body).hexdigest()[:32],
            seen_position=self.state.position,
            action_id="" if is_preview else action_id_of(source, named),
            decider_id=_DECIDER,
            command=NO_COMMAND if is_repeated(command, body) else msgspec.Raw(body),
            via=via,
            rules_version=rules_version,
        )
        now = instant(at) if isinstance(at, str) else at
        is_current = not self._unread if current is None else current
        return self._decided(command, cause, now, current=is_current, history=history)

    def when_time_passes(self, until: str) -> Outcome:
        """Decide the command that is due by a moment: for an escalation without an answer, or a hold."""
        now = instant(until)
        seconds = now.timestamp()
        due: list[OverdueEscalation | OverdueHold | OverdueProposal] = [
            OverdueEscalation(f"agent:{one.asked.agent_id}", one.asked.escalation_id, one.due.timestamp())
            for one in self.state.pending.due_by(seconds)
        ]
        for row in self.state.actions.held_until(seconds):
            assert row.expires_at is not None
            due.append(OverdueHold(row.holder, row.action_id, row.expires_at))
        for proposal in self.state.proposals.due_by(now, self.state.policies.newest_enforced):
            assert proposal.due is not None
            due.append(OverdueProposal(NO_HOLDER, proposal.sha256, proposal.due.timestamp()))
        if not due:
            return Outcome(self, None, None, now, None)
        (command,) = due
        return self.when_due(command, now)

    def when_due(self, command: OverdueEscalation | OverdueHold | OverdueProposal, now: datetime) -> Outcome:
        """Decide a command of the timers at a moment."""
        return self._decided(command, self._cause(LEDGER_SOURCE, f"{command.id}@{command.due:.0f}"), now)

    def when_posted(
        self, position: int | None = None, *, at: str | datetime = NOW, rules_version: int = RULES_VERSION
    ) -> Outcome:
        """Decide the posting of a fact to its budget: of the first fact that is due, or of the one at a position."""
        dues = self.state.pending.dues
        if not dues:
            return Outcome(self, None, None, NOW, None)
        due = dues[position or min(dues)]
        stored = self._stored[due.position - 1]
        command = PostingCommand(due, cast("facts.ActionReported | facts.RefundSettled", stored.body))
        event = msgspec.json.decode(stored.recorded.data, type=_Named)
        cause = self._cause(event.source, event.id)
        cause.rules_version = rules_version
        return self._decided(command, cause, instant(at) if isinstance(at, str) else at)

    def budget(self, holder: str, currency: str = "GBP") -> Budget:
        """Return the newest budget of a holder, folded from its events."""
        found = _Streams(self._stored, None, self.state.position).newest(streams.BudgetKey(holder, currency))
        assert found is not None, f"{holder} has no budget in {currency}"
        return found

    def record(self, decision: Decision) -> None:
        """Record the events of a decision, and read them."""
        expected = {key: _content(budget) for key, budget in decision.changed.items()}
        for event in decision.events:
            data = stored_form(event.record, decision.now)
            self._append(event.stream, event.record, decision.now, data, read=not self._unread)
            if event.record is decision.answering:
                decision.answer["position"] = self.position
        for key, content in expected.items():
            assert _content(self.budget(key.holder, key.currency)) == content, "the log gives another budget"

    # ------------------------------------------------------------------ internals

    @property
    def shown(self) -> tuple[Described, ...]:
        """The events that the scenario named."""
        return tuple(self._shown)

    def _cause(self, source: str, request_id: str) -> RequestContext:
        """Return the cause of a decision that a fact or a timer brings about."""
        position = self.state.position
        return RequestContext(source=source, request_id=request_id, seen_position=position, decider_id=_DECIDER)

    def _append(
        self,
        stream: Stream | None,
        body: msgspec.Struct,
        at: datetime,
        data: bytes,
        *,
        read: bool = True,
        corrects: int | None = None,
    ) -> None:
        """Add an event in its stored form."""
        if corrects is not None:
            data = with_corrects(data, corrects)
        data = b'%b,"recordedtime":"%b"}' % (data[:-1], time_text(at).encode())
        recorded = Recorded(self.position + 1, _subject_of(stream), data)
        self._stored.append(_Stored(recorded, stream, body, at))
        if read:
            originals = {corrects: self._stored[corrects - 1].recorded} if corrects is not None else {}
            self.state.apply([recorded], originals)

    def _encoded(self, body: msgspec.Struct, at: datetime, source: str, event_id: str | None) -> bytes:
        """Return an event that the scenario names as the log stores it."""
        identifier = event_id or f"ev-{self.position + 1}"
        return encode_event(source, identifier, _TYPE_OF[type(body)], at, encode(body))

    def _open_budget_of(self, event: Described, at: datetime) -> None:
        """Open the budget of a record, if the scenario has not done so."""
        body = event.cls(**self._given_fields(event, at))
        stream = _stream_of(body)
        if not isinstance(stream, streams.BudgetPeriod):
            return
        if any(one.stream == stream for one in self._stored):
            return
        rules = self.state.policies.in_force(at)
        assert rules is not None, "a budget needs a policy"
        kind, _, name = stream.holder.partition(":")
        grant = Money(0, stream.currency)
        if kind == "agent" and (agent := self.state.staff.agent(name, rules.policy.default_role)):
            grant = rules.policy.roles[agent.role].budget
        elif kind == "team":
            grant = rules.policy.teams[name].pool or grant
        fields = {"holder": stream.holder, "granted": grant, "carried_over": Money(0, stream.currency)}
        names = {"currency": stream.currency, "period": stream.period, "policy_version": rules.version}
        filled = self._given_fields(Described(decisions.BudgetOpened, fields | names), at)
        opening = decisions.BudgetOpened(**filled)
        self._append(stream, opening, at, self._encoded(opening, at, LEDGER_SOURCE, None))

    def _given_fields(self, event: Described, at: datetime) -> Document:
        """Return the fields of a record that happened before; only required fields need a default."""
        position = self.position + 1
        agent_id = event.fields.get("agent_id", "A-7")
        agent = self.state.staff.agent(agent_id, None)
        holder = event.fields.get("holder") or f"agent:{agent_id}"
        defaults: Document = {
            "source": "crm",
            "request_id": f"given-{position}",
            "seen_position": position - 1,
            "action_id": "act-01",
            "agent_id": agent_id,
            "role": agent.role if agent else "agent",
            "holder": holder,
            "budget": f"agent:{agent_id}",
            "period": f"{at:%Y-%m}",
            "currency": "GBP",
            "due": at + _WAIT,
            "waited_seconds": 0.0,
            **_GIVEN,
        }
        if event.cls is decisions.ActionHeld and "escalation_id" not in event.fields:
            defaults["expires_at"] = at + _HOLD
        wanted = {name for name, required in _fields_of(event.cls) if required} | ({"expires_at"} & defaults.keys())
        if event.cls is decisions.AuthorityFellShort:
            wanted |= {"holder", "period", "role", "policy_version"}
        if event.cls is decisions.PolicyPublished:
            defaults["rules_version"] = RULES_VERSION
            wanted.add("rules_version")
        return {name: defaults[name] for name in wanted if name in defaults} | event.fields

    def _decided(
        self,
        command: Command | InternalCommand,
        cause: RequestContext,
        now: datetime,
        *,
        current: bool = True,
        history: bool = False,
    ) -> Outcome:
        before = self._fingerprint()
        loaded: set[LoadableStream] = set()
        one = self._result(command, cause, now, loaded, current=current, history=history)
        two = self._result(command, cause, now, None, current=current, history=history)
        assert _told(one) == _told(two), "the same command on the same state was decided differently"
        assert self._fingerprint() == before, "the decision changed the state that it read"
        return Outcome(self, command, cause, now, two, frozenset(loaded))

    def _result(
        self,
        command: Command | InternalCommand,
        cause: RequestContext,
        now: datetime,
        loaded: set[LoadableStream] | None,
        *,
        current: bool,
        history: bool,
    ) -> Decision | RequestError | Retry:
        """Decide, and load each stream that the decision asks for; ``loaded`` is ``None`` where all are loaded."""
        while True:
            known = _Streams(self._stored, loaded, self.state.position)
            decision = Decision(self.state, known, cause, now, state_is_current=current, history=history)
            result = decide(command, decision)
            if isinstance(result, _LOADABLE):
                assert loaded is not None
                assert result not in loaded
                loaded.add(result)
                continue
            written = decision.changed if isinstance(result, Decision) else {}
            known.check_unchanged(set(written))
            return result

    def _fingerprint(self) -> bytes:
        state = self.state
        ids = [one.body.action_id for one in self._stored if isinstance(one.body, decisions.Done)]
        return encode(
            [
                state.position,
                state.policies.newest_version,
                [msgspec.structs.asdict(one) for one in state.staff.everybody(None)],
                list(state.pending.open.values()),
                list(state.pending.dues.values()),
                [(state.actions.action(one), one) for one in ids],
            ]
        )


_GIVEN: Document = {
    "kind": "refund",
    "basis": "goodwill",
    "reason": "late",
    "reasons": (),
    "policy_version": 1,
    "training": (),
    "limits": (),
    "authority": "own",
    "payer": "approver",
    "to": ("M-1",),
    "escalation_id": "esc-1",
    "flag_id": "flag-1",
}


class _Named(msgspec.Struct):
    source: str
    id: str


class Outcome:
    """The result of a command; ``then`` and its siblings compare it."""

    def __init__(
        self,
        scenario: Scenario,
        command: Command | InternalCommand | None,
        cause: RequestContext | None,
        now: datetime,
        result: Decision | RequestError | Retry | None,
        loaded: frozenset[LoadableStream] = frozenset(),
    ) -> None:
        """``command`` is ``None`` where nothing was due."""
        self.result = result
        self.loaded = loaded
        """The streams that the decision asked for."""
        self._scenario = scenario
        self._command = command
        self._cause = cause
        self._now = now

    @property
    def events(self) -> list[Record | FlagEvent]:
        """The decided events; none where the command was refused, or where nothing was due."""
        return [event.record for event in self.result.events] if isinstance(self.result, Decision) else []

    @property
    def answer(self) -> Document:
        """The answer to the command."""
        assert isinstance(self.result, Decision), f"the command was not decided: {_told(self.result)}"
        return self.result.answer

    def then(self, *wanted: Described, answer: Document | None = None) -> Scenario:
        """Compare events and answer, and return the scenario with these events recorded."""
        if self.result is not None:
            assert isinstance(self.result, Decision), f"the command was not decided: {_told(self.result)}"
            self._check_events(wanted)
            self._scenario.record(self.result)
        else:
            assert not wanted, "nothing was due"
        if answer is not None:
            self._check_answer(answer)
        self._show()
        return self._scenario

    def refused_with(self, code: str, field: str | None = None) -> Scenario:
        """Check that the answer is this error, which records nothing."""
        assert isinstance(self.result, RequestError), f"no error: {_told(self.result)}"
        assert (self.result.code, self.result.field) == (code, field)
        self._show()
        return self._scenario

    def retries(self, retry: Retry) -> Scenario:
        """Check that the decider has to read on, or to wait, before it can decide."""
        assert self.result is retry
        return self._scenario

    # ------------------------------------------------------------------ internals

    def _check_events(self, wanted: tuple[Described, ...]) -> None:
        assert isinstance(self.result, Decision)
        events = self.result.events
        assert [_short(event.record) for event in events] == [_short(one.cls) for one in wanted]
        for event, one in zip(events, wanted, strict=True):
            expected = self._expected(one, event.record)
            assert plain(event.record) == plain(expected), _short(one.cls)
            assert encode(event.record) == encode(expected)
            assert _place(event.stream) == _place(_stream_of(event.record)), "it is on another stream"
            opens = isinstance(event.record, decisions.BudgetOpened)
            reopens = opens and cast("decisions.BudgetOpened", event.record).reopened
            begins = (opens and not reopens) or isinstance(event.stream, streams.RefusalStream)
            assert (event.begins, event.reopens) == (begins, reopens), "whether its stream must be empty"
        if self._cause is not None and self._cause.request_sha256 is not None:
            hashed = [event.record for event in events if event.record.request_sha256 is not None]
            assert hashed == [self.result.answering], "exactly one event answers a request"

    def _check_answer(self, wanted: Document) -> None:
        answer = self.answer
        missing = wanted.keys() - answer.keys()
        assert not missing, f"the answer has no {sorted(missing)}: {plain(answer)}"
        found = {name: answer[name] for name in wanted}
        filled = {name: _filled(value, answer[name]) for name, value in wanted.items()}
        assert msgspec.json.decode(encode(found)) == msgspec.json.decode(encode(filled))
        assert encode(found) == encode(filled)

    def _expected(self, wanted: Described, actual: Record | FlagEvent) -> msgspec.Struct:
        """Return the record that a scenario describes, with the fields that it does not name."""
        cls, known = wanted.cls, self._known_fields(wanted.cls)
        if cls is decisions.ActionHeld and "escalation_id" in wanted.fields:
            known.pop("escalate", None)  # a reservation is no answer to the request
        answers = isinstance(self.result, Decision) and actual is self.result.answering
        assert self._cause is not None
        known["request_sha256"] = self._cause.request_sha256 if answers else None
        values: Document = {}
        for name, required in _fields_of(cls):
            if name in wanted.fields:
                values[name] = _filled(wanted.fields[name], getattr(actual, name))
            elif name in _PROVENANCE:
                values[name] = getattr(actual, name)
            elif name in known:
                values[name] = known[name]
            else:
                assert not required, f"name the field {name} of {_short(cls)}, or say ANY"
        return cls(**values)

    def _known_fields(self, cls: type[msgspec.Struct]) -> Document:
        """Return the values that follow from the command, from its action or from its escalation."""
        command, cause = self._command, self._cause
        assert cause is not None
        found: Document = {"source": cause.source, "request_id": cause.request_id, "seen_position": cause.seen_position}
        found |= {"policy_version": 1, "currency": "GBP", "period": f"{self._now:%Y-%m}", "training": ()}
        match command:
            case commands.Preview():
                found |= self._shared_fields(command, cls)
                options = ("note_hash", "escalate", "hold")
                found |= {"action_id": cause.action_id} | {name: getattr(command, name) for name in options}
                if cls is decisions.EscalationRequested:
                    found["escalation_id"] = escalation_id_of(cause.source, cause.request_id)
                    del found["holder"]  # of an escalation, the budget that reserves its amount
            case commands.EscalationDecision(escalation_id=escalation_id) | OverdueEscalation(id=escalation_id):
                found |= self._escalation_fields(escalation_id, cls)
            case commands.HoldRequest(action_id=action_id) | commands.ReversalRequest(action_id=action_id):
                found |= self._posting_fields(action_id)
            case OverdueHold():
                found |= self._posting_fields(command.id)
            case PostingCommand():
                found |= self._posting_fields(command.due.action_id) | {"relates_to": command.due.position}
            case commands.FlagRequest():
                found |= {"flag_id": command.flag_id}
        return found | self._agent_fields(found, cls)

    def _agent_fields(self, found: Document, cls: type[msgspec.Struct]) -> Document:
        """Return the fields about the agent of a record, as the staff has them."""
        command, state = self._command, self._scenario.state
        is_decision = isinstance(command, commands.EscalationDecision)
        is_attempt = is_decision and cls is decisions.AuthorityFellShort
        agent_id = command.decided_by if is_attempt else found.get("agent_id", "")  # type: ignore[union-attr]
        agent = state.staff.agent(agent_id, None)
        if agent is None or state.policies.in_force(self._now) is None:
            return {}
        if is_decision and not is_attempt:
            return {"role": agent.role}  # the other fields are the escalation's
        fields: Document = {"role": agent.role, "manager_id": agent.manager_id, "agent_kind": agent.kind}
        if isinstance(command, commands.Preview) and found["team_id"] is None and agent.team_ids:
            fields |= {"team_id": agent.team_ids[0], "team_filled": "team_filled" in cls.__struct_fields__}
        return fields

    def _shared_fields(self, of: msgspec.Struct, cls: type[msgspec.Struct]) -> Document:
        """Return the fields that an action's records copy, with the holder of its budget."""
        names = [name for name in ACTION_FIELDS if name != "amount"]
        if issubclass(cls, decisions.Posting):
            names = [name for name in names if name != "reason"]
        found = {name: getattr(of, name) for name in names}
        holder = f"agent:{found['agent_id']}"
        return found | {"holder": holder, "budget": holder}

    def _escalation_fields(self, escalation_id: str, cls: type[msgspec.Struct]) -> Document:
        """Return the fields that the records of an escalation copy."""
        escalation, command = self._scenario.state.pending.open[escalation_id], self._command
        asked = escalation.asked
        found = self._shared_fields(asked, cls) | {"action_id": asked.action_id, "escalation_id": escalation_id}
        if issubclass(cls, decisions.EscalationStep):
            waited = (self._now - escalation.at).total_seconds()
            found |= {"amount": asked.amount, "asked": asked.amount, "waited_seconds": waited}
            assert self._cause is not None
            found["requested_by_source"] = asked.source if asked.source != self._cause.source else None
            if isinstance(command, commands.EscalationDecision):
                found |= {"decided_by": command.decided_by, "reason": command.reason}
        elif isinstance(command, commands.EscalationDecision) and cls is decisions.ActionTaken:
            found |= {"decided_by": command.decided_by, "authority": "approved"}
        return found

    def _posting_fields(self, action_id: str) -> Document:
        """Return the fields that the postings of an action copy."""
        row = self._scenario.state.actions.action(action_id)
        assert row is not None
        names = ("action_id", "agent_id", "basis", "customer_id", "interaction_id", "holder")
        return {name: getattr(row, name) for name in names}

    def _show(self) -> None:
        transcript = TRANSCRIPT.get()
        if transcript is None or self._command is None:
            return
        error = self.result if isinstance(self.result, RequestError) else None
        answer: Document = self.result.answer if isinstance(self.result, Decision) else {}
        outcome = "error" if error else str(answer.get("outcome", ""))
        reasons = tuple(one for one in answer.get("reasons", ()) if isinstance(one, decisions.Reason))
        records = tuple(_short(event) for event in self.events)
        source = self._cause.source if self._cause is not None else ""
        log = tuple(self._scenario.recorded)
        shown = Shown(self._scenario.shown, self._command, outcome, reasons, error, records, source, log)
        transcript.append(shown)


class _Streams:
    """The streams of a scenario, folded anew; one that is not in ``loaded`` must be loaded first."""

    def __init__(self, stored: list[_Stored], loaded: set[LoadableStream] | None, read_position: int) -> None:
        self._stored = stored
        self._loaded = loaded
        self._read_position = read_position
        self._budgets: dict[BudgetKey, Budget] = {}

    def newest(self, key: BudgetKey) -> Budget | None:
        """Return the newest budget of a holder."""
        self._need(key)
        newest = self._newest_stream(key)
        if newest is None:
            return None
        budget = self._budgets[key] = self._fold(newest)
        return budget

    def of_period(self, period: BudgetPeriod) -> Budget | None:
        """Return the budget of a period."""
        self._need(period)
        return self._fold(period) if self._last_on(period) else None

    def may_exist(self, key: BudgetKey) -> bool:
        """Return whether an event on this budget was not read yet."""
        return not self.is_read(key)

    def is_read(self, key: BudgetKey) -> bool:
        """Return whether the state has read all events of a holder's newest budget."""
        newest = self._newest_stream(key)
        return newest is None or self._last_on(newest) <= self._read_position

    def is_known(self, stream: BudgetKey | streams.CustomerStream | streams.OrderStream) -> bool:
        """Return whether the state has read all that others wrote to a stream."""
        if isinstance(stream, streams.BudgetKey):
            return self.is_read(stream)
        self._need(stream)
        return self._last_on(stream) <= self._read_position

    def last_position(self, stream: streams.PolicyStream) -> int:
        """Return the position of the last event of a stream."""
        self._need(stream)
        return self._last_on(stream)

    def flag(self, stream: streams.FlagStream) -> KnownFlag | None:
        """Return a flag, with the people who gave what its evidence shows."""
        self._need(stream)
        raised = [one.body for one in self._stored if one.stream == stream and isinstance(one.body, FlagRaised)]
        if not raised:
            return None
        evidence = [one.body for one in self._stored if one.recorded.position in raised[-1].evidence]
        names = ("decided_by", "on_behalf_of", "granted_by", "published_by")
        givers = [getattr(body, name, None) for body in evidence for name in names]
        return KnownFlag(raised[-1].about, frozenset(name for name in givers if name is not None))

    def check_unchanged(self, written: set[BudgetKey]) -> None:
        """Check that budgets without a new event are as they were loaded."""
        for key, budget in self._budgets.items():
            if key in written:
                continue
            newest = self._newest_stream(key)
            assert newest is not None
            assert _content(budget) == _content(self._fold(newest)), f"the budget of {key.holder} changed"

    def _need(self, key: LoadableStream) -> None:
        if self._loaded is not None and key not in self._loaded:
            raise StreamNotLoadedError(key)

    def _newest_stream(self, key: BudgetKey) -> BudgetPeriod | None:
        for one in reversed(self._stored):
            stream = one.stream
            if isinstance(stream, streams.BudgetPeriod) and (stream.holder, stream.currency) == (
                key.holder,
                key.currency,
            ):
                return stream
        return None

    def _last_on(self, stream: Stream) -> int:
        return max((one.recorded.position for one in self._stored if one.stream == stream), default=0)

    def _fold(self, stream: BudgetPeriod) -> Budget:
        return Budget.from_records([(one.body, one.at) for one in self._stored if one.stream == stream])


# ---------------------------------------------------------------------- helpers


@cache
def empty_index() -> EventIdIndex:
    """Return an index that stays empty: states keep what they read in memory, and no scenario writes it."""
    folder = TemporaryDirectory()
    index = EventIdIndex(Path(folder.name) / "scenarios.sqlite")
    atexit.register(folder.cleanup)
    atexit.register(index.close)
    return index


@cache
def _fields_of(cls: type[msgspec.Struct]) -> tuple[tuple[str, bool], ...]:
    """Return the fields of a class, each with whether it is required."""
    return tuple((field.name, field.required) for field in msgspec.structs.fields(cls))


def _flat(events: Iterable[Described | Iterable[Described]]) -> Iterator[Described]:
    for event in events:
        if isinstance(event, Described):
            yield event
        else:
            yield from event


def _stream_of(record: Any) -> Stream:
    """Return the stream that a record's own fields name."""
    match record:
        case (
            decisions.PolicyPublished()
            | decisions.PolicyProposed()
            | decisions.PolicyApproved()
            | decisions.PolicyObjected()
        ):
            return streams.PolicyStream()
        case FlagEvent():
            return streams.FlagStream(record.flag_id)
        case decisions.CustomerCharged():
            return streams.CustomerStream(record.customer_id)
        case decisions.OrderCharged():
            return streams.OrderStream(record.order_id)
        case decisions.AuthorityFellShort() if record.holder is None:
            return streams.RefusalStream(record.source, record.request_id)
    is_step = isinstance(record, decisions.EscalationRequested | decisions.EscalationStep)
    if isinstance(record, decisions.BudgetOpened | decisions.EscalationRequested):
        currency = record.currency
    else:
        currency = (record.spent if isinstance(record, decisions.BudgetClosed) else record.amount).currency
    return streams.BudgetPeriod(record.budget if is_step else record.holder, currency, record.period)


def _place(stream: Stream) -> object:
    """Return a stream without its currency, which is the budget's and may differ from the action's."""
    return (stream.holder, stream.period) if isinstance(stream, streams.BudgetPeriod) else stream


def _subject_of(stream: Stream | None) -> str:
    if stream is None:
        return f"{topology.FACT_SUBJECT}.crm"
    if isinstance(stream, streams.BudgetPeriod):
        return subject_of(stream.holder, stream.currency, stream.period)
    return subject_of_stream(stream)


def _content(budget: Budget) -> Document:
    """Return the fields of a budget; the time of its last event is left out."""
    return {name: value for name, value in vars(budget).items() if not name.startswith("_")}


def _filled(wanted: Any, actual: Any) -> Any:
    """Return a wanted value in which each ``ANY`` is replaced by the actual value."""
    if wanted is ANY:
        return actual
    if isinstance(wanted, decisions.Reason) and isinstance(actual, decisions.Reason):
        return msgspec.structs.replace(wanted, message=_filled(wanted.message, actual.message))
    if isinstance(wanted, tuple | list) and isinstance(actual, tuple | list) and len(wanted) == len(actual):
        return tuple(_filled(one, other) for one, other in zip(wanted, actual, strict=True))
    if isinstance(wanted, tuple | list):
        return tuple(msgspec.structs.replace(one, message="") if _is_reason(one) else one for one in wanted)
    return wanted


def _is_reason(value: object) -> bool:
    return isinstance(value, decisions.Reason)


def _short(of: msgspec.Struct | type[msgspec.Struct]) -> str:
    """Return the stored type of a record without prefix and version, e.g. ``action.taken``."""
    cls = of if isinstance(of, type) else type(of)
    return _TYPE_OF[cls].removeprefix("resolution.").removesuffix(".v1")


def _told(result: Decision | RequestError | Retry | None) -> str:
    """Return a result as text, for comparisons and messages."""
    match result:
        case Decision():
            events = [
                f"{event.stream} {_short(event.record)} {encode(event.record).decode()}" for event in result.events
            ]
            return "\n".join([*events, encode(result.answer).decode()])
        case RequestError():
            return encode(result.wire()).decode()
    return str(result)
