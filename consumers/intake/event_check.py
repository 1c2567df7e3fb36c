"""The check of events before they are published: what the intake would reject, as far as the events show it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from consumers.intake.recorder import EVENTS_A_TURN
from consumers.intake.validation import Rejection, accept, check_new
from ledger.background_service import restarting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.intake.validation import Accepted
    from consumers.runtime.source_watch import SourceWatch
    from ledger.nats.client import LedgerClient
    from ledger.store.content_modes import Headers


class EventCheck:
    """The check with the rights of each source. Whether an event is recorded already only the intake knows."""

    def __init__(self, sources: SourceWatch) -> None:
        self._sources = sources

    async def start(self) -> None:
        """Read the rights of all sources.

        Raises:
            UnavailableError: the server does not answer.

        """
        await self._sources.read()

    async def follow(self, client: LedgerClient) -> None:
        """Follow changes of rights, for ever."""
        await restarting("the registry of sources", partial(self._sources.follow, client))

    async def rejections(self, token: str, events: Sequence[bytes]) -> list[Rejection | None]:
        """Return for each event of the source with this token why the intake would reject it, or ``None``."""
        found = await self.results(token, [(event, ()) for event in events])
        return [one if isinstance(one, Rejection) else None for one in found]

    async def results(self, token: str, events: Sequence[tuple[bytes, Headers]]) -> list[Accepted | Rejection]:
        """Return each event, given by its body and headers, as the intake would accept it, or its rejection."""
        found: list[Accepted | Rejection] = []
        for number, (data, headers) in enumerate(events):
            if number % EVENTS_A_TURN == EVENTS_A_TURN - 1:
                await asyncio.sleep(0)  # other requests to this process come first
            found.append(await self._allowed(check_new(accept(data, datetime.now(UTC), headers, token))))
        return found

    async def _allowed(self, fact: Accepted | Rejection) -> Accepted | Rejection:
        if isinstance(fact, Rejection) or self._sources.registry.fact_refusal(fact.source, fact.type) is None:
            return fact
        await self._sources.read_again()
        refusal = self._sources.registry.fact_refusal(fact.source, fact.type)
        return fact if refusal is None else Rejection("source_not_allowed", "type", refusal)
