"""Inputs of the fuzzer: near-valid, malformed and hostile, each made by its number and a seed alone.

Bytes are made by hand, never by a client library: PUB and HPUB frames with any subject and header block, HTTP requests
as they go over the socket.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any, Literal, NamedTuple

from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY

type Door = Literal["inbox", "request", "protocol", "http"]


class Input(NamedTuple):
    """One input: by which door, and the bytes; ``subject``, ``headers`` and ``body`` where it is a message."""

    door: Door
    raw: bytes = b""
    subject: bytes = b""
    headers: bytes | None = None
    body: bytes = b""


SOURCES = ("crm", "till", "a.b", "a b", "émile", "x" * 128)
ODD_TOKENS = (
    b"\xff\xfe",
    b"a\x00b",
    b"a\x0bb",
    b"a\x0cb",
    b"a\rb",
    b"\x1b[2J",
    b"\xe2\x80\xae",
    b"\xed\xa0\x80",
    b"%",
    b"%ff",
    b"%2e",
    b"*",
    b">",
    b"x" * 3000,
    b"ledger",
    b"dashboard",
    b"$JS",
    b"\xf0\x9f\x98\x80",
)
TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "null",
    "\x00",
    "\x7f",
    "\ud800",
    "\udfff\ud800",
    "a\u202eb",
    "e\u0301",
    "\u200b",
    "\ufeff",
    "💥" * 40,
    "a" * 129,
    "a" * 5000,
    "../../etc/passwd",
    "%s%n{0}",
    "'; drop table x; --",
    "<script>",
    "=1+1",
    "C-1",
    "A-1",
    "t-1",
    "2026-01-05T10:00:00Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-01-05",
    "2026-01-05T10:00:00+14:00",
    "2026-01-05T10:00:00.123456789-23:59",
    "GBP",
    "XXX",
    "١٢",
    "1e5",
    "0.005",
    "NaN",
    "act-1",
    "agent:A-1",
    "team:t-1",
    "resolution.action.taken.v1",
    "sealed:1:x:y",
    "a@example.com",
    "+441234567890",
)
NUMBERS = (0, -1, 1, 5, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**300, 0.1, -0.0, 1e308, 5e-324)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    {"": None},
    {"amount": "5.00", "currency": "GBP"},
    {"amount": "-5.00", "currency": "GBP"},
    {"amount": "0.00", "currency": "JPY"},
    {"amount": 5, "currency": "GBP"},
    {"amount": "9" * 400, "currency": "GBP"},
    *TEXTS,
    *NUMBERS,
)
SPLICES = (
    b"\xff",
    b"\x00",
    b"\xc3",
    b"\\ud800",
    b"\\u0000",
    b"1e999",
    b"-",
    b"NaN",
    b"[" * 2000,
    b"{" * 2000,
    b'{"a":' * 1500,
    b"9" * 5000,
    b'"',
    b"\\",
    b",",
    b"]}",
    b"\xef\xbb\xbf",
    b"//",
    b"\r\n\r\n",
    b" " * 3000,
    b'"id":"1","id":"2",',
    b"true",
)
HEADER_LINES = (
    b"ce-specversion: 1.0",
    b"ce-specversion: 9",
    b"ce-id: %FF",
    b"ce-id: b-%C3%BC",
    b"ce-id: \xff",
    b"ce-id: 1",
    b"CE-ID: 2",
    b"ce-source: crm",
    b"ce-source: till",
    b"ce-type: resolution.purchase.completed.v1",
    b"ce-type: x",
    b"ce-time: x",
    b"ce-time: 2026-01-05T10:00:00Z",
    b"ce-recordedtime: x",
    b"ce-position: 1",
    b"ce-%00: 1",
    b"ce-sequence: 9999999999",
    b"content-type: application/json",
    b"content-type: application/cloudevents+json",
    b"content-type: text/plain",
    b"content-type: application/cloudevents-batch+json",
    b"content-type: application/cloudevents+avro",
    b"Content-Type: \xff",
    b"content-type: application/json; charset=utf-16",
    b"Nats-Msg-Id: 1",
    b"Nats-Msg-Id: \xff",
    b"Nats-TTL: 1s",
    b"Nats-Rollup: all",
    b"Nats-Expected-Stream: OTHER",
    b"Nats-Expected-Last-Sequence: 1",
    b"Nats-Batch-Id: b",
    b"Nats-Batch-Sequence: 1",
    b"Nats-Batch-Commit: 1",
    b"Nats-Request-Info: {",
    b"Answer-To: ledger.fact.crm",
    b"Status: 503",
    b"correlation_id: \xff",
    b"message_id: ",
    b"reply_to: resolution.inbox.crm",
    b"no colon",
    b": no name",
    b"a: " + b"b" * 20_000,
    b"  folded",
    b"\xff\xfe: \x00",
    b"x: a\rb",
    b"x: a\nb",
)
FIRST_LINES = (
    b"NATS/1.0",
    b"NATS/1.0",
    b"NATS/1.0",
    b"NATS/1.0 404",
    b"NATS/1.0 4 \xff\xff",
    b"NATS/1.0 100 Idle Heartbeat",
    b"NATS/1.0 503",
    b"NATS/2.0",
    b"HTTP/1.1 200 OK",
    b"",
)


def _money(chance: random.Random) -> dict[str, str]:
    return {"amount": f"{chance.randint(0, 900) / 100:.2f}", "currency": "GBP"}


FACTS: dict[str, Document] = {
    "interaction.opened": {"interaction_id": "I-1", "customer_id": "C-1", "channel": "phone", "agent_id": "A-1"},
    "interaction.transferred": {"interaction_id": "I-1", "to_agent_id": "A-2", "waited_seconds": 5},
    "interaction.resolved": {"interaction_id": "I-1", "resolution": "done"},
    "purchase.completed": {"order_id": "O-1", "customer_id": "C-1", "total": {"amount": "5.00", "currency": "GBP"}},
    "purchase.returned": {"order_id": "O-1", "total": {"amount": "5.00", "currency": "GBP"}, "item_kept": True},
    "feedback.received": {
        "customer_id": "C-1",
        "instrument": "csat",
        "score": 4,
        "best": 5,
        "worst": 1,
        "comment": "fine",
    },
    "recognition.given": {"recognition_id": "R-1", "giver_id": "A-1", "receiver_id": "A-2", "reason": "help"},
    "customer.linked": {"a": "C-1", "b": "C-2", "relation": "household"},
    "employee.changed": {"employee_id": "A-7", "role": "agent", "team_ids": ["t-1"]},
    "training.completed": {"employee_id": "A-7", "course_id": "goodwill-basics"},
    "shift.started": {"employee_id": "A-7"},
    "action.reported": {
        "agent_id": "A-7",
        "kind": "refund",
        "amount": {"amount": "1.00", "currency": "GBP"},
        "reason": "late",
    },
    "refund.settled": {"action_id": "act-1", "total": {"amount": "1.00", "currency": "GBP"}},
    "escalation.reported": {"escalation_id": "E-1", "amount": {"amount": "1.00", "currency": "GBP"}},
    "obstacle.reported": {"obstacle_id": "B-1", "employee_id": "A-7", "text": "no stock"},
    "fact.corrected": {"source_of": "crm", "id_of": "f-1", "data": None, "reason": "typing error"},
}
_ACTION = {"agent_id": "A-7", "kind": "refund", "amount": {"amount": "1.00", "currency": "GBP"}, "reason": "late"}
REQUESTS: dict[str, list[Document]] = {
    "decide.%b.action": [
        _ACTION,
        _ACTION | {"customer_id": "C-1", "note": "keep it", "escalate": True},
        _ACTION | {"hold": True},
    ],
    "decide.%b.preview": [_ACTION, {"agent_id": "A-7", "kind": "refund", "reason": "late"}],
    "decide.%b.hold": [
        {"action_id": "act-1", "operation": "settle"},
        {"action_id": "act-1", "operation": "void", "reason": "x"},
    ],
    "decide.%b.reversal": [{"action_id": "act-1", "reversed_by": "M-1", "reason": "x", "recovered": True}],
    "decide.%b.escalation": [
        {"operation": "request", **_ACTION},
        {"operation": "approve", "escalation_id": "E-1", "decided_by": "M-1", "reason": "x"},
    ],
    "decide.%b.budget": [
        {"operation": "grant", "holder": "agent:A-7", "amount": _ACTION["amount"], "granted_by": "M-1", "reason": "x"}
    ],
    "decide.%b.policy": [{"policy": BASIC_POLICY, "published_by": "owner"}],
    "decide.%b.flag": [{"flag_id": "F-1", "verdict": "dismissed", "reviewed_by": "M-1", "note": "x"}],
    "decide.%b.nothing": [{}],
    "read.%b.receipt": [{"id": "f-1"}, {"ids": ["f-1", "f-2"]}, {"stream": "INBOX", "seq": 1}],
    "read.%b.check": [
        {"specversion": "1.0", "id": "1", "source": "crm", "type": "x", "time": "2026-01-05T10:00:00Z", "data": {}}
    ],
    "read.%b.brief": [{"customer_id": "C-1", "agent_id": "A-7"}, {"interaction_id": "I-1", "agent_id": "A-7"}],
}
PATHS = (
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/api/v1/balances",
    "/api/v1/actions",
    "/api/v1/escalations",
    "/api/v1/loyalty",
    "/api/v1/gap",
    "/api/v1/quality",
    "/api/v1/recognition",
    "/api/v1/beyond-authority",
    "/api/v1/consistency",
    "/api/v1/flags",
    "/api/v1/cases",
    "/api/v1/trail",
    "/api/v1/events/1",
    "/api/v1/events/-1",
    "/api/v1/events/99999999999999999999",
    "/api/v1/projections",
    "/api/v1/policies",
    "/api/v1/escalations/E-1",
    "/api/v1/flags/F-1",
    "/api/v1/budgets",
    "/api/v1/nothing",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/api/v1/actions/%ff%fe",
    "/api/v1/events/%00",
    "/static/..%2f..%2fx",
    "//",
    "/api/v1/balances/",
)
PARAMETERS = (
    "limit",
    "after",
    "order",
    "from",
    "to",
    "as_of",
    "format",
    "holder",
    "period",
    "agent",
    "customer",
    "interaction",
    "x",
)
QUERY_VALUES = (
    "",
    "1",
    "-1",
    "0",
    "99999999999999999999999",
    "1e9",
    "%00",
    "%ff",
    "%ed%a0%80",
    "%F0%9F%98%80",
    "2026-01-05T10:00:00Z",
    "9999-12-31T23:59:59%2B14:00",
    "0001-01-01T00:00:00Z",
    "csv",
    "json",
    "desc",
    "agent:A-1",
    "2026-01",
    "'%22%3B--",
    "a" * 3000,
    "%",
)
HTTP_HEADERS = (
    b"Content-Length: -1",
    b"Content-Length: 5, 6",
    b"Content-Length: 99999999999",
    b"Content-Length: x",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Expect: 100-continue",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Host: \xff",
    b"Host:",
    b"Host: evil.example",
    b"X-Forwarded-For: " + b"1.2.3.4, " * 50,
    b"Cookie: " + b"a=b; " * 500,
    b"Cookie: session=\xff\x00",
    b"Origin: null",
    b"Accept: " + b"x" * 4000,
    b"Range: bytes=0-0,-1",
    b'If-None-Match: "',
    b"Content-Type: application/json; charset=utf-16",
    b"Content-Type: multipart/form-data; boundary=",
    b"Idempotency-Key: \xff",
    b"no colon",
    b": x",
    b" folded",
    b"X: a\x00b",
    b"X: a\nb",
)
METHODS = (
    b"GET",
    b"GET",
    b"GET",
    b"POST",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"get",
    b"\xff",
    b"G E T",
    b"",
)


def make_input(seed: int, number: int, http_token: str, http_host: str) -> Input:
    """Return the input of this number; the same seed gives the same bytes."""
    chance = random.Random(f"{seed}:{number}")
    kind = chance.random()
    if kind < 0.48:
        return _inbox(chance, number)
    if kind < 0.80:
        return _request(chance, number)
    if kind < 0.85:
        return Input("protocol", _protocol(chance, number))
    return Input("http", _http(chance, http_token.encode(), http_host.encode()))


def _inbox(chance: random.Random, number: int) -> Input:
    source = chance.choice(SOURCES)
    name = chance.choice(list(FACTS))
    fact: Document = {
        "specversion": "1.0",
        "id": f"f-{chance.randint(1, number + 1)}",
        "source": source,
        "type": f"resolution.{name}.v1",
        "time": f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T10:00:00Z",
        "data": copy.deepcopy(FACTS[name]),
    }
    if chance.random() < 0.5:
        _change(chance, fact)
    body = _written(chance, [fact, fact] if chance.random() < 0.05 else fact)
    token = source.encode() if source.isascii() and source.isalnum() else _percent(source)
    if chance.random() < 0.08:
        token = chance.choice(ODD_TOKENS)
    return Input("inbox", b"", b"resolution.inbox." + token, _headers(chance), body)


def _request(chance: random.Random, number: int) -> Input:
    subject, bodies = chance.choice(list(REQUESTS.items()))
    body = copy.deepcopy(chance.choice(bodies))
    if subject.startswith("decide"):
        body["request_id"] = f"q-{chance.randint(1, number + 1)}"
    if chance.random() < 0.6:
        _change(chance, body)
    token = chance.choice(ODD_TOKENS) if chance.random() < 0.08 else chance.choice((b"crm", b"till", b"a%2Eb"))
    return Input("request", b"", b"resolution." + subject.encode() % token, _headers(chance), _written(chance, body))


def _percent(text: str) -> bytes:
    return b"".join(b"%c" % one if chr(one).isalnum() and one < 128 else b"%%%02X" % one for one in text.encode())


def _change(chance: random.Random, document: Document) -> None:
    """Change one to three places of a document: a value, a name, a place."""
    for _ in range(chance.randint(1, 3)):
        node: Any = document
        while True:
            if not isinstance(node, dict | list) or not node:
                break
            key = chance.choice(list(node) if isinstance(node, dict) else list(range(len(node))))
            if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.6:
                node = node[key]
                continue
            what = chance.random()
            if what < 0.6:
                node[key] = copy.deepcopy(chance.choice(VALUES))
            elif isinstance(node, dict) and what < 0.8:
                node[chance.choice(TEXTS)[:200]] = copy.deepcopy(chance.choice(VALUES))
            else:
                del node[key]
            break


def _written(chance: random.Random, document: Any) -> bytes:
    """JSON text, now and then with bytes changed, cut, doubled or spliced in."""
    text = json.dumps(document, ensure_ascii=chance.random() < 0.8).encode(errors="surrogatepass")
    while chance.random() < 0.25:
        at = chance.randint(0, len(text))
        match chance.randint(0, 4):
            case 0:
                text = text[:at] + chance.choice(SPLICES) + text[at:]
            case 1:
                text = text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :]
            case 2:
                text = text[:at]
            case 3:
                text = text[:at] + text[at:] * 2
            case 4:
                text = chance.choice(
                    (chance.randbytes(chance.randint(0, 200)), text.decode(errors="replace").encode("utf-16"))
                )
    return text[: 200_000 if chance.random() < 0.01 else 47_000]


def _headers(chance: random.Random) -> bytes | None:
    if chance.random() < 0.55:
        return None
    first = chance.choice(FIRST_LINES) if chance.random() < 0.3 else b"NATS/1.0"
    lines = [chance.choice(HEADER_LINES) for _ in range(chance.randint(0, 8))]
    if chance.random() < 0.02:
        lines += [b"h%d: \xff" % number for number in range(1500)]
    block = b"\r\n".join([first, *lines]) + chance.choice(
        (b"\r\n\r\n", b"\r\n\r\n", b"\r\n\r\n", b"\r\n", b"", b"\n\n")
    )
    return block[:45_000]


def _protocol(chance: random.Random, number: int) -> bytes:
    """Frames that break the protocol, for a connection of their own; no carriage of acknowledgements."""
    inner = _inbox(chance, number)
    subject, size = inner.subject, len(inner.body)
    return chance.choice(
        (
            b"PUB %b %d\r\n%b\r\n" % (subject, size + chance.choice((-1, 1, 5, 10_000)), inner.body),
            b"PUB %b -1\r\n%b\r\n" % (subject, inner.body),
            b"PUB %b 99999999999999999999\r\n" % subject,
            b"PUB %b %d\n%b\n" % (subject, size, inner.body),
            b"HPUB %b 5 3\r\nabc\r\n" % subject,
            b"HPUB %b 100 10\r\nNATS/1.0\r\n\r\n" % subject,
            b"HPUB %b 12 %d\r\nNATS/1.0\r\n\r\n%b\r\n" % (subject, 12 + size, inner.body),
            b"PUB resolution.decide.crm.action $JS.API.STREAM.PURGE.INBOX 2\r\n{}\r\n",
            b'PUB resolution.read.crm.receipt resolution.inbox.crm 12\r\n{"id": "f-1"}\r\n'[:-4] + b"\r\n",
            b"PUB resolution.read.crm.receipt _R_.\xff\xfe 2\r\n{}\r\n",
            b"SUB > 1\r\nSUB resolution.decide.*.* q 2\r\nSUB _R_.> 3\r\nSUB $JS.> 4\r\n",
            b"PUB $JS.API.STREAM.DELETE.LEDGER 0\r\n\r\nPUB ledger.fact.crm 2\r\n{}\r\nPUB alarm.seal 2\r\n{}\r\n",
            b"PUB $KV.ledger-leases.decisions 2\r\n{}\r\nPUB resolution.views.x 2\r\n{}\r\n",
            b'CONNECT {"verbose": true, "pedantic": true}\r\nPUB %b %d\r\n%b\r\n' % (subject, size, inner.body),
            b"CONNECT {" + chance.randbytes(50) + b"\r\n",
            chance.randbytes(chance.randint(1, 2000)) + b"\r\n",
            b"PUB " + b"a" * 5000 + b" 2\r\n{}\r\n",
            b"MSG a 1 2\r\n{}\r\n",
            b"PING\r\n" * 500,
            b"-ERR 'x'\r\n",
            b"INFO {}\r\n",
            b"\r\n",
            b"\x16\x03\x01\x02\x00",
        )
    )


def _http(chance: random.Random, token: bytes, host: bytes) -> bytes:
    path = chance.choice(PATHS)
    if chance.random() < 0.5:
        pairs = [f"{chance.choice(PARAMETERS)}={chance.choice(QUERY_VALUES)}" for _ in range(chance.randint(1, 4))]
        path += "?" + "&".join(pairs)
    if chance.random() < 0.03:
        path += "/" + "a" * chance.choice((300, 9000, 70_000))
    method, version = chance.choice(METHODS), b"HTTP/1.1"
    if chance.random() < 0.05:
        version = chance.choice((b"HTTP/1.0", b"HTTP/9.9", b"HTTP/2.0", b"", b"\xff"))
    lines = [method + b" " + path.encode() + b" " + version]
    if chance.random() < 0.95:
        lines.append(b"Host: " + host)
    if chance.random() < 0.9:
        lines.append(b"Authorization: Bearer " + token)
    lines += [chance.choice(HTTP_HEADERS) for _ in range(chance.choice((0, 0, 0, 1, 1, 2)))]
    if chance.random() < 0.01:
        lines += [b"x%d: y" % number for number in range(3000)]
    body = b""
    if method == b"POST" or chance.random() < 0.1:
        document = copy.deepcopy(chance.choice(chance.choice(list(REQUESTS.values()))))
        _change(chance, document) if document else None
        body = _written(chance, document)
        if chance.random() < 0.25:
            lines.append(b"Transfer-Encoding: chunked")
            size = chance.choice(
                (b"%x" % len(body), b"%x" % (len(body) + 5), b"-1", b"zz", b"ffffffffffffffff", b"5;a=b")
            )
            body = size + b"\r\n" + body + b"\r\n" + chance.choice((b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"", b"0"))
        else:
            lines.append(b"Content-Length: %d" % (len(body) + chance.choice((0, 0, 0, 0, -1, 1))))
        lines.append(b"Content-Type: application/json")
    raw = b"\r\n".join(lines) + b"\r\n\r\n" + body
    if chance.random() < 0.05:
        at = chance.randint(0, len(raw))
        raw = raw[:at] + chance.randbytes(chance.randint(1, 20)) + raw[at:]
    return raw
