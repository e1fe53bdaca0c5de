"""What staff do to a conversation: take it, pass it on, put it aside, describe it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sanic.response import HTTPResponse

from app.chat import conversation_state, conversations
from app.chat.conversation_state import Caller, Change
from app.http import models
from app.http import models_conversations as bodies
from app.http.context import Context
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("conversations")

_ONE: Final = "/api/v1/conversations/{conversation_id}"
_HELD: Final = "conversation_already_claimed"


def announce(context: Context, change: Change) -> None:
    """Tell the others what an act did, after its commit."""
    if not change.told:
        return
    context.announcer.messages_stored(change.told)
    if change.public:
        context.announcer.conversation_changed(change.told[0].conversation_id)


async def _act(call: Call, act: Callable[..., Change], *values: Any, **named: Any) -> HTTPResponse:
    """Carry out an act of a staff member and answer with the conversation."""
    context = call.context
    change = await context.database.run(
        act,
        context.database,
        Caller(call.agent, call.actor),
        call.ids["conversation_id"],
        *values,
        **named,
    )
    announce(context, change)
    return json(change.conversation)


@endpoints.add(
    "POST",
    f"{_ONE}/claim",
    "Take a conversation that nobody has",
    audience="staff",
    permission="conversations",
    body=bodies.ActRequest,
    body_optional=True,
    answers={200: models.Conversation},
    problems=("not_found", _HELD, "conflict"),
)
async def claim_conversation(call: Call) -> HTTPResponse:
    """One winner: the loser's 409 names the holder. Claiming what one has changes nothing."""
    return await _act(call, conversation_state.claim, version=call.body.version)


@endpoints.add(
    "POST",
    f"{_ONE}/release",
    "Give the own conversation back",
    audience="staff",
    permission="conversations",
    body=bodies.ActRequest,
    body_optional=True,
    answers={200: models.Conversation},
    problems=("not_found", _HELD, "conflict"),
)
async def release_conversation(call: Call) -> HTTPResponse:
    """It has no assignee afterwards; 409 with the holder when another agent has it."""
    return await _act(call, conversation_state.release, version=call.body.version)


@endpoints.add(
    "POST",
    f"{_ONE}/assign",
    "Give a conversation to an agent, whoever has it",
    audience="staff",
    permission="conversations",
    body=bodies.AssignRequest,
    answers={200: models.Conversation},
    problems=("not_found", "conflict", "invalid_request"),
)
async def assign_conversation(call: Call) -> HTTPResponse:
    """Only to an active agent who sees the inbox."""
    body = call.body
    return await _act(call, conversation_state.assign, user_id=body.user_id, version=body.version)


@endpoints.add(
    "POST",
    f"{_ONE}/transfer",
    "Pass a conversation on to an agent or a team",
    audience="staff",
    permission="conversations",
    body=bodies.TransferRequest,
    answers={200: models.Conversation},
    problems=("not_found", _HELD, "conflict", "invalid_request"),
)
async def transfer_conversation(call: Call) -> HTTPResponse:
    """One's own, or one that nobody has. A team's conversation waits for a member to take it."""
    body = call.body
    return await _act(
        call,
        conversation_state.transfer,
        user_id=body.user_id,
        team_id=body.team_id,
        note=body.note,
        version=body.version,
    )


@endpoints.add(
    "POST",
    f"{_ONE}/snooze",
    "Put a conversation aside for a time",
    audience="staff",
    permission="conversations",
    body=bodies.SnoozeRequest,
    answers={200: models.Conversation},
    problems=("not_found", "conflict", "invalid_request"),
)
async def snooze_conversation(call: Call) -> HTTPResponse:
    """It opens by itself at that time, and when the visitor writes."""
    body = call.body
    until = body.until.replace(tzinfo=None)
    return await _act(call, conversation_state.snooze, until=until, version=body.version)


@endpoints.add(
    "POST",
    f"{_ONE}/resolve",
    "Mark a conversation as done",
    audience="staff",
    permission="conversations",
    body=bodies.ActRequest,
    body_optional=True,
    answers={200: models.Conversation},
    problems=("not_found", "conflict"),
)
async def resolve_conversation(call: Call) -> HTTPResponse:
    """The visitor may rate it then, and opens it again by writing."""
    return await _act(call, conversation_state.resolve, version=call.body.version)


@endpoints.add(
    "POST",
    f"{_ONE}/reopen",
    "Open a resolved or snoozed conversation again",
    audience="staff",
    permission="conversations",
    body=bodies.ActRequest,
    body_optional=True,
    answers={200: models.Conversation},
    problems=("not_found", "conflict"),
)
async def reopen_conversation(call: Call) -> HTTPResponse:
    """With the version that resolving answered, it undoes only that."""
    return await _act(call, conversation_state.reopen, version=call.body.version)


@endpoints.add(
    "PATCH",
    _ONE,
    "Change what describes a conversation",
    audience="staff",
    permission="conversations",
    body=bodies.ConversationPatch,
    answers={200: models.Conversation},
    problems=("not_found", "conflict"),
)
async def change_conversation(call: Call) -> HTTPResponse:
    """Its priority."""
    body = call.body
    return await _act(
        call, conversation_state.set_priority, priority=body.priority, version=body.version
    )


@endpoints.add(
    "PUT",
    f"{_ONE}/labels",
    "Set the labels of a conversation",
    audience="staff",
    permission="conversations",
    body=bodies.LabelsRequest,
    answers={200: models.Conversation},
    problems=("not_found", "conflict", "invalid_request"),
)
async def set_labels(call: Call) -> HTTPResponse:
    """Exactly these: labels that are not named are taken away."""
    body = call.body
    return await _act(
        call, conversation_state.set_labels, label_ids=body.label_ids, version=body.version
    )


@endpoints.add(
    "GET",
    f"{_ONE}/participants",
    "The agents who have a part in a conversation",
    audience="staff",
    permission="conversations",
    answers={200: bodies.ParticipantList},
    problems=("not_found",),
)
async def list_participants(call: Call) -> HTTPResponse:
    """In the order in which they came; who holds it or writes in it is one by that."""
    context = call.context
    items = await context.database.run(
        conversation_state.participants,
        context.database,
        call.agent,
        call.ids["conversation_id"],
    )
    return json({"items": items, "next_cursor": None})


@endpoints.add(
    "PUT",
    f"{_ONE}/participants/{{user_id}}",
    "Add an agent to the participants",
    audience="staff",
    permission="conversations",
    answers={200: models.Conversation},
    problems=("not_found", "conflict", "invalid_request"),
)
async def add_participant(call: Call) -> HTTPResponse:
    """Only an active agent who sees the inbox."""
    return await _act(call, conversation_state.add_participant, call.ids["user_id"])


@endpoints.add(
    "DELETE",
    f"{_ONE}/participants/{{user_id}}",
    "Remove an agent from the participants",
    audience="staff",
    permission="conversations",
    answers={200: models.Conversation},
    problems=("not_found", "conflict"),
)
async def remove_participant(call: Call) -> HTTPResponse:
    """Not the one who has the conversation."""
    return await _act(call, conversation_state.remove_participant, call.ids["user_id"])


# --- by the visitor ---------------------------------------------------------------------------

_OWN: Final = "/api/v1/widget/conversations"


@endpoints.add(
    "GET",
    _OWN,
    "The own conversations, the newest first",
    audience="visitor",
    query=bodies.WidgetHistoryQuery,
    answers={200: bodies.WidgetConversationPage},
)
async def list_own_conversations(call: Call) -> HTTPResponse:
    """Resolved ones too."""
    context = call.context
    items, next_cursor = await context.database.run(
        conversations.all_of_visitor,
        context.database,
        call.who.id,
        cursor=call.query.cursor,
        limit=call.query.limit,
    )
    return json({"items": items, "next_cursor": next_cursor})


@endpoints.add(
    "GET",
    f"{_OWN}/{{conversation_id}}",
    "One own conversation",
    audience="visitor",
    answers={200: models.WidgetConversation},
    problems=("not_found",),
)
async def get_own_conversation(call: Call) -> HTTPResponse:
    """With the place in the queue, while it waits for somebody to take it."""
    context = call.context
    return json(
        await context.database.run(
            conversations.of_visitor, context.database, call.ids["conversation_id"], call.who.id
        )
    )


@endpoints.add(
    "POST",
    f"{_OWN}/{{conversation_id}}/end",
    "End the own conversation",
    audience="visitor",
    answers={200: models.WidgetConversation},
    problems=("not_found", "visitor_blocked"),
)
async def end_own_conversation(call: Call) -> HTTPResponse:
    """It is resolved then; writing opens it again."""
    context = call.context
    change = await context.database.run(
        conversation_state.end, context.database, call.who, call.ids["conversation_id"]
    )
    announce(context, change)
    return json(change.conversation)


@endpoints.add(
    "POST",
    f"{_OWN}/{{conversation_id}}/rating",
    "Rate the help",
    audience="visitor",
    body=bodies.RatingRequest,
    answers={200: models.WidgetConversation},
    problems=("not_found", "conflict", "visitor_blocked"),
)
async def rate_own_conversation(call: Call) -> HTTPResponse:
    """Only of a resolved conversation; it may be changed for 24 hours."""
    context, body = call.context, call.body
    change = await context.database.run(
        conversation_state.rate,
        context.database,
        call.who,
        call.ids["conversation_id"],
        score=body.score,
        comment=body.comment,
    )
    announce(context, change)
    return json(change.conversation)
