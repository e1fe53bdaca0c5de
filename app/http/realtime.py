"""Signing subscriptions to private channels."""

from __future__ import annotations

from sanic.response import HTTPResponse

from app.chat import channels
from app.http import models, problems
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("realtime")


@endpoints.add(
    "POST",
    "/broadcasting/auth",
    "Sign a subscription to a private channel",
    audience="staff or visitor",
    body=models.BroadcastingAuthRequest,
    form=True,
    answers={200: models.BroadcastingAuth},
    problems=("forbidden",),
)
async def broadcasting_auth(call: Call) -> HTTPResponse:
    """403 unless the caller may read what the channel carries."""
    context, channel = call.context, call.body.channel_name
    allowed = False
    if channels.SOCKET_ID.fullmatch(call.body.socket_id):
        if call.visitor is not None:
            allowed = await context.database.run(
                channels.visitor_may_join, context.database, call.visitor, channel
            )
        else:
            allowed = await context.database.run(
                channels.agent_may_join, context.database, call.agent, channel
            )
    if not allowed:
        raise problems.forbidden()
    settings = context.settings
    auth = channels.sign(settings.pusher_key, settings.pusher_secret, call.body.socket_id, channel)
    return json({"auth": auth})
