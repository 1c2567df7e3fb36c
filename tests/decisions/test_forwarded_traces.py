"""Traces of requests that one decider forwards to another: they go on there."""

import json

from app.runtime.session import Session
from consumers.decisions.service import _decide_subject
from tests.support.builders import gbp
from tests.support.organisations import STAFF
from tests.support.otlp_collector import kept_spans
from tests.support.upstreams import set_up_organisation, upstream_of

PARENT = "b7ad6b7169203331"


async def test_a_forwarded_request_stays_in_its_trace(session: Session) -> None:
    """With and without a note, and by each kind of subscription; the owner's span is below the forwarder's."""
    async with upstream_of(session) as upstream, upstream_of(session, "decisions"):
        await set_up_organisation(upstream)
        action = {"kind": "refund", "reason": "late"}
        taken = {agent: (await upstream.action(f"t-{agent}", agent_id=agent))["action_id"] for agent in STAFF}
        await upstream.wait_for_decider()
        back = {"reason": "returned", "reversed_by": "M-1", "recovered": False}
        requests = [
            (subject, fields)
            for agent in STAFF
            for subject, fields in (
                ("decide.crm.action", action | {"agent_id": agent}),
                ("decide.crm.action", action | {"agent_id": agent, "note": "keep it"}),
                ("decide.crm.reversal", back | {"action_id": taken[agent]}),
            )
        ]
        recorded: dict[str, str] = {}
        with kept_spans() as kept:
            for number, (subject, fields) in enumerate(requests, 1):
                body = {"request_id": f"r-{number}", "amount": gbp("1.00"), **fields}
                headers = {"traceparent": f"00-{number:032x}-{PARENT}-01"}
                reply = await session.client.request(
                    f"resolution.{subject}", json.dumps(body).encode(), timeout=10, headers=headers
                )
                answer = json.loads(reply.data)
                assert answer["outcome"] in ("taken", "done"), answer
                stored = await session.log.at(answer["position"])
                assert stored is not None
                recorded[f"{number:032x}"] = json.loads(stored.data)["traceparent"]
        ended: dict[str, list[tuple[str, str]]] = {}
        for span in kept.get_finished_spans():
            assert span.context is not None
            assert span.parent is not None
            ended.setdefault(f"{span.context.trace_id:032x}", []).append(
                (f"{span.parent.span_id:016x}", f"{span.context.span_id:016x}")
            )
        assert ended.keys() == recorded.keys()
        for trace, spans in ended.items():
            chain, parents = [PARENT], dict(spans)
            while chain[-1] in parents:
                chain.append(parents[chain[-1]])
            assert len(chain) == len(spans) + 1, spans
            assert recorded[trace] == f"00-{trace}-{chain[-1]}-01"
        lengths = [len(spans) for spans in ended.values()]
        assert {1, 2} <= set(lengths), lengths


def test_a_span_names_no_operation_that_a_sender_invents() -> None:
    assert _decide_subject("crm", "action") == "resolution.decide.crm.action"
    assert _decide_subject("crm", "jane-doe-0770900123" * 100) == "resolution.decide.crm.unknown"
