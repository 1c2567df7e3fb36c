"""`admin init`: the streams of a ledger on a NATS server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.cli.commands.admin import admin
from app.cli.main import command
from app.output import console, print_list
from app.runtime.session import Session
from app.runtime.stream_setup import StreamState, raise_copies

if TYPE_CHECKING:
    from config.settings import Settings


@command(admin, lists=True)
async def init(settings: Settings, *, as_json: bool, as_csv: bool) -> None:
    """Create the streams of a ledger that the NATS server lacks; nothing else creates them on a server of yours.

    With --replicas 3 or 5, streams, keys and consumers that are there get as many copies, in the cluster of
    --nats-url, whose user is then the operator's. Copies are never taken away. Repeat it as often as you like.
    """
    async with Session(settings, creates=True) as session:
        operator = await session.connection("init", user="operator")
        states = await raise_copies(operator, settings.replicas, session.created)
    items = [state._asdict() for state in states]
    print_list(
        items,
        "Streams",
        ("stream", "copies", ""),
        [tuple(state) for state in states],
        numbers=(1,),
        fields=" ".join(StreamState._fields),
        as_json=as_json,
        as_csv=as_csv,
    )
    if not (as_json or as_csv) and any(state.done == "raised" for state in states):
        console.print("The servers make the new copies now; `admin doctor` says when all are complete.")
