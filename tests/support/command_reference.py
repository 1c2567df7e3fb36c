"""The reference of all commands (docs/reference/commands.md), generated from the commands themselves.

`python -m tests.support.command_reference` (or `make docs`) writes it anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.main import cli
from config.settings import HELP, PREFIX, WITHOUT_OPTION, Settings
from tests.support.environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMON = {*HELP, "config", "as_json", "help"}


def command_reference() -> str:
    """Return Markdown: every command with its arguments and options, and every setting."""
    lines = [
        "# Commands and settings",
        "",
        "`make docs` generates this page from the commands.",
        "",
        "- Exit status: 0 for success, 1 for a finding or a failure, 2 for wrong usage.",
        "- An error is one line on standard error.",
        "- `--json` prints one JSON document.",
        "- `--csv` prints a list with a header. Money takes two columns (`spent`, `spent_currency`). Lists and objects",
        "  are JSON. A text that a spreadsheet would read as a formula begins with an apostrophe.",
        "- Output to a file or another program is neither wrapped nor shortened.",
        "- `resolution-ledger --version` prints the version.",
        "",
        "For shell completion, put one of these lines into the shell's start-up file:",
        "",
        "```sh",
        'eval "$(_RESOLUTION_LEDGER_COMPLETE=bash_source resolution-ledger)"    # ~/.bashrc',
        'eval "$(_RESOLUTION_LEDGER_COMPLETE=zsh_source resolution-ledger)"     # ~/.zshrc',
        "_RESOLUTION_LEDGER_COMPLETE=fish_source resolution-ledger | source     # ~/.config/fish/config.fish",
        "```",
        "",
        "## Settings",
        "",
        "Each setting is an option of every command, an environment variable and a key of a TOML file. The option",
        f"comes first, then the variable, then the file. The file is named by `--config` or `{PREFIX}CONFIG`, and is",
        "`resolution-ledger.toml` in the current folder otherwise.",
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
        elif not command.hidden:
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


def main() -> None:
    """Write the page."""
    (ROOT / "docs" / "reference" / "commands.md").write_text(command_reference())


if __name__ == "__main__":
    main()
