"""Store the last whole run as the reference, and write its table into `docs/understand/performance.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.compare import KEPT, REFERENCE, markdown

PAGE = Path(__file__).parents[1] / "docs" / "understand" / "performance.md"
BEGIN, END = "<!-- table: benchmarks/reference.json -->\n", "<!-- end of table -->\n"


def with_table(page: str, table: str) -> str:
    """Return the page with this table in place of the old one."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table + END + rest.partition(END)[2]


def main() -> None:
    """Use the newest stored run of full size with every part."""
    for path in sorted(KEPT.glob("*.json"), reverse=True):
        document = json.loads(path.read_text())
        if document["scale"] == 1 and not document["only"]:
            REFERENCE.write_text(json.dumps(document, indent=1) + "\n")
            PAGE.write_text(with_table(PAGE.read_text(), markdown(document)))
            return
    sys.exit("no whole run is kept: run `make bench-rivals` first")


if __name__ == "__main__":
    main()
