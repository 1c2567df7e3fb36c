"""The command behind a decision, as the decision's events say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from domain import commands
from domain.actions import command_fields
from domain.events import decisions
from domain.serialization import decode, encode_sorted

if TYPE_CHECKING:
    from domain.decisions.decide import Command
    from domain.events.causes import Caused

_REPEATED = frozenset(
    (
        *(commands.ActionRequest, commands.GrantRequest, commands.TransferRequest),
        *(commands.PolicyRequest, commands.PolicyProposal, commands.PolicyApproval, commands.PolicyObjection),
    )
)
"""The commands whose answering records have all of their fields, apart from ``time``."""
_BY_OPERATION: dict[str, type[Command]] = {
    "request": commands.EscalationAsk,
    "grant": commands.GrantRequest,
    "transfer": commands.TransferRequest,
    **dict.fromkeys(("settle", "void"), commands.HoldRequest),
    **dict.fromkeys(("approve", "deny", "withdraw", "forward"), commands.EscalationDecision),
}
_OF_PROPOSALS: dict[str, type[Command]] = {
    "propose": commands.PolicyProposal,
    "approve": commands.PolicyApproval,
    "object": commands.PolicyObjection,
}
_BY_FIELD: dict[str, type[Command]] = {
    "policy": commands.PolicyRequest,
    "flag_id": commands.FlagRequest,
    "recovered": commands.ReversalRequest,
}


def is_repeated(command: Command, canonical: bytes) -> bool:
    """Return whether the fields of the command's record will say all of it, byte for byte.

    Nothing depends on the bytes of a preview.
    """
    if command.time is not None:
        return False
    cls = type(command)
    return cls is commands.Preview or (cls in _REPEATED and encode_sorted(command) == canonical)


def command_of(answer: Caused) -> tuple[Command, bytes]:
    """Return the command that a record answers, and the canonical body of its request.

    Raises:
        ValueError: the record must carry the body, and does not, or carries another one.

    """
    text = bytes(answer.command)
    if not text:
        command = _repeated(answer)
        return command, encode_sorted(command)
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    if "operation" in fields:
        operation = msgspec.json.decode(fields["operation"], type=str)
        cls = (_OF_PROPOSALS if fields.keys() & {"sha256", "policy"} else _BY_OPERATION)[operation]
    else:
        cls = next((cls for name, cls in _BY_FIELD.items() if name in fields), commands.ActionRequest)
    command = decode(cls, text)
    if isinstance(command, commands.PolicyRequest | commands.PolicyProposal) and isinstance(
        answer, decisions.PolicyPublished | decisions.PolicyProposed
    ):
        if command.policy != answer.policy:
            raise ValueError("the policy is not the one that was asked for")
        command = msgspec.structs.replace(command, policy=answer.policy)  # in the order in which it was written
    return command, text


def preview_of(record: decisions.AuthorityFellShort) -> commands.Preview:
    """Return the preview behind the record of one that fell short."""
    if text := bytes(record.command):
        return decode(commands.Preview, text)
    return commands.Preview(
        request_id=record.request_id or None,
        note_hash=record.note_hash,
        escalate=record.escalate,
        hold=record.hold,
        **command_fields(record),
    )


def _repeated(answer: Caused) -> Command:
    match answer:
        case decisions.ActionTaken() | decisions.ActionHeld() | decisions.AuthorityFellShort():
            hold = answer.hold if isinstance(answer, decisions.AuthorityFellShort) else answer.state == "held"
            return commands.ActionRequest(
                request_id=answer.request_id,
                note_hash=answer.note_hash,
                escalate=answer.escalate,
                hold=hold,
                **command_fields(answer),
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
                request_id=answer.request_id,
                policy=answer.policy,
                published_by=answer.published_by,
                break_glass=answer.break_glass,
                reason=answer.reason,
            )
        case decisions.PolicyProposed() | decisions.PolicyApproved() | decisions.PolicyObjected():
            return _repeated_of_proposal(answer)
    message = f"a {type(answer).__name__} does not say all of its request"
    raise ValueError(message)


def _repeated_of_proposal(answer: decisions.ProposalEvent) -> Command:
    match answer:
        case decisions.PolicyProposed():
            return commands.PolicyProposal(
                request_id=answer.request_id,
                operation="propose",
                policy=answer.policy,
                replaces=answer.replaces,
                proposed_by=answer.proposed_by,
            )
        case decisions.PolicyApproved():
            return commands.PolicyApproval(
                request_id=answer.request_id, operation="approve", sha256=answer.sha256, approved_by=answer.approved_by
            )
        case decisions.PolicyObjected():
            return commands.PolicyObjection(
                request_id=answer.request_id,
                operation="object",
                sha256=answer.sha256,
                objected_by=answer.objected_by,
                reason=answer.reason,
            )
