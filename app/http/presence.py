"""Which agents are present."""

from __future__ import annotations

from redis.exceptions import RedisError
from sanic.response import HTTPResponse

from app.bus import presence
from app.chat import assignment
from app.http import models_conversations as bodies
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("presence")


@endpoints.add(
    "POST",
    "/api/v1/presence",
    "Say that one is still there",
    audience="staff",
    permission="account",
    answers={200: bodies.PresenceNoted},
)
async def note_presence(_call: Call) -> HTTPResponse:
    """To be sent every 30 seconds; every other call of a logged-in agent says the same. A program
    with an API key is never present."""
    return json({"lifetime_seconds": presence.LIFETIME_SECONDS})


@endpoints.add(
    "GET",
    "/api/v1/presence",
    "The agents who are present",
    audience="staff",
    permission="directory",
    answers={200: bodies.PresenceList},
    etag=True,
)
async def list_presence(call: Call) -> HTTPResponse:
    """With whether they are online or away, by name."""
    context = call.context
    try:
        ids = await presence.present(context.redis)
    except (RedisError, OSError, TimeoutError):
        return json({"items": [], "next_cursor": None, "known": False})
    items = await context.database.run(assignment.present_agents, context.database, ids)
    return json({"items": items, "next_cursor": None, "known": True})
