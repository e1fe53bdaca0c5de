"""The visitor's calls. A visitor reaches its own conversations only, and never a note."""

from __future__ import annotations

from sanic.response import HTTPResponse

from app.chat import conversations, inboxes, messages, visitors
from app.chat.visitors import Page
from app.db import schema
from app.db.writer import NewMessage, Stored
from app.http import models
from app.http.endpoint import Call, Endpoints, json
from app.http.inbox import READ_HEADERS, history, move_mark

endpoints = Endpoints("widget")

_SEND_PROBLEMS = (
    "message_too_long",
    "client_id_conflict",
    "attachment_not_found",
    "service_unavailable",
    "visitor_blocked",
)


@endpoints.add(
    "POST",
    "/api/v1/widget/session",
    "Open or resume a visitor",
    audience="anyone",
    body=models.WidgetSessionRequest,
    answers={200: models.WidgetSession},
    problems=("unknown_inbox", "inbox_archived"),
    limit="sessions",
)
async def open_session(call: Call) -> HTTPResponse:
    """A token that is forged, too old or of another inbox makes a new visitor."""
    context, body = call.context, call.body
    known = context.visitor_tokens.read(body.visitor_token) if body.visitor_token else None
    page = body.page or models.WidgetPage()
    identity, name, inbox = await context.database.run(
        visitors.open_session,
        context.database,
        inbox_key=body.inbox_key,
        known=known,
        page=Page(page.url, page.title, page.referrer),
        language=body.language,
        user_agent=call.request.headers.get("User-Agent", "")[:1000],
    )
    call.request.ctx.user = f"visitor:{identity.id}"
    conversation = None
    if known == identity:
        conversation = await context.database.run(
            conversations.current_of_visitor, context.database, identity.id
        )
    return json(
        {
            "visitor_token": context.visitor_tokens.make(identity),
            "visitor": {"id": identity.id, "name": name},
            "conversation": conversation,
            "realtime": context.realtime(),
            "inbox": inboxes.widget_wire(
                inbox, language=body.language, in_conversation=conversation is not None
            ),
        }
    )


@endpoints.add(
    "POST",
    "/api/v1/widget/conversations",
    "Write the first message",
    audience="visitor",
    body=models.NewWidgetMessage,
    answers={201: models.FirstMessage, 200: models.FirstMessage},
    problems=_SEND_PROBLEMS,
    limit="sends",
)
async def start_conversation(call: Call) -> HTTPResponse:
    """Opens a conversation, unless the visitor has one: then the message goes there."""
    context = call.context
    stored = await _send(call, None)
    conversation = await context.database.run(
        conversations.of_visitor, context.database, stored.conversation_id, call.who.id
    )
    return json(
        {"conversation": conversation, "message": messages.stored_wire(stored)},
        201 if stored.created else 200,
    )


@endpoints.add(
    "GET",
    "/api/v1/widget/conversations/{conversation_id}/messages",
    "Messages of the own conversation, ascending by seq",
    audience="visitor",
    query=models.WidgetMessageQuery,
    answers={200: models.MessagePage},
    problems=("not_found",),
    headers=READ_HEADERS,
)
async def list_own_messages(call: Call) -> HTTPResponse:
    """The public stream only."""
    return await history(call, stream=schema.PUBLIC)


@endpoints.add(
    "POST",
    "/api/v1/widget/conversations/{conversation_id}/messages",
    "Write a message",
    audience="visitor",
    body=models.NewWidgetMessage,
    answers={201: models.Message, 200: models.Message},
    problems=("not_found", *_SEND_PROBLEMS),
    limit="sends",
)
async def send_own_message(call: Call) -> HTTPResponse:
    """201 when it is durable; 200 with the stored message for a repeat."""
    stored = await _send(call, call.ids["conversation_id"])
    return json(messages.stored_wire(stored), 201 if stored.created else 200)


@endpoints.add(
    "POST",
    "/api/v1/widget/conversations/{conversation_id}/read",
    "Move the own read mark forward",
    audience="visitor",
    body=models.WidgetReadRequest,
    answers={200: models.ReadResponse},
    problems=("not_found",),
)
async def mark_own_read(call: Call) -> HTTPResponse:
    """The mark never moves back, and never beyond the last message."""
    return await move_mark(call, stream=schema.PUBLIC, read=True)


@endpoints.add(
    "POST",
    "/api/v1/widget/conversations/{conversation_id}/delivered",
    "Say what reached the visitor's device",
    audience="visitor",
    body=models.WidgetReadRequest,
    answers={200: models.DeliveredResponse},
    problems=("not_found",),
)
async def mark_own_delivered(call: Call) -> HTTPResponse:
    """The mark never moves back; what was read was also delivered."""
    return await move_mark(call, stream=schema.PUBLIC, read=False)


async def _send(call: Call, conversation_id: int | None) -> Stored:
    return await messages.send(
        call.context.writer,
        NewMessage(
            conversation_id=conversation_id,
            visitor_id=call.who.id,
            client_id=str(call.body.client_id),
            stream=schema.PUBLIC,
            sender_type="visitor",
            sender_id=call.who.id,
            kind="text" if call.body.body else "file",
            body=call.body.body,
            attachment_ids=tuple(call.body.attachment_ids),
        ),
    )
