"""The units of config/systemd: systemd itself accepts them, each role can be an instance, and they have few rights."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.runtime.roles import ROLES
from config.settings import HELP, PREFIX
from tests.support.environment import ROOT

FOLDER = ROOT / "config" / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
PROGRAM = "/opt/resolution-ledger/bin/resolution-ledger"
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "RestrictSUIDSGID": "yes",
    "User": "resolution-ledger",
    "StateDirectory": "resolution-ledger",
}
MOST_EXPOSED = 2.0
"""systemd's own measure, from 0 (safe) to 10."""
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")


def section(unit: str, name: str) -> dict[str, list[str]]:
    """Return the settings of a section, each with its values in their order."""
    found: dict[str, list[str]] = {}
    text = re.split(r"^\[(\w+)\]$", (FOLDER / unit).read_text(), flags=re.MULTILINE)
    for line in dict(zip(text[1::2], text[2::2], strict=True))[name].splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_there_is_a_unit_for_everything_and_one_for_each_role() -> None:
    assert UNITS == ["resolution-ledger.service", "resolution-ledger@.service"]
    assert section(UNITS[0], "Service")["ExecStart"] == [f"{PROGRAM} up"]
    assert section(UNITS[1], "Service")["ExecStart"] == [f"{PROGRAM} run %i"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_has_few_rights_and_starts_again(unit: str) -> None:
    service = section(unit, "Service")
    assert {name: service[name] for name in HARDENED} == {name: [value] for name, value in HARDENED.items()}
    assert service["Restart"] == ["always"]
    assert service["MemoryMax"]
    assert section(unit, "Unit")["StartLimitIntervalSec"] == ["0"]  # else systemd gives up after five starts
    for one in service["Environment"]:
        name = one.partition("=")[0]
        assert name.removeprefix(PREFIX).lower() in HELP
    assert not re.search(r"PASSWORD|TOKEN", (FOLDER / unit).read_text())
    assert re.search(r"^u resolution-ledger ", (FOLDER / "sysusers.conf").read_text(), re.MULTILINE)


def installed(folder: Path) -> list[Path]:
    """Return the units as they would be installed here, one for each role, with a program and a user that exist."""
    names = ["resolution-ledger.service", *(f"resolution-ledger@{role}.service" for role in ROLES)]
    for name in names:
        text = (FOLDER / re.sub("@.*", "@.service", name)).read_text()
        text = text.replace(PROGRAM, sys.executable).replace("User=resolution-ledger", "User=root")
        (folder / name).write_text(text)
    return [folder / name for name in names]


@pytest.mark.integration
@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    units = installed(tmp_path)
    verify = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line] == []
    assert done.returncode == 0, done.stderr
    units[0].write_text(units[0].read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in subprocess.run(verify, capture_output=True, text=True, check=False).stderr


@pytest.mark.integration
@needs_systemd
def test_systemd_counts_little_exposure(tmp_path: Path) -> None:
    for unit in installed(tmp_path)[:2]:
        unit.write_text(unit.read_text().replace("User=root", "User=daemon"))
        words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
        assert found, done.stdout + done.stderr
        assert float(found[1]) <= MOST_EXPOSED
