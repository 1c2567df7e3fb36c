"""Published schemas mean the same elsewhere: to Node's regular expressions, @asyncapi/parser and Ajv."""

import json
import re
import unicodedata
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, seed, settings

from consumers.asyncapi import asyncapi_document
from domain.ids import NOT_PATTERNS, fault_of
from tests.support.builders import event, gbp
from tests.support.id_examples import ANY_TEXT, CANONICAL_IDS, NO_IDS, NOT_CANONICAL_IDS
from tests.support.node_project import run_node
from tests.support.organisations import FULL_POLICY

pytestmark = pytest.mark.integration


async def test_node_has_the_same_verdict_on_ids() -> None:
    """By the patterns, with the flag `u` and without; and by the whole rule, which Node has from its own tables."""
    texts: dict[str, None] = dict.fromkeys([*CANONICAL_IDS, *NO_IDS, *NOT_CANONICAL_IDS, "jo@example.com\n", "a \n"])

    @seed(17)
    @settings(max_examples=2000, database=None)
    @given(ANY_TEXT)
    def draw(text: str) -> None:
        texts[text] = None

    draw()
    alone = chain(
        range(0x3300),
        range(0xFE00, 0x10000),
        range(0x1BC90, 0x1BCB0),
        range(0x1D160, 0x1D190),
        range(0xE0000, 0xE1010),
        range(0x3300, 0x110000, 101),
    )
    texts.update(dict.fromkeys(f"a{chr(code)}" for code in alone if unicodedata.category(chr(code)) != "Cn"))
    shown_as_emoji = chain(range(0x20, 0x3300), range(0x1F000, 0x20000))
    texts.update(dict.fromkeys(f"{chr(code)}\ufe0f" for code in shown_as_emoji))
    verdicts = await run_node("ids.mjs", {"patterns": NOT_PATTERNS, "texts": list(texts)})
    wrong = [
        (text, found, ours)
        for text, found in zip(texts, verdicts, strict=True)
        if found != (ours := [*2 * [any(re.search(one, text) for one in NOT_PATTERNS)], fault_of(text) is None])
    ]
    assert wrong == []


REQUEST = {"request_id": "r-1", "agent_id": "0042-17-000123", "kind": "refund", "amount": gbp("5.00"), "reason": "late"}
OPENED = "event.resolution.interaction.opened.v1"
GOOD: list[tuple[str, Any]] = [
    (
        OPENED,
        event("ev-1", "interaction.opened", interaction_id="I-1", customer_id="👩‍👩‍👧‍👦", channel="phone", own=[1]),
    ),
    (
        OPENED,
        event("ev-1", "interaction.opened", interaction_id="555-123-4567", line=9) | {"sequence": "17", "region": "eu"},
    ),
    (
        OPENED,
        {name: value for name, value in event("ev-1", "interaction.opened").items() if name not in {"time", "data"}}
        | {"data_base64": "e30="},
    ),
    (
        "event.resolution.purchase.completed.v1",
        event(
            "0123456789",
            "purchase.completed",
            order_id="01-234567",
            total={"amount": "1200", "currency": "JPY", "net": "1"},
        ),
    ),
    (
        "event.resolution.fact.corrected.v1",
        event("c-1", "fact.corrected", source_of="crm", id_of=" of old ", data=None, reason="typed twice"),
    ),
    ("ActionRequest", REQUEST | {"hold": True, "customer_id": "C 9", "time": "2026-11-21T10:00:00+02:00"}),
    ("PreviewRequest", {"agent_id": "A-7", "kind": "refund", "request_id": "p-1", "amount": None}),
    ("EscalationAsk", REQUEST | {"operation": "request", "note": "hm"}),
    (
        "GrantRequest",
        {
            "request_id": "r",
            "operation": "grant",
            "holder": "agent:A-1",
            "amount": gbp("5.00"),
            "granted_by": "M-1",
            "reason": "fair",
        },
    ),
    ("PolicyRequest", {"request_id": "p", "policy": FULL_POLICY, "published_by": "owner"}),
    ("ReceiptRequest", {"ids": ["ev-1", "ev 2 "]}),
]
BAD: list[tuple[str, Any]] = [
    (OPENED, event("ev-1", "interaction.opened", interaction_id="+44 7700 900123")),
    (OPENED, event("jo@example.com", "interaction.opened", interaction_id="I-1")),
    (OPENED, event("ev-1", "interaction.opened", interaction_id="I-1", line=10)),
    (OPENED, event("ev-1", "interaction.resolved", interaction_id="I-1")),
    (OPENED, event("ev-1", "interaction.opened", interaction_id="I-1", time="yesterday") | {"time": "yesterday"}),
    (OPENED, event("ev-1", "interaction.opened", interaction_id="I-1") | {"data_base64": "e30="}),
    (
        "event.resolution.purchase.completed.v1",
        event("p", "purchase.completed", order_id="o", total={"amount": 5, "currency": "GBP"}),
    ),
    ("ActionRequest", REQUEST | {"hodl": True}),
    ("ActionRequest", REQUEST | {"amount": gbp("5.00") | {"curency": "GBP"}}),
    ("ActionRequest", REQUEST | {"agent_id": "A-7 "}),
    ("ActionRequest", REQUEST | {"agent_id": "A\u200b7"}),
    ("ActionRequest", {name: value for name, value in REQUEST.items() if name != "reason"}),
    ("ActionRequest", REQUEST | {"amount": gbp("-5.00")}),
    ("ActionRequest", REQUEST | {"note_hash": "00"}),
    (
        "GrantRequest",
        {
            "request_id": "r",
            "operation": "grant",
            "holder": "A-1",
            "amount": gbp("5.00"),
            "granted_by": "M-1",
            "reason": "fair",
        },
    ),
]


async def test_the_asyncapi_document_is_one_and_its_schemas_judge_as_the_ledger_does() -> None:
    text = json.dumps(asyncapi_document())
    said = await run_node("schemas.mjs", {"text": text, "samples": GOOD + BAD})
    assert said["errors"] == []
    assert said["parsed"]
    assert said["schemas"] > 70
    for dialect in said["found"]:
        assert dialect["broken"] == {}
        assert dialect["verdicts"][: len(GOOD)] == [None] * len(GOOD)
        assert [
            name for (name, _), verdict in zip(BAD, dialect["verdicts"][len(GOOD) :], strict=True) if verdict is None
        ] == []
