"""The log: expected sequences, batches, reads, subscriptions and lost acknowledgements."""

import asyncio
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.session import Session
from config import topology
from ledger.errors import (
    ConflictError,
    DriftError,
    LazyFsyncError,
    LedgerError,
    LostEventsError,
    MissingStreamsError,
    TooLargeError,
    UnavailableError,
)
from ledger.nats.request_reply import RequestReply
from ledger.store.cloudevents import parse_time
from ledger.store.log import Draft, Log, digest_of
from ledger.store.shared_tail import SharedTail
from ledger.store.streams import ensure_stream, js_api, stream_names, verify_server
from ledger.store.subject_tokens import (
    fact_token,
    id_of_token,
    is_source_token,
    source_of_token,
    token_of_id,
    token_of_source,
)
from ledger.store.subscription import Follower, ReadCursor
from tests.support.cluster_sessions import cluster_session
from tests.support.environment import long_only
from tests.support.nats_servers import Cluster
from tests.support.waiting import eventually


def draft(subject: str, number: int = 0, expect: int | None = None) -> Draft:
    return Draft(subject, json.dumps({"n": number}).encode(), expect)


async def test_positions_follow_each_other_and_recorded_times_never_decrease(session: Session) -> None:
    assert await session.log.append([draft("ledger.x", 1)]) == 1
    assert await session.log.append([draft("ledger.x", n) for n in range(1000)]) == 2
    events = await session.log.read_subject("ledger.x")
    assert [event.position for event in events] == list(range(1, 1002))
    times = [parse_time(json.loads(event.data)["recordedtime"]) for event in events]
    assert times == sorted(times)


async def test_concurrent_appends_keep_recorded_times_in_the_order_of_positions(session: Session) -> None:
    await asyncio.gather(*(session.log.append([draft(f"ledger.{n}", n)] * (1 + n % 3)) for n in range(200)))
    times = []
    async for batch in session.log.subject_batches(">"):
        times += [json.loads(event.data)["recordedtime"] for event in batch]
    assert len(times) > 300
    assert times == sorted(times)


async def test_a_read_without_an_answer_says_that_time_ran_out(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.client.subscribe("silent")
    monkeypatch.setattr("ledger.store.log._ACK_SECONDS", 0.05)
    monkeypatch.setattr(session.log, "_direct", b"silent")
    for reading in (session.log.read_batch(">", 0, 1), session.log.at(1)):
        with pytest.raises(UnavailableError, match=r"^LEDGER could not be read: time-out$"):
            await reading


async def test_the_newest_events_of_many_subjects_are_read_together(session: Session) -> None:
    subjects = [f"ledger.{number}" for number in range(1500)]
    for start in (0, 750):
        await session.log.append([draft(subject, 1) for subject in subjects[start : start + 750]])
    await session.log.append([draft("ledger.7", 2)])
    found = await session.log.last_of_each([*subjects, "ledger.absent"])
    assert {subject: event.position for subject, event in found.items()} == {
        subject: 1501 if subject == "ledger.7" else position for position, subject in enumerate(subjects, 1)
    }


async def test_where_no_subject_has_an_event_none_is_found(session: Session) -> None:
    assert await session.log.last_of_each(["ledger.absent", "ledger.nowhere"]) == {}
    assert await session.log.last_of_each([]) == {}


async def test_an_expectation_that_does_not_hold_stores_nothing(session: Session) -> None:
    first = await session.log.append([draft("ledger.x", 1, 0)])
    await session.log.append([draft("ledger.x", 2, first)])
    for wrong in (0, first):
        with pytest.raises(ConflictError) as caught:
            await session.log.append([draft("ledger.y", 3, 0), draft("ledger.x", 4, wrong)])
        assert caught.value.subjects == ["ledger.x", "ledger.y"]
    assert await session.log.read_subject("ledger.y") == []
    assert await session.log.last_position() == 2


async def test_of_many_writers_with_one_expectation_one_wins(session: Session) -> None:
    async def write(number: int) -> bool:
        try:
            await session.log.append([draft("ledger.x", number, 0)])
        except ConflictError:
            return False
        return True

    assert sum(await asyncio.gather(*map(write, range(50)))) == 1
    assert await session.log.last_position() == 1


async def test_of_two_writers_that_expect_no_event_of_several_subjects_one_wins(session: Session) -> None:
    await open_first_periods(session, 20)


@long_only
async def test_of_two_writers_on_three_servers_that_expect_no_event_of_several_subjects_one_wins(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with cluster_session(cluster.url, tmp_path) as session:
        await open_first_periods(session, 200)


async def open_first_periods(session: Session, holders: int) -> None:
    """Let two connections open a first period of each holder at once: another one, or the same."""
    logs = [await Log.open(await session.connection("writer"), "LEDGER") for _ in range(2)]

    async def opens(log: Log, holder: str, period: str) -> bool:
        first, second = draft(f"ledger.{holder}.{period}", 1, 0), draft(f"ledger.{holder}.{period}", 2, 0)
        stored: asyncio.Future[int | LedgerError] = asyncio.get_running_loop().create_future()
        log.append_nowait([first, second._replace(expect_of=f"ledger.{holder}.*")], stored.set_result)
        return isinstance(await stored, int)

    for number in range(holders):
        periods = ("1", "2") if number % 2 else ("1", "1")
        opened = await asyncio.gather(*map(opens, logs, [f"h-{number}"] * 2, periods))
        assert sum(opened) == 1


async def test_an_acknowledgement_that_is_lost_is_found_by_reading_back(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RequestReply.on_reply
    lost: list[bytes] = []

    def lossy(self: RequestReply, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        if b'"seq"' in data and not lost:
            lost.append(data)
        else:
            original(self, subject, reply, headers, data)

    monkeypatch.setattr(RequestReply, "on_reply", lossy)
    monkeypatch.setattr("ledger.store.log._ACK_SECONDS", 0.5)
    log = await Log.open(session.client, "LEDGER")
    assert await log.append([draft("ledger.x", 1, 0), draft("ledger.x", 2)]) == 1
    assert lost
    assert await log.last_position() == 2


async def test_of_events_that_are_appended_singly_one_fails_alone(session: Session) -> None:
    await session.log.append([draft("ledger.b", 1)])
    drafts = [draft("ledger.a", 2, 0), draft("ledger.b", 3, 0), draft("ledger.c", 4, 0)]
    results = await appended_singly(session.log, drafts)
    assert (results[0], results[2]) == (2, 3)
    assert isinstance(results[1], ConflictError)
    assert [(one.position, one.subject) for one in await session.log.read_subject(">")] == [
        (1, "ledger.b"),
        (2, "ledger.a"),
        (3, "ledger.c"),
    ]


async def test_of_events_that_are_appended_singly_none_is_sent_with_one_that_is_too_large(session: Session) -> None:
    drafts = [draft("ledger.a", 1, 0), Draft("ledger.x", json.dumps({"x": "y" * 2_000_000}).encode(), 0)]
    results = await appended_singly(session.log, drafts)
    assert [type(one) for one in results.values()] == [TooLargeError, TooLargeError]
    assert await session.log.last_position() == 0


async def appended_singly(log: Log, drafts: list[Draft]) -> dict[int, int | LedgerError]:
    """Append, and return the results by number."""
    results: dict[int, int | LedgerError] = {}
    log.append_singly_nowait(drafts, results.__setitem__)
    await eventually(lambda: asyncio.sleep(0, len(results)), lambda number: number == len(drafts), 5)
    return results


async def test_a_batch_of_which_another_writer_recorded_a_part_is_a_conflict(session: Session) -> None:
    """Two intakes may have the same events in hand, and cut them into different batches."""
    log = await Log.open(session.client, "LEDGER")
    mine = [draft("ledger.x", 1, 0), draft("ledger.y", 2, 0), draft("ledger.x", 3)]
    assert await session.log.append(mine[:1]) == 1
    with pytest.raises(ConflictError):
        await log.append(mine)
    await session.log.append([draft("ledger.z", 4), draft("ledger.x", 3)])
    with pytest.raises(ConflictError):
        await log.append(mine)
    assert await log.last_position() == 3
    assert await log.append(mine[1:2]) == 4


async def test_a_batch_or_event_that_is_too_large_is_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        await session.log.append([draft("ledger.x")] * 1001)
    with pytest.raises(TooLargeError):
        await session.log.append([Draft("ledger.x", json.dumps({"x": "y" * 70_000}).encode())])


async def test_following_reads_everything_in_order_and_then_live(session: Session) -> None:
    await session.log.append([draft("ledger.x", n) for n in range(900)])
    follower = Follower(await session.connection("f"), session.log, "test")
    seen: list[int] = []
    async for batch in follower.batches():
        seen += [event.position for event in batch]
        if len(seen) == 900:
            asyncio.get_running_loop().call_later(
                0.05, lambda: asyncio.ensure_future(session.log.append([draft("ledger.y", n) for n in range(50)]))
            )
        if len(seen) >= 950:
            break
    assert seen == list(range(1, 951))


@pytest.mark.parametrize("bound", [("_KEPT_EVENTS", 100), ("_KEPT_BYTES", 4000)])
async def test_many_follow_one_tail_from_where_it_begins_for_as_long_as_they_keep_up(
    session: Session, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int]
) -> None:
    monkeypatch.setattr(f"ledger.store.shared_tail.{bound[0]}", bound[1])
    await session.log.append([draft("ledger.x", n) for n in range(30)])
    tail = SharedTail(await session.connection("t"), session.log, "test")
    running = asyncio.create_task(tail.run())
    assert await tail.start_position() == 30
    assert [batch async for batch in tail.batches(29)] == []  # it never had that one

    async def read(number: int) -> list[int]:
        seen: list[int] = []
        async for batch in tail.batches(30):
            seen += [event.position for event in batch]
            if len(seen) >= number:
                break
        return seen

    readers = [asyncio.create_task(read(50)) for _ in range(3)]
    slow = tail.batches(30)
    for number in range(5):
        await session.log.append([draft("ledger.y", n) for n in range(10)])
        if number == 0:
            first = await anext(slow)
    assert [await reader for reader in readers] == [list(range(31, 81))] * 3
    for _ in range(4):
        await session.log.append([draft("ledger.z", n) for n in range(100)])
    async for batch in tail.batches(80):
        if batch[-1].position == 480:
            break
    assert first[0].position == 31
    with pytest.raises(StopAsyncIteration):
        await anext(slow)  # what it would read next is not kept any more
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_reader_stops_where_the_log_has_changed(session: Session) -> None:
    await session.log.append([draft("ledger.x", n) for n in range(3)])
    last = await session.log.at(3)
    assert last
    right = ReadCursor(3, digest_of(last.data))
    for wrong in (ReadCursor(3, "0" * 64), ReadCursor(9, right.digest)):
        with pytest.raises(LostEventsError) as caught:
            async for _ in Follower(session.client, session.log, "test", wrong).batches(until=3):
                pass
        assert caught.value.position == wrong.position
    assert [batch async for batch in Follower(session.client, session.log, "test", right).batches(until=3)] == []


async def test_a_gap_in_the_log_is_an_error(session: Session) -> None:
    await session.log.append([draft("ledger.x", n) for n in range(5)])
    operator = await session.connection("operator", user="operator")
    config = topology.stream_configs()[1] | {"max_msgs": 3, "discard": "old"}
    assert "error" not in await js_api(operator, "STREAM.UPDATE.LEDGER", config)
    with pytest.raises(LostEventsError):
        async for _ in Follower(session.client, session.log, "test").batches(until=5):
            pass


async def test_an_edited_stream_is_refused(session: Session) -> None:
    operator = await session.connection("operator", user="operator")
    changed = topology.stream_configs()[1] | {"max_age": 10**12}
    assert "error" not in await js_api(operator, "STREAM.UPDATE.LEDGER", changed)
    with pytest.raises(DriftError) as caught:
        await ensure_stream(session.client, topology.stream_configs()[1])
    assert caught.value.field == "max_age"


async def test_our_own_user_cannot_change_purge_or_delete_the_log(session: Session) -> None:
    await session.log.append([draft("ledger.x")])
    for subject, body in (
        ("$JS.API.STREAM.DELETE.LEDGER", b""),
        ("$JS.API.STREAM.PURGE.LEDGER", b""),
        ("$JS.API.STREAM.MSG.DELETE.LEDGER", b'{"seq":1}'),
        ("$JS.API.STREAM.UPDATE.LEDGER", json.dumps(topology.stream_configs()[1]).encode()),
    ):
        with pytest.raises(TimeoutError):
            await session.client.request(subject, body, timeout=0.3)
    assert await session.log.last_position() == 1


async def test_a_server_that_does_not_say_how_it_syncs_is_refused(session: Session) -> None:
    upstream = await session.upstream("test")  # its account may not ask the server
    with pytest.raises(LazyFsyncError, match="sync_interval"):
        await verify_server(upstream, allow_lazy_fsync=False)
    await verify_server(upstream, allow_lazy_fsync=True)


async def test_a_missing_server_is_an_unavailable_error(session: Session) -> None:
    log = await Log.open(session.client, "LEDGER")
    log.stream, log._direct = "NOWHERE", b"$JS.API.DIRECT.GET.NOWHERE"
    with pytest.raises(UnavailableError):
        await log.append([Draft("nowhere.x", b"{}")], patience_seconds=0.2)


@given(st.text(min_size=1, max_size=128))
def test_ids_of_any_unicode_make_a_token_and_come_back(identifier: str) -> None:
    token = token_of_id(identifier)
    assert id_of_token(token) == identifier
    assert not set(token) & set(".*> \t\r\n")
    assert token.isascii()


@given(st.text(max_size=128), st.text(max_size=128))
def test_a_source_has_a_token_of_its_own_that_names_it(one: str, other: str) -> None:
    token = token_of_source(one)
    assert source_of_token(token) == one
    assert (token == token_of_source(other)) == (one == other)
    assert not set(token) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:~%")


@pytest.mark.parametrize(
    ("source", "token", "in_log"),
    [
        ("crm", "crm", "crm"),
        ("a.b", "a%2Eb", "a_b"),
        ("a_b", "a_b", "a_b"),
        ("a b", "a%20b", "a_b"),
        ("a%2Eb", "a%252Eb", "a%2Eb"),
        ("https://crm.example/x", "https:%2F%2Fcrm%2Eexample%2Fx", "https://crm_example/x"),
        ("ä~-:", "%C3%A4~-:", "ä~-:"),
        ("*", "%2A", "_"),
    ],
)
def test_tokens_of_sources_are_as_the_contract_has_them(source: str, token: str, in_log: str) -> None:
    assert (token_of_source(source), fact_token(source)) == (token, in_log)
    assert source_of_token(token) == source


@pytest.mark.parametrize("function", [token_of_source, fact_token, is_source_token])
def test_long_names_that_a_sender_invents_take_no_memory(function: Callable[[str], object]) -> None:
    function("x")
    tracemalloc.start()
    for number in range(1000):
        function(f"{number}{'.' * 4000}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000


@pytest.mark.parametrize("token", ["a%2eb", "%61", "a%", "%FF", "a/b", "%ED%A0%80", "a%2"])
def test_a_token_that_no_source_has_names_the_source_written_like_it(token: str) -> None:
    assert source_of_token(token) == token


async def test_a_stream_that_may_not_be_made_is_missing(session: Session) -> None:
    wanted: topology.DeclaredStream = {"name": "NEVER", "subjects": ["never.>"]}
    with pytest.raises(MissingStreamsError, match="NEVER"):
        await ensure_stream(session.client, wanted, creates=False)
    assert "NEVER" not in await stream_names(session.client)


async def test_the_subjects_with_a_beginning_are_listed(session: Session) -> None:
    await session.log.append([Draft(f"ledger.fact.{name}", b"{}") for name in ("b", "a", "b")])
    await session.log.append([Draft("ledger.flag.c", b"{}")])
    assert await session.log.subjects("ledger.fact.") == ["ledger.fact.a", "ledger.fact.b"]
