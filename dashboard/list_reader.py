"""Reads pages of views for the routes of lists, as JSON, CSV or Parquet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import format_datetime
from importlib import import_module
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlencode

import sqlalchemy as sa
from fastapi import Response
from fastapi.responses import StreamingResponse

from dashboard.list_query import DEFAULT_LIMIT, PAGE_LIMIT, FeedRange
from dashboard.problem_details import ParameterError
from dashboard.schemas import JsonResponse
from domain.serialization import Json
from ledger.errors import MissingExtraError
from ledger.store.cloudevents import parse_time, stored_decoder
from ledger.store.position_lookup import position_of
from projections.csv_text import FIELDS, csv_text
from projections.date_ranges import DateRange, RangeError, read_range, zone_named
from projections.engine.pages import key_of
from projections.engine.storage import Row
from projections.policy_history import policy_in_force

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from typing import IO

    from dashboard.auth.tokens import Principal
    from dashboard.list_query import FeedRangeQuery, PageQuery, RangeQuery
    from dashboard.view_reader import ViewReader
    from ledger.store.log import Log
    from projections.engine.storage import Progress

type Cursor = int | str | None
_SHORT_PAGE = 200
"""The most rows that are read without a thread."""
_COUNT_SECONDS = 0.1
_UTC = zone_named("UTC")
_CHUNK_BYTES = 64 * 1024


class Listing(NamedTuple):
    """A list of a view.

    ``row`` is the class of its rows, or the table whose rows they are; it decides the columns of a Parquet file.
    ``read`` returns up to ``limit`` rows behind a cursor (``None``: the first) at a position (``None``: the present).
    ``cursor`` returns the cursor of a row. ``shown`` returns rows as the reader may see them. ``more`` is added to the
    answer. ``total`` returns the number of rows of the whole list; it has the parameters of ``read``. ``has_part`` says
    that ``read`` returns some rows of that list alone.
    """

    name: str
    row: type | sa.Table
    view: str
    read: Callable[[sa.Connection, int, Cursor, int | None], list[Row]]
    cursor: Callable[[Row], int | str]
    after: Cursor
    at: int | None = None
    shown: Callable[[list[Row]], Awaitable[list[Row]]] | None = None
    more: Mapping[str, Json] | None = None
    total: Callable[[sa.Connection, int, Cursor, int | None], int] | None = None
    has_part: bool = False


class ListReader:
    """Reads pages of views; answers 304 if the client already has the page."""

    def __init__(self, views: ViewReader, log: Log) -> None:
        self._views = views
        self.log = log

    async def end(self) -> int:
        """Return the last position of the log."""
        return await self._views.end()

    async def at(self, as_of: str | None) -> int | None:
        """Return the position that ``as_of`` names: a position, or the last one at a time.

        Raises:
            ParameterError: the text is neither.

        """
        if as_of is None:
            return None
        try:
            end = await self.end()
            return min(end, await position_of(self.log, as_of, end))
        except (OverflowError, ValueError) as error:
            raise ParameterError("as_of", str(error)) from None

    async def times(self, times: RangeQuery) -> DateRange:
        """Return the range of event times that a query names; its days are those of ``tz``, else of the policy.

        Raises:
            ParameterError: a parameter cannot be used.

        """
        try:
            zone = zone_named(times.zone or await self._zone())
            return read_range(times.begin, times.end, zone)
        except RangeError as error:
            raise ParameterError(error.field, str(error)) from None

    async def feed_range(self, within: FeedRangeQuery) -> FeedRange:
        """Return the range that a query names; of recorded times, with its positions.

        Raises:
            ParameterError: a parameter cannot be used.

        """
        if within.begin is within.end is within.zone is None:
            return FeedRange(DateRange(None, None, _UTC))  # without asking the log for the policy's time zone
        times = await self.times(within)
        if within.by_time == "happened":
            return FeedRange(times)
        end = await self.end()
        first, behind = [
            None if one is None else await position_of(self.log, one, end, first=True) for one in times.texts
        ]
        return FeedRange(times, "recorded", first, behind)

    async def _zone(self) -> str:
        policy = await policy_in_force(self.log)
        return "UTC" if policy is None else policy.time_zone

    async def answer(self, listing: Listing, page: PageQuery, viewer: Principal) -> Response:
        """Return a page of a list, with an ETag and, for a past state, the event time of its last event.

        CSV and Parquet without a limit have all rows, as they are at one position.

        Raises:
            ParameterError: the library that writes Parquet files is not installed.

        """
        if page.form == "parquet":
            try:
                await asyncio.to_thread(import_module, "projections.parquet")  # importing takes long
            except MissingExtraError as error:
                raise ParameterError("format", str(error)) from None
        if page.if_none_match is not None:  # an unchanged view is not read again
            unchanged = await self._views.read(listing.view, lambda _connection: None, short=True)
            if page.if_none_match == _tag(listing.view, unchanged.progress, viewer):
                return Response(status_code=304, headers={"ETag": page.if_none_match})
        whole = page.limit is None and page.form != "json"
        limit = page.limit or (PAGE_LIMIT if whole else DEFAULT_LIMIT)
        items, following, progress = await self._page(listing, limit)
        known, lag = progress.anchor.position, await self._views.lag(progress)
        position = known if listing.at is None else min(listing.at, known)
        headers = {"ETag": _tag(listing.view, progress, viewer), "Cache-Control": "private, no-cache"}
        headers["Vary"] = "Authorization, Cookie"
        if listing.at and (event := await self.log.at(listing.at)) is not None:
            happened = parse_time(stored_decoder.decode(event.data).time)
            headers["Last-Modified"] = format_datetime(happened.astimezone(UTC), usegmt=True)
        if following is not None and not whole:
            url = page.request.url
            query = [pair for pair in parse_qsl(url.query, keep_blank_values=True) if pair[0] != "after"]
            headers["Link"] = f'<{url.path}?{urlencode([*query, ("after", following)])}>; rel="next"'
        if page.form != "json":
            headers |= {"Ledger-Position": str(position), "Ledger-Lag-Seconds": str(lag)}
            headers["Content-Disposition"] = f'attachment; filename="{listing.name}.{page.form}"'
            rest = listing._replace(after=following, at=position) if whole and following is not None else None
            pages = self._pages(items, rest)
            if page.form == "csv":
                return StreamingResponse(_csv(listing.name, pages), headers=headers, media_type="text/csv")
            file = await _parquet(listing.row, pages)
            return StreamingResponse(_chunks(file), headers=headers, media_type="application/vnd.apache.parquet")
        answer: dict[str, Json] = {"items": items, "position": position, "lag_seconds": lag, "next": following}
        if page.counts:
            answer["total"] = await self._total(listing, len(items), following)
        return JsonResponse(answer | dict(listing.more or {}), headers=headers)

    async def _total(self, listing: Listing, shown: int, following: Cursor) -> int | None:
        """Return the number of rows of a list; ``None`` where counting them takes too long."""
        if following is None and not listing.after and not listing.has_part:
            return shown
        if (total := listing.total) is None:
            return None
        return await self._views.read_in_time(listing.view, lambda c: total(c, 1, None, listing.at), _COUNT_SECONDS)

    async def _page(self, listing: Listing, limit: int) -> tuple[list[Row], Cursor, Progress]:
        """Return the rows of a page, the cursor of the next page if there is one, and the view's progress."""

        def read(connection: sa.Connection) -> list[Row]:
            return listing.read(connection, limit + 1, listing.after, listing.at)

        found = await self._views.read(listing.view, read, short=limit <= _SHORT_PAGE)
        items = found.result[:limit]
        following = listing.cursor(items[-1]) if len(found.result) > limit else None
        return (items if listing.shown is None else await listing.shown(items)), following, found.progress

    async def _pages(self, items: list[Row], rest: Listing | None) -> AsyncIterator[list[Row]]:
        """Yield the rows of a page, and those of the pages behind it."""
        yield items
        while rest is not None:
            items, following, _ = await self._page(rest, PAGE_LIMIT)
            yield items
            rest = None if following is None else rest._replace(after=following)


async def _csv(name: str, pages: AsyncIterator[list[Row]]) -> AsyncIterator[str]:
    """Yield the lines of pages as CSV."""
    fields: str | None = None
    async for items in pages:
        is_first = fields is None
        fields = fields or FIELDS.get(name, " ".join(items[0]) if items else "")
        yield csv_text(items, fields, header=is_first)


async def _parquet(row: type | sa.Table, pages: AsyncIterator[list[Row]]) -> IO[bytes]:
    """Return a temporary file with the rows of pages as Parquet; it is deleted when it is closed."""
    from projections.parquet import ListWriter

    file = TemporaryFile()  # noqa: SIM115 - the answer closes it
    try:
        with ListWriter(file, row) as writer:
            async for items in pages:
                await asyncio.to_thread(writer.add, items)
            await asyncio.to_thread(writer.flush)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def check_cursor(table: sa.Table, after: str | None, columns: Sequence[sa.Column[object]] = ()) -> None:
    """Check the cursor of a list in the order of ``columns``, else of its key.

    Raises:
        ParameterError: it is none of this table.

    """
    try:
        if after is not None:
            key_of(table, after, columns)
    except ValueError as error:
        raise ParameterError("after", str(error)) from None


def _tag(view: str, progress: Progress, viewer: Principal) -> str:
    """Return the tag of a page; it is weak, because equal pages may have another `lag_seconds`."""
    return f'W/"{view}-{progress.anchor.position}-{viewer.role[0]}{viewer.person_id or ""}"'
