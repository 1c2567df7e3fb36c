"""A hidden command: a process that verifies chunks of the archive for another one. It imports little, to start soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from app.cli.main import cli, command
from app.runtime.archive_chunks import ChunkShare, write_reports
from app.runtime.child_processes import lower_priority, while_parent_lives

if TYPE_CHECKING:
    from config.settings import Settings


@click.option("--with-parent", is_flag=True, required=True, help="End when standard input ends.")
@click.argument("share")
@command(cli, json=False, hidden=True)
async def verify_archive_chunks(settings: Settings, share: str, *, with_parent: bool) -> None:
    """Compare chunks of an archive with the seal, and write a line for each, for another process."""
    del settings
    assert with_parent  # click requires it
    lower_priority()
    await while_parent_lives(write_reports(msgspec.json.decode(share, type=ChunkShare)))
