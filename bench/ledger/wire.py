"""A lean HTTP/1.1 client: kept connections, one request at a time on each, hang-ups on purpose.

httpx needs about a millisecond of CPU for a request; with hundreds of people on one core beside
the servers that would be the bottleneck. The parser is httptools' (RFC 9112).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import httptools
import orjson

from bench.ledger.target import Target

CONNECT_TIMEOUT_SECONDS: Final = 5.0
REQUEST_TIMEOUT_SECONDS: Final = 12.0
IDLE_SECONDS: Final = 20.0
MAX_CONNECTIONS: Final = 256


class WireError(Exception):
    """No answer: the connection could not be made, broke, or nothing came in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises :class:`WireError` when it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise WireError(f"the body of a {self.status} answer is not JSON") from None

    @property
    def problem(self) -> str:
        """Status and code of a problem document, for people to read."""
        try:
            code = orjson.loads(self.body).get("code", "")
        except (orjson.JSONDecodeError, AttributeError):
            code = ""
        return f"{self.status} {code}".strip()


class _Connection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.usable = True
        self._parser: Any = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Write a request; the future gets its answer or :class:`WireError`."""
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self._body = {}, []
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._waiting

    def drop(self) -> None:
        """Cut the connection at once, whatever is under way."""
        self.usable = False
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            self.drop()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {type(error).__name__}")
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._fail("the connection was closed")

    # --- called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer (RFC 9110 §15.2)
            return
        self.usable = self.usable and self._parser.should_keep_alive()
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(Answer(status, self._headers, b"".join(self._body)))

    def _fail(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(WireError(reason))


class Client:
    """Requests to one target over a pool of connections. Lives on one event loop."""

    def __init__(self, target: Target) -> None:
        self.requests = 0
        self.failures = 0
        self._target = target
        self._tls = target.tls
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        content_type: str = "application/json",
        hang_up_after_seconds: float | None = None,
    ) -> Answer:
        """Send a request and wait for its answer; any status is an answer.

        With ``hang_up_after_seconds`` the connection is cut so long after the request was written,
        and :class:`WireError` is raised, answered or not. Raises :class:`WireError`.
        """
        head = [f"{method} {path} HTTP/1.1", f"Host: {self._target.host_header}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        if body:
            head.append(f"Content-Type: {content_type}")
        if body or method != "GET":
            head.append(f"Content-Length: {len(body)}")
        request = "\r\n".join([*head, "\r\n"]).encode("latin-1") + body
        async with self._room:
            self.requests += 1
            try:
                return await self._exchange(request, hang_up_after_seconds)
            except (OSError, TimeoutError) as error:
                self.failures += 1
                raise WireError(type(error).__name__) from None
            except WireError:
                self.failures += 1
                raise

    async def _exchange(self, request: bytes, hang_up_after_seconds: float | None) -> Answer:
        connection = await self._connection()
        answered = False
        try:
            waiting = connection.ask(request)
            if hang_up_after_seconds is not None:
                await asyncio.sleep(hang_up_after_seconds)
                waiting.cancel()
                raise WireError("hung up on purpose")
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                answer = await waiting
            answered = True
            return answer
        finally:
            if answered and connection.usable:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
            else:
                connection.drop()

    async def _connection(self) -> _Connection:
        oldest = time.monotonic() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.drop()
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection,
                self._target.address,
                self._target.port,
                ssl=self._tls,
                server_hostname=self._target.host if self._tls else None,
            )
        return connection

    def close(self) -> None:
        """Cut the idle connections."""
        while self._idle:
            self._idle.pop().drop()
