"""The OpenAPI document of this version, and the check that answers of a dashboard are as it says."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from jsonschema_rs import Draft202012Validator

from dashboard.application import make_api
from dashboard.auth.authorization import Authorizer
from dashboard.context import ApiContext
from dashboard.metrics import Metrics
from dashboard.openapi import openapi_document
from ledger.transparency.sealer import SealFolder
from tests.support.documents import Document


@cache
def api_document() -> Document:
    """Return the OpenAPI document, as `/openapi.json` has it."""
    nothing: Any = None
    authorizer = Authorizer(nothing, "token", nothing, nothing)
    context = ApiContext(
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        authorizer,
        nothing,
        nothing,
        SealFolder(Path("no-such-folder")),
        nothing,
        frozenset(),
        Metrics(nothing, nothing, Path("no-such-folder")),
        nothing,
        nothing,
    )
    document: Document = json.loads(json.dumps(openapi_document(make_api(context))))
    return document


def closed(schema: Any) -> Any:
    """Return a schema that allows no fields but the described ones, so that each field of an answer is described."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(one) for name, one in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        inner.setdefault("additionalProperties", False)
    return inner


@cache
def _components() -> Document:
    return {"schemas": closed(api_document()["components"]["schemas"])}


@cache
def validator_of(schema: str) -> Draft202012Validator:
    """Return a validator by a schema of the document, given as JSON, without undescribed fields."""
    return Draft202012Validator({**closed(json.loads(schema)), "components": _components()}, validate_formats=True)


@cache
def _routes() -> list[tuple[re.Pattern[str], Document]]:
    paths = sorted(api_document()["paths"].items(), key=lambda item: "{" in item[0])
    return [
        (re.compile(re.sub(r"\\{id\\}", ".+", re.sub(r"\\{(?!id\\})\w+\\}", "[^/]+", re.escape(path)))), operations)
        for path, operations in paths
    ]


async def check_answer(response: httpx.Response) -> None:
    """Assert that the document describes an answer: its status, its media type and its content. A hook of httpx."""
    path, method = response.request.url.path, response.request.method.lower()
    operations = next((found for pattern, found in _routes() if pattern.fullmatch(path)), None)
    if operations is None or method not in operations or response.status_code == 304:
        return
    described = operations[method]["responses"].get(str(response.status_code))
    assert described is not None, f"{method} {path} answers {response.status_code}, which no document describes"
    media_type = response.headers.get("content-type", "").partition(";")[0]
    content = described.get("content", {})
    if not media_type or media_type == "text/event-stream":
        return
    assert media_type in content, f"{method} {path} answers {media_type}, which no document describes"
    if media_type.endswith("json"):
        await response.aread()
        validator = validator_of(json.dumps(content[media_type]["schema"]))
        faults = [f"{list(one.instance_path)}: {one.message[:200]}" for one in validator.iter_errors(response.json())]
        assert faults == [], f"{method} {path} answers otherwise than its schema says: {response.text[:500]}"
