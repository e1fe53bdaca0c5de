"""Laravel Echo and the PyPI library `pusher`, both unchanged, against the gateway and each other.

The library publishes, asks and signs as a back end does; Echo, over pusher-js in Node, is the page.
Neither knows that this is not Pusher's own server.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

import pusher
import pytest
from pusher.errors import PusherBadAuth, PusherForbidden

from app.gateway.presence import LEAVE_DELAY_SECONDS
from tests.gateway.conftest import APPLICATION, Gateway, RedisServer, node_modules

MASTER_KEY = base64.b64encode(b"k" * 32).decode()
APPLICATION_ID = "4711"
PATIENCE_SECONDS = 30


@pytest.fixture(scope="module")
def gateway(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway whose application has a number: the library takes no other id."""
    running = Gateway(redis_server.url, tmp_path_factory.mktemp("gateway"))
    running.env["DESKLINE_PUSHER_APP_ID"] = APPLICATION_ID
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def backend(gateway: Gateway) -> Any:
    """The library as a back end would make it."""
    return backend_of(gateway)


def backend_of(gateway: Gateway, secret: str = APPLICATION.secret.decode()) -> Any:
    return pusher.Pusher(
        app_id=APPLICATION_ID,
        key=APPLICATION.key,
        secret=secret,
        ssl=False,
        host="127.0.0.1",
        port=gateway.control_port,
        encryption_master_key_base64=MASTER_KEY,
    )


@pytest.fixture
def signer(backend: Any) -> Iterator[str]:
    """The address of a back end that signs, with the library, for whoever the bearer token names;
    it refuses channels of others."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            user = self.headers["Authorization"].removeprefix("Bearer ")
            size = int(self.headers["Content-Length"])
            form = {name: values[0] for name, values in parse_qs(self.rfile.read(size)).items()}
            socket_id = form[b"socket_id"].decode()
            if self.path.endswith("user-auth"):
                answer = backend.authenticate_user(socket_id, {"id": user})
            else:
                channel = form[b"channel_name"].decode()
                if "of-others" in channel:
                    self.send_response(403)
                    self.end_headers()
                    return
                member = {"user_id": user, "user_info": {"name": user.title()}}
                is_presence = channel.startswith("presence-")
                answer = backend.authenticate(channel, socket_id, member if is_presence else None)
            if "shared_secret" in answer:
                answer["shared_secret"] = answer["shared_secret"].decode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Echo:
    """A page with Laravel Echo: what it is told to do, and what it says happened."""

    process: asyncio.subprocess.Process

    def do(self, what: str, **more: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")

    async def next(self, *whats: str) -> dict[str, Any]:
        """The next line about one of ``whats``; others are passed over."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while line := await self.process.stdout.readline():
                said: dict[str, Any] = json.loads(line)
                if said["what"] in whats:
                    return said
        raise AssertionError(f"Echo ended before it said {whats}")

    async def join(self, kind: str, name: str) -> None:
        """Join, and wait until the gateway has confirmed."""
        self.do("join", kind=kind, name=name)
        said = await self.next("subscribed", "refused")
        assert said == {"what": "subscribed", "name": name}

    async def state(self, wanted: str) -> None:
        while (await self.next("state"))["state"] != wanted:
            pass

    async def socket_id(self) -> str:
        self.do("socket")
        return str((await self.next("socket"))["id"])


class Pages(Protocol):
    def __call__(self, user: str) -> AbstractAsyncContextManager[Echo]: ...


@pytest.fixture
def page(gateway: Gateway, signer: str) -> Pages:
    """Opens a page of a user."""

    @asynccontextmanager
    async def open_page(user: str) -> AsyncIterator[Echo]:
        process = await asyncio.create_subprocess_exec(
            "node",
            str(Path(__file__).with_name("echo_client.cjs")),
            *(str(gateway.port), APPLICATION.key, signer),
            env={**os.environ, "NODE_PATH": node_modules("laravel-echo"), "ECHO_USER": user},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        try:
            echo = Echo(process)
            await echo.state("connected")
            yield echo
        finally:
            process.stdin.close()
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    return open_page


async def call(function: Any, *arguments: object, **more: object) -> Any:
    """The library blocks."""
    return await asyncio.to_thread(function, *arguments, **more)


# --- Echo


@pytest.mark.parametrize("kind", ["public", "private", "encrypted", "presence"])
async def test_a_page_hears_what_the_back_end_triggers(
    kind: str, page: Pages, backend: Any
) -> None:
    prefix = {"public": "", "encrypted": "private-encrypted-"}.get(kind, f"{kind}-")
    async with page("ada") as echo:
        await echo.join(kind, "orders.1")
        channel = f"{prefix}orders.1"
        await call(backend.trigger, channel, "App\\Events\\OrderShipped", {"id": 1, "to": "你好"})
        said = await echo.next("event")
        assert said == {"what": "event", "name": "orders.1", "data": {"id": 1, "to": "你好"}}
        await call(backend.trigger, channel, "message.created", {"seq": 2})
        assert (await echo.next("event"))["data"] == {"seq": 2}
        notification = "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"
        await call(backend.trigger, channel, notification, {"type": "Invoice"})
        assert (await echo.next("notification"))["data"] == {"type": "Invoice"}


async def test_a_page_is_refused_the_channels_of_others(page: Pages) -> None:
    async with page("ada") as echo:
        echo.do("join", kind="private", name="of-others")
        assert (await echo.next("refused", "subscribed"))["status"] == 403


async def test_a_page_does_not_hear_its_own_trigger(page: Pages, backend: Any) -> None:
    async with page("ada") as ada, page("bob") as bob:
        await ada.join("private", "orders.2")
        await bob.join("private", "orders.2")
        own = await ada.socket_id()
        names = ("private-orders.2", "message.created")
        await call(backend.trigger, *names, {"for": "others"}, socket_id=own)
        await call(backend.trigger, *names, {"for": "all"})
        assert (await ada.next("event"))["data"] == {"for": "all"}
        assert [(await bob.next("event"))["data"]["for"] for _ in range(2)] == ["others", "all"]


async def test_whispers_reach_the_others_only(page: Pages, backend: Any) -> None:
    async with page("ada") as ada, page("bob") as bob:
        await ada.join("private", "talk.1")
        await bob.join("private", "talk.1")
        ada.do("whisper", name="talk.1", data={"name": "Ada"})
        said = await bob.next("whisper")
        assert said == {"what": "whisper", "name": "talk.1", "data": {"name": "Ada"}}
        await call(backend.trigger, "private-talk.1", "message.created", {"last": True})
        assert (await ada.next("whisper", "event"))["what"] == "event"


async def test_here_joining_leaving(page: Pages, backend: Any) -> None:
    ada, bob = {"name": "Ada"}, {"name": "Bob"}
    async with page("ada") as first:
        first.do("join", kind="presence", name="room.1")
        assert (await first.next("here"))["members"] == [ada]
        async with page("bob") as second:
            second.do("join", kind="presence", name="room.1")
            members = (await second.next("here"))["members"]
            assert sorted(member["name"] for member in members) == ["Ada", "Bob"]
            assert (await first.next("joining"))["member"] == bob
            found = await call(backend.users_info, "presence-room.1")
            assert found == {"users": [{"id": "ada"}, {"id": "bob"}]}
            second.do("whisper", name="room.1", data={"typing": True})
            assert (await first.next("whisper"))["data"] == {"typing": True}
            second.do("leave", name="room.1")
            assert (await first.next("leaving"))["member"] == bob
            second.do("join", kind="presence", name="room.1")
            assert (await first.next("joining"))["member"] == bob
        # bob's page is closed without a word
        async with asyncio.timeout(LEAVE_DELAY_SECONDS + 10):
            assert (await first.next("leaving"))["member"] == bob


async def test_a_signed_in_user_is_reached_and_cut_off(page: Pages, backend: Any) -> None:
    async with page("carla") as echo, page("dora") as other:
        for each, user in ((echo, "carla"), (other, "dora")):
            each.do("signin")
            said = await each.next("signed-in")
            assert json.loads(said["data"]["user_data"]) == {"id": user}
        await call(backend.trigger, "#server-to-user-carla", "notice", {"n": 1})
        assert (await echo.next("notice"))["data"] == {"n": 1}
        await call(backend.terminate_user_connections, "carla")
        while (await echo.next("state"))["state"] == "connected":
            pass
        await call(backend.trigger, "#server-to-user-dora", "notice", {"n": 2})
        assert (await other.next("notice", "state")) == {"what": "notice", "data": {"n": 2}}


# --- the library


async def test_the_library_triggers_in_batches_and_on_many_channels(
    gateway: Gateway, backend: Any
) -> None:
    async with await gateway.connect() as client:
        await client.subscribe("private-many.1")
        await client.subscribe("private-many.2")
        channels = [f"private-many.{index}" for index in range(1, 4)]
        assert await call(backend.trigger, channels, "e", "plain text") == {}
        batch = [
            {"channel": "private-many.1", "name": "first", "data": {"a": 1}},
            {"channel": "private-many.2", "name": "second", "data": "b"},
        ]
        await call(backend.trigger_batch, batch)
        seen = [await client.receive() for _ in range(4)]
        assert [(each["channel"], each["event"], each["data"]) for each in seen] == [
            ("private-many.1", "e", "plain text"),
            ("private-many.2", "e", "plain text"),
            ("private-many.1", "first", '{"a": 1}'),
            ("private-many.2", "second", "b"),
        ]


async def test_the_library_asks_for_channels(gateway: Gateway, backend: Any, page: Pages) -> None:
    async with await gateway.connect() as one, await gateway.connect() as two, page("eva") as eva:
        for client in (one, two):
            await client.subscribe("private-asked.1")
        await eva.join("presence", "asked.2")
        found = await call(backend.channels_info, "private-asked.")
        assert found == {"channels": {"private-asked.1": {}}}
        found = await call(backend.channels_info, "presence-asked.", ["user_count"])
        assert found == {"channels": {"presence-asked.2": {"user_count": 1}}}
        found = await call(backend.channel_info, "private-asked.1", ["subscription_count"])
        assert found == {"occupied": True, "subscription_count": 2}
        asked = ["user_count", "subscription_count"]
        found = await call(backend.channel_info, "presence-asked.2", asked)
        assert found == {"occupied": True, "user_count": 1, "subscription_count": 1}
        assert await call(backend.channel_info, "private-asked.3") == {"occupied": False}
        assert await call(backend.users_info, "presence-asked.2") == {"users": [{"id": "eva"}]}


async def test_what_the_library_signs_is_accepted(gateway: Gateway, backend: Any) -> None:
    async with await gateway.connect() as client:
        signed = backend.authenticate("private-signed.1", client.socket_id)
        await client.send("pusher:subscribe", {"channel": "private-signed.1", **signed})
        assert (await client.receive())["event"] == "pusher_internal:subscription_succeeded"
        user = {"id": "fay", "user_info": {"name": "Fay"}}
        await client.send("pusher:signin", backend.authenticate_user(client.socket_id, user))
        assert (await client.receive())["event"] == "pusher:signin_success"


async def test_the_library_understands_our_refusals(gateway: Gateway, backend: Any) -> None:
    wrong = backend_of(gateway, secret="another")
    with pytest.raises(PusherBadAuth):
        await call(wrong.trigger, "a", "e", {})
    with pytest.raises(PusherBadAuth):
        await call(wrong.terminate_user_connections, "carla")
    with pytest.raises((PusherForbidden, pusher.errors.PusherError)):
        await call(backend.users_info, "private-a")
