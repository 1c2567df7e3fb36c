"""The query parameters of lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from fastapi import Header, Query, Request
from pydantic import WithJsonSchema

from dashboard.problem_details import ParameterError
from domain.money import Money, MoneyError
from projections.amount_ranges import AmountRange, read_amounts
from projections.date_ranges import DateRange
from projections.engine.pages import PageRequest

if TYPE_CHECKING:
    from domain.serialization import Json

PAGE_LIMIT, DEFAULT_LIMIT = 1000, 100
Limit = Annotated[
    int | None,
    Query(
        ge=1, le=PAGE_LIMIT, description=f"The most items to return, {DEFAULT_LIMIT} by default; CSV and Parquet: all."
    ),
]
After = Annotated[
    int | None, Query(ge=0, le=2**53, description="Only items behind this one in the list: `next` of the page before.")
]
AfterKey = Annotated[
    str | None,
    Query(
        description="Only items behind this one in the list: `next` of the page before.",
        examples=["WyJhZ2VudDpBLTciLCIyMDI2LTExIiwiR0JQIl0"],
    ),
]
AsOf = Annotated[
    str | None,
    Query(alias="as_of", description="The state at this position, or at this recorded time."),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}]}),
]
ChangedAfter = Annotated[
    int | None,
    Query(
        ge=0,
        le=2**53,
        description="Only items that were added or changed behind this position; `total` still counts the whole list.",
    ),
]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match")]
type Order = Literal["asc", "desc"]
NewestFirst = Annotated[Order, Query(alias="order", description="`desc`: the newest first; `asc`: the oldest first.")]
ByKey = Annotated[Order, Query(alias="order", description="The order of the key: `asc` or `desc`.")]
Format = Annotated[
    Literal["json", "csv", "parquet"],
    Query(alias="format", description="`csv`: with a header, for a spreadsheet; `parquet`: with typed columns."),
]
_DATE_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string", "format": "date"},
            {"type": "string", "format": "date-time"},
            {"type": "string", "pattern": "^[0-9]{4}-(W[0-9]{2}|Q[1-4]|[0-9]{2})$"},
        ]
    }
)
_WHEN = "A day (2026-11-21), a period (2026-11, 2026-W47, 2026-Q4) or a time (RFC 3339)"
From = Annotated[str | None, Query(alias="from", description=f"{_WHEN}: event times from its begin on."), _DATE_SCHEMA]
To = Annotated[
    str | None,
    Query(alias="to", description=f"{_WHEN}: event times up to its end, or before the time itself."),
    _DATE_SCHEMA,
]
TimeZone = Annotated[
    str | None, Query(alias="tz", description="Time zone of days, e.g. Europe/London; by default the policy's.")
]

AmountText = Annotated[
    str | None,
    Query(
        alias="amount",
        description="Only this amount, with its currency (45.00 GBP), or a range (40.00 to 50.00 GBP).",
        examples=["45.00 GBP"],
    ),
]
LimitText = Annotated[
    str,
    Query(
        alias="amount",
        description="The most of one action, with the currency of the policy (45.00 GBP).",
        examples=["45.00 GBP"],
    ),
]
type TimeKind = Literal["happened", "recorded"]
ByTime = Annotated[
    TimeKind,
    Query(
        alias="by_time",
        description="The times that `from` and `to` limit: event times, or recorded times.",
    ),
]
SummaryBy = Annotated[
    Literal["day", "week", "month", "team", "agent", "agent_kind", "role", "kind", "reason", "channel"] | None,
    Query(alias="by", description="The property by which the totals are divided; by default only the whole."),
]


Count = Annotated[
    bool, Query(alias="count", description="The answer has `total`, the number of items in the whole list.")
]


class PageQuery:
    """The parameters that all lists have: the length of a page, its form, a total, and the tag of the client's copy."""

    def __init__(
        self,
        request: Request,
        limit: Limit = None,
        form: Format = "json",
        if_none_match: IfNoneMatch = None,
        *,
        counts: Count = False,
    ) -> None:
        self.request, self.limit, self.form, self.if_none_match = request, limit, form, if_none_match
        self.counts = counts


class PastQuery:
    """The parameter of lists that are kept for every position."""

    def __init__(self, as_of: AsOf = None) -> None:
        self.as_of = as_of


class ChangesQuery(PastQuery):
    """The parameters of lists that are kept for every position, and that can be followed by their changes."""

    def __init__(self, as_of: AsOf = None, changed_after: ChangedAfter = None) -> None:
        super().__init__(as_of)
        if as_of is not None and changed_after is not None:
            raise ParameterError(
                "changed_after", "a past state does not change: leave out one of as_of and changed_after"
            )
        self.changed_after = changed_after


class RangeQuery:
    """The parameters that limit a list to some event times."""

    def __init__(self, begin: From = None, end: To = None, zone: TimeZone = None) -> None:
        self.begin, self.end, self.zone = begin, end, zone


class FeedRangeQuery(RangeQuery):
    """The parameters that limit a list in the order of positions to some times: event times or recorded times."""

    def __init__(self, begin: From = None, end: To = None, zone: TimeZone = None, by_time: ByTime = "happened") -> None:
        super().__init__(begin, end, zone)
        self.by_time = by_time


class FeedRange(NamedTuple):
    """A range of times that limits a list, and its position range where the times are recorded times."""

    times: DateRange
    by_time: TimeKind = "happened"
    first: int | None = None
    """The first position that was recorded in it."""
    behind: int | None = None
    """The first position that was recorded behind it."""

    @property
    def event_times(self) -> tuple[str | None, str | None]:
        """The texts of the limits of event times; none where the limits are those of recorded times."""
        return self.times.texts if self.by_time == "happened" else (None, None)

    def told(self) -> dict[str, Json]:
        """Return the range as answers show it; nothing for a range without limits."""
        found = told(self.times)
        return found and found | {"by_time": self.by_time}


def amounts_of(text: str | None) -> AmountRange | None:
    """Return the range of amounts that a parameter names.

    Raises:
        ParameterError: it is neither an amount nor a range.

    """
    try:
        return None if text is None else read_amounts(text)
    except ValueError as error:
        raise ParameterError("amount", str(error)) from None


def limit_of(text: str) -> Money:
    """Return the limit that a parameter names.

    Raises:
        ParameterError: it is no amount with its currency.

    """
    amount, _, currency = text.rpartition(" ")
    try:
        return Money.parse(amount, currency)
    except MoneyError as error:
        message = f"write an amount with its currency, such as 45.00 GBP: {error}"
        raise ParameterError("amount", message) from None


class FeedQuery:
    """The place of a page in a list in the order of positions."""

    def __init__(self, after: After = None, order: NewestFirst = "desc") -> None:
        self.after, self.newest_first = after, order == "desc"

    def page(self, limit: int | None, after: int | str | None, at: int | None, within: FeedRange | None) -> PageRequest:
        """Return the request of a page of so many rows behind ``after``."""
        page = PageRequest(limit, int(after or 0), self.newest_first, at)
        if within is None:
            return page
        begin, end = within.event_times
        return page._replace(begin=begin, end=end, first=within.first, behind=within.behind)


def told(times: DateRange) -> dict[str, Json]:
    """Return a range as answers show it; nothing for a range without limits."""
    if times.begin is None and times.end is None:
        return {}
    begin, end = times.texts
    return {"from": begin, "to": end, "time_zone": times.zone.key, "by_time": "happened"}
