"""What crosses nodes: two gateways and one Redis."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from app.bus import events
from app.gateway import pusher
from tests.gateway.conftest import APPLICATION, Client, Gateway, RedisServer, until
from tests.gateway.test_control import call

CHANNEL = "private-conversation.7"


@pytest.fixture(scope="module")
def second(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    running = Gateway(redis_server.url, tmp_path_factory.mktemp("second")).start()
    yield running
    assert running.stop() == 0


async def sign_in(client: Client, user_id: str) -> None:
    user_data = json.dumps({"id": user_id})
    auth = pusher.sign_user(APPLICATION, client.socket_id, user_data)
    await client.send("pusher:signin", {"auth": auth, "user_data": user_data})
    assert (await client.receive())["event"] == "pusher:signin_success"


async def closed_with(client: Client) -> int | None:
    """Read until the gateway closes; gives the code."""
    async with asyncio.timeout(10):
        try:
            while True:
                await client.receive_bytes()
        except websockets.ConnectionClosed:
            code: int | None = client.websocket.close_code
            return code


# --- client events


async def test_a_client_event_reaches_the_others_on_all_nodes_and_not_its_sender(
    gateway: Gateway, second: Gateway
) -> None:
    async with (
        await gateway.connect() as sender,
        await gateway.connect() as near,
        await second.connect() as far,
    ):
        for client in (sender, near, far):
            await client.subscribe(CHANNEL)
        event = {"event": "client-typing", "channel": CHANNEL, "data": {"on": True}}
        await sender.websocket.send(json.dumps(event))
        assert await near.receive() == event
        assert await far.receive() == event
        await sender.expect_nothing()
        assert "deskline_gateway_client_events_total" in gateway.get("/metrics").text


# --- cache channels


async def test_a_cache_channel_sends_its_last_event_first(
    gateway: Gateway, second: Gateway, redis_server: RedisServer
) -> None:
    channel = "private-cache-price"
    async with await gateway.connect() as early, await second.connect() as late:
        await early.subscribe(channel)
        assert await early.receive() == {
            "event": "pusher:cache_miss",
            "channel": channel,
            "data": "{}",
        }
        for price in ("1", "2"):
            body = {"name": "price", "data": price, "channel": channel}
            assert call(second, "POST", "/apps/app1/events", body).status_code == 200
            assert (await early.receive())["data"] == price
        await late.subscribe(channel)
        assert await late.receive() == {"event": "price", "channel": channel, "data": "2"}
        await late.expect_nothing()
        # from now on it is a channel like any other
        redis_server.publish(channel, b"live")
        assert await late.receive_bytes() == b"live"
        key = events.cache_key("app1", channel)
        assert 0 < redis_server.client.ttl(key) <= events.CACHE_SECONDS
        answer = call(gateway, "GET", f"/apps/app1/channels/{channel}", info="cache")
        assert answer.json()["cache"]["data"] == "2"
        assert 0 < answer.json()["cache"]["ttl"] <= events.CACHE_SECONDS


async def test_leaving_a_cache_channel_before_it_is_answered(gateway: Gateway) -> None:
    channel = "cache-quick"
    async with await gateway.connect() as client:
        for _ in range(20):
            await client.send("pusher:subscribe", {"channel": channel})
            await client.send("pusher:unsubscribe", {"channel": channel})
        await client.send("pusher:subscribe", {"channel": channel})
        async with asyncio.timeout(5):
            while (await client.receive())["event"] != "pusher:cache_miss":
                pass
        await client.expect_nothing()
        answer = call(gateway, "GET", f"/apps/app1/channels/{channel}", info="subscription_count")
        assert answer.json() == {"occupied": True, "subscription_count": 1}


# --- users


async def test_events_for_a_user_reach_all_sockets_of_that_user(
    gateway: Gateway, second: Gateway
) -> None:
    channel = pusher.user_channel("bo@shop.example")
    async with (
        await gateway.connect() as near,
        await second.connect() as far,
        await second.connect() as other,
    ):
        for client, user in ((near, "bo@shop.example"), (far, "bo@shop.example"), (other, "al")):
            await sign_in(client, user)
            await client.subscribe(pusher.user_channel(user))
        body = {"name": "note", "data": "1", "channels": [channel]}
        assert call(gateway, "POST", "/apps/app1/events", body).status_code == 200
        for client in (near, far):
            assert await client.receive() == {"event": "note", "channel": channel, "data": "1"}
        await other.expect_nothing()
        assert channel not in call(gateway, "GET", "/apps/app1/channels").json()["channels"]


async def test_terminate_connections_ends_those_of_the_user_on_all_nodes(
    gateway: Gateway, second: Gateway
) -> None:
    near, far = await gateway.connect(), await second.connect()
    async with await second.connect() as other:
        await sign_in(near, "bo")
        await sign_in(far, "bo")
        await sign_in(other, "al")
        path = "/apps/app1/users/bo/terminate_connections"
        answer = call(gateway, "POST", path, {})
        assert (answer.status_code, answer.json()) == (200, {})
        # documented: unauthorized, do not reconnect
        assert await closed_with(near) == 4009
        assert await closed_with(far) == 4009
        await other.expect_nothing()


# --- access


def change_access(redis_server: RedisServer, owner: str) -> int:
    """As the worker relays it; gives how many nodes heard it."""
    event = events.access_changed(owner)
    topic = events.redis_channel("app1", event.channel)
    replies: list[Any] = [
        redis_server.client.execute_command(*words)
        for words in events.commands(topic, events.redis_payload(event))
    ]
    return int(replies[-1])


async def subscribe_as(client: Client, owner: str, channel: str = CHANNEL) -> None:
    data = json.dumps({"owner": owner, "until": int(time.time()) + 60})
    auth = pusher.sign_channel(APPLICATION, client.socket_id, channel, data)
    await client.send("pusher:subscribe", {"channel": channel, "auth": auth, "channel_data": data})


async def test_a_change_of_access_closes_the_owners_sockets_on_all_nodes(
    gateway: Gateway, second: Gateway, redis_server: RedisServer
) -> None:
    near, far, sleeper = await gateway.connect(), await second.connect(), await second.connect()
    async with await second.connect() as other:
        for client, owner in ((near, "user.7"), (far, "user.7"), (other, "user.77")):
            await subscribe_as(client, owner)
            assert (await client.receive())["event"].endswith("subscription_succeeded")
        assert change_access(redis_server, "user.7") == 2
        assert await closed_with(near) == 4200
        assert await closed_with(far) == 4200
        await other.expect_nothing()
        # a socket that was there before, with a signature that was made before
        await subscribe_as(sleeper, "user.7")
        assert await closed_with(sleeper) == 4200
    async with await gateway.connect() as again:
        await subscribe_as(again, "user.7")
        assert (await again.receive())["event"].endswith("subscription_succeeded")
        redis_server.publish(CHANNEL, b"x")
        assert await again.receive_bytes() == b"x"


async def test_a_change_that_was_missed_is_made_good_when_redis_is_back(tmp_path: Path) -> None:
    redis_server = RedisServer(tmp_path).start()
    gateway = Gateway(redis_server.url, tmp_path).start()
    try:
        client = await gateway.connect()
        await subscribe_as(client, "user.7")
        assert (await client.receive())["event"].endswith("subscription_succeeded")
        redis_server.stop()
        await until(lambda: "redis_up 0.0" in gateway.get("/metrics").text)
        redis_server.start()
        # told before the gateway is back
        change_access(redis_server, "user.7")
        assert await closed_with(client) == 4200
    finally:
        gateway.stop()
        redis_server.stop()


def test_what_is_no_control_message_harms_nobody(
    gateway: Gateway, redis_server: RedisServer
) -> None:
    for message in (b"", b"{", b"[]", b"{}", b'{"do":"dance"}', b'{"do":"count"}'):
        redis_server.publish("#control", message)
    assert gateway.get("/readyz").status_code == 200
    answer = call(gateway, "GET", "/apps/app1/channels/none")
    assert answer.json() == {"occupied": False}


# --- counts


async def test_counts_are_those_of_all_nodes(gateway: Gateway, second: Gateway) -> None:
    async with (
        await gateway.connect() as one,
        await gateway.connect() as two,
        await second.connect() as three,
    ):
        for client in (one, two, three):
            await client.subscribe("private-count")
        await three.subscribe("public-count")
        path = "/apps/app1/channels/private-count"
        for node in (gateway, second):
            answer = call(node, "GET", path, info="subscription_count")
            assert answer.json() == {"occupied": True, "subscription_count": 3}
        answer = call(
            gateway, "GET", "/apps/app1/channels", info="subscription_count", filter_by_prefix="p"
        )
        channels = answer.json()["channels"]
        assert channels["private-count"] == {"subscription_count": 3}
        assert channels["public-count"] == {"subscription_count": 1}
        body = {
            "name": "e",
            "data": "1",
            "channels": ["private-count", "nobody"],
            "info": "subscription_count",
        }
        answer = call(gateway, "POST", "/apps/app1/events", body)
        assert answer.json() == {
            "channels": {
                "private-count": {"subscription_count": 3},
                "nobody": {"subscription_count": 0},
            }
        }
        event = {"name": "e", "data": "1", "channel": "public-count"}
        batch = {"batch": [{**event, "info": "subscription_count"}, event]}
        answer = call(second, "POST", "/apps/app1/batch_events", batch)
        assert answer.json() == {"batch": [{"subscription_count": 1}, {}]}


@pytest.mark.parametrize(
    ("path", "info"),
    [
        ("/apps/app1/channels", "user_count"),
        ("/apps/app1/channels", "weather"),
        ("/apps/app1/channels/private-a", "user_count"),
        ("/apps/app1/channels/private-a", "cache"),
        ("/apps/app1/channels/private-a/users", ""),
    ],
)
def test_what_a_channel_has_not_is_400(gateway: Gateway, path: str, info: str) -> None:
    assert call(gateway, "GET", path, info=info).status_code == 400


async def test_a_node_that_dies_is_in_no_count(
    gateway: Gateway, redis_server: RedisServer, tmp_path: Path
) -> None:
    third = Gateway(redis_server.url, tmp_path).start()
    async with await gateway.connect() as here:
        there = await third.connect()
        await here.subscribe("private-crash")
        await there.subscribe("private-crash")
        assert third.process is not None
        third.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        # it still has its connection to Redis but says nothing
        answer = call(
            gateway, "GET", "/apps/app1/channels/private-crash", info="subscription_count"
        )
        assert answer.json() == {"occupied": True, "subscription_count": 1}
        assert time.monotonic() - started < 5
        third.process.kill()
        third.process.wait(10)
        started = time.monotonic()
        answer = call(
            gateway, "GET", "/apps/app1/channels/private-crash", info="subscription_count"
        )
        assert answer.json() == {"occupied": True, "subscription_count": 1}
        assert time.monotonic() - started < 1
    answer = call(gateway, "GET", "/apps/app1/channels/private-crash")
    assert answer.json() == {"occupied": False}


@pytest.mark.skipif("RedisServer(Path()).is_fake", reason="fakeredis cannot end connections")
async def test_a_node_that_does_not_hear_itself_says_so_and_publishes_nothing(
    own_gateway: Gateway, redis_server: RedisServer
) -> None:
    channel = "private-cache-cut"
    body = {"name": "e", "channel": channel, "info": "subscription_count"}
    last = None
    for number in range(10):
        redis_server.client.client_kill_filter(_type="pubsub")
        answer = await asyncio.to_thread(
            call, own_gateway, "POST", "/apps/app1/events", {**body, "data": str(number)}
        )
        if answer.status_code == 503:
            break
        last = str(number)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    # what was published is what a cache channel remembers
    kept = redis_server.client.get(events.cache_key("app1", channel))
    assert (json.loads(kept)["data"] if isinstance(kept, bytes) else None) == last
    while answer.status_code != 200:
        answer = await asyncio.to_thread(
            call, own_gateway, "POST", "/apps/app1/events", {**body, "data": "end"}
        )
    kept = redis_server.client.get(events.cache_key("app1", channel))
    assert isinstance(kept, bytes)
    assert json.loads(kept)["data"] == "end"


# --- several applications


async def test_applications_are_apart(redis_server: RedisServer, tmp_path: Path) -> None:
    path = tmp_path / "applications.json"
    secret = "another-secret-for-tests"
    shop = {"id": "shop", "key": "shop-key", "secret": secret}
    off = {"id": "off", "key": "off-key", "secret": secret, "enabled": False}
    path.write_text(json.dumps({"applications": [shop, off]}))
    path.chmod(0o640)
    gateway = Gateway(redis_server.url, tmp_path)
    gateway.env["DESKLINE_GATEWAY_APPLICATIONS"] = str(path)
    gateway.start()
    url = gateway.url
    try:
        async with await gateway.connect() as own:
            gateway.url = url.replace("/app/key1", "/app/shop-key")
            async with await gateway.connect() as client:
                # the same name in another application is another channel
                await client.send("pusher:subscribe", {"channel": "public"})
                assert (await client.receive())["event"].endswith("subscription_succeeded")
                await own.subscribe("public")
                redis_server.publish("public", b"for app1")
                assert await own.receive_bytes() == b"for app1"
                await client.expect_nothing()
                answer = call(gateway, "GET", "/apps/shop/channels")
                assert answer.status_code == 401  # signed with the key of app1
        assert call(gateway, "GET", "/apps/off/channels").status_code == 401
        assert secret not in gateway.log_file.read_text()
    finally:
        gateway.stop()
