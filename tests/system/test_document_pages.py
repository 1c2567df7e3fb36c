"""The pages for beginners, integrators and operators: their blocks run, and each answer is the ledger's own."""

import ast
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.document_pages import LANGUAGES, PageError, PageRun, blocks_of, pages, runs
from tests.support.environment import ROOT
from tests.support.prepared_ledgers import DEMO, PreparedLedger


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_each_block_names_its_language(page: Path) -> None:
    assert [block for block in blocks_of(page.read_text()) if block.language not in LANGUAGES] == []
    assert page.read_text().count("```") == 2 * len(blocks_of(page.read_text()))


PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
    "python": ast.parse,
}


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_each_block_is_well_formed(page: Path) -> None:
    for block in blocks_of(page.read_text()):
        if block.language in PARSERS:
            for text in block.text.splitlines() if block.part.endswith(".jsonl") else [block.text]:
                PARSERS[block.language](text)


RUN_ELSEWHERE = (
    *("README.md", "docs/integrate/eventsourcing.md", "docs/integrate/plugins.md", "docs/start/demo.md"),
    *(f"docs/integrate/connect-{name}.md" for name in ("over-http", "crm", "payments", "till")),
)
"""Pages with a test of their own: below, in test_package.py, test_docs.py, test_plugins.py and test_connect_pages.py."""
DEMO_PAGE = ROOT / "docs" / "start" / "demo.md"


@pytest.mark.integration
@pytest.mark.parametrize("page", [p for p in pages() if runs(p) and name_of(p) not in RUN_ELSEWHERE], ids=name_of)
async def test_the_blocks_of_a_page_run_in_order_in_an_empty_folder(page: Path, tmp_path: Path) -> None:
    missing = [program for program in ("curl", "jq") if f"{program} " in page.read_text() and not shutil.which(program)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    async with PageRun(page.read_text(), tmp_path) as run:
        await run.run()


@pytest.mark.timeout(600)
async def test_the_blocks_of_the_demos_page_run_in_order(
    prepared: Callable[..., PreparedLedger], tmp_path: Path
) -> None:
    """The first block makes the ledger; here it is one that the same command made."""
    text, first = DEMO_PAGE.read_text(), f"```sh\nresolution-ledger {' '.join(DEMO)}\n```\n"
    assert first in text
    prepared(*DEMO)
    (tmp_path / "data").rename(tmp_path / ".resolution-ledger")
    async with PageRun(text.replace(first, ""), tmp_path) as run:
        await run.run()


@pytest.mark.integration
@pytest.mark.parametrize(
    "page",
    [
        "```sh\nfalse\n```\n",
        "```sh\necho a\necho b\n```\n```text\nb\na\n```\n",
        "```python\nprint(1)\n```\n```text\n2\n```\n",
        '```sh\necho \'{"a": 1}\'\n```\n```json answer\n{"a": 2}\n```\n',
    ],
)
async def test_a_page_that_says_something_else_is_noticed(page: str, tmp_path: Path) -> None:
    async with PageRun(page, tmp_path, patience=0) as run:
        with pytest.raises(PageError):
            await run.run()
