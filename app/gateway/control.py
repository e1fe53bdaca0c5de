"""The HTTP API of Pusher Channels, for back ends: publish events, list channels, end connections.

Public source: https://pusher.com/docs/channels/library_auth_reference/rest-api/. Events go to
Redis in the form that every gateway reads, so one call reaches the sockets of all nodes; what the
calls tell of channels is asked of all nodes. Errors are one line of text, as the public API's are;
4xx will fail again, 5xx may be tried again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import signal
import time
from collections.abc import Callable, Container, Coroutine, Mapping
from functools import wraps
from typing import Any, Final

import orjson
from redis.exceptions import RedisError
from sanic import Blueprint, Request, Sanic
from sanic.response import HTTPResponse, raw, text

from app import log
from app.bus import events
from app.gateway.applications import Application
from app.gateway.channels import topic_of
from app.gateway.cluster import Occupancy, Unavailable
from app.gateway.node import Node
from app.gateway.pusher import (
    MAX_EVENT_DATA_BYTES,
    MAX_EVENT_NAME_CHARACTERS,
    USER_CHANNEL_PREFIX,
    is_channel_name,
    is_user_id,
    remembers,
)

TIMESTAMP_WINDOW_SECONDS: Final = 600
MAX_CHANNELS_PER_EVENT: Final = 100
MAX_EVENTS_PER_BATCH: Final = 10

_SOCKET_ID: Final = re.compile(r"([0-9]+\.[0-9]+)?")

Handler = Callable[..., Coroutine[Any, Any, HTTPResponse]]


class ApiError(Exception):
    """An answer that is no success: status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


# --- signature -------------------------------------------------------------------------------


def sign_request(
    secret: bytes, method: str, path: str, parameters: Mapping[str, str], body: bytes = b""
) -> dict[str, str]:
    """``parameters`` with ``body_md5`` (when there is a body) and ``auth_signature`` added."""
    signed = dict(parameters)
    if body:
        signed["body_md5"] = hashlib.md5(body, usedforsecurity=False).hexdigest()
    signed["auth_signature"] = _signature(secret, method, path, signed)
    return signed


def _signature(secret: bytes, method: str, path: str, parameters: Mapping[str, str]) -> str:
    query = "&".join(
        f"{name.lower()}={value}"
        for name, value in sorted(parameters.items(), key=lambda item: item[0].lower())
        if name != "auth_signature"
    )
    lines = f"{method}\n{path}\n{query}".encode()
    return hmac.new(secret, lines, hashlib.sha256).hexdigest()


def check_request(
    application: Application,
    *,
    method: str,
    path: str,
    parameters: Mapping[str, str],
    body: bytes,
    now: float,
) -> None:
    """Raise :class:`ApiError` (401) unless the request is signed by the application's secret.

    ``now`` is Unix time in seconds. ``body_md5`` must be there for a body and is accepted
    without one, because the official Python library sends it with GET as well.
    """
    if parameters.get("auth_key") != application.key:
        raise ApiError(401, "auth_key is missing or not the key of this application")
    if parameters.get("auth_version") != "1.0":
        raise ApiError(401, "auth_version should be 1.0")
    timestamp = parameters.get("auth_timestamp", "")
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise ApiError(401, "auth_timestamp should be the Unix time in seconds")
    if abs(now - int(timestamp)) > TIMESTAMP_WINDOW_SECONDS:
        raise ApiError(
            401,
            f"auth_timestamp is more than {TIMESTAMP_WINDOW_SECONDS} s from this server's time: "
            "check the clocks",
        )
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    sent = parameters.get("body_md5")
    if (body or sent is not None) and sent != digest:
        raise ApiError(401, "body_md5 is missing or not the MD5 of the body")
    expected = _signature(application.secret, method, path, parameters)
    if not hmac.compare_digest(parameters.get("auth_signature", "").encode(), expected.encode()):
        raise ApiError(401, "auth_signature is not valid for this request")


# --- events ----------------------------------------------------------------------------------


def _event_fields(fields: object) -> tuple[str, str, str]:
    """Name, data and excluded socket id of one event of a request body."""
    if not isinstance(fields, dict):
        raise ApiError(400, "An event should be a JSON object")
    name, data, socket_id = fields.get("name"), fields.get("data"), fields.get("socket_id") or ""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_EVENT_NAME_CHARACTERS:
        raise ApiError(400, f"name should be 1 to {MAX_EVENT_NAME_CHARACTERS} characters")
    if not isinstance(data, str):
        raise ApiError(400, "data should be a string; encode other values as JSON first")
    if len(data.encode()) > MAX_EVENT_DATA_BYTES:
        raise ApiError(413, f"data should be at most {MAX_EVENT_DATA_BYTES} bytes")
    if not isinstance(socket_id, str) or not _SOCKET_ID.fullmatch(socket_id):
        raise ApiError(400, "socket_id should look like 123.456")
    return name, data, socket_id


def _channel_of(name: object) -> str:
    if isinstance(name, str) and (
        is_channel_name(name)
        or (
            name.startswith(USER_CHANNEL_PREFIX)
            and is_user_id(name.removeprefix(USER_CHANNEL_PREFIX))
        )
    ):
        return name
    raise ApiError(400, "A channel name should be 1 to 164 letters, digits or _-=@,.;")


def _parse_body(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ApiError(400, "The body should be a JSON object")
    return value


def publication(application_id: str, channel: str, fields: object) -> tuple[bytes, bytes]:
    """The Redis channel and payload for one event of a request body, for ``channel``."""
    name, data, socket_id = _event_fields(fields)
    message = orjson.dumps({"event": name, "channel": channel, "data": data})
    return topic_of(application_id, channel), socket_id.encode() + b"\n" + message


def parse_event(application_id: str, body: bytes) -> list[tuple[bytes, bytes]]:
    """The publications of a POST …/events body."""
    fields = _parse_body(body)
    channels = fields.get("channels", [fields["channel"]] if "channel" in fields else None)
    if not isinstance(channels, list) or not 1 <= len(channels) <= MAX_CHANNELS_PER_EVENT:
        raise ApiError(400, f"channels should be a list of 1 to {MAX_CHANNELS_PER_EVENT} names")
    return [publication(application_id, _channel_of(channel), fields) for channel in channels]


def parse_batch(application_id: str, body: bytes) -> list[tuple[bytes, bytes]]:
    """The publications of a POST …/batch_events body."""
    batch = _parse_body(body).get("batch")
    if not isinstance(batch, list) or not 1 <= len(batch) <= MAX_EVENTS_PER_BATCH:
        raise ApiError(400, f"batch should be a list of 1 to {MAX_EVENTS_PER_BATCH} events")
    return [
        publication(
            application_id,
            _channel_of(fields.get("channel") if isinstance(fields, dict) else None),
            fields,
        )
        for fields in batch
    ]


# --- attributes ------------------------------------------------------------------------------

SUBSCRIPTION_COUNT: Final = "subscription_count"
USER_COUNT: Final = "user_count"
CACHE: Final = "cache"


def _is_presence(channel: str) -> bool:
    return channel.startswith("presence-")


def parse_info(text: object, channels: list[str], *, known: Container[str]) -> list[str]:
    """The attributes that ``info`` (names with commas between) asks for of ``channels``."""
    if text is None or text == "":
        return []
    if not isinstance(text, str):
        raise ApiError(400, "info should be names of attributes with commas between")
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ApiError(400, f"info {name[:40]!r} is not available here")
    if USER_COUNT in names and not all(map(_is_presence, channels)):
        raise ApiError(400, "user_count is available for presence channels only")
    return names


def attributes(names: list[str], occupancy: Occupancy | None) -> dict[str, int]:
    """The counts among the attributes ``names`` of one channel."""
    found = occupancy or Occupancy()
    counts = {SUBSCRIPTION_COUNT: found.subscriptions, USER_COUNT: len(found.users)}
    return {name: count for name, count in counts.items() if name in names}


# --- routes ----------------------------------------------------------------------------------


def _json(value: object) -> HTTPResponse:
    return raw(orjson.dumps(value), content_type="application/json")


def _parameters(request: Request) -> dict[str, str]:
    """The query's parameters; empty ones too, because they are signed."""
    given = request.get_args(keep_blank_values=True)
    return {name: values[0] for name, values in given.items()}


def _check_signature(request: Request, application: Application) -> None:
    """Raise :class:`ApiError` (401) unless ``application`` has signed the request just now."""
    check_request(
        application,
        method=request.method,
        path=request.path,
        parameters=_parameters(request),
        body=request.body,
        now=time.time(),
    )


def _signed(handler: Handler) -> Handler:
    """Check application and signature first; turn errors into answers, in this one place."""

    @wraps(handler)
    async def checked(request: Request, app_id: str = "", **names: str) -> HTTPResponse:
        node: Node = request.app.ctx.gateway
        try:
            if app_id:
                application = node.applications.by_id.get(app_id)
            else:
                application = node.applications.by_key.get(request.args.get("auth_key", ""))
            if application is None:
                raise ApiError(404, "There is no application with this id")
            _check_signature(request, application)
            if not application.enabled:
                raise ApiError(403, "This application is disabled")
            return await handler(request, node, application, **names)
        except ApiError as error:
            return text(error.message + "\n", status=error.status)
        except Unavailable:
            return _try_again("This gateway does not hear the others")
        except (RedisError, OSError, TimeoutError) as error:
            log.get("gateway.control").warning("redis command failed", error=type(error).__name__)
            return _try_again("Redis cannot be reached")

    return checked


def _try_again(reason: str) -> HTTPResponse:
    return text(f"{reason}: try again\n", status=503, headers={"Retry-After": "1"})


async def _publish(node: Node, publications: list[tuple[bytes, bytes]]) -> None:
    publish = node.publish_command.decode()
    async with node.redis.pipeline(transaction=False) as pipe:
        for topic, payload in publications:
            for words in events.commands(topic.decode(), payload, publish):
                pipe.execute_command(*words)
        await pipe.execute()


@_signed
async def _events(request: Request, node: Node, application: Application) -> HTTPResponse:
    publications = parse_event(application.id, request.body)
    fields = _parse_body(request.body)
    names = [topic.split(b":", 3)[3].decode() for topic, _ in publications]
    info = parse_info(fields.get("info"), names, known=(SUBSCRIPTION_COUNT, USER_COUNT))
    if not info:
        await _publish(node, publications)
        return _json({})
    # asked for first: a call that is answered 503 has published nothing and may be repeated
    found = await node.cluster.occupancy(node.redis, application, channels=names)
    await _publish(node, publications)
    return _json({"channels": {name: attributes(info, found.get(name)) for name in names}})


@_signed
async def _batch_events(request: Request, node: Node, application: Application) -> HTTPResponse:
    publications = parse_batch(application.id, request.body)
    asked = []
    for event in _parse_body(request.body)["batch"]:
        name = event["channel"]
        known = (SUBSCRIPTION_COUNT, USER_COUNT)
        asked.append((name, parse_info(event.get("info"), [name], known=known)))
    wanted = sorted({name for name, info in asked if info})
    if not wanted:
        await _publish(node, publications)
        return _json({})
    found = await node.cluster.occupancy(node.redis, application, channels=wanted)
    await _publish(node, publications)
    return _json({"batch": [attributes(info, found.get(name)) for name, info in asked]})


@_signed
async def _channels(request: Request, node: Node, application: Application) -> HTTPResponse:
    prefix = request.args.get("filter_by_prefix", "")
    if prefix and not is_channel_name(prefix):
        raise ApiError(400, "filter_by_prefix should be the beginning of a channel name")
    info = parse_info(request.args.get("info"), [prefix], known=(SUBSCRIPTION_COUNT, USER_COUNT))
    found = await node.cluster.occupancy(node.redis, application, prefix=prefix)
    return _json(
        {
            "channels": {
                name: attributes(info, occupancy)
                for name, occupancy in sorted(found.items())
                if name[0] != USER_CHANNEL_PREFIX[0]
            }
        }
    )


@_signed
async def _channel(
    request: Request, node: Node, application: Application, name: str
) -> HTTPResponse:
    channel = _channel_of(name)
    known = (SUBSCRIPTION_COUNT, USER_COUNT, *((CACHE,) if remembers(channel) else ()))
    info = parse_info(request.args.get("info"), [channel], known=known)
    found = await node.cluster.occupancy(node.redis, application, channels=[channel])
    answer: dict[str, Any] = {"occupied": channel in found}
    answer |= attributes(info, found.get(channel))
    if CACHE in info:
        answer[CACHE] = await _cached(node, application, channel)
    return _json(answer)


async def _cached(node: Node, application: Application, channel: str) -> dict[str, Any] | None:
    """The data of a cache channel's last event and the seconds that it is kept; None: none."""
    key = events.cache_key(application.id, channel)
    pipe = node.redis.pipeline(transaction=True)
    pipe.get(key)
    pipe.ttl(key)
    message, seconds = await pipe.execute()
    return {"data": orjson.loads(message)["data"], "ttl": seconds} if message else None


@_signed
async def _users(
    _request: Request, node: Node, application: Application, name: str
) -> HTTPResponse:
    channel = _channel_of(name)
    if not _is_presence(channel):
        raise ApiError(400, "Only presence channels have users")
    found = await node.cluster.occupancy(node.redis, application, channels=[channel])
    users = found[channel].users if channel in found else {}
    return _json({"users": [{"id": user_id} for user_id in sorted(users)]})


@_signed
async def _terminate(
    _request: Request, node: Node, application: Application, user_id: str
) -> HTTPResponse:
    if not is_user_id(user_id):
        raise ApiError(400, "A user id should have 1 to 128 characters")
    await node.cluster.tell(node.redis, application, {"do": "terminate", "user": user_id})
    return _json({})


def blueprint() -> Blueprint:
    """The routes of the HTTP API; the application's ``ctx.gateway`` must be a Node."""
    routes = Blueprint("gateway_control")
    of_application = "/apps/<app_id:str>"
    terminate = "/users/<user_id:str>/terminate_connections"
    for handler, path, method in (
        (_events, f"{of_application}/events", "POST"),
        (_batch_events, f"{of_application}/batch_events", "POST"),
        (_channels, f"{of_application}/channels", "GET"),
        (_channel, f"{of_application}/channels/<name:str>", "GET"),
        (_users, f"{of_application}/channels/<name:str>/users", "GET"),
        (_terminate, of_application + terminate, "POST"),
    ):
        routes.add_route(handler, path, methods=[method], unquote=True)
    # PyPI's library, 3.3, leaves the application out of this one path; its key names it.
    routes.add_route(_terminate, terminate, methods=["POST"], unquote=True, name="terminate_by_key")
    return routes


async def _drain(request: Request) -> HTTPResponse:
    """Begin the end of this process, as SIGTERM does. Signed by Deskline's own application."""
    node: Node = request.app.ctx.gateway
    application = node.applications.by_id[node.settings.pusher_app_id]
    try:
        _check_signature(request, application)
    except ApiError as error:
        return text(error.message + "\n", status=error.status)
    sockets = len(node.connections)
    if not node.draining:
        log.get("gateway.control").info("drain asked for", sockets=sockets)
        # refuse from this answer on; the signal is only seen in a later turn of the loop
        node.draining = True
        os.kill(os.getpid(), signal.SIGTERM)
    return raw(
        orjson.dumps({"draining": True, "sockets": sockets}),
        status=202,
        content_type="application/json",
    )


def add_drain(app: Sanic[Any, Any]) -> None:
    """``POST /drain``, for a process that is nothing but a gateway."""
    app.add_route(_drain, "/drain", methods=["POST"], name="drain")
