"""One message, or one source, in trouble never delays another's events."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.runtime.session import Session
from consumers.intake.inbox_message import Message
from consumers.intake.recorder import Intake
from consumers.runtime.source_watch import SourceWatch
from ledger.encryption.keyring import Keyring
from ledger.errors import (
    ApiError,
    ConflictError,
    LedgerError,
    RefusedError,
    TooLargeError,
    UnavailableError,
    jetstream_error,
)
from ledger.store.event_id_index import EventIdIndex
from ledger.store.log import Draft
from ledger.store.streams import js_api
from tests.support.builders import event, purchase
from tests.support.documents import Document
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import eventually, read_rejections


def correction(identifier: str, of: str, source: str = "crm", data: Document | None = None) -> Document:
    return event(identifier, "fact.corrected", source, source_of=source, id_of=of, data=data, reason="typed wrongly")


async def code_of(upstream: Upstream, identifier: str) -> str:
    """Return the code of the newest rejection of an id whose receipt is `recorded`."""
    entries = await read_rejections(upstream.session)
    return str(json.loads(entries[-1].data)["code"])


async def test_a_correction_with_the_id_of_a_recorded_fact_is_an_answer(upstream: Upstream) -> None:
    await upstream.record(purchase(1))
    await upstream.publish(correction("p-1", "p-1"))
    await upstream.record(purchase(2, "till"))
    await upstream.record(purchase(3))
    assert await code_of(upstream, "p-1") == "id_reused"
    assert [one["id"] for one in await upstream.replay()] == ["p-1", "p-2", "p-3"]


async def test_corrections_of_all_kinds_come_to_an_end(session: Session) -> None:
    """All of them lie in the inbox before an intake is there: they are one batch."""
    publisher = Upstream(session, await session.upstream("test"))
    right = purchase(1)["data"] | {"order_id": "O-right"}
    facts = [
        purchase(1),
        correction("c-1", "p-1", data=right),  # of a fact of this batch
        correction("c-2", "p-1"),  # a second of the same fact
        correction("c-3", "c-1", data=right),  # of a correction
        correction("c-4", "c-4"),  # of itself
        correction("c-5", "p-9"),  # of a fact that comes later
        purchase(9),
        correction("c-6", "p-1", data={"order_id": 5}),  # not as the fact has it
        correction("c-1", "p-1"),  # an id again, with other content
        correction("c-2", "p-1"),  # the same again
        purchase("last", "till"),
    ]
    for fact in facts:
        await publisher.publish(fact)
    async with upstream_of(session, "intake") as upstream:
        upstream.source = "till"
        assert (await upstream.receipt("p-last"))["status"] == "recorded"
        upstream.source = "crm"
        recorded = [one["id"] for one in await upstream.replay()]
        assert recorded == ["p-1", "c-1", "c-2", "p-9", "p-last"]
        entries = await read_rejections(session)
        codes = sorted(json.loads(entry.data)["code"] for entry in entries)
        assert codes == sorted(["not_correctable", "unknown_fact", "unknown_fact", "invalid", "id_reused"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 400, "err_code": 10071}, ConflictError),
        ({"code": 400, "err_code": 10164}, ConflictError),
        ({"code": 400, "err_code": 10054}, TooLargeError),
        ({"code": 400, "err_code": 10199}, TooLargeError),
        ({"code": 503, "err_code": 10077, "description": "no space left on device"}, UnavailableError),
        ({"code": 503, "err_code": 10008}, UnavailableError),
        ({"code": 404, "err_code": 10059}, UnavailableError),
        ({"code": 400, "err_code": 10176, "description": "atomic publish batch is incomplete"}, UnavailableError),
        ({"code": 400, "err_code": 10210}, UnavailableError),
        ({"code": 409, "err_code": 10158}, UnavailableError),
        ({"code": 400, "err_code": 10005, "description": "no suitable peers for placement"}, UnavailableError),
        ({"code": 400, "err_code": 10174}, RefusedError),
        ({"code": 400, "err_code": 10201}, RefusedError),
        ({"code": 400, "err_code": 10060}, RefusedError),
        ({}, UnavailableError),
    ],
)
def test_errors_of_jetstream_are_told_apart(error: ApiError, kind: type[LedgerError]) -> None:
    assert type(jetstream_error(error, "LEDGER", ["a"])) is kind


async def test_a_bad_request_of_the_server_is_refused_at_once(session: Session) -> None:
    assert await session.log.at(0) is None
    with pytest.raises(RefusedError):
        await session.log._get({"seq": 0})
    answer = await js_api(session.client, "STREAM.MSG.GET.LEDGER", {})
    assert isinstance(jetstream_error(answer["error"], "LEDGER"), RefusedError)


@asynccontextmanager
async def intake_with(
    session: Session, patched: type[Intake], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Upstream]:
    monkeypatch.setattr("consumers.intake.service.Intake", patched)
    async with upstream_of(session, "intake") as upstream:
        yield upstream


class _Poisoned(Intake):
    """An intake with a fault of its own: one id makes it fail, wherever it comes."""

    async def _record(self, accepted: Any) -> Any:
        if any(getattr(one[0], "id", "") == "p-poison" for one in accepted):
            raise ZeroDivisionError("a fault of ours")
        return await super()._record(accepted)


async def test_an_internal_error_on_a_message_rejects_that_message_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Upstream(session, await session.upstream("test"))
    for number in (1, "poison", 2):
        await publisher.publish(purchase(number))
    await publisher.publish(purchase(3, "till"))
    async with intake_with(session, _Poisoned, monkeypatch) as upstream:
        assert (await upstream.receipt("p-poison"))["error"]["code"] == "internal"
        for number in (1, 2):
            assert (await upstream.receipt(f"p-{number}"))["status"] == "recorded"
        assert (await upstream.receipt("p-3", "till"))["status"] == "recorded"


class _Unrejectable(_Poisoned):
    """The same intake, which cannot reject that message either."""

    async def _reject(self, entries: Any) -> None:
        found = list(entries)
        if any(b"p-poison" in one[1].data for one in found):
            raise ZeroDivisionError("another fault of ours")
        await super()._reject(found)


async def test_a_message_that_cannot_even_be_rejected_is_set_aside_and_stays_in_its_inbox(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Upstream(session, await session.upstream("test"))
    await publisher.publish(purchase(1))
    poisoned = "INBOX", await publisher.publish(purchase("poison"))
    await publisher.publish(purchase(2))
    async with intake_with(session, _Unrejectable, monkeypatch) as upstream:
        for number in (1, 2):
            assert (await upstream.receipt(f"p-{number}"))["status"] == "recorded"
        reply = await upstream.client.request("resolution.read.crm.receipt", b'{"id": "p-poison"}', timeout=5)
        assert json.loads(reply.data)["status"] == "pending"
        await upstream.record(purchase(3))  # later messages of the same source go on
        stream, sequence = poisoned
        held = await js_api(session.client, f"STREAM.MSG.GET.{stream}", {"seq": sequence})
        assert b"p-poison" in base64.b64decode(held["message"]["data"])


async def test_a_batch_under_a_subject_that_is_not_utf8_is_rejected_and_the_next_goes_on(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        body = json.dumps([purchase(1), purchase(2)]).encode()
        headers = b"NATS/1.0\r\nContent-Type: application/cloudevents-batch+json\r\n\r\n"
        frame = b"HPUB resolution.inbox.\xed\xa0\x80 %d %d\r\n%b%b\r\n"
        session.client.send(frame % (len(headers), len(headers) + len(body), headers, body))
        await upstream.record(purchase(3))
        # Both events of the batch are rejected.
        await eventually(lambda: session.rejected.read_subject("rejected.>"), lambda rejected: len(rejected) == 2)


class _NoKeys(Intake):
    """An intake that cannot encrypt personal fields of the source `crm` while ``away`` is set."""

    away = True

    async def _encrypted(self, accepted: Any) -> Any:
        if self.away and any(one[0].source == "crm" for one in accepted):
            raise UnavailableError("the bucket of keys is away")
        return await super()._encrypted(accepted)


async def test_a_source_whose_keys_are_unavailable_waits_alone_and_in_order(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_NoKeys, "away", True)
    async with intake_with(session, _NoKeys, monkeypatch) as upstream:
        for number in range(5):
            await upstream.publish(purchase(number))
            await upstream.publish(purchase(number, "till"))
        await upstream.publish(correction("c-1", "p-4"))
        for number in range(5):
            assert (await upstream.receipt(f"p-{number}", "till"))["status"] == "recorded"
        reply = await upstream.client.request("resolution.read.crm.receipt", b'{"id": "p-0"}', timeout=5)
        assert json.loads(reply.data)["status"] == "pending"
        monkeypatch.setattr(_NoKeys, "away", False)
        assert (await upstream.receipt("c-1"))["status"] == "recorded"
        mine = [one["id"] for one in await upstream.replay() if one["source"] == "crm"]
        assert mine == [*(f"p-{number}" for number in range(5)), "c-1"]


async def test_another_writer_on_a_sources_subject_delays_that_source_alone(session: Session) -> None:
    """Another writer, like an intake of another version, appends to the subject of `crm` all the time."""
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase(0))
        stop = asyncio.Event()

        async def disturb() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                fact = json.dumps(purchase(f"other-{number}")).encode()
                await session.log.append([Draft("ledger.fact.crm", fact)])
                await asyncio.sleep(0.001)

        task = asyncio.create_task(disturb())
        for number in range(1, 60):
            await upstream.publish(purchase(number))
            await upstream.publish(purchase(number, "till"))
        for number in range(1, 60):
            assert (await upstream.receipt(f"p-{number}", "till"))["status"] == "recorded"
        stop.set()
        await task
        for number in range(1, 60):
            assert (await upstream.receipt(f"p-{number}"))["status"] == "recorded"
        ids = [(one["source"], one["id"]) for one in await upstream.replay()]
        assert len(ids) == len(set(ids))


async def test_a_source_whose_history_is_damaged_fails_the_intake_after_the_others_are_taken(
    session: Session, tmp_path: Path
) -> None:
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase(1))
    import sqlite3

    with sqlite3.connect(session.data_dir / "index" / "intake.sqlite") as index:
        index.execute("UPDATE heads SET digest = 'other'")
    publisher = Upstream(session, await session.upstream("test"))
    await publisher.publish(purchase(2))
    await publisher.publish(purchase(3, "till"))
    from app.runtime.roles import running

    async with running(session, ["intake"]) as (*_, service):
        assert (await publisher.receipt("p-3", "till"))["status"] == "recorded"
        with pytest.raises(LedgerError, match="the log has changed"):
            await asyncio.wait_for(service.failed, 10)


async def test_take_singly_and_take_agree_on_sound_messages(session: Session, tmp_path: Path) -> None:
    keys = await Keyring.open(session.client)
    intake = Intake(
        session.log, session.rejected, EventIdIndex(tmp_path / "names.sqlite"), keys, SourceWatch(session.log)
    )
    messages = [
        Message(
            "resolution.inbox.crm",
            json.dumps(purchase(number)).encode(),
            (),
            b"$JS.ACK.INBOX.intake.1.%d.%d.1.0" % (n, n),
        )
        for n, number in enumerate((1, 2, 1), 1)
    ]
    for message in messages:
        await intake.take_singly(message)
    await intake.take(messages)
    assert await session.log.last_position() == 2
