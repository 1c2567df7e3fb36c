"""Installations: the base, its extras and the image."""

import re
import subprocess
import sys
import tomllib

import pytest

from tests.support.environment import ROOT, clean_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def pinned(name: str) -> dict[str, str]:
    """Return the packages that a file of requirements pins, with their versions; each has hashes."""
    text = (ROOT / name).read_text()
    assert "://" not in text
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+).*\\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^[\w.-]+.*==", text, re.MULTILINE))
    return dict(found)


def test_the_image_holds_no_development_tools() -> None:
    everything, image, build = map(pinned, ("requirements.txt", "requirements-image.txt", "requirements-build.txt"))
    assert image.items() <= everything.items()
    assert build.items() <= everything.items()
    tools = {name_of(one) for group in PROJECT["dependency-groups"].values() for one in group if isinstance(one, str)}
    assert image.keys() & tools == set()
    extras = [one for extra in PROJECT["project"]["optional-dependencies"].values() for one in extra]
    assert {name_of(one) for one in [*PROJECT["project"]["dependencies"], *extras]} <= image.keys()
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    assert [line for line in stages[-1].splitlines() if line.startswith("COPY")] == ["COPY --from=build /venv /venv"]
    installed = [line for line in stages[-2].splitlines() if "/venv/bin/pip install" in line]
    assert [re.findall(r"--require-hashes -r (\S+)|--no-deps --no-index (\S+)", line) for line in installed] == [
        [("requirements-image.txt", "")],
        [("", "/wheel/*.whl")],
    ]


def name_of(requirement: str) -> str:
    """Return the name of the package that a requirement asks for."""
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return found[0].lower()


@pytest.mark.integration
def test_a_health_check_loads_no_large_library() -> None:
    """Compose asks each container every minute: sixteen of them, on one machine."""
    text = """
import sys
from app.cli.main import cli
cli.get_command(None, "admin").get_command(None, "doctor")
import app.health.examination, app.health.role_checks
print(*sorted({"numpy", "sqlalchemy", "faststream", "fastapi", "eventsourcing"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"


@pytest.mark.integration
def test_large_libraries_are_loaded_by_no_role_and_no_command_of_the_base() -> None:
    """Every module except those of the extras loads while libraries outside of the base cannot be imported."""
    text = """
import importlib, pathlib, sys
for name in ("pyarrow", "scipy", "datafusion", "pandas", "polars", "duckdb", "mcp", "opentelemetry.sdk"):
    sys.modules[name] = None
for path in sorted(pathlib.Path().glob("*/**/*.py")):
    if path.parts[0] in sys.argv[1:] and path.stem not in ("__main__", "parquet", "mcp_server", "spans") and path.parts[1] != "importing":
        importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
from ledger.errors import MissingExtraError
try:
    import ledger.archive.parquet
except MissingExtraError as error:
    print(error)
try:
    import app.importing.database
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", text, *PACKAGES],
        cwd=ROOT,
        env=clean_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert (
        done.stdout
        == "Parquet files need the extra `archive`: pip install 'resolution-ledger[archive]'\nImports need the extra `import`: pip install 'resolution-ledger[import]'\n"
    )


def test_every_extra_is_documented() -> None:
    table = (
        (ROOT / "docs" / "start" / "install.md")
        .read_text()
        .partition("| extra | brings | for |\n")[2]
        .partition("\n\n")[0]
    )
    documented = dict(re.findall(r"^\| `(\w+)` \| ([\w ,-]+)", table, re.MULTILINE))
    assert documented.keys() == PROJECT["project"]["optional-dependencies"].keys()
    for extra, requirements in PROJECT["project"]["optional-dependencies"].items():
        assert all(name_of(one) in documented[extra] for one in requirements), extra
