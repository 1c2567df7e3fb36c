"""The two ways of the client to a ledger: NATS and HTTP. Both send the same bodies and get the same answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

import msgspec
import nats.errors

from config import topology
from domain.documents.replies import EventOutcome
from domain.serialization import decoder_of, encode
from ledger import traces
from ledger.errors import UnavailableError
from ledger.nats.client import connect
from ledger.store.subject_tokens import token_of_source
from resolution_ledger.errors import EventFault, EventsRejectedError, NoAnswerError, error_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from domain.serialization import Json
    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer

_BUSY, _TOO_MANY = 503, 429
_CODES = {401: "unauthorized", 403: "forbidden", 413: "too_large", _TOO_MANY: "busy"}
_READINGS = {"notifications": "notifications", "brief": "brief"}


class Connection(Protocol):
    """A way to the ledger. Each call is one attempt; the client repeats it."""

    async def open(self) -> None:
        """Connect; raises ``NoAnswerError``."""

    async def publish(self, events: Sequence[bytes]) -> list[EventOutcome]:
        """Return the receipts of events that are durable in the inbox now."""
        ...

    async def decide(self, operation: str, body: bytes, key: str | None) -> bytes:
        """Return the answer to a decision request; ``key`` is its idempotency key."""
        ...

    async def read(self, reading: str, query: Mapping[str, Json]) -> bytes:
        """Return the answer to a query: a receipt, a brief or notifications."""
        ...

    async def close(self) -> None:
        """Close the connection."""


class _Ack(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    error: dict[str, str | int] | None = None


class _Fault(msgspec.Struct):
    code: str = "internal"
    message: str = ""
    field: str | None = None


class _Checked(msgspec.Struct):
    accepted: bool = True
    error: _Fault | None = None


class _CheckAnswer(msgspec.Struct):
    items: list[_Checked] = []
    accepted: bool = True
    error: _Fault | None = None


class _Named(msgspec.Struct):
    id: str = ""


class NatsConnection:
    """The ledger over NATS; nats-py reconnects for ever, also to another server of a cluster."""

    def __init__(self, url: NatsServer, source: str, timeout_seconds: float) -> None:
        self._url, self._token, self._timeout = url, token_of_source(source), timeout_seconds
        self._client: LedgerClient | None = None
        self._waiting: dict[str, list[asyncio.Future[bytes]]] = {}

    async def open(self) -> None:
        """Connect, unless it is connected."""
        if self._client is None:
            try:
                self._client = await connect(self._url, "client", wait_seconds=self._timeout)
            except UnavailableError as error:
                raise NoAnswerError("unavailable", str(error)) from error
            self._client.on_violation = self._refuse

    def _refuse(self, message: str) -> None:
        """End the requests to a subject that the server refuses to this user; they would get no answer."""
        for subject, waiting in self._waiting.items():
            if f'"{subject}"'.lower() in message.lower():
                error = error_of("source_not_allowed", f"the server refuses {subject} to this user")
                for one in waiting:
                    one.set_exception(error)
                waiting.clear()

    async def publish(self, events: Sequence[bytes]) -> list[EventOutcome]:
        """Let the intake check the events, then store them in the inbox."""
        await self._check(events)
        found: list[EventOutcome] = []
        for part in _parts(events):
            body = part[0] if len(part) == 1 else b"[%b]" % b",".join(part)
            ack = msgspec.json.decode(await self._request(f"{topology.INBOX_SUBJECT}.{self._token}", body), type=_Ack)
            if ack.error is not None or not ack.seq:
                raise NoAnswerError("unavailable", "the inbox does not take the events now")
            found += [
                EventOutcome(id=_id_of(event), status="pending", stream=ack.stream, seq=ack.seq) for event in part
            ]
        return found

    async def _check(self, events: Sequence[bytes]) -> None:
        """Raise the faults that the intake finds. Without an answer the inbox takes the events nevertheless."""
        try:
            answers = [await self._request(f"{topology.READ_SUBJECT}.{self._token}.check", one) for one in events[:1]]
            if len(events) > 1:
                body = b"[%b]" % b",".join(events)
                answers = [await self._request(f"{topology.READ_SUBJECT}.{self._token}.check", body)]
        except NoAnswerError:
            return
        answer = msgspec.json.decode(answers[0], type=_CheckAnswer)
        items = answer.items or [_Checked(answer.accepted and answer.error is None, answer.error)]
        faults = [
            EventFault(number, _id_of(events[number]), one.error.code, one.error.field or "", one.error.message)
            for number, one in enumerate(items)
            if one.error is not None
        ]
        if faults:
            raise EventsRejectedError(faults)

    async def decide(self, operation: str, body: bytes, key: str | None) -> bytes:  # noqa: ARG002 - the body holds it
        """Request a decision."""
        return await self._request(f"{topology.DECIDE_SUBJECT}.{self._token}.{operation}", body)

    async def read(self, reading: str, query: Mapping[str, Json]) -> bytes:
        """Request a reading."""
        return await self._request(f"{topology.READ_SUBJECT}.{self._token}.{reading}", encode(query))

    async def _request(self, subject: str, body: bytes) -> bytes:
        await self.open()
        assert self._client is not None
        refused: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(subject, []).append(refused)
        headers = traces.client_headers()
        asked = asyncio.ensure_future(self._client.request(subject, body, timeout=self._timeout, headers=headers))
        try:
            await asyncio.wait((asked, refused), return_when=asyncio.FIRST_COMPLETED)
            return refused.result() if refused.done() else asked.result().data
        except (nats.errors.Error, TimeoutError) as error:
            message = f"no answer to {subject}: {error or 'time-out'}; the server or the role that answers is away"
            raise NoAnswerError("unavailable", message) from error
        finally:
            asked.cancel()
            if refused in (waiting := self._waiting[subject]):
                waiting.remove(refused)
            if not waiting:
                del self._waiting[subject]

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()


class _Receipts(msgspec.Struct):
    receipts: list[EventOutcome]


class _ProblemDetails(msgspec.Struct):
    detail: str = ""
    code: str | None = None
    field: str | None = None
    errors: list[dict[str, str | int]] = []


class HttpConnection:
    """The ledger over HTTP, with a token of a source; connections are kept alive and made anew."""

    def __init__(self, url: str, token: str, timeout_seconds: float) -> None:
        self._url, self._token, self._timeout = url, token, timeout_seconds
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Make the pool of connections; the first request connects."""
        if self._client is None:
            import httpx

            headers = {"Authorization": f"Bearer {self._token}"}
            self._client = httpx.AsyncClient(base_url=self._url, headers=headers, timeout=self._timeout)

    async def publish(self, events: Sequence[bytes]) -> list[EventOutcome]:
        """Publish a batch."""
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        answer = await self._send("POST", "events", headers, b"[%b]" % b",".join(events))
        return decoder_of(_Receipts).decode(answer).receipts

    async def decide(self, operation: str, body: bytes, key: str | None) -> bytes:
        """Request a decision."""
        headers = {"Content-Type": "application/json"}
        if key is not None:
            quoted = key.replace("\\", "\\\\").replace('"', '\\"')
            headers["Idempotency-Key"] = f'"{quoted}"'
        return await self._send("POST", f"decisions/{operation}", headers, body)

    async def read(self, reading: str, query: Mapping[str, Json]) -> bytes:
        """Request a reading."""
        if reading == "receipt":
            return await self._send("GET", f"receipts/{quote(str(query['id']), safe='')}", {})
        parameters = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        return await self._send("GET", f"{_READINGS[reading]}?{parameters}", {})

    async def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
        import httpx

        await self.open()
        assert self._client is not None
        headers = {**(traces.client_headers() or {}), **headers}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            answer = await self._client.request(method, f"/api/v1/{path}", headers=raw, content=body)
        except httpx.HTTPError as error:
            raise NoAnswerError("unavailable", f"no answer from {self._url}: {error!r}") from error
        if answer.is_success:
            return answer.content
        if answer.status_code in (_BUSY, _TOO_MANY):
            await asyncio.sleep(min(float(answer.headers.get("Retry-After", 0)), self._timeout))
        raise self._fault(answer)

    def _fault(self, answer: httpx.Response) -> Exception:
        try:
            problem = msgspec.json.decode(answer.content, type=_ProblemDetails)
        except msgspec.MsgspecError:  # a proxy between the client and the ledger answered
            problem = _ProblemDetails(f"HTTP status {answer.status_code}")
        if problem.errors:
            texts = [{name: str(value) for name, value in one.items()} for one in problem.errors]
            names = ("id", "code", "field", "message")
            return EventsRejectedError(
                [EventFault(int(one.get("number", 0)), *(one.get(name, "") for name in names)) for one in texts]
            )
        server_fault = answer.status_code >= 500  # noqa: PLR2004 - the class of statuses
        code = "unavailable" if server_fault else _CODES.get(answer.status_code, "invalid")
        return error_of(problem.code or code, problem.detail, problem.field)

    async def close(self) -> None:
        """Close the pool of connections."""
        if self._client is not None:
            await self._client.aclose()


def connection_to(url: NatsServer, source: str, token: str | None, timeout_seconds: float) -> Connection:
    """Return the connection that a URL names by its scheme.

    Raises:
        ValueError: another scheme, or no token for HTTP.

    """
    scheme = urlsplit(url).scheme if isinstance(url, str) else "nats"
    if not isinstance(url, str) or scheme in ("nats", "tls", "ws", "wss"):
        return NatsConnection(url, source, timeout_seconds)
    if scheme not in ("http", "https"):
        raise ValueError(f"{scheme!r} is no scheme of a ledger: use nats, tls, ws, wss, http or https")
    if not token:
        raise ValueError("over HTTP the client needs a token of the source")
    return HttpConnection(url, token, timeout_seconds)


def _parts(events: Sequence[bytes]) -> list[list[bytes]]:
    """Return the events in runs that fit into one message each."""
    parts: list[list[bytes]] = [[]]
    size = 1
    for event in events:
        if parts[-1] and size + len(event) + 1 > topology.MAX_EVENT_BYTES:
            parts.append([])
            size = 1
        parts[-1].append(event)
        size += len(event) + 1
    return parts


def _id_of(event: bytes) -> str:
    try:
        return msgspec.json.decode(event, type=_Named).id
    except msgspec.MsgspecError:
        return ""
