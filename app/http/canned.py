"""Canned responses: staff read and use them, admins keep them."""

from __future__ import annotations

from sanic.response import HTTPResponse, empty

from app.chat import canned
from app.http import models_desk as models
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("canned-responses")


@endpoints.add(
    "GET",
    "/api/v1/canned-responses",
    "Canned responses, by shortcut",
    audience="staff",
    permission="directory",
    query=models.CannedResponseQuery,
    answers={200: models.CannedResponsePage},
    etag=True,
)
async def list_canned_responses(call: Call) -> HTTPResponse:
    """Those for every inbox, and those of the inboxes that the caller sees."""
    query = call.query
    items, next_cursor = await call.context.database.run(
        canned.find,
        call.context.database,
        call.agent,
        prefix=query.query,
        inbox_id=query.inbox,
        cursor=query.cursor,
        limit=query.limit,
    )
    return json({"items": items, "next_cursor": next_cursor})


@endpoints.add(
    "GET",
    "/api/v1/canned-responses/{response_id}",
    "One canned response",
    audience="staff",
    permission="directory",
    answers={200: models.CannedResponse},
    problems=("not_found",),
)
async def get_canned_response(call: Call) -> HTTPResponse:
    """As it is written, with its variables."""
    return json(
        await call.context.database.run(
            canned.one, call.context.database, call.agent, call.ids["response_id"]
        )
    )


@endpoints.add(
    "POST",
    "/api/v1/canned-responses",
    "Make a canned response",
    audience="staff",
    permission="canned_responses.manage",
    body=models.NewCannedResponse,
    answers={201: models.CannedResponse},
    problems=("forbidden", "conflict", "message_too_long"),
)
async def create_canned_response(call: Call) -> HTTPResponse:
    """Shortcuts differ by more than their case."""
    body = call.body
    made = await call.context.database.run(
        canned.create,
        call.context.database,
        call.actor,
        shortcut=body.shortcut,
        title=body.title,
        body=body.body,
        inbox_id=body.inbox_id,
    )
    return json(made, 201)


@endpoints.add(
    "PATCH",
    "/api/v1/canned-responses/{response_id}",
    "Change a canned response",
    audience="staff",
    permission="canned_responses.manage",
    body=models.CannedResponseChange,
    answers={200: models.CannedResponse},
    problems=("forbidden", "not_found", "conflict", "message_too_long"),
)
async def change_canned_response(call: Call) -> HTTPResponse:
    """What was sent with it stays as it was sent."""
    return json(
        await call.context.database.run(
            canned.change,
            call.context.database,
            call.actor,
            call.ids["response_id"],
            call.body.model_dump(exclude_unset=True),
        )
    )


@endpoints.add(
    "DELETE",
    "/api/v1/canned-responses/{response_id}",
    "Delete a canned response",
    audience="staff",
    permission="canned_responses.manage",
    answers={204: None},
    problems=("forbidden", "not_found"),
)
async def delete_canned_response(call: Call) -> HTTPResponse:
    """For good."""
    await call.context.database.run(
        canned.remove, call.context.database, call.actor, call.ids["response_id"]
    )
    return empty()


@endpoints.add(
    "POST",
    "/api/v1/canned-responses/{response_id}/render",
    "Fill a canned response for a conversation",
    audience="staff",
    permission="conversations",
    body=models.RenderRequest,
    answers={200: models.Rendered},
    problems=("not_found", "conflict"),
)
async def render_canned_response(call: Call) -> HTTPResponse:
    """Variables without a value stay visible and are named, so that nobody sends them unseen."""
    body, unknown = await call.context.database.run(
        canned.render,
        call.context.database,
        call.agent,
        call.ids["response_id"],
        call.body.conversation_id,
    )
    return json({"body": body, "unknown_variables": unknown})
