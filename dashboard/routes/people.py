"""Routes of people: the employees with their names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import sqlalchemy as sa  # noqa: TC002 - the functions that read have it in their signatures
from fastapi import Depends, FastAPI, Response

from dashboard.list_query import (  # noqa: TC001 - FastAPI reads the annotations
    AfterKey,
    ByKey,
    PageQuery,
    PastQuery,
)
from dashboard.list_reader import Listing, ListReader, check_cursor
from dashboard.openapi import answers
from dashboard.schemas import KeyPage
from domain.documents.rows import EmployeeRow
from domain.serialization import encode
from projections.engine.pages import cursor_of, key_of
from projections.views.people import employees as employees_table
from projections.views.people import read_employees

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.list_reader import Cursor
    from ledger.encryption.keyring import Keyring
    from projections.engine.storage import Row


def add_people_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of people."""
    lists, authorizer, keys = ListReader(context.views, context.log), context.authorizer, context.keys
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/employees",
        responses=answers(KeyPage[EmployeeRow], csv=True),
        summary="The employees that the caller sees, with names, roles, teams and managers",
    )
    async def employees(
        page: Annotated[PageQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        after: AfterKey = None,
        order: ByKey = "asc",
        viewer: Principal = caller,
    ) -> Response:
        at, scope = await lists.at(past.as_of), await authorizer.scope(viewer)

        def read(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> list[Row]:
            key = None if after is None else key_of(employees_table, str(after))
            down = order == "desc"
            return read_employees(connection, scope.people, at, after=key, limit=limit, descending=down)

        async def named(found: list[Row]) -> list[Row]:
            return await readable(keys, found, ("name", "manager_name"))

        def cursor(row: Row) -> str:
            return cursor_of([row["employee_id"]])

        check_cursor(employees_table, after)
        return await lists.answer(Listing("employees", "people", read, cursor, after, at, named), page, viewer)


async def readable(keys: Keyring, rows: list[Row], fields: Sequence[str]) -> list[Row]:
    """Return rows with these encrypted fields decrypted; null where the key was destroyed."""
    found: list[Row] = json.loads(await keys.decrypt_fields(encode(rows)))
    for shown, stored in zip(found, rows, strict=True):
        for field in fields:
            if shown[field] == stored[field]:  # it is still as it was stored
                shown[field] = None
    return found
