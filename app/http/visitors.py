"""Visitors, for the staff: who they are, what they looked at, and keeping some of them out."""

from __future__ import annotations

from sanic.response import HTTPResponse, empty

from app.chat import blocking, visitor_profiles
from app.http import models_visitors as models
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("visitors")


@endpoints.add(
    "GET",
    "/api/v1/visitors",
    "Visitors, those seen last first",
    audience="staff",
    permission="conversations",
    query=models.VisitorQuery,
    answers={200: models.VisitorPage},
)
async def list_visitors(call: Call) -> HTTPResponse:
    """Of the inboxes that the caller sees."""
    query = call.query
    items, next_cursor = await call.context.database.run(
        visitor_profiles.find,
        call.context.database,
        call.agent,
        query=query.query,
        inbox_id=query.inbox,
        cursor=query.cursor,
        limit=query.limit,
    )
    return json({"items": items, "next_cursor": next_cursor})


@endpoints.add(
    "GET",
    "/api/v1/visitors/{visitor_id}",
    "A visitor with its pages and conversations",
    audience="staff",
    permission="conversations",
    answers={200: models.VisitorDetail},
    problems=("not_found",),
)
async def get_visitor(call: Call) -> HTTPResponse:
    """Of one that was merged into another, that other one."""
    return json(
        await call.context.database.run(
            visitor_profiles.one, call.context.database, call.agent, call.ids["visitor_id"]
        )
    )


@endpoints.add(
    "PATCH",
    "/api/v1/visitors/{visitor_id}",
    "Correct what is known of a visitor",
    audience="staff",
    permission="conversations",
    body=models.VisitorChange,
    answers={200: models.VisitorDetail},
    problems=("not_found",),
)
async def change_visitor(call: Call) -> HTTPResponse:
    """Its conversations are announced with the new name."""
    shown, conversation_ids = await call.context.database.run(
        visitor_profiles.change,
        call.context.database,
        call.agent,
        call.actor,
        call.ids["visitor_id"],
        call.body.model_dump(exclude_unset=True),
    )
    for conversation_id in conversation_ids:
        call.context.announcer.conversation_changed(conversation_id)
    return json(shown)


@endpoints.add(
    "POST",
    "/api/v1/visitors/{visitor_id}/block",
    "Take no more messages from a visitor",
    audience="staff",
    permission="visitors.block",
    answers={200: models.VisitorDetail},
    problems=("not_found",),
)
async def block_visitor(call: Call) -> HTTPResponse:
    """Its widget is told so; what it wrote stays."""
    return await _set_blocked(call, blocked=True)


@endpoints.add(
    "POST",
    "/api/v1/visitors/{visitor_id}/unblock",
    "Take messages from a visitor again",
    audience="staff",
    permission="visitors.block",
    answers={200: models.VisitorDetail},
    problems=("not_found",),
)
async def unblock_visitor(call: Call) -> HTTPResponse:
    """At once."""
    return await _set_blocked(call, blocked=False)


async def _set_blocked(call: Call, *, blocked: bool) -> HTTPResponse:
    return json(
        await call.context.database.run(
            visitor_profiles.set_blocked,
            call.context.database,
            call.agent,
            call.actor,
            call.ids["visitor_id"],
            blocked=blocked,
        )
    )


# --- blocked networks -------------------------------------------------------------------------


@endpoints.add(
    "GET",
    "/api/v1/blocked-networks",
    "Blocked networks, the newest first",
    audience="staff",
    permission="visitors.block",
    query=models.BlockedNetworkQuery,
    answers={200: models.BlockedNetworkPage},
)
async def list_blocked_networks(call: Call) -> HTTPResponse:
    """Their visitors open no session and send no message."""
    items, next_cursor = await call.context.database.run(
        blocking.page,
        call.context.database,
        cursor=call.query.cursor,
        limit=call.query.limit,
    )
    return json({"items": items, "next_cursor": next_cursor})


@endpoints.add(
    "POST",
    "/api/v1/blocked-networks",
    "Block an address or a range",
    audience="staff",
    permission="visitors.block",
    body=models.NewBlockedNetwork,
    answers={201: models.BlockedNetwork},
    problems=("conflict",),
)
async def block_network(call: Call) -> HTTPResponse:
    """Every web process knows it within a few seconds."""
    made = await call.context.database.run(
        blocking.create,
        call.context.database,
        call.actor,
        network=call.body.network,
        reason=call.body.reason,
    )
    call.context.doors.forget()
    return json(made, 201)


@endpoints.add(
    "PATCH",
    "/api/v1/blocked-networks/{network_id}",
    "Change why a network is blocked",
    audience="staff",
    permission="visitors.block",
    body=models.BlockedNetworkChange,
    answers={200: models.BlockedNetwork},
    problems=("not_found",),
)
async def change_blocked_network(call: Call) -> HTTPResponse:
    """For a different network, block that one and delete this one."""
    return json(
        await call.context.database.run(
            blocking.change,
            call.context.database,
            call.actor,
            call.ids["network_id"],
            call.body.model_dump(exclude_unset=True),
        )
    )


@endpoints.add(
    "DELETE",
    "/api/v1/blocked-networks/{network_id}",
    "Let a network write again",
    audience="staff",
    permission="visitors.block",
    answers={204: None},
    problems=("not_found",),
)
async def unblock_network(call: Call) -> HTTPResponse:
    """Every web process knows it within a few seconds."""
    await call.context.database.run(
        blocking.remove, call.context.database, call.actor, call.ids["network_id"]
    )
    call.context.doors.forget()
    return empty()
