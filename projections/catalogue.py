"""The projections there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections.balances import Balances
from projections.loyalty import Loyalty
from projections.trail import Trail

if TYPE_CHECKING:
    from projections.model import Model

MODELS: dict[str, type[Model]] = {cls.name: cls for cls in (Balances, Loyalty, Trail)}
"""Name -> class; each runner makes its own instance."""
