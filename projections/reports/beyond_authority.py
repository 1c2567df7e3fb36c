"""Actions beyond the front line's authority in a range of days, by kind and reason, from the view of authority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypedDict

from domain.analytics import empowerment_gap
from domain.analytics.empowerment_gap import BlockedRemedy
from domain.matters import SECONDS
from ledger.store.cloudevents import parse_time, time_text
from projections.reading import EVERYBODY
from projections.reports.empowerment_gap import requests_of, told_to_escalate
from projections.views.authority import read_asked, read_shortfalls

if TYPE_CHECKING:
    import sqlalchemy as sa

    from projections.date_ranges import DateRange
    from projections.engine.storage import Row
    from projections.reading import AccessScope, Reader

CAVEATS = (
    "an escalation belongs to the event time of its request, a blocked attempt to its own",
    (
        "an attempt counts as blocked and not escalated if no escalation of its matter was filed within seven days; "
        "attempts whose seven days are not over are not counted"
    ),
    "approval does not prove that a request was right",
)

BeyondAuthority = TypedDict(
    "BeyondAuthority",
    {
        "from": str | None,
        "to": str | None,
        "time_zone": str,
        "by_time": str,
        "items": list[BlockedRemedy],
        "caveats": Sequence[str],
        "rung": int,
        "position": int,
    },
)
"""Actions of goodwill that the front line could not do itself, the most frequent first.

`from` is a word of the language. `rung`: all figures are descriptions, level 1.
"""


async def beyond_authority(read: Reader, times: DateRange, scope: AccessScope = EVERYBODY) -> BeyondAuthority:
    """Return the escalations and the blocked attempts of a range of event times, by kind and reason.

    Without limits they are those of the report `gap`. A ``scope`` limits them to its people and teams.
    """
    begin, end = times.texts
    filed_until = None if times.end is None else time_text(times.end + timedelta(seconds=SECONDS))

    def rows(connection: sa.Connection) -> tuple[list[Row], list[Row]]:
        filed = read_asked(connection, None, begin, filed_until)
        return filed, read_shortfalls(connection, None, begin, end)

    answer = await read("authority", rows)
    asked_rows, short_rows = answer.result
    asked_rows = [row for row in asked_rows if scope.shows(row["agent_id"], row["named_team"])]
    filed, told = requests_of(asked_rows), told_to_escalate([one for one in short_rows if scope.shows(one["agent_id"])])
    recorded = answer.progress.recorded
    blocked = empowerment_gap.matters(told, filed, parse_time(recorded).timestamp() if recorded else 0.0)
    silent = Counter((one.kind, one.reason) for one in blocked if one.followed is False)
    asked = requests_of([row for row in asked_rows if end is None or row["requested"] < end])
    return {
        "from": begin,
        "to": end,
        "time_zone": times.zone.key,
        "by_time": "happened",
        "items": empowerment_gap.cannot_do(asked, silent),
        "caveats": CAVEATS,
        "rung": 1,
        "position": answer.progress.anchor.position,
    }
