"""The commands, one module for each group of them."""

from __future__ import annotations

from importlib import import_module

_MODULES = ("serving", "publishing", "deciding", "reporting", "auditing", "administering")


def register() -> None:
    """Import every module of commands; importing one registers its commands."""
    for name in _MODULES:
        import_module(f"app.commands.{name}")
