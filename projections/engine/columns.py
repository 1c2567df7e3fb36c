"""Columns that the tables of views share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def position_key() -> sa.Column[int]:
    """Return the key of a table with one row for a position: SQLite has no index beside it."""
    return sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True)


def texts(*names: str) -> list[sa.Column[str]]:
    """Return columns of text that may be NULL, for a table."""
    return [sa.Column(name, sa.Text) for name in names]


def seconds_of(times: Sequence[str | None]) -> NDArray[np.float64]:
    """Return stored times as seconds since 1970, to the microsecond; nan for ``None``."""
    found = np.array([one[:-1] if one else "NaT" for one in times], "datetime64[us]")
    return np.where(np.isnat(found), np.nan, found.astype(np.int64) / 1e6)
