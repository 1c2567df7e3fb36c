"""`admin inbox`, `admin upgrade` and `admin certificates`: the NATS servers, and the streams in which events wait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.commands.admin import admin
from app.cli.main import command
from app.output import console, fail, print_json, print_list, print_result
from app.runtime.certificates import AUTHORITY, MadeCertificate, make_certificates
from app.runtime.inbox_messages import NotWaitingError, inbox_names, reject_message, waiting_messages
from app.runtime.session import Session
from app.runtime.sources import known_sources
from app.runtime.stream_setup import copies_of
from config import topology
from ledger.files import write_atomically
from ledger.nats.inbox_routes import routes_text
from ledger.store.streams import REPLICAS_FIELD, ensure_consumer, ensure_stream
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from app.output import OutputFormat
    from config.settings import Settings


@admin.group("inbox")
def inbox() -> None:
    """Inboxes of sources, and the messages that wait in them."""


@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="The most messages.")
@command(inbox, "list", lists=True)
async def inbox_list(settings: Settings, limit: int, *, output: OutputFormat) -> None:
    """List messages that the intake may not have handled, the oldest of each inbox first."""
    async with Session(settings, reads_only=True) as session:
        items = [waiting.document() async for waiting in waiting_messages(session, limit)]
        position = await session.log.last_position()
    columns = ("stream", "sequence", "subject", "bytes", "received")
    rows = [tuple(item.values()) for item in items]
    print_list(output, items, "Waiting", columns, rows, " ".join(columns), numbers=(1, 3), position=position)


@click.option("--reason", default="rejected by the operator", show_default=True, help="Kept with the message.")
@click.argument("sequence", type=click.IntRange(1, 2**63 - 1))
@click.argument("stream")
@command(inbox, "reject")
async def inbox_reject(settings: Settings, stream: str, sequence: int, reason: str, *, as_json: bool) -> None:
    """Remove a message from its inbox; its original bytes are kept in REJECTED and can be retried.

    With --nats-url, name the operator's user.
    """
    async with Session(settings, reads_only=True) as session:
        if stream not in (names := await inbox_names(session)):
            fail(
                f"{stream} is no inbox; the inboxes are {', '.join(names)}",
                code="unknown_stream",
                status=2,
                as_json=as_json,
            )
        operator = await session.connection("inbox", user="operator")
        try:
            removal = await reject_message(session, operator, stream, sequence, reason)
        except NotWaitingError as error:
            fail(str(error), code="not_waiting", as_json=as_json)
    if as_json:
        print_json({"stream": stream, "sequence": sequence} | removal._asdict())
        return
    where = "see `admin rejected list`" if removal.kept else "all of it is recorded, so nothing is kept in REJECTED"
    console.print(f"message {sequence} of {stream} is removed from the inbox; {where}", markup=False)
    for identifier, position in removal.recorded.items():
        console.print(f"{identifier!a} is recorded at position {position}", markup=False)


@command(inbox, "routes")
async def inbox_routes(settings: Settings, *, as_json: bool) -> None:
    """Print the file sources.conf, which gives known sources their own inboxes on your NATS server.

    The inbox streams are created first, since a route without its stream would refuse a source's events.
    """
    async with Session(settings, reads_only=True) as session:
        tokens = [token_of_source(source) for source in await known_sources(session)][: topology.SOURCES_AT_MOST]
        for token in tokens:
            stream = topology.source_stream(
                token, max(settings.replicas, await copies_of(session.client, topology.LEDGER))
            )
            await ensure_stream(session.client, stream, (REPLICAS_FIELD,))
            await ensure_consumer(session.client, stream["name"], topology.intake_consumer())
    routes = dict(map(topology.source_route, tokens))
    if as_json:
        print_json({"items": [{"from": source, "to": target} for source, target in sorted(routes.items())]})
    else:
        click.echo(routes_text(routes), nl=False)


@command(admin)
async def upgrade(settings: Settings, *, as_json: bool) -> None:
    """Give an inbox of an earlier version the limits of this version; --nats-url names the operator's user.

    The embedded server does this at its next start.
    """
    async with Session(settings, upgrades=True) as session:
        stream = topology.stream_configs(session.settings.replicas)[0]["name"]
    print_result({"stream": stream}, f"stream {stream} has the limits of this version", as_json=as_json)


@click.option(
    "--authority",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where clients read the authority's certificate: a copy of ca.pem is written there.",
)
@click.option(
    "--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="Validity of servers' certificates."
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    required=True,
    metavar="NAME[,NAME...]",
    help="A server: the name of its files, and further DNS names and IP addresses of it; repeatable.",
)
@click.option(
    "--into",
    multiple=True,
    metavar="NAME=FOLDER",
    help="The folder of a server's files, instead of FOLDER; its group may read the key. Repeatable.",
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@command(admin, lists=True)
async def certificates(
    _settings: Settings,
    folder: Path,
    servers: tuple[str, ...],
    days: int,
    authority: Path | None,
    into: tuple[str, ...],
    *,
    output: OutputFormat,
) -> None:
    """Make certificates for the TLS of servers in FOLDER: ca.pem, and NAME.pem with NAME-key.pem for each server.

    The command may be repeated: it makes what is missing, and renews a certificate with a third of its time left.
    Keep ca-key.pem secret: it can sign a certificate for any server.
    """
    folders = {name: Path(path) for name, _, path in (one.partition("=") for one in into)}
    unknown = folders.keys() - {server.partition(",")[0] for server in servers}
    if unknown or not all(one.partition("=")[2] for one in into):
        raise click.UsageError("--into: give NAME=FOLDER with the first name of a --server")
    made = make_certificates(folder, [server.split(",") for server in servers], days, folders)
    if authority is not None:
        write_atomically(authority, (folder / AUTHORITY).read_bytes())
    rows = [(one.file, ", ".join(one.names), f"{one.expires:%Y-%m-%d}", one.done) for one in made]
    print_list(
        output,
        [one._asdict() for one in made],
        "Certificates",
        ("file", "names", "expires", ""),
        rows,
        " ".join(MadeCertificate._fields),
    )
