"""The form of requests: an unknown or repeated field spends nothing and uses up no request id."""

import asyncio
import copy
import json
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from app.runtime.session import Session
from consumers.decisions import service
from consumers.decisions.pending_request import COMMANDS
from consumers.runtime import request_form
from consumers.runtime.request_form import read_form
from domain.command_fields import known_fields
from domain.commands import BriefRequest, ReceiptRequest, RequestError, action_id_of
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of

ACTION = {"request_id": "r-1", "agent_id": "A-1", "kind": "refund", "amount": gbp("5.00"), "reason": "late"}
OPERATIONS: dict[str, Document] = {
    "action": ACTION,
    "preview": ACTION,
    "hold": {"request_id": "r-1", "action_id": "act-1", "operation": "void"},
    "reversal": {"request_id": "r-1", "action_id": "act-1", "reversed_by": "M-1", "reason": "x", "recovered": True},
    "escalation": ACTION | {"operation": "request"},
    "escalation approve": {"request_id": "r-1", "operation": "approve", "escalation_id": "e", "decided_by": "M-1"},
    "budget": {
        "request_id": "r-1",
        "operation": "grant",
        "holder": "agent:A-1",
        "amount": gbp("5.00"),
        "granted_by": "M-1",
        "reason": "x",
    },
    "budget transfer": {
        "request_id": "r-1",
        "operation": "transfer",
        "holder": "agent:A-1",
        "to_holder": "agent:A-2",
        "amount": gbp("5.00"),
        "granted_by": "M-1",
        "reason": "x",
    },
    "policy": {"request_id": "r-1", "policy": FULL_POLICY, "published_by": "owner"},
    "flag": {"request_id": "r-1", "flag_id": "f-1", "verdict": "coached", "reviewed_by": "M-1"},
}
"""A well-formed request of each operation."""


def classes() -> list[type[msgspec.Struct]]:
    """Return every class of requests."""
    found: list[type[msgspec.Struct]] = [BriefRequest, ReceiptRequest]
    for wanted in COMMANDS.values():
        found += [wanted] if isinstance(wanted, type) else wanted.values()
    return list(dict.fromkeys(found))


async def asked(upstream: Upstream, subject: str, body: bytes) -> Document:
    """Return the answer to a request of these bytes."""
    answer: Document = json.loads((await upstream.client.request(subject, body, timeout=20)).data)
    return answer


def refusal_of(wanted: Any, body: bytes) -> RequestError:
    """Return the error with which a request is refused."""
    try:
        refusal = read_form(wanted, body).refusal
    except RequestError as error:
        return error
    assert refusal is not None, body
    return refusal


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_a_misspelt_field_is_refused_with_the_right_spelling(cls: type[msgspec.Struct]) -> None:
    for name in known_fields(cls):
        for misspelt in (name + "s", name[:-1], name.upper(), name.replace("_", "-") + "-"):
            if misspelt in known_fields(cls):
                continue
            error = refusal_of(cls, json.dumps({misspelt: "x"}).encode())
            assert (error.code, error.field) == ("unknown_field", misspelt)
            assert f"`{name}`" in error.message or len(name) < 4, error.message


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_operation_refuses_an_unknown_field_and_records_nothing(
    name: str, shared_upstream: Upstream
) -> None:
    upstream = shared_upstream
    await set_up_organisation(upstream)
    operation, body = name.partition(" ")[0], OPERATIONS[name]
    before = await upstream.session.log.last_position()
    wrong = [
        (body | {"hodl": True}, "hodl"),
        (body | {"note_hash": "00"}, "note_hash"),
        (body | {"note": "x", "hodl": True}, "hodl"),
    ]
    if "amount" in body:
        wrong.append((body | {"amount": body["amount"] | {"curency": "GBP"}}, "amount.curency"))
    for request, field in wrong:
        error = (await upstream.ask(operation, **request))["error"]
        assert error["code"] == "unknown_field", error
        assert error["field"] in {field, "note"}, error
    assert await upstream.session.log.last_position() == before


async def test_a_misspelt_field_spends_nothing_and_uses_up_no_request_id(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    for wrong, near in (
        ({"hodl": True}, "hold"),
        ({"interaction": "I-1"}, "interaction_id"),
        ({"esclate": True}, "escalate"),
    ):
        answer = await upstream.action("r-1", "5.00", **wrong)
        assert (answer["outcome"], answer["error"]["code"]) == ("error", "unknown_field"), answer
        assert f"`{near}`" in answer["error"]["message"]
    assert (await upstream.action("r-1", "5.00", hold=True))["outcome"] == "held"
    receipt = await asked(upstream, "resolution.read.crm.receipt", b'{"id":"x","sorce":"y"}')
    assert (receipt["error"]["code"], receipt["error"]["field"]) == ("unknown_field", "sorce")


MONEY = '"amount":{"amount":"1.00","currency":"GBP"}'
TWICE = {
    MONEY + ',"amount":{"amount":"9.00","currency":"GBP"}': "amount",
    '"amount":{"amount":"1.00","currency":"GBP","amount":"9.00"}': "amount.amount",
    r'"amount":{"\u0061mount":"1.00","currency":"GBP","amount":"9.00"}': "amount.amount",
    r'"order_id":"\u003a","amount" : {"amount":"1.00","currency":"GBP","amount" :"9.00"}': "amount.amount",
    MONEY + ',"order_id":"x:y","order_id":"z","note":"n"': "order_id",
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("number", "text", "field"), [(n, *one) for n, one in enumerate(TWICE.items())])
async def test_a_request_with_a_repeated_field_is_refused(
    number: int, text: str, field: str, shared_upstream: Upstream
) -> None:
    upstream = shared_upstream
    await set_up_organisation(upstream)
    body = f'{{"request_id":"twice-{number}","agent_id":"A-1","kind":"refund","reason":"x",{text}}}'.encode()
    before = await upstream.session.log.last_position()
    for operation in ("action", "preview"):
        answer = await asked(upstream, f"resolution.decide.crm.{operation}", body)
        assert (answer["error"]["code"], answer["error"]["field"]) == ("duplicate_field", field)
    assert await upstream.session.log.last_position() == before
    assert (await upstream.action(f"twice-{number}", "1.00"))["outcome"] == "taken"


def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept requests like versions before these checks."""
    for check in ("check_fields", "_repeated", "check_ids", "check_currencies"):
        monkeypatch.setattr(request_form, check, lambda *_parts, **_at: None)
    monkeypatch.setattr(service, "lost_by_encryption", lambda _body: None)


async def test_requests_that_earlier_versions_accepted_keep_their_first_answers(session: Session) -> None:
    """The first answers are given after an upgrade and after a loss of the index; a new request of that form is refused."""
    plain = {key: value for key, value in ACTION.items() if key != "request_id"}
    bodies = {
        "unknown": json.dumps(plain | {"request_id": "unknown", "hodl": True}),
        "noted": json.dumps(plain | {"request_id": "noted", "hodl": True, "note": "hm", "note_hash": "00"}),
        "twice": json.dumps(plain | {"request_id": "twice"})[:-1] + ',"reason":"later"}',
        "spaced": json.dumps(plain | {"request_id": "spaced", "customer_id": " C-9"}),
        "money": json.dumps(plain | {"request_id": "money", "amount": gbp("5.00") | {"net": "4.00"}}),
    }

    async def answers(upstream: Upstream, **others: str) -> Document:
        found: Document = {}
        for name, body in (bodies | others).items():
            found[name] = await asked(upstream, "resolution.decide.crm.action", body.encode())
        return found

    with pytest.MonkeyPatch.context() as monkeypatch:
        as_before(monkeypatch)
        async with upstream_of(session) as upstream:
            await set_up_organisation(upstream)
            first = await answers(upstream)
            assert {one["outcome"] for one in first.values()} == {"taken"}, first
    async with upstream_of(session) as upstream:
        assert await answers(upstream) == first
        other = bodies["unknown"].replace("5.00", "6.00")
        assert (await answers(upstream, other=other))["other"]["error"]["code"] == "request_id_reused"
        new = bodies["unknown"].replace("unknown", "new", 1)
        assert (await answers(upstream, new=new))["new"]["error"]["code"] == "unknown_field"
    for path in (session.data_dir / "index").iterdir():
        path.unlink()
    end = await session.log.last_position()
    async with upstream_of(session) as upstream:
        assert await answers(upstream) == first
    assert await session.log.last_position() == end


async def test_a_retry_much_later_gets_its_first_answer(session: Session) -> None:
    asked = ACTION | {"request_id": "old", "time": "2026-01-05T10:00:00Z"}
    async with upstream_of(session, history=True) as upstream:
        await set_up_organisation(upstream)
        first = await upstream.ask("action", **asked)
        assert first["outcome"] == "taken"
    async with upstream_of(session) as upstream:
        assert await upstream.ask("action", **asked) == first
        assert (await upstream.ask("action", **asked | {"request_id": "new"}))["error"]["code"] == "clock"


async def test_refused_requests_do_not_use_up_their_request_id(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    asked: list[Coroutine[None, None, Document]] = [upstream.action("same", "5.00", hodl=True) for _ in range(50)]
    asked.insert(25, upstream.action("same", "5.00"))
    answers = await asyncio.gather(*asked)
    right = [one for one in answers if one["outcome"] == "taken"]
    assert [one["action_id"] for one in right] == [action_id_of("crm", "same")]
    assert {one["error"]["code"] for one in answers if one not in right} <= {"unknown_field", "request_id_reused"}


async def test_non_canonical_ids_are_refused_in_requests_and_facts(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    for fields, field in (
        ({"agent_id": "A-1\u200b"}, "agent_id"),
        ({"customer_id": "C-9 "}, "customer_id"),
        ({"request_id": "e\u0301"}, "request_id"),
    ):
        error = (await upstream.ask("action", **ACTION | fields))["error"]
        assert (error["code"], error["field"]) == ("id_not_canonical", field)
    for holder, code in (
        ("agent:A-1\u00ad", "id_not_canonical"),
        ("agent: A-1", "id_not_canonical"),
        ("team:+447700900123", "invalid"),
        ("agent:", "invalid"),
    ):
        error = (await upstream.ask("budget", **OPERATIONS["budget"] | {"holder": holder}))["error"]
        assert (error["code"], error["field"]) == (code, "holder")
    for identifier, data, field in (
        ("f-1", {"interaction_id": "I-1", "customer_id": "C-9\ufe0f"}, "data.customer_id"),
        ("f-2 ", {"interaction_id": "I-1"}, "id"),
        ("f-3", {"interaction_id": " "}, "data.interaction_id"),
    ):
        await upstream.publish(event(identifier, "interaction.opened", **data))
        receipt = await upstream.receipt(identifier)
        code = "invalid" if data["interaction_id"] == " " else "id_not_canonical"
        assert (receipt["status"], receipt["error"]["code"], receipt["error"]["field"]) == ("rejected", code, field)
    for number, text in enumerate(("0042-17-000123", "007-42", "01-234567", "0123456789", "555-123-4567", "👩‍👩‍👧‍👦")):
        await upstream.record(event(text, "purchase.completed", order_id=text, customer_id=text, total=gbp("1.00")))
        assert (await upstream.action(f"t-{number}", "1.00", customer_id=text, order_id=text))["outcome"] == "taken"


async def test_a_recorded_fact_with_a_non_canonical_id_can_be_corrected(session: Session) -> None:
    old = event("ev-1 ", "interaction.opened", interaction_id=" I-1", customer_id="C-9\u200b", channel="phone")
    async with upstream_of(session) as upstream:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr("consumers.intake.validation._flaw", lambda _event, _fact: None)
            position = await upstream.record(old)
        assert await upstream.record(old) == position
        right = {
            "source_of": "crm",
            "id_of": "ev-1 ",
            "reason": "typed wrong",
            "data": old["data"] | {"channel": "chat"},
        }
        await upstream.record(event("c-1", "fact.corrected", **right))
        other = right | {"data": old["data"] | {"customer_id": "C-9\u200b\u200b"}}
        await upstream.publish(event("c-2", "fact.corrected", **other))
        error = (await upstream.receipt("c-2"))["error"]
        assert (error["code"], error["field"]) == ("id_not_canonical", "data.data.customer_id")
        assert await session.rejected.last_position() == 1  # the correction; the fact sent again was a duplicate


@pytest.mark.parametrize(
    ("path", "misspelt", "near"),
    [
        (("currency",), "curency", "currency"),
        (("roles", "agent", "budget"), "budgt", "budget"),
        (("roles", "agent", "per_customer", "hard_above"), "hard-above", "hard_above"),
        (("escalation", "payer"), "payers", "payer"),
        (("teams", "doorstep", "pool"), "pol", "pool"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_misspelt_field_of_a_policy_is_refused_with_the_right_spelling(
    path: tuple[str, ...], misspelt: str, near: str, shared_upstream: Upstream
) -> None:
    name_of_request = f"p-{misspelt}"
    document = copy.deepcopy(FULL_POLICY)
    *above, name = path
    within = document
    for part in above:
        within = within[part]
    within[misspelt] = within.pop(name)
    answer = await shared_upstream.ask("policy", request_id=name_of_request, policy=document, published_by="owner")
    assert (answer["error"]["code"], answer["error"]["field"]) == (
        "unknown_field",
        ".".join(("policy", *above, misspelt)),
    )
    assert f"`{near}`" in answer["error"]["message"]
    assert (await shared_upstream.ask("policy", request_id=name_of_request, policy=FULL_POLICY, published_by="owner"))[
        "outcome"
    ] == "done"
