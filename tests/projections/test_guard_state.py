"""The guard's state: the same flags for every place of a restart, and after SIGKILL of the role."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.demo.organisation import policy_document
from app.runtime.session import Session
from benchmarks.misuse import World
from consumers.guard.flag_writer import FlagWriter
from consumers.guard.state import guard_folder, open_state, state_version
from domain.abuse.cases import CaseDraft
from domain.abuse.flag_book import FlagDraft
from domain.abuse.guard import Guard
from domain.abuse.history import GuardEvent
from domain.abuse.stored_bodies import from_stored, to_stored
from domain.events.decisions import PolicyPublished
from domain.keyed_state import MemoryState, MemoryTable
from ledger.store.log import digest_of
from ledger.store.state_file import StateFile
from ledger.store.subscription import START, ReadCursor
from tests.support.builders import reported_action
from tests.support.environment import ROOT, clean_environment
from tests.support.guard_claims import claims
from tests.support.upstreams import upstream_of
from tests.support.waiting import eventually

type Published = dict[tuple[str, int], FlagDraft | CaseDraft]
"""The events of flags and cases by id and number, as the log would hold them."""


@cache
def history() -> list[GuardEvent]:
    """Return forty days of twelve agents with every pattern of misuse."""
    world = World(7, agents=12, days=40)
    world.honest()
    world.inject("high")
    told = sorted(world.events, key=lambda event: event[0])
    return [GuardEvent(place, at, at, body, name, f"crm\0{place}") for place, (at, body, name) in enumerate(told, 1)]


def publish(guard: Guard, events: list[GuardEvent], published: Published) -> None:
    """Let a guard take events, and record what it raises; an event that is there already must be the same."""
    for event in events:
        for flag in guard.take(event):
            assert published.setdefault((flag.flag_id, flag.number), flag) == flag
        for case in guard.take_cases():
            assert published.setdefault((case.case_id, case.number), case) == case


@cache
def in_one_run() -> Published:
    """Return the events of one guard that never stops."""
    published: Published = {}
    publish(Guard(), history(), published)
    return published


@settings(max_examples=3, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3_000), st.integers(0, 400)), min_size=2, max_size=12))
def test_restarts_anywhere_change_no_flag_and_no_case(runs: list[tuple[int, int]]) -> None:
    """Each run commits after some events, takes some more, records their flags, and is killed."""
    events = history()
    published: Published = {}
    with TemporaryDirectory() as folder:
        for number in range(len(events)):
            with StateFile(Path(folder) / "state.sqlite", "1", enc_hook=to_stored, dec_hook=from_stored) as state:
                guard, begin = Guard(state=state), state.cursor.position
                committed, more = runs[number] if number < len(runs) else (len(events), 0)
                end = min(begin + committed, len(events))
                publish(guard, events[begin:end], published)
                state.commit(ReadCursor(end, "any"))
                publish(guard, events[end : end + more], published)
            if end == len(events):
                break
    assert published == in_one_run()


class Kinds(MemoryState):
    """A state that notes the types of its values."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: dict[str, object] = {}

    def table[V](self, name: str, kind: type[V], *, cached: int = 0) -> MemoryTable[V]:
        self.kinds[name] = kind
        return super().table(name, kind, cached=cached)

    def record[V](self, name: str, kind: type[V]) -> V:
        self.kinds[name] = kind
        return super().record(name, kind)


def test_no_stored_value_holds_json_as_it_came() -> None:
    """A state file holds msgpack, in which the bytes of a JSON text would be read as other values."""
    state = Kinds()
    Guard(state=state)
    assert len(state.kinds) > 40
    assert [name for name, kind in state.kinds.items() if "RawType" in repr(msgspec.inspect.type_info(kind))] == []


def test_a_policy_that_a_request_published_survives_a_restart(tmp_path: Path) -> None:
    policy = policy_document(trial=False)
    published = PolicyPublished(
        source="cli",
        request_id="r-1",
        seen_position=0,
        command=msgspec.Raw(b'{"request_id":"r-1","published_by":"owner"}'),
        policy=policy,
        version=1,
        published_by="owner",
        sha256="0",
    )
    for run in range(2):
        with StateFile(tmp_path / "state.sqlite", "1", enc_hook=to_stored, dec_hook=from_stored) as state:
            guard = Guard(state=state)
            if run == 0:
                list(guard.take(GuardEvent(1, 0.0, 0.0, published, "", "cli\0r-1")))
                state.commit(ReadCursor(1, "any"))
            assert guard.history.policies.newest_version == 1


def test_the_world_raises_flags_of_most_rules() -> None:
    """The property above would hold for a world without flags."""
    rules = {draft.finding.rule for draft in in_one_run().values() if isinstance(draft, FlagDraft)}
    assert len(rules) >= 12, rules


async def flags_in(session: Session) -> list[tuple[str, int]]:
    """Return the id and the number of each event of a flag in the log."""
    events = [json.loads(one.data) for one in await session.log.read_subject("ledger.flag.>")]
    return sorted((one["data"]["flag_id"], one["data"].get("number", 1)) for one in events)


def position_of(session: Session) -> int:
    with sqlite3.connect(guard_folder(session.data_dir) / "state.sqlite") as connection:
        found = connection.execute("SELECT position FROM progress").fetchone()
    return int(found[0]) if found else 0


def start_role(session: Session, said: BinaryIO | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "app", "run", "guard", "--data-dir", str(session.data_dir)]
    return subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stderr=said)


async def test_the_role_killed_again_and_again_records_each_flag_once(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        for number in range(3):
            with start_role(session) as role:
                try:
                    await claims(upstream, 8, 8 * number)
                    await eventually(lambda: flags_in(session), lambda found, least=number: len(found) > least)  # type: ignore[misc]
                    for later in range(30):
                        if number != 1 or position_of(session):
                            break  # a guard commits when an event comes five seconds after the last commit
                        await upstream.record(reported_action(f"late-{later}", "4.00", agent_id="A-9"))
                        await asyncio.sleep(1)
                finally:
                    role.kill()
        assert 0 < position_of(session) < (await session.log.read_subject(">"))[-1].position
        with start_role(session) as role:
            try:  # the deciders may still answer the last claims, so the log is read with each comparison
                await eventually(lambda: expected_and_found(session), lambda both: both[0] == both[1])
            finally:
                role.kill()


async def expected_and_found(session: Session) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Return the flags that one run over the log raises, and those that the log holds."""
    expected = FlagWriter().take(await session.log.read_subject(">"))
    return sorted((one.flag_id, one.number) for one in expected), await flags_in(session)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        [data] = connection.execute("SELECT value FROM records WHERE key = 'people'").fetchone()
        connection.execute("UPDATE records SET value = ? WHERE key = 'people'", (bytes([data[0] ^ 1]) + data[1:],))


def rename_a_column(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE progress RENAME COLUMN digest TO other")


@pytest.mark.parametrize("harm", [cut_off, flip_a_bit, rename_a_column])
async def test_a_role_with_a_damaged_state_says_so_once_and_reads_the_log_again(
    session: Session, harm: Callable[[Path], None]
) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        await claims(upstream, 8)
    log, folder, words = await session.log.read_subject(">"), guard_folder(session.data_dir), session.data_dir / "words"
    with await open_state(folder, session.log, event_times=False) as state:
        expected = sorted((one.flag_id, one.number) for one in FlagWriter(state=state).take(log))
        state.commit(ReadCursor(log[-1].position, digest_of(log[-1].data)))
    assert expected
    harm(folder / "state.sqlite")
    with words.open("wb") as said, start_role(session, said) as role:
        try:
            await eventually(lambda: flags_in(session), lambda found: len(found) >= len(expected))
        finally:
            role.kill()
    assert await flags_in(session) == expected
    assert words.read_text().count("the guard's state is built again from the whole log") == 1


async def test_a_state_of_another_log_is_thrown_away(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    folder = guard_folder(session.data_dir)
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        await claims(upstream, 8)
    with StateFile(folder / "state.sqlite", state_version(event_times=False)) as state:
        state.commit(ReadCursor(3, "the hash of another event"))
    with await open_state(folder, session.log, event_times=False) as state:
        assert (state.cursor, "another event" in state.discarded) == (START, True)
        state.commit(START)
    assert "the guard's state is built again from the whole log" in caplog.text
    with await open_state(folder, session.log, event_times=True) as state:
        assert "other settings" in state.discarded
