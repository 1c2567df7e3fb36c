"""`admin sources`: the systems that may send facts and requests, and their rights."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from app.cli.commands.admin import admin
from app.cli.main import command
from app.output import fail, print_json, print_list, print_result
from app.runtime.session import Session
from app.runtime.source_adoption import registrations
from app.runtime.source_registration import (
    RegistrationError,
    changed,
    closed,
    read_registry,
    record_change,
    registered,
)
from app.runtime.source_users import configuration, source_file, update_users
from app.runtime.sources import known_sources
from domain.currencies import currency_fault
from domain.events.administration import SourceRegistered, SourceRetired, SourceStopped
from domain.money import MoneyError, money_from_wire
from domain.source_registry import PROFILES
from projections.policy_history import policy_in_force

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.output import OutputFormat
    from config.settings import Settings
    from domain.events.administration import SourceEvent
    from domain.money import Money
    from domain.serialization import JsonObject
    from domain.source_registry import Source, SourceRegistry

_COLUMNS = ("source", "state", "profile", "facts", "roles", "per_day", "by")


@admin.group("sources")
def sources_group() -> None:
    """Sources: register, change, stop and retire the systems that may send facts and requests."""


def _rights_options[F: Callable[..., object]](function: F) -> F:
    for option in (
        click.option("--by", default="operator", show_default=True, help="The person responsible."),
        click.option("--currency", metavar="CODE", help="ISO 4217. [default: the policy's]"),
        click.option("--per-day", metavar="AMOUNT", help='The most that its actions may cost a day (UTC): "500.00".'),
        click.option("--roles", metavar="ROLES", help="The roles that it may request for, separated by commas."),
        click.option(
            "--facts",
            multiple=True,
            metavar="PATTERNS",
            help="Types of facts that it may send, such as purchase.*, separated by commas; repeatable.",
        ),
    ):
        function = option(function)
    return function


_PROFILE_HELP = f"{', '.join(PROFILES)}, or several, joined by +."


@_rights_options
@click.option("--profile", required=True, help=_PROFILE_HELP)
@click.argument("name")
@command(sources_group, "add")
async def add_source(settings: Settings, name: str, *, as_json: bool, by: str, **options: object) -> None:
    """Register the source NAME; also again, after it was stopped or retired."""
    async with Session(settings) as session:
        rights = await _rights(session, options, as_json=as_json)
        event = SourceRegistered(source=name, by=by, **rights)  # type: ignore[arg-type]
        position = await _record(session, registered(event), as_json=as_json)
        file = source_file(session.data_dir, name) if session.embedded else None
    result: JsonObject = {"source": name, "state": "active", "position": position}
    text = f"{name} is registered with the profile {event.profile}, recorded at position {position}; "
    if file is not None:
        text += f"its user is in {file}"
    else:
        text += "`admin sources nats-config` prints its user for your NATS server"
    print_result(result | ({"file": str(file)} if file else {}), text, as_json=as_json)


@_rights_options
@click.option("--profile", help=_PROFILE_HELP)
@click.argument("name")
@command(sources_group, "change")
async def change_source(settings: Settings, name: str, *, as_json: bool, by: str, **options: object) -> None:
    """Replace the named rights of the source NAME; `--facts ''`, `--roles ''` and `--per-day ''` end a narrowing."""
    async with Session(settings, reads_only=True) as session:
        rights = await _rights(session, options, as_json=as_json)
        position = await _record(session, changed(name, by, rights), as_json=as_json)
    print_result(
        {"source": name, "position": position}, f"{name} is changed, recorded at position {position}", as_json=as_json
    )


@click.option("--by", default="operator", show_default=True, help="The person responsible.")
@click.option("--reason", help="Recorded with it.")
@click.argument("name")
@command(sources_group, "stop")
async def stop_source(settings: Settings, name: str, by: str, reason: str | None, *, as_json: bool) -> None:
    """Stop the source NAME at once, for example because its credential was stolen."""
    await _close(settings, SourceStopped(source=name, by=by, reason=reason), "stopped", as_json=as_json)


@click.option("--by", default="operator", show_default=True, help="The person responsible.")
@click.option("--reason", help="Recorded with it.")
@click.argument("name")
@command(sources_group, "retire")
async def retire_source(settings: Settings, name: str, by: str, reason: str | None, *, as_json: bool) -> None:
    """Retire the source NAME: it is no longer in use."""
    await _close(settings, SourceRetired(source=name, by=by, reason=reason), "retired", as_json=as_json)


@click.option("--dry-run", "dry", is_flag=True, help="List the registrations; record nothing.")
@click.option("--by", default="operator", show_default=True, help="The person responsible.")
@command(sources_group, "adopt", lists=True)
async def adopt_sources(settings: Settings, by: str, *, dry: bool, output: OutputFormat) -> None:
    """Register each unregistered source of the log with the profiles and types of facts that it has used so far."""
    async with Session(settings, reads_only=True) as session:
        registry, _ = await read_registry(session.log)
        events = await registrations(session.log, registry, by)
        for event in () if dry else events:
            await _record(session, registered(event), as_json=output == "json")
        position = await session.log.last_position()
    columns = ("source", "profile", "facts")
    items = [{"source": one.source, "profile": one.profile, "facts": list(one.facts)} for one in events]
    rows = [(one.source, one.profile, ", ".join(one.facts)) for one in events]
    title = "Sources that would be registered" if dry else "Registered sources"
    print_list(output, items, title, columns, rows, " ".join(columns), position=position)


@command(sources_group, "nats-config")
async def nats_config(settings: Settings, *, as_json: bool) -> None:
    """Print the file source-accounts.conf for your NATS server: an account and a user for each active source.

    Passwords are variables of the server's environment.
    """
    async with Session(settings, reads_only=True) as session:
        registry, position = await read_registry(session.log)
    text = configuration(registry)
    if as_json:
        print_json({"file": text, "position": position})
    else:
        click.echo(text, nl=False)


@command(sources_group, "list", lists=True)
async def list_sources(settings: Settings, *, output: OutputFormat) -> None:
    """List the registered sources with their rights, and the unregistered ones with recorded events."""
    async with Session(settings, reads_only=True) as session:
        registry, _ = await read_registry(session.log)
        others = [name for name in await known_sources(session) if registry.source(name) is None]
        position = await session.log.last_position()
    items = [_shown(source) for source in registry.all()]
    items += [dict.fromkeys(_COLUMNS) | {"source": name, "state": "unregistered"} for name in others]
    rows = [tuple(_cell(item[name]) for name in _COLUMNS) for item in items]
    print_list(output, items, "Sources", _COLUMNS, rows, " ".join(_COLUMNS), position=position)


def _shown(source: Source) -> JsonObject:
    rights = source.registered
    return {
        "source": source.name,
        "state": source.state,
        "profile": rights.profile,
        "facts": list(rights.facts),
        "roles": list(rights.roles),
        "per_day": rights.per_day.wire() if rights.per_day is not None else None,
        "by": rights.by,
    }


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case list():
            return ", ".join(map(str, value))
        case dict():
            return f"{value['amount']} {value['currency']}"
    return str(value)


async def _close(settings: Settings, event: SourceStopped | SourceRetired, state: str, *, as_json: bool) -> None:
    async with Session(settings, reads_only=True) as session:
        position = await _record(session, closed(event), as_json=as_json)
    text = f"{event.source} is {state}, recorded at position {position}"
    print_result({"source": event.source, "state": state, "position": position}, text, as_json=as_json)


async def _record(session: Session, change: Callable[[SourceRegistry], SourceEvent], *, as_json: bool) -> int:
    try:
        position = await record_change(session.log, change)
    except RegistrationError as error:
        fail(str(error), code=error.code, status=2, as_json=as_json, field=error.field)
    await update_users(session)
    return position


async def _rights(session: Session, options: dict[str, object], *, as_json: bool) -> dict[str, object]:
    """Return the fields of rights in the options of a command; options that were not used are left out."""
    found: dict[str, object] = {}
    if options["profile"] is not None:
        found["profile"] = options["profile"]
    patterns = options["facts"]
    if isinstance(patterns, tuple) and patterns:
        found["facts"] = _words(",".join(patterns))
    if options["roles"] is not None:
        found["roles"] = _words(str(options["roles"]))
    if options["per_day"] is not None:
        amount, currency = str(options["per_day"]), options["currency"]
        found["per_day"] = await _money(session, amount, currency, as_json=as_json) if amount else None
    return found


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


async def _money(session: Session, amount: str, currency: object, *, as_json: bool) -> Money:
    if currency is None:
        policy = await policy_in_force(session.log)
        if policy is None:
            message = "no policy is in force, so --per-day has no currency: give --currency"
            fail(message, code="no_policy", status=2, as_json=as_json, field="currency")
        currency = policy.currency
    if fault := currency_fault(str(currency), datetime.now(UTC)):
        fail(f"--currency: {fault}", code="invalid", status=2, as_json=as_json, field="currency")
    try:
        return money_from_wire({"amount": amount, "currency": currency})
    except MoneyError as error:
        fail(f"--per-day: {error}", code="invalid", status=2, as_json=as_json, field="per_day")
