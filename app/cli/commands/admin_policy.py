"""`admin policy`: the operator's way past the governance of policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.commands.admin import admin
from app.cli.commands.decide import send, valid_policy
from app.cli.main import command

if TYPE_CHECKING:
    from config.settings import Settings

_SOURCE = "cli"


@admin.group("policy")
def policy_group() -> None:
    """Publish a policy past its governance."""


@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--break-glass", is_flag=True, required=True, help="Confirm it; the guard flags it.")
@click.option("--reason", required=True, help="Why governance cannot wait.")
@click.option("--published-by", "--by", "by", default="operator", show_default=True, help="The operator.")
@command(policy_group)
async def publish(settings: Settings, file: Path, break_glass: bool, reason: str, by: str, *, as_json: bool) -> None:
    """Publish the policy in FILE without a proposal; it is recorded, and flagged by the guard (R12)."""
    document = valid_policy(file, as_json=as_json).document
    fields = {"policy": document, "published_by": by, "break_glass": break_glass, "reason": reason}
    await send(settings, "policy", _SOURCE, fields, as_json=as_json, access=f"break-glass: {reason}")
