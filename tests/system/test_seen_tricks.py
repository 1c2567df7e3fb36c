"""Tricks that no decision can refuse, each played with permissions of its own, and the flag that shows it."""

import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from app.runtime.session import Session
from config.settings import load_settings
from consumers.guard.flag_writer import FlagWriter
from domain.abuse.guard import LATE_SECONDS
from domain.abuse.history import GuardEvent
from domain.events import facts
from ledger.store.subscription import Follower
from projections.access import record_access
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.registered_sources import Company, company_of

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


class Tricks:
    """The players of the tricks: a company with a registered source of each profile."""

    def __init__(self, company: Company) -> None:
        self.company = company
        self._number = 0

    def _name(self) -> str:
        self._number += 1
        return f"trick-{self._number}"

    async def tells(self, source: str, kind: str, /, **data: Any) -> str:
        """Send a fact of now; return its id."""
        name = self._name()
        fact = event(name, kind, source, time=datetime.now(UTC).isoformat(), **data)
        await self.company[source].record(fact)
        return name

    async def hires(self, employee: str, role: str = "agent", teams: Sequence[str] = ("phone",)) -> None:
        await self.tells("hr", "employee.joined", employee_id=employee, role=role, team_ids=teams, manager_id="M-1")
        await self.company.operator.wait_for_decider()

    async def gives(self, agent: str, amount: str = "5.00", source: str = "desk", **fields: Any) -> Document:
        """Take an action; return the answer."""
        answer = await self.company[source].action(self._name(), amount, agent_id=agent, **fields)
        assert answer["outcome"] in ("taken", "held"), answer
        return answer

    async def asks(self, source: str, operation: str, /, **fields: Any) -> Document:
        answer = await self.company[source].ask(operation, request_id=self._name(), **fields)
        assert answer["outcome"] not in ("error", "refused"), answer
        return answer

    async def flags(self, about: str) -> set[str]:
        """Return the rules with a flag about a subject once the time for late facts is over."""
        session = self.company.session
        writer, end = FlagWriter(), await session.log.last_position()
        raised = []
        async for batch in Follower(await session.connection("flags"), session.log, "flags").batches(until=end):
            raised += writer.take(batch)
        later = datetime.now(UTC).timestamp() + LATE_SECONDS + 60
        raised += writer.guard.take(GuardEvent(end, later, later, facts.ShiftStarted(employee_id="nobody")))
        return {one.finding.rule for one in raised if about in one.finding.about}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tricks(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tricks]:
    """Return the players on one ledger, for all tests of this module."""
    folder = tmp_path_factory.mktemp("tricks")
    async with Session(load_settings({"data_dir": str(folder / "data")}, {})) as session, company_of(session) as made:
        yield Tricks(made)


async def test_a_relation_retracted_by_correction_before_a_gift_is_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-1")
    told = await tricks.tells("hr", "relationship.declared", employee_id="S-1", customer_id="C-sis", nature="family")
    await tricks.tells("hr", "fact.corrected", source_of="hr", id_of=told, data=None, reason="wrong")
    await tricks.company.operator.wait_for_decider()
    await tricks.gives("S-1", customer_id="C-sis")
    assert "R17" in await tricks.flags("agent:S-1")


async def test_a_gift_before_the_link_is_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-2")
    await tricks.gives("S-2", customer_id="C-later")
    await tricks.tells("hr", "customer.linked", a="C-later", b="S-2", relation="household")
    assert await tricks.flags("agent:S-2") == {"R4"}


async def test_a_gift_after_the_own_link_was_taken_back_is_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-3")
    await tricks.tells("hr", "customer.linked", a="C-cut", b="S-3", relation="household")
    await tricks.tells("hr", "customer.unlinked", a="C-cut", b="S-3", relation="household")
    await tricks.company.operator.wait_for_decider()
    await tricks.gives("S-3", customer_id="C-cut")
    assert await tricks.flags("agent:S-3") == {"R4"}


async def test_an_approval_under_a_second_account_of_one_household_is_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-4")
    await tricks.hires("S-4-second", role="manager")
    for name in ("S-4", "S-4-second"):
        await tricks.tells("hr", "relationship.declared", employee_id=name, customer_id="C-home", nature="own account")
    asked = await tricks.company["desk"].action(
        "second-account", "60.00", agent_id="S-4", customer_id="C-9", escalate=True
    )
    await tricks.asks(
        "approver", "escalation", operation="approve", escalation_id=asked["escalation_id"], decided_by="S-4-second"
    )
    assert "R5" in await tricks.flags("agent:S-4-second")


async def test_ids_that_look_like_others_are_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-5l")
    await tricks.hires("S-5I")
    await tricks.gives("S-5l", customer_id="C-10")
    await tricks.gives("S-5l", customer_id="C-IO")
    assert await tricks.flags("agent:S-5I") == {"R17"}
    assert await tricks.flags("customer:C-IO") == {"R17"}


async def test_goodwill_to_customers_invented_for_it_is_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-6")
    for number in range(30):
        await tricks.tells(
            "till", "purchase.completed", order_id=f"O-i{number}", customer_id=f"C-i{number}", total=gbp("9.00")
        )
    for number in range(30):
        await tricks.gives(f"D-{number % 2 + 1}", "1.00", customer_id=f"C-i{number}", order_id=f"O-i{number}")
    for number in range(5):
        await tricks.gives("S-6", customer_id=f"C-ghost-{number}")
    assert await tricks.flags("agent:S-6") == {"R17"}


async def test_break_glass_is_flagged(tricks: Tricks) -> None:
    await record_access(tricks.company.session.log, "operator", "break-glass policy", "cli")
    assert await tricks.flags("agent:operator") == {"R12"}


async def test_entitlements_for_one_friend_are_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-8")
    for number in range(4):
        order = {"order_id": f"O-f{number}", "customer_id": "C-friend"}
        await tricks.tells("till", "purchase.completed", **order, total=gbp("9.00"))
        await tricks.company.operator.wait_for_decider()
        await tricks.gives("S-8", **order, basis="entitlement")
    assert await tricks.flags("agent:S-8") == {"R16"}


async def test_a_team_joined_for_its_pool_is_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-9")
    for number in range(4):
        await tricks.gives("S-9", "50.00", customer_id=f"C-p{number}", interaction_id=f"I-p{number}")
    for teams in (["phone", "doorstep"], ["phone"]):
        await tricks.tells("hr", "employee.changed", employee_id="S-9", role="agent", team_ids=teams)
        await tricks.company.operator.wait_for_decider()
        if "doorstep" in teams:
            await tricks.gives("S-9", "40.00", customer_id="C-pool", team_id="doorstep")
    assert "R12" in await tricks.flags("agent:S-9")


@pytest.mark.parametrize("basis", ["goodwill", "entitlement", "correction"])
async def test_90000_reported_on_any_basis_is_flagged(tricks: Tricks, basis: str) -> None:
    await tricks.hires(f"S-10-{basis}")
    fields = {"agent_id": f"S-10-{basis}", "kind": "refund", "reason": "late", "basis": basis}
    await tricks.tells("desk", "action.reported", **fields, amount=gbp("90000.00"))
    await tricks.company.operator.wait_for_decider()
    assert "R14" in await tricks.flags(f"agent:S-10-{basis}")


async def test_actions_reversed_by_a_robot_are_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-11")
    for number in range(3):
        taken = await tricks.gives("S-11", customer_id=f"C-r{number}")
        fields = {"action_id": taken["action_id"], "reversed_by": "undo-bot", "reason": "x", "recovered": True}
        await tricks.asks("desk", "reversal", **fields)
    assert "R15" in await tricks.flags("agent:S-11")


async def test_holds_that_are_never_settled_are_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-12")
    for number in range(5):
        held = await tricks.gives("S-12", customer_id=f"C-h{number}", hold=True)
        await tricks.asks("desk", "hold", operation="void", action_id=held["action_id"])
    assert "R15" in await tricks.flags("agent:S-12")


async def test_parts_of_two_kinds_after_the_answer_was_to_ask_are_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-13")
    matter = {"order_id": "O-split", "customer_id": "C-split"}
    answer = await tricks.company["desk"].action("split", "60.00", agent_id="S-13", **matter)
    assert answer["outcome"] == "escalate"
    await tricks.gives("S-13", "35.00", **matter)
    await tricks.gives("S-13", "20.00", **matter, kind="credit")
    assert "R2" in await tricks.flags("agent:S-13")


async def test_grants_that_come_back_to_their_giver_are_flagged(tricks: Tricks) -> None:
    await tricks.hires("S-14", role="manager")
    await tricks.hires("S-15", role="manager")
    for giver, taker in (("S-14", "S-15"), ("S-15", "S-14")):
        fields = {"operation": "grant", "holder": f"agent:{taker}", "granted_by": giver, "reason": "r"}
        answer = await tricks.company.operator.ask("budget", request_id=f"g-{giver}", amount=gbp("100.00"), **fields)
        assert answer["outcome"] == "done", answer
    assert await tricks.flags("agent:S-14") == {"R18"}


async def test_the_threat_model_lists_each_flagged_trick() -> None:
    """SECURITY.md names every test of this module, and no other, in its table of flags."""
    table = (ROOT / "SECURITY.md").read_text().partition("### Flagged")[2]
    here = {name for name in globals() if name.startswith("test_")}
    named = set(re.findall(r"`(test_\w+)` \|$", table, re.MULTILINE))
    assert named == here - {"test_the_threat_model_lists_each_flagged_trick"}
