"""Random histories of decisions: commands in any order, with time that passes between them, on budgets of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

from domain.decisions.decision import Decision
from domain.decisions.escalations import OverdueEscalation
from domain.decisions.holds import OverdueHold
from domain.events.decisions import ActionHeld, ActionTaken
from domain.money import Money
from tests.support import decision_commands
from tests.support.decision_company import company
from tests.support.decision_events import NOW, linked, reported, trained
from tests.support.decision_scenarios import Scenario, given
from tests.support.independent_books import Kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.decisions.decide import Command
    from tests.support.documents import Document

AGENTS = ("A-7", "A-7", "A-8", "D-1", "D-2", "M-1")
_APPROVERS = ("M-1", "X-1", "M-2", "A-8")
_TEAM_PAYS: Document = {"escalation": {"payer": "team", "after_hours": 48, "then": "next_level"}}
_SOON_EMPTY: Document = {"agent": {"budget": "60.00", "carry_over": "20.00"}}
_TRUE = st.just(value=True)


class Step(NamedTuple):
    """A command of a history: its name, the fields of a request, an amount, a choice, and the hours before it."""

    name: str
    fields: dict[str, Any]
    amount: str
    choice: int
    hours: int


_minor = st.sampled_from((0, 1, 500, 1500, 2000, 4999, 5000, 5001, 6000, 9000)) | st.integers(0, 9000)
amounts = _minor.map(lambda minor: Money(minor, "GBP").text)
"""Amounts in pounds, many of them near a limit."""
requests = st.fixed_dictionaries(
    {
        "agent_id": st.sampled_from(AGENTS),
        "kind": st.sampled_from(("refund", "refund", "refund", "fix", "keep_item", "credit", "gift")),
        "basis": st.sampled_from(("goodwill", "goodwill", "goodwill", "correction")),
    },
    optional={
        "customer_id": st.sampled_from(("C-1", "C-2", "C-3", "A-7")),
        "interaction_id": st.sampled_from(("I-1", "I-2")),
        "hold": _TRUE,
        "escalate": _TRUE,
    },
)
"""The fields of a request for an action."""
_names = st.sampled_from(
    (
        *("action", "action", "action", "action", "preview", "ask", "settle", "void", "reverse"),
        *("approve", "approve", "deny", "forward", "withdraw", "grant", "transfer"),
    )
)
_hours = st.sampled_from((0, 0, 0, 1, 1, 5, 30, 200))
steps = st.lists(st.builds(Step, _names, requests, amounts, st.integers(0, 30), _hours), min_size=5, max_size=25)
"""The steps of a history."""


class History:
    """A scenario under random commands, with independent books of its budgets.

    The company has a household, one trained agent, and budgets that are soon empty.
    """

    def __init__(self, *, team_pays: bool = False, soon_empty: bool = True) -> None:
        changes = (_SOON_EMPTY if soon_empty else {}) | (_TEAM_PAYS if team_pays else {})
        facts = linked("C-1", "C-2"), linked("D-2", "C-3"), trained("A-7")
        self.scenario: Scenario = given(company(**changes), *facts)
        self.now = NOW
        self.books = Kept()
        self._actions: list[str] = []
        self._escalations: list[str] = []
        self._number = 0
        self.reported: dict[str, int] = {}
        """The amounts of reports by the id of the request, in minor units."""
        self._read = 0
        self._keep_books()

    def take(self, step: Step) -> tuple[Command, Decision | None]:
        """Let time pass, decide a step, and record its events; return the command with the decision.

        The decision is ``None`` where the answer is an error.
        """
        self.now += timedelta(hours=step.hours)
        self._pass_time()
        self._number += 1
        command = self._command(step)
        outcome = self.scenario.when(command, at=self.now, request_id=f"r-{self._number}")
        if not isinstance(outcome.result, Decision):
            return command, None
        self._record(outcome.result)
        return command, outcome.result

    def report(self, amount: str, agent_id: str, event_id: str) -> None:
        """Add an action that was taken offline, and post it."""
        self.scenario.add(reported(amount, agent_id, event_id=event_id))
        result = self.scenario.when_posted(at=self.now).result
        assert isinstance(result, Decision)
        self._record(result)

    def report_again(self, choice: int, amount: str) -> None:
        """Report the action of an earlier request, or of one that may follow, and post the report; once each."""
        name = f"r-{choice % (self._number + 3) + 1}"
        if name not in self.reported:
            self.reported[name] = Money.parse(amount, "GBP").minor
            self.report(amount, "A-7", name)

    def remaining(self) -> dict[str, int]:
        """Return the remaining amount of each holder's newest budget, in minor units."""
        holders = {holder for holder, _, _ in self.books.books}
        return {holder: self.scenario.budget(holder).remaining_minor for holder in holders}

    def _pass_time(self) -> None:
        """Decide the commands of the timers that are due."""
        state, seconds = self.scenario.state, self.now.timestamp()
        due: list[OverdueEscalation | OverdueHold] = [
            OverdueEscalation(f"agent:{one.asked.agent_id}", one.asked.escalation_id, one.due.timestamp())
            for one in state.pending.due_by(seconds)
        ]
        due += [
            OverdueHold(row.holder, row.action_id, row.expires_at or 0) for row in state.actions.held_until(seconds)
        ]
        for one in due:
            result = self.scenario.when_due(one, self.now).result
            assert isinstance(result, Decision)
            self._record(result)

    def _record(self, decision: Decision) -> None:
        self.scenario.record(decision)
        for event in decision.events:
            if isinstance(event.record, ActionTaken | ActionHeld):
                self._actions.append(event.record.action_id)
        if "escalation_id" in decision.answer:
            self._escalations.append(str(decision.answer["escalation_id"]))
        self._keep_books()

    def _keep_books(self) -> None:
        for recorded in self.scenario.recorded[self._read :]:
            self.books.read(recorded)
        self._read = self.scenario.position

    def _command(self, step: Step) -> Command:
        action_id = self._actions[step.choice % len(self._actions)] if self._actions else "act-0"
        escalation_id = self._escalations[step.choice % len(self._escalations)] if self._escalations else "esc-0"
        agent_id, odd = step.fields["agent_id"], step.choice % 2
        words: dict[str, tuple[str | None, ...]] = {
            "settle": (action_id, step.amount if odd else None),
            "reverse": (action_id, step.amount if odd else None),
            "void": (action_id,),
            "withdraw": (escalation_id, agent_id),
            "grant": (f"agent:{agent_id}", step.amount),
            "transfer": (f"agent:{agent_id}", "agent:A-8" if odd else "team:doorstep", step.amount),
        }
        words |= dict.fromkeys(("approve", "deny", "forward"), (escalation_id, _APPROVERS[step.choice % 4]))
        build: Callable[..., Command] = getattr(decision_commands, step.name)
        if step.name in words:
            return build(*words[step.name])
        return build(step.amount, **(step.fields | {"escalate": False} if step.name == "ask" else step.fields))
