"""What a projection is: a name, tables, and a fold of events into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa

    from projections.engine.events import Event


class Projection(Protocol):
    """One read model. The engine gives it every event it asks for, once, in order."""

    @property
    def name(self) -> str:
        """Its name, also of its files and of `resolution.views.<name>`."""

    @property
    def version(self) -> int:
        """Raised when tables or fold change: a new generation is then built."""

    @property
    def metadata(self) -> sa.MetaData:
        """Its tables."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Subjects below which it wants events."""

    @property
    def types(self) -> Mapping[str, type[Any]]:
        """Classes to decode events into. Types that are missing here are passed over; what nobody knows stops it."""

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Take these events into the tables, in the transaction of ``connection``."""

    def forget(self) -> None:
        """Drop what is cached: the transaction of the last fold was rolled back."""
