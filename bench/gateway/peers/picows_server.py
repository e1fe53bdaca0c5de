"""The picows peer: one listener object per socket, ``send`` for every delivery."""

from __future__ import annotations

from typing import Any

import uvloop
from hub import BACKLOG, Arguments, Hub
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


def deliver(members: set[Any], text: bytes) -> None:
    """Send one event to all."""
    for transport in members:
        transport.send(WSMsgType.TEXT, text)


class Client(WSListener):
    """One socket."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Say hello."""
        self._transport = transport
        self._id, greeting = self._hub.greet()
        transport.send(WSMsgType.TEXT, greeting.encode())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Subscribe, or answer a close."""
        if frame.msg_type == WSMsgType.TEXT:
            self._hub.receive(transport, self._id, frame.get_payload_as_bytes(), self._tell)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Forget it."""
        self._hub.leave(transport)

    def _tell(self, text: str) -> None:
        self._transport.send(WSMsgType.TEXT, text.encode())


async def main() -> None:
    """Serve until killed."""
    arguments = Arguments.read()
    hub = Hub(arguments, deliver)
    await hub.start()

    def make(_request: WSUpgradeRequest) -> Client:
        return Client(hub)

    server = await ws_create_server(
        make, "127.0.0.1", arguments.port, backlog=BACKLOG, read_buffer_init_size=1024
    )
    await server.serve_forever()


uvloop.run(main())
