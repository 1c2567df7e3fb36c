"""Actions beyond the front line's authority in a range of days, by kind and reason, from the view of authority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from domain.analytics import empowerment_gap
from domain.analytics.empowerment_gap import BlockedRemedy
from ledger.store.cloudevents import parse_time
from projections.engine.columns import seconds_of
from projections.reading import EVERYBODY
from projections.reports.empowerment_gap import requests_of, shortfalls_of
from projections.views.authority import read_asked, read_filed, read_told

if TYPE_CHECKING:
    import sqlalchemy as sa

    from projections.date_ranges import DateRange
    from projections.engine.storage import Row
    from projections.reading import AccessScope, Reader
    from projections.views.authority import TellingToEscalate

CAVEATS = (
    "an escalation belongs to the event time of its request, a blocked matter to that of its first attempt",
    (
        "a matter counts as blocked and not escalated if no escalation of it was filed within seven days after it; "
        "matters whose seven days are not over are not counted"
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
    """Return the escalations and the blocked matters of a range of event times, by kind and reason.

    Those of several ranges add up to those of the report `gap`. A ``scope`` limits them to its people and teams.
    """
    begin, end = times.texts

    def rows(connection: sa.Connection) -> tuple[list[Row], list[TellingToEscalate], list[tuple[str, str]]]:
        return (
            read_asked(connection, None, begin, end),
            read_told(connection, None, begin, end),
            read_filed(connection, begin, end),
        )

    answer = await read("authority", rows)
    asked_rows, told, filed = answer.result
    asked = requests_of([row for row in asked_rows if scope.shows(row["agent_id"], row["named_team"])])
    filings = zip([matter for matter, _ in filed], seconds_of([time for _, time in filed]).tolist(), strict=True)
    recorded = answer.progress.recorded
    now = parse_time(recorded).timestamp() if recorded else 0.0
    blocked = empowerment_gap.matters(shortfalls_of(told, scope), filings, now)
    first, after = (None if one is None else one.timestamp() for one in (times.begin, times.end))
    silent = Counter(
        (one.kind, one.reason)
        for one in blocked
        if one.followed is False and (first is None or one.seconds >= first) and (after is None or one.seconds < after)
    )
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
