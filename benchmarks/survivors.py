"""The mutants of the reports that no oracle notices, each with the reason: `tests/reports/oracle/survivors.toml`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.mutations import mutants_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.mutations import Mutant

FILE = Path(__file__).parent.parent / "tests" / "reports" / "oracle" / "survivors.toml"
_HEAD = """# Changes of a comparison, number or operator of the reports that no oracle notices, each with the reason.
# Written by `python -m benchmarks.mutants --write`; reasons are written by hand.
"""


def reasons() -> dict[str, dict[str, str]]:
    """Return the reasons by module and mutant."""
    return tomllib.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def write(left: Sequence[Mutant], modules: Sequence[str]) -> None:
    """Write the survivors of modules; reasons stay, and those of other modules, too."""
    known = reasons()
    found = {name: lines for name, lines in known.items() if name not in modules}
    for one in left:
        text = known.get(one.module, {}).get(_name(one), "")
        found.setdefault(one.module, {})[_name(one)] = text
    parts = [_HEAD]
    for module, lines in sorted(found.items()):
        parts.append(f'\n["{module}"]\n')
        parts += [f"{_quoted(name)} = {_quoted(text)}\n" for name, text in lines.items()]
    FILE.write_text("".join(parts), encoding="utf-8")


def problems(left: Sequence[Mutant], modules: Sequence[str]) -> list[str]:
    """Return the lines about survivors without a reason, and about listed mutants that an oracle notices."""
    known = reasons()
    alive = {(one.module, _name(one)) for one in left}
    listed = {(name, mutant) for name in modules for mutant in known.get(name, {})}
    return [
        *(f"not in {FILE.name}: {module}: {name}" for module, name in sorted(alive - listed)),
        *(f"noticed, but in {FILE.name}: {module}: {name}" for module, name in sorted(listed - alive)),
        *(f"no reason in {FILE.name}: {module}: {name}" for module, name in without_reason(known)),
    ]


def without_reason(known: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the module and name of each listed mutant without a reason."""
    for module, lines in known.items():
        yield from ((module, name) for name, text in lines.items() if not text)


def unknown(known: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the listed mutants that the modules no longer have."""
    return [
        f"{module}: {name}"
        for module, lines in known.items()
        for name in lines.keys() - {_name(one) for one in mutants_of(module)}
    ]


def _name(mutant: Mutant) -> str:
    return f"{mutant.where}: {mutant.change}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
