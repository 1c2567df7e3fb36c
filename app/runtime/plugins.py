"""Guard rules and projections of other packages, found by their entry points when a role starts."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from domain.abuse.rule_interface import GuardRule, rule_fault
from ledger.errors import LedgerError
from resolution_ledger import GUARD_RULES, PROJECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from consumers.guard.plugin_rules import IsolatedRule


class PluginError(LedgerError):
    """A plug-in that cannot be used; no role that needs it starts."""

    def __init__(self, entry: EntryPoint, reason: str) -> None:
        super().__init__(
            f"the package {_package(entry)} cannot be used: its entry point {entry.name} = {entry.value} "
            f"({entry.group}): {reason}. Correct the package, or uninstall it"
        )
        self.package, self.entry_point = _package(entry), entry.name


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module


def _loaded(group: str) -> Iterator[tuple[EntryPoint, Callable[[], object]]]:
    """Import the plug-ins of a group, in the order of their names.

    Raises:
        PluginError: one cannot be imported, or two have one name.

    """
    seen: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda one: (one.name, _package(one))):
        if entry.name in seen:
            raise PluginError(entry, f"the package {_package(seen[entry.name])} has one of that name, too")
        seen[entry.name] = entry
        try:
            make = entry.load()
        except (Exception, SystemExit) as error:
            raise PluginError(entry, f"{type(error).__name__}: {error}") from error
        yield entry, make


@cache
def load_rules() -> Callable[[], list[IsolatedRule]]:
    """Import the guard rules of other packages, once a process; return a function that makes them anew.

    Raises:
        PluginError: a package cannot be used.

    """
    if not entry_points(group=GUARD_RULES):
        return list
    from consumers.guard.plugin_rules import IsolatedRule

    loaded = list(_loaded(GUARD_RULES))

    def make_all() -> list[IsolatedRule]:
        return [IsolatedRule(_package(entry), _rule_of(entry, make)) for entry, make in loaded]

    make_all()
    return make_all


def _rule_of(entry: EntryPoint, make: Callable[[], object]) -> GuardRule:
    try:
        rule = make()
        fault = rule_fault(rule)
    except (Exception, SystemExit) as error:
        raise PluginError(entry, f"{type(error).__name__}: {error}") from error
    if fault or not isinstance(rule, GuardRule):
        raise PluginError(entry, fault)
    if rule.rule.id != entry.name:
        raise PluginError(entry, f"the rule's id is {rule.rule.id}: give the entry point that name")
    return rule


@cache
def load_views() -> None:
    """Import the projections of other packages and register them, once a process.

    Raises:
        PluginError: a package cannot be used.

    """
    if not entry_points(group=PROJECTIONS):
        return
    from projections.plugin_views import register_view

    for entry, make in _loaded(PROJECTIONS):
        try:
            register_view(_package(entry), entry.name, make)
        except (Exception, SystemExit) as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise PluginError(entry, reason) from error


def installed_plugins() -> dict[str, list[str]]:
    """Return the names of rules and projections that other packages add, by package, without importing them."""
    found: dict[str, list[str]] = {}
    for group in (GUARD_RULES, PROJECTIONS):
        for entry in entry_points(group=group):
            found.setdefault(_package(entry), []).append(entry.name)
    return found
