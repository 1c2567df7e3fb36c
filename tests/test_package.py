"""The wheel: built, installed into an empty environment, run from another folder."""

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

from support import ROOT, clean_environment


def test_the_wheel_works_in_an_empty_environment(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    assert "config/nats/nats-server.conf" in names
    assert "domain/py.typed" in names
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # Its dependencies are those of this environment, which were pinned by hash; nothing of the checkout.
    (site,) = (environment / "lib").glob("python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    other = tmp_path / "elsewhere"
    other.mkdir()

    def run(*words: str) -> str:
        command = [str(environment / "bin" / "resolution-ledger"), *words]
        return subprocess.run(
            command, cwd=other, env=clean_environment(), check=True, capture_output=True, text=True, timeout=120
        ).stdout

    assert "0.1.0" in run("--version")
    assert '"recorded"' in run("demo", "--no-serve", "--days", "1", "--json")
    assert (other / ".resolution-ledger").is_dir()
    assert "agent:E-" in run("report", "balances")
    where = subprocess.run(
        [str(python), "-c", "import domain; print(domain.__file__)"],
        cwd=other,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert where.startswith(str(environment))


def test_the_image_has_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [package for package in packages if f"COPY {package} {package}" not in lines] == []
