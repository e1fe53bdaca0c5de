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
    "Sign a subscription to a private or presence channel",
    audience="staff or visitor",
    permission="conversations",
    body=models.BroadcastingAuthRequest,
    form=True,
    answers={200: models.BroadcastingAuth},
    # nothing is written, and after a reconnect everybody subscribes to everything at once
    limit="reads",
    problems=("forbidden",),
)
async def broadcasting_auth(call: Call) -> HTTPResponse:
    """403 unless the caller may read what the channel carries.

    Both fields belong into the subscription. When the caller may no longer hear everything, as
    after a logout, the gateway closes its sockets: pusher-js reconnects and asks here again.
    `presence-staff` is for people: a program with an API key is never present."""
    context, channel = call.context, call.body.channel_name
    if channel == channels.STAFF_CHANNEL and call.session and call.session.api_key_id is not None:
        raise problems.forbidden()
    if not channels.SOCKET_ID.fullmatch(call.body.socket_id) or not await context.database.run(
        channels.may_join, context.database, call.caller, channel
    ):
        raise problems.forbidden()
    settings = context.settings
    return json(
        channels.sign(
            settings.pusher_key, settings.pusher_secret, call.body.socket_id, channel, call.caller
        )
    )
