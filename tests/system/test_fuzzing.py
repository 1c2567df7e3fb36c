"""Three thousand hostile inputs by the three doors of a running ledger; `tests/support/fuzzer.py` does it for longer by hand."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.support.fuzz_inputs import make_input
from tests.support.fuzzer import fuzz

INPUTS = int(os.environ.get("FUZZ_INPUTS", "1500"))


@pytest.mark.integration
@pytest.mark.timeout(600)
async def test_every_acknowledged_message_of_random_bytes_is_recorded_or_rejected() -> None:
    """Also: a fact, a decision and a report pass, no process ended, none grew by more than 50 MiB since the warm-up."""
    seed = int(os.environ.get("FUZZ_SEED", secrets.randbelow(10**9)))
    assert await fuzz(seed, INPUTS) == [], f"seed {seed}"


def test_a_seed_makes_the_same_bytes_again() -> None:
    for number in range(200):
        assert make_input(5, number, "token", "host") == make_input(5, number, "token", "host")
    assert {make_input(5, number, "token", "host").door for number in range(200)} == {
        "inbox",
        "request",
        "protocol",
        "http",
    }
