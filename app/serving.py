"""Run Sanic applications as one process on one event loop, with a drain before the end.

The order of a stop (SIGTERM, SIGINT) is: ``before_server_stop`` listeners run while the
listeners still accept, so that ``/readyz`` can already answer 503 and in-flight work is finished;
then the sockets close; then ``after_server_stop`` listeners run. Sanic's own ``run()`` closes all
connections first, which a drain must not do.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

import uvloop
from sanic import Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.http.constants import HTTP

from app import log

CLOSE_GRACE_SECONDS = 1.0
LISTEN_BACKLOG = 1024
SWITCH_SECONDS = 0.0005


class StartError(Exception):
    """A process cannot start; the text is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One Sanic application and the address that it serves."""

    app: Sanic[Any, Any]
    host: str
    port: int


class _Connection(Protocol):
    def close_if_idle(self) -> bool: ...

    def abort(self) -> None: ...


class _Server(Protocol):
    """What is used here of Sanic's AsyncioServer, which has no type hints of its own."""

    server: asyncio.Server | None
    connections: set[_Connection]

    async def startup(self) -> None: ...

    async def before_start(self) -> None: ...

    async def after_start(self) -> None: ...

    async def start_serving(self) -> None: ...

    async def before_stop(self) -> None: ...

    async def after_stop(self) -> None: ...


def open_socket(host: str, port: int, setting: str) -> socket.socket:
    """Bind ``host``:``port``; :class:`StartError` names ``setting`` when that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(LISTEN_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"Port {port} on {host} is taken by another program: "
                f"stop that program or choose another port with {setting}."
            ) from None
        raise StartError(
            f"Cannot listen on {host} port {port} ({error.strerror or error}): correct {setting}."
        ) from None
    sock.setblocking(False)
    return sock


def run(
    listeners: list[tuple[Listener, str]],
    *,
    drain_seconds: float,
    when_ready: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; returns when everything has stopped.

    ``listeners`` is a list of (listener, the name of the setting of its port). The first one is
    stopped first. ``drain_seconds`` bounds the drain. A second signal ends the drain at once.
    """
    bound = []
    try:
        for listener, setting in listeners:
            bound.append((listener, open_socket(listener.host, listener.port, setting)))
    except StartError:
        for _, sock in bound:
            sock.close()
        raise
    # With queries in 16 threads the event loop would wait for 16 of CPython's turns of 5 ms each
    # before it can look at a socket or a timer.
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(bound, drain_seconds, when_ready))


async def wait_until_ready(host: str, port: int, seconds: float = 10.0) -> None:
    """Return when ``GET /readyz`` answers 200; :class:`StartError` when it does not in time."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    try:
        async with asyncio.timeout(seconds):
            while True:
                with suppress(OSError):
                    reader, writer = await asyncio.open_connection(target, port)
                    writer.write(request)
                    status_line = await reader.readline()
                    writer.close()
                    if b" 200 " in status_line:
                        return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise StartError(
            f"The server on port {port} is not ready after {seconds:.0f} seconds: see its log."
        ) from None


async def _serve(
    bound: list[tuple[Listener, socket.socket]],
    drain_seconds: float,
    when_ready: Callable[[], Awaitable[None]] | None,
) -> None:
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    logger = log.get("serving")
    servers: list[_Server] = []
    try:
        for listener, sock in bound:
            servers.append(await _start(listener.app, sock))
        if when_ready is not None:
            await when_ready()
        # what was loaded to start lives until the end: full collections need not walk it again,
        # which spares the running process pauses and the ending one about a second
        gc.collect()
        gc.freeze()
        logger.info("started", ports=[listener.port for listener, _ in bound])
        await stop.wait()
    finally:
        logger.info("draining", seconds=drain_seconds)
        for server in servers:
            await _bounded(server.before_stop(), drain_seconds, hurry, "drain")
        for server in servers:
            await _close(server, hurry)
        for server in servers:
            await _bounded(server.after_stop(), drain_seconds + 5, hurry, "stop")
        logger.info("stopped")


async def _start(app: Sanic[Any, Any], sock: socket.socket) -> _Server:
    made = await app.create_server(sock=sock, access_log=False, return_asyncio_server=True)
    server = cast(_Server, made)
    # Sanic's run() notes this; without it every answer gets an empty Alt-Svc header
    app.state.server_info.append(ApplicationServerInfo(settings={"version": HTTP.VERSION_1}))
    await server.startup()
    await server.before_start()
    await server.after_start()
    await server.start_serving()
    return server


async def _close(server: _Server, hurry: asyncio.Event) -> None:
    """Stop accepting, close idle keep-alive connections, wait a little for busy ones."""
    if server.server is not None:
        server.server.close()
    for connection in list(server.connections):
        connection.close_if_idle()
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_GRACE_SECONDS):
            # Sanic tells nobody when a connection ends, so this looks at its set of them
            while server.connections and not hurry.is_set():  # noqa: ASYNC110  see above
                await asyncio.sleep(0.02)
    for connection in list(server.connections):
        connection.abort()


async def _bounded(
    work: Awaitable[object], seconds: float, hurry: asyncio.Event, phase: str
) -> None:
    """Await ``work``, but no longer than ``seconds`` and not beyond a second signal."""
    task = asyncio.ensure_future(work)
    hurried = asyncio.ensure_future(hurry.wait())
    try:
        done, _ = await asyncio.wait(
            {task, hurried}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if task not in done:
            log.get("serving").warning("not finished in time", phase=phase, seconds=seconds)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        elif error := task.exception():
            log.get("serving").error("listener failed", phase=phase, exc_info=error)
    finally:
        hurried.cancel()
