"""`--compare`: a report as of two positions, and the figures that the events recorded between them changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.as_of import position_of
from app.output import console, print_json, print_table
from app.runtime.views import read_view
from projections.views.audit_trail import Between, read_between

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from app.runtime.session import Session
    from domain.serialization import Json, JsonObject

compare_option = click.option(
    "--compare", metavar="Y", help="With --as-of: only the figures that differ at this position or recorded time."
)
_LABELS = (
    "holder",
    "period",
    "team",
    "channel",
    "line",
    "reason",
    "role",
    "kind",
    "band",
    "currency",
    "instrument",
    "worst",
    "best",
    "what",
    "label",
    "by",
    "group",
    "from",
    "to",
    "course",
    "cohort",
    "days",
    "months",
    "method",
    "rung",
)
"""Fields that name an item of a list."""
_ROWS = 60


async def print_comparison(
    session: Session,
    make: Callable[[int | None], Awaitable[Mapping[str, Json]]],
    as_of: str | None,
    compare: str,
    *,
    as_json: bool,
) -> None:
    """Print the figures of a report that differ between two positions; ``make`` returns it as of a position."""
    if as_of is None:
        raise click.UsageError("--compare needs --as-of")
    last = await session.log.last_position()
    at, other = [await position_of(session.log, text, last) for text in (as_of, compare)]
    before, after = [dict(_figures(await make(position))) for position in (at, other)]
    first, second = sorted((at, other))
    between = (await read_view(session, "audit_trail", lambda c: read_between(c, first, second))).result
    changes: list[JsonObject] = [
        {"figure": name, "as_of": before.get(name), "compare": after.get(name)}
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]
    if as_json:
        document = {"as_of": at, "compare": other, "by_time": "recorded"}
        print_json(document | {"events_between": between.events, "late": between.late, "changes": changes})
        return
    console.print(_events_text(first, second, between))
    rows = [(one["figure"], _shown(one["as_of"]), _shown(one["compare"])) for one in changes[:_ROWS]]
    if rows:
        columns = ("figure", f"as of position {at}", f"as of position {other}")
        print_table(f"{len(changes):,} figures that differ", columns, rows, numbers=(1, 2))
    else:
        console.print("No figure differs.")
    if len(changes) > _ROWS:
        console.print(f"{len(changes) - _ROWS:,} more: --json shows them.")


def _events_text(first: int, second: int, between: Between) -> str:
    return (
        f"{between.events:,} events were recorded after position {first} and up to {second}. {between.late:,} of them "
        f"are late: they had happened before position {first} was recorded."
    )


def _figures(value: Json, at: str = "") -> Iterator[tuple[str, Json]]:
    """Yield the name and value of each figure, e.g. ``by_channel.phone.reopened.share``; money is one figure."""
    if isinstance(value, dict) and value.keys() != {"amount", "currency"}:
        for name, inner in value.items():
            if at or name not in ("position", "caveats"):
                yield from _figures(inner, f"{at}.{name}" if at else name)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for number, inner in enumerate(value):
            yield from _figures(inner, f"{at}.{_label(inner) or number}")
    else:
        yield at, value


def _label(item: Json) -> str:
    if not isinstance(item, dict):
        return ""
    return "/".join(f"{item[name]}" for name in _LABELS if isinstance(item.get(name), str | int | float))


def _shown(value: Json) -> str:
    if isinstance(value, dict):
        return f"{value['amount']} {value['currency']}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list):
        return " to ".join(map(_shown, value))
    return "" if value is None else f"{value}"
