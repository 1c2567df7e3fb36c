"""JSON as tests read it."""

from __future__ import annotations

from typing import Any

type Document = dict[str, Any]
"""A JSON object that a test reads by key, to any depth; a wrong shape fails the test at run time."""
