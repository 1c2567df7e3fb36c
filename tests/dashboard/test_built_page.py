"""The built page: hashes, size, and the headers that it is served with."""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import httpx
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from dashboard.built_page import BUILT, PageNotBuiltError, built_page
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from hatch_build import build_page
from tests.support.environment import ROOT

pytestmark = pytest.mark.integration  # a build starts processes
COMPRESSED_AT_MOST = 150_000


@pytest.fixture(scope="module")
def built() -> Path:
    return build_page(ROOT)


def sha384(content: bytes) -> str:
    return f"sha384-{base64.b64encode(hashlib.sha384(content).digest()).decode()}"


def test_the_page_is_small(built: Path) -> None:
    files = built_page(built).files
    assert sum(len(one.compressed) for name, one in files.items() if name != "licenses.txt") < COMPRESSED_AT_MOST


def test_a_changed_or_missing_file_is_noticed(built: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built, tmp_path / "built")
    script = next(folder.glob("page-*.js"))
    script.write_bytes(b"alert(1)")
    with pytest.raises(PageNotBuiltError, match="page-"):
        built_page(folder)
    script.unlink()
    with pytest.raises(PageNotBuiltError, match="page-"):
        built_page(folder)


def test_each_script_of_the_page_carries_its_hash(built: Path) -> None:
    page = (built / "index.html").read_text()
    named = dict(re.findall(r'(?:src|href)="/assets/([^"]+)" integrity="([^"]+)"', page))
    (found,) = re.findall(r'<script type="importmap">(.*?)</script>', page)
    named |= {path.removeprefix("/assets/"): hashed for path, hashed in json.loads(found)["integrity"].items()}
    assert named == {path.name: sha384(path.read_bytes()) for path in built.iterdir() if path.suffix in {".js", ".css"}}
    assert len(re.findall(r"<script", page)) == 2


def test_nothing_of_others_is_shipped_without_its_licence(built: Path) -> None:
    lock = json.loads((ROOT / "dashboard" / "web" / "package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    assert (built / "licenses.txt").exists()


async def test_the_page_is_served_compressed_with_a_strict_policy(session: Session) -> None:
    async with running(session, ["dashboard"], where=ListenAddress(port=0)) as services:
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        async with httpx.AsyncClient(base_url=dashboard.address) as client:
            page = await client.get("/")
            policy = page.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            (inline,) = re.findall(r'<script type="importmap">(.*?)</script>', page.text)
            hashed = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
            assert f"script-src 'self' 'sha256-{hashed}';" in policy
            for name, file in built_page().files.items():
                answer = await client.get(f"/assets/{name}")
                assert answer.content == (BUILT / name).read_bytes() == file.content
                assert answer.headers["Content-Encoding"] == "gzip"
                assert ("immutable" in answer.headers["Cache-Control"]) is name.startswith(("page-", "part-"))
                plain = await client.get(f"/assets/{name}", headers={"Accept-Encoding": "identity"})
                assert plain.content == file.content
                assert "Content-Encoding" not in plain.headers
            assert (await client.get("/assets/manifest.json")).status_code == 404
