"""The Django Channels peer: a consumer on uvicorn, groups over channels-redis' pub/sub layer.

An event from the bench's Redis channel goes into the channel layer by ``group_send``, once for each
event: that is how Channels' documentation sends from outside of a consumer.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import django
import uvicorn
from django.conf import settings
from hub import BACKLOG, Arguments, Hub

arguments = Arguments.read()
settings.configure(
    SECRET_KEY="of a bench",  # noqa: S106  protects nothing
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [("127.0.0.1", arguments.redis_port)]},
        }
    },
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402  after the settings
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter  # noqa: E402

hub: Hub
tasks: set[asyncio.Task[None]] = set()


def later(coroutine: Any) -> None:
    """Run it in the background."""
    task = asyncio.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """One socket."""

    group: str | None = None

    async def connect(self) -> None:
        """Say hello."""
        await self.accept()
        self.socket_id, greeting = hub.greet()
        await self.send(text_data=greeting)

    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        """Subscribe: in the bench's Redis channel once, in the group each."""

        def tell(said: str) -> None:
            self.group = said.partition('"channel":"')[2].partition('"')[0]
            later(self._join(said))

        hub.receive(self, self.socket_id, text_data, tell)

    async def _join(self, said: str) -> None:
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.send(text_data=said)

    async def disconnect(self, code: int) -> None:
        """Forget it."""
        hub.leave(self)
        if self.group:
            await self.channel_layer.group_discard(self.group, self.channel_name)

    async def bench_event(self, event: dict[str, str]) -> None:
        """An event of the group."""
        await self.send(text_data=event["text"])


async def main() -> None:
    """Serve until killed."""
    global hub  # noqa: PLW0603  the consumers are made by Channels, without an argument of ours
    events: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def deliver(members: set[Any], text: bytes) -> None:
        group = next(iter(members)).group
        if group:
            events.put_nowait((group, text.decode()))

    hub = Hub(arguments, deliver)
    await hub.start()
    layer = get_channel_layer()

    async def forward() -> None:
        while True:
            group, text = await events.get()
            await layer.group_send(group, {"type": "bench.event", "text": text})

    later(forward())
    server = uvicorn.Server(
        uvicorn.Config(
            ProtocolTypeRouter({"websocket": Consumer.as_asgi()}),
            host="127.0.0.1",
            port=arguments.port,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            loop="uvloop",
            lifespan="off",
            backlog=BACKLOG,
            log_level="error",
        )
    )
    await server.serve()


if __name__ == "__main__":
    import uvloop

    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    sys.exit(uvloop.run(main()))
