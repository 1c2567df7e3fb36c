"""The result of reading a view, and the access scope of a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from projections.engine.storage import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import sqlalchemy as sa


class ReadResult[T](NamedTuple):
    """The result of a query, and the progress of the view that answered it."""

    result: T
    progress: Progress


class AccessScope(NamedTuple):
    """The people and teams that a reader may see; ``people`` is ``None`` for a reader without restriction."""

    people: frozenset[str] | None
    teams: frozenset[str]

    def shows(self, agent_id: str | None, team_id: str | None = None) -> bool:
        """Return whether an action of this agent or team may be shown."""
        return self.people is None or agent_id in self.people or team_id in self.teams

    def sees_all(self, about: list[str]) -> bool:
        """Return whether all employees that a flag concerns may be shown; customers do not count."""
        agents = [name.partition(":")[2] for name in about if name.startswith("agent:")]
        return self.people is None or (bool(agents) and self.people.issuperset(agents))

    def sees_holder(self, holder: str) -> bool:
        """Return whether a holder's budget may be shown."""
        kind, _, name = holder.partition(":")
        return self.people is None or name in (self.people if kind == "agent" else self.teams)

    def holders(self) -> frozenset[str] | None:
        """Return the holders whose budgets may be shown; ``None`` for all."""
        if self.people is None:
            return None
        return frozenset((*(f"agent:{name}" for name in self.people), *(f"team:{name}" for name in self.teams)))


EVERYBODY = AccessScope(None, frozenset())


class Reader(Protocol):
    """A function that reads a view by name: it runs the query on a connection, within one transaction."""

    def __call__[T](self, name: str, query: Callable[[sa.Connection], T], /) -> Awaitable[ReadResult[T]]:
        """Return the query's result, and the progress of the view."""
