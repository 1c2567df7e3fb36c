"""The report of an import: events by type, spans of time, totals, rejections by kind, and things that gave nothing."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from app.outcome import Outcome
from consumers.intake.validation import Rejection
from domain.money import Money, wire_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.events.facts import Fact
    from domain.serialization import Json, JsonObject


class TypeSummary:
    """The events of one type: their number, the first and last time, and the sums of their amounts."""

    def __init__(self) -> None:
        self.events = 0
        self.first = self.last = ""
        self.totals: dict[tuple[str, str], int] = defaultdict(int)
        """Minor units, by field and currency."""

    def wire(self, name: str) -> JsonObject:
        """Return ``{type, events, first, last, totals: [{field, amount, currency}]}``."""
        totals: list[Json] = [
            {"field": field, **wire_of(minor, currency)} for (field, currency), minor in sorted(self.totals.items())
        ]
        return {"type": name, "events": self.events, "first": self.first, "last": self.last, "totals": totals}


class ImportReport(Outcome):
    """Counts of one import, beside those of its events."""

    def __init__(self) -> None:
        super().__init__()
        self.types: dict[str, TypeSummary] = {}
        self.nothing: list[str] = []
        self.warnings: list[str] = []
        self.run = ""
        self.reused = 0
        """Events of a dry run whose id the ledger has with another content; they count as rejected, too."""

    def count(self, type_name: str, amounts: Sequence[str], moment: str, fact: Fact) -> None:
        """Count a valid event; ``amounts`` are the names of its fields with money."""
        summary = self.types.get(type_name)
        if summary is None:
            summary = self.types[type_name] = TypeSummary()
            summary.first = moment
        summary.events += 1
        summary.first = min(summary.first, moment)
        summary.last = max(summary.last, moment)
        for name in amounts:
            money = getattr(fact, name)
            if isinstance(money, Money):
                summary.totals[name, money.currency] += money.minor

    def reject_row(self, file: str, line: int, message: str) -> None:
        """Count a row that cannot be read."""
        self.reject(line, "", Rejection("row", "", message), file=file)

    def wire(self) -> JsonObject:
        """Return the counts, and ``run``, ``types``, ``nothing``, ``warnings`` and ``rejections_by_kind``."""
        return {
            **super().wire(),
            "run": self.run,
            "reused": self.reused,
            "types": [summary.wire(name) for name, summary in sorted(self.types.items())],
            "nothing": list(self.nothing),
            "warnings": list(self.warnings),
            "rejections_by_kind": [kind.wire() for kind in self.kinds()],
        }
