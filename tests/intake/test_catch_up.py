"""The intake writes its index of a long log in large commits: an end in the middle lets no event be recorded twice."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.runtime.session import Session
from consumers.intake import recorder
from consumers.intake.inbox_message import Message
from consumers.intake.recorder import Intake
from consumers.runtime.source_watch import SourceWatch
from ledger.encryption.keyring import Keyring
from ledger.errors import LostEventsError, UnavailableError
from ledger.store import event_id_index
from ledger.store import log as log_module
from ledger.store.event_id_index import EventIdIndex
from ledger.store.log import Log, Recorded
from tests.support.builders import purchase

SUBJECT = "ledger.fact.crm"
EVENTS = 100


async def intake_of(session: Session, index: EventIdIndex) -> Intake:
    keys = await Keyring.open(session.client)
    return Intake(session.log, session.rejected, index, keys, SourceWatch(session.log))


def messages(many: int) -> list[Message]:
    replies = [b"$JS.ACK.INBOX.intake.1.%d.%d.1.0" % (n, n) for n in range(1, many + 1)]
    bodies = [json.dumps(purchase(n)).encode() for n in range(1, many + 1)]
    return [Message("resolution.inbox.crm", *one) for one in zip(bodies, [()] * many, replies, strict=True)]


@pytest.fixture
async def recorded(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record events by an intake of their own, and return the rows of its index.

    From then on some thirty events are a large commit, in parts of four; the log is read ten events at a time.
    """
    with closing(EventIdIndex(tmp_path / "first.sqlite")) as index:
        await (await intake_of(session, index)).take(messages(EVENTS))
        rows = index.rows("SELECT * FROM names ORDER BY key")
    monkeypatch.setattr(recorder, "_ENTRIES_A_COMMIT", 30)
    monkeypatch.setattr(event_id_index, "_ENTRIES_AT_ONCE", 15)
    monkeypatch.setattr(event_id_index, "_ENTRIES_A_PART", 4)
    monkeypatch.setattr(log_module, "MAX_BATCH", 10)
    return rows


async def require_complete(session: Session, index: EventIdIndex, rows: list[Any]) -> None:
    """Take all events once more: none is recorded again, and the index is that of the first intake."""
    await (await intake_of(session, index)).take(messages(EVENTS))
    assert await session.log.last_position() == EVENTS
    assert index.rows("SELECT * FROM names ORDER BY key") == rows
    assert (index.head(SUBJECT).position, index.begun()) == (EVENTS, {})
    assert index.sources_with_token("crm") == ["crm"]


async def test_an_index_read_from_the_log_is_the_one_of_the_first_intake(
    session: Session, tmp_path: Path, recorded: list[Any]
) -> None:
    with closing(EventIdIndex(tmp_path / "second.sqlite")) as index:
        await require_complete(session, index, recorded)


class Ended(BaseException):
    """The process ends here."""


def ends_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a large commit end after some of its parts, as if the process was killed there."""
    made = EventIdIndex.commit_in_parts

    def some(*arguments: Any) -> Iterator[None]:
        for number, _ in enumerate(made(*arguments)):
            if number == parts:
                monkeypatch.setattr(EventIdIndex, "commit_in_parts", made)
                raise Ended
            yield

    monkeypatch.setattr(EventIdIndex, "commit_in_parts", some)


async def test_an_intake_that_ended_in_a_large_commit_goes_on(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[Any]
) -> None:
    path = tmp_path / "second.sqlite"
    ends_after(3, monkeypatch)
    with closing(EventIdIndex(path)) as index:
        with pytest.raises(Ended):
            await (await intake_of(session, index)).catch_up(SUBJECT)
        assert (index.head(SUBJECT).position, index.begun()[SUBJECT].position) == (0, 30)
    with closing(EventIdIndex(path)) as index:
        await require_complete(session, index, recorded)


async def test_entries_of_events_that_the_log_has_lost_are_noticed(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[Any]
) -> None:
    """They lie beyond the cursor, so that an event would be taken for a duplicate that is recorded nowhere."""
    path = tmp_path / "second.sqlite"
    ends_after(3, monkeypatch)
    with closing(EventIdIndex(path)) as index, pytest.raises(Ended):
        await (await intake_of(session, index)).catch_up(SUBJECT)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE begun SET digest = 'other'")
    expected = pytest.raises(LostEventsError, match="intake has read another event at position 30")
    with closing(EventIdIndex(path)) as index, expected:
        await (await intake_of(session, index)).catch_up(SUBJECT)


async def test_a_server_that_becomes_unreachable_costs_nothing_that_was_read(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[Any]
) -> None:
    made, reads = Log.read_batch, []

    async def fails_once(*arguments: Any) -> tuple[list[Recorded], bool]:
        reads.append(arguments)
        if len(reads) == 3:
            raise UnavailableError("away")
        return await made(*arguments)

    monkeypatch.setattr(Log, "read_batch", fails_once)
    with closing(EventIdIndex(tmp_path / "second.sqlite")) as index:
        with pytest.raises(UnavailableError, match="away"):
            await (await intake_of(session, index)).catch_up(SUBJECT)
        assert (index.head(SUBJECT).position, index.begun()) == (20, {})
        await require_complete(session, index, recorded)


async def test_requests_that_come_meanwhile_wait_for_the_one_reading(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[Any]
) -> None:
    made, reads = Log.read_batch, []

    async def counted(*arguments: Any) -> tuple[list[Recorded], bool]:
        reads.append(arguments)
        return await made(*arguments)

    monkeypatch.setattr(Log, "read_batch", counted)
    with closing(EventIdIndex(tmp_path / "second.sqlite")) as index:
        intake = await intake_of(session, index)
        await asyncio.gather(*(intake.catch_up(SUBJECT) for _ in range(5)), intake.take(messages(EVENTS)))
        assert len(reads) == EVENTS // 10
        await require_complete(session, index, recorded)
