"""The reference of all commands, written from the commands themselves (docs/reference/commands.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.main import cli
from config.settings import HELP, PREFIX, WITHOUT_OPTION, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMON = {*HELP, "config", "as_json", "help"}


def reference() -> str:
    """Markdown: every command with its arguments and options, every setting."""
    lines = [
        "# Commands and settings",
        "",
        "Written by `make docs` from the commands themselves. Exit status: 0 success, 1 a finding or a failure,",
        "2 wrong use. Errors are one line on standard error. `--json` prints one document for machines.",
        "",
        "`--csv`, where a list is printed, prints it with a header: money takes two columns (`spent`,",
        "`spent_currency`), lists and objects are JSON, and a text that a spreadsheet would take for a formula has an",
        "apostrophe before it. Output to a file or another",
        "program is neither wrapped nor cut. `resolution-ledger --version` prints the version.",
        "",
        "Shell completion: put one of these into the shell's start-up file.",
        "",
        "```sh",
        'eval "$(_RESOLUTION_LEDGER_COMPLETE=bash_source resolution-ledger)"    # ~/.bashrc',
        'eval "$(_RESOLUTION_LEDGER_COMPLETE=zsh_source resolution-ledger)"     # ~/.zshrc',
        "_RESOLUTION_LEDGER_COMPLETE=fish_source resolution-ledger | source     # ~/.config/fish/config.fish",
        "```",
        "",
        "## Settings",
        "",
        "Each is an option of every command, an environment variable and a key of a TOML file (`--config`,",
        f"`{PREFIX}CONFIG`, else `resolution-ledger.toml` in the current folder); the first that has one wins.",
        "",
        "| option | environment | TOML | default | |",
        "|---|---|---|---|---|",
    ]
    defaults = Settings()
    for name, words in HELP.items():
        default = getattr(defaults, name)
        shown = "" if default in (None, False) else f"`{default}`"
        option = "" if name in WITHOUT_OPTION else f"`--{name.replace('_', '-')}`"
        lines.append(f"| {option} | `{PREFIX}{name.upper()}` | `{name}` | {shown} | {words} |")
    lines += ["", "## Commands", ""]
    for path, command in _walk(cli, ()):
        lines += _section(path, command)
    return "\n".join(lines).rstrip() + "\n"


def _walk(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _walk(command, (*path, name))
        else:
            yield (*path, name), command


def _section(path: tuple[str, ...], command: click.Command) -> list[str]:
    arguments = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
    lines = [
        f"### `{' '.join(('resolution-ledger', *path, *arguments))}`",
        "",
        (command.help or "").strip(),
        "",
    ]
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in _COMMON and not p.hidden]
    for option in options:
        names = ", ".join(f"`{name}`" for name in option.opts)
        kind = "" if option.is_flag else f" {option.make_metavar(click.Context(command))}"
        default = f" Default: {option.default}." if option.show_default and option.default is not None else ""
        needed = " Required." if option.required else ""
        lines.append(f"- {names}{kind} {option.help or ''}{needed}{default}".rstrip())
    return [*lines, ""] if options else lines
