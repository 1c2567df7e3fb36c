"""A responder that decides nothing: it stores each request's answer by one durable publish, and then gives it.

    python -m benchmarks.bare_responder DATA_DIR

It shows what two round trips and a sync of the disk take, with our client and in the decider's account: the rest of a
decision's time is the decision. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from ledger.nats.client import frame

OPERATION = "bare"
SUBJECT = b"bench.PUBLISH.bare"
"""Of a stream that the benchmark has made."""
ANSWER = b'{"outcome":"taken"}'.ljust(400)
_EVENT_BYTES = 900
"""About the bytes of an action with its envelope."""


async def respond(data_dir: str) -> None:
    """Answer requests until standard input ends."""
    async with Session(load_settings({"data_dir": data_dir}, {}), creates=False) as session:
        client, waiting, numbers = session.client, dict[bytes, bytes](), count()
        acks, event = client.new_inbox().encode(), b"x" * _EVENT_BYTES

        def on_request(_subject: bytes, reply: bytes, _headers: bytes, _body: bytes) -> None:
            ack = b"%b.%d" % (acks, next(numbers))
            waiting[ack] = reply
            client.send(frame(SUBJECT, event, ack))

        def on_ack(subject: bytes, _reply: bytes, _headers: bytes, _body: bytes) -> None:
            client.send(frame(waiting.pop(subject), ANSWER))

        await client.subscribe_raw(f"{acks.decode()}.*", on_ack)
        await client.subscribe_raw(f"{topology.DECIDE_SUBJECT}.*.{OPERATION}", on_request)
        await client.flush()
        print("answers", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(respond(sys.argv[1]))
