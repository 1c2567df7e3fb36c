"""`admin inbox` and `admin upgrade`: the streams in which events of upstreams wait for the intake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli import command
from app.commands.administering import admin
from app.output import console, print_json
from app.session import Session
from app.sources import known_sources
from config import topology
from ledger.names import token_of_source
from ledger.routes import routes_text
from ledger.streams import ensure_consumer, ensure_stream

if TYPE_CHECKING:
    from config.settings import Settings


@admin.group("inbox")
def inbox() -> None:
    """Inboxes of sources."""


@command(inbox, "routes")
async def inbox_routes(settings: Settings, *, as_json: bool) -> None:
    """Print what gives known sources inboxes of their own on a NATS server of yours: the file sources.conf.

    Their streams are made first, since a route without its stream would refuse what a source publishes.
    """
    async with Session(settings, reads_only=True) as session:
        tokens = [token_of_source(source) for source in await known_sources(session)][: topology.SOURCES_AT_MOST]
        for token in tokens:
            stream = topology.source_stream(token, settings.replicas)
            await ensure_stream(session.client, stream)
            await ensure_consumer(session.client, stream["name"], topology.intake_consumer())
    routes = dict(map(topology.source_route, tokens))
    if as_json:
        print_json({"items": [{"from": source, "to": target} for source, target in sorted(routes.items())]})
    else:
        click.echo(routes_text(routes), nl=False)


@command(admin)
async def upgrade(settings: Settings, *, as_json: bool) -> None:
    """Give an inbox of an earlier version this version's bounds; --nats-url names the operator's user.

    With the embedded server that happens at its next start by itself.
    """
    async with Session(settings, upgrades=True) as session:
        stream = topology.streams(session.settings.replicas)[0]["name"]
    if as_json:
        print_json({"stream": stream})
    else:
        console.print(f"stream {stream} has this version's bounds")
