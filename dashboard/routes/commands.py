"""Routes of commands: each is sent as a NATS request in the name of the token's bearer."""

from __future__ import annotations

import copy
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from fastapi import Body, Depends, HTTPException, Path, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from config import topology
from dashboard.list_query import LimitText, limit_of
from dashboard.nats_requests import OPERATOR, SOURCE, ask
from dashboard.openapi import answers
from dashboard.problem_details import ParameterError
from dashboard.schemas import JsonResponse, LimitChange, PolicyProposals, checked_by
from domain.documents.replies import BudgetAnswer, EscalationAnswer, FlagAnswer, PolicyAnswer, PreviewAnswer
from domain.events.decisions import LimitEvidence
from domain.events.facts import Basis, Kind  # noqa: TC001 - pydantic reads the annotations
from domain.ids import ID_SCHEMA, fault_of
from domain.money import Money, MoneyError
from domain.policy.history import PolicyHistory
from domain.policy.linting import difference
from domain.serialization import plain
from projections.policy_history import published_policies, read_proposals
from projections.reports.limit_simulation import LimitError, policy_with_limit, what_if_of_limit
from projections.views.casework import escalations, read_escalations, seen_by
from projections.views.flags import read_flags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.view_reader import ViewReader
    from domain.policy.model import Policy
    from domain.serialization import Json, JsonObject
    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log
    from projections.reading import AccessScope

_TRIAL_DAYS = 28
_TIME_TO_APPROVE = timedelta(days=7)
"""A limit that is proposed begins so long after the proposal."""
_STATUS = {"unavailable": 503, "internal": 503} | dict.fromkeys(
    ("invalid", "unknown_field", "duplicate_field", "id_not_canonical", "too_large"), 422
)


Id = Annotated[str, checked_by(fault_of), WithJsonSchema({"type": "string", **ID_SCHEMA})]
PathId = Annotated[str, Path(max_length=128)]
Words = Annotated[str, Field(max_length=10_000)]
NotBlank = Annotated[
    str,
    Field(
        max_length=10_000,
        pattern="[0-9A-Za-z\u00c0-\u02af\u0370-\u058f\u05d0-\u05ea\u0620-\u064a\u0900-\u115e\u1200-\u17b3\u1e00-\u1fff\u3040-\u3163\u3165-\ud7a3]",
    ),
]
"""A text with at least one letter or digit, in ranges since ECMA and Python share no class of all letters."""
HolderName = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": "^(agent|team):[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"})
]
"""A holder; ids may have more characters than this pattern shows."""


class CommandBody(BaseModel):
    """The body of a command; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Amount(CommandBody):
    """Money: an amount as text, and its currency (ISO 4217)."""

    amount: str = Field(pattern=r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,3})?$", examples=["5.00"])
    currency: str = Field(pattern="^[A-Z]{3}$", examples=["GBP"])


class PreviewBody(CommandBody, title="Preview"):
    """An action to try out; without an amount, the question for the amount that is available."""

    __qualname__ = "Preview"  # the schema's name in the OpenAPI document
    kind: Kind
    amount: Amount | None = None
    agent_id: Id | None = Field(None, description="The agent who would act. Default: the token's own.")
    customer_id: Id | None = None
    interaction_id: Id | None = None
    basis: Basis = "goodwill"
    reason: Words = ""
    request_id: Id | None = Field(None, description="Accepted so that the body of an action fits; it is not used up.")


class EscalationBody(CommandBody, title="Answer"):
    """The decision about a waiting escalation."""

    __qualname__ = "Answer"  # the schema's name in the OpenAPI document
    operation: Literal["approve", "deny", "forward"]
    amount: Amount | None = Field(None, description="An amount below the requested one.")
    reason: Words | None = None
    to: Id | None = Field(None, description="The employee to forward it to. Default: one level up.")
    request_id: Id | None = Field(None, description="Idempotency key: repeats get the first answer.")


class FlagReview(CommandBody, title="Review"):
    """A review of a flag; without a verdict, the start of a review, which reveals the names."""

    __qualname__ = "Review"  # the schema's name in the OpenAPI document
    verdict: Literal["confirmed", "coached", "dismissed"] | None = None
    note: Words | None = None
    request_id: Id | None = None


class FlagReply(CommandBody, title="FlagReply"):
    """An answer to a flag, in the words of an employee named by it."""

    text: NotBlank
    request_id: Id | None = None


TrialMode = Literal["shadow", "trial", "enforced"]


class LimitTrial(CommandBody, title="Try"):
    """Another limit: in shadow mode, as a trial for randomly chosen teams, or enforced for all."""

    __qualname__ = "Try"  # the schema's name in the OpenAPI document
    mode: TrialMode
    role: Words
    kind: Kind
    amount: Amount
    share_of_teams: float = Field(0.5, gt=0, lt=1)
    days: int = Field(_TRIAL_DAYS, ge=1, le=366, description="Length of a trial in days.")
    replaces: int | None = Field(
        None,
        ge=0,
        le=2**31,
        description="The newest enforced version that the caller saw; refused with another.",
    )
    request_id: Id | None = None


class ProposalBody(CommandBody, title="Proposal"):
    """A policy in the place of the newest enforced version."""

    __qualname__ = "Proposal"  # the schema's name in the OpenAPI document
    operation: Literal["propose"]
    policy: dict[str, Any]
    replaces: int = Field(ge=0, le=2**31, description="The newest enforced version.")
    request_id: Id | None = None


class Approval(CommandBody):
    """An approval of a proposal."""

    operation: Literal["approve"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="The SHA-256 of the proposed policy.")
    request_id: Id | None = None


class Objection(CommandBody):
    """An objection, which stops a proposal."""

    operation: Literal["object"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="The SHA-256 of the proposed policy.")
    reason: NotBlank
    request_id: Id | None = None


PolicyBody = LimitTrial | ProposalBody | Approval | Objection


class GrantBody(CommandBody, title="Grant"):
    """A grant for the present period."""

    __qualname__ = "Grant"  # the schema's name in the OpenAPI document
    operation: Literal["grant"]
    holder: HolderName = Field(description="`agent:<id>` or `team:<id>`")
    amount: Amount
    reason: NotBlank
    request_id: Id | None = None


class TransferBody(CommandBody, title="Transfer"):
    """A transfer from one holder to another."""

    __qualname__ = "Transfer"  # the schema's name in the OpenAPI document
    operation: Literal["transfer"]
    holder: HolderName = Field(description="`agent:<id>` or `team:<id>`: it loses the amount.")
    to_holder: HolderName
    amount: Amount
    reason: NotBlank
    request_id: Id | None = None


BudgetBody = Annotated[GrantBody | TransferBody, Body(discriminator="operation")]


class CommandClient:
    """Sends commands as NATS requests."""

    def __init__(self, client: LedgerClient, views: ViewReader) -> None:
        self._client, self.views = client, views

    async def ask(self, operation: str, request: Mapping[str, Json], viewer: Principal) -> Response:
        """Return the answer to a command of a principal.

        Raises:
            ParameterError: the answer is an error; the status depends on its code.
            UnavailableError: no decider answers.

        """
        body = {name: value for name, value in request.items() if value is not None}
        if operation != "preview":
            body["request_id"] = body.get("request_id") or str(uuid.uuid4())
        subject = f"{topology.OPERATE_SUBJECT}.{SOURCE}.{operation}"
        headers = OPERATOR if viewer.role == "operator" else None
        answer = await ask(self._client, subject, body, "decisions", headers)
        if (error := answer.get("error")) is not None:
            status = _STATUS.get(error["code"], 409)
            raise ParameterError(
                error.get("field") or error["code"], error["message"], code=error["code"], status=status
            )
        self.views.observe_end(answer.get("position") or 0)
        return JsonResponse(answer)


def add_command_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of commands; each refuses requests of other sites."""
    views, authorizer = context.views, context.authorizer
    commands = CommandClient(context.client, views)
    caller = Depends(authorizer.viewer)

    @api.post(
        "/api/v1/preview",
        responses=answers(PreviewAnswer),
        summary="Check whether an action would be allowed, without taking it",
        dependencies=[*authorizer.command_gates, Depends(authorizer.allowed("agent", "manager", "operator"))],
    )
    async def preview(command: PreviewBody, viewer: Principal = caller) -> Response:
        agent = viewer.person_id if viewer.role == "agent" else command.agent_id
        if agent is None:
            raise HTTPException(409, "agent_id: this token belongs to no employee: name the agent")
        scope = await authorizer.scope(viewer)
        if scope.people is not None and agent not in scope.people:
            raise HTTPException(403, f"the role {viewer.role} may ask only for people it sees")
        return await commands.ask("preview", command.model_dump(exclude_none=True) | {"agent_id": agent}, viewer)

    @api.post(
        "/api/v1/escalations/{escalation_id}",
        responses=answers(EscalationAnswer),
        summary="Approve, deny or forward an escalation",
        dependencies=[*authorizer.command_gates, Depends(authorizer.allowed("manager"))],
    )
    async def escalation(escalation_id: PathId, command: EscalationBody, viewer: Principal = caller) -> Response:
        scope = await authorizer.scope(viewer)
        seen = (escalations.c.escalation_id == escalation_id, *seen_by(escalations, scope, asked=viewer.person_id))
        found = (await views.read("casework", lambda c: read_escalations(c, *seen), short=True)).result
        if not found:
            raise HTTPException(404, "no escalation with this id is visible to this token")
        if all(one["reported_by"] is not None for one in found):
            raise HTTPException(409, f"the system {found[0]['reported_by']} handles this escalation: decide it there")
        body = command.model_dump(exclude_none=True)
        body |= {"escalation_id": escalation_id, "decided_by": viewer.person_id}
        return await commands.ask("escalation", body, viewer)

    @api.post(
        "/api/v1/budgets",
        responses=answers(BudgetAnswer),
        summary="Grant a holder more for the present period, or transfer to another holder",
        dependencies=[*authorizer.command_gates, Depends(authorizer.allowed("manager", "operator"))],
    )
    async def budget(command: BudgetBody, viewer: Principal = caller) -> Response:
        body = command.model_dump(exclude_none=True) | {"granted_by": _reviewer(viewer)}
        return await commands.ask("budget", body, viewer)

    _add_flags(api, context, commands)
    _add_policy(api, context, commands)


def _add_flags(api: FastAPI, context: ApiContext, commands: CommandClient) -> None:
    views, authorizer = context.views, context.authorizer
    caller = Depends(authorizer.viewer)

    @api.post(
        "/api/v1/flags/{flag_id}",
        responses=answers(FlagAnswer),
        summary="Start the review of a flag, or record its verdict",
        dependencies=[*authorizer.command_gates, Depends(authorizer.allowed("manager", "operator"))],
    )
    async def flag(flag_id: PathId, command: FlagReview, viewer: Principal = caller) -> Response:
        scope, now = await authorizer.scope(viewer), datetime.now(UTC)
        found = (await views.read("flags", lambda c: read_flags(c, now, flag_id=flag_id), short=True)).result
        if not found or not scope.sees_all(found[0]["about"]):
            raise HTTPException(404, "no flag with this id is visible to this token")
        reviewer_field = "unmasked_by" if command.verdict is None else "reviewed_by"
        body = command.model_dump(exclude_none=True) | {"flag_id": flag_id, reviewer_field: _reviewer(viewer)}
        return await commands.ask("flag", body, viewer)

    @api.post(
        "/api/v1/flags/{flag_id}/answers",
        responses=answers(FlagAnswer),
        summary="Answer a flag about oneself",
        dependencies=[*authorizer.command_gates, Depends(authorizer.allowed("agent", "manager"))],
    )
    async def flag_answer(flag_id: PathId, command: FlagReply, viewer: Principal = caller) -> Response:
        now = datetime.now(UTC)
        found = (await views.read("flags", lambda c: read_flags(c, now, flag_id=flag_id), short=True)).result
        if not found or f"agent:{viewer.person_id}" not in found[0]["about"]:
            raise HTTPException(404, "no flag with this id is about this person")
        body = command.model_dump(exclude_none=True) | {"flag_id": flag_id, "employee_id": viewer.person_id}
        return await commands.ask("flag", body, viewer)


def _add_policy(api: FastAPI, context: ApiContext, commands: CommandClient) -> None:
    log, authorizer = context.log, context.authorizer
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/policies",
        responses=answers(PolicyProposals),
        summary="The proposals of policies, the newest first",
        dependencies=[Depends(authorizer.allowed("manager", "auditor", "operator"))],
    )
    async def proposals() -> Response:
        found, position = await read_proposals(log)
        return JsonResponse({"items": [plain(one) for one in found], "position": position})

    @api.get(
        "/api/v1/policies/change",
        responses=answers(LimitChange),
        summary="The change of the policy that another limit would make, and whether it is published at once",
        dependencies=[Depends(authorizer.allowed("manager", "auditor", "operator"))],
    )
    async def change(mode: TrialMode, role: str, kind: Kind, amount: LimitText, viewer: Principal = caller) -> Response:
        tried = {"mode": mode, "role": role, "kind": kind, "amount": limit_of(amount).wire()}
        try:
            command = LimitTrial.model_validate(tried)
        except ValidationError as error:
            first = error.errors()[0]
            raise ParameterError(".".join(map(str, first["loc"])), first["msg"]) from None
        history = PolicyHistory.of(await published_policies(log))
        request = _trial_request(history, command, viewer)
        before, after = _in_force(history).document, cast("JsonObject", request["policy"])
        fields = [{"field": field, "before": old, "after": new} for field, old, new in difference(before, after)]
        proposed = {"proposed": "operation" in request, "replaces": history.newest_enforced}
        return JsonResponse({**proposed, "effective_from": after["effective_from"], "changes": fields})

    @api.post(
        "/api/v1/policies",
        responses=answers(PolicyAnswer),
        summary="Propose a policy, approve a proposal, object to it, or try another limit",
        dependencies=[*authorizer.command_gates, Depends(authorizer.allowed("manager", "operator"))],
    )
    async def policy(command: Annotated[PolicyBody, Body()], viewer: Principal = caller) -> Response:
        if isinstance(command, LimitTrial):
            request = _trial_request(PolicyHistory.of(await published_policies(log)), command, viewer)
            if command.mode == "enforced":
                scope = await authorizer.scope(viewer)
                async with context.replaying:
                    evidence = await _evidence(log, commands.views, command, scope, viewer)
                # Again: another version may have been published during the replay.
                request = _trial_request(PolicyHistory.of(await published_policies(log)), command, viewer)
                request["evidence"] = evidence
        else:
            field = {"propose": "proposed_by", "approve": "approved_by", "object": "objected_by"}[command.operation]
            request = command.model_dump(exclude_none=True) | {field: _reviewer(viewer)}
        return await commands.ask("policy", request, viewer)


def _in_force(history: PolicyHistory) -> Policy:
    """Return the policy in force now.

    Raises:
        HTTPException: 409, none is.

    """
    rules = history.in_force(datetime.now(UTC))
    if rules is None:
        raise HTTPException(409, "role: no policy is in force")
    return rules.policy


def _version_in_force(history: PolicyHistory) -> int | None:
    rules = history.in_force(datetime.now(UTC))
    return None if rules is None else rules.version


def _trial_request(history: PolicyHistory, command: LimitTrial, viewer: Principal) -> JsonObject:
    """Return the request that tries another limit: a proposal where policies are governed, else a publication.

    Raises:
        HTTPException: 403, the caller may not publish it; 409, no policy is in force.
        ParameterError: the limit does not fit the policy, or another version was published since the caller looked.

    """
    in_force, now = _in_force(history), datetime.now(UTC)
    changes = in_force.governance.policies if in_force.governance is not None else None
    if changes is None and command.mode != "shadow" and viewer.role != "operator":
        named = "trial" if command.mode == "trial" else "new limit"
        message = f"a {named} changes what agents may give: without governance of policies, only an operator starts one"
        raise HTTPException(403, message)
    if command.replaces is not None and _version_in_force(history) != history.newest_enforced:
        message = f"version {history.newest_enforced} of the policy is published and begins later: change that one"
        raise ParameterError("replaces", message, status=409)
    if command.replaces not in (None, history.newest_enforced):
        message = f"version {history.newest_enforced} of the policy was published since: look at the change again"
        raise ParameterError("replaces", message, status=409)
    begins = now if changes is None else now + (changes.after or timedelta()) + _TIME_TO_APPROVE
    document = _with_limit(in_force, command, begins)
    # The log decides whether it is still the newest: another dashboard may publish one at the same time.
    request: JsonObject = {"policy": document, "request_id": command.request_id, "replaces": history.newest_enforced}
    if changes is None:
        return request | {"published_by": _reviewer(viewer)}
    return request | {"operation": "propose", "proposed_by": _reviewer(viewer)}


async def _evidence(
    log: Log, views: ViewReader, command: LimitTrial, scope: AccessScope, viewer: Principal
) -> JsonObject:
    """Return the effect of a limit in a replay of history, for the people that its proposer sees."""
    limit = Money.parse(command.amount.amount, command.amount.currency)
    published = await published_policies(log)
    found = await what_if_of_limit(views.read, published, command.role, command.kind, limit, scope)
    evidence = {name: value for name, value in found.items() if name in LimitEvidence.__struct_fields__}
    return evidence if scope.people is None else evidence | {"people_of": viewer.person_id}


def _reviewer(viewer: Principal) -> str:
    return viewer.person_id or viewer.name


def _with_limit(in_force: Policy, command: LimitTrial, now: datetime) -> JsonObject:
    """Return the policy in force with another limit.

    Raises:
        ParameterError: the policy in force cannot have this limit.

    """
    try:
        limit = Money.parse(command.amount.amount, command.amount.currency)
        changed = policy_with_limit(in_force, command.role, command.kind, limit)
    except MoneyError as error:
        raise ParameterError("amount", str(error)) from None
    except LimitError as error:
        raise ParameterError(error.field, str(error), status=409) from None
    if command.mode == "shadow":
        changed["mode"] = "shadow"
        changed.pop("trial", None)
    document = copy.deepcopy(in_force.document) if command.mode == "trial" else changed
    document["effective_from"] = now.isoformat()
    if command.mode == "trial":
        document["trial"] = {
            "limit": {"role": command.role, "kind": command.kind, "amount": command.amount.amount},
            "share_of_teams": command.share_of_teams,
            "seed": now.microsecond,
            "until": (now + timedelta(days=command.days)).isoformat(),
        }
    return document
