"""`decide` and `policy`: the requests, from options."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import nats.errors

from app.cli import Finding, cli, command
from app.output import console, fail, money_text, print_json, print_table
from app.policy_file import check_policy_file
from app.roles import served
from app.session import Session
from config import topology
from domain.facts import Basis, Kind
from domain.wire import encode
from ledger.errors import UnavailableError
from ledger.names import token_of_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings

_KINDS = click.Choice(Kind.__args__)  # type: ignore[attr-defined]
_BASES = click.Choice(Basis.__args__)  # type: ignore[attr-defined]
_FORMS = click.option("--source", default="cli", show_default=True, help="Whose request this is.")


@cli.group()
def decide() -> None:
    """Ask for decisions, like any upstream."""


@cli.group()
def policy() -> None:
    """Look at policies before they are published."""


def _action_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--time", help="RFC 3339; in history mode it rules."),
        click.option("--team", "--team-id", "team_id"),
        click.option("--guideline"),
        click.option("--note"),
        click.option("--order", "--order-id", "order_id"),
        click.option("--basis", type=_BASES),
        click.option("--reason"),
        click.option("--currency", default="GBP", show_default=True, help="ISO 4217."),
        click.option("--amount", help='What it costs the company, e.g. "5.00".'),
        click.option("--kind", type=_KINDS, required=True),
        click.option("--interaction", "--interaction-id", "interaction_id"),
        click.option("--customer", "--customer-id", "customer_id"),
        click.option("--agent", "--agent-id", "agent_id", required=True),
        click.option("--request-id", help="The same again gets the first answer again. [default: a new one]"),
        _FORMS,
    ):
        function = option(function)
    return function


@_action_options
@command(decide)
async def action(settings: Settings, source: str, *, as_json: bool, **fields: Any) -> None:
    """Take an action for a customer, if the agent may."""
    await _ask(settings, "action", source, _with_money(fields), as_json=as_json)


@_action_options
@command(decide)
async def preview(settings: Settings, source: str, *, as_json: bool, **fields: Any) -> None:
    """The same, nothing taken; without an amount, what this agent could give now."""
    await _ask(settings, "preview", source, _with_money(fields), as_json=as_json)


@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--published-by", required=True, help="Who answers for it.")
@click.option("--request-id")
@click.option("--time", help="RFC 3339; in history mode it rules.")
@_FORMS
@command(decide, "policy")
async def decide_policy(settings: Settings, file: Path, source: str, *, as_json: bool, **fields: Any) -> None:
    """Publish the policy in FILE."""
    checked = check_policy_file(file)
    serious = [finding for finding in checked.findings if finding.serious]
    if serious:
        worst = serious[0]
        fail(f"{file}:{worst.line}: {worst.field}: {worst.message}", code="invalid", as_json=as_json, field=worst.field)
    await _ask(settings, "policy", source, fields | {"policy": checked.document}, as_json=as_json)


@click.option("--holder", required=True, help="agent:<id> or team:<id>")
@click.option("--amount", required=True, help='For example "50.00".')
@click.option("--currency", default="GBP", show_default=True, help="ISO 4217.")
@click.option("--granted-by", required=True)
@click.option("--reason", required=True)
@click.option("--request-id")
@click.option("--time", help="RFC 3339; in history mode it rules.")
@_FORMS
@command(decide)
async def budget(settings: Settings, source: str, *, as_json: bool, **fields: Any) -> None:
    """Grant a holder more for the present period."""
    await _ask(settings, "budget", source, _with_money(fields) | {"operation": "grant"}, as_json=as_json)


@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for machines.")
@policy.command()
def check(file: Path, *, as_json: bool) -> None:
    """Check the policy in FILE: every problem with its line, its field and what to do."""
    checked = check_policy_file(file)
    if as_json:
        items = [finding._asdict() for finding in checked.findings]
        print_json({"items": items, "valid": checked.policy is not None})
    for finding in () if as_json else checked.findings:
        word = "error" if finding.serious else "note"
        console.print(
            f"{file}:{finding.line}: {word}: {finding.field}: {finding.message}", markup=False, soft_wrap=True
        )
    if checked.policy is None:
        raise Finding
    if not as_json:
        roles = ", ".join(checked.policy.roles)
        console.print(f"{file} is a policy in {checked.policy.currency} by {checked.policy.period} for {roles}")


def _with_money(fields: dict[str, Any]) -> dict[str, Any]:
    amount, currency = fields.pop("amount"), fields.pop("currency")
    return fields | ({"amount": {"amount": amount, "currency": currency}} if amount is not None else {})


async def _ask(settings: Settings, operation: str, source: str, fields: dict[str, Any], *, as_json: bool) -> None:
    body = {name: value for name, value in fields.items() if value is not None}
    body.setdefault("request_id", f"cli-{uuid.uuid4()}")
    subject = f"{topology.DECIDE_SUBJECT}.{token_of_source(source)}.{operation}"
    async with Session(settings) as session, served(session, "decisions"):
        upstream = await session.upstream("decide")
        try:
            reply = await upstream.request(subject, encode(body), timeout=30)
        except (nats.errors.Error, TimeoutError) as error:
            message = f"no answer: {error or 'time-out'}; ask again with --request-id {body['request_id']}"
            raise UnavailableError(message) from error
    answer = json.loads(reply.data)
    if as_json:
        print_json({"error": answer["error"]} if answer["outcome"] == "error" else answer)
    else:
        _show(answer)
    if answer["outcome"] == "error":
        raise Finding


def _show(answer: dict[str, Any]) -> None:
    if answer["outcome"] == "error":
        error = answer["error"]
        fail(f"{error['code']}: {error['message']}" + (f" ({error['field']})" if "field" in error else ""))
    rows: list[tuple[str, object]] = [("outcome", answer["outcome"])]
    rows += [(name, answer[name]) for name in ("action_id", "position", "policy_version") if answer.get(name)]
    if "available" in answer:
        rows.append(("available", money_text(answer["available"])))
    rows += [("reason", reason["message"]) for reason in answer.get("reasons", ())]
    rows += [("warning", f"{warning['field']}: {warning['message']}") for warning in answer.get("warnings", ())]
    if balance := answer.get("budget"):
        rows += [(name, money_text(balance[name])) for name in ("granted", "spent", "reserved", "remaining")]
    print_table("Answer", ("", ""), rows)
