"""Cases as events, as rows of the view, as a list over HTTP and as a command; closed by reviews, masked by policy."""

import asyncio
import json

import httpx

from app.runtime.session import Session
from app.runtime.views import read_view
from consumers.guard.flag_writer import record_draft
from consumers.guard.service import GuardService
from domain.abuse.cases import CaseDraft, CaseState
from domain.abuse.findings import RuleFinding
from domain.abuse.flag_book import FlagDraft
from ledger.encryption.keyring import Keyring
from projections.access import cases_without_names
from projections.views.cases import read_cases
from tests.support.builders import reported_action
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine, json_of
from tests.support.http_api import read_current, served
from tests.support.organisations import BASIC_POLICY
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import eventually

MOMENT = 1_767_841_200.0


def flag(number: int) -> FlagDraft:
    finding = RuleFinding("R4", 2, ("agent:A-1", "customer:A-1"), str(number), "A-1 gave to A-1", (1,))
    return FlagDraft(f"flag-{number}", 1, finding, 1, MOMENT)


def case(number: int, state: CaseState, rank: int = 1, flags: int = 1) -> CaseDraft:
    flag_ids = tuple(f"flag-{one}" for one in range(1, flags + 1))
    about = ("agent:A-1", "customer:A-1")
    text = "Look first at R4: A-1 gave to A-1."
    return CaseDraft(
        "case-1", number, state, about[0], about, flag_ids, ("R4",), rank, 9.0 - rank, (750, "GBP"), text, 1, MOMENT
    )


async def cases_of(session: Session, status: str | None = None) -> list[Document]:
    return list((await read_view(session, "flags", lambda c: read_cases(c, status=status))).result)


async def review(upstream: Upstream, number: int) -> None:
    fields = {"flag_id": f"flag-{number}", "verdict": "confirmed", "reviewed_by": "M-1"}
    answer = await upstream.ask("flag", request_id=f"review-{number}", **fields)
    assert answer["outcome"] == "done", answer


async def test_an_event_of_a_case_is_recorded_once(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        assert await record_draft(session.log, case(1, "ranked"))
        assert not await record_draft(session.log, case(1, "ranked"))
        assert [one["data"]["case_id"] for one in await upstream.replay() if "case" in one["type"]] == ["case-1"]


async def test_two_guards_open_a_case_once_the_night_after_its_flag(session: Session) -> None:
    async with upstream_of(session) as upstream:
        for day in (5, 7):
            gift = reported_action(f"own-{day}", agent_id="A-1", customer_id="A-1")
            await upstream.record(gift | {"time": f"2026-01-0{day}T10:00:00Z"})
        folders = [session.data_dir / f"guard-{number}" for number in range(2)]
        guards = [GuardService(session.url, session.log, folder, history=True) for folder in folders]
        for guard in guards:
            await guard.start()
            await eventually(session.log.last_position, lambda end, guard=guard: guard.position >= end)  # type: ignore[misc]
            await guard.stop()
        (opened,) = await upstream.recorded("case.opened")
        assert (opened["subject"], opened["rules"], opened["number"]) == ("agent:A-1", ["R4"], 1)


async def test_a_case_is_below_the_line_then_open_and_closed_with_its_last_review(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        for number in (1, 2):
            await record_draft(session.log, flag(number))
        await record_draft(session.log, case(1, "ranked", 7))
        (found,) = await cases_of(session, "below")
        assert (found["subject"], found["rank"], found["expected_loss"]) == (
            "agent:A-1",
            7,
            {"amount": "7.50", "currency": "GBP"},
        )
        await record_draft(session.log, case(2, "opened"))
        await record_draft(session.log, case(3, "updated", flags=2))
        (found,) = await cases_of(session, "open")
        assert found["flag_ids"] == ["flag-1", "flag-2"]
        await review(upstream, 1)
        assert [one["status"] for one in await cases_of(session)] == ["open"]
        await review(upstream, 2)
        assert [one["status"] for one in await cases_of(session)] == ["closed"]


async def test_the_list_of_cases_is_filtered_and_shows_the_past(session: Session) -> None:
    async with served(session) as (_, client):
        await record_draft(session.log, case(1, "ranked"))
        below = await session.log.last_position()
        await record_draft(session.log, case(2, "opened"))
        queries: tuple[tuple[Document, int], ...] = (
            ({"status": "open"}, 1),
            ({"status": "below"}, 0),
            ({"status": "below", "as_of": below}, 1),
            ({"subject": "agent:A-2"}, 0),
            ({"subject": "agent:A-1"}, 1),
        )
        for query, number in queries:
            assert len((await read_current(client, "cases", **query))["items"]) == number, query
        wrong: httpx.Response = await client.get("/api/v1/cases", params={"status": "x"})
        assert wrong.status_code == 422


async def test_the_command_prints_open_cases_and_those_below_the_line(session: Session, command: CommandLine) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        await record_draft(session.log, case(1, "ranked"))

    def printed(*options: str) -> Document:
        return json_of(command("audit", "cases", *options, "--json", data_dir=session.data_dir))

    assert (await asyncio.to_thread(printed))["items"] == []
    (found,) = (await asyncio.to_thread(printed, "--below"))["items"]
    assert (found["case_id"], found["rules"], found["status"]) == ("case-1", ["R4"], "below")


async def test_open_cases_are_listed_by_score_though_each_was_the_best_of_its_night(
    session: Session, command: CommandLine
) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        for name, score in (("case-1", 8.0), ("case-2", 20.0), ("case-3", 3.0)):
            await record_draft(session.log, case(1, "opened")._replace(case_id=name, subject=name, score=score))

    def printed(*options: str) -> list[tuple[str, int]]:
        found = json_of(command("audit", "cases", *options, "--json", data_dir=session.data_dir))
        return [(one["case_id"], one["rank"]) for one in found["items"]]

    assert await asyncio.to_thread(printed) == [("case-2", 1), ("case-1", 2), ("case-3", 3)]
    assert await asyncio.to_thread(printed, "--subject", "case-1") == [("case-1", 2)]


async def test_a_case_shows_pseudonyms_until_it_is_closed(session: Session) -> None:
    keys = await Keyring.open(session.client)
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics(BASIC_POLICY | {"privacy": {"pseudonyms": True}})
        await record_draft(session.log, flag(1))
        await record_draft(session.log, case(1, "opened"))
        (found,) = await cases_without_names(session.log, keys, await cases_of(session))
        assert "A-1" not in json.dumps(found)
        assert found["subject"].startswith("agent:~")
        await review(upstream, 1)
        (found,) = await cases_without_names(session.log, keys, await cases_of(session))
        assert found["subject"] == "agent:A-1"
