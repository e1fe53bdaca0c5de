"""The audit log, for admins."""

from __future__ import annotations

from typing import Any, Final

import orjson
from sanic.response import HTTPResponse

from app.chat import audit
from app.http import models_audit as models
from app.http import table
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("audit")

NEXT_HEADER: Final = "X-Next-Cursor"
_COLUMNS: Final = (
    "id",
    "at",
    "actor.type",
    "actor.id",
    "actor.name",
    "action",
    "object.type",
    "object.id",
    "address",
    "details",
)


@endpoints.add(
    "GET",
    "/api/v1/audit",
    "Who did which administrative act",
    audience="staff",
    permission="audit.read",
    query=models.AuditQuery,
    answers={200: models.AuditPage},
    problems=("forbidden",),
    headers={NEXT_HEADER: "next_cursor, with CSV"},
    media=(table.CSV,),
)
async def list_audit(call: Call) -> HTTPResponse:
    """Newest first; of every inbox, because most acts belong to none."""
    query, database = call.query, call.context.database
    wanted = audit.Filter(
        query.actor,
        query.action,
        query.object_type,
        query.object_id,
        query.since,
        query.until,
    )

    def read() -> tuple[list[dict[str, Any]], str | None]:
        with database.read() as connection:
            return audit.entries(connection, wanted, cursor=query.cursor, limit=query.limit)

    items, next_cursor = await database.run(read)
    if not table.wanted(call.request, query.format):
        return json({"items": items, "next_cursor": next_cursor})
    response = table.answer(
        "audit", _COLUMNS, ([_cell(item, name) for name in _COLUMNS] for item in items)
    )
    if next_cursor is not None:
        response.headers[NEXT_HEADER] = next_cursor
    return response


def _cell(item: dict[str, Any], name: str) -> Any:
    value: Any = item
    for part in name.split("."):
        value = value[part]
    return orjson.dumps(value).decode() if isinstance(value, dict) else value
