"""A key that stands twice in one object is found, wherever it stands and however it is written."""

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.runtime.session import Session
from ledger.errors import EventError
from ledger.store.cloudevents import parse_event
from ledger.store.json_text import has_long_number, parse, repeated_key
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.upstreams import Upstream

KEYS = st.sampled_from(["a", "b", ":", "a:b", 'q"', "\\", "é", "u003a", "\n", ""])


def written(text: str, escaped: bool, spaced: bool) -> str:
    """Write a text as JSON with its first characters and colons escaped, and white space behind it."""
    plain = json.dumps(text, ensure_ascii=False)
    body = "".join(f"\\u{ord(c):04x}" for c in text) if escaped else plain[1:-1]
    return f'"{body}"' + (" \t" if spaced else "")


TEXTS = st.builds(written, KEYS, st.booleans(), st.booleans())
VALUES = st.recursive(
    st.sampled_from(["1", "null", "true", "-0.5e3", "[]", "{}"]) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(TEXTS, inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=12,
)
"""JSON texts; about every second object with several keys has one twice."""


@settings(max_examples=10 * settings().max_examples)
@given(VALUES)
def test_a_repeated_key_is_found_where_another_reader_finds_it(text: str) -> None:
    twice: list[bool] = []

    def hook(pairs: list[tuple[str, Any]]) -> Document:
        twice.append(len({key for key, _ in pairs}) < len(pairs))
        return dict(pairs)

    json.loads(text, object_pairs_hook=hook)
    assert (repeated_key(text.encode(), parse(text.encode()).canonical) is not None) == any(twice)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"a":1,"a":2}', "a"),
        ('{"a":[{"b":1},{"b":1,"b":2}]}', "a.1.b"),
        ('{"a":{"b:c":1,"b\\u003ac":2}}', "a.b:c"),
        ('{"a":' * 1500 + '{"x":1,"x":2}' + "}" * 1500, ""),
    ],
)
def test_the_path_of_a_repeated_key_is_reported(text: str, path: str) -> None:
    assert repeated_key(text.encode(), parse(text.encode()).canonical) == path


def flaw_of(text: str, headers: tuple[tuple[str, str], ...] = ()) -> EventError | None:
    return parse_event(text.encode(), headers).flaw


def test_a_repeated_key_is_found_in_every_mode_of_an_event() -> None:
    fact = json.dumps(event("ev-1", "interaction.opened", interaction_id="I-1"))
    data = '{"interaction_id":"I-1","interaction_id":"I-2"}'
    headers = tuple((f"ce-{name}", value) for name, value in json.loads(fact).items() if name != "data")
    encoded = base64.b64encode(data.encode()).decode()
    for text, sent, field in (
        (fact[:-1] + ',"id":"ev-2"}', (), "id"),
        (fact.replace('{"interaction_id": "I-1"}', data), (), "data.interaction_id"),
        (fact.replace('"data": {"interaction_id": "I-1"}', f'"data_base64":"{encoded}"'), (), "data.interaction_id"),
        (
            fact.replace('"data": {"interaction_id": "I-1"}', f'"data\\u005fbase64":"{encoded}"'),
            (),
            "data.interaction_id",
        ),
        (fact[:-1] + ',"note\\u003a":"a","note\\u003a":"b"}', (), None),
        (data, headers, "data.interaction_id"),
    ):
        if field is None:
            with pytest.raises(EventError):
                flaw_of(text, sent)
            continue
        flaw = flaw_of(text, sent)
        assert flaw is not None
        assert (flaw.code, flaw.field) == ("duplicate_field", field)
    assert flaw_of(fact) is None
    assert flaw_of(fact.replace("Z", "+00:00")[:-1] + ',"subject":null}') is None
    assert flaw_of('{"interaction_id":"a:b"}', headers) is None


async def test_a_recorded_fact_with_a_repeated_key_stays_a_duplicate(session: Session, upstream: Upstream) -> None:
    twice = json.dumps(event("ev-1", "interaction.opened", interaction_id="I-1", channel="phone"))
    twice = twice.replace('"channel"', '"channel": "chat", "channel"')
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("ledger.store.cloudevents.repeated_key", lambda _text, _encoded: None)
        await upstream.publish(twice.encode())
        first = await upstream.receipt("ev-1")
        assert first["status"] == "recorded"
    await upstream.publish(twice.encode())
    await upstream.publish(twice.replace("ev-1", "ev-2").encode())
    receipt = await upstream.receipt("ev-2")
    assert (receipt["status"], receipt["error"]["code"], receipt["error"]["field"]) == (
        "rejected",
        "duplicate_field",
        "data.channel",
    )
    assert await upstream.receipt("ev-1") == first
    assert await session.rejected.last_position() == 1


NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(NUMBERS)
@settings(max_examples=20 * settings().max_examples)
def test_a_number_that_a_float_rounds_is_found(text: str) -> None:
    """Python's decimals tell whether a float of 64 bits, written again, has another value."""
    if Decimal(repr(float(text))) != Decimal(text):
        assert has_long_number(f'{{"a":{text}}}'.encode())


def test_amounts_times_and_short_numbers_are_not_taken_for_long_ones() -> None:
    assert not has_long_number(b'{"time":"2026-01-05T10:00:00Z","amount":"12.34","n":123456789012345,"x":-0.5}')
