"""Several deciders, many writers, servers that die: nothing is overspent, every request has one answer."""

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from app.runtime.session import Session
from config.settings import load_settings
from ledger.errors import LedgerError
from ledger.store.streams import js_api
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment
from tests.support.independent_books import Kept
from tests.support.nats_servers import Cluster
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of

pytestmark = pytest.mark.integration

WRITERS = 64


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster") as started:
        yield started


@pytest.fixture(params=["one server", "three servers"])
async def told(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    """Two deciders: on an embedded server, or on a cluster whose leader of the ledger dies after a second."""
    async with AsyncExitStack() as stack:
        if request.param == "one server":
            settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
            session = await stack.enter_async_context(Session(settings))
        else:
            cluster: Cluster = request.getfixturevalue("cluster")
            session = await replicated(stack, cluster, tmp_path)
        upstream = await stack.enter_async_context(upstream_of(session))
        await stack.enter_async_context(upstream_of(session, "decisions"))
        yield upstream


async def replicated(stack: AsyncExitStack, cluster: Cluster, folder: Path) -> Session:
    # They sync always; only, without our accounts, they do not say so.
    options = {"data_dir": str(folder / "data"), "nats_url": cluster.url, "replicas": 3, "allow_lazy_fsync": True}
    settings = load_settings(options, {})
    for _ in range(100):
        try:
            return await stack.enter_async_context(Session(settings, creates=True))
        except LedgerError as error:  # the cluster has no leader yet
            last = error
            await asyncio.sleep(0.2)
    raise AssertionError(f"the cluster does not begin: {last}")


async def end_leader(session: Session, cluster: Cluster) -> None:
    await asyncio.sleep(0.5)
    leader = (await js_api(session.client, "STREAM.INFO.LEDGER"))["cluster"]["leader"]
    await asyncio.to_thread(cluster.servers[int(leader[1:])].stop, signal.SIGKILL)


async def insist(upstream: Upstream, request: Document, operation: str = "action") -> Document:
    """Ask until there is an answer that is no passing trouble, as an upstream does."""
    for _ in range(200):
        try:
            answer = await upstream.ask(operation, **request)
        except (nats.errors.Error, TimeoutError):
            await asyncio.sleep(0.1)
            continue
        if answer["outcome"] != "error" or answer["error"]["code"] not in {"unavailable", "busy"}:
            return answer
        await asyncio.sleep(0.1)
    raise AssertionError("no answer")


async def fight(upstream: Upstream, requests: list[Document], cluster: Cluster | None) -> list[Document]:
    """All at once, 64 at a time; the leader is killed meanwhile. Asked again, each has its first answer."""
    queue = list(requests)
    answers: dict[str, Document] = {}

    async def writer() -> None:
        while queue:
            request = queue.pop()
            answers[request["request_id"]] = await insist(upstream, request)

    dying = asyncio.create_task(end_leader(upstream.session, cluster)) if cluster else None
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    if dying:
        await dying
    for request in requests[:: max(1, len(requests) // 40)]:
        again = await insist(upstream, request)
        assert again == answers[request["request_id"]]
    return list(answers.values())


def refunds(number: int, agents: list[str], amount: str, **more: Any) -> list[Document]:
    return [
        {
            "request_id": f"f-{one}",
            "agent_id": agents[one % len(agents)],
            "kind": "refund",
            "amount": gbp(amount),
            "reason": "late",
            **more,
        }
        for one in range(number)
    ]


async def test_one_budget_one_pool_and_one_customer_are_not_overspent(
    told: Upstream, request: pytest.FixtureRequest
) -> None:
    cluster: Cluster | None = request.getfixturevalue("cluster") if told.session.url.count(",") else None
    await set_up_organisation(told)
    for number in range(WRITERS):
        await told.publish(
            event(f"w-{number}", "employee.joined", employee_id=f"W-{number}", role="agent", team_ids=[])
        )
    for number in range(WRITERS):
        await told.receipt(f"w-{number}")
    for number in (1, 2):  # 80.00 were given to C-1: from here on the cap is hard
        await insist(told, refunds(1, [f"A-{number}"], "40.00", customer_id="C-1")[0] | {"request_id": f"c-{number}"})
    await told.wait_for_decider()
    requests = refunds(160, ["A-1"], "2.00")  # 160.00 are left
    requests += [one | {"request_id": "p" + one["request_id"]} for one in refunds(320, ["D-1", "D-2"], "7.00")]
    capped = refunds(WRITERS, [f"W-{number}" for number in range(WRITERS)], "5.00", customer_id="C-1")
    requests += [one | {"request_id": "c" + one["request_id"]} for one in capped]
    requests += [one | {"request_id": "q" + one["request_id"]} for one in refunds(40, ["A-1"], "2.00")]
    answers = await fight(told, requests, cluster)
    assert len(answers) == len(requests)
    await check(told, requests)


async def replayed(upstream: Upstream) -> list[Document]:
    """The whole log, once the servers have a leader again."""
    for _ in range(100):
        try:
            return await upstream.replay()
        except LedgerError:
            await asyncio.sleep(0.2)
    raise AssertionError("the log cannot be read")


async def check(upstream: Upstream, requests: list[Document]) -> None:
    events = await replayed(upstream)
    taken = [e["data"] for e in events if e["type"] == "resolution.action.taken.v1"]
    assert max(Counter(one["request_id"] for one in taken).values()) == 1
    answered = Counter(e["data"]["request_id"] for e in events if e["data"].get("request_sha256") is not None)
    assert {one["request_id"] for one in requests} <= answered.keys()
    assert max(answered.values()) == 1

    def given(**wanted: Any) -> float:
        return sum(
            float(one["amount"]["amount"])
            for one in taken
            if all(one.get(name) == value for name, value in wanted.items())
        )

    assert given(agent_id="A-1") == 200.0  # exactly what there was
    drawn = [e["data"] for e in events if e["type"] == "resolution.budget.drawn.v1"]
    out = sum(float(one["amount"]["amount"]) for one in drawn if one["direction"] == "out")
    assert out == 1000.0
    assert 1386.0 <= given(agent_id="D-1") + given(agent_id="D-2") <= 1400.0
    assert given(customer_id="C-1") == 100.0


class Deciders:
    """Two processes that decide."""

    def __init__(self, data_dir: Path) -> None:
        self._words = [sys.executable, "-m", "app", "run", "decisions", "--data-dir", str(data_dir)]
        self._running: list[subprocess.Popen[str]] = []

    async def one_more(self) -> None:
        decider = await asyncio.to_thread(
            lambda: subprocess.Popen(self._words, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True)
        )
        self._running.append(decider)
        assert decider.stdout
        await asyncio.to_thread(decider.stdout.readline)

    async def kill_oldest(self) -> None:
        await asyncio.sleep(0.3)
        self._running[0].kill()
        await asyncio.to_thread(self._running.pop(0).wait)

    def stop(self) -> None:
        for decider in self._running:
            decider.terminate()
        for decider in self._running:
            decider.wait(timeout=30)


async def test_whoever_is_asked_sends_on_only_what_is_sealed_and_answers_nonsense(session: Session) -> None:
    """Requests of many agents reach either decider; half of them go on to the other."""
    secret = "grandmother Xanthippe was ill"
    async with upstream_of(session) as upstream, upstream_of(session, "decisions"):
        await set_up_organisation(upstream, FULL_POLICY | {"default_role": "agent"})
        noted = refunds(40, [f"N-{number}" for number in range(40)], "1.00", note=secret, customer_id="C-1")
        assert {(await insist(upstream, one))["outcome"] for one in noted} == {"taken"}
        bare = [
            {**one, "request_id": f"bare-{one['request_id']}"} for one in refunds(40, ["N-1", "N-2", "N-3"], "1.00")
        ]
        for wrong in ({"agent_id": 7}, {"agent_id": ""}, {"agent_id": None}, {"amount": "much"}):
            for one in bare[:8]:
                assert (await upstream.ask("action", **(one | wrong)))["error"]["code"] == "invalid"
        for body in (b"", b"{", b"[]", b'{"agent_id": "N-1"}', b"\xff", b'{"agent_id": "\\ud800"}'):
            for _ in range(8):
                reply = await upstream.client.request("resolution.decide.crm.action", body, timeout=10)
                assert b'"error"' in reply.data
    assert not [one for one in await session.log.read_subject(">") if secret.encode() in one.data]


async def test_when_a_decider_dies_another_takes_over(session: Session, tmp_path: Path) -> None:
    """SIGKILL under load, twice: asked again, every request has one effect, and the books agree with the events."""
    deciders = Deciders(tmp_path / "data")
    try:
        await deciders.one_more()
        await deciders.one_more()
        async with upstream_of(session, "intake") as upstream:
            await set_up_organisation(upstream, FULL_POLICY | {"default_role": "agent"})
            upstream.timeout_seconds = 1
            agents = [f"K-{number}" for number in range(30)]
            requests = refunds(400, agents, "1.00")
            requests += [
                one | {"request_id": "h" + one["request_id"], "hold": True} for one in refunds(100, agents, "2.00")
            ]
            big = refunds(40, ["D-1", "D-2", "A-1"], "70.00", escalate=True)
            requests += [one | {"request_id": "e" + one["request_id"]} for one in big]
            random.Random(7).shuffle(requests)
            answers = await beside(fight(upstream, requests, None), deciders)
            assert Counter(answer["outcome"] for answer in answers) == {
                "taken": 400,
                "held": 100,
                "refused": 13,
                "escalate": 27,
            }
            await deciders.one_more()
            then = [
                ("hold", {"action_id": answer["action_id"], "operation": "settle"})
                for answer in answers
                if answer["outcome"] == "held"
            ]
            then += [
                ("escalation", {"escalation_id": answer["escalation_id"], "operation": "approve", "decided_by": "M-1"})
                for answer in answers
                if answer["outcome"] == "escalate"
            ]
            asked = [
                insist(upstream, {"request_id": f"t-{number}", **body}, name)
                for number, (name, body) in enumerate(then)
            ]
            after = await beside(asyncio.gather(*asked), deciders)
            assert {answer["outcome"] for answer in after} == {"done"}
            kept = Kept()
            for recorded in await session.log.read_subject(">"):
                kept.read(recorded)
            assert (len(kept.taken), kept.holds) == (400 + 100 + 27, {})
    finally:
        deciders.stop()


async def beside[T](work: Awaitable[T], deciders: Deciders) -> T:
    """Do this while the older decider dies."""
    dying = asyncio.create_task(deciders.kill_oldest())
    done = await work
    await dying
    return done
