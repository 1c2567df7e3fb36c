"""Names of spans of requests."""

from consumers.decisions.service import _decide_subject


def test_a_span_names_no_operation_that_a_sender_invents() -> None:
    assert _decide_subject("crm", "action") == "resolution.decide.crm.action"
    assert _decide_subject("crm", "jane-doe-0770900123" * 100) == "resolution.decide.crm.unknown"
