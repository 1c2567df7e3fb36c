"""`decide` and `policy`: requests of decisions from options, and checks of policy files."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import nats.errors

from app.cli.main import CommandFinding, cli, command
from app.output import console, fail, print_json, print_list, print_table
from app.policy_file import check_policy_file, shipped_policies
from app.runtime.access_records import note_access
from app.runtime.roles import ensure_roles
from app.runtime.session import Session
from config import topology
from domain.events.facts import Basis, Kind
from domain.money import money_text
from domain.policy.history import PolicyHistory
from domain.policy.linting import difference
from domain.serialization import encode
from domain.sources import request_source_fault
from ledger.errors import UnavailableError, reason_of
from ledger.store.subject_tokens import token_of_source
from projections.policy_history import in_force_now, published_policies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.output import OutputFormat
    from config.settings import Settings
    from domain.money import Money
    from domain.policy.model import Policy, Role
    from domain.serialization import Json, JsonObject

_KINDS = click.Choice(Kind.__args__)  # type: ignore[attr-defined]
_BASES = click.Choice(Basis.__args__)  # type: ignore[attr-defined]
_CURRENCY = click.option("--currency", metavar="CODE", help="ISO 4217. [default: the policy's]")
_source_option = click.option("--source", default="cli", show_default=True, help="The source of the request.")


def _request_options[F: Callable[..., object]](function: F) -> F:
    for option in (
        click.option("--time", help="Event time (RFC 3339), used in history mode."),
        click.option("--request-id", help="Idempotency key: repeats get the first answer. [default: a new one]"),
        _source_option,
    ):
        function = option(function)
    return function


@cli.group()
def decide() -> None:
    """Request decisions, as a source does."""


@cli.group()
def policy() -> None:
    """Check policies before they are published."""


def _action_options[F: Callable[..., object]](function: F, *, required: bool = True) -> F:
    function = _request_options(function)
    for option in (
        click.option("--escalate", is_flag=True, default=None, help="Escalate if it exceeds the agent's authority."),
        click.option("--hold", is_flag=True, default=None, help="Reserve the amount now, settle later."),
        click.option("--team", "--team-id", "team_id"),
        click.option("--guideline"),
        click.option("--note"),
        click.option("--order", "--order-id", "order_id"),
        click.option("--basis", type=_BASES),
        click.option("--reason"),
        _CURRENCY,
        click.option("--amount", help='Cost for the company, e.g. "5.00".'),
        click.option("--kind", type=_KINDS, required=required),
        click.option("--interaction", "--interaction-id", "interaction_id"),
        click.option("--customer", "--customer-id", "customer_id"),
        click.option("--agent", "--agent-id", "agent_id", required=required),
    ):
        function = option(function)
    return function


@_action_options
@command(decide)
async def action(settings: Settings, source: str, *, as_json: bool, **fields: Json) -> None:
    """Take an action for a customer, if the agent's authority allows it."""
    await send(settings, "action", source, fields, as_json=as_json)


@_action_options
@command(decide)
async def preview(settings: Settings, source: str, *, as_json: bool, **fields: Json) -> None:
    """Check an action without taking it; without an amount, show the amount that is available to the agent."""
    await send(settings, "preview", source, fields, as_json=as_json)


@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--propose", is_flag=True, help="Propose FILE in the place of the newest version.")
@click.option(
    "--replaces",
    type=int,
    help="The newest enforced version, which it replaces; another one is refused. [default for a proposal: look it up]",
)
@click.option("--approve", metavar="SHA256", help="Approve a proposal; it counts only from a signed-in person.")
@click.option("--object", "objected", metavar="SHA256", help="Stop a proposal; with --reason.")
@click.option("--reason", help="The reason of an objection.")
@click.option(
    *("--published-by", "--proposed-by", "--approved-by", "--objected-by", "by"),
    required=True,
    help="The employee responsible for it.",
)
@click.option("--request-id")
@click.option("--time", help="Event time (RFC 3339), used in history mode.")
@_source_option
@command(decide, "policy")
async def decide_policy(
    settings: Settings,
    file: Path | None,
    source: str,
    propose: bool,
    replaces: int | None,
    approve: str | None,
    objected: str | None,
    reason: str | None,
    by: str,
    *,
    as_json: bool,
    **fields: Json,
) -> None:
    """Publish the policy in FILE, propose it, approve a proposal, or object to one."""
    if sum((file is not None, approve is not None, objected is not None)) != 1 or (propose and file is None):
        raise click.UsageError(
            "name a FILE to publish or --propose, or the SHA256 of a proposal to --approve or --object"
        )
    if approve is not None:
        fields |= {"operation": "approve", "sha256": approve, "approved_by": by}
    elif objected is not None:
        if not reason:
            raise click.UsageError("--object needs --reason")
        fields |= {"operation": "object", "sha256": objected, "objected_by": by, "reason": reason}
    else:
        assert file is not None
        fields |= {"policy": valid_policy(file, as_json=as_json).document}
        if propose:
            newest = await _newest_enforced(settings) if replaces is None else replaces
            fields |= {"operation": "propose", "proposed_by": by, "replaces": newest}
        else:
            fields |= {"published_by": by} | ({} if replaces is None else {"replaces": replaces})
    await send(settings, "policy", source, fields, as_json=as_json)


async def _newest_enforced(settings: Settings) -> int:
    async with Session(settings) as session:
        return PolicyHistory.of(await published_policies(session.log)).newest_enforced


@click.option("--holder", required=True, help="agent:<id> or team:<id>")
@click.option("--to-holder", help="The holder that receives a transfer.")
@click.option(
    "--operation", type=click.Choice(["grant", "transfer"]), help="[default: grant; with --to-holder, transfer]"
)
@click.option("--amount", required=True, help='For example "50.00".')
@_CURRENCY
@click.option("--granted-by", required=True)
@click.option("--reason", required=True)
@_request_options
@command(decide)
async def budget(settings: Settings, source: str, *, as_json: bool, **fields: Json) -> None:
    """Grant a holder more for the present period, or transfer its remaining amount to another holder."""
    fields["operation"] = fields["operation"] or ("transfer" if fields["to_holder"] else "grant")
    await send(settings, "budget", source, fields, as_json=as_json)


@click.option("--action-id", "--action", "action_id", required=True)
@click.option("--operation", type=click.Choice(["settle", "void"]), required=True)
@click.option("--amount", help="The amount spent. [default: the whole reserved amount]")
@_CURRENCY
@click.option("--reason")
@_request_options
@command(decide)
async def hold(settings: Settings, source: str, *, as_json: bool, **fields: Json) -> None:
    """Settle or void the amount that an action reserved."""
    await send(settings, "hold", source, fields, as_json=as_json)


@click.option("--flag-id", "--flag", "flag_id", required=True)
@click.option("--unmasked-by", help="The employee who starts the review and needs the names.")
@click.option("--verdict", type=click.Choice(["confirmed", "coached", "dismissed"]), help="The result of the review.")
@click.option("--reviewed-by", help="The reviewer.")
@click.option("--note")
@click.option("--employee-id", help="The employee concerned, who answers.")
@click.option("--text", help="The answer.")
@_request_options
@command(decide)
async def flag(settings: Settings, source: str, *, as_json: bool, **fields: Json) -> None:
    """Review a flag (--verdict, --reviewed-by), or answer it as the employee concerned (--employee-id, --text).

    With --unmasked-by alone, start a review: this is recorded, and the flag shows names from then on.
    """
    await send(settings, "flag", source, fields, as_json=as_json)


@click.option("--action-id", "--action", "action_id", required=True)
@click.option("--reversed-by", required=True)
@click.option("--reason", required=True)
@click.option("--amount", help="The amount to reverse. [default: the rest]")
@_CURRENCY
@click.option("--recovered/--not-recovered", default=False, show_default=True, help="Whether the money came back.")
@_request_options
@command(decide)
async def reversal(settings: Settings, source: str, *, as_json: bool, **fields: Json) -> None:
    """Reverse an action, fully or in part; a recovered amount can be spent again."""
    await send(settings, "reversal", source, fields, as_json=as_json)


@partial(_action_options, required=False)
@click.option("--operation", type=click.Choice(["request", "approve", "deny", "withdraw", "forward"]), required=True)
@click.option("--escalation-id", "--escalation", "escalation_id", help="The escalation to decide.")
@click.option("--decided-by", help="The approver who decides it.")
@click.option("--to", help="The employee to forward it to. [default: one level up]")
@command(decide)
async def escalation(settings: Settings, source: str, *, as_json: bool, **fields: Json) -> None:
    """File an escalation (`request`, with the options of an action), or decide one."""
    await send(settings, "escalation", source, fields, as_json=as_json)


@click.argument("name", type=click.Choice(sorted(path.stem for path in shipped_policies())))
@policy.command()
def example(name: str) -> None:
    """Print the shipped policy NAME as a start for your own."""
    (path,) = (path for path in shipped_policies() if path.stem == name)
    click.echo(path.read_text(encoding="utf-8"), nl=False)


@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for machines.")
@policy.command()
def check(file: Path, *, as_json: bool) -> None:
    """Check the policy in FILE; print each problem with its line, its field and its remedy."""
    checked = check_policy_file(file)
    if as_json:
        items = [finding._asdict() for finding in checked.findings]
        print_json({"items": items, "valid": checked.policy is not None})
    for finding in () if as_json else checked.findings:
        word = "error" if finding.serious else "note"
        field = f"{finding.field}: " if finding.field else ""
        place = f"{file}:{finding.line}:{finding.column}"
        console.print(f"{place}: {word}: {field}{finding.message}", markup=False, soft_wrap=True)
    if checked.policy is None:
        raise CommandFinding
    if not as_json:
        roles = ", ".join(checked.policy.roles)
        console.print(f"{file} is a policy in {checked.policy.currency} by {checked.policy.period} for {roles}")


@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for machines.")
@policy.command()
def show(file: Path, *, as_json: bool) -> None:
    """Show the policy in FILE: the limits and approvals of each role."""
    shown = valid_policy(file, as_json=as_json)
    if as_json:
        print_json(shown.document)
        return
    console.print(f"{file}: {shown.currency}, by {shown.period} in {shown.time_zone}, from {shown.effective_from}")
    for name, role in shown.roles.items():
        rows = [(kind, *_limits_of(role, kind)) for kind in dict.fromkeys((*role.limits, *role.approves))]
        carried = f", carries over {role.carry_over.text}" if role.carry_over.minor else ""
        title = f"{name}: {role.budget.text} a {shown.period}{carried}"
        print_table(title, ("kind", "may give", "may approve", "needs"), rows, numbers=(1, 2))


def _limits_of(role: Role, kind: str) -> tuple[str, str, str]:
    def text(limits: Mapping[str, Money | None]) -> str:
        return "" if kind not in limits else "unlimited" if (limit := limits[kind]) is None else limit.text

    return text(role.limits), text(role.approves), ", ".join(role.requires.get(kind, ()))


@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--with",
    "other",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Another file. [default: the policy in force]",
)
@command(policy, lists=True)
async def diff(settings: Settings, file: Path, other: Path | None, *, output: OutputFormat) -> None:
    """Show the changes of FILE, field by field, against the policy in force or another file.

    Exit status 1 if the ledger would refuse it, since it takes effect before the policy in force.
    """
    policy = valid_policy(file, as_json=output == "json")
    refusal = None
    if other is not None:
        before, name = valid_policy(other, as_json=output == "json").document, str(other)
    else:
        async with Session(settings, reads_only=True) as session:
            history = PolicyHistory.of(await published_policies(session.log))
        now = datetime.now(UTC)
        rules, refusal = history.in_force(now), history.refusal_of(policy, now)
        before, name = (rules.policy.document, f"version {rules.version}") if rules else ({}, "no policy")
    changes = difference(before, policy.document)
    items = [{"field": field, "before": old, "after": new} for field, old, new in changes]
    refused: JsonObject = {"refused": {"field": "effective_from", "message": refusal}} if refusal else {}
    rows = [(field, _cell_text(old), _cell_text(new)) for field, old, new in changes]
    print_list(
        output,
        items,
        f"{file} against {name}",
        ("field", "before", "after"),
        rows,
        "field before after",
        numbers=(),
        **refused,
    )
    if refusal:
        if output == "table":
            console.print(f"It would be refused: effective_from {refusal}", markup=False)
        raise CommandFinding(f"it would be refused: effective_from {refusal}" if output == "csv" else "")


def _cell_text(value: Json) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def valid_policy(file: Path, *, as_json: bool) -> Policy:
    """Return the policy in a file; end the command with its worst fault where it is not valid."""
    checked = check_policy_file(file)
    if checked.policy is None:
        worst = next(finding for finding in checked.findings if finding.serious)
        fail(f"{file}:{worst.line}: {worst.field}: {worst.message}", code="invalid", as_json=as_json, field=worst.field)
    return checked.policy


async def _with_money(session: Session, fields: JsonObject, *, as_json: bool) -> JsonObject:
    """Return a request's fields with the amount as money, by default in the policy's currency."""
    amount, currency = fields.pop("amount", None), fields.pop("currency", None)
    if amount is None:
        return fields
    if currency is None:
        rules = in_force_now(await published_policies(session.log))
        if rules is None:
            message = "no policy is in force, so --amount has no currency: publish one, or give --currency"
            fail(message, code="no_policy", as_json=as_json, field="currency")
        currency = rules.policy.currency
    return fields | {"amount": {"amount": amount, "currency": currency}}


async def send(
    settings: Settings,
    operation: str,
    source: str,
    fields: JsonObject,
    *,
    as_json: bool,
    access: str | None = None,
) -> None:
    """Send a request as the operator, in the name of any source but the ledger's own.

    ``access`` names a deed to record as an operator's access (``access.recorded``) where the request was accepted.
    """
    if fault := request_source_fault(source):
        fail(f"--source: {fault.message}", code=fault.code, status=2, as_json=as_json, field="source")
    subject = f"{topology.OPERATE_SUBJECT}.{token_of_source(source)}.{operation}"
    async with Session(settings) as session, ensure_roles(session, "decisions"):
        given = await _with_money(session, fields, as_json=as_json)
        body = {name: value for name, value in given.items() if value is not None}
        body.setdefault("request_id", f"cli-{uuid.uuid4()}")
        operator = await session.connection("decide")
        try:
            reply = await operator.request(subject, encode(body), timeout=30)
        except (nats.errors.Error, TimeoutError) as error:
            message = f"no answer: {reason_of(error)}; ask again with --request-id {body['request_id']}"
            raise UnavailableError(message) from error
        answer = json.loads(reply.data)
        if access is not None and answer["outcome"] != "error":
            await note_access(session, access)
    if as_json:
        print_json({"error": answer["error"]} if answer["outcome"] == "error" else answer)
    else:
        _print_answer(answer)
    if answer["outcome"] == "error":
        raise CommandFinding


_SHOWN = (
    "action_id",
    "escalation_id",
    "status",
    "sha256",
    "missing",
    "position",
    "policy_version",
    "expires_at",
    "due",
    "paid_by",
)


def _print_answer(answer: dict[str, Any]) -> None:
    if answer["outcome"] == "error":
        error = answer["error"]
        fail(f"{error['code']}: {error['message']}" + (f" ({error['field']})" if "field" in error else ""))
    rows: list[tuple[str, object]] = [("outcome", answer["outcome"])]
    rows += [(name, answer[name]) for name in _SHOWN if answer.get(name)]
    if "amount" in answer:
        rows.append(("amount", money_text(answer["amount"])))
    rows += [("to", ", ".join(answer["to"]) or "no known approver")] if "to" in answer else []
    if "available" in answer:
        rows.append(("available", money_text(answer["available"])))
    rows += [("reason", reason["message"]) for reason in answer.get("reasons", ())]
    rows += [("warning", f"{warning['field']}: {warning['message']}") for warning in answer.get("warnings", ())]
    if balance := answer.get("budget"):
        rows += [(name, money_text(balance[name])) for name in ("granted", "spent", "reserved", "remaining")]
    print_table("Answer", ("", ""), rows)
