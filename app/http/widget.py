"""The visitor's calls. A visitor reaches its own conversations only, and never a note."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from sanic.response import HTTPResponse, empty

from app.chat import conversations, forms, inboxes, messages, visitors
from app.chat.errors import FieldsRefused, Refused
from app.chat.visitors import Arrival, Identity, Page
from app.db import schema
from app.db.writer import NewMessage, Stored
from app.http import cors, models
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
    problems=(
        "unknown_inbox",
        "inbox_archived",
        "origin_not_allowed",
        "identity_not_verified",
        "visitor_blocked",
    ),
    limit="sessions",
)
async def open_session(call: Call) -> HTTPResponse:
    """Send the token of the last session, and get a fresh one; do so again at a 401.

    A token that is forged, too old or of another inbox makes a new visitor.
    """
    context, body = call.context, call.body
    address = call.request.ctx.client_address
    await context.doors.admit(address)
    await cors.check_session(call.request, context, body.inbox_key)
    page = body.page or models.WidgetPage()
    tokens = context.visitor_tokens
    opened = await context.database.run(
        visitors.open_session,
        context.database,
        Arrival(
            inbox_key=body.inbox_key,
            known=tokens.read_to_resume(body.visitor_token) if body.visitor_token else None,
            page=Page(page.url, page.title, page.referrer),
            language=body.language,
            user_agent=call.request.headers.get("User-Agent", "")[:1000],
            address=address if context.settings.store_visitor_address else None,
            identity=_identity(body),
        ),
    )
    call.request.ctx.user = f"visitor:{opened.visitor.id}"
    conversation = None
    if opened.known:
        conversation = await context.database.run(
            conversations.current_of_visitor, context.database, opened.visitor.id
        )
    for conversation_id in opened.moved:
        context.announcer.conversation_changed(conversation_id)
    if opened.changed and conversation is not None:
        context.announcer.conversation_changed(conversation["id"])
    return json(
        {
            "visitor_token": tokens.make(opened.visitor),
            "visitor": {"id": opened.visitor.id, "name": opened.name},
            "conversation": conversation,
            "realtime": context.realtime(),
            "inbox": inboxes.widget_wire(
                opened.inbox, language=body.language, in_conversation=conversation is not None
            ),
        }
    )


def _identity(body: models.WidgetSessionRequest) -> Identity | None:
    given = body.identity
    if given is None:
        return None
    return Identity(
        identifier=given.identifier,
        name=given.name,
        email=given.email,
        phone=given.phone,
        attributes=given.attributes,
        signature=body.identity_hash,
    )


@endpoints.add(
    "POST",
    "/api/v1/widget/page",
    "Tell which page the visitor looks at",
    audience="visitor",
    body=models.WidgetPageRequest,
    answers={204: None},
)
async def note_page(call: Call) -> HTTPResponse:
    """When it goes to another page without a new session; the last 50 pages are kept."""
    context, body = call.context, call.body
    await context.database.run(
        visitors.note_page, context.database, call.who, Page(body.url, body.title, None)
    )
    return empty()


@endpoints.add(
    "POST",
    "/api/v1/widget/conversations",
    "Write the first message",
    audience="visitor",
    body=models.FirstWidgetMessage,
    answers={201: models.FirstMessage, 200: models.FirstMessage},
    problems=("not_found", "inbox_archived", *_SEND_PROBLEMS),
    limit="sends",
)
async def start_conversation(call: Call) -> HTTPResponse:
    """Opens a conversation, unless the visitor has one: then the message goes there.

    A conversation is opened with the answers to the inbox's pre-chat form.
    """
    context = call.context
    form = await _checked_form(call)
    if about := forms.about_visitor(form):
        await context.database.run(visitors.tell_of, context.database, call.who, about)
    stored = await _send(call, None, form)
    conversation = await context.database.run(
        conversations.of_visitor, context.database, stored.conversation_id, call.who.id
    )
    return json(
        {"conversation": conversation, "message": messages.stored_wire(stored)},
        201 if stored.created else 200,
    )


async def _checked_form(call: Call) -> dict[str, forms.Answer]:
    context, body = call.context, call.body
    door = await context.doors.of_inbox(call.who.inbox_id)
    try:
        if door.archived:
            raise inboxes.archived()
        return forms.check(door.pre_chat, body.form or {})
    except (Refused, FieldsRefused):
        # a message that is sent again, or from a second tab, opens nothing
        if await context.database.run(
            visitors.needs_no_form, context.database, call.who, str(body.client_id)
        ):
            return {}
        raise


@endpoints.add(
    "GET",
    "/api/v1/widget/conversations/{conversation_id}/messages",
    "Messages of the own conversation, ascending by seq",
    audience="visitor",
    query=models.WidgetMessageQuery,
    answers={200: models.MessagePage},
    problems=("not_found",),
    headers=READ_HEADERS,
    etag=True,
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


async def _send(
    call: Call, conversation_id: int | None, form: Mapping[str, forms.Answer] | None = None
) -> Stored:
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
            form=orjson.dumps(form).decode() if form else None,
        ),
    )
