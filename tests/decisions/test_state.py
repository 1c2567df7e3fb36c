"""The decision state: pending actions are discarded once the log has them."""

import asyncio
from pathlib import Path

from app.runtime.session import Session
from consumers.decisions.service import DecisionService
from consumers.decisions.state.follower import DecisionState
from ledger.store.event_id_index import EventIdIndex
from tests.support.decision_company import company
from tests.support.decision_events import taken
from tests.support.decision_scenarios import given
from tests.support.organisations import BASIC_POLICY
from tests.support.upstreams import Upstream


async def test_the_decision_state_discards_pending_actions_once_they_are_read_back(
    session: Session, tmp_path: Path
) -> None:
    reader = await session.connection("reader")
    service = DecisionService(session.url, session.client, reader, session.log, tmp_path)
    await service.start()
    upstream = Upstream(session, await session.upstream("test"))
    await upstream.ask("policy", request_id="p", policy=BASIC_POLICY | {"default_role": "agent"}, published_by="owner")
    await asyncio.gather(*(upstream.action(amount="0.10", agent_id=f"A-{n % 9}") for n in range(300)))
    assert await service.state.reach(await session.log.last_position())
    await service.state.write()
    assert not service.state._recent
    assert not service.state._own
    await service.stop()


async def test_an_action_with_an_id_that_the_ledger_never_gives_is_written_without_a_key(tmp_path: Path) -> None:
    """Such an id stands in a log only if the log was changed; the decider's index must not stop at it."""
    state = DecisionState(EventIdIndex(tmp_path / "state.sqlite"))
    events = given(company(), taken("5.00", action_id="act-of-nobody")).recorded
    state.apply(events)
    await state.write()
    assert state.index.head("*").position == len(events)
    assert state.actions.action("act-of-nobody") is None
    await state.close()
