"""The known sources, and the inbox of each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from config import topology
from ledger.store.cloudevents import stored_decoder
from ledger.store.event_id_index import EventIdIndex
from ledger.store.streams import js_api, stream_names, stream_storing
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from app.runtime.session import Session


async def known_sources(session: Session) -> list[str]:
    """Return the sources with recorded events, from the intake's index, else from the log's subjects."""
    path = session.data_dir / "index" / "intake.sqlite"
    if path.exists():
        index = EventIdIndex(path)
        try:
            return index.sources(f"{topology.FACT_SUBJECT}.")
        finally:
            index.close()
    newest = await asyncio.gather(*map(session.log.last, await session.log.subjects(f"{topology.FACT_SUBJECT}.")))
    return sorted({stored_decoder.decode(one.data).source for one in newest if one is not None})


async def without_own_inbox(session: Session) -> list[str]:
    """Return the known sources that share an inbox with others."""

    async def shares(source: str) -> bool:
        token = token_of_source(source)
        behind = await stream_storing(session.client, topology.source_route(token)[0])
        return behind != topology.source_stream_name(token)

    sources = await known_sources(session)
    sharing = await asyncio.gather(*map(shares, sources))
    return [source for source, alone in zip(sources, sharing, strict=True) if alone]


async def waiting_in_inboxes(session: Session) -> dict[str, int]:
    """Return the number of pending messages of each inbox."""
    found: dict[str, int] = {}
    for name in topology.inbox_streams(await stream_names(session.client)):
        info = await js_api(session.client, f"CONSUMER.INFO.{name}.{topology.INTAKE_CONSUMER}")
        found[name] = int(info.get("num_pending", 0)) + int(info.get("num_ack_pending", 0))
    return found
