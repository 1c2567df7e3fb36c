"""Old events leave the stream by an operator's word, and stay in the archive, from which they are read then."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from app.runtime.archive import archive_to_the_end, verify_archive
from app.runtime.roles import answering_roles
from config import topology
from consumers.seal.archive_service import archive_of
from domain.periods import days_of
from ledger.archive.earlier_events import archived_events
from ledger.archive.stream_retirement import StreamRetirement
from ledger.errors import LedgerError
from ledger.store.log import digest_of
from ledger.store.streams import Retired, retired_in, stream_config
from ledger.transparency.sealer import seal_folder
from projections.engine.storage import claim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import date
    from pathlib import Path

    from app.runtime.session import Session
    from ledger.archive.event_archive import Archive
    from ledger.archive.stream_retirement import Retirement
    from ledger.nats.client import LedgerClient
    from ledger.transparency.signed_notes import Verifier

type Progressed = Callable[[int, int], None]
_MIN_SERVER = (2, 15)


async def retire(session: Session, before: date, trusted: Sequence[Verifier], progressed: Progressed) -> int:
    """Remove events recorded before a day from the stream; return the last position that has left it.

    First everything is sealed, archived, and compared with the seal. Then the stream is made again without these events
    (see ``StreamRetirement``). A command that is interrupted is run again.

    Raises:
        LedgerError: the day has not begun, a role runs, the archive differs from the seal, or no event would stay.

    """
    version = session.client.connected_server_version
    if (version.major, version.minor) < _MIN_SERVER:
        raise LedgerError(f"nats-server {version} was not tried for this: run 2.15 or newer")
    if before > datetime.now(UTC).date():
        raise LedgerError(f"{before} has not begun (UTC): name a period that has")
    if running := await answering_roles(session):
        raise LedgerError(f"stop every role of this ledger first, on each machine: {', '.join(running)} answers")
    await archive_to_the_end(session, progressed)
    archive = archive_of(session.data_dir)
    seal = seal_folder(session.data_dir)
    if findings := await verify_archive(archive.folder, seal, trusted, progressed, session.settings):
        raise LedgerError(f"the archive is not what was sealed, so no event is removed: {findings[0].text}")
    until = _last_before(archive, before)
    if until <= session.log.retired.until:
        return session.log.retired.until
    if until >= await session.log.last_position():
        raise LedgerError(f"at least one event stays in the stream: name a period before {before}")
    (last,) = next(archive.batches(until, until))
    with _only_command(session.data_dir):
        stream = _stream_retirement(await operator_of(session), session.data_dir, progressed)
        await stream.begin(until, digest_of(last.data), dict[str, Any](topology.ledger_subjects(until)))
        await stream.go_on()
    config = await stream_config(session.client, topology.LEDGER)
    if config is None or retired_in(config).until != until:
        raise LedgerError("another command has changed the stream meanwhile: run this again")
    return until


async def go_on(session: Session, progressed: Progressed) -> None:
    """Complete a retirement that was interrupted.

    Raises:
        LedgerError: as in ``StreamRetirement.go_on``.

    """
    with _only_command(session.data_dir):
        await _stream_retirement(await operator_of(session), session.data_dir, progressed).go_on()


@contextmanager
def _only_command(data_dir: Path) -> Iterator[None]:
    """Refuse to work beside another command, which may be suspended."""
    with claim(data_dir, "retirement") as claimed:
        if not claimed:
            raise LedgerError("another command retires events of this ledger: let it end, or end it")
        yield


async def operator_of(session: Session) -> LedgerClient:
    """Return a connection that may change streams: the operator's, or that of ``nats_url``."""
    return await session.connection("retirement", user="operator") if session.embedded else session.client


def first_day_of(period: str) -> date:
    """Return the first day of a period such as ``2026-09`` or ``2026-09-01``.

    Raises:
        ValueError: it is no period.

    """
    return days_of(period)[0]


def _last_before(archive: Archive, before: date) -> int:
    """Return the last position of the files before the first one with events of a day, or of a later one."""
    until = 0
    for part in archive.parts():
        if part.file[4:14] >= before.isoformat():
            break
        until = part.last
    return until


def _stream_retirement(operator: LedgerClient, data_dir: Path, progressed: Progressed) -> StreamRetirement:
    async def require_archive(retirement: Retirement) -> None:
        await archived_events(data_dir, Retired(retirement.until, retirement.digest)).check()

    return StreamRetirement(operator, topology.LEDGER, topology.RETIRING_SUBJECT, require_archive, progressed)
