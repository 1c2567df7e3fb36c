"""The command behind a decision, as the decision's events say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from domain import commands
from domain.actions import action_fields
from domain.events import decisions, flags
from domain.serialization import decode, encode_sorted

if TYPE_CHECKING:
    from domain.decisions.decide import Command

_REPEATED = frozenset((commands.ActionRequest, commands.GrantRequest, commands.TransferRequest, commands.PolicyRequest))
"""The commands whose answering records have all of their fields, apart from ``time``."""
_BY_OPERATION: dict[str, type[Command]] = {
    "request": commands.EscalationAsk,
    "grant": commands.GrantRequest,
    "transfer": commands.TransferRequest,
    **dict.fromkeys(("settle", "void"), commands.HoldRequest),
    **dict.fromkeys(("approve", "deny", "withdraw", "forward"), commands.EscalationDecision),
}
_BY_FIELD: dict[str, type[Command]] = {
    "policy": commands.PolicyRequest,
    "flag_id": commands.FlagRequest,
    "recovered": commands.ReversalRequest,
}


def is_repeated(command: Command, canonical: bytes) -> bool:
    """Return whether the fields of the answering record will say the whole of a command, byte for byte."""
    return type(command) in _REPEATED and command.time is None and encode_sorted(command) == canonical


def command_text(answer: decisions.Record | flags.FlagEvent) -> bytes:
    """Return the canonical body of the request that a record answers.

    Raises:
        ValueError: the record must carry the body, and does not.

    """
    if text := bytes(answer.command):
        return text
    return encode_sorted(_repeated(answer))


def command_in(text: bytes) -> Command:
    """Return the command in a canonical body.

    Raises:
        domain.serialization.FieldError: it is none.

    """
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    if "operation" in fields:
        cls = _BY_OPERATION[msgspec.json.decode(fields["operation"], type=str)]
    else:
        cls = next((cls for name, cls in _BY_FIELD.items() if name in fields), commands.ActionRequest)
    return decode(cls, text)


def preview_of(record: decisions.AuthorityFellShort) -> commands.Preview:
    """Return the preview behind the record of one that fell short."""
    return commands.Preview(
        request_id=record.request_id or None,
        note_hash=record.note_hash,
        escalate=record.escalate,
        hold=record.hold,
        **action_fields(record, record.amount),
    )


def _repeated(answer: decisions.Record | flags.FlagEvent) -> Command:
    match answer:
        case decisions.ActionTaken() | decisions.ActionHeld() | decisions.AuthorityFellShort():
            hold = answer.hold if isinstance(answer, decisions.AuthorityFellShort) else answer.state == "held"
            return commands.ActionRequest(
                request_id=answer.request_id,
                note_hash=answer.note_hash,
                escalate=answer.escalate,
                hold=hold,
                **action_fields(answer, answer.amount),
            )
        case decisions.BudgetGranted():
            return commands.GrantRequest(
                request_id=answer.request_id,
                operation="grant",
                holder=answer.holder,
                amount=answer.amount,
                granted_by=answer.granted_by,
                reason=answer.reason,
            )
        case decisions.BudgetTransferred():
            return commands.TransferRequest(
                request_id=answer.request_id,
                operation="transfer",
                holder=answer.holder,
                to_holder=answer.other_holder,
                amount=answer.amount,
                granted_by=answer.granted_by,
                reason=answer.reason,
            )
        case decisions.PolicyPublished():
            return commands.PolicyRequest(
                request_id=answer.request_id, policy=answer.policy, published_by=answer.published_by
            )
    message = f"a {type(answer).__name__} does not say all of its request"
    raise ValueError(message)
