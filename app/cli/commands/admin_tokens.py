"""`admin tokens`: access to the dashboard and its API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.commands.admin import admin
from app.cli.main import command
from app.output import console, print_json, print_list, print_result
from app.runtime.access_records import note_access_from_outside
from dashboard.auth.tokens import ROLES, TokenError, Tokens

if TYPE_CHECKING:
    from app.output import OutputFormat
    from config.settings import Settings
    from dashboard.auth.tokens import Role


@admin.group("tokens")
def tokens_group() -> None:
    """Tokens for the dashboard: make, list and revoke; each is shown once."""


@click.option("--days", type=click.IntRange(1), help="Validity in days. [default: until revoked]")
@click.option("--person", help="The employee's id, for the roles agent and manager.")
@click.option("--role", type=click.Choice(ROLES), required=True, help="The role of its bearer.")
@click.argument("name")
@command(tokens_group)
async def make(
    settings: Settings, name: str, role: Role, person: str | None, days: int | None, *, as_json: bool
) -> None:
    """Make a token with a NAME; its text is shown only now."""
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    try:
        text = Tokens(Path(settings.data_dir)).make(name, role, person, expires)
    except TokenError as error:
        raise click.UsageError(str(error)) from None
    await note_access_from_outside(settings, f"token made: {name} ({role})")
    if as_json:
        print_json({"name": name, "role": role, "person_id": person, "expires": expires, "token": text})
        return
    console.print(text, soft_wrap=True)


@command(tokens_group, "list", lists=True)
async def list_tokens(settings: Settings, *, output: OutputFormat) -> None:
    """List the tokens, without their texts."""
    found = [
        {"name": one.name, "role": one.role, "person_id": one.person_id, "made": one.made, "expires": one.expires}
        for one in Tokens(Path(settings.data_dir)).all()
    ]
    rows = [tuple("" if value is None else str(value)[:19] for value in one.values()) for one in found]
    columns = ("name", "role", "person", "made", "expires")
    print_list(output, found, "Tokens", columns, rows, "name role person_id made expires")


@click.argument("name")
@command(tokens_group)
async def revoke(settings: Settings, name: str, *, as_json: bool) -> None:
    """Revoke the token NAME at once."""
    try:
        Tokens(Path(settings.data_dir)).revoke(name)
    except TokenError as error:
        raise click.UsageError(str(error)) from None
    await note_access_from_outside(settings, f"token revoked: {name}")
    print_result({"revoked": name}, f"{name} is revoked.", as_json=as_json)
