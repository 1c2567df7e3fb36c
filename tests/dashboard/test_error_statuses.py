"""The HTTP statuses of errors that come over NATS, and the texts that a command's body may hold."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dashboard.routes.commands import GrantBody
from dashboard.routes.upstreams import error_response
from tests.support.builders import gbp


@pytest.mark.parametrize("code", ["unavailable", "busy", "internal", "not_posted"])
def test_an_error_after_which_the_request_may_succeed_is_503_with_a_time_to_wait(code: str) -> None:
    """Clients go by the status (docs/integrate/errors.md): from 500 on they send the same again."""
    answer = error_response({"code": code, "message": "not yet"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


@pytest.mark.parametrize("code", ["invalid", "unknown_agent", "request_id_reused", "a_later_version_has_it"])
def test_an_error_of_the_request_is_422_without_a_time_to_wait(code: str) -> None:
    answer = error_response({"code": code, "message": "correct it"})
    assert (answer.status_code, answer.headers.get("Retry-After")) == (422, None)


def grant(reason: str) -> GrantBody:
    return GrantBody.model_validate(
        {"operation": "grant", "holder": "agent:A-1", "amount": gbp("5.00"), "reason": reason}
    )


@pytest.mark.parametrize("reason", ["late", "遅延", "опоздание", "تأخير", "देरी", "지연", "7", "ö", "ล่าช้า"])
def test_a_reason_may_be_written_in_any_script(reason: str) -> None:
    assert grant(reason).reason == reason


@pytest.mark.parametrize("reason", ["", " ", "\u200b", "\u3164", "\u115f", "...", "\u00ad\u2060"])
def test_a_reason_without_a_letter_or_digit_is_refused(reason: str) -> None:
    with pytest.raises(ValidationError):
        grant(reason)
