"""Pulling through a server that goes away and comes back."""

import asyncio
import json
from pathlib import Path

import pytest

from ledger.nats.client import LedgerClient, connect
from ledger.store.pull_consumer import PullConsumer, PulledMessage
from ledger.store.streams import js_api
from tests.support.nats_servers import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

STREAM = {"name": "S", "subjects": ["s.*"], "storage": "file"}
CONSUMER = {"durable_name": "c", "ack_policy": "explicit", "ack_wait": 60_000_000_000}


def pull_of(client: LedgerClient) -> PullConsumer[bytes]:
    return PullConsumer(client, "S", "c", 100, lambda *parts: PulledMessage(*parts).data)


async def test_a_pull_begun_while_the_server_was_away_eats_nothing(tmp_path: Path) -> None:
    """The pull request waits in the client's buffer; the end of the pull waits behind it."""
    with Server(tmp_path) as server:
        client = await connect(server.url, "test")
        await js_api(client, "STREAM.CREATE.S", STREAM)
        await js_api(client, "CONSUMER.DURABLE.CREATE.S.c", {"stream_name": "S", "config": CONSUMER})
        server.stop()
        await wait_until(lambda: not client.is_connected)
        for _ in range(3):
            pull = pull_of(client)
            await pull.start()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pull.next(10), 0.1)
            await pull.stop()
        server.start()
        await wait_until(lambda: client.is_connected)
        pull = pull_of(client)
        await pull.start()
        got: list[bytes] = []
        taking = asyncio.create_task(pull.next(100))
        for number in range(10):
            answer = await client.request("s.x", b"%d" % number, timeout=5)
            assert "seq" in json.loads(answer.data)
        async with asyncio.timeout(10):
            got += await taking
            while len(got) < 10:
                got += await pull.next(100)
        assert got == [b"%d" % number for number in range(10)]
        await pull.stop()
        await client.close()
