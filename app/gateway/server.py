"""The gateway inside Sanic: a stand-alone process, or attached to another application.

Sanic gives the life cycle and the control routes; WebSockets have a listener of their own
(:class:`app.gateway.node.Node`), because Sanic's keeps four tasks per connection.

A port that cannot be listened on raises :class:`app.serving.StartError` out of the
``after_server_start`` listener, and so out of :func:`app.serving.run`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import suppress
from typing import Any

import prometheus_client
from prometheus_client import REGISTRY
from sanic import Request, Sanic
from sanic.response import HTTPResponse, json, raw

from app.bus import connection
from app.bus.nodes import Beat
from app.config import ConfigError, Settings
from app.gateway import applications, control
from app.gateway.garbage import Garbage
from app.gateway.metrics import NodeCollector
from app.gateway.node import Node
from app.version import version


def attach(app: Sanic[Any, Any], settings: Settings) -> Node:
    """Run a gateway with ``app``: its listener, its drain, and the HTTP API under /apps/.

    ``app`` keeps its own /healthz, /readyz and /metrics; the node's metrics are in
    prometheus_client's default registry while it runs. Call it before ``app`` starts.
    """
    node = Node(settings)
    collector = NodeCollector(node)
    app.ctx.gateway = node
    app.blueprint(control.blueprint())

    async def start(_app: Sanic[Any, Any]) -> None:
        await node.start()
        if node.garbage is not None:
            node.garbage.start()
        REGISTRY.register(collector)
        app.ctx.gateway_told_by = connection.connect(settings.redis_url)
        app.ctx.gateway_beat = Beat(
            app.ctx.gateway_told_by, process="gateway", node=settings.node, version=version()
        )

    async def drain(_app: Sanic[Any, Any]) -> None:
        await node.drain(settings.drain_seconds)

    async def stop(_app: Sanic[Any, Any]) -> None:
        # nothing to undo when the start failed; a registry has no public "is it in there"
        with suppress(KeyError):
            REGISTRY.unregister(collector)
        # nothing to close either
        if (beat := getattr(app.ctx, "gateway_beat", None)) is not None:
            await beat.close()
            await app.ctx.gateway_told_by.aclose()
        await node.stop()

    async def reload() -> None:
        """Read the applications and their limits again; a wrong file changes nothing."""
        try:
            node.reload(await asyncio.to_thread(applications.load, settings))
        except ConfigError as error:
            for problem in error.problems:
                node.log.error("not reloaded", problem=problem)

    def on_hangup() -> None:
        app.ctx.gateway_reload = asyncio.get_running_loop().create_task(reload())

    async def listen_for_hangup(_app: Sanic[Any, Any]) -> None:
        # only the main thread may; elsewhere there is nobody to send a signal to us
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)

    app.register_listener(start, "after_server_start")
    app.register_listener(listen_for_hangup, "after_server_start")
    app.register_listener(drain, "before_server_stop")
    app.register_listener(stop, "after_server_stop")
    return node


def create_app(settings: Settings) -> Sanic[Any, Any]:
    """The application of the process ``python -m app gateway``, for the control port."""
    app: Sanic[Any, Any] = Sanic("deskline_gateway", configure_logging=False)
    node = attach(app, settings)
    node.garbage = Garbage()
    control.add_drain(app)

    @app.get("/healthz")
    async def healthz(_request: Request) -> HTTPResponse:
        return json({"status": "ok"})

    @app.get("/readyz")
    async def readyz(_request: Request) -> HTTPResponse:
        checks = {
            "listening": node.listening,
            "draining": node.draining,
            "redis": "up" if node.reader.is_up else "down",
            "redis_was_reached": node.reader.ever_connected,
        }
        ready = node.is_ready
        status = "ready" if ready else "not ready"
        return json({"status": status, **checks}, status=200 if ready else 503)

    @app.get("/metrics")
    async def metrics(_request: Request) -> HTTPResponse:
        body = prometheus_client.generate_latest(REGISTRY)
        return raw(body, content_type=prometheus_client.CONTENT_TYPE_LATEST)

    return app
