"""Webhooks: everything is delivered in order for each subject, and nothing leaves for a private address unasked."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.message import Message as Mail
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.handlers import Message as MailHandler
from aiosmtpd.smtp import SMTP
from cloudevents.v1.http import from_http

from app.health.checks import checks_of
from app.runtime.roles import running
from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from consumers.webhooks import messages
from consumers.webhooks import sender as sending
from consumers.webhooks.deliveries import AttemptTiming
from consumers.webhooks.sender import MailServer
from consumers.webhooks.service import WebhookService
from domain.serialization import FieldError
from domain.webhooks import ESCALATION_STEP, THIN_BUDGET, Webhook, check_webhook
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from projections.engine.events import TYPES
from projections.webhooks import DeadLetter, WebhookBook, make_webhook
from tests.support.builders import event, purchase
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of
from tests.support.waiting import eventually, wait_until
from tests.support.webhook_receiver import Receiver, failing_half, first_deliveries, positions_by, receiver

pytestmark = pytest.mark.integration

QUICK = AttemptTiming(first=0.01, longest=0.1, give_up=60)
WEBHOOKS = int(os.environ.get("WEBHOOKS", "1000"))
"""`make test-long` has 10,000."""
PATIENCE_SECONDS = 120 + WEBHOOKS / 50
PURCHASE = "resolution.purchase.completed.v1"


@asynccontextmanager
async def session_in(folder: Path) -> AsyncIterator[Session]:
    """Open a session with an embedded server."""
    async with Session(load_settings({"data_dir": str(folder / "data")}, {})) as session:
        yield session


@asynccontextmanager
async def webhooks(session: Session, **options: Any) -> AsyncIterator[WebhookService]:
    """Run the role, with receivers inside the own network and short pauses unless ``options`` say otherwise."""
    fields: dict[str, Any] = {"private": True, "timing": QUICK} | options
    service = WebhookService(session.server, session.log, session.views, **fields)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def subscribe(session: Session, to: Receiver | str, *types: str, **fields: Any) -> Webhook:
    """Subscribe; a receiver checks signatures with the secret from then on."""
    book = await WebhookBook.open(session.client)
    url = to if isinstance(to, str) else to.url
    made = await make_webhook(book, session.log, url=url, types=types, made_by="owner", **fields)
    if isinstance(to, Receiver):
        to.secret = made.secret
    return made


async def record_purchases(session: Session, number: int, orders: int) -> None:
    """Append purchases of some orders, as the intake would record them."""
    now = datetime.now(UTC)
    drafts = [
        Draft(
            f"{topology.FACT_SUBJECT}.till",
            encode_event("till", f"p-{one}", PURCHASE, now, json.dumps({"order_id": f"o-{one % orders}"}).encode()),
        )
        for one in range(number)
    ]
    for start in range(0, number, 1000):
        await session.log.append(drafts[start : start + 1000])


async def test_all_of_many_are_delivered_in_order_by_a_receiver_that_fails_and_dies(tmp_path: Path) -> None:
    number, orders = WEBHOOKS, 100
    async with session_in(tmp_path) as session, receiver(failing_half(7)) as till:
        await subscribe(session, till, PURCHASE)
        await record_purchases(session, number, orders)
        async with webhooks(session):
            for share in (0.25, 0.6):
                await wait_until(partial(_has_accepted, till, share * number), PATIENCE_SECONDS)
                await till.die()
                await asyncio.sleep(0.3)
                await till.start()
            await wait_until(lambda: len(set(till.ids)) == number, PATIENCE_SECONDS)
    delivered = first_deliveries(till)
    assert sorted(one["id"] for one in delivered) == sorted(f"p-{one}" for one in range(number))
    for positions in positions_by(delivered, lambda one: one["data"]["order_id"]).values():
        assert positions == sorted(positions)


async def test_a_new_process_goes_on_and_repeats_only_under_the_same_id(tmp_path: Path) -> None:
    async with session_in(tmp_path) as session, receiver(failing_half(3)) as till:
        await subscribe(session, till, PURCHASE)
        await record_purchases(session, 600, 50)
        async with webhooks(session):
            await wait_until(lambda: len(till.accepted) > 200, 60)
        async with webhooks(session):
            await wait_until(lambda: len(set(till.ids)) == 600, 60)
            before = len(till.accepted)
        async with webhooks(session):
            await asyncio.sleep(1.5)  # longer than the role needs to find a subscription
            assert len(till.accepted) == before  # everything was settled
    for positions in positions_by(first_deliveries(till), lambda one: one["data"]["order_id"]).values():
        assert positions == sorted(positions)


async def test_of_two_processes_the_first_sends_and_the_second_takes_over(tmp_path: Path) -> None:
    async with session_in(tmp_path) as session, receiver() as till:
        await subscribe(session, till, PURCHASE)
        async with webhooks(session) as first, webhooks(session):
            await record_purchases(session, 50, 5)
            await wait_until(lambda: len(till.accepted) == 50)
            await asyncio.sleep(1.5)  # longer than the role needs to find a subscription
            assert len(till.accepted) == len(set(till.ids)) == 50
            await first.stop()
            await record_purchases(session, 60, 5)
            await wait_until(lambda: len(till.accepted) >= 110)
    for positions in positions_by(first_deliveries(till), lambda one: one["data"]["order_id"]).values():
        assert positions == sorted(positions)


async def test_a_notification_that_is_no_longer_kept_stays_a_dead_letter(tmp_path: Path) -> None:
    async with session_in(tmp_path) as session, receiver() as till:
        hook = await subscribe(session, till, ESCALATION_STEP)
        book, now = await WebhookBook.open(session.client), datetime.now(UTC)
        letter = DeadLetter(
            id="a1", feed="notices", position=99, type=ESCALATION_STEP, error="500", attempts=9, first=now, last=now
        )
        await book.bury(hook.id, letter)
        async with webhooks(session):
            assert await book.ask_again(hook.id, "a1")
            (kept,) = await eventually(
                partial(book.letters, hook.id), lambda found: found[0].error == "its notification is no longer kept"
            )
    assert (kept.id, till.accepted) == ("a1", [])


async def test_no_password_goes_to_a_mail_server_without_tls(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with session_in(tmp_path) as session, await loop.create_server(lambda: SMTP(None), "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        hook = await subscribe(session, "mailto:lead@shop.example", PURCHASE, body="text")
        await record_purchases(session, 1, 1)
        mail = MailServer.of(f"smtp://user:word@127.0.0.1:{port}", "ledger@shop.example")
        async with webhooks(session, mail=mail, timing=QUICK._replace(give_up=0.05)):
            book = await WebhookBook.open(session.client)
            (letter,) = await eventually(lambda: book.letters(hook.id))
    assert "no TLS" in letter.error


async def test_a_source_cannot_use_up_the_subscriptions_of_others(tmp_path: Path) -> None:
    async with session_in(tmp_path) as session:
        for number in range(10):
            await subscribe(session, f"https://till.example/{number}", PURCHASE, source="till")
        with pytest.raises(FieldError, match="10 of one source"):
            await subscribe(session, "https://till.example/more", PURCHASE, source="till")
        await subscribe(session, "https://desk.example/", PURCHASE, source="desk")


async def test_the_sdk_reads_a_delivery_as_a_cloudevent(tmp_path: Path) -> None:
    async with session_in(tmp_path) as session, upstream_of(session) as upstream, receiver() as till:
        await subscribe(session, till, PURCHASE)
        async with webhooks(session):
            position = await upstream.record(purchase("one"))
            await wait_until(lambda: till.accepted)
        read = from_http(till.accepted[0].headers, till.accepted[0].body)
        assert (read["id"], read["type"], read["position"]) == ("p-one", PURCHASE, position)


async def test_personal_fields_are_sent_only_where_asked_for(tmp_path: Path) -> None:
    async with (
        session_in(tmp_path) as session,
        upstream_of(session) as upstream,
        receiver() as without,
        receiver() as complete,
    ):
        await subscribe(session, without, "resolution.interaction.*")
        await subscribe(session, complete, "resolution.interaction.*", personal=True)
        async with webhooks(session):
            await upstream.record(
                event(
                    "i-1", "interaction.opened", interaction_id="I-1", channel="chat", note="Jane called", topic="late"
                )
            )
            await wait_until(lambda: without.accepted and complete.accepted)
        assert "Jane" in complete.accepted[0].body.decode()
        assert "Jane" not in without.accepted[0].body.decode()
        assert "sealed:" not in without.accepted[0].body.decode()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.8",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "2002:0a00:0001::1",
        "64:ff9b::a00:1",
        "::10.0.0.1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
async def test_no_message_goes_to_a_private_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the receiver leads there, for instance since its owner changed it after the subscription."""
    connected: list[str] = []

    async def lead(_host: str, _port: int) -> list[str]:
        return [address]

    async def connect(_self: object, host: str, *_: object) -> None:
        connected.append(host)
        raise OSError

    monkeypatch.setattr(sending, "_addresses_of", lead)
    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", connect)
    sender = sending.Sender()
    outcome = await sender.send(_webhook("https://receiver.example/hooks"), _message())
    await sender.close()
    assert "not public" in outcome.error
    assert connected == []


async def test_a_message_goes_to_the_very_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[str] = []

    async def lead(_host: str, _port: int) -> list[str]:
        return ["10.0.0.1", "93.184.216.34"]

    async def connect(_self: object, host: str, *_: object) -> None:
        connected.append(host)
        raise OSError

    monkeypatch.setattr(sending, "_addresses_of", lead)
    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", connect)
    sender = sending.Sender()
    await sender.send(_webhook("https://receiver.example/hooks"), _message())
    await sender.close()
    assert connected == ["93.184.216.34"]
    assert ipaddress.ip_address(connected[0]).is_global


async def test_a_redirect_is_a_failure_and_is_not_followed(tmp_path: Path) -> None:
    async with session_in(tmp_path) as session, receiver(lambda _: 302) as till:
        hook = await subscribe(session, till, PURCHASE)
        await record_purchases(session, 1, 1)
        async with webhooks(session, timing=QUICK._replace(give_up=0.05)):
            book = await WebhookBook.open(session.client)
            (letter,) = await eventually(lambda: book.letters(hook.id))
    assert letter.error == "the receiver answered 302"


async def test_a_dead_letter_is_listed_and_sent_again(tmp_path: Path) -> None:
    broken = True
    async with session_in(tmp_path) as session, receiver(lambda _: 500 if broken else 204) as till:
        hook = await subscribe(session, till, PURCHASE)
        await record_purchases(session, 2, 1)
        async with webhooks(session, timing=QUICK._replace(give_up=0.05)):
            book = await WebhookBook.open(session.client)
            letters = await eventually(lambda: book.letters(hook.id), lambda found: len(found) == 2)
            assert [(one.type, one.error) for one in letters] == [(PURCHASE, "the receiver answered 500")] * 2
            assert all(one.attempts >= 1 for one in letters)
            finding = next(one for one in await checks_of(session) if one.check == f"webhook {hook.id}")
            assert not finding.ok
            assert finding.says.startswith("2 messages were given up")
            broken = False
            assert await book.ask_again(hook.id, letters[0].id)
            await wait_until(lambda: till.accepted)
            await eventually(lambda: book.letters(hook.id), lambda found: found == letters[1:])
    assert [one.event["id"] for one in till.accepted] == ["p-0"]


async def test_a_receiver_that_is_gone_is_asked_no_more(tmp_path: Path) -> None:
    async with session_in(tmp_path) as session, receiver(lambda _: 410) as till:
        await subscribe(session, till, PURCHASE)
        await record_purchases(session, 3, 3)
        async with webhooks(session):
            book = await WebhookBook.open(session.client)

            async def states() -> list[Any]:
                return [one.shown()["state"] for one in await book.states()]

            await eventually(states, lambda found: found == ["stopped"])
            attempts = till.attempts
            await asyncio.sleep(1.5)  # longer than the role needs to find a subscription
            assert till.attempts == attempts


async def test_steps_of_escalations_and_thin_budgets_are_told(tmp_path: Path) -> None:
    async with (
        session_in(tmp_path) as session,
        upstream_of(session) as upstream,
        running(session, ["projections"]),
        receiver() as chat,
        receiver() as program,
    ):
        await set_up_organisation(upstream, FULL_POLICY)
        await subscribe(session, chat, ESCALATION_STEP, THIN_BUDGET, body="slack")
        await subscribe(session, program, ESCALATION_STEP, THIN_BUDGET)
        async with webhooks(session):
            await _use_up_a_budget(upstream)
            answer = await upstream.action("too-much", "900.00", escalate=True)
            assert answer["outcome"] == "escalate", answer
            await wait_until(lambda: len(program.accepted) >= 2 and len(chat.accepted) >= 2)
    told = {one.event["type"]: one.event["data"] for one in program.accepted}
    assert told[ESCALATION_STEP]["status"] == "requested"
    assert told[THIN_BUDGET]["holder"] == "agent:A-1"
    assert float(told[THIN_BUDGET]["remaining"]["amount"]) < 0.2 * float(told[THIN_BUDGET]["granted"]["amount"])
    texts = [one.event["text"] for one in chat.accepted]
    assert any(text.startswith("The budget of agent:A-1") for text in texts)
    assert any("asks for 900.00 GBP" in text for text in texts)


async def test_an_internal_error_holds_back_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = {"made": 1, "sent": 1}

    def failing(name: str, whole: Any) -> Any:
        def fail(*given: Any) -> Any:
            failures[name] -= 1
            if failures[name] == 0:
                raise RuntimeError("planted")
            return whole(*given)

        return fail

    monkeypatch.setattr("consumers.webhooks.messages._order_key", failing("made", messages._order_key))
    monkeypatch.setattr("consumers.webhooks.sender.body_of", failing("sent", messages.body_of))
    async with session_in(tmp_path) as session, receiver() as till:
        await subscribe(session, till, PURCHASE)
        await record_purchases(session, 3, 1)
        async with webhooks(session):
            await wait_until(lambda: len(till.accepted) == 2)
    assert [one.event["id"] for one in till.accepted] == ["p-1", "p-2"]


async def test_a_mail_is_sent_over_smtp(tmp_path: Path) -> None:
    mails: list[Mail] = []

    class Kept(MailHandler):
        def handle_message(self, message: Mail) -> None:
            mails.append(message)

    loop = asyncio.get_running_loop()
    async with session_in(tmp_path) as session, await loop.create_server(lambda: SMTP(Kept()), "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        await subscribe(session, "mailto:lead@shop.example", PURCHASE, body="text")
        await record_purchases(session, 1, 1)
        async with webhooks(session, mail=MailServer.of(f"smtp://127.0.0.1:{port}", "ledger@shop.example")):
            await wait_until(lambda: mails)
    assert (mails[0]["To"], mails[0]["From"]) == ("lead@shop.example", "ledger@shop.example")
    assert PURCHASE in str(mails[0].get_payload())


@pytest.mark.parametrize(
    ("url", "types", "body", "field"),
    [
        ("ftp://shop.example/", (PURCHASE,), "cloudevents", "url"),
        ("https:///hooks", (PURCHASE,), "cloudevents", "url"),
        ("https://user:word@shop.example/", (PURCHASE,), "cloudevents", "url"),
        ("https://shop.example:99999/", (PURCHASE,), "cloudevents", "url"),
        ("https://shöp.example/", (PURCHASE,), "cloudevents", "url"),
        ("https://[::1/", (PURCHASE,), "cloudevents", "url"),
        ("https://shop.example/\r\nX: y", (PURCHASE,), "cloudevents", "url"),
        ("mailto:a@b.example,c@d.example", (PURCHASE,), "text", "url"),
        ("mailto:a@b.example\nBcc: c@d.example", (PURCHASE,), "text", "url"),
        ("mailto:a@b.example", (PURCHASE,), "cloudevents", "url"),
        ("https://shop.example/", (), "cloudevents", "types"),
        ("https://shop.example/", ("resolution.unknown.v1",), "cloudevents", "types"),
        ("https://shop.example/", ("resolution.unknown.*",), "cloudevents", "types"),
        ("https://shop.example/", (".*",), "cloudevents", "types"),
    ],
)
def test_a_faulty_subscription_names_its_field(url: str, types: tuple[str, ...], body: Any, field: str) -> None:
    with pytest.raises(FieldError) as refused:
        check_webhook(url, types, body, TYPES)
    assert refused.value.field == field


def test_families_and_notifications_may_be_subscribed_to() -> None:
    check_webhook("https://shop.example/h?x=1", ("resolution.case.*", THIN_BUDGET), "teams", TYPES)


def _has_accepted(till: Receiver, number: float) -> bool:
    return len(till.accepted) > number


def _webhook(url: str) -> Webhook:
    return Webhook(id="w", url=url, types=(PURCHASE,), secret="whsec_AAAA", made_by="owner", made=datetime.now(UTC))


def _message() -> Any:
    from consumers.webhooks.messages import WebhookMessage

    return WebhookMessage("events", 1, "s", {"id": "1", "source": "till", "type": PURCHASE, "data": {}})


async def _use_up_a_budget(upstream: Upstream) -> None:
    """Spend most of the budget of A-1."""
    for number in range(200):
        budget = await upstream.budget()
        if float(budget["remaining"]) < 0.2 * float(budget["granted"]):
            return
        answer = await upstream.action(f"spend-{number}", "10.00")
        assert answer["outcome"] == "taken", answer
