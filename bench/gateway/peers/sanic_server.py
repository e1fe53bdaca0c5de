"""The Sanic peer: its own WebSocket handler, ``ws.send`` for every delivery."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from hub import BACKLOG, Arguments, Hub
from sanic import Request, Sanic, Websocket
from sanic.exceptions import WebsocketClosed

arguments = Arguments.read()
app = Sanic("bench_peer", configure_logging=False)


@app.after_server_start
async def start(app: Sanic, loop: Any) -> None:
    """Connect to Redis, begin to forward."""
    events: asyncio.Queue[tuple[set[Any], bytes]] = asyncio.Queue()
    app.ctx.hub = Hub(arguments, lambda members, text: events.put_nowait((members, text)))
    await app.ctx.hub.start()

    async def forward() -> None:
        while True:
            members, event = await events.get()
            text = event.decode()
            for client in list(members):
                with suppress(ConnectionError, WebsocketClosed):
                    await client.send(text)

    app.add_task(forward())


@app.websocket("/ws")
async def handle(request: Request, client: Websocket) -> None:
    """One socket."""
    hub: Hub = request.app.ctx.hub
    socket_id, greeting = hub.greet()
    await client.send(greeting)

    def tell(said: str) -> None:
        request.app.add_task(client.send(said))

    try:
        async for text in client:
            hub.receive(client, socket_id, text, tell)
    finally:
        hub.leave(client)


if __name__ == "__main__":
    app.run(
        host="127.0.0.1",
        port=arguments.port,
        single_process=True,
        access_log=False,
        motd=False,
        backlog=BACKLOG,
    )
