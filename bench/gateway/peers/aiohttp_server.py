"""The aiohttp peer: ``WebSocketResponse``, ``send_str`` for every delivery."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import uvloop
from aiohttp import WSMsgType, web
from hub import BACKLOG, Arguments, Hub


async def main() -> None:
    """Serve until killed."""
    arguments = Arguments.read()
    events: asyncio.Queue[tuple[set[Any], bytes]] = asyncio.Queue()
    hub = Hub(arguments, lambda members, text: events.put_nowait((members, text)))
    await hub.start()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        client = web.WebSocketResponse(compress=False)
        await client.prepare(request)
        socket_id, greeting = hub.greet()
        await client.send_str(greeting)

        def tell(said: str) -> None:
            task = asyncio.create_task(client.send_str(said))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        try:
            async for message in client:
                if message.type == WSMsgType.TEXT:
                    hub.receive(client, socket_id, message.data, tell)
        finally:
            hub.leave(client)
        return client

    app = web.Application()
    app.router.add_get("/ws", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", arguments.port, backlog=BACKLOG).start()
    while True:
        members, event = await events.get()
        text = event.decode()
        for client in list(members):
            with suppress(ConnectionError):
                await client.send_str(text)


uvloop.run(main())
