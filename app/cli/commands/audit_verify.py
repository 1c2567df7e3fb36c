"""`audit verify`, `prove`, `verify-proof` and `checkpoint`: evidence of the seal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.commands.audit_trail import audit
from app.cli.main import CommandFinding, command
from app.output import console, fail, print_json, print_result, print_table, showing_progress
from app.runtime.access_records import note_access
from app.runtime.seal import from_seal, verification, wait_for_the_seal
from app.runtime.session import Session
from ledger.errors import LedgerError
from ledger.files import read_bounded
from ledger.transparency.event_differences import SealFinding
from ledger.transparency.merkle import ProofError
from ledger.transparency.proofs import prove as prove_position
from ledger.transparency.proofs import read_proof
from ledger.transparency.proofs import verify_proof as check_proof
from ledger.transparency.sealer import seal_folder
from ledger.transparency.signed_notes import NoteError, Verifier, read_checkpoint
from ledger.transparency.tiles import MissingTileError
from projections.reports.case_file import CASE_BYTES, proofs_in, sealed_event

if TYPE_CHECKING:
    from config.settings import Settings
    from ledger.transparency.proofs import Proof
    from ledger.transparency.sealer import SealFolder
    from ledger.transparency.signed_notes import Checkpoint

_CHECKPOINT_BYTES = _KEYS_BYTES = 1 << 20
key_option = click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="A verifier key you trust (name+id+key), or a file of them; repeatable.",
)


def verifiers_from(keys: tuple[str, ...]) -> list[Verifier]:
    """Return the verifier keys of options: each is a key, or a file with a key a line."""
    found: list[Verifier] = []
    for key in keys:
        try:
            lines = read_bounded(Path(key), _KEYS_BYTES).decode().splitlines() if Path(key).exists() else [key]
            read = [Verifier.read(line) for line in lines if line.strip()]
        except (OSError, ValueError) as error:
            raise click.UsageError(str(error)) from None
        if not read:  # without a named key the ledger's own keys would be trusted
            raise click.UsageError(f"--key {key!r} names no verifier key")
        found += read
    return found


def _checkpoint(file: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    Raises:
        NoteError: the file holds none.

    """
    try:
        return read_checkpoint(read_bounded(file, _CHECKPOINT_BYTES).decode())
    except (OSError, ValueError) as error:
        raise NoteError(f"{file}: {error}") from None


@click.option(
    "--checkpoint",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A checkpoint that you kept; repeatable.",
)
@key_option
@click.option("--resume", is_flag=True, help="Continue an interrupted verification.")
@command(audit)
async def verify(
    settings: Settings, files: tuple[Path, ...], keys: tuple[str, ...], *, resume: bool, as_json: bool
) -> None:
    """Recompute the seal from the log, and report the first position where history differs.

    Compares the log, the tiles, the newest checkpoint, and your own checkpoints. Positions beyond your checkpoints are
    only as trustworthy as the key: give the verifier key, too, or the ledger's own is used.
    """
    trusted = verifiers_from(keys)
    brought: list[Checkpoint] = []
    damaged: list[SealFinding] = []
    for file in files:
        try:
            brought.append(_checkpoint(file))
        except NoteError as error:
            damaged.append(SealFinding("checkpoint unreadable", 1, 1, f"your checkpoint {error}"))
    async with Session(settings, reads_only=True) as session:
        await wait_for_the_seal(session)
        with showing_progress("verifying", "events", quiet=as_json) as progressed:
            result = await verification(session, brought, trusted, damaged, resume=resume, progressed=progressed)
    if as_json:
        print_json(result)
    else:
        _print_result(result)
    if result["findings"]:
        first = result["findings"][0]
        raise CommandFinding("" if as_json else f"history is not what was sealed: {first['kind']}, {first['text']}")


def _print_result(result: dict[str, Any]) -> None:
    earlier = result["resumed_from"]
    rows = [
        ("sealed", f"{result['size']:,} positions, root {result['root']}"),
        *[("read before", f"{earlier:,} positions, by a run that was interrupted; now a sample")] * bool(earlier),
        ("in the log", f"{result['last_position']:,} positions"),
        ("signed by", ", ".join(result["signed_by"]) or "no trusted key"),
        ("your checkpoints", ", ".join(f"{size:,}" for size in result["brought"]) or "none"),
        ("gaps sealed", ", ".join(map(str, result["gaps"][:10])) or "none"),
        ("result", "the log is what was sealed" if not result["findings"] else f"{len(result['findings'])} findings"),
    ]
    print_table("Verification", ("", ""), rows)
    if result["findings"]:
        found = [(wrong["first"], wrong["last"], wrong["kind"], wrong["text"]) for wrong in result["findings"]]
        print_table("Findings", ("from", "to", "kind", ""), found, numbers=(0, 1))
    elif not result["brought"]:
        console.print("Keep a checkpoint elsewhere (`audit checkpoint > FILE`): it reveals a replaced ledger.")


@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--from", "start", type=click.IntRange(1), default=1, show_default=True, help="First position.")
@click.option("--to", "end", type=click.IntRange(1), help="Last position.")
@command(audit)
async def export(settings: Settings, file: Path, start: int, end: int | None, *, as_json: bool) -> None:
    """Write the events into one Parquet FILE for DuckDB, Polars or Spark; columns as in the archive."""
    from app.runtime.archive import export as export_events

    async with Session(settings, reads_only=True) as session:
        last = await session.log.last_position()
        with showing_progress("exporting", "events", quiet=as_json) as progressed:
            written = await export_events(session, file, start, min(last, end or last), progressed)
        try:
            await note_access(session, f"export: positions {start} to {min(last, end or last)}")
        except LedgerError:
            file.unlink()
            raise
    print_result({"file": str(file), "events": written}, f"{written:,} events in {file}", as_json=as_json)


@click.argument("position", type=click.IntRange(1))
@click.option("--into", type=click.Path(path_type=Path), help="The .tlog-proof file to write.")
@command(audit)
async def prove(settings: Settings, position: int, into: Path | None, *, as_json: bool) -> None:
    """Print a proof that the event at POSITION is in the sealed log: a C2SP .tlog-proof file."""

    def make(seal: SealFolder) -> tuple[int, Proof | None, str]:
        newest = seal.checkpoint()
        if newest is None or position > newest.size:
            return newest.size if newest else 0, None, ""
        return newest.size, prove_position(seal.tiles(newest.size), newest, position), seal.trusted()[-1].text()

    async with Session(settings, reads_only=True) as session:
        try:
            size, proof, key = await from_seal(session, make)
        except (MissingTileError, ProofError) as error:
            fail(f"{error}: run `resolution-ledger audit verify`", code="seal", as_json=as_json)
    if proof is None:
        message = f"position {position} is not sealed; the newest checkpoint covers {size}"
        fail(message, code="not_sealed", as_json=as_json)
    if into is not None:
        into.write_text(proof.text(), encoding="utf-8", newline="\n")
    if as_json:
        print_json({"position": position, "size": size, "proof": proof.text()})
    elif into is None:
        click.echo(proof.text(), nl=False)
    else:
        console.print(f"Written to {into}. Check it anywhere with:", highlight=False)
        click.echo(f"resolution-ledger audit verify-proof {into} --key {key}")


@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@key_option
@command(audit)
async def verify_proof(settings: Settings, file: Path, keys: tuple[str, ...], *, as_json: bool) -> None:
    """Check a proof, or all proofs in a case file, offline with the verifier key, and show the proven events."""
    trusted = verifiers_from(keys)
    if not trusted:
        try:
            trusted = seal_folder(settings.folder).trusted()
        except (NoteError, OSError) as error:
            fail(f"{error}; give the verifier key with --key", code="seal", as_json=as_json)
    if not trusted:
        raise click.UsageError("give the verifier key with --key: the data directory has no seal")
    try:
        texts = proofs_in(read_bounded(file, CASE_BYTES).decode())
        entries = [check_proof(read_proof(text), trusted) for text in texts]
        shown = [
            {"position": entry.position, "subject": entry.subject, "event": sealed_event(entry)} for entry in entries
        ]
    except (ValueError, OSError, RecursionError) as error:
        fail(f"{file}: {error}", code="proof", as_json=as_json)
    if as_json:
        print_json({"valid": True, "items": shown} if len(shown) > 1 else {"valid": True, **shown[0]})
        return
    for one in shown:
        where = one["subject"] or "a gap without an event"
        console.print(f"The proof holds: position {one['position']:,}, {where}.", markup=False)
        if one["event"] is not None:
            print_json(one["event"])


@click.option(
    "--add",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Store cosignatures of a checkpoint.",
)
@click.option("--keys", "show_keys", is_flag=True, help="Print the verifier keys instead.")
@command(audit)
async def checkpoint(settings: Settings, add: Path | None, *, show_keys: bool, as_json: bool) -> None:
    """Print the newest signed checkpoint. Keep it elsewhere for `audit verify --checkpoint`."""
    async with Session(settings, reads_only=True) as session:
        try:
            note, trusted = await from_seal(session, lambda seal: (seal.checkpoint(), seal.trusted()))
            if add is not None:
                note = seal_folder(session.data_dir).add_cosignatures(_checkpoint(add))
        except NoteError as error:
            fail(str(error), code="seal", as_json=as_json)
    if note is None:
        fail("nothing is sealed yet: the log is empty", code="not_sealed", as_json=as_json)
    keys = [verifier.text() for verifier in trusted]
    if as_json:
        print_json(
            {
                "origin": note.origin,
                "size": note.size,
                "root": note.root.hex(),
                "checkpoint": note.note,
                "verifier_keys": keys,
            }
        )
    else:
        click.echo("\n".join(keys) if show_keys else note.note, nl=show_keys)
