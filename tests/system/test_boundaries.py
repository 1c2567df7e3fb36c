"""An error of ours at any place where something from outside enters a process ends no role and no subscription.

``BOUNDARIES`` names each such place. There a function raises once, in roles that run on a real server; afterwards the
roles are alive and serve the next input. ``ELSEWHERE`` names the places that other tests look at.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import itertools
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import nats.errors
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from ledger.encryption.keyring import Keyring
from ledger.transparency.sealer import seal_folder
from tests.support.builders import event, gbp
from tests.support.environment import ROOT
from tests.support.source_code import syntax_tree
from tests.support.upstreams import Upstream
from tests.support.waiting import eventually, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PATIENCE_SECONDS = 15


class Ours(Exception):
    """An error of ours."""


class Once:
    """A function that raises the first time that it is called after ``armed`` was set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
        module, *names = _found(target)
        *owners, last = names
        owner: Any = module
        for name in owners:
            owner = getattr(owner, name)
        original = _attribute(owner, last)
        function = original.__func__ if isinstance(original, staticmethod) else original
        self.armed = False
        self.calls = 0
        self.raised = asyncio.Event()

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.calls += self.armed
            if self.armed and self.calls == 1:
                loop.call_soon_threadsafe(self.raised.set)
                raise Ours(target)
            return function(*args, **kwargs)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(owner, last, staticmethod(wrapper) if isinstance(original, staticmethod) else wrapper)


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute as it stands in a class or module."""
    for where in getattr(owner, "__mro__", (owner,)):
        if name in vars(where):
            return vars(where)[name]
    raise AttributeError(name)


def _found(target: str) -> tuple[Any, ...]:
    parts = target.split(".")
    for size in range(len(parts), 0, -1):
        with suppress(ModuleNotFoundError):
            return importlib.import_module(".".join(parts[:size])), *parts[size:]
    raise ModuleNotFoundError(target)


class Stage:
    """Running roles with an upstream and an HTTP client beside them."""

    def __init__(self, session: Session, upstream: Upstream, services: list[Any], http: httpx.AsyncClient) -> None:
        self.session, self.upstream, self.services, self.http = session, upstream, services, http
        self._numbers = itertools.count()

    async def fact(self) -> None:
        """Publish a purchase, and do not wait."""
        number = next(self._numbers)
        await self.upstream.publish(
            event(f"p-{number}", "purchase.completed", order_id=f"O-{number}", total=gbp("1.00"))
        )

    async def personal(self) -> None:
        """Publish an event for which keys are asked for."""
        number = next(self._numbers)
        said = event(
            f"f-{number}",
            "feedback.received",
            customer_id=f"C-{number}",
            instrument="csat",
            score=1,
            best=5,
            worst=1,
            comment="late",
        )
        await self.upstream.publish(said)

    async def action(self) -> None:
        """Ask for an action, and do not wait for the answer."""
        number = next(self._numbers)
        body = {
            "request_id": f"x-{number}",
            "agent_id": "A-1",
            "kind": "refund",
            "amount": gbp("1.00"),
            "reason": "late",
        }
        await self.upstream.client.publish(
            "resolution.decide.crm.action", json.dumps(body).encode(), reply="_INBOX.x.y"
        )

    def request(self, operation: str, **body: Any) -> Callable[[], Awaitable[None]]:
        """Ask; the answer may stay away."""

        async def ask() -> None:
            with suppress(nats.errors.Error, TimeoutError):
                await self.upstream.client.request(operation, json.dumps(body).encode(), timeout=1)

        return ask

    # ------------------------------------------------------------------ the next input

    async def takes_in(self) -> None:
        """Assert that a fact is recorded."""
        number = next(self._numbers)
        await self.upstream.record(
            event(f"n-{number}", "purchase.completed", order_id=f"N-{number}", total=gbp("1.00"))
        )

    async def decides(self) -> None:
        """Assert that an action is taken."""
        await eventually(
            lambda: self.upstream.action(f"d-{next(self._numbers)}", "1.00"),
            lambda answer: answer.get("outcome") == "taken",
            every_seconds=0.5,
        )

    async def answers(self, operation: str, **body: Any) -> None:
        """Assert that a request is answered without an internal error."""
        reply = await self.upstream.client.request(operation, json.dumps(body).encode(), timeout=10)
        assert b'"internal"' not in reply.data, reply.data

    async def views_follow(self) -> None:
        """Wait until every view is at the end of the log."""
        end = await self.session.log.last_position()
        await eventually(lambda: self._views_at(end))

    async def views_take_the_next(self) -> None:
        """Wait until every view is at the end of the log, after one more event."""
        await self.takes_in()
        await self.views_follow()

    async def all_views_but_one_follow(self) -> None:
        """Wait until one view reports its stop and all others are at the end of the log."""
        await self.takes_in()
        end = await self.session.log.last_position()
        await eventually(lambda: self._views_at(end, but=1))
        states = (await self.http.get("/api/v1/projections")).json()["items"]
        (stopped,) = [one["stopped"] for one in states if one["stopped"]]
        assert "Ours" in stopped

    async def _views_at(self, end: int, but: int = 0) -> bool:
        states = (await self.http.get("/api/v1/projections")).json()["items"]
        return bool(sum(one["position"] < end for one in states) == but)

    async def guards(self) -> None:
        """Wait until the guard has read the log."""
        (guard,) = [one for one in self.services if type(one).__name__ == "GuardService"]
        end = await self.session.log.last_position()
        await wait_until(lambda: guard.position >= end)

    async def seals(self) -> None:
        """Wait until the end of the log is signed."""
        end = await self.session.log.last_position()
        folder = seal_folder(self.session.data_dir)
        await wait_until(lambda: (newest := folder.checkpoint()) is not None and newest.size >= end)

    async def tells(self) -> None:
        """Assert that a listener receives a view update."""
        async with self.http.stream("GET", "/api/v1/stream", headers={"Last-Event-ID": "9999999"}) as stream:
            lines = stream.aiter_lines()
            await self.fact()
            async with asyncio.timeout(_PATIENCE_SECONDS):
                async for line in lines:
                    if line.startswith("data:"):
                        return

    async def serves(self) -> None:
        """Assert that the API answers."""
        assert (await self.http.get("/api/v1/balances")).status_code == 200


@asynccontextmanager
async def staged(session: Session, roles: tuple[str, ...]) -> AsyncIterator[Stage]:
    """Run these roles on a ledger with a policy and an agent."""
    async with running(session, roles, where=ListenAddress(port=0)) as services:
        upstream = Upstream(session, await session.upstream("test"))
        upstream.timeout_seconds = 10
        if "decisions" in roles:
            await upstream.set_up_basics()
        dashboards = [one for one in services if isinstance(one, DashboardService)]
        address, token = (dashboards[0].address, dashboards[0].token) if dashboards else ("http://127.0.0.1", "")
        async with httpx.AsyncClient(
            base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=10
        ) as http:
            yield Stage(session, upstream, services, http)
        for service in services:
            assert not service.failed.done(), service.failed.exception()


class Boundary(NamedTuple):
    """An entrance of a role: its input, the function that raises once, the roles, the provocation and the expectation."""

    enters: str
    target: str
    roles: str
    provoke: Callable[[Stage], Awaitable[object]]
    then: Callable[[Stage], Awaitable[object]]
    again: bool = False
    """Whether the function has to be called again by itself: a timer, a task."""
    at_start: bool = False
    """Whether it raises already while the roles start: what is called once a day, say."""


def asks(operation: str, **body: Any) -> Callable[[Stage], Awaitable[object]]:
    """Ask, whether there is an answer or not."""
    return lambda stage: stage.request(operation, **body)()


def is_answered(operation: str, **body: Any) -> Callable[[Stage], Awaitable[object]]:
    """Return an expectation: the same request is answered."""
    return lambda stage: stage.answers(operation, **body)


async def nothing(_stage: Stage) -> None:
    """Provoke nothing: the function runs by itself."""


async def forgets(stage: Stage) -> None:
    """Destroy a customer's key from another process."""
    keys = await Keyring.open(stage.session.client)
    await keys.ensure(["customer:C-1"])
    await keys.destroy("customer:C-1")


async def joins(stage: Stage) -> None:
    """Something that decisions depend on."""
    await stage.upstream.publish(event("join-x", "employee.joined", employee_id="A-2", role="agent", team_ids=[]))


async def lives(stage: Stage) -> None:
    """Write on the subject of the deciders' lease."""
    await stage.session.client.publish("$KV.ledger-leases.decisions", b'{"holder": "another"}')


async def reads(stage: Stage) -> None:
    """Read a view over HTTP."""
    assert (await stage.http.get("/api/v1/balances")).status_code == 500


async def connects(stage: Stage) -> None:
    """Connect an HTTP client, which is cut off."""
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient(base_url=stage.http.base_url) as another:
            await another.get("/healthz")


async def listens(stage: Stage) -> None:
    """Listen for view updates, and be cut off."""
    with suppress(httpx.TransportError):
        async with asyncio.timeout(5):
            async with stage.http.stream("GET", "/api/v1/stream") as stream:
                async for _ in stream.aiter_lines():
                    pass


TWO, DECISIONS, VIEWS, ALL = "intake", "intake decisions", "intake projections dashboard", "intake seal archive"
PREVIEW = {"agent_id": "A-1", "kind": "refund", "reason": "late"}
BUDGET = {"request_id": "g-1", "holder": "agent:A-1", "amount": gbp("1.00"), "granted_by": "M-1", "reason": "x"}
READ = "resolution.read.crm"
takes_in, decides, fact, action = Stage.takes_in, Stage.decides, Stage.fact, Stage.action
B = Boundary
BOUNDARIES = [
    # the intake: what is pulled, its handlers, its timers, its lanes
    B("messages of inboxes, at the socket", "ledger.store.fan_in.PulledMessage", TWO, fact, takes_in),
    B("messages of inboxes, by the batch", "consumers.intake.worker.message_of", TWO, fact, takes_in),
    B("the order of two inboxes of one source", "consumers.intake.inboxes.Inboxes.admit", TWO, fact, takes_in),
    B("one message", "consumers.intake.recorder._validated", TWO, fact, takes_in),
    B("events of a batch", "consumers.intake.recorder.events_in", TWO, fact, takes_in),
    B("a source that becomes known", "consumers.intake.inboxes.Inboxes.learn", TWO, fact, takes_in),
    B("acknowledgements", "consumers.intake.worker.IntakeWorker._acknowledge", TWO, fact, takes_in),
    B(
        "answers of the server, at the socket",
        "ledger.nats.request_reply.RequestReply.on_reply",
        TWO,
        Stage.personal,
        takes_in,
    ),
    B(
        "questions about a role",
        "ledger.store.role_status.StatusResponder._on_request",
        TWO,
        lambda stage: stage.session.client.publish("resolution.roles.intake", b"", reply="_INBOX.x.y"),
        takes_in,
    ),
    B("questions to the server", "ledger.store.streams._first_answer", TWO, nothing, takes_in, again=True),
    B("looking after inboxes", "consumers.intake.inboxes.Inboxes._restore", TWO, nothing, takes_in, again=True),
    B(
        "the end of day keys",
        "ledger.encryption.keyring.Keyring.destroy",
        TWO,
        nothing,
        takes_in,
        again=True,
        at_start=True,
    ),
    B(
        "requests for a receipt",
        "consumers.intake.service.IntakeService.receipt",
        TWO,
        asks(f"{READ}.receipt", id="1"),
        is_answered(f"{READ}.receipt", id="1"),
    ),
    B(
        "requests for a check",
        "consumers.intake.service.IntakeService.check",
        TWO,
        asks(f"{READ}.check"),
        is_answered(f"{READ}.check"),
    ),
    B("the alarm, asked for", "ledger.transparency.alarm.read_alarm", TWO, nothing, takes_in, again=True),
    B(
        "the embedded server, looked after",
        "ledger.nats.embedded_server.EmbeddedServer.revive",
        TWO,
        nothing,
        takes_in,
        again=True,
    ),
    # deciders: requests, others, keys, the log, timers
    B("requests, at the socket", "consumers.decisions.service.DecisionService._on_request", DECISIONS, action, decides),
    B("requests, taken apart", "consumers.decisions.service.may_have_note", DECISIONS, action, decides),
    B("requests that are read", "consumers.decisions.pipeline.read_request", DECISIONS, action, decides),
    B(
        "requests that the log keeps waiting",
        "consumers.decisions.pipeline.DecisionPipeline._answer_stuck",
        DECISIONS,
        action,
        decides,
    ),
    B("requests that are decided", "consumers.decisions.pipeline.decide", DECISIONS, action, decides),
    B("groups of requests", "consumers.decisions.pipeline.DecisionPipeline._handle_group", DECISIONS, action, decides),
    B(
        "answers that are looked up",
        "consumers.decisions.pipeline.DecisionPipeline._after_catch_up",
        DECISIONS,
        asks("resolution.decide.crm.preview", **PREVIEW | {"agent_id": "unknown"}),
        decides,
    ),
    B("decisions that are stored", "consumers.decisions.committer.BatchCommitter.begin", DECISIONS, action, decides),
    B("what became of a batch", "consumers.decisions.committer.BatchCommitter._answer", DECISIONS, action, decides),
    B("answers that are sent", "consumers.decisions.service.DecisionService._reply", DECISIONS, action, decides),
    B(
        "requests by FastStream",
        "consumers.decisions.service.DecisionService.ask",
        DECISIONS,
        asks("resolution.decide.crm.budget", **BUDGET),
        decides,
    ),
    B(
        "requests with a note",
        "consumers.decisions.service.encrypt_request",
        DECISIONS,
        asks("resolution.decide.crm.action", request_id="n", note="a note", amount=gbp("1.00"), **PREVIEW),
        decides,
    ),
    B("the lease, looked after", "ledger.store.lease.Lease._turn", DECISIONS, nothing, decides, again=True),
    B("the lease, given up by another", "ledger.store.lease.Lease._on_write", DECISIONS, lives, decides),
    B("copies of the state", "ledger.store.snapshots.Snapshots.is_due", DECISIONS, nothing, decides, again=True),
    B("keys that are destroyed", "ledger.encryption.keyring.Keyring._drop_cached", DECISIONS, forgets, decides),
    B(
        "the log, as deciders learn it",
        "consumers.decisions.state.follower.DecisionState.apply",
        DECISIONS,
        fact,
        decides,
    ),
    B(
        "one event, as deciders learn it",
        "consumers.decisions.state.follower.DecisionState._apply_event",
        DECISIONS,
        joins,
        decides,
    ),
    B(
        "writing what was learned",
        "consumers.decisions.state.follower.DecisionState.write",
        DECISIONS,
        fact,
        decides,
        again=True,
    ),
    B("the clock", "consumers.decisions.timers.Timers._overdue", DECISIONS, nothing, decides, again=True),
    B("acknowledgements of the log", "ledger.store.log.Log._position_in", DECISIONS, action, decides),
    # readers of the log: views, guard, seal, archive
    B(
        "the log, at the socket",
        "ledger.store.pull_consumer.PullConsumer._on_message",
        VIEWS,
        fact,
        Stage.views_take_the_next,
    ),
    B("the log's end, for all views", "ledger.store.shared_tail.SharedTail._keep", VIEWS, fact, Stage.views_follow),
    B("a view's fold", "projections.engine.projector.Projector._commit", VIEWS, fact, Stage.all_views_but_one_follow),
    B(
        "a view's generation",
        "projections.engine.projector._follow_live",
        VIEWS,
        nothing,
        Stage.views_follow,
        at_start=True,
    ),
    B("news that are published", "consumers.projections.service.encode", VIEWS, fact, Stage.views_follow),
    B(
        "requests for a brief",
        "consumers.queries.briefs.Briefs.answer",
        VIEWS,
        asks(f"{READ}.brief"),
        is_answered(f"{READ}.brief"),
    ),
    B("a rule of the guard", "domain.abuse.guard.Guard.take", "intake guard", fact, Stage.guards),
    B(
        "the log, as the guard takes it",
        "consumers.guard.flag_writer.FlagWriter.take",
        "intake guard",
        fact,
        Stage.guards,
    ),
    B("the log, as it is sealed", "ledger.transparency.sealer.Sealer.take", ALL, fact, Stage.seals),
    B("signing", "ledger.transparency.sealer.Sealer.sign", ALL, fact, Stage.seals, again=True),
    B("looking back", "consumers.seal.service.check_positions", ALL, fact, Stage.seals, again=True),
    B("the archive", "consumers.seal.archive_service.archive_log", ALL, fact, Stage.seals, again=True),
    # HTTP
    B(
        "bytes of an HTTP client",
        "dashboard.http.protocol.BoundedHttpProtocol.data_received",
        VIEWS,
        connects,
        Stage.serves,
    ),
    B("a request by HTTP", "dashboard.view_reader.ViewReader.read", VIEWS, reads, Stage.serves),
    B("reports that are renewed", "dashboard.report_cache.ReportCache._due", VIEWS, nothing, Stage.serves, again=True),
    B("a listener", "dashboard.view_updates.ViewUpdates.chunks", VIEWS, listens, Stage.tells),
    B("news that are heard", "dashboard.view_updates.ViewUpdates._receive", VIEWS, fact, Stage.tells),
    B("news that are told", "dashboard.view_updates.ViewUpdates._events_of", VIEWS, fact, Stage.tells),
]
ELSEWHERE = {
    "bytes of the protocol, subjects, replies, headers": "test_bytes.py",
    "a read loop that ends": "test_bytes.py",
    "a message that can be neither recorded nor rejected": "test_isolation.py",
    "a view whose fold fails on an event: it stops alone": "test_engine.py",
    "bodies and heads of HTTP requests": "test_bounds.py",
}

LOOKED_AT_BY = {
    "consumers.projections.service.",  # its tasks: the lines of projections.engine.projector and ledger.store.shared_tail
    "consumers.guard.service.",  # its task: the lines of consumers.guard.flag_writer
    "consumers.runtime.alarm_watch.",  # its bell does nothing but set an event; its task: the line of ledger.transparency.alarm
    "consumers.runtime.broker.",
    "dashboard.auth.tokens.",  # its sink counts; the next request begins an ended reading again
    "dashboard.metrics.",  # its task ends with an error; the next scrape asks anew, and begins another
    "dashboard.service.",  # its task is uvicorn's; where that ends the role fails, and is started again
    "consumers.intake.lanes.",  # test_intake_isolation.py
    "consumers.webhooks.service.",  # test_webhooks.py
    "consumers.webhooks.deliveries.",  # the same
    "ledger.nats.client.",  # test_bytes.py
    "ledger.background_service.",  # the tasks of its subclasses: their lines
    "ledger.eventsourcing.recorders.",  # the persistence library's, no role of ours
    "ledger.eventsourcing.event_loop_thread.",  # the same
    "ledger.store.server_time.",  # what it could not measure is measured by the next who asks
}


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=[one.enters for one in BOUNDARIES])
async def test_an_internal_error_ends_no_service(
    session: Session, monkeypatch: pytest.MonkeyPatch, boundary: Boundary
) -> None:
    for name in (
        "intake.inboxes._LOOK_SECONDS",
        "seal.service._LOOK_BACK_SECONDS",
        "seal.archive_service._EVERY_SECONDS",
    ):
        monkeypatch.setattr(f"consumers.{name}", 0.2)
    monkeypatch.setattr("ledger.store.snapshots._LOOK_SECONDS", 0.2)
    once = Once(monkeypatch, boundary.target)
    once.armed = boundary.at_start
    async with staged(session, tuple(boundary.roles.split())) as stage:
        once.armed = True
        await boundary.provoke(stage)
        await asyncio.wait_for(once.raised.wait(), _PATIENCE_SECONDS)
        await boundary.then(stage)
        if boundary.again:
            await wait_until(lambda: once.calls > 1)


def test_the_table_names_tests_that_are_there() -> None:
    assert all(any((ROOT / "tests").rglob(name)) for name in ELSEWHERE.values())
    assert len({one.target for one in BOUNDARIES}) == len(BOUNDARIES)


ENTRANCES = ("subscribe_raw", "create_task", "spawn", "subscriber", "call_later")
"""Calls by which something is read from a socket, or goes on by itself."""


def test_every_module_with_an_entrance_is_in_the_table() -> None:
    """A new subscription, handler or task needs a line above."""
    entrances = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for room in ("consumers", "dashboard", "ledger", "projections")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(syntax_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ENTRANCES
    }
    named = {one.target for one in BOUNDARIES} | LOOKED_AT_BY
    missing = {module for module in entrances if not any(target.startswith(f"{module}.") for target in named)}
    assert not missing
