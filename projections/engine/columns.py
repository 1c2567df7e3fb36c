"""Columns that the tables of views share."""

from __future__ import annotations

import sqlalchemy as sa


def position_key() -> sa.Column[int]:
    """Return the key of a table with one row for a position: SQLite has no index beside it."""
    return sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True)


def texts(*names: str) -> list[sa.Column[str]]:
    """Return columns of text that may be NULL, for a table."""
    return [sa.Column(name, sa.Text) for name in names]
