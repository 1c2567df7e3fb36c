"""The command line `resolution-ledger`: its settings, and its error messages."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.json_logs import use_json_logs
from app.output import fail
from config.settings import HELP, SettingsError, load_settings
from ledger.errors import LedgerError, NoLedgerError
from ledger.nats.redaction import RedactingFormatter, without_passwords

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import TracebackType


def _joined(_context: click.Context, _option: click.Parameter, urls: tuple[str, ...]) -> str | None:
    return ",".join(urls) or None


_OPTIONS = {
    "data_dir": click.option(
        "--data-dir", metavar="FOLDER", help=HELP["data_dir"] + " [default: ./.resolution-ledger]"
    ),
    "nats_url": click.option("--nats-url", metavar="URL", multiple=True, callback=_joined, help=HELP["nats_url"]),
    **{
        name: click.option(f"--{name.replace('_', '-')}", metavar=metavar, help=HELP[name])
        for name, metavar in (
            ("nats_user", "NAME"),
            ("nats_creds", "FILE"),
            ("nats_nkey", "FILE"),
            ("nats_tls_ca", "FILE"),
            ("nats_tls_cert", "FILE"),
            ("nats_tls_key", "FILE"),
            ("nats_inbox_prefix", "SUBJECT"),
            ("nats_context", "NAME"),
            ("oidc_issuer", "URL"),
            ("oidc_client_id", "ID"),
            ("oidc_employee_claim", "NAME"),
            ("oidc_employees", "FILE"),
            ("oidc_groups_claim", "NAME"),
            ("oidc_auditors", "GROUP"),
            ("oidc_operators", "GROUP"),
        )
    },
    "nats_tls_first": click.option("--nats-tls-first", is_flag=True, default=None, help=HELP["nats_tls_first"]),
    "upstream_nats_url": click.option("--upstream-nats-url", metavar="URL", help=HELP["upstream_nats_url"]),
    "nats_server": click.option("--nats-server", metavar="FILE", help=HELP["nats_server"]),
    "replicas": click.option("--replicas", type=int, metavar="N", help=HELP["replicas"] + " [default: 1]"),
    "webhooks_to_private": click.option(
        "--webhooks-to-private", is_flag=True, default=None, help=HELP["webhooks_to_private"]
    ),
    "smtp_url": click.option("--smtp-url", metavar="URL", help=HELP["smtp_url"]),
    "mail_from": click.option("--mail-from", metavar="ADDRESS", help=HELP["mail_from"]),
    "allow_lazy_fsync": click.option("--allow-lazy-fsync", is_flag=True, default=None, help=HELP["allow_lazy_fsync"]),
    "unregistered_sources": click.option(
        "--unregistered-sources", type=click.Choice(["desk", "none"]), help=HELP["unregistered_sources"]
    ),
    "log_format": click.option("--log-format", type=click.Choice(["text", "json"]), help=HELP["log_format"]),
    "database_url": click.option("--database-url", metavar="URL", help=HELP["database_url"]),
}
_config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="A TOML file of settings. [default: resolution-ledger.toml]"
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
_csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print the list as CSV, with a header.")


_HELP_WIDTH = 1_000
GC_THRESHOLDS = (2_000, 100, 50)
"""Thresholds of Python's garbage collector. Thousands of events make garbage without cycles, so that full collections
would cost time for nothing: young objects are scanned in small steps, old ones rarely."""


class CommandFinding(Exception):
    """The command did its work and found a problem: exit status 1, after its output."""


def _all_settings[F: Callable[..., object]](command: F) -> F:
    for option in (_config_option, *reversed(_OPTIONS.values())):
        command = option(command)
    return command


def command(
    group: click.Group,
    name: str | None = None,
    *,
    json: bool = True,
    lists: bool = False,
    hidden: bool = False,
    loop: Callable[..., Callable[[], asyncio.AbstractEventLoop] | None] = lambda **_options: None,
) -> Callable[[Callable[..., Coroutine[object, None, None]]], click.Command]:
    """Make an async function a command of a group; its first argument is ``settings``.

    A command that ``lists`` gets ``output``, others ``as_json``. A ``hidden`` one is for our own
    processes. ``loop`` returns the event loop for the options.
    """

    def decorate(function: Callable[..., Coroutine[object, None, None]]) -> click.Command:
        def run(context: click.Context, /, **options: Any) -> None:
            own = {setting: options.pop(setting) for setting in _OPTIONS}
            above = context.find_root().params
            merged = {setting: above.get(setting) if own[setting] is None else own[setting] for setting in _OPTIONS}
            merged["nats_url"] = ",".join(filter(None, (above.get("nats_url"), own["nats_url"]))) or None
            file = options.pop("config") or above.get("config")
            if lists:
                as_json, as_csv = options.pop("as_json"), options.pop("as_csv")
                if as_json and as_csv:
                    raise click.UsageError("--json and --csv exclude each other")
                options["output"] = "json" if as_json else "csv" if as_csv else "table"
            settings = load_settings(merged, os.environ, file)
            if settings.log_format == "json":
                name = str(context.info_name)
                use_json_logs(", ".join(options["roles"]) if name == "run" else name)
            asyncio.run(function(settings, **options), loop_factory=loop(**options))

        run.__doc__ = inspect.cleandoc(function.__doc__ or "")
        wrapped = _all_settings(click.pass_context(run))
        if json:
            wrapped = _json_option(wrapped)
        if lists:
            wrapped = _csv_option(wrapped)
        return group.command(name or function.__name__.replace("_", "-"), hidden=hidden)(wrapped)

    return decorate


_COMMANDS = {
    "up": ("run",),
    "run": ("run",),
    "demo": ("run",),
    "mcp": ("run",),
    "publish": ("publish",),
    "import": ("publish",),
    "decide": ("decide",),
    "policy": ("decide",),
    "report": (
        "report_views",
        "report_loyalty",
        "report_gap",
        "report_quality",
        "report_summary",
        "report_recognition",
        "report_what_if",
    ),
    "audit": ("audit_trail", "audit_verify", "audit_redecide", "audit_flags"),
    "admin": ("admin",),
    "verify-archive-chunks": ("archive_chunks",),
}
"""Command -> modules of ``app.cli.commands``; a command imports only its own, to start quickly."""


class LazyGroup(click.Group):
    """A group that imports the modules of a command when the command is asked for."""

    def __init__(self, *arguments: Any, modules: Mapping[str, tuple[str, ...]], **options: Any) -> None:
        """``modules``: command -> modules of ``app.cli.commands``, in the order in which help lists the commands."""
        super().__init__(*arguments, **options)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        del ctx
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, after its modules have registered it."""
        for module in self._modules.get(cmd_name, ()):
            import_module(f"app.cli.commands.{module}")
        return super().get_command(ctx, cmd_name)


_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=LazyGroup, modules=_COMMANDS, context_settings=_HELP)
@_all_settings
@click.option("-v", "--verbose", is_flag=True, help="Log at level INFO.")
@click.version_option(package_name="resolution-ledger")
def cli(verbose: bool, **_settings: object) -> None:
    """An event-sourced ledger for companies that let their staff resolve complaints on the spot."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    sys.excepthook = _print_error
    for noisy in ("nats", "faststream"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback without passwords in URLs."""
    sys.stderr.write(without_passwords("".join(traceback.format_exception(kind, error, trace))))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; print every error in one line, with its remedy."""
    gc.set_threshold(*GC_THRESHOLDS)
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    try:
        # Help is not wrapped outside a terminal, so that `grep` finds an option with its default.
        width = None if sys.stdout.isatty() else _HELP_WIDTH
        cli.main(args=given, prog_name="resolution-ledger", standalone_mode=False, terminal_width=width)
    except CommandFinding as finding:
        if str(finding):
            click.echo(f"resolution-ledger: {without_passwords(str(finding))}", err=True)
        sys.exit(1)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        fail(error.format_message() + hint, code="usage", status=2, as_json=as_json)
    except (SettingsError, NoLedgerError) as error:
        fail(str(error), code="settings", status=2, as_json=as_json)
    except (LedgerError, OSError) as error:
        fail(str(error), code="unavailable", as_json=as_json)
    sys.exit(0)
