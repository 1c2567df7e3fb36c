"""`admin webhooks`: subscriptions of other systems, of chats and of mail addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from app.cli.commands.admin import admin
from app.cli.main import command
from app.output import print_list, print_result
from app.runtime.session import Session
from domain.serialization import FieldError
from domain.webhooks import FORMATS
from ledger.store.cloudevents import time_text
from projections.webhooks import WebhookBook, make_webhook, remove_webhook

if TYPE_CHECKING:
    from app.output import OutputFormat
    from config.settings import Settings
    from domain.serialization import JsonObject
    from domain.webhooks import BodyFormat

_OPERATOR = "operator"


@admin.group("webhooks")
def webhooks_group() -> None:
    """Webhooks: send events and notifications to other systems, chats and mail addresses."""


@click.option("--type", "types", multiple=True, required=True, help="A type or family, such as 'resolution.case.*'.")
@click.option("--format", "body", type=click.Choice(FORMATS), default="cloudevents", help="The form of the body.")
@click.option("--source", help="Send only what this source sent or requested.")
@click.option("--personal", is_flag=True, help="Send personal fields, and the names in flags and cases.")
@click.argument("url")
@command(webhooks_group)
async def add(
    settings: Settings,
    url: str,
    types: tuple[str, ...],
    body: BodyFormat,
    source: str | None,
    *,
    personal: bool,
    as_json: bool,
) -> None:
    """Send events of these types to a URL (https, http or mailto) from now on; the signing secret is shown once."""
    async with Session(settings, reads_only=True) as session:
        book = await WebhookBook.open(session.client)
        try:
            made = await make_webhook(
                book,
                session.log,
                url=url,
                types=types,
                body=body,
                made_by=_OPERATOR,
                source=source,
                personal=personal,
            )
        except FieldError as error:
            raise click.UsageError(f"{error.field}: {error.message}") from None
    print_result({"id": made.id, "secret": made.secret}, f"{made.id}, signed with {made.secret}", as_json=as_json)


@command(webhooks_group, "list", lists=True)
async def list_webhooks(settings: Settings, *, output: OutputFormat) -> None:
    """List the webhooks, and how far they are."""
    async with Session(settings, reads_only=True) as session:
        found = [one.shown() for one in await (await WebhookBook.open(session.client)).states()]
    shown = ("id", "url", "state", "position", "delivered", "dead_letters", "last_error")
    rows = [tuple("" if one[name] is None else str(one[name]) for name in shown) for one in found]
    columns = ("id", "url", "state", "position", "delivered", "dead letters", "last error")
    fields = "id url types format source personal made_by made state position delivered dead_letters failing_since"
    print_list(output, found, "Webhooks", columns, rows, f"{fields} last_error", (3, 4, 5))


@click.argument("identifier", metavar="ID")
@command(webhooks_group)
async def remove(settings: Settings, identifier: str, *, as_json: bool) -> None:
    """End the webhook ID; its dead letters go with it."""
    async with Session(settings, reads_only=True) as session:
        book = await _book_with(session, identifier)
        await remove_webhook(book, session.log, identifier, _OPERATOR, "cli")
    print_result({"removed": identifier}, f"{identifier} is removed.", as_json=as_json)


@click.argument("identifier", metavar="ID")
@command(webhooks_group, "dead-letters", lists=True)
async def dead_letters(settings: Settings, identifier: str, *, output: OutputFormat) -> None:
    """List the messages of the webhook ID that were given up."""
    async with Session(settings, reads_only=True) as session:
        letters = await (await _book_with(session, identifier)).letters(identifier)
    columns = ("id", "position", "type", "attempts", "last", "error")
    rows = [(one.id, one.position, one.type, one.attempts, time_text(one.last)[:19], one.error) for one in letters]
    found = [cast("JsonObject", dict(zip(columns, row, strict=True))) for row in rows]
    print_list(output, found, "Dead letters", columns, rows, " ".join(columns), (1, 3))


@click.option("--letter", help="Only this dead letter. [default: all]")
@click.argument("identifier", metavar="ID")
@command(webhooks_group)
async def redeliver(settings: Settings, identifier: str, letter: str | None, *, as_json: bool) -> None:
    """Send the dead letters of the webhook ID again."""
    async with Session(settings, reads_only=True) as session:
        book = await _book_with(session, identifier)
        names = [one.id for one in await book.letters(identifier) if letter in (None, one.id)]
        if letter is not None and not names:
            raise click.UsageError(f"{identifier} has no dead letter {letter}")
        for name in names:
            await book.ask_again(identifier, name)
    print_result({"asked": names}, f"{len(names)} messages are sent again.", as_json=as_json)


async def _book_with(session: Session, identifier: str) -> WebhookBook:
    book = await WebhookBook.open(session.client)
    if await book.find(identifier) is None:
        raise click.UsageError(f"there is no webhook {identifier}: see `admin webhooks list`")
    return book
