"""Flags: suspected misuse with its evidence, and its review. These classes are storage formats, as records are."""

from __future__ import annotations

from typing import Literal

from domain.events.causes import Caused
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
