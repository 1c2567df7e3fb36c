"""`admin init`: the streams of a ledger on a NATS server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.cli.commands.admin import admin
from app.cli.main import command
from app.output import console, print_list
from app.runtime.session import Session
from app.runtime.stream_setup import PreparedStream, raise_copies

if TYPE_CHECKING:
    from app.output import OutputFormat
    from config.settings import Settings


@command(admin, lists=True)
async def init(settings: Settings, *, output: OutputFormat) -> None:
    """Create the missing streams of a ledger on the NATS server; no other command creates them on your server.

    With --replicas 3 or 5, existing streams, keys and consumers get as many copies, in the cluster of --nats-url. Its
    user must be the operator. Copies are never removed. The command may be repeated.
    """
    async with Session(settings, creates=True) as session:
        operator = await session.connection("init", user="operator")
        states = await raise_copies(operator, settings.replicas, session.created)
    items = [state._asdict() for state in states]
    print_list(
        output,
        items,
        "Streams",
        ("stream", "copies", ""),
        [tuple(state) for state in states],
        " ".join(PreparedStream._fields),
        numbers=(1,),
    )
    if output == "table" and any(state.done == "raised" for state in states):
        console.print("The servers are making the new copies; `admin doctor` shows when all are complete.")
