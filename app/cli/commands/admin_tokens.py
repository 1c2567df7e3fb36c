"""`admin tokens`: access to the dashboard and its API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from app.cli.commands.admin import admin
from app.cli.main import command
from app.output import console, print_json, print_list, print_result
from app.runtime.access_records import note_access
from app.runtime.session import Session
from app.runtime.source_registration import read_registry
from dashboard.auth.tokens import ROLES, TokenError, Tokens, tokens_in
from ledger.errors import LedgerError
from ledger.files import write_private

if TYPE_CHECKING:
    from app.output import OutputFormat
    from config.settings import Settings
    from dashboard.auth.tokens import Role


@admin.group("tokens")
def tokens_group() -> None:
    """Tokens for the dashboard: make, list, revoke, back up; each is shown once."""


@click.option("--days", type=click.IntRange(1), help="Validity in days. [default: until revoked]")
@click.option("--person", help="The employee's id, for the roles agent and manager.")
@click.option("--source", help="The registered source that publishes and asks over HTTP with it, instead of a role.")
@click.option("--role", type=click.Choice(ROLES), help="The role of its bearer.")
@click.argument("name")
@command(tokens_group)
async def make(
    settings: Settings,
    name: str,
    role: Role | None,
    source: str | None,
    person: str | None,
    days: int | None,
    *,
    as_json: bool,
) -> None:
    """Make a token with a NAME, for a person's --role or for a --source; its text is shown only now."""
    if (role is None) == (source is None):
        raise click.UsageError("name either --role or --source")
    role = role or "source"
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    async with Session(settings) as session:
        if source is not None:
            await _require_registered(session, source)
        tokens = await _tokens_of(session)
        try:
            text = await tokens.make(name, role, person, expires, source)
        except TokenError as error:
            raise click.UsageError(str(error)) from None
        try:
            await note_access(session, f"token made: {name} ({role})", "no token was made")
        except LedgerError:
            await tokens.revoke(name)
            raise
    if as_json:
        fields = {"name": name, "role": role, "person_id": person, "source": source, "expires": expires}
        print_json(fields | {"token": text})
        return
    console.print(text, soft_wrap=True)


async def _tokens_of(session: Session) -> Tokens:
    tokens = Tokens(session.client)
    await tokens.take_over(session.data_dir)
    return tokens


async def _require_registered(session: Session, source: str) -> None:
    registry, _ = await read_registry(session.log)
    found = registry.source(source)
    if found is None or found.state != "active":
        raise click.UsageError(f"{source} is no registered source: see `admin sources list` and `admin sources add`")


@command(tokens_group, "list", lists=True)
async def list_tokens(settings: Settings, *, output: OutputFormat) -> None:
    """List the tokens, without their texts."""
    async with Session(settings, reads_only=True) as session:
        tokens = await (await _tokens_of(session)).all()
    found = [
        {
            "name": one.name,
            "role": one.role,
            "person_id": one.person_id,
            "source": one.source,
            "made": one.made,
            "expires": one.expires,
        }
        for one in tokens
    ]
    rows = [tuple("" if value is None else str(value)[:19] for value in one.values()) for one in found]
    columns = ("name", "role", "person", "source", "made", "expires")
    print_list(output, found, "Tokens", columns, rows, "name role person_id source made expires")


@click.argument("name")
@command(tokens_group)
async def revoke(settings: Settings, name: str, *, as_json: bool) -> None:
    """Revoke the token NAME at once."""
    async with Session(settings, reads_only=True) as session:
        try:
            await (await _tokens_of(session)).revoke(name)
        except TokenError as error:
            raise click.UsageError(str(error)) from None
        await note_access(session, f"token revoked: {name}", "it is revoked without a record")
    print_result({"revoked": name}, f"{name} is revoked.", as_json=as_json)


@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@command(tokens_group)
async def backup(settings: Settings, file: Path, *, as_json: bool) -> None:
    """Write all tokens to FILE (mode 0600), as hashes: no archive has them."""
    async with Session(settings, reads_only=True) as session:
        tokens = await (await _tokens_of(session)).backup()
        await note_access(session, "export: tokens")
    write_private(file, msgspec.json.encode(tokens).decode() + "\n")
    print_result({"tokens": len(tokens)}, f"{len(tokens)} tokens are in {file}.", as_json=as_json)


@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@command(tokens_group)
async def restore(settings: Settings, file: Path, *, as_json: bool) -> None:
    """Add the tokens in FILE that this ledger never had; those that were revoked stay so."""
    try:
        kept = tokens_in(file)
    except TokenError as error:
        raise click.UsageError(str(error)) from None
    async with Session(settings, reads_only=True) as session:
        await note_access(session, "restore: tokens")
        number = await (await _tokens_of(session)).restore(kept)
    print_result({"tokens": number}, f"{number} of {len(kept)} tokens are added.", as_json=as_json)
