"""Editing and deleting messages."""

from __future__ import annotations

from typing import Final

from sanic.response import HTTPResponse

from app.chat import edits
from app.chat.edits import Changed
from app.chat.errors import NotFound
from app.db import schema
from app.http import models
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("messages")

_EDIT_PROBLEMS: Final = (
    "not_found",
    "forbidden",
    "message_too_long",
    "message_deleted",
    "edit_window_over",
)
_DELETE_PROBLEMS: Final = ("not_found", "forbidden", "edit_window_over")
_SEQ_MAX: Final = 2**31 - 1


@endpoints.add(
    "PATCH",
    "/api/v1/conversations/{conversation_id}/messages/{stream}/{seq}",
    "Edit an own message",
    audience="staff",
    permission="conversations",
    body=models.MessageEdit,
    answers={200: models.Message},
    problems=_EDIT_PROBLEMS,
)
async def edit_message(call: Call) -> HTTPResponse:
    """Within DESKLINE_MESSAGE_EDIT_SECONDS after sending."""
    return await _edit(call, _stream(call))


@endpoints.add(
    "DELETE",
    "/api/v1/conversations/{conversation_id}/messages/{stream}/{seq}",
    "Delete an own message; admins: any",
    audience="staff",
    permission="conversations",
    answers={200: models.Message},
    problems=_DELETE_PROBLEMS,
)
async def delete_message(call: Call) -> HTTPResponse:
    """Its place stays, without text and files. Admins are not bound to the time."""
    return await _remove(call, _stream(call))


@endpoints.add(
    "PATCH",
    "/api/v1/widget/conversations/{conversation_id}/messages/{seq}",
    "Edit an own message",
    audience="visitor",
    body=models.MessageEdit,
    answers={200: models.Message},
    problems=(*_EDIT_PROBLEMS, "visitor_blocked"),
)
async def edit_own_message(call: Call) -> HTTPResponse:
    """Within DESKLINE_MESSAGE_EDIT_SECONDS after sending."""
    return await _edit(call, schema.PUBLIC)


@endpoints.add(
    "DELETE",
    "/api/v1/widget/conversations/{conversation_id}/messages/{seq}",
    "Delete an own message",
    audience="visitor",
    answers={200: models.Message},
    problems=_DELETE_PROBLEMS,
)
async def delete_own_message(call: Call) -> HTTPResponse:
    """Its place stays, without text and files."""
    return await _remove(call, schema.PUBLIC)


async def _edit(call: Call, stream: int) -> HTTPResponse:
    context = call.context
    return _answer(
        call,
        await context.database.run(
            edits.edit,
            context.database,
            call.caller,
            conversation_id=call.ids["conversation_id"],
            stream=stream,
            seq=_seq(call),
            body=call.body.body,
            window_seconds=context.settings.message_edit_seconds,
        ),
    )


async def _remove(call: Call, stream: int) -> HTTPResponse:
    context = call.context
    return _answer(
        call,
        await context.database.run(
            edits.remove,
            context.database,
            call.caller,
            conversation_id=call.ids["conversation_id"],
            stream=stream,
            seq=_seq(call),
            window_seconds=context.settings.message_edit_seconds,
            actor=call.actor if call.session is not None else None,
        ),
    )


def _answer(call: Call, changed: Changed) -> HTTPResponse:
    if changed.changed:
        call.context.announcer.message_updated(changed.message)
    return json(changed.message)


def _stream(call: Call) -> int:
    stream = schema.STREAMS.get(call.names["stream"])
    if stream is None:
        raise NotFound
    return stream


def _seq(call: Call) -> int:
    text = call.names["seq"]
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > _SEQ_MAX:
        raise NotFound
    return int(text)
