"""`admin seal`, `admin alarm`: what keeps a ledger honest, looked after by its operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from app.cli import Finding, command
from app.commands.administering import admin
from app.output import console, fail, print_json, print_table
from app.sealing import seal_to_the_end
from app.session import Session
from consumers.seal_service import seal_folder
from ledger import alarm as alarms
from ledger.notes import NoteError

if TYPE_CHECKING:
    from config.settings import Settings


@admin.group("seal")
def seal_group() -> None:
    """The seal: how far it is, and handing over to a new key."""


@command(seal_group, "status")
async def seal_status(settings: Settings, *, as_json: bool) -> None:
    """Up to where the log is sealed, with which keys, and who else has signed."""
    async with Session(settings, reads_only=True) as session:
        folder, end = seal_folder(session.data_dir), await session.log.last_position()
        newest = folder.checkpoint()
        found: dict[str, Any] = {
            "size": newest.size if newest else 0, "root": newest.root.hex() if newest else "", "position": end,
            "verifier_keys": [verifier.text() for verifier in folder.verifiers()],
            "rotations": [note.size for note in folder.rotations()],
            "cosigned": [{"size": note.size, "signatures": len(note.lines)} for note in folder.cosigned()],
        }  # fmt: skip
    if as_json:
        print_json(found)
        return
    rows = [
        ("sealed", f"{found['size']:,} of {end:,} positions"), ("root", found["root"]),
        *(("verifier key", key) for key in found["verifier_keys"]),
        *(("cosigned", f"size {one['size']:,}, {one['signatures']} signatures") for one in found["cosigned"]),
    ]  # fmt: skip
    print_table("Seal", ("", ""), rows)


@command(seal_group, "rotate")
async def seal_rotate(settings: Settings, *, as_json: bool) -> None:
    """Sign with a new key from now on; the old one hands over, and stays good for what it signed."""
    async with Session(settings, reads_only=True) as session:
        await seal_to_the_end(session)
        try:
            old, new = seal_folder(session.data_dir).rotate()
        except NoteError as error:
            fail(str(error), code="seal", as_json=as_json)
            return
    if as_json:
        print_json({"old": old.text(), "new": new.text()})
        return
    console.print("Give the new verifier key to your auditors, and back up the key file again:")
    click.echo(new.text())


@click.option("--clear", is_flag=True, help="Take the alarm back: somebody has looked, and writing may go on.")
@command(admin)
async def alarm(settings: Settings, *, clear: bool, as_json: bool) -> None:
    """Whether the alarm is on, which stops everything that writes; why; and taking it back."""
    async with Session(settings, reads_only=True) as session:
        found = await alarms.look(session.client)
        if clear and found is not None:
            user = "operator" if session.embedded else "ledger"
            await alarms.clear(await session.connection("alarm", user=user))
    if as_json:
        print_json(
            {"alarm": None if found is None or clear else found._asdict(), "cleared": clear and found is not None}
        )
    elif found is None:
        console.print("No alarm is on.")
    else:
        console.print(f"Since {found.at}, position {found.position}: {found.reason}", markup=False)
        if clear:
            console.print("Taken back.")
    if found is not None and not clear:
        raise Finding
