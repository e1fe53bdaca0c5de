"""Bodies that are larger than a JSON call's: received piece by piece, with a limit of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from sanic import Request
from sanic.exceptions import PayloadTooLarge, SanicException
from sanic.http import Http

from app.chat.errors import Busy
from app.http import problems
from app.http.context import Context

AT_ONCE: Final = 8
RECEIVE_SECONDS: Final = 120.0
RETRY_SECONDS: Final = 2
# of a refused request, what is read and thrown away, so that its client reads the answer
DISCARD_BYTES: Final = 64 * 1024 * 1024
DISCARD_SECONDS: Final = 2.0


@contextmanager
def slot(context: Context) -> Iterator[None]:
    """Room for one file in memory; raises :class:`Busy` when a process receives too many."""
    if context.uploads >= AT_ONCE:
        raise Busy(RETRY_SECONDS)
    context.uploads += 1
    try:
        yield
    finally:
        context.uploads -= 1


async def receive(request: Request, max_bytes: int) -> bytes:
    """The body of a request to an endpoint with ``upload``.

    Raises a problem when it is larger than ``max_bytes`` or takes too long.
    """
    stream = request.stream
    if not isinstance(stream, Http):
        raise TypeError("an upload needs a route that streams its body")
    stream.request_max_size = max_bytes
    body = bytearray()
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for piece in stream:
                body += piece
    except PayloadTooLarge:
        raise problems.Problem(
            "payload_too_large", f"A file may have at most {max_bytes} bytes."
        ) from None
    except TimeoutError:
        stream.keep_alive = False
        raise problems.Problem(
            "malformed_request", f"The file did not arrive within {RECEIVE_SECONDS:.0f} seconds."
        ) from None
    return bytes(body)


async def discard(request: Request) -> None:
    """Read what is left of the body of a request that was refused before its end.

    A server that answers and closes while its client still sends makes the client's network
    report a broken connection instead of the answer (RFC 9112 §9.6).
    """
    stream = request.stream
    if not isinstance(stream, Http) or not stream.request_body or stream.expecting_continue:
        return
    stream.request_max_size = DISCARD_BYTES
    with suppress(SanicException, TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            async for _ in stream:
                pass
    if stream.request_body:
        stream.keep_alive = False
