"""A decider in the process of a test, which is asked directly, although it may stand by."""

import asyncio
import json
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from app.runtime.session import Session
from consumers.decisions.service import DecisionService
from domain.serialization import encode
from ledger.nats.client import LedgerClient
from ledger.store.log import Log
from tests.support.documents import Document


async def decider_beside(
    session: Session, stack: AsyncExitStack, folder: Path, reader: LedgerClient | None = None, *, history: bool = False
) -> DecisionService:
    """Start another decider on a session's ledger; ``reader`` is its connection for reading the log."""
    client, reader = await session.connection("decider"), reader or await session.connection("decider")
    log = await Log.open(client, "LEDGER")
    decider = DecisionService(session.url, client, reader, log, folder, history=history)
    await decider.start()
    stack.push_async_callback(decider.stop)
    return decider


async def ask_here(decider: DecisionService, subject: str = "action", via: str = "cli", /, **fields: Any) -> Document:
    """Let this decider answer a request (a refund, unless it names its kind), although it may stand by."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    request = {"request_id": secrets.token_hex(8), **fields}
    if subject == "action":
        request = {"kind": "refund", "reason": "late"} | request
    decider.pipeline.submit("crm", subject, encode(request), answer.set_result, via=via)
    found: Document = json.loads(await answer)
    return found
