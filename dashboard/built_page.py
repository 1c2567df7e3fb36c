"""The files of the web page as `hatch_build.py` built them, checked against the hashes of their manifest."""

from __future__ import annotations

import base64
import gzip
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

BUILT = Path(__file__).parent / "web" / "built"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FOREVER = "public, max-age=31536000, immutable"
_HASHED = ("page-", "part-")
"""The first letters of names that hold a hash of the content."""


class PageNotBuiltError(Exception):
    """The page was not built, or one of its files was changed."""


class PageFile(NamedTuple):
    """A file of the page: its content as it is and compressed, its media type, and how long a browser may keep it."""

    content: bytes
    compressed: bytes
    media_type: str
    cache_control: str


class BuiltPage(NamedTuple):
    """The files of the page by name, and the hash of its only inline script, as a Content-Security-Policy names it."""

    files: dict[str, PageFile]
    inline_script: str


class _Manifest(msgspec.Struct):
    inline_script: str
    files: dict[str, str]


@cache
def built_page(folder: Path = BUILT) -> BuiltPage:
    """Return the built page.

    Raises:
        PageNotBuiltError: the folder holds no whole build.

    """
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=_Manifest)
        files = {name: _checked(folder / name, expected) for name, expected in manifest.files.items()}
    except (OSError, msgspec.MsgspecError) as error:
        raise PageNotBuiltError(f"the page is not built ({error}): run `make setup` in a checkout") from None
    return BuiltPage(files, manifest.inline_script)


def _checked(path: Path, expected: str) -> PageFile:
    """Return a file, if its SHA-384 is the expected one."""
    content = path.read_bytes()
    if base64.b64encode(hashlib.sha384(content).digest()).decode() != expected.removeprefix("sha384-"):
        raise PageNotBuiltError(f"{path.name} of the page is not the file that was built: install the package again")
    kept = _FOREVER if path.name.startswith(_HASHED) else "no-cache"
    return PageFile(content, gzip.compress(content, mtime=0), _TYPES[path.suffix], kept)
