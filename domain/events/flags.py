"""Flags and cases: suspected misuse, evidence and reviews. These classes are storage formats, as records are."""

from __future__ import annotations

from typing import Literal

from domain.events.causes import Caused
from domain.money import Money
from domain.serialization import Id, Personal

Verdict = Literal["confirmed", "coached", "dismissed"]


class FlagEvent(Caused, frozen=True, kw_only=True):
    """The base of a flag's events, which the guard or a request caused."""

    flag_id: str


class FlagRaised(FlagEvent, frozen=True, kw_only=True):
    """The guard asked for a human review; a flag is never a verdict."""

    rule: str
    rule_version: int
    about: tuple[str, ...]
    """The people concerned: `agent:<id>`, `customer:<id>`."""
    explanation: str
    evidence: tuple[int, ...]
    """The positions of the events that prove it."""


class FlagUpdated(FlagRaised, frozen=True, kw_only=True):
    """More evidence was found for a flag; the event names all of it."""

    number: int
    """2 and on; the event that raised the flag counts as 1."""


class FlagUnmasked(FlagEvent, frozen=True, kw_only=True):
    """A reviewer looked up the names behind a flag's pseudonyms (`privacy.pseudonyms`)."""

    unmasked_by: Id


class FlagReviewed(FlagEvent, frozen=True, kw_only=True):
    """A human reviewed the flag."""

    verdict: Verdict
    reviewed_by: Id
    note: Personal | None = None


class FlagAnswered(FlagEvent, frozen=True, kw_only=True):
    """The employee concerned answered the flag."""

    employee_id: Id
    text: Personal


class CaseEvent(Caused, frozen=True, kw_only=True):
    """The base of a case's events. A case is all open flags about one subject, reviewed together."""

    case_id: str
    number: int
    """1 for the case's first event, then 2 and on."""
    subject: str
    """`agent:<id>`, or `customer:<id>` where no agent is concerned."""
    about: tuple[str, ...]
    """All people concerned, the subject first."""
    flag_ids: tuple[str, ...]
    rules: tuple[str, ...]
    """The rules of the flags that are open."""
    rank: int
    """Its place among the cases that waited that night; 1 is the best."""
    score: float | None = None
    """The chance times 1 + the loss in usual actions: reviewers look at the highest first. Absent in early events."""
    expected_loss: Money | None = None
    """The amount of the evidence times the flags' strength; absent where the evidence has no amounts."""
    explanation: str
    """One paragraph: the flag to look at first, and peers' numbers beside the subject's."""


class CaseRanked(CaseEvent, frozen=True, kw_only=True):
    """A case waits below the line: the capacity of the week (`cases_per_week`) did not reach it."""


class CaseOpened(CaseEvent, frozen=True, kw_only=True):
    """A case was opened for review."""


class CaseUpdated(CaseEvent, frozen=True, kw_only=True):
    """An open case has new flags, more evidence, or a late fact that would speak for its subject."""
