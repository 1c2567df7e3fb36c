"""Events on their way to the ledger, and the outcome of each of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from consumers.intake.validation import Rejection
    from domain.serialization import JsonObject

_LISTED, _FIRST_LINES = 1_000, 5
"""Rejections that are listed one by one, and lines that are named for each kind."""


class Outgoing(NamedTuple):
    """An event to publish: its line in the input, its source, its id, its bytes, and the input's file."""

    line: int
    source: str
    id: str
    data: bytes
    file: str = ""


class RejectedLine(NamedTuple):
    """A rejected event: its line in the input, its id, the reason, and the input's file."""

    line: int
    id: str
    code: str
    field: str
    message: str
    file: str = ""


class RejectionKind:
    """The rejections with one code and one field: their number, the first lines, and the first message."""

    def __init__(self, first: RejectedLine) -> None:
        self.code, self.field, self.message = first.code, first.field, first.message
        self.count = 0
        self.lines: list[int] = []

    def wire(self) -> JsonObject:
        """Return ``{code, field, count, lines, message}``."""
        return {
            "code": self.code,
            "field": self.field,
            "count": self.count,
            "lines": list(self.lines),
            "message": self.message,
        }


class Outcome:
    """Counts of the events of one run, and the first rejections among them."""

    def __init__(self) -> None:
        self.read = 0
        self.recorded = 0
        self.duplicate = 0
        self.rejected: list[RejectedLine] = []
        """The first ``_LISTED`` rejections; ``rejected_count`` is the number of all."""
        self.rejected_count = 0
        self.skipped: Counter[str] = Counter()
        self._kinds: dict[tuple[str, str], RejectionKind] = {}

    def reject(self, line: int, identifier: str, rejection: Rejection, *, file: str = "") -> None:
        """Count an event that cannot be published or recorded."""
        one = RejectedLine(line, identifier, rejection.code, rejection.field, rejection.message, file)
        self.rejected_count += 1
        if len(self.rejected) < _LISTED:
            self.rejected.append(one)
        kind = self._kinds.setdefault((one.code, one.field), RejectionKind(one))
        kind.count += 1
        if len(kind.lines) < _FIRST_LINES:
            kind.lines.append(line)

    def kinds(self) -> list[RejectionKind]:
        """Return the rejections by kind, the most frequent first."""
        return sorted(self._kinds.values(), key=lambda kind: -kind.count)

    def wire(self) -> JsonObject:
        """Return ``{read, recorded, duplicate, rejected, skipped: {reason: n}, rejections: [...]}``."""
        return {
            "read": self.read,
            "recorded": self.recorded,
            "duplicate": self.duplicate,
            "rejected": self.rejected_count,
            "skipped": dict(sorted(self.skipped.items())),
            "rejections": [one._asdict() for one in self.rejected],
        }
