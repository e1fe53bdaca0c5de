"""How long things are kept, for admins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sanic.response import HTTPResponse
from sqlalchemy import Connection

from app.chat import retention
from app.http import models_retention as models
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("retention")


@endpoints.add(
    "GET",
    "/api/v1/retention",
    "How long things are kept",
    audience="staff",
    permission="retention.manage",
    answers={200: models.Retention},
    problems=("forbidden",),
)
async def get_retention(call: Call) -> HTTPResponse:
    """The numbers of the installation, and what follows from them for each inbox."""
    database = call.context.database

    def read() -> dict[str, Any]:
        with database.read() as connection:
            return _told(connection)

    return json(await database.run(read))


@endpoints.add(
    "PUT",
    "/api/v1/retention",
    "Set how long things are kept",
    audience="staff",
    permission="retention.manage",
    body=models.RetentionChange,
    answers={200: models.Retention},
    problems=("forbidden",),
)
async def set_retention(call: Call) -> HTTPResponse:
    """The worker begins within the hour: look at the dry run first."""
    database = call.context.database
    values = call.body.model_dump(exclude_unset=True)

    def write() -> dict[str, Any]:
        with database.write() as connection:
            retention.change(connection, call.actor, values)
            return _told(connection)

    return json(await database.run(write))


@endpoints.add(
    "POST",
    "/api/v1/retention/dry-run",
    "Count what would go",
    audience="staff",
    permission="retention.manage",
    body=models.RetentionChange,
    body_optional=True,
    answers={200: models.RetentionPreview},
    problems=("forbidden",),
    limit="exports",
)
async def preview_retention(call: Call) -> HTTPResponse:
    """With the numbers of the body in place of those in force. Nothing is removed."""
    values = call.body.model_dump(exclude_unset=True) if call.body is not None else {}

    def work(connection: Connection) -> dict[str, Any]:
        in_force = retention.rules(connection)
        return retention.preview(connection, retention.Rules(**{**asdict(in_force), **values}))

    made, _ = await call.context.late.read(work)
    return json(made)


def _told(connection: Connection) -> dict[str, Any]:
    in_force = retention.rules(connection)
    return retention.wire(in_force, retention.inboxes(connection, in_force))
