"""The consistency of goodwill across teams and channels in a range of days, from the view of casework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from domain.analytics.consistency import Consistency, consistency
from domain.analytics.labels import Labels
from domain.analytics.service_quality import NOT_SAID
from projections.reading import EVERYBODY
from projections.reports.service_quality import handled_matters
from projections.views.casework import read_given_within, read_opened

if TYPE_CHECKING:
    from projections.date_ranges import DateRange
    from projections.reading import AccessScope, Reader

CAVEATS = (
    "an interaction belongs to the event time of its opening, with all that was given in it",
    "groups outside their limits may have other customers; limits are adjusted for overdispersion",
)

ConsistencyReport = TypedDict(
    "ConsistencyReport",
    {
        "from": str | None,
        "to": str | None,
        "time_zone": str,
        "by_time": str,
        "items": list[Consistency],
        "caveats": Sequence[str],
        "rung": int,
        "position": int,
    },
)
"""The differences of goodwill between teams and between channels. `rung` is 1: all figures are descriptions."""


async def consistency_report(read: Reader, times: DateRange, scope: AccessScope = EVERYBODY) -> ConsistencyReport:
    """Return how evenly goodwill was given in the interactions that were opened in a range of event times.

    Without limits it is that of the report `quality`. A ``scope`` limits it to interactions that began in its teams.
    """
    begin, end = times.texts

    answer = await read("casework", lambda c: (read_opened(c, begin, end), read_given_within(c, begin, end)))
    opened, given = answer.result
    if scope.people is not None:
        opened = [one for one in opened if one[2] in scope.teams]
    ids, channels, teams, reasons = zip(*opened, strict=True) if opened else [()] * 4
    channel, team, reason = (Labels.of(texts, NOT_SAID) for texts in (channels, teams, reasons))
    return {
        "from": begin,
        "to": end,
        "time_zone": times.zone.key,
        "by_time": "happened",
        "items": consistency(handled_matters(ids, channel, team, reason, given)),
        "caveats": CAVEATS,
        "rung": 1,
        "position": answer.progress.anchor.position,
    }
