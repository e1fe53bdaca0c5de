"""Search over messages and visitors, for staff."""

from __future__ import annotations

from sanic.response import HTTPResponse
from sqlalchemy import Connection

from app.chat import search
from app.http import models_search as models
from app.http.endpoint import Call, Endpoints, json
from app.http.inbox import READ_HEADER, READ_HEADERS

endpoints = Endpoints("search")


@endpoints.add(
    "GET",
    "/api/v1/search",
    "Find messages and visitors",
    audience="staff",
    permission="conversations",
    query=models.SearchQuery,
    answers={200: models.SearchPage},
    problems=("search_too_broad",),
    headers=READ_HEADERS,
)
async def find(call: Call) -> HTTPResponse:
    """Only in the caller's inboxes; notes are found too. New messages are found within seconds."""
    asked = call.query
    query = search.Query(asked.q, asked.type, asked.inbox, asked.cursor, asked.limit)

    def work(connection: Connection) -> tuple[list[dict[str, object]], str | None]:
        return search.find(connection, call.agent, query)

    (items, next_cursor), target = await call.context.late.read(work)
    return json({"items": items, "next_cursor": next_cursor}, headers={READ_HEADER: target})
