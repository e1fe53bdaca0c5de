"""Files: uploading them to a conversation, and fetching them."""

from __future__ import annotations

import asyncio
import re
from typing import Final
from urllib.parse import quote

from sanic.response import HTTPResponse, empty, raw

from app.chat import attachments, scanner
from app.chat.errors import NotFound
from app.http import models, models_attachments, uploads
from app.http.conditional import matches
from app.http.endpoint import Call, Endpoints, agent_if_any, json

endpoints = Endpoints("attachments")

_TOKEN: Final = re.compile(r"[A-Za-z0-9_\-]{43}")
_UPLOAD_PROBLEMS: Final = (
    "not_found",
    "conflict",
    "attachment_refused",
    "attachment_infected",
    "attachment_type_refused",
    "service_unavailable",
)


@endpoints.add(
    "POST",
    "/api/v1/conversations/{conversation_id}/attachments",
    "Upload a file for a message or a note",
    audience="staff",
    permission="conversations",
    query=models_attachments.UploadQuery,
    upload=True,
    limit="uploads",
    answers={201: models.Attachment},
    problems=_UPLOAD_PROBLEMS,
)
async def upload_attachment(call: Call) -> HTTPResponse:
    """The body is the file. Its id goes into a message's attachment_ids within 24 hours."""
    return await _upload(call)


@endpoints.add(
    "POST",
    "/api/v1/widget/conversations/{conversation_id}/attachments",
    "Upload a file for a message",
    audience="visitor",
    query=models_attachments.UploadQuery,
    upload=True,
    limit="uploads",
    answers={201: models.Attachment},
    problems=(*_UPLOAD_PROBLEMS, "visitor_blocked"),
)
async def upload_own_attachment(call: Call) -> HTTPResponse:
    """The body is the file. Its id goes into a message's attachment_ids within 24 hours."""
    return await _upload(call)


async def _upload(call: Call) -> HTTPResponse:
    context, conversation_id = call.context, call.ids["conversation_id"]
    settings, database = context.settings, context.database
    await database.run(attachments.check_room, database, conversation_id, call.caller)
    with uploads.slot(context):
        content = await uploads.receive(call.request, settings.attachment_max_bytes)
        file = await asyncio.to_thread(
            attachments.examine, call.query.name, content, allowed=settings.attachment_types
        )
        if settings.attachment_scanner:
            await scanner.check(settings.attachment_scanner, content)
        stored = await database.run(
            attachments.store,
            database,
            conversation_id,
            call.caller,
            file,
            scan="clean" if settings.attachment_scanner else "none",
        )
    return json(stored, 201)


@endpoints.add(
    "GET",
    "/api/v1/attachments/{token}",
    "Fetch a file",
    audience="anyone",
    answers={200: None, 304: None},
    problems=("not_found", "service_unavailable"),
    headers={"ETag": "changes with the bytes", "Content-Disposition": "inline or attachment"},
)
async def get_attachment(call: Call) -> HTTPResponse:
    """Whoever knows the address of a file that the visitor may see gets it; a note's file needs a
    login besides. Only PNG, JPEG, GIF and WebP are shown in the browser, the rest is saved."""
    context, token = call.context, call.names["token"]
    if not _TOKEN.fullmatch(token):
        raise NotFound
    agent = await agent_if_any(call.request, context)
    kept = await context.database.run(attachments.find, context.database, token, agent)
    etag = f'"{kept.sha256}"'
    headers = {
        "ETag": etag,
        # kept by the browser, but asked for each time: a deleted file is gone at once
        "Cache-Control": "private, no-cache",
        # nothing in the file runs or loads anything, whatever a browser takes it for
        "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
    }
    if matches(call.request.headers.get("If-None-Match"), etag):
        return empty(304, headers)
    content = await attachments.content(context.routing, kept)
    headers["Content-Disposition"] = _disposition(kept.content_type, kept.name)
    kind = kept.content_type
    return raw(
        content,
        headers=headers,
        content_type=f"{kind}; charset=utf-8" if kind == "text/plain" else kind,
    )


def _disposition(content_type: str, name: str) -> str:
    """Content-Disposition (RFC 6266) with the name in ASCII and, as RFC 8187 says, in full."""
    way = "inline" if content_type in attachments.SHOWN_INLINE else "attachment"
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    return f"{way}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
