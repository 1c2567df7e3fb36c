"""The wheel: built, installed into an empty environment, run from other folders, also as the README says."""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import resolution_ledger
from dashboard.built_page import built_page
from tests.support.document_pages import PageRun
from tests.support.environment import ROOT, clean_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
DOWNLOADS = "WHEEL_WITH_DEPENDENCIES"
"""An environment variable: with it the dependencies are installed as a user's pip does it (`make wheel-check`)."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with the wheel and its dependencies, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    if os.environ.get(DOWNLOADS):
        subprocess.run([*install, f"{wheel}[embedded]"], check=True)
        return folder
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    # Its dependencies are those of this environment, which were pinned by hash.
    (site,) = (folder / "lib").glob("python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(environment: Path, folder: Path, *words: str, **variables: str) -> str:
    command = [str(environment / "bin" / words[0]), *words[1:]]
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean_environment() | variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.integration
def test_the_wheel_holds_the_packages_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    shipped = {"nats/nats-server.conf", "prometheus/alerts.yml", "grafana/resolution-ledger.json"}
    assert {f"config/{name}" for name in shipped} <= set(names)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


@pytest.mark.integration
def test_the_wheel_holds_the_built_page_and_none_of_its_sources(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    web = tmp_path / "dashboard" / "web"
    assert [path.name for path in web.iterdir()] == ["built"]
    assert "index.html" in built_page(web / "built").files


@pytest.mark.integration
def test_a_wheel_from_the_source_distribution_needs_no_registry_of_npm(tmp_path: Path) -> None:
    """The source distribution holds the built page, which is not built again."""
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    offline = clean_environment() | {"npm_config_registry": "http://127.0.0.1:9", "npm_config_fetch_retries": "0"}
    offline["npm_config_cache"] = str(tmp_path / "cache")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(source)]
    assert subprocess.run(build, check=False, capture_output=True, env=offline).returncode == 0


@pytest.mark.integration
def test_the_wheel_works_beside_packages_with_our_names(environment: Path, tmp_path: Path) -> None:
    for name in ("app", "config", "domain"):
        for home in (tmp_path, tmp_path / "packages"):
            (home / name).mkdir(parents=True)
            (home / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    variables = {"PYTHONPATH": str(tmp_path / "packages")}

    def ledger(*words: str) -> str:
        return run(environment, tmp_path, "resolution-ledger", *words, **variables)

    assert resolution_ledger.__version__ in ledger("--version")
    assert '"recorded"' in ledger("demo", "--no-serve", "--days", "1", "--json")
    assert (tmp_path / ".resolution-ledger").is_dir()
    assert "agent:E-" in ledger("report", "balances")
    where = run(environment, tmp_path, "python", "-P", "-c", "import domain; print(domain.__file__)")
    assert where.startswith(str(environment))


@pytest.mark.integration
async def test_the_readmes_blocks_run_in_order_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    announcement = tmp_path / ".resolution-ledger" / "connection.json"
    async with PageRun((ROOT / "README.md").read_text(), tmp_path, binaries=environment / "bin") as readme:
        await readme.run()
        assert announcement.exists()
    assert not announcement.exists()


def test_the_public_face_is_documented_and_names_the_private_packages() -> None:
    page = "".join((ROOT / "docs" / "integrate" / name).read_text() for name in ("plugins.md", "client.md"))
    for text, mark in ((page, "`"), (resolution_ledger.__doc__ or "", "``")):
        for name in [*resolution_ledger.__all__, *PACKAGES]:
            if name != "__version__" or text is page:
                assert f"{mark}{name}{mark}" in text, name
    for name in resolution_ledger.__all__:
        assert getattr(resolution_ledger, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Guard'"):
        resolution_ledger.Guard  # type: ignore[attr-defined]  # noqa: B018 - the access is the test
    assert importlib.metadata.version("resolution-ledger") == resolution_ledger.__version__


def test_the_image_has_every_package() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [package for package in PACKAGES if f"COPY {package} {package}" not in lines] == []
