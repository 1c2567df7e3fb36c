"""Imports without a ledger: the events and the report of a mapping over files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import yaml

from app.importing.import_report import ImportReport
from app.importing.importer import import_events
from app.importing.mapping import load_mapping
from tests.support.documents import Document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RETURNS = """
SELECT no AS id, try_strptime("at", '%d/%m/%Y %H:%M') AS time, customer AS customer_id,
       {'amount': amount, 'currency': 'GBP'} AS total
FROM returns
"""


class Made(NamedTuple):
    """The events of an import, and its report."""

    events: list[Document]
    report: ImportReport

    @property
    def amounts(self) -> list[str]:
        """The totals of the events, such as ``5.00 GBP``."""
        return [f"{one['data']['total']['amount']} {one['data']['total']['currency']}" for one in self.events]

    @property
    def faults(self) -> list[tuple[int, str]]:
        """Line and column of each rejection."""
        return [(one.line, one.field) for one in self.report.rejected]


def mapping_of(select: str = RETURNS, name: str = "purchase.returned", **envelope: object) -> Document:
    """Return a mapping with one SELECT over the table `returns`."""
    events = [{"type": name, "select": select}]
    return {"source": "shop", "time_zone": "Europe/London", "files": {"returns": {}}, "events": events} | envelope


def imported(folder: Path, mapping: Document, files: Sequence[Path]) -> Made:
    """Return the events that a mapping makes of files."""
    where = folder / "mapping.yaml"
    where.write_text(yaml.safe_dump(mapping, sort_keys=False))
    report = ImportReport()
    events = [json.loads(one.data) for one in import_events(load_mapping(str(where)), files, report, lambda _: None)]
    return Made(events, report)


def from_text(folder: Path, mapping: Document, text: str | bytes, name: str = "returns.csv") -> Made:
    """Return the events that a mapping makes of a file with this content."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return imported(folder, mapping, [path])
