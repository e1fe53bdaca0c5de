"""Calls from pages of other sites (the CORS protocol of the Fetch standard, §3.2).

The widget runs in a frame of Deskline's own origin and needs none of this. A site that calls the
API itself, from its own pages, may do so when an inbox lists its origin: the preflight, which
carries no credentials, is answered for what any inbox allows; an answer may be read only by an
origin that the caller's own inbox allows. Cookies are never allowed along.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from sanic import Request
from sanic.response import BaseHTTPResponse, HTTPResponse, empty

from app.chat import inboxes
from app.chat.errors import Refused
from app.db.engines import Database, Unavailable

if TYPE_CHECKING:
    from app.http.context import Context

# how long an origin that was taken off a list is still answered
FRESH_SECONDS: Final = 5.0
# how long an origin that was put on a list may have to wait
REFUSED_SECONDS: Final = 1.0
PREFLIGHT_SECONDS: Final = 600
METHODS: Final = "GET, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS: Final = "Authorization, Content-Type, If-None-Match, X-Request-ID"
ANSWER_HEADERS: Final = "ETag, Retry-After, X-Deskline-Read, X-Request-ID"


class AllowedOrigins:
    """The origins that inboxes allow, kept for a few seconds. Used on one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_inbox: Mapping[int, frozenset[str]] = {}
        self._read_at = -math.inf

    async def allows(self, origin: str, inbox_id: int | None) -> bool:
        """Whether the inbox allows the origin; None stands for any inbox."""
        for age_seconds in (FRESH_SECONDS, REFUSED_SECONDS):
            if time.monotonic() - self._read_at > age_seconds:
                await self._read()
            if inbox_id is None:
                allowed = any(origin in origins for origins in self._by_inbox.values())
            else:
                allowed = origin in self._by_inbox.get(inbox_id, frozenset())
            if allowed:
                return True
        return False

    async def _read(self) -> None:
        try:
            self._by_inbox = await self._database.run(inboxes.allowed_origins, self._database)
        except Unavailable:
            # what was allowed stays so while the primary is away: reads go on without it
            if self._read_at < 0:
                raise
        else:
            self._read_at = time.monotonic()


def applies(path: str) -> bool:
    """Whether pages of other sites may call what is at this path."""
    return path.startswith("/api/v1/widget/") or path == "/broadcasting/auth"


def foreign_origin(request: Request, public_url: str) -> str | None:
    """The origin of the page that sends the request; None when it is one of ours, or no page.

    Ours is DESKLINE_PUBLIC_URL, and whatever name this server was called by: for the browser
    that is the same origin in any case.
    """
    origin: str | None = request.headers.get("Origin")
    if origin is None or origin == public_url:
        return None
    host = request.headers.get("Host", "")
    try:
        return None if host and urlsplit(origin).netloc == host else origin
    except ValueError:
        return origin


async def decide(request: Request, context: Context, inbox_id: int | None) -> None:
    """Note whether the page that sent the request may read the answer to a caller of the inbox;
    None stands for a caller that nobody knows, who gets nothing but an error."""
    if not applies(request.path):
        return
    origin = foreign_origin(request, context.settings.public_url)
    request.ctx.cors_decided = True
    if origin is not None and await context.origins.allows(origin, inbox_id):
        request.ctx.cors_origin = origin


async def check_session(request: Request, context: Context, inbox_key: str) -> None:
    """Raise :class:`Refused` when a page of another site opens a session of an inbox that does not
    allow it. Also notes whether the page may read the answer."""
    origin = foreign_origin(request, context.settings.public_url)
    request.ctx.cors_decided = True
    if origin is None:
        return
    allowed = await context.database.run(inboxes.origins_of_key, context.database, inbox_key)
    if allowed is None:
        # no such inbox, which the handler tells; whoever may ask any inbox may hear it
        await decide(request, context, None)
    elif origin in allowed:
        request.ctx.cors_origin = origin
    else:
        raise Refused(
            "origin_not_allowed",
            "Add the page's origin to the inbox's allowed origins, or use the widget's script tag.",
        )


async def preflight(request: Request, context: Context) -> HTTPResponse:
    """The answer to an OPTIONS request. Raises :class:`Refused` for an unknown origin."""
    request.ctx.cors_decided = True
    origin = foreign_origin(request, context.settings.public_url)
    if origin is not None and not await context.origins.allows(origin, None):
        raise Refused(
            "origin_not_allowed", "Add the page's origin to the allowed origins of its inbox."
        )
    request.ctx.cors_origin = origin
    return empty(
        headers={
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": REQUEST_HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }
    )


def finish(request: Request, response: BaseHTTPResponse) -> None:
    """Tell the browser what was decided; caches keep the answers for each origin apart."""
    if not applies(request.path):
        return
    response.headers["Vary"] = ", ".join(filter(None, (response.headers.get("Vary"), "Origin")))
    origin = getattr(request.ctx, "cors_origin", None)
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = ANSWER_HEADERS
