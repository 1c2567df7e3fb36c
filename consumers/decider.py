"""The decider: requests that wait together are decided one by one and committed together.

One task takes all that waits, decides against cached budgets, appends one atomic batch (or a single
event) with each budget's expectation, and answers. A conflict decides again what was in the batch.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from config import topology
from consumers.answers import first_answer
from consumers.budgets import Account, Budgets
from consumers.rulings import REQUESTS, Ruling, Rulings, StaleError, holder_of
from domain.deciding import Cause
from domain.requests import PolicyRequest, Preview, RequestError
from domain.wire import FieldError, decode, encode
from ledger.cloudevents import body_hash, name_key
from ledger.errors import ConflictError, LedgerError, UnavailableError
from ledger.index import Name

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumers.directory import Directory
    from ledger.log import Draft, Log

_log = logging.getLogger(__name__)
_ATTEMPTS = 8
_GROUP_AT_MOST = 256  # with an opening and a closing each: 768 events, within one atomic batch
_CLOCK_TOLERANCE = timedelta(minutes=5)


class Waiting:
    """A request that waits for its answer."""

    __slots__ = (
        "_answer",
        "answered",
        "body",
        "cause",
        "fresh",
        "key",
        "now",
        "operation",
        "request",
        "ruling",
        "source",
    )

    cause: Cause
    now: datetime

    def __init__(self, source: str, operation: str, body: bytes, answer: Callable[[bytes], None]) -> None:
        self.source = source
        self.operation = operation
        self.body = body
        self.answered = False
        self._answer = answer
        self.fresh = False  # whether the directory was brought up to date for this request
        self.request: Any = None
        self.key = b""
        self.ruling: Ruling | None = None

    def finish(self, answer: dict[str, Any]) -> None:
        """Give the answer, once."""
        if not self.answered:
            self.answered = True
            self._answer(encode(answer))


class Decider:
    """Decides actions, grants and policies. ``run`` is its one task; ``submit`` is its door."""

    def __init__(self, log: Log, directory: Directory, *, history: bool = False,
                 clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:  # fmt: skip
        self._log = log
        self._directory = directory
        self._budgets = Budgets(log)
        self._rulings = Rulings(log, directory)
        self._history = history
        self._clock = clock
        self._queue: list[Waiting] = []
        self._wake = asyncio.Event()
        self._side_tasks: set[asyncio.Task[None]] = set()

    def submit(self, source: str, operation: str, body: bytes, answer: Callable[[bytes], None]) -> None:
        """Ask; ``answer`` is always called, once, with JSON. Read at once, while others are being stored."""
        waiting = Waiting(source, operation, body, answer)
        if self._understood(waiting):
            self._enqueue(waiting)

    async def run(self) -> None:
        """Decide for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                group, self._queue = self._queue[:_GROUP_AT_MOST], self._queue[_GROUP_AT_MOST:]
                await self._decide_group(group)

    def _enqueue(self, waiting: Waiting) -> None:
        self._queue.append(waiting)
        self._wake.set()

    async def _decide_group(self, group: list[Waiting]) -> None:
        again = "ask again with the same request_id"
        try:
            await self._decide_together([waiting for waiting in group if not waiting.answered])
        except UnavailableError as error:
            self._give_up(group, "unavailable", f"{error}; {again}")
        except ConflictError:
            self._give_up(group, "busy", f"too many write to this budget at once; {again}")
        except LedgerError as error:
            _log.error("deciding stopped: %s", error)
            self._give_up(group, "internal", str(error))
        except Exception:  # noqa: BLE001 - logged; and whoever asked gets an answer
            _log.exception("deciding failed")
            self._give_up(group, "internal", f"an error of ours, see the log; {again}")

    def _give_up(self, group: list[Waiting], code: str, message: str) -> None:
        for waiting in group:
            self._forget(waiting)
            waiting.finish(RequestError(code, message).wire())

    async def _decide_together(self, todo: list[Waiting]) -> None:
        for attempt in range(_ATTEMPTS):
            todo = await self._new_ones(todo)
            await self._rule_all(todo)
            writing = [waiting for waiting in todo if waiting.ruling is not None]
            if not writing:
                return
            try:
                await self._commit(writing)
            except ConflictError:
                for waiting in writing:
                    self._forget(waiting)
                if attempt == _ATTEMPTS - 1:
                    raise
                await self._directory.reach(await self._log.last_position(), 0.2)
                todo = writing
            else:
                return

    # -------------------------------------------------------------- before deciding

    def _understood(self, waiting: Waiting) -> bool:
        """Read the request; a malformed one is answered at once."""
        try:
            wanted = _wanted(waiting)
            request = decode(wanted, waiting.body, at="")
            _refuse_not_yet(request)
            waiting.now = self._now(request.time)
            digest = body_hash(waiting.body).hex()[:32]
        except RequestError as error:
            waiting.finish(error.wire())
            return False
        except FieldError as error:
            waiting.finish(RequestError("invalid", error.message, error.field or None).wire())
            return False
        except Exception as error:  # noqa: BLE001 - hostile text must not reach the connection it came by
            waiting.finish(RequestError("invalid", f"not a request: {error}").wire())
            return False
        waiting.request = request
        request_id = request.request_id or ""
        if waiting.operation != "preview":
            waiting.key = name_key(waiting.source, request_id)
        waiting.cause = Cause(
            source=waiting.source,
            request_id=request_id,
            request_sha256=digest,
            seen_position=self._directory.position,
        )
        return True

    def _now(self, asked: datetime | None) -> datetime:
        now = self._clock()
        if asked is None:
            return now
        if self._history:
            return asked.astimezone(UTC)
        if abs(asked - now) > _CLOCK_TOLERANCE:
            message = (
                "time is more than five minutes from the ledger's clock; leave it out, or report what "
                "happened earlier as resolution.action.reported.v1"
            )
            raise RequestError("clock", message, "time")
        return now

    async def _new_ones(self, todo: list[Waiting]) -> list[Waiting]:
        """Requests not answered before; one that was gets its first answer again."""
        found = self._directory.find([waiting.key for waiting in todo if waiting.key])
        new: list[Waiting] = []
        in_this_group: set[bytes] = set()
        for waiting in todo:
            if name := found.get(waiting.key):
                await self._answer_again(waiting, name)
            elif waiting.key and waiting.key in in_this_group:
                self._enqueue(waiting)  # its twin is being decided: look again after that
            else:
                in_this_group.add(waiting.key)
                new.append(waiting)
        return new

    async def _answer_again(self, waiting: Waiting, name: Name) -> None:
        if name.content.hex() != waiting.cause.request_sha256:
            message = "this request_id was used with another body; give a new request a new request_id"
            waiting.finish(RequestError("request_id_reused", message, "request_id").wire())
            return
        waiting.finish(await first_answer(self._log, name.position))

    # -------------------------------------------------------------- deciding and committing

    async def _rule_all(self, todo: list[Waiting]) -> None:
        accounts = await self._accounts({holder for waiting in todo if (holder := holder_of(waiting.request))})
        for waiting in todo:
            waiting.ruling = None
            try:
                ruling = await self._rule(waiting, accounts.get(holder_of(waiting.request) or "") or Account(None, 0))
            except StaleError:
                task = asyncio.create_task(self._when_caught_up(waiting))
                self._side_tasks.add(task)
                task.add_done_callback(self._side_tasks.discard)
            except RequestError as error:
                waiting.finish(error.wire())
            except UnavailableError:
                raise
            except Exception:  # noqa: BLE001 - one request must not bring down those that wait with it
                _log.exception("a request of %s could not be ruled on", waiting.source)
                self._give_up([waiting], "internal", "an error of ours, see the log")
            else:
                if ruling.drafts:
                    waiting.ruling = ruling
                else:
                    waiting.finish(ruling.answer)

    async def _accounts(self, holders: set[str]) -> dict[str, Account | BaseException]:
        """Their accounts; in the place of one that cannot be read, why."""
        accounts: dict[str, Account | BaseException] = {}
        for holder in holders:
            if account := self._budgets.cached(holder):
                accounts[holder] = account
        unread = holders - accounts.keys()
        if unread:
            loaded = await asyncio.gather(*map(self._budgets.load, unread), return_exceptions=True)
            accounts.update(zip(unread, loaded, strict=True))
        return accounts

    async def _rule(self, waiting: Waiting, account: Account | BaseException) -> Ruling:
        if isinstance(account, BaseException):
            raise account
        if waiting.key and account.has_answered(waiting.cause):
            raise StaleError  # stored by somebody; the index will soon say where
        return await self._rulings.rule(waiting.request, waiting.cause, waiting.now, account, fresh=waiting.fresh)

    async def _when_caught_up(self, waiting: Waiting) -> None:
        try:
            await self._directory.reach(await self._log.last_position())
        except UnavailableError as error:
            waiting.finish(RequestError("unavailable", str(error)).wire())
            return
        waiting.fresh = True
        self._enqueue(waiting)

    async def _commit(self, writing: list[Waiting]) -> None:
        """Append what was decided, all or none, and answer."""
        drafts: list[Draft] = []
        begun: set[str] = set()
        for waiting in writing:
            assert waiting.ruling is not None
            for draft in waiting.ruling.drafts:
                # In a batch only the first draft of a subject may carry an expectation.
                drafts.append(draft._replace(expect=None) if draft.subject in begun else draft)
                begun.add(draft.subject)
        position = await self._log.append(drafts) - 1
        names: list[Name] = []
        for waiting in writing:
            assert waiting.ruling is not None
            position += len(waiting.ruling.drafts)
            waiting.ruling.account.last = position
            waiting.ruling.answer["position"] = position
            names.append(Name(waiting.key, position, bytes.fromhex(waiting.cause.request_sha256)))
        self._directory.remember(names)
        for waiting in writing:
            assert waiting.ruling is not None
            if isinstance(waiting.request, PolicyRequest):  # in force for the very next request
                await self._directory.reach(waiting.ruling.answer["position"])
            waiting.finish(waiting.ruling.answer)

    def _forget(self, waiting: Waiting) -> None:
        if waiting.request is not None and (holder := holder_of(waiting.request)):
            self._budgets.forget(holder)


def _wanted(waiting: Waiting) -> type[Any]:
    wanted = REQUESTS.get(waiting.operation)
    if wanted is None:
        message = f"there is no request {waiting.operation!r}; there are {', '.join(REQUESTS)}"
        raise RequestError("unknown_operation", message)
    if len(waiting.body) > topology.MAX_EVENT_BYTES:
        message = f"a request is at most {topology.MAX_EVENT_BYTES} bytes, not {len(waiting.body)}"
        raise RequestError("too_large", message)
    return wanted


def _refuse_not_yet(request: Any) -> None:
    if isinstance(request, Preview):
        for name in ("escalate", "hold"):
            if getattr(request, name):
                raise RequestError("not_yet", f"`{name}` is not served by this version; leave it out", name)
