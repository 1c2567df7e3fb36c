"""A server of a cluster that is about to stop: its connections leave it in good time, and lose no request."""

import asyncio
import signal
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError, StaleConnectionError

from ledger.nats.client import connect, frame
from tests.support.nats_servers import Cluster, Server
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.integration
GRACE = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "4s"\n'


async def test_a_process_leaves_before_the_server_closes_and_answers_all_it_was_asked(tmp_path: Path) -> None:
    with Cluster(tmp_path, GRACE, advertises=False) as cluster:
        answering = await connect(f"{cluster.servers[0].url},{cluster.servers[1].url}", "answering")
        others = [server for server in cluster.servers[:2] if str(server.port) not in str(answering.connected_url)]
        stopping = next(server for server in cluster.servers[:2] if server not in others)
        asking = await connect(cluster.servers[2].url, "asking")

        async def answer(reply: bytes) -> None:
            await asyncio.sleep(0.05)  # a decision takes its time
            answering.send(frame(reply, b"done"))

        tasks: set[asyncio.Task[None]] = set()

        def on_request(_subject: bytes, reply: bytes, _headers: bytes, _body: bytes) -> None:
            tasks.add(asyncio.create_task(answer(reply)))

        await answering.subscribe_raw("ask", on_request, "answering")
        await answering.flush()
        await eventually(lambda: Client.request(asking, "ask", b"", timeout=2), passing=(NoRespondersError,))
        lost, done, over = 0, 0, asyncio.Event()

        async def ask() -> None:
            nonlocal lost, done
            while not over.is_set():
                try:
                    await Client.request(asking, "ask", b"", timeout=2)
                    done += 1
                except NoRespondersError:  # it reached nobody: asked again
                    await asyncio.sleep(0.02)
                except TimeoutError:
                    lost += 1

        asked = [asyncio.create_task(ask()) for _ in range(8)]
        stopping.send(signal.SIGUSR2)
        await wait_until(lambda: str(others[0].port) in str(answering.connected_url) and answering.is_connected)
        before = done
        await wait_until(lambda: done > before + 20)
        over.set()
        await asyncio.gather(*asked)
        assert lost == 0
        for client in (answering, asking):
            await client.close()
        stopping.send(signal.SIGKILL)


async def test_a_process_stays_at_the_only_server_it_knows(tmp_path: Path) -> None:
    with Server(tmp_path, GRACE) as server:
        client = await connect(server.url, "alone")
        server.send(signal.SIGUSR2)
        await asyncio.sleep(1)
        assert client.is_connected
        assert client.stats["reconnects"] == 0
        await client.close()
        server.send(signal.SIGKILL)


async def test_a_process_that_has_left_already_keeps_its_connection(tmp_path: Path) -> None:
    """The server may close the connection in the moment in which the process waits."""
    with Server(tmp_path, GRACE) as server:
        client = await connect(server.url, "left")
        leaving = asyncio.create_task(client._leave())
        await asyncio.sleep(0.05)
        await client._process_op_err(StaleConnectionError())
        await wait_until(lambda: client.is_connected)
        await leaving
        assert client.is_connected
        assert client.stats["reconnects"] == 1
        await client.close()
