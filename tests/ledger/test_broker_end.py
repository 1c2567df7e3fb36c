"""A role's broker ends after it has answered the requests that the server had sent."""

import asyncio

from faststream.nats import NatsMessage
from faststream.nats.subscriber.usecases import LogicSubscriber
from nats.aio.subscription import Subscription

from app.runtime.session import Session
from consumers.runtime.broker import make_broker


async def test_a_subscription_that_cannot_be_drained_leaves_the_others_time(session: Session) -> None:
    broker = make_broker(session.server, "test")
    begun = asyncio.Event()

    @broker.subscriber("resolution.views.test.slow")
    async def slow(_: NatsMessage) -> bytes:
        begun.set()
        await asyncio.sleep(0.5)
        return b"an answer"

    @broker.subscriber("resolution.views.test.other")
    async def other(_: NatsMessage) -> bytes:
        return b""

    await broker.start()
    asking = asyncio.create_task(session.client.request("resolution.views.test.slow", b"", timeout=5))
    await begun.wait()
    gone = broker.subscribers[1]
    assert isinstance(gone, LogicSubscriber)
    assert isinstance(gone.subscription, Subscription)
    gone.subscription._closed = True  # nats-py refuses to drain it, as one that the server has ended
    await broker.stop()
    assert (await asking).data == b"an answer"
