"""The HTTP API of Pusher Channels, for back ends: publish events, list channels.

Public source: https://pusher.com/docs/channels/library_auth_reference/rest-api/. Events go to
Redis in the form that every gateway reads, so one call reaches the sockets of all nodes. Errors
are one line of text, as the public API's are; 4xx will fail again, 5xx may be tried again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sanic import Blueprint, Request, Sanic
from sanic.response import HTTPResponse, raw, text

from app import log
from app.gateway.channels import topic_of, topic_prefix
from app.gateway.node import Node
from app.gateway.pusher import Application, is_channel_name

TIMESTAMP_WINDOW_SECONDS: Final = 600
MAX_CHANNELS_PER_EVENT: Final = 100
MAX_EVENTS_PER_BATCH: Final = 10
MAX_EVENT_NAME_CHARACTERS: Final = 200
MAX_EVENT_DATA_BYTES: Final = 10 * 1024
REDIS_TIMEOUT_SECONDS: Final = 3.0
REDIS_CONNECTIONS: Final = 8

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
    if not isinstance(name, str) or not is_channel_name(name):
        raise ApiError(400, "A channel name should be 1 to 164 letters, digits or _-=@,.;")
    return name


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


# --- routes ----------------------------------------------------------------------------------


def _json(value: object) -> HTTPResponse:
    return raw(orjson.dumps(value), content_type="application/json")


def _parameters(request: Request) -> dict[str, str]:
    """The query's parameters; empty ones too, because they are signed."""
    given = request.get_args(keep_blank_values=True)
    return {name: values[0] for name, values in given.items()}


def _redis(app: Sanic[Any, Any]) -> Redis:
    """The connection pool for commands, made at the first use."""
    if getattr(app.ctx, "gateway_redis", None) is None:
        app.ctx.gateway_redis = Redis.from_url(
            app.ctx.gateway.settings.redis_url,
            socket_timeout=REDIS_TIMEOUT_SECONDS,
            socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            max_connections=REDIS_CONNECTIONS,
        )
    redis: Redis = app.ctx.gateway_redis
    return redis


async def close(app: Sanic[Any, Any]) -> None:
    """Close the connection pool, if there is one."""
    redis, app.ctx.gateway_redis = getattr(app.ctx, "gateway_redis", None), None
    if redis is not None:
        await redis.aclose()


def _signed(handler: Handler) -> Handler:
    """Check application and signature first; turn errors into answers, in this one place."""

    @wraps(handler)
    async def checked(request: Request, app_id: str, **names: str) -> HTTPResponse:
        node: Node = request.app.ctx.gateway
        try:
            if app_id != node.application.id:
                raise ApiError(404, "There is no application with this id")
            check_request(
                node.application,
                method=request.method,
                path=request.path,
                parameters=_parameters(request),
                body=request.body,
                now=time.time(),
            )
            return await handler(request, app_id, **names)
        except ApiError as error:
            return text(error.message + "\n", status=error.status)
        except (RedisError, OSError, TimeoutError) as error:
            log.get("gateway.control").warning("redis command failed", error=type(error).__name__)
            return text(
                "Redis cannot be reached: try again\n", status=503, headers={"Retry-After": "1"}
            )

    return checked


async def _publish(request: Request, publications: list[tuple[bytes, bytes]]) -> HTTPResponse:
    async with _redis(request.app).pipeline(transaction=False) as pipe:
        for topic, payload in publications:
            pipe.publish(topic, payload)
        await pipe.execute()
    return _json({})


@_signed
async def _events(request: Request, app_id: str) -> HTTPResponse:
    return await _publish(request, parse_event(app_id, request.body))


@_signed
async def _batch_events(request: Request, app_id: str) -> HTTPResponse:
    return await _publish(request, parse_batch(app_id, request.body))


def _refuse_info(request: Request) -> None:
    """Counts over all nodes are not kept, and one node's would be a lie."""
    if request.args.get("info"):
        raise ApiError(400, "info is not available: this server keeps no counts of all nodes")


@_signed
async def _channels(request: Request, app_id: str) -> HTTPResponse:
    _refuse_info(request)
    prefix = request.args.get("filter_by_prefix", "")
    if prefix and not is_channel_name(prefix):
        raise ApiError(400, "filter_by_prefix should be the beginning of a channel name")
    start = topic_prefix(app_id)
    # A gateway subscribes only to channels with sockets, so Redis knows those of all nodes.
    topics = await _redis(request.app).pubsub_channels((start + prefix.encode() + b"*").decode())
    names = sorted(
        topic.removeprefix(start).decode("latin-1") for topic in topics if isinstance(topic, bytes)
    )
    return _json({"channels": {name: {} for name in names}})


@_signed
async def _channel(request: Request, app_id: str, name: str) -> HTTPResponse:
    _refuse_info(request)
    topic = topic_of(app_id, _channel_of(name))
    ((_, listeners),) = await _redis(request.app).pubsub_numsub(topic)
    return _json({"occupied": listeners > 0})


def blueprint() -> Blueprint:
    """The routes under /apps/; the application's ``ctx.gateway`` must be a Node."""
    routes = Blueprint("gateway_control", url_prefix="/apps/<app_id:str>")
    routes.add_route(_events, "/events", methods=["POST"])
    routes.add_route(_batch_events, "/batch_events", methods=["POST"])
    routes.add_route(_channels, "/channels", methods=["GET"])
    routes.add_route(_channel, "/channels/<name:str>", methods=["GET"], unquote=True)
    return routes
