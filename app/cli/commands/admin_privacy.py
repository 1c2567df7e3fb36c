"""`admin forget`, `admin hold` and `admin keys`: erasure of personal data, and the keys that encrypt it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
import sqlalchemy as sa

from app.cli.commands.admin import admin
from app.cli.main import command
from app.output import console, fail, print_json, print_list, print_result
from app.runtime.access_records import note_access
from app.runtime.session import Session
from app.runtime.views import read_view
from consumers.privacy import erasure
from ledger.encryption.keyring import Keyring, parse_backup
from ledger.files import read_bounded, write_private
from projections.views import casework

if TYPE_CHECKING:
    from app.output import OutputFormat
    from config.settings import Settings

_BACKUP_BYTES = 1 << 30


@click.option("--reason", help="The reason; it is recorded.")
@click.option("--by", "requested_by", required=True, help="The requester; recorded.")
@click.option("--employee", is_flag=True, help="PERSON is an employee: forget their name and their words.")
@click.argument("person", metavar="PERSON")
@command(admin)
async def forget(
    settings: Settings, person: str, requested_by: str, reason: str | None, *, employee: bool, as_json: bool
) -> None:
    """Make personal data about PERSON, a customer, unreadable for ever by destroying its keys.

    Linked customers of the same person are forgotten, too. Events stay, and every proof stays valid.
    """
    async with Session(settings, reads_only=True) as session:
        try:
            done = await (_forget_employee if employee else _forget_customer)(session, person, requested_by, reason)
        except erasure.HeldError as error:
            fail(str(error), code="legal_hold", as_json=as_json)
    if as_json:
        print_json(done._asdict())
        return
    console.print(f"Forgotten: {', '.join(done.customers + done.employees)} (position {done.position}).", markup=False)
    console.print(f"{done.keys} keys destroyed, {done.rejected} rejected events deleted.")
    if done.backups_until:
        console.print(f"Backups of keys may contain them until {done.backups_until}; delete the backups by then.")
    else:
        console.print("No backup of keys is known, so the data cannot be restored.")


async def _forget_employee(session: Session, employee: str, by: str, reason: str | None) -> erasure.Erasure:
    """Forget an employee."""
    keys = await Keyring.open(session.client)
    return await erasure.forget_employee(session.log, session.rejected, keys, employee, by, reason)


async def _forget_customer(session: Session, customer: str, by: str, reason: str | None) -> erasure.Erasure:
    """Forget a customer, the linked customers of the same person, and their interactions."""
    person = (await read_view(session, "casework", lambda c: casework.same_person(c, customer))).result
    of_person = casework.interactions.c.customer_id.in_(person)
    query = sa.select(casework.interactions.c.interaction_id).where(of_person)
    interactions = (await read_view(session, "casework", lambda c: list(c.execute(query).scalars()))).result
    keys = await Keyring.open(session.client)
    return await erasure.forget(session.log, session.rejected, keys, person, interactions, by, reason)


@click.option("--release", is_flag=True, help="Release the hold.")
@click.option("--by", default="", help="The person who ordered it.")
@click.option("--reason", default="", help="The reason.")
@click.argument("customer", required=False)
@command(admin, lists=True)
async def hold(
    settings: Settings, customer: str | None, reason: str, by: str, *, release: bool, output: OutputFormat
) -> None:
    """Protect CUSTOMER from being forgotten (a legal hold); without CUSTOMER, list the active holds."""
    if customer and not release and not (reason and by):
        raise click.UsageError("give --reason and --by")
    async with Session(settings, reads_only=True) as session:
        keys = await Keyring.open(session.client)
        if customer and release:
            await erasure.release(keys, customer)
        elif customer:
            await erasure.hold(keys, customer, reason, by)
        items = await erasure.holds(keys)
    columns = ("customer_id", "reason", "by", "at")
    rows = [tuple(item[name] for name in columns) for item in items]
    print_list(output, items, "Legal holds", columns, rows, " ".join(columns))


@admin.group("keys")
def keys_group() -> None:
    """Keys of persons. No archive has them and they cannot be derived: back them up separately."""


@click.option(
    "--keep-days", type=click.IntRange(1), default=30, show_default=True, help="Days until its deletion is due."
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@command(keys_group)
async def backup(settings: Settings, file: Path, keep_days: int, *, as_json: bool) -> None:
    """Write all keys to FILE (mode 0600). Delete it by its date: until then forgotten data can be restored."""
    async with Session(settings, reads_only=True) as session:
        keys = await Keyring.open(session.client)
        now = datetime.now(UTC)
        until = (now + timedelta(days=keep_days)).date().isoformat()
        await keys.note(f"backup.{int(now.timestamp())}", {"file": str(file), "kept_until": until})
        await note_access(session, "export: keys")
        entries = await keys.backup()
    write_private(file, json.dumps(entries) + "\n")
    found = {"file": str(file), "entries": len(entries), "kept_until": until}
    print_result(found, f"{len(entries)} entries in {file}: delete it by {until}.", as_json=as_json)


@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@command(keys_group)
async def restore(settings: Settings, file: Path, *, as_json: bool) -> None:
    """Restore missing keys from FILE, and forget again the persons that were forgotten since."""
    try:
        entries = parse_backup(read_bounded(file, _BACKUP_BYTES))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{file} is no backup of keys: {error}") from None
    async with Session(settings, reads_only=True) as session:
        keys = await Keyring.open(session.client)
        await note_access(session, f"restore: {len(entries)} keys")
        restored = await keys.restore(entries)
        again = await erasure.forget_again(keys, session.log)
    found = {"restored": restored, "destroyed_again": again}
    print_result(found, f"{restored} restored, {again} of forgotten persons destroyed again.", as_json=as_json)
