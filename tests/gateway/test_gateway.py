"""The gateway's process, a real Redis and the `websockets` client."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from sanic import Sanic

from app import config
from app.gateway import pusher
from app.gateway.redis_reader import Address
from app.gateway.server import attach
from tests.gateway.conftest import APPLICATION, Client, Gateway, RedisServer, free_port, until

EVENT = b'{"event":"message.created","channel":"private-conversation.7","data":"{\\"seq\\": 1}"}'
CHANNEL = "private-conversation.7"


# --- subscribing and delivery


async def test_an_event_arrives_once_as_the_exact_bytes(
    gateway: Gateway, redis_server: RedisServer
) -> None:
    async with await gateway.connect() as client:
        await client.subscribe(CHANNEL)
        assert redis_server.publish(CHANNEL, EVENT) == 1
        assert await client.receive_bytes() == EVENT
        await client.expect_nothing()


async def test_a_wrong_signature_gets_no_events(
    gateway: Gateway, redis_server: RedisServer
) -> None:
    async with await gateway.connect() as client:
        auth = pusher.sign_channel(APPLICATION, "1.1", CHANNEL)
        await client.send("pusher:subscribe", {"channel": CHANNEL, "auth": auth})
        assert (await client.receive())["event"] == "pusher:subscription_error"
        assert (await client.receive())["data"]["code"] == 4009
        assert redis_server.publish(CHANNEL, EVENT) == 0
        await client.expect_nothing()


async def test_the_excluded_socket_is_left_out(gateway: Gateway, redis_server: RedisServer) -> None:
    async with await gateway.connect() as sender, await gateway.connect() as other:
        await sender.subscribe(CHANNEL)
        await other.subscribe(CHANNEL)
        redis_server.publish(CHANNEL, EVENT, excluded=sender.socket_id)
        assert await other.receive_bytes() == EVENT
        await sender.expect_nothing()


async def test_unsubscribing_stops_events_and_the_last_one_tells_redis(
    gateway: Gateway, redis_server: RedisServer
) -> None:
    async with await gateway.connect() as first, await gateway.connect() as second:
        await first.subscribe(CHANNEL)
        await second.subscribe(CHANNEL)
        await first.unsubscribe(CHANNEL)
        assert redis_server.publish(CHANNEL, EVENT) == 1
        assert await second.receive_bytes() == EVENT
        await first.expect_nothing()
        await second.unsubscribe(CHANNEL)
        await until(lambda: redis_server.publish(CHANNEL, EVENT) == 0)
        await first.subscribe(CHANNEL)
        assert redis_server.publish(CHANNEL, EVENT) == 1
        assert await first.receive_bytes() == EVENT


async def test_subscribed_means_that_not_one_event_is_missed(
    gateway: Gateway, redis_server: RedisServer
) -> None:
    # leave and join again and again: old confirmations must not count for the newest subscription
    async with await gateway.connect() as client:
        for number in range(50):
            await client.subscribe(CHANNEL)
            redis_server.publish(CHANNEL, b"%d" % number)
            assert await client.receive_bytes() == b"%d" % number
            await client.send("pusher:unsubscribe", {"channel": CHANNEL})


async def test_a_burst_keeps_its_order(gateway: Gateway, redis_server: RedisServer) -> None:
    async with await gateway.connect() as client:
        await client.subscribe("private-a")
        await client.subscribe("private-b")
        pipeline = redis_server.client.pipeline(transaction=False)
        for number in range(1000):
            channel = "private-a" if number % 3 else "private-b"
            topic = f"deskline:ch:{APPLICATION.id}:{channel}"
            pipeline.publish(topic, b"\n%d" % number)
        pipeline.execute()
        assert [int(await client.receive_bytes()) for _ in range(1000)] == list(range(1000))


async def test_close_codes_over_the_network(gateway: Gateway) -> None:
    for path, code in (("/app/nobody?protocol=7", 4001), ("/app/key1", 4008)):
        url = f"ws://127.0.0.1:{gateway.port}{path}"
        async with websockets.connect(url) as websocket:
            error = json.loads(await websocket.recv())
            assert error["data"]["code"] == code
            with pytest.raises(websockets.ConnectionClosed):
                await websocket.recv()
            assert websocket.close_code == code
    async with await gateway.connect() as client:
        await client.websocket.send(b"binary")
        with pytest.raises(websockets.ConnectionClosed):
            await client.websocket.recv()
        assert client.websocket.close_code == 1003
    async with await gateway.connect() as client:
        await client.websocket.send("x" * 100_001)
        with pytest.raises(websockets.ConnectionClosed):
            await client.websocket.recv()
        assert client.websocket.close_code == 1009


def test_plain_http_on_the_websocket_port(gateway: Gateway) -> None:
    base = f"http://127.0.0.1:{gateway.port}"
    assert httpx.get(f"{base}/app/key1").status_code == 426
    assert httpx.get(f"{base}/").status_code == 404
    assert httpx.post(f"{base}/app/key1").status_code == 405


# --- slow readers


async def test_a_slow_reader_is_cut_off_and_a_healthy_one_is_not(
    gateway: Gateway, redis_server: RedisServer
) -> None:
    channel = "private-slow"
    async with await gateway.connect() as healthy:
        slow = await gateway.connect(max_queue=1)
        await slow.subscribe(channel)
        await healthy.subscribe(channel)
        message = b"x" * 90_000
        for number in range(200):  # 18 MB: more than the kernel's buffers and ours
            redis_server.publish(channel, message)
            async with asyncio.timeout(10):
                assert await healthy.receive_bytes() == message
            if number > 60 and b"slow reader" in gateway.log_file.read_bytes():
                break
        assert any(line["event"] == "slow reader cut off" for line in gateway.events())
        with pytest.raises(websockets.ConnectionClosed):
            for _ in range(300):
                await slow.receive_bytes()
        assert slow.websocket.close_code == 4200  # it reads on, so it can be told
        redis_server.publish(channel, b"still here")
        assert await healthy.receive_bytes() == b"still here"


# --- Redis away


async def test_redis_restarts_and_everything_resumes(tmp_path: Path) -> None:
    redis_server = RedisServer(tmp_path).start()
    gateway = Gateway(redis_server.url, tmp_path).start()
    try:
        async with (
            await gateway.connect() as first,
            await gateway.connect() as second,
            await gateway.connect() as idle,
        ):
            await first.subscribe(CHANNEL)
            redis_server.stop()
            await until(lambda: "redis_up 0.0" in gateway.get("/metrics").text)
            # who subscribes now is told when it is true: when Redis is back
            auth = pusher.sign_channel(APPLICATION, second.socket_id, CHANNEL)
            await second.send("pusher:subscribe", {"channel": CHANNEL, "auth": auth})
            await second.expect_nothing()
            assert gateway.get("/readyz").status_code == 200
            redis_server.start()
            async with asyncio.timeout(15):
                assert await first.receive() == {"event": "deskline:resync", "data": "{}"}
                answers = [await second.receive(), await second.receive()]
            assert [answer["event"] for answer in answers] == [
                "pusher_internal:subscription_succeeded",
                "deskline:resync",
            ]
            await idle.expect_nothing()
            redis_server.publish(CHANNEL, EVENT)
            assert await first.receive_bytes() == EVENT
            assert await second.receive_bytes() == EVENT
    finally:
        gateway.stop()
        redis_server.stop()


async def test_without_redis_from_the_start_it_serves_but_is_not_ready(tmp_path: Path) -> None:
    redis_server = RedisServer(tmp_path)
    gateway = Gateway(redis_server.url, tmp_path).start(ready=False)
    try:
        assert gateway.get("/readyz").status_code == 503
        assert gateway.get("/healthz").status_code == 200
        async with await gateway.connect() as client:
            await client.expect_nothing()
            redis_server.start()
            await until(lambda: gateway.get("/readyz").status_code == 200)
            await client.subscribe(CHANNEL)
    finally:
        gateway.stop()
        redis_server.stop()


@pytest.mark.skipif("RedisServer(Path()).is_fake", reason="fakeredis has no access control")
async def test_it_logs_in_as_an_acl_user_with_only_pubsub_rights(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    redis_server.client.acl_setuser(
        "gw",
        enabled=True,
        passwords=["+p%ss:w@rd"],
        reset_channels=True,
        channels=["deskline:*"],
        categories=["-@all", "+@pubsub"],
        commands=["+ping"],
    )
    url = f"redis://gw:p%25ss%3Aw%40rd@127.0.0.1:{redis_server.port}/0"
    gateway = Gateway(url, tmp_path).start()
    wrong = Gateway(url.replace("gw:", "gw:x"), tmp_path).start(ready=False)
    try:
        async with await gateway.connect() as client:
            await client.subscribe(CHANNEL)
            redis_server.publish(CHANNEL, EVENT)
            assert await client.receive_bytes() == EVENT
        assert wrong.get("/readyz").status_code == 503
        (line,) = [item for item in wrong.events() if item["event"] == "redis unreachable"]
        assert "WRONGPASS" in line["error"]
        assert "rd" not in line["address"]
    finally:
        gateway.stop()
        wrong.stop()
        redis_server.client.acl_deluser("gw")


# --- the end


async def test_sigterm_drains(own_gateway: Gateway) -> None:
    clients = [await own_gateway.connect() for _ in range(30)]
    stubborn = raw_client(own_gateway)  # answers no close frame: it holds the drain open
    assert own_gateway.process is not None
    started = time.monotonic()
    own_gateway.process.send_signal(signal.SIGTERM)
    await until(lambda: own_gateway.get("/readyz").status_code == 503, 2)
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(own_gateway.url)
    assert refused.value.response.status_code == 503
    for client in clients:
        assert (await client.receive())["data"]["code"] == 4200
        with pytest.raises(websockets.ConnectionClosed):
            await client.receive()
        assert client.websocket.close_code == 4200
    assert await asyncio.to_thread(own_gateway.process.wait, 15) == 0
    assert 2.5 < time.monotonic() - started < 6
    stubborn.close()
    (drained,) = [line for line in own_gateway.events() if line["event"] == "gateway drained"]
    assert (drained["sockets"], drained["cut_off"]) == (31, 1)


def test_a_second_signal_ends_the_drain_at_once(own_gateway: Gateway) -> None:
    stubborn = raw_client(own_gateway)
    assert own_gateway.process is not None
    own_gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert own_gateway.process.poll() is None
    started = time.monotonic()
    assert own_gateway.stop() == 0
    assert time.monotonic() - started < 1.5
    stubborn.close()


def raw_client(gateway: Gateway) -> socket.socket:
    """A client that connects and then does nothing any more."""
    sock = socket.create_connection(("127.0.0.1", gateway.port))
    sock.sendall(
        b"GET /app/key1?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
    return sock


async def test_a_drain_goes_at_a_bounded_rate(own_gateway: Gateway) -> None:
    clients = [await own_gateway.connect() for _ in range(60)]
    ends: list[float] = []

    async def wait_for_end(client: Client) -> None:
        await client.websocket.wait_closed()
        ends.append(time.monotonic())

    waiting = [asyncio.create_task(wait_for_end(client)) for client in clients]
    started = time.monotonic()
    code = await asyncio.to_thread(own_gateway.stop)
    await asyncio.gather(*waiting)
    assert code == 0
    assert max(ends) - min(ends) > 0.3  # 60 at 100 per second
    assert time.monotonic() - started < 3  # nobody is left: no reason to wait for the deadline


def test_a_taken_port_is_one_sentence_and_exit_code_2(gateway: Gateway, tmp_path: Path) -> None:
    second = Gateway("redis://127.0.0.1:1/0", tmp_path)
    second.env["DESKLINE_GATEWAY_PORT"] = str(gateway.port)
    done = subprocess.run(
        [sys.executable, "-m", "app", "gateway"],
        env=second.env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert f"Port {gateway.port} on 127.0.0.1 is taken" in done.stderr
    assert "DESKLINE_GATEWAY_PORT" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_logs_are_json_without_payloads_or_secrets(gateway: Gateway) -> None:
    lines = gateway.events()
    assert {"ts", "level", "event", "node"} <= set(lines[0])
    assert any(line["event"] == "descriptor limit" for line in lines)
    text = gateway.log_file.read_text()
    assert APPLICATION.secret.decode() not in text
    assert "seq" not in text


def test_metrics_have_the_nodes_counters(gateway: Gateway) -> None:
    text = gateway.get("/metrics").text
    for name in ("connections", "deliveries_total", "slow_readers_total", "redis_up"):
        assert f"deskline_gateway_{name} " in text


# --- attached to another application, as the mode `run` does it


async def test_attached_it_serves_and_leaves_the_others_routes_alone(
    redis_server: RedisServer, settings: config.Settings
) -> None:
    settings = dataclasses.replace(
        settings, redis_url=redis_server.url, gateway_port=free_port(), drain_seconds=1
    )
    app: Sanic[Any, Any] = Sanic("deskline_test_attached", configure_logging=False)
    node = attach(app, settings)
    server: Any = await app.create_server(
        host="127.0.0.1", port=free_port(), return_asyncio_server=True, access_log=False
    )
    await server.startup()
    await server.before_start()
    await server.after_start()
    try:
        await until(lambda: node.is_ready)
        paths = {route.path for route in app.router.routes}
        assert "apps/<app_id:str>/events" in paths
        assert not {"healthz", "readyz", "metrics"} & paths
        url = f"ws://127.0.0.1:{settings.gateway_port}/app/{APPLICATION.key}?protocol=7"
        async with websockets.connect(url) as websocket:
            assert "connection_established" in str(await websocket.recv())
            draining = asyncio.create_task(server.before_stop())
            assert "4200" in str(await websocket.recv())
            await draining
    finally:
        await server.after_stop()
        server.close()
    with pytest.raises(OSError, match=str(settings.gateway_port)):
        await websockets.connect(url)


def test_an_embedded_address_that_nobody_replaced_is_refused() -> None:
    with pytest.raises(ValueError, match="redis://"):
        Address.parse("embedded://")


def test_addresses_are_parsed_and_do_not_show_the_password() -> None:
    address = Address.parse("rediss://us%40er:p%2Fw@example:7000/0")
    assert address == Address("example", 7000, "us@er", "p/w", tls=True)
    assert repr(address) == "example:7000"
