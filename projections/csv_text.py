"""Lists as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from domain.serialization import encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from domain.serialization import Json

FIELDS = {
    "balances": "holder period granted$ spent$ reserved$ remaining$ granted_in_period$ opened closed",
    "actions": (
        "action_id position time state agent_id team_id customer_id interaction_id role kind basis reason holder "
        "period escalation_id decided_by manager_id agent_kind amount$ reversed$ settled$"
    ),
    "escalations": (
        "escalation_id position requested status agent_id team_id customer_id interaction_id role kind reason asked_of "
        "due decided_by manager_id agent_kind waited_seconds action_id reported_by asked$ amount$"
    ),
    "employees": "employee_id name role team_ids manager_id manager_name joined left",
    "ideas": "idea_id time employee_id text decided_at decided_by decision",
    "obstacles": "obstacle_id time employee_id kind text answered_at answered_by answer",
    "thanks": "recognition_id time receiver_id giver_id giver_kind reason points interaction_id",
    "flags": (
        "flag_id position rule rule_version about explanation evidence raised status unmasked_by reviewed reviewed_by "
        "answered_by answer note"
    ),
    "cases": (
        "case_id position subject about rank score rules flag_ids expected_loss$ explanation status found opened "
        "closed reviewed_flags"
    ),
    "accesses": "position time recorded who what via about up_to",
    "trail": "position type source event_id time recorded who whom interaction_id action_id what corrected_by",
}
"""The fields of each list's items, for the header; those of money end in ``$``."""
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The characters that begin a formula in a spreadsheet; the last four are the full-width forms."""


def csv_text(items: Sequence[Mapping[str, Json]], fields: str = "", *, header: bool = True) -> str:
    """Return items as CSV; the header does not depend on their content.

    ``fields`` are the names of the items' fields, those of money with ``$`` at the end. Money takes two columns,
    ``spent`` and ``spent_currency``; other lists and objects are JSON. A text that a spreadsheet would take for a
    formula starts with an apostrophe.
    """
    lines = [dict(_cells(item)) for item in items]
    names = re.sub(r"(\w+)\$", r"\1 \1_currency", fields).split()
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys([*names, *(name for line in lines for name in line)])), lineterminator="\n"
    )
    if header:
        writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _cells(item: Mapping[str, Json]) -> Iterator[tuple[str, object]]:
    for name, value in item.items():
        if isinstance(value, Mapping) and value.keys() == {"amount", "currency"}:
            yield name, value["amount"]
            yield f"{name}_currency", value["currency"]
        elif value is None or isinstance(value, int | float):
            yield name, str(value).lower() if isinstance(value, bool) else value
        else:
            text = value if isinstance(value, str) else encode(value).decode()
            yield name, f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
