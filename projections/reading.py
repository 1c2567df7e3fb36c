"""What reading a view gives, and how a report is handed the means to read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import sqlalchemy as sa

from projections.engine.storage import Progress


class ReadResult(NamedTuple):
    """What was read, and up to where the view had read the log."""

    result: Any
    progress: Progress


class AccessScope(NamedTuple):
    """Whom somebody is shown: people and teams; ``people`` is none where it is everybody."""

    people: frozenset[str] | None
    teams: frozenset[str]

    def shows(self, agent_id: str | None, team_id: str | None = None) -> bool:
        """Whether what an agent, or a team, did is shown."""
        return self.people is None or agent_id in self.people or team_id in self.teams

    def sees_all(self, about: list[str]) -> bool:
        """Whether everybody a flag is about may be seen; customers count for nothing."""
        agents = [name.partition(":")[2] for name in about if name.startswith("agent:")]
        return self.people is None or (bool(agents) and self.people.issuperset(agents))

    def sees_holder(self, holder: str) -> bool:
        """Whether a budget may be shown."""
        kind, _, name = holder.partition(":")
        return self.people is None or name in (self.people if kind == "agent" else self.teams)


EVERYBODY = AccessScope(None, frozenset())

type Reader = Callable[[str, Callable[[sa.Connection], Any]], Awaitable[ReadResult]]
"""Reads a view by its name: gives the query a connection, within one transaction."""
