"""The pages for beginners, integrators and operators: their blocks run, and each answer is the ledger's own."""

import shutil
from pathlib import Path

import pytest

from tests.support.document_pages import LANGUAGES, PageRun, blocks_of, pages, runs
from tests.support.environment import ROOT


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_each_block_names_its_language(page: Path) -> None:
    assert [block for block in blocks_of(page.read_text()) if block.language not in LANGUAGES] == []
    assert page.read_text().count("```") == 2 * len(blocks_of(page.read_text()))


RUN_ELSEWHERE = ("README.md", "docs/integrate/eventsourcing.md", "docs/integrate/plugins.md")
"""Pages with a test of their own: in test_package.py, test_docs.py and test_plugins.py."""


@pytest.mark.integration
@pytest.mark.parametrize("page", [p for p in pages() if runs(p) and name_of(p) not in RUN_ELSEWHERE], ids=name_of)
async def test_the_blocks_of_a_page_run_in_order_in_an_empty_folder(page: Path, tmp_path: Path) -> None:
    missing = [program for program in ("curl", "jq") if f"{program} " in page.read_text() and not shutil.which(program)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    async with PageRun(page.read_text(), tmp_path) as run:
        await run.run()
