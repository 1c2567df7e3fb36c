"""Breaks the recorders on purpose; a pytest plugin (`-p breaking`, BREAK names the way)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ledger.eventsourcing import versioned_streams
from ledger.eventsourcing.message_codec import to_message
from ledger.store.log import Draft, Log

if TYPE_CHECKING:
    from collections.abc import Sequence

_append = Log.append


async def without_expectation(self: Log, drafts: Sequence[Draft], patience_seconds: float = 10) -> int:
    """Append without a look at the expected version."""
    return await _append(self, [draft._replace(expect=None) for draft in drafts], patience_seconds)


async def one_by_one(self: Log, drafts: Sequence[Draft], patience_seconds: float = 10) -> int:
    """Append event by event: other writers come between, and a crash leaves a part."""
    positions = [await _append(self, [draft], patience_seconds) for draft in drafts]
    return positions[0]


async def backwards(self: Log, drafts: Sequence[Draft], patience_seconds: float = 10) -> int:
    """Append the events of one sequence in reverse order."""
    if len({draft.subject for draft in drafts}) == 1:
        turned = reversed([draft.data for draft in drafts])
        drafts = [draft._replace(data=data) for draft, data in zip(drafts, turned, strict=True)]
    return await _append(self, drafts, patience_seconds)


def next_version(event: Any, *arguments: Any, **options: Any) -> bytes:
    """Store each event with a version that is too high by one."""
    return to_message(replace(event, originator_version=event.originator_version + 1), *arguments, **options)


match os.environ.get("BREAK"):
    case "expectation dropped":
        Log.append = without_expectation  # type: ignore[method-assign]
    case "batch not atomic":
        Log.append = one_by_one  # type: ignore[method-assign]
    case "order lost":
        Log.append = backwards  # type: ignore[method-assign]
    case "version off by one":
        versioned_streams.to_message = next_version  # type: ignore[attr-defined]
