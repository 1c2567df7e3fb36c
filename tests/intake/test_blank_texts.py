"""A required text must not be blank, in facts and in requests alike."""

import pytest

from tests.support.builders import event, gbp
from tests.support.upstreams import Upstream

BLANK = ("", " ", "\n\t", "\u00a0", "\u200b", "\u202e \ufeff")


@pytest.mark.parametrize("reason", BLANK)
async def test_a_blank_reason_of_a_request_is_refused(upstream: Upstream, reason: str) -> None:
    await upstream.set_up_basics()
    taken = await upstream.action("r-1")
    answers = [
        await upstream.action("r-2", reason=reason),
        await upstream.action("r-3", reason=reason, note="why"),
        await upstream.ask(
            "reversal", request_id="v", action_id=taken["action_id"], reversed_by="M-1", reason=reason, recovered=True
        ),
        await upstream.ask(
            "budget",
            request_id="g",
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
    assert (await upstream.action("r-2"))["outcome"] == "taken"


@pytest.mark.parametrize("text", BLANK)
async def test_a_blank_text_of_a_fact_is_rejected(upstream: Upstream, text: str) -> None:
    await upstream.publish(event("i-1", "idea.submitted", idea_id="I-1", employee_id="A-1", text=text))
    answer = await upstream.receipt("i-1")
    assert (answer["error"]["code"], answer["error"]["field"]) == ("invalid", "data.text")
