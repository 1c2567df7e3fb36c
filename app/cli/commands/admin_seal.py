"""`admin seal`, `admin alarm` and the archive: the evidence of a ledger, and its repair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from app.cli.commands.admin import admin
from app.cli.commands.audit_verify import key_option, verifiers_from
from app.cli.main import CommandFinding, command
from app.output import console, fail, print_json, print_result, print_table, showing_progress
from app.runtime.access_records import note_access
from app.runtime.seal import begin_anew as begin_seal_anew
from app.runtime.seal import folder_to_read, seal_to_the_end, verification, wait_for_the_seal
from app.runtime.seal import take_over as take_over_seal
from app.runtime.session import Session
from ledger.store import snapshots
from ledger.transparency import alarm as alarms
from ledger.transparency.seal_record import SealRecord
from ledger.transparency.sealer import seal_folder
from ledger.transparency.signed_notes import NoteError

if TYPE_CHECKING:
    from config.settings import Settings


@admin.group("seal")
def seal_group() -> None:
    """The seal: its state, a new key, and a new seal."""


@command(seal_group, "status")
async def seal_status(settings: Settings, *, as_json: bool) -> None:
    """Show the size of the seal, its keys, and cosignatures."""
    async with Session(settings, reads_only=True) as session:
        folder, end = await folder_to_read(session), await session.log.last_position()
        newest = folder.checkpoint()
        found: dict[str, Any] = {
            "size": newest.size if newest else 0,
            "root": newest.root.hex() if newest else "",
            "position": end,
            "verifier_keys": [verifier.text() for verifier in folder.verifiers()],
            "rotations": [note.size for note in folder.rotations()],
            "cosigned": [{"size": note.size, "signatures": len(note.lines)} for note in folder.cosigned()],
            "begun": [msgspec.to_builtins(one) for one in (await (await SealRecord.open(session.client)).read()).begun],
        }
    if as_json:
        print_json(found)
        return
    rows = [
        ("sealed", f"{found['size']:,} of {end:,} positions"),
        ("root", found["root"]),
        *(("verifier key", key) for key in found["verifier_keys"]),
        *(
            ("begun", f"{one['at']}, position {one['position']:,}: {one['reason'] or 'the first seal'}")
            for one in found["begun"]
        ),
        *(("cosigned", f"size {one['size']:,}, {one['signatures']} signatures") for one in found["cosigned"]),
    ]
    print_table("Seal", ("", ""), rows)


@command(seal_group, "rotate")
async def seal_rotate(settings: Settings, *, as_json: bool) -> None:
    """Sign with a new key from now on; the old key signs the handover and stays valid for earlier checkpoints."""
    async with Session(settings, reads_only=True) as session:
        await seal_to_the_end(session)
        try:
            old, new = seal_folder(session.data_dir).rotate()
        except NoteError as error:
            fail(str(error), code="seal", as_json=as_json)
    if as_json:
        print_json({"old": old.text(), "new": new.text()})
        return
    console.print("Give the new verifier key to your auditors, and back up the key file again:")
    click.echo(new.text())


@command(seal_group, "take-over")
async def take_over(settings: Settings, *, as_json: bool) -> None:
    """Go on with the seal at this machine, after the one that sealed is lost; stop its role `seal` first if it lives.

    The key comes from the NATS server, where RESOLUTION_LEDGER_SEAL_SECRET encrypts it. The tiles are made again from
    the log, and must reach the server's last checkpoint before anything is signed.
    """
    async with Session(settings, reads_only=True) as session:
        end = await take_over_seal(session)
        folder = seal_folder(session.data_dir)
        found = {"folder": str(folder.folder), "size": end, "verifier_key": folder.signer().verifier.text()}
    print_result(found, f"{end:,} events are sealed in {found['folder']}. Start `run seal` here.", as_json=as_json)


@click.option("--reason", required=True, help="The reason why the old seal cannot be restored; it is recorded.")
@command(seal_group)
async def begin_anew(settings: Settings, reason: str, *, as_json: bool) -> None:
    """Begin a new seal with a new key after the old one is lost for good; restore the old one if you can.

    Holders of an old checkpoint see that it was not handed over. The rest of the old folder is moved beside the new
    one. Clear the alarm afterwards: `admin alarm --clear`.
    """
    if not reason.strip():
        raise click.UsageError("--reason is blank: say why the old seal cannot be restored")
    async with Session(settings, reads_only=True) as session:
        verifier, moved = await begin_seal_anew(session, reason)
    if as_json:
        print_json({"verifier_key": verifier.text(), "moved": str(moved) if moved else None, "reason": reason})
        return
    if moved is not None:
        console.print(f"The rest of the old seal is in {moved}.", markup=False)
    console.print("Give the new verifier key to your auditors and say why, and back up the `seal` folder:")
    click.echo(verifier.text())


@click.option("--clear", is_flag=True, help="Clear the alarm after an investigation, so that writing continues.")
@command(admin)
async def alarm(settings: Settings, *, clear: bool, as_json: bool) -> None:
    """Show the alarm, which stops everything that writes, with its reason; or clear it."""
    async with Session(settings, reads_only=True) as session:
        found = await alarms.read_alarm(session.client)
        if clear:
            await snapshots.remove_all(session.client)
        if clear and found is not None:
            user = "operator" if session.embedded else "ledger"
            await alarms.clear_alarm(await session.connection("alarm", user=user))
    if as_json:
        print_json(
            {"alarm": None if found is None or clear else found._asdict(), "cleared": clear and found is not None}
        )
    elif found is None:
        console.print("No alarm is on.")
    else:
        console.print(f"Since {found.at}, position {found.position}: {found.reason}", markup=False)
        if clear:
            console.print("Cleared.")
    if found is not None and not clear:
        raise CommandFinding


@click.option(
    "--retire-before",
    "period",
    metavar="PERIOD",
    help="Then remove events recorded before this period (2026-09, 2026-W36, 2026-09-01; UTC) from the log's stream.",
)
@key_option
@command(admin)
async def archive(settings: Settings, period: str | None, keys: tuple[str, ...], *, as_json: bool) -> None:
    """Copy sealed events into the archive, Parquet files by day; `up` does this continuously.

    With --retire-before old events leave the server, after the archive was compared with the seal: stop every role on
    each machine first. From then on the archive alone has these events, and each machine with a role needs a copy of
    it. A command that was interrupted is run again.
    """
    from app.runtime.archive import archive_to_the_end
    from app.runtime.retirement import first_day_of, retire
    from consumers.seal.archive_service import archive_of

    try:
        before = None if period is None else first_day_of(period)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--retire-before") from None
    retired = None
    with showing_progress("archiving", "events", quiet=as_json) as progressed:
        async with Session(settings, reads_only=True, retires=progressed if before else None) as session:
            if before is None:
                position = await archive_to_the_end(session, progressed)
            else:
                retired = await retire(session, before, verifiers_from(keys), progressed)
                position = archive_of(session.data_dir).last_position
            kept = archive_of(session.data_dir)
            found = {"folder": str(kept.folder), "position": position, "files": len(kept.parts())}
    text = f"{position:,} positions in {found['files']} files: {found['folder']}"
    if retired is not None:
        found["retired_until"] = retired
        text += f"; the archive alone has those up to {retired:,} now: copy it to another disk" if retired else ""
    print_result(found, text, as_json=as_json)


@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@key_option
@command(admin)
async def restore(settings: Settings, folder: Path, keys: tuple[str, ...], *, as_json: bool) -> None:
    """Fill an empty ledger from the archive in FOLDER, and prove that it equals the sealed log.

    Every event keeps its position. Copy the old `seal` folder into the new data directory first, so that the seal
    continues with its key and its tiles.
    """
    from app.runtime.archive import restore as restore_archive

    async with Session(settings) as session:
        with showing_progress("restoring", "events", quiet=as_json) as progressed:
            found = await restore_archive(session, folder, verifiers_from(keys), progressed)
        await note_access(session, f"restore: {found['restored']} positions", "it is complete without a record")
    print_result(found, f"{found['restored']:,} positions restored; root {found['root']} as sealed.", as_json=as_json)


@key_option
@command(admin)
async def scrub(settings: Settings, keys: tuple[str, ...], *, as_json: bool) -> None:
    """Compare the log, the archive and the seal with each other, and show the next step."""
    from app.runtime.archive import verify_archive
    from consumers.seal.archive_service import archive_of

    trusted = verifiers_from(keys)
    async with Session(settings, reads_only=True) as session:
        await wait_for_the_seal(session)
        with showing_progress("reading the log", "events", quiet=as_json) as progressed:
            log = (await verification(session, (), trusted, progressed=progressed))["findings"]
        kept, seal = archive_of(session.data_dir), seal_folder(session.data_dir)
        with showing_progress("reading the archive", "events", quiet=as_json) as progressed:
            differing = await verify_archive(kept.folder, seal, trusted, progressed, settings)
            archived = [wrong.wire() for wrong in differing]
        to_do = _what_to_do(log, archived, kept.last_position, session.log.retired.until)
    if as_json:
        print_json({"log": log, "archive": archived, "archive_position": kept.last_position, "do": to_do})
    else:
        rows = [("log", *_fault_row(wrong)) for wrong in log] + [("archive", *_fault_row(wrong)) for wrong in archived]
        if rows:
            print_table("Faults", ("where", "from", "to", "kind", ""), rows, numbers=(1, 2))
        console.print(to_do, markup=False)
    if log or archived:
        raise CommandFinding


def _fault_row(wrong: dict[str, Any]) -> tuple[Any, ...]:
    return wrong["first"], wrong["last"], wrong["kind"], wrong["text"]


def _what_to_do(
    log: list[dict[str, Any]], archived: list[dict[str, Any]], archive_position: int, retired_until: int
) -> str:
    """Return the next step for the faults of the log and of the archive."""
    if not log and not archived:
        return "The log, the archive and the seal agree: nothing to do."
    if archived and any(wrong["first"] <= retired_until for wrong in archived):
        return (
            f"The archive is not what was sealed, and it alone has the events up to {retired_until}: keep it as "
            "evidence, and bring back a copy of the folder `archive` from a backup or from another machine."
        )
    if not log:
        return (
            "The log is what was sealed; the archive is not. Move the archive folder away and run "
            "`resolution-ledger admin archive`: it is written again."
        )
    seal_alone = all(wrong["kind"] in SEAL_KINDS for wrong in log)
    if seal_alone:
        return (
            "The seal's own files are damaged: restore the `seal` folder from its backup, and run "
            "`resolution-ledger audit verify --checkpoint FILE` with a checkpoint kept elsewhere."
        )
    last = max(wrong["last"] for wrong in log)
    if archived or last > archive_position:
        return (
            "The log is not what was sealed, and the archive does not have all of it. Stop `up`, keep both as "
            "they are, and look for an older copy of the archive or of the server's folder."
        )
    return (
        "The log is not what was sealed; the archive is. Stop `up`, keep this data directory as evidence, copy "
        "its `seal` folder into a new one: `resolution-ledger admin restore ARCHIVE --data-dir NEW`."
    )


SEAL_KINDS = (
    "tile edited",
    "tile missing",
    "checkpoint replaced",
    "checkpoint forged",
    "key replaced",
    "evidence missing",
    "evidence damaged",
    "checkpoint missing",
    "checkpoint not trusted",
)
"""Findings of a verification that concern the seal's files and not the log."""
