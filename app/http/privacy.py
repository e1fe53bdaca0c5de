"""A person's data: given out, or erased. For admins."""

from __future__ import annotations

import asyncio
from typing import Final

from sanic.response import HTTPResponse

from app.chat import privacy
from app.http import models_privacy as models
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("privacy")

ZIP: Final = "application/zip"


@endpoints.add(
    "POST",
    "/api/v1/visitors/{visitor_id}/export",
    "Everything that is stored about a person",
    audience="staff",
    permission="visitors.export",
    answers={200: None},
    problems=("forbidden", "not_found"),
    headers={"Content-Disposition": "attachment"},
    limit="exports",
    media=(ZIP,),
)
async def export_visitor(call: Call) -> None:
    """A ZIP file: export.json with the visitor, pages, conversations, messages and notes, and the
    files. Noted in the audit log. A merged visitor gives the person it turned out to be."""
    context = call.context
    whose = await context.database.run(
        privacy.begin_export, context.database, call.agent, call.actor, call.ids["visitor_id"]
    )
    step = privacy.steps(privacy.export(context.database, whose))
    # before the answer begins: what fails here is still told as a problem
    piece = await asyncio.to_thread(step)
    response = await call.request.respond(
        content_type=ZIP,
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="visitor-{whose.id}.zip"',
        },
    )
    # a failure from here on cuts the connection: the file has no end then, and does not open
    while piece is not None:
        if piece:
            await response.send(piece)
        piece = await asyncio.to_thread(step)
    await response.eof()


@endpoints.add(
    "POST",
    "/api/v1/visitors/{visitor_id}/erase",
    "Erase a person",
    audience="staff",
    permission="visitors.erase",
    body=models.Erasure,
    answers={200: models.Erased},
    problems=("forbidden", "not_found"),
)
async def erase_visitor(call: Call) -> HTTPResponse:
    """What the person wrote, was told and is called goes, with its files, everywhere; conversations
    stay as frames for the reports. It cannot be undone. Called again, it goes on where it ended."""
    context = call.context
    erased = await context.database.run(
        privacy.erase,
        context.database,
        call.agent,
        call.actor,
        call.ids["visitor_id"],
        confirm=call.body.confirm,
    )
    for message in erased.messages:
        context.announcer.message_updated(message)
    for conversation_id in erased.conversation_ids:
        context.announcer.conversation_changed(conversation_id)
    return json(
        {
            "conversations": len(erased.conversation_ids),
            "messages": erased.message_count,
            "attachments": erased.attachment_count,
        }
    )
