"""The ``websockets`` peer: its asyncio server, ``broadcast()`` for every event."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from hub import BACKLOG, Arguments, Hub
from websockets.asyncio.server import ServerConnection, broadcast, serve


def deliver(members: set[Any], text: bytes) -> None:
    """Send one event to all."""
    broadcast(members, text.decode())


async def main() -> None:
    """Serve until killed."""
    arguments = Arguments.read()
    hub = Hub(arguments, deliver)
    await hub.start()

    async def handle(client: ServerConnection) -> None:
        socket_id, greeting = hub.greet()
        await client.send(greeting)
        try:
            async for text in client:
                hub.receive(client, socket_id, text, lambda said: broadcast([client], said))
        finally:
            hub.leave(client)

    # its documentation says how to save memory: without compression
    async with serve(handle, "127.0.0.1", arguments.port, compression=None, backlog=BACKLOG):
        await asyncio.Future()


uvloop.run(main())
