"""Inboxes as their senders see them."""

from __future__ import annotations

import json
import operator
from functools import partial

from app.runtime.session import Session
from config import topology
from ledger.store.streams import stream_storing
from ledger.store.subject_tokens import token_of_source
from tests.support.builders import purchase
from tests.support.documents import Document
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually


async def publish_with_headers(upstream: Upstream, fact: Document, message_id: str = "", **headers: str) -> Document:
    """Publish an event with headers; return its PubAck as the sender gets it."""
    subject = f"resolution.inbox.{token_of_source(fact['source'])}"
    named = {"Nats-Msg-Id": message_id} if message_id else {}
    reply = await upstream.client.request(subject, json.dumps(fact).encode(), timeout=10, headers=named | headers)
    answer: Document = json.loads(reply.data)
    return answer


async def wait_for_own_inbox(session: Session, *sources: str) -> None:
    """Wait until the server routes these sources to streams of their own."""
    for source in sources:
        token = token_of_source(source)
        wanted = topology.source_stream_name(token)
        await eventually(
            partial(stream_storing, session.client, f"resolution.inbox.{token}"), partial(operator.eq, wanted)
        )


async def make_known(upstream: Upstream, *sources: str) -> None:
    """Record a first fact of each source, which gives it an inbox of its own, and wait for that inbox."""
    for source in sources:
        await upstream.record(purchase("first", source))
    await wait_for_own_inbox(upstream.session, *sources)
