"""The staff's calls: conversations and their messages."""

from __future__ import annotations

from typing import Any, Final

from sanic.response import HTTPResponse

from app.chat import conversations, messages
from app.chat.conversations import Filters
from app.chat.messages import Page
from app.db import schema
from app.db.engines import Unavailable
from app.db.writer import NewMessage
from app.http import models
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("inbox")

READ_HEADER: Final = "X-Deskline-Read"
READ_HEADERS: Final = {READ_HEADER: "the database that was read: replica or primary"}


@endpoints.add(
    "GET",
    "/api/v1/conversations",
    "Conversations by view and filters",
    audience="staff",
    permission="conversations",
    query=models.ConversationQuery,
    answers={200: models.ConversationPage},
    etag=True,
)
async def list_conversations(call: Call) -> HTTPResponse:
    """A page of the list; always from the primary, because unread counts must be fresh."""
    query = call.query
    items, next_cursor = await call.context.database.run(
        conversations.staff_list,
        call.context.database,
        call.agent,
        Filters(
            view=query.view,
            status=query.status,
            inbox_id=query.inbox,
            label_id=query.label,
            assignee_id=query.assignee,
            team_id=query.team,
            visitor_id=query.visitor,
            priority=query.priority,
        ),
        sort=query.sort,
        cursor=query.cursor,
        limit=query.limit,
    )
    return json({"items": items, "next_cursor": next_cursor})


@endpoints.add(
    "GET",
    "/api/v1/conversations/{conversation_id}",
    "One conversation, with its visitor's context",
    audience="staff",
    permission="conversations",
    answers={200: models.ConversationDetail},
    problems=("not_found",),
    etag=True,
)
async def get_conversation(call: Call) -> HTTPResponse:
    """One conversation."""
    context = call.context
    return json(
        await context.database.run(
            conversations.staff_one, context.database, call.agent, call.ids["conversation_id"]
        )
    )


@endpoints.add(
    "GET",
    "/api/v1/conversations/{conversation_id}/messages",
    "Messages of one stream, ascending by seq",
    audience="staff",
    permission="conversations",
    query=models.MessageQuery,
    answers={200: models.MessagePage},
    problems=("not_found",),
    headers=READ_HEADERS,
    etag=True,
)
async def list_messages(call: Call) -> HTTPResponse:
    """A page of history, from the replica when that is new enough for this reader."""
    return await history(call, stream=schema.STREAMS[call.query.stream])


async def history(call: Call, *, stream: int) -> HTTPResponse:
    """A page of history; with ``wait`` an empty one is answered only when the time is over.

    With ``after_seq`` the edits after ``after_edit`` come with it. Whoever calls this has checked
    that the caller may read the stream.
    """
    context, query, conversation_id = call.context, call.query, call.ids["conversation_id"]
    page = await _page(call, stream, query.known_seq)
    items, edits, last_edit = await _with_edits(call, stream, page.items)
    if query.wait and not items and not edits and not context.draining:
        reached = await context.arrivals.wait(
            conversation_id,
            stream,
            after_seq=query.after_seq,
            after_edit=last_edit,
            caller=call.request.ctx.user,
            seconds=query.wait,
        )
        if reached is not None:
            # the primary holds it: so must the database that is read
            page = await _page(call, stream, max(query.known_seq, reached.seq))
            items, edits, last_edit = await _with_edits(call, stream, page.items)
    document = {
        "items": items,
        "next_cursor": None,
        "has_more": page.has_more,
        "edits": edits,
        "last_edit": last_edit,
    }
    return json(document, headers={READ_HEADER: page.target})


async def _page(call: Call, stream: int, known_seq: int) -> Page:
    query = call.query
    return await messages.history(
        call.context.routing,
        conversation_id=call.ids["conversation_id"],
        stream=stream,
        after_seq=query.after_seq,
        before_seq=query.before_seq,
        known_seq=known_seq,
        known_edit=query.after_edit or 0,
        limit=query.limit,
        caller=call.caller,
    )


async def _with_edits(
    call: Call, stream: int, items: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int | None]:
    """The page as the edits left it, the earlier messages that they changed, the last edit told.

    None are told while the primary is away: the same number is asked for again. The page was read
    before the edits, so it may hold the text before an edit that is told with it.
    """
    query, context = call.query, call.context
    if query.after_edit is None or query.after_seq is None or context.database.primary_away:
        return items, [], query.after_edit
    try:
        edited, last_edit = await messages.edited(
            context.reads,
            conversation_id=call.ids["conversation_id"],
            stream=stream,
            after_edit=query.after_edit,
            known_seq=items[-1]["seq"] if items else query.after_seq,
        )
    except Unavailable:
        return items, [], query.after_edit
    now = {message["seq"]: message for message in edited}
    shown = [now.pop(message["seq"], message) for message in items]
    return shown, list(now.values()), last_edit


@endpoints.add(
    "POST",
    "/api/v1/conversations/{conversation_id}/messages",
    "Answer the visitor, or leave a note for the staff",
    audience="staff",
    permission="conversations",
    body=models.NewMessage,
    answers={201: models.Message, 200: models.Message},
    problems=(
        "not_found",
        "message_too_long",
        "client_id_conflict",
        "attachment_not_found",
        "service_unavailable",
    ),
    limit="sends",
)
async def send_message(call: Call) -> HTTPResponse:
    """201 when it is durable; 200 with the stored message for a repeat."""
    agent, body = call.agent, call.body
    stored = await messages.send(
        call.context.writer,
        NewMessage(
            conversation_id=call.ids["conversation_id"],
            client_id=str(body.client_id),
            stream=schema.STAFF if body.kind == "note" else schema.PUBLIC,
            sender_type="agent",
            sender_id=agent.id,
            sender_name=agent.name,
            sender_avatar_url=agent.avatar_url,
            kind="file" if body.kind == "text" and not body.body else body.kind,
            body=body.body,
            attachment_ids=tuple(body.attachment_ids),
            inbox_ids=agent.inbox_ids,
        ),
    )
    return json(messages.stored_wire(stored), 201 if stored.created else 200)


@endpoints.add(
    "POST",
    "/api/v1/conversations/{conversation_id}/read",
    "Move the own read mark forward",
    audience="staff",
    permission="conversations",
    body=models.ReadRequest,
    answers={200: models.ReadResponse},
    problems=("not_found",),
)
async def mark_read(call: Call) -> HTTPResponse:
    """The mark never moves back, and never beyond the last message."""
    return await move_mark(call, stream=schema.STREAMS[call.body.stream], read=True)


@endpoints.add(
    "POST",
    "/api/v1/conversations/{conversation_id}/delivered",
    "Say what reached the own device",
    audience="staff",
    permission="conversations",
    body=models.ReadRequest,
    answers={200: models.DeliveredResponse},
    problems=("not_found",),
)
async def mark_delivered(call: Call) -> HTTPResponse:
    """The mark never moves back; what was read was also delivered."""
    return await move_mark(call, stream=schema.STREAMS[call.body.stream], read=False)


async def move_mark(call: Call, *, stream: int, read: bool) -> HTTPResponse:
    """Move the caller's read mark, or only the delivered one, and tell the others."""
    context = call.context
    moved = await context.database.run(
        conversations.move_mark,
        context.database,
        conversation_id=call.ids["conversation_id"],
        stream=stream,
        reader=call.caller,
        seq=call.body.seq,
        read=read,
    )
    if moved.moved:
        context.announcer.mark_moved(moved)
    if read:
        return json({"read_seq": moved.seq})
    return json({"delivered_seq": moved.delivered_seq})
