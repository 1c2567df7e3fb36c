"""The quality report of interactions that only actions name."""

from pathlib import Path

from projections.reports.service_quality import quality_report
from tests.support.any_order import DECISIONS, OPENED
from tests.support.builders import event
from tests.support.view_histories import Views, recorded


async def test_goodwill_in_an_interaction_without_an_opening_is_compared_with_nothing(tmp_path: Path) -> None:
    """The interaction is counted as incomplete, and no group has what was given in it."""
    told = event("e", "interaction.resolved", "crm", "2026-01-05T10:00:00Z", interaction_id="I-1")
    views = Views(tmp_path).take(recorded([OPENED, DECISIONS[0], told]))
    report = await quality_report(views.read)
    views.close()
    assert (report["incomplete"], report["overall"]["interactions"]) == (1, 0)
