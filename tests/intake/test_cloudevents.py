"""CloudEvents as the specification has them; the oracles are the official SDK and the rule of earlier versions."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.conversion import to_binary, to_structured
from cloudevents.v1.http import CloudEvent as FirstCloudEvent
from cloudevents.v1.http import from_http
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import EventError
from ledger.store.cloudevents import parse_event, parse_time
from ledger.store.content_modes import Headers, events_of_batch, headers_of
from ledger.store.duplicate_events import content_hash, same_event
from tests.support.documents import Document

RECEIVED = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
TYPE = "resolution.purchase.completed.v1"
DATA: Document = {"order_id": "O-1", "total": {"amount": "5.00", "currency": "GBP"}}
EVENT: Document = {
    "specversion": "1.0",
    "id": "ev-1",
    "source": "crm",
    "type": TYPE,
    "time": "2026-01-05T10:00:00Z",
    "data": DATA,
}
ATTRIBUTES = {name: value for name, value in EVENT.items() if name != "data"}


def structured(**changes: Any) -> bytes:
    """Return an event in structured mode; an attribute that is ``...`` is left out."""
    return json.dumps({name: value for name, value in (EVENT | changes).items() if value is not ...}).encode()


def binary(content_type: str | None = "application/json", **attributes: str) -> Headers:
    """Return the headers of an event in binary mode."""
    headers = tuple((f"ce-{name}", value) for name, value in (ATTRIBUTES | attributes).items())
    return headers if content_type is None else (*headers, ("Content-Type", content_type))


def refused(data: bytes, headers: Headers = ()) -> tuple[str, str]:
    """Return the code and field of the error with which a message is refused."""
    with pytest.raises(EventError) as caught:
        parse_event(data, headers, lambda: RECEIVED)
    assert caught.value.message
    json.dumps([caught.value.field, caught.value.message], ensure_ascii=False).encode()  # it can be stored
    return caught.value.code, caught.value.field


BODY = json.dumps(DATA).encode()


# ---------------------------------------------------------------------- the mode


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+json",
        "application/cloudevents+json; charset=utf-8",
        "Application/CloudEvents+JSON",
        'application/cloudevents+json ; charset="UTF-8"',
        "application/cloudevents",
    ],
)
@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_a_structured_content_type_takes_precedence_over_headers(name: str, content_type: str) -> None:
    headers = ((name, content_type), ("ce-specversion", "1.0"), ("ce-id", "another"), ("ce-source", "another"))
    assert parse_event(structured(), headers).id == "ev-1"


@pytest.mark.parametrize("headers", [(), (("content-type", "application/json"),), (("ce-tenant", "x"),), (("X", "y"),)])
def test_an_event_without_a_content_type_of_its_own_is_structured(headers: Headers) -> None:
    assert parse_event(structured(), headers).content == content_hash(structured())


def test_binary_mode_and_structured_mode_say_the_same() -> None:
    sent = parse_event(BODY, binary(id="bestellung-%C3%BC1", subject="a%20b%25", count="7", vip="true"))
    other = parse_event(
        structured(id="bestellung-ü1", subject="a b%", count=7, vip=True, datacontenttype="application/json")
    )
    assert sent.id == "bestellung-ü1"
    assert same_event(sent.json, other.json)
    assert parse_event(BODY, binary(id="bestellung-%C3%BC1")).content == content_hash(structured(id="bestellung-ü1"))


def test_a_retry_in_another_trace_is_the_same_event() -> None:
    one, other = (
        parse_event(structured(traceparent=f"00-{'a' * 32}-{span * 16}-01", tracestate=f"vendor={span}"))
        for span in ("1", "2")
    )
    assert one.content != other.content
    assert same_event(one.json, other.json)
    assert same_event(one.json, parse_event(structured()).json)


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41%62c", "Abc"),
        ("a%2520b", "a%20b"),
        ('"a \\"quoted\\" \\\\ text"', 'a "quoted" \\ text'),
        ('"a%20b"', "a b"),
        ('half "quoted"', 'half "quoted"'),
        ("ü", "ü"),
        ("a+b", "a+b"),
    ],
)
def test_headers_are_unquoted_and_decoded_once(value: str, decoded: str) -> None:
    assert msgspec.json.decode(parse_event(BODY, binary(subject=value)).json)["subject"] == decoded


@pytest.mark.parametrize("value", ["100%", "%", "%4", "%zz", "%C0%A0", "%ff", "%ED%A0%80", "\udcff", "a%20%"])
def test_a_header_that_cannot_be_decoded_is_refused_by_its_name(value: str) -> None:
    assert refused(BODY, binary(subject=value)) == ("invalid", "subject")
    assert refused(BODY, binary(id=value)) == ("invalid", "id")


def test_header_names_have_no_case_and_stand_once() -> None:
    loud = tuple((name.upper(), value) for name, value in binary(subject="x"))
    assert parse_event(BODY, loud).content == parse_event(BODY, binary(subject="x")).content
    assert refused(BODY, (*binary(), ("CE-ID", "ev-1"))) == ("invalid", "id")
    assert refused(BODY, (*binary(), ("content-type", "application/xml"))) == ("invalid", "content-type")


def test_raw_headers_are_read_byte_by_byte() -> None:
    raw = b"NATS/1.0\r\nce-id: \xff\r\nCe-Subject:  \xc3\xbc \r\nce-no colon\r\nNats-Batch-Id: x\r\n\r\n"
    assert headers_of(raw) == (("ce-id", "\udcff"), ("Ce-Subject", "ü"), ("ce-no colon", ""))
    assert headers_of(b"NATS/1.0 503\r\n\r\n") == ()


@pytest.mark.parametrize(
    ("data", "headers", "error"),
    [
        (BODY, binary("text/plain"), ("not_json", "datacontenttype")),
        (BODY, binary("application/xml; charset=utf-8"), ("not_json", "datacontenttype")),
        (BODY, binary(None, datacontenttype="text/xml"), ("not_json", "datacontenttype")),
        (BODY, binary("application/json", datacontenttype="text/xml"), ("invalid", "datacontenttype")),
        (b"", binary(), ("missing", "data")),
        (b"<a/>", binary(), ("not_json", "data")),
        (b"{} {}", binary(), ("not_json", "data")),
        (b'{"a": 1}, "source": "other", "x": {}', binary(), ("not_json", "data")),
        (b'{"a": "\xff"}', binary(), ("not_json", "data")),
        (BODY, binary(data="{}"), ("invalid", "data")),
        (BODY, binary(recordedtime="2026-01-01T00:00:00Z"), ("reserved_attribute", "recordedtime")),
        (BODY, binary(timeassumed="true"), ("reserved_attribute", "timeassumed")),
        (BODY, (*binary(), ("ce-My_Ext", "x")), ("invalid", "my_ext")),
        (BODY, (*binary(), ("ce-", "x")), ("invalid", "")),
        (BODY, (("ce-id", "1"), ("ce-source", "crm"), ("ce-type", TYPE)), ("missing", "specversion")),
        (structured(), (("content-type", "application/cloudevents+avro"),), ("invalid", "content-type")),
        (structured(), (("content-type", "application/cloudevents-batch+protobuf"),), ("invalid", "content-type")),
        (
            structured(),
            (("content-type", "application/cloudevents+json; charset=utf-16"),),
            ("invalid", "content-type"),
        ),
        (structured(), (("content-type", "application/cloudevents-batch+json"),), ("invalid", "")),
        (b"[" + structured() + b"]", (("content-type", "application/cloudevents+json"),), ("invalid", "")),
        (BODY, binary("application/json; x=\udcff"), ("invalid", "content-type")),
        (BODY, (*binary(), ("ce-\udcff", "x")), ("invalid", "?")),
    ],
)
def test_attributes_that_no_mode_allows_are_refused_with_their_field(
    data: bytes, headers: Headers, error: tuple[str, str]
) -> None:
    assert refused(data, headers) == error


@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.acme.order+json", "text/json", None])
def test_json_is_taken_under_all_its_names(content_type: str | None) -> None:
    sent = parse_event(BODY, binary(content_type))
    assert same_event(sent.json, structured())
    assert msgspec.json.decode(sent.json)["data"] == DATA


# ---------------------------------------------------------------------- data


def test_data_in_base64_is_the_same_event() -> None:
    encoded = base64.b64encode(BODY).decode()
    for changes in ({}, {"datacontenttype": "application/json; charset=utf-8"}):
        sent = parse_event(structured(data=..., data_base64=encoded, **changes))
        assert same_event(sent.json, structured())
        assert "data_base64" not in msgspec.json.decode(sent.json)
    assert parse_event(structured(data=..., data_base64=encoded)).content == content_hash(structured())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data_base64": base64.b64encode(BODY).decode()}, ("invalid", "data_base64")),
        ({"data": None, "data_base64": base64.b64encode(BODY).decode()}, ("invalid", "data_base64")),
        ({"data": ..., "data_base64": "e30"}, ("invalid", "data_base64")),
        ({"data": ..., "data_base64": "e 30="}, ("invalid", "data_base64")),
        ({"data": ..., "data_base64": "ü30="}, ("invalid", "data_base64")),
        ({"data": ..., "data_base64": 7}, ("invalid", "data_base64")),
        ({"data": ..., "data_base64": ""}, ("invalid", "data_base64")),
        ({"data": ..., "data_base64": base64.b64encode(b"<a/>").decode()}, ("not_json", "data_base64")),
        ({"data": ..., "data_base64": base64.b64encode(b"\x00\xff").decode()}, ("not_json", "data_base64")),
        ({"data": ..., "data_base64": "e30=", "datacontenttype": "text/xml"}, ("not_json", "datacontenttype")),
        ({"data": ..., "data_base64": None}, ("missing", "data")),
        ({"data": ...}, ("missing", "data")),
    ],
)
def test_data_stands_once_and_is_json(changes: Document, error: tuple[str, str]) -> None:
    assert refused(structured(**changes)) == error


# ---------------------------------------------------------------------- attributes


def test_null_means_absent() -> None:
    sent = parse_event(structured(subject=None, myext=None, data_base64=None, time=None), (), lambda: RECEIVED)
    assert msgspec.json.decode(sent.json).keys() == EVENT.keys() | {"timeassumed"}
    assert refused(structured(id=None)) == ("missing", "id")


@pytest.mark.parametrize("value", ["", "ü", "x" * 5000, 0, -(2**31), 2**31 - 1, True, "2026-01-01T00:00:00Z", "/a?b#c"])
def test_values_of_the_type_system_are_kept(value: object) -> None:
    sent = parse_event(structured(myext=value))
    assert sent.flaw is None
    assert msgspec.json.decode(sent.json)["myext"] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("myext", 2**31),
        ("myext", -(2**31) - 1),
        ("myext", 1.5),
        ("myext", {"a": 1}),
        ("myext", [1]),
        ("myext", "a\nb"),
        ("myext", "\u0085"),
        ("myext", "\uffff"),
        ("myext", "\U0001fffe"),
        ("id", "a\ufdd0"),
        ("subject", ""),
        ("subject", 7),
        ("dataschema", ""),
        ("datacontenttype", ""),
        ("datacontenttype", True),
        ("sequence", ""),
        ("sequence", 1.0),
        ("sequence", 2**63),
        ("sequence", True),
        ("sequence", "a\nb"),
        ("sequence", [1]),
        ("sequencetype", ""),
        ("sequencetype", 1),
    ],
)
def test_a_value_outside_the_type_system_is_a_flaw_of_new_events(name: str, value: object) -> None:
    sent = parse_event(structured(**{name: value}))
    assert sent.flaw is not None
    assert (sent.flaw.code, sent.flaw.field) == ("invalid", name)


@pytest.mark.parametrize("value", ["0", "7", "0007", "-1", 7, -7, str(2**63 - 1), 2**63 - 1])
@pytest.mark.parametrize("extra", [{}, {"sequencetype": "Integer"}])
def test_a_sequence_may_be_an_integer_as_text_or_number(value: object, extra: dict[str, str]) -> None:
    sent = parse_event(structured(sequence=value, **extra))
    assert sent.flaw is None
    assert same_event(sent.json, parse_event(BODY, binary(sequence=str(value), **extra)).json)


@pytest.mark.parametrize("value", ["a", "2026-11-28.7", "1.0", "٣", "9" * 40, " 1"])
def test_a_sequence_is_any_text_unless_its_type_says_integer(value: str) -> None:
    """The CloudEvents extension: a non-empty, lexicographically orderable text; its type gives it another meaning."""
    assert parse_event(structured(sequence=value)).flaw is None
    assert parse_event(structured(sequence=value, sequencetype="Custom")).flaw is None
    flaw = parse_event(structured(sequence=value, sequencetype="Integer")).flaw
    assert flaw is not None
    assert (flaw.code, flaw.field) == ("invalid", "sequence")


# ---------------------------------------------------------------------- time


def test_an_event_without_a_time_gets_the_inbox_time_outside_its_hash() -> None:
    first = parse_event(structured(time=...), (), lambda: RECEIVED)
    again = parse_event(structured(time=...), (), lambda: RECEIVED + timedelta(days=3))
    assert (first.time, first.assumed) == (RECEIVED, True)
    assert msgspec.json.decode(first.json)["time"] == "2026-03-01T12:00:00.123456Z"
    assert msgspec.json.decode(first.json)["timeassumed"] is True
    assert first.content == again.content == content_hash(first.json)
    assert same_event(first.json, again.json)
    told = parse_event(structured(time="2026-03-01T12:00:00.123456Z"))
    assert not same_event(first.json, told.json)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-05T10:00:00Z", "2026-01-05T10:00:00"),
        ("2026-01-05t10:00:00z", "2026-01-05T10:00:00"),
        ("2026-01-05T10:00:00+14:00", "2026-01-04T20:00:00"),
        ("2026-01-05T10:00:00-05:00", "2026-01-05T15:00:00"),
        ("2026-01-05T10:00:00-00:00", "2026-01-05T10:00:00"),
        ("2026-01-05T10:00:00.123456789Z", "2026-01-05T10:00:00.123457"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999"),
        ("2017-01-01T09:59:60.5+10:00", "2016-12-31T23:59:59.999999"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59"),
    ],
)
def test_times_of_rfc_3339(text: str, moment: str) -> None:
    assert parse_time(text) == datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert parse_event(structured(time=text)).time == parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05T10:00:00+24:00",
        "2026-01-05T10:00:00+10:60",
        "2026-01-05T10:00:00",
        "2026-01-05 10:00:00Z",
        "2026-01-05",
        "2026-01-05T24:00:00Z",
        "2026-01-05T10:00:61Z",
        "2026-01-05T10:00:60Z",
        "2026-12-31T23:59:60+01:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "9999-12-31T23:59:60Z",
        "2026-02-30T10:00:00Z",
        "٢٠٢٦-01-05T10:00:00Z",
        "2026-01-05T10:00:00.Z",
        "",
        "1767607200",
        "2026-01-05T10:00:00Z\n",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    assert refused(structured(time=text)) == ("invalid", "time")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2026-01-05T10:00:00Z", "2026-01-05T10:00:00.000Z", True),
        ("2026-01-05T10:00:00Z", "2026-01-05t11:00:00+01:00", True),
        ("2026-01-05T10:00:00.1Z", "2026-01-05T10:00:00.100000000Z", True),
        ("2026-01-05T10:00:00.1234567Z", "2026-01-05T10:00:00.1234568Z", False),
        ("2026-01-05T10:00:00Z", "2026-01-05T10:00:00+01:00", False),
    ],
)
def test_times_are_compared_as_instants(one: str, other: str, *, same: bool) -> None:
    assert same_event(structured(time=one), structured(time=other)) is same


# ---------------------------------------------------------------------- batches


def test_a_batch_holds_events_byte_by_byte() -> None:
    first, second = structured(), json.dumps(EVENT | {"id": "ev-2"}, indent=2).encode()
    assert events_of_batch(b" [" + first + b" ,\n" + second + b"] ") == [first, second]
    assert events_of_batch(b"[]") == []
    assert len(events_of_batch(b"[" + b",".join([structured()] * 1000) + b"]")) == 1000
    assert len(events_of_batch(b"[" + b",".join([b"{}"] * 16) + b"]")) == 16


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"[" + b",".join([b"1"] * 1001) + b"]", ("too_large", "")),
        (b"[" + b",".join([b"{}"] * 17) + b"]", ("invalid", "")),
        (b"{}", ("invalid", "")),
        (b"[1", ("not_json", "")),
        (b"[\xff]", ("not_json", "")),
        (b"", ("not_json", "")),
    ],
)
def test_other_batches_are_refused(data: bytes, error: tuple[str, str]) -> None:
    assert refused(data, (("content-type", "application/cloudevents-batch+json"),)) == error


# ---------------------------------------------------------------------- the official SDK

texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=30)
names = st.from_regex(r"[a-z][a-z0-9]{0,19}", fullmatch=True).filter(
    lambda name: (
        name
        not in {
            *EVENT,
            "recordedtime",
            "position",
            "corrects",
            "timeassumed",
            "sequence",
            "subject",
            "datacontenttype",
            "dataschema",
        }
    )
)
integers = st.integers(-(2**31), 2**31 - 1)
times = st.datetimes(
    datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=14))])
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)
datas = st.dictionaries(texts, json_values, max_size=4)
optional = st.fixed_dictionaries(
    {},
    optional={
        "subject": texts,
        "dataschema": st.just("https://example.com/schema"),
        "sequence": st.integers(0, 2**63 - 1).map(str),
        "datacontenttype": st.sampled_from(["application/json", "application/vnd.acme+json"]),
    },
)


@st.composite
def attributes(draw: st.DrawFn, values: st.SearchStrategy[object]) -> Document:
    required = {
        "specversion": "1.0",
        "id": draw(texts),
        "source": draw(texts),
        "type": draw(texts),
        "time": draw(times),
    }
    return required | draw(optional) | draw(st.dictionaries(names, values, max_size=3))


def as_texts(found: Document) -> dict[str, str]:
    """Attributes in their canonical string encoding; times as instants."""
    return {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
        for name, value in found.items()
    }


def ours(data: bytes, headers: Headers) -> tuple[dict[str, str], Any, bytes]:
    """Return the result of our parser: attributes as texts, data, and the normalised event."""
    sent = parse_event(data, headers)
    event = msgspec.json.decode(sent.json)
    content = event.pop("data")
    return as_texts(event | {"time": parse_time(event["time"])}), content, sent.json


@given(attributes(texts | integers), datas)
def test_events_of_the_sdk_are_read_as_the_sdk_reads_them(sent: Document, data: Document) -> None:
    message = sdk.to_structured(CloudEvent(dict(sent), data), JSONFormat())
    read = sdk.from_http_event(message)
    assert isinstance(read, CloudEvent)
    found, content, one = ours(message.body, tuple(message.headers.items()))
    assert found == as_texts(read.get_attributes())
    assert content == read.get_data()

    sent.setdefault("datacontenttype", "application/json")  # without it the SDK writes no JSON in binary mode
    message = sdk.to_binary(CloudEvent(dict(sent), data), JSONFormat())
    read = sdk.from_http_event(message)
    found, content, other = ours(message.body, tuple(message.headers.items()))
    expected = as_texts(read.get_attributes())
    if expected["datacontenttype"] == "application/json":  # what an event without one has
        del expected["datacontenttype"]
    assert found == expected
    assert content == (read.get_data() or {})
    assert same_event(one, other)

    encoded = sdk.to_structured(CloudEvent(dict(sent), json.dumps(data).encode()), JSONFormat())
    assert b'"data_base64"' in encoded.body
    assert same_event(ours(encoded.body, tuple(encoded.headers.items()))[2], one)


plain = st.text(
    st.characters(codec="ascii", min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='%"'), min_size=1
)


@given(
    attributes(plain | integers).map(lambda found: {n: v if n == "time" else str(v) for n, v in found.items()}), datas
)
def test_events_of_the_first_sdk_are_read_as_it_reads_them(sent: Document, data: Document) -> None:
    sent = {
        name: value.isoformat() if isinstance(value, datetime) else re.sub(r'[^!-~]|[%"]', "x", value)
        for name, value in sent.items()
    }  # it does not percent-encode
    modes = [to_structured(FirstCloudEvent(sent, data)), to_binary(FirstCloudEvent(sent, data))]
    for headers, body in modes:
        read = from_http(headers, body)
        found, content, _ = ours(body, tuple(headers.items()))
        expected = as_texts(dict(read.get_attributes()) | {"time": parse_time(sent["time"])})
        if (
            "content-type" in headers
            and expected.get("datacontenttype") == "application/json"
            and found.keys() < expected.keys()
        ):
            del expected["datacontenttype"]
        assert found == expected
        assert content == read.data


# ---------------------------------------------------------------------- earlier versions

_EARLIER_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def earlier(data: bytes) -> bytes | None:
    """Return the hash that earlier versions gave a structured event, or None where they refused it."""
    try:
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        if {"specversion", "id", "source", "type", "time", "data"} - raw.keys():
            return None
        if any(
            name in {"recordedtime", "position", "corrects"} or not re.fullmatch(r"[a-z0-9]{1,40}", name)
            for name in raw
        ):
            return None
        event = msgspec.json.decode(msgspec.json.encode(raw))
        if event["specversion"] != "1.0" or not _EARLIER_TIME.fullmatch(event["time"]):
            return None
        msgspec.convert(event["time"].upper(), datetime).astimezone(UTC)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
        return None
    return hashlib.sha256(msgspec.json.Encoder(order="sorted").encode(event)).digest()[:16]


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
any_name = names | st.sampled_from(["subject", "sequence", "datacontenttype", "dataschema", "x" * 40, "traceparent"])


@given(
    st.dictionaries(any_name, anything, max_size=5),
    anything,
    texts,
    st.sampled_from(
        [
            "2026-01-05T10:00:00Z",
            "2026-01-05t10:00:00.5z",
            "2026-01-05T10:00:00+14:00",
            "0001-01-01T00:00:00Z",
        ]
    ),
)
def test_events_that_earlier_versions_accepted_keep_their_hash(
    extras: Document, data: object, identifier: str, time: str
) -> None:
    sent = json.dumps(EVENT | extras | {"data": data, "id": identifier, "time": time}).encode()
    before = earlier(sent)
    assert before is not None
    now = parse_event(sent)
    assert same_event(now.json, sent)
    if None not in extras.values():
        assert now.content == before == content_hash(sent)
