"""Guard rules and projections of other packages, found by their entry points when a role starts."""

from __future__ import annotations

import threading
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from domain.abuse.rule_interface import GuardRule, rule_fault
from ledger.errors import LedgerError
from resolution_ledger import GUARD_RULES, PROJECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from consumers.guard.plugin_rules import IsolatedRule


_START_SECONDS = 30.0
"""Seconds for a package's import, and for the making of its rule or projection."""


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
        yield entry, _within_time(entry, entry.load)


def _within_time[T](entry: EntryPoint, call: Callable[[], T]) -> T:
    """Return the result of a package's code, which runs in a thread of its own: it may raise anything, or never end.

    Raises:
        PluginError: it raised an error, or did not end in time.

    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, name=f"plug-in {entry.name}", daemon=True)
    thread.start()
    thread.join(_START_SECONDS)
    if thread.is_alive():
        raise PluginError(entry, f"it has not ended after {_START_SECONDS:g} s")
    for error in errors:
        if isinstance(error, PluginError):
            raise error
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise PluginError(entry, reason) from error
    return results[0]


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

    for entry, make in loaded:  # a first time, to be refused here; the guard makes its own in the thread that uses them
        _within_time(entry, partial(_rule_of, entry, make))
    return make_all


def _rule_of(entry: EntryPoint, make: Callable[[], object]) -> GuardRule:
    rule = make()
    fault = rule_fault(rule)
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
        _within_time(entry, partial(register_view, _package(entry), entry.name, make))


def installed_plugins() -> dict[str, list[str]]:
    """Return the names of rules and projections that other packages add, by package, without importing them."""
    found: dict[str, list[str]] = {}
    for group in (GUARD_RULES, PROJECTIONS):
        for entry in entry_points(group=group):
            found.setdefault(_package(entry), []).append(entry.name)
    return found
