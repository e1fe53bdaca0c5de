"""A conversation to keep: fetched, or sent by mail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final
from zoneinfo import ZoneInfo

from sanic.response import HTTPResponse, empty

from app.chat import transcripts
from app.chat.errors import Refused
from app.chat.transcripts import Form
from app.http import models_transcripts as models
from app.http.endpoint import Call, Endpoints

endpoints = Endpoints("transcripts")

_MEDIA: Final = {
    "html": "text/html; charset=utf-8",
    "text": "text/plain; charset=utf-8",
    "json": "application/json",
}
_ENDINGS: Final = {"html": "html", "text": "txt", "json": "json"}
_HEADERS: Final = {"Content-Disposition": "attachment, with a file name"}
# what is sent at once
_CHUNK_BYTES: Final = 64 * 1024
_MAIL_PROBLEMS: Final = ("not_found", "mail_not_configured")


@endpoints.add(
    "GET",
    "/api/v1/conversations/{conversation_id}/transcript",
    "A conversation to keep",
    audience="staff",
    permission="conversations",
    query=models.TranscriptQuery,
    answers={200: models.Transcript},
    problems=("not_found",),
    headers=_HEADERS,
    limit="exports",
    media=("text/html", "text/plain"),
)
async def get_transcript(call: Call) -> None:
    """As an HTML page, as text, or as JSON; on request with the notes."""
    await _stream(call, notes=call.query.notes)


@endpoints.add(
    "GET",
    "/api/v1/widget/conversations/{conversation_id}/transcript",
    "The own conversation to keep",
    audience="visitor",
    query=models.WidgetTranscriptQuery,
    answers={200: models.Transcript},
    problems=("not_found",),
    headers=_HEADERS,
    limit="exports",
    media=("text/html", "text/plain"),
)
async def get_own_transcript(call: Call) -> None:
    """As an HTML page, as text, or as JSON; notes never appear."""
    await _stream(call, notes=False)


@endpoints.add(
    "POST",
    "/api/v1/conversations/{conversation_id}/transcript/mail",
    "Send a conversation by mail",
    audience="staff",
    permission="conversations",
    body=models.TranscriptMail,
    answers={202: None},
    problems=_MAIL_PROBLEMS,
    limit="exports",
)
async def mail_transcript(call: Call) -> HTTPResponse:
    """Without notes; noted in the audit log. At most five mails an hour for a conversation."""
    return await _mail(call)


@endpoints.add(
    "POST",
    "/api/v1/widget/conversations/{conversation_id}/transcript/mail",
    "Send the own conversation by mail",
    audience="visitor",
    body=models.WidgetTranscriptMail,
    answers={202: None},
    problems=(*_MAIL_PROBLEMS, "visitor_blocked"),
    limit="exports",
)
async def mail_own_transcript(call: Call) -> HTTPResponse:
    """To the visitor's own address, or to a given one. In an hour at most five mails of a
    conversation, five to an address, and twenty from a client's network."""
    return await _mail_to_anybody(call)


async def _stream(call: Call, *, notes: bool) -> None:
    context, kind = call.context, call.query.format
    conversation_id = call.ids["conversation_id"]
    head = await context.database.run(
        transcripts.begin, context.database, call.caller, conversation_id, notes=notes
    )
    form = _form(call, call.query)

    def begin() -> tuple[Iterator[bytes], bytes]:
        found = transcripts.pieces(context.database, head, form, kind)
        return found, _chunk(found)

    # the first chunk before the answer begins: what fails here is still told as a problem
    found, chunk = await context.database.run(begin)
    response = await call.request.respond(
        content_type=_MEDIA[kind],
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": (
                f'attachment; filename="conversation-{conversation_id}.{_ENDINGS[kind]}"'
            ),
            "Content-Security-Policy": (
                "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
            ),
        },
    )
    # a failure from here on cuts the connection, and the client knows that it has not got all
    while chunk:
        await response.send(chunk)
        chunk = await asyncio.to_thread(_chunk, found)
    await response.eof()


def _chunk(found: Iterator[bytes]) -> bytes:
    """Some of the pieces, which are one message each; nothing at the end."""
    made = bytearray()
    for piece in found:
        made += piece
        if len(made) >= _CHUNK_BYTES:
            break
    return bytes(made)


async def _mail_to_anybody(call: Call) -> HTTPResponse:
    """A visitor need not be known, and may be anew at every request: its address counts."""
    limit, network = call.context.transcripts_per_address, call.request.ctx.client_network
    if seconds := await limit.take(network):
        raise Refused(
            "rate_limited",
            "Too many transcripts were sent from this network within an hour; "
            f"try again in {seconds} seconds.",
            retry_seconds=seconds,
        )
    try:
        return await _mail(call)
    except Exception:  # nothing was sent
        await limit.give_back(network)
        raise


async def _mail(call: Call) -> HTTPResponse:
    context = call.context
    await context.database.run(
        transcripts.send,
        context.database,
        call.caller,
        call.ids["conversation_id"],
        _form(call, call.body),
        sender=context.settings.mail_from,
        to=call.body.email,
        actor=call.actor if call.session is not None else None,
    )
    return empty(202)


def _form(call: Call, reader: models.Reader) -> Form:
    return Form(reader.language, ZoneInfo(reader.time_zone), call.context.settings.public_url)
