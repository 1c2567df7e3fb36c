"""A required text must not be blank, in facts and in requests alike."""

import pytest

from tests.support.builders import event, gbp
from tests.support.upstreams import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

BLANK = ("", " ", "\n\t", "\u00a0", "\u200b", "\u202e \ufeff")


@pytest.mark.parametrize("reason", BLANK)
async def test_a_blank_reason_of_a_request_is_refused(shared_upstream: Upstream, reason: str) -> None:
    upstream, name = shared_upstream, ascii(reason)
    await upstream.set_up_basics()
    taken = await upstream.action(f"r-1 {name}")
    answers = [
        await upstream.action(f"r-2 {name}", reason=reason),
        await upstream.action(f"r-3 {name}", reason=reason, note="why"),
        await upstream.ask(
            "reversal",
            request_id=f"v {name}",
            action_id=taken["action_id"],
            reversed_by="M-1",
            reason=reason,
            recovered=True,
        ),
        await upstream.ask(
            "budget",
            request_id=f"g {name}",
            operation="grant",
            holder="agent:A-1",
            amount=gbp("1.00"),
            granted_by="M-1",
            reason=reason,
        ),
    ]
    for answer in answers:
        assert answer["outcome"] == "error", answer
        assert (answer["error"]["code"], answer["error"]["field"]) == ("invalid", "reason")
    assert (await upstream.action(f"r-2 {name}"))["outcome"] == "taken"


@pytest.mark.parametrize("text", BLANK)
async def test_a_blank_text_of_a_fact_is_rejected(shared_upstream: Upstream, text: str) -> None:
    name = f"i-{text!a}"
    await shared_upstream.publish(event(name, "idea.submitted", idea_id="I-1", employee_id="A-1", text=text))
    answer = await shared_upstream.receipt(name)
    assert (answer["error"]["code"], answer["error"]["field"]) == ("invalid", "data.text")
