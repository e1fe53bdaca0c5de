"""The real pusher-js in Node: what browsers use is what must work."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.gateway import pusher
from tests.gateway.conftest import APPLICATION, Gateway, RedisServer, node_modules, until
from tests.gateway.test_control import call

CHANNEL = "private-conversation.7"
MESSAGE = {
    "event": "message.created",
    "channel": CHANNEL,
    "data": json.dumps({"seq": 1, "body": "Grüße 你好"}),
}


class PusherJs:
    """A running client and the lines that it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def next(self, what: str) -> dict[str, Any]:
        """The next line about ``what``; others are passed over."""
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self._process.stdout.readline():
                said: dict[str, Any] = json.loads(line)
                if said["what"] == what:
                    return said
        raise AssertionError(f"pusher-js ended before it said {what!r}")

    def do(self, task: str, **fields: object) -> None:
        """Let it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": task, **fields}).encode() + b"\n")

    async def state(self, wanted: str) -> None:
        """Wait until the connection is in this state."""
        while (await self.next("state"))["state"] != wanted:
            pass


@asynccontextmanager
async def pusher_js(
    gateway: Gateway, *, key: str = APPLICATION.key, secret: str = APPLICATION.secret.decode()
) -> AsyncIterator[PusherJs]:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(Path(__file__).with_name("pusher_client.cjs")),
        *(str(gateway.port), key, CHANNEL, secret),
        env={**os.environ, "NODE_PATH": node_modules("pusher-js")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield PusherJs(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def test_it_subscribes_and_receives(gateway: Gateway, redis_server: RedisServer) -> None:
    async with pusher_js(gateway) as client:
        await client.state("connected")
        await client.next("subscribed")
        redis_server.publish(CHANNEL, json.dumps(MESSAGE).encode())
        assert (await client.next("event"))["data"] == {"seq": 1, "body": "Grüße 你好"}


async def test_it_learns_that_a_signature_is_wrong(gateway: Gateway) -> None:
    async with pusher_js(gateway, secret="another") as client:
        assert (await client.next("refused"))["status"] == 401


async def test_it_gives_up_on_an_unknown_key(gateway: Gateway) -> None:
    async with pusher_js(gateway, key="nobody") as client:
        assert (await client.next("error"))["code"] == 4001
        await client.state("disconnected")


async def test_it_comes_back_after_the_gateway_was_restarted(
    own_gateway: Gateway, redis_server: RedisServer
) -> None:
    async with pusher_js(own_gateway) as client:
        await client.next("subscribed")
        assert await asyncio.to_thread(own_gateway.stop) == 0
        await asyncio.to_thread(own_gateway.start)
        await client.next("subscribed")
        redis_server.publish(CHANNEL, json.dumps(MESSAGE).encode())
        assert (await client.next("event"))["data"]["seq"] == 1


async def test_client_events_reach_the_other_and_too_many_are_refused(gateway: Gateway) -> None:
    async with pusher_js(gateway) as one, pusher_js(gateway) as two:
        for client in (one, two):
            await client.next("subscribed")
        one.do("trigger", event="client-typing", data={"on": True})
        assert (await two.next("typing"))["data"] == {"on": True}
        for _ in range(30):
            one.do("trigger", event="client-typing", data={})
        assert (await one.next("error"))["code"] == 4301
        # the socket stays
        two.do("trigger", event="client-typing", data={"from": "two"})
        assert (await one.next("typing"))["data"] == {"from": "two"}


async def test_it_signs_in_and_hears_what_is_for_its_user(
    gateway: Gateway, redis_server: RedisServer
) -> None:
    async with pusher_js(gateway) as client, pusher_js(gateway) as other:
        for each, user in ((client, "bo"), (other, "al")):
            await each.next("subscribed")
            each.do("signin", user=user)
            await each.next("signed in")
        channel = pusher.user_channel("bo")
        path = f"/apps/app1/channels/{quote(channel, safe='')}"
        await until(lambda: call(gateway, "GET", path).json()["occupied"])
        body = {"name": "note", "data": json.dumps({"n": 1}), "channels": [channel]}
        assert call(gateway, "POST", "/apps/app1/events", body).status_code == 200
        assert (await client.next("note"))["data"] == {"n": 1}
        # ended by the back end, it does not come back; the other stays
        call(gateway, "POST", "/apps/app1/users/bo/terminate_connections", {})
        assert (await client.next("error"))["code"] == 4009
        await client.state("disconnected")
        redis_server.publish(CHANNEL, json.dumps(MESSAGE).encode())
        assert (await other.next("event"))["data"]["seq"] == 1


async def test_it_gets_the_last_event_of_a_cache_channel(gateway: Gateway) -> None:
    name = "private-cache-for-pusher-js"
    async with pusher_js(gateway) as client:
        await client.next("subscribed")
        client.do("subscribe", channel=name)
        assert (await client.next("subscribed too"))["name"] == name
        assert (await client.next("cache miss"))["name"] == name
        body = {"name": "price", "data": "42", "channel": name}
        assert call(gateway, "POST", "/apps/app1/events", body).status_code == 200
        assert (await client.next("price"))["data"] == 42
    async with pusher_js(gateway) as client:
        await client.next("subscribed")
        client.do("subscribe", channel=name)
        await client.next("subscribed too")
        assert (await client.next("price"))["data"] == 42
