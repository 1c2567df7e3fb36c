"""Who reads the trail of somebody named is recorded, where the policy in force says so."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from domain.records import LEDGER_SOURCE, TYPE_OF
from domain.upkeep import TrailRead
from domain.wire import encode, is_id
from ledger.cloudevents import encode_event
from ledger.log import Draft
from projections.policies import policy_in_force

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.log import Log

SUBJECT = "ledger.trail"
by_option = click.option("--by", help="Who reads; recorded where the policy says so. [default: the system's user name]")


async def record_reading(log: Log, about: Sequence[str], up_to: int, by: str | None) -> None:
    """Record that somebody read about these, each ``kind:id``, if the policy in force wants it; before it is shown."""
    if not about or not (await privacy_in_force(log)).get("record_reads"):
        return
    reader = by or getpass.getuser()
    if not is_id(reader):
        raise click.UsageError("--by must be an id")
    now = datetime.now(UTC)
    record = TrailRead(read_by=reader, about=tuple(about), up_to=up_to)
    identifier = f"trail.read {reader} {now.timestamp()}"
    await log.append([Draft(SUBJECT, encode_event(LEDGER_SOURCE, identifier, TYPE_OF[TrailRead], now, encode(record)))])


async def privacy_in_force(log: Log) -> dict[str, bool]:
    """What the policy in force says of privacy."""
    said: dict[str, bool] = (await policy_in_force(log)).get("privacy", {})
    return said
