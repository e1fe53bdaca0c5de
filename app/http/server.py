"""The web process: the Sanic application with its blueprints, its life cycle and its log."""

from __future__ import annotations

import asyncio
import re
import time
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final

from prometheus_client import CollectorRegistry
from sanic import Request, Sanic
from sanic.exceptions import RequestCancelled
from sanic.http import Http
from sanic.response import BaseHTTPResponse, HTTPResponse, empty

from app import clock, log
from app.chat.errors import Refused
from app.config import Network, Settings
from app.db.engines import Unavailable
from app.http import (
    account,
    attachments,
    audit,
    auth,
    canned,
    context,
    conversations,
    cors,
    edits,
    inbox,
    inboxes,
    labels,
    ops,
    presence,
    privacy,
    problems,
    realtime,
    reports,
    retention,
    search,
    staff,
    static,
    sync,
    system,
    transcripts,
    uploads,
    visitors,
    webhooks,
    widget,
)
from app.http.endpoint import Endpoint
from app.http.metrics import ContextCollector, RequestMetrics
from app.proxies import client_address, client_network

REQUEST_MAX_BYTES: Final = 256 * 1024
# Nginx must give up an idle connection before we do, or it sends a request into a closing one
KEEP_ALIVE_SECONDS: Final = 75
REQUEST_TIMEOUT_SECONDS: Final = 15
RESPONSE_TIMEOUT_SECONDS: Final = 40
CLIENT_CLOSED_REQUEST: Final = 499
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_\-]{8,64}")
_FORWARDED_MAX: Final = 100
_QUIET_ROUTES: Final = frozenset({"/healthz", "/readyz", "/metrics"})

AUDIENCES: Final = (
    auth,
    account,
    staff,
    inbox,
    inboxes,
    conversations,
    presence,
    edits,
    sync,
    attachments,
    transcripts,
    canned,
    labels,
    visitors,
    search,
    webhooks,
    reports,
    privacy,
    audit,
    retention,
    system,
    widget,
    realtime,
    ops,
)

App = Sanic[Any, Any]


def endpoints() -> list[Endpoint]:
    """Every endpoint of the web process."""
    return [endpoint for audience in AUDIENCES for endpoint in audience.endpoints.all]


def create_app(settings: Settings) -> App:
    """The web application for ``settings``; it connects to nothing before it is started."""
    app: App = Sanic("deskline-web", configure_logging=False)
    app.config.update(
        {
            "ACCESS_LOG": False,
            "FALLBACK_ERROR_FORMAT": "json",
            "KEEP_ALIVE_TIMEOUT": KEEP_ALIVE_SECONDS,
            "REQUEST_MAX_SIZE": REQUEST_MAX_BYTES,
            "REQUEST_TIMEOUT": REQUEST_TIMEOUT_SECONDS,
            "RESPONSE_TIMEOUT": RESPONSE_TIMEOUT_SECONDS,
            "MOTD": False,
        }
    )
    app.ctx = SimpleNamespace()
    app.ctx.settings = settings
    app.ctx.endpoints = endpoints()
    app.ctx.registry = CollectorRegistry()
    app.ctx.metrics = RequestMetrics(app.ctx.registry)
    app.ctx.access = log.get("access")
    for audience in AUDIENCES:
        app.blueprint(audience.endpoints.blueprint())
    app.blueprint(static.blueprint(settings))

    app.before_server_start(_start)
    app.before_server_stop(_drain)
    app.after_server_stop(_stop)
    app.register_middleware(_begin, "request")
    app.register_middleware(_finish, "response")
    app.error_handler.add(Exception, _failed)
    app.error_handler.add(RequestCancelled, _hung_up)  # it is no Exception
    return app


async def _start(app: App) -> None:
    app.ctx.deskline = context.make(app.ctx.settings)
    app.ctx.registry.register(ContextCollector(app.ctx.deskline))


async def _drain(app: App) -> None:
    """From now on /readyz says 503; returns when no request is being worked on."""
    made: context.Context = app.ctx.deskline
    made.draining = True
    made.arrivals.release()
    while made.in_flight:  # noqa: ASYNC110  the drain is bounded by its caller and happens once
        await asyncio.sleep(0.02)


async def _stop(app: App) -> None:
    await app.ctx.deskline.close()


async def _begin(request: Request) -> None:
    settings: Settings = request.app.ctx.settings
    given = request.headers.get("X-Request-ID", "")
    request.ctx.request_id = given if _REQUEST_ID.fullmatch(given) else clock.token(12)
    request.ctx.started = time.perf_counter()
    request.ctx.user = None
    forwarded = request.headers.get("X-Forwarded-For")
    # what a client makes up may be long: that is not kept
    client = _client if len(forwarded or "") <= _FORWARDED_MAX else _client.__wrapped__
    request.ctx.client_address, request.ctx.client_network = client(
        request.ip, forwarded, settings.trusted_proxies
    )


@lru_cache(maxsize=4096)
def _client(peer: str, forwarded_for: str | None, trusted: tuple[Network, ...]) -> tuple[str, str]:
    """The client's address, and what limits count by. Clients come again: it is kept."""
    address = client_address(peer, forwarded_for, trusted)
    return address, client_network(address)


async def _failed(request: Request, error: Exception) -> HTTPResponse:
    made: context.Context = request.app.ctx.deskline
    try:
        if request.method == "OPTIONS" and cors.applies(request.path):
            return await cors.preflight(request, made)
        if not getattr(request.ctx, "cors_decided", False):
            await cors.decide(request, made, None)
    except (Refused, Unavailable) as refused:
        error = refused
    response = problems.answer(error, getattr(request.ctx, "request_id", ""))
    await uploads.discard(request)
    if response.status == 405 and "Allow" not in response.headers:
        # RFC 9110 §15.5.6 wants it; Sanic knows it only where one route has the address
        response.headers["Allow"] = ", ".join(_methods(request.app, request.path))
    return response


async def _hung_up(_request: Request, _error: BaseException) -> HTTPResponse:
    """The client left before it was answered: nobody reads this, but it is counted.

    A person who closes a tab is no failure of the server, which a 500 would say. 499 is what Nginx
    calls it in its own log.
    """
    return empty(status=CLIENT_CLOSED_REQUEST)


def _methods(app: App, path: str) -> list[str]:
    """The methods of the endpoints at ``path``."""
    return sorted(
        {
            endpoint.method
            for endpoint in app.ctx.endpoints
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", endpoint.path), path)
        }
    )


async def _finish(request: Request, response: BaseHTTPResponse) -> None:
    app_ctx = request.app.ctx
    made: context.Context = app_ctx.deskline
    ctx = request.ctx
    secure(response, request.path, made.settings)
    cors.finish(request, response)
    response.headers["X-Request-ID"] = getattr(ctx, "request_id", "")
    response.headers["X-Deskline-Node"] = made.settings.node
    if made.draining and isinstance(request.stream, Http):
        # so that the balancer opens its next connection to a node that stays
        request.stream.keep_alive = False
    seconds = time.perf_counter() - getattr(ctx, "started", time.perf_counter())
    route = f"/{request.route.path}" if request.route is not None else "unknown"
    app_ctx.metrics.answered(request.method, route, response.status, seconds)
    write = app_ctx.access.debug if request.path in _QUIET_ROUTES else app_ctx.access.info
    write(
        "request",
        request_id=getattr(ctx, "request_id", ""),
        method=request.method,
        # the address of an attachment is what opens it
        path=route if "token" in request.match_info else request.path,
        status=response.status,
        duration_ms=round(seconds * 1000, 2),
        remote_addr=getattr(ctx, "client_address", request.ip),
        user=getattr(ctx, "user", None),
    )


def secure(response: BaseHTTPResponse, path: str, settings: Settings) -> None:
    """Add the security headers, unless the answer has its own.

    Only the widget's page may stand in a frame of another site. JSON is no document: it gets what
    keeps it from being taken for one.
    """
    if response.content_type == "application/json":
        kind = "data"
    else:
        kind = "framed" if path == "/widget" or path.startswith("/widget/") else "page"
    headers = response.headers
    for name, value in _security_headers(kind, settings.ws_public_url, settings.cookie_secure):
        headers.setdefault(name, value)


@lru_cache
def _security_headers(kind: str, ws_url: str, https: bool) -> tuple[tuple[str, str], ...]:
    headers = {"X-Content-Type-Options": "nosniff"}
    if kind == "data":
        headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    else:
        headers |= {
            "Referrer-Policy": "strict-origin-when-cross-origin",
            "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
            "Content-Security-Policy": "default-src 'self'; "
            f"connect-src 'self' {ws_url}; "
            "img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
            "object-src 'none'; base-uri 'none'; form-action 'self'; "
            f"frame-ancestors {'*' if kind == 'framed' else chr(39) + 'none' + chr(39)}",
        }
    if kind == "page":
        headers["X-Frame-Options"] = "DENY"
    if https:
        headers["Strict-Transport-Security"] = "max-age=31536000"
        if kind != "data":
            # browsers complain about this one elsewhere
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return tuple(headers.items())
