"""The tables' collection of the view flags."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()
