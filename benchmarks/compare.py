"""Stored results over time: ``python -m benchmarks.compare [FILE...] [--json] [--markdown]``.

Without files: all in `.benchmarks/`, after `benchmarks/reference.json`. Absolute figures depend on the machine as much
as on the program; ratios to rivals in the same run are comparable. ``--markdown`` prints the last file as in
`docs/understand/performance.md`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contest import text

REFERENCE = Path(__file__).parent / "reference.json"
KEPT = Path(".benchmarks")


def changes(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each benchmark our medians and the ratios to each rival, in the order of the documents."""
    found: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        for result in document["results"]:
            found.setdefault(result["name"], []).append(result)
    return [
        {
            "name": name,
            "unit": results[-1]["unit"],
            "ours": [result["medians"][result["ours"]] for result in results],
            "ratios": {
                rival: [result["ratios"][rival] for result in results if rival in result["ratios"]]
                for rival in results[-1]["ratios"]
            },
        }
        for name, results in found.items()
    ]


def markdown(document: dict[str, Any]) -> str:
    """Return a table of one run."""
    lines = ["| | | median | ours is | target | CPU, of one core |", "|---|---|---|---|---|---|"]
    for result in document["results"]:
        for number, (name, median) in enumerate(result["medians"].items()):
            ratio = result["ratios"].get(name)
            need = result["needs"].get(name)
            cpu = (
                ""
                if number
                else ", ".join(f"{process} {share:.0f} %" for process, share in result["cpu_percent"].items())
            )
            lines.append(
                f"| {'' if number else result['name']} | {name} | {text(median)} {result['unit']} "
                f"| {'' if ratio is None else f'{ratio:.2f} x'} | {'' if need is None else f'{need:g} x'} | {cpu} |"
            )
    return "\n".join(lines) + "\n"


def show(documents: list[dict[str, Any]]) -> None:
    """Print a row for each rival: the ratios of all runs, oldest first."""
    table = Table(title=" -> ".join(f"{one['when'][:16]} ({one['commit']})" for one in documents))
    for heading in ("", "ours", "rival", "ours is, times"):
        table.add_column(heading)
    for change in changes(documents):
        ours = " ".join(text(figure) for figure in change["ours"]) + f" {change['unit']}"
        for number, (rival, ratios) in enumerate(change["ratios"].items()):
            history = " ".join(f"{ratio:.2f}" for ratio in ratios)
            table.add_row("" if number else change["name"], "" if number else ours, rival, history)
    Console(width=160).print(table)


def main() -> None:
    """Read the results and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    files = options.files or [path for path in (REFERENCE, *sorted(KEPT.glob("*.json"))) if path.exists()]
    if not files:
        parser.error("nothing is kept yet: run `make bench-rivals` first")
    try:
        documents = sorted((json.loads(path.read_text()) for path in files), key=lambda document: str(document["when"]))
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"a file of results cannot be read: {error}")
    documents = [one for number, one in enumerate(documents) if one not in documents[:number]]  # the reference, again
    if options.markdown:
        print(markdown(documents[-1]), end="")
    elif options.json:
        print(json.dumps(changes(documents)))
    else:
        show(documents)


if __name__ == "__main__":
    main()
