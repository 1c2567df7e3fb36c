"""The interface of a projection: a name, tables, and a fold of events into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import msgspec
    import sqlalchemy as sa

    from projections.engine.day_blocks import DayBlocks
    from projections.engine.events import Event


@runtime_checkable
class Projection(Protocol):
    """A read model. The engine gives it each event of its types once, in order."""

    @property
    def name(self) -> str:
        """The name, also used for its files and for `resolution.views.<name>`."""

    @property
    def version(self) -> int:
        """The version; it is raised when tables or fold change, so that a new generation is built."""

    @property
    def metadata(self) -> sa.MetaData:
        """The tables."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The subject prefixes of the events that it needs."""

    @property
    def types(self) -> Mapping[str, type[msgspec.Struct]]:
        """The classes to decode events into, by stored type.

        Other known types are skipped. A type that this version does not know stops the view.
        """

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Fold events into the tables, within the transaction of ``connection``."""

    def forget(self) -> None:
        """Drop caches, because the transaction of the last fold was rolled back."""


@runtime_checkable
class HasDayBlocks(Protocol):
    """A projection whose tables have day blocks, from which totals are read."""

    @property
    def day_blocks(self) -> DayBlocks:
        """The blocks."""
