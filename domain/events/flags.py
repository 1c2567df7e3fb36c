"""Flags: suspected abuse, with evidence; what a human said of it. Storage formats, like records."""

from __future__ import annotations

from typing import Literal

import msgspec

from domain.serialization import Id, Personal

Verdict = Literal["confirmed", "coached", "dismissed"]


class _Flag(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The request behind it, or the guard; as in every record (domain.events.decisions.Record)."""

    flag_id: str
    source: str
    request_id: str
    seen_position: int
    request_sha256: str | None = None


class FlagRaised(_Flag, frozen=True, kw_only=True):
    """The guard asks a human to look: never a verdict."""

    rule: str
    rule_version: int
    about: tuple[str, ...]
    """Who is concerned: `agent:<id>`, `customer:<id>`."""
    explanation: str
    evidence: tuple[int, ...]
    """The positions that prove it."""


class FlagUpdated(FlagRaised, frozen=True, kw_only=True):
    """More evidence for a flag; all of it is named."""

    number: int
    """The raising is 1; this is 2 and on."""


class FlagUnmasked(_Flag, frozen=True, kw_only=True):
    """Somebody wanted to know whom a flag names, where policy shows pseudonyms until then (`privacy.pseudonyms`)."""

    unmasked_by: Id


class FlagReviewed(_Flag, frozen=True, kw_only=True):
    """A human has looked."""

    verdict: Verdict
    reviewed_by: Id
    note: Personal | None = None


class FlagAnswered(_Flag, frozen=True, kw_only=True):
    """The person concerned says something to it."""

    employee_id: Id
    text: Personal
