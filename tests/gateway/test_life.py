"""The life of a gateway process: Redis breaking, drains, reloads, what it measures."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest
import websockets

from app.gateway import control, drain
from app.gateway.garbage import FULL_INTERVAL_SECONDS, Garbage
from app.gateway.pulse import Histogram
from tests.gateway.conftest import APPLICATION, Client, Gateway, RedisServer, until

CHANNEL = "private-stream"
SOCKETS = 10_000
PAUSE_TEST_SECONDS = float(os.environ.get("DESKLINE_PAUSE_TEST_SECONDS", "10"))


def signed(path: str, secret: bytes = APPLICATION.secret) -> dict[str, str]:
    fields = {
        "auth_key": APPLICATION.key,
        "auth_timestamp": str(int(time.time())),
        "auth_version": "1.0",
    }
    return control.sign_request(secret, "POST", path, fields)


def ask_to_drain(gateway: Gateway, secret: bytes | None = APPLICATION.secret) -> httpx.Response:
    """POST /drain, without a secret unsigned."""
    fields = signed("/drain", secret) if secret else {}
    return httpx.post(f"{gateway.control}/drain", params=fields)


# --- Redis


async def numbers(client: Client, last: int) -> tuple[list[int], int]:
    """What a client gets until the number ``last``: the numbers, and how often it was resynced."""
    got, resyncs = [], 0
    async with asyncio.timeout(30):
        while True:
            message = await client.receive()
            if message["event"] == "deskline:resync":
                resyncs += 1
                continue
            got.append(message["n"])
            if got[-1] == last:
                return got, resyncs


async def test_a_reconnect_in_a_stream_of_events_doubles_none_and_asks_to_resync(
    gateway: Gateway, redis_server: RedisServer
) -> None:
    if redis_server.is_fake:
        pytest.skip("fakeredis kills no clients")
    clients = [await gateway.connect() for _ in range(5)]
    for client in clients:
        await client.subscribe(CHANNEL)
    last = 10**9
    readers = [asyncio.create_task(numbers(client, last)) for client in clients]
    sent, begun = 0, time.monotonic()
    kills = [begun + 1, begun + 2, begun + 3]
    while time.monotonic() < begun + 4:
        for _ in range(50):
            redis_server.publish(CHANNEL, b'{"event":"e","data":"{}","n":%d}' % sent)
            sent += 1
        if kills and time.monotonic() > kills[0]:
            kills.pop(0)
            redis_server.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(0.005)
    end = b'{"event":"e","data":"{}","n":%d}' % last
    await until(lambda: redis_server.publish(CHANNEL, end))
    for got, resyncs in await asyncio.gather(*readers):
        assert got == sorted(set(got))
        assert resyncs >= 1
        assert len(got) > sent / 4
    for client in clients:
        await client.websocket.close()


async def test_a_gateway_that_redis_cut_off_for_reading_too_slowly_recovers(
    redis_server: RedisServer, own_gateway: Gateway
) -> None:
    if redis_server.is_fake:
        pytest.skip("fakeredis has no limits of output buffers")
    before = redis_server.client.config_get("client-output-buffer-limit")
    redis_server.client.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1")
    try:
        async with await own_gateway.connect() as client:
            await client.subscribe("private-flood")
            assert own_gateway.process is not None
            own_gateway.process.send_signal(signal.SIGSTOP)
            padding = b"x" * 20_000
            for number in range(800):
                redis_server.publish(
                    "private-flood",
                    b'{"event":"e","data":"%b","n":%d}' % (padding, number),
                )
            await until(lambda: redis_server.publish("private-flood", b"{}") == 0)
            own_gateway.process.send_signal(signal.SIGCONT)
            await until(lambda: redis_server.publish("private-flood", b'{"event":"e","n":-1}'))
            got, resyncs = await numbers(client, -1)
            assert resyncs == 1
            assert got[:-1] == sorted(set(got[:-1]))
            assert len(got) < 800
    finally:
        redis_server.client.config_set(
            "client-output-buffer-limit", before["client-output-buffer-limit"]
        )


async def test_the_resync_is_spread_over_time(
    redis_server: RedisServer, own_gateway: Gateway
) -> None:
    if redis_server.is_fake:
        pytest.skip("fakeredis kills no clients")
    clients = [await own_gateway.connect() for _ in range(80)]
    for client in clients:
        await client.subscribe(CHANNEL)

    async def told_at(client: Client) -> float:
        assert (await client.receive())["event"] == "deskline:resync"
        return time.monotonic()

    redis_server.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    async with asyncio.timeout(15):
        moments = sorted(await asyncio.gather(*map(told_at, clients)))
    assert 1.0 < moments[-1] - moments[0] < 6
    # a few at a time: never more than a quarter within a tenth of the time
    for moment in moments:
        assert sum(moment <= other < moment + 0.2 for other in moments) <= 20
    for client in clients:
        await client.websocket.close()


# --- the end


def test_the_rate_of_a_drain() -> None:
    assert drain.rate(50, 20, 0) == 100
    assert drain.rate(14_000, 20, 0) == 1000
    assert drain.rate(14_000, 20, 250) == 250


async def test_a_signed_drain_closes_nobody_before_its_turn(own_gateway: Gateway) -> None:
    own_gateway.stop()
    own_gateway.env |= {
        "DESKLINE_DRAIN_SECONDS": "20",
        "DESKLINE_GATEWAY_DRAIN_PER_SECOND": "25",
    }
    own_gateway.start()
    clients = [await own_gateway.connect() for _ in range(75)]
    assert ask_to_drain(own_gateway, None).status_code == 401
    assert ask_to_drain(own_gateway, b"wrong-secret").status_code == 401
    assert own_gateway.get("/readyz").status_code == 200
    for client in clients[:3]:
        await client.expect_nothing()
    started = time.monotonic()
    answer = ask_to_drain(own_gateway)
    assert (answer.status_code, answer.json()) == (202, {"draining": True, "sockets": 75})
    assert own_gateway.get("/readyz").status_code == 503
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(own_gateway.url)
    assert refused.value.response.status_code == 503

    async def end_of(client: Client) -> float:
        message = await client.receive()
        assert message["data"]["code"] == 4200
        await client.websocket.wait_closed()
        assert client.websocket.close_code == 4200
        return time.monotonic() - started

    ends = await asyncio.gather(*map(end_of, clients))
    # at 25 a second, whatever the order: the n-th one not before n / 25 s
    for number, end in enumerate(sorted(ends)):
        assert end > (number - 4) / 25
    assert max(ends) < 8
    # in random order
    assert list(ends) != sorted(ends)
    assert own_gateway.process is not None
    assert await asyncio.to_thread(own_gateway.process.wait, 10) == 0
    assert time.monotonic() - started < 10  # nobody was left: it did not wait for the deadline
    (drained,) = [line for line in own_gateway.events() if line["event"] == "gateway drained"]
    assert (drained["sockets"], drained["cut_off"]) == (75, 0)


async def test_a_socket_stays_usable_until_its_turn(
    redis_server: RedisServer, own_gateway: Gateway
) -> None:
    own_gateway.stop()
    own_gateway.env["DESKLINE_GATEWAY_DRAIN_PER_SECOND"] = "5"
    own_gateway.env["DESKLINE_DRAIN_SECONDS"] = "20"
    own_gateway.start()
    clients = [await own_gateway.connect() for _ in range(15)]
    for client in clients:
        await client.subscribe("private-drain")
    ask_to_drain(own_gateway)
    for number in range(20):
        redis_server.publish("private-drain", b'{"event":"e","n":%d}' % number)
        await asyncio.sleep(0.05)

    async def got(client: Client) -> list[int]:
        seen = []
        while (message := await client.receive())["event"] == "e":
            seen.append(message["n"])
        assert message["data"]["code"] == 4200
        return seen

    lists = await asyncio.gather(*map(got, clients))
    # everything up to the end of the socket, without a hole
    assert all(seen == list(range(len(seen))) for seen in lists)
    assert sum(len(seen) == 20 for seen in lists) >= 5


# --- reload


async def test_sighup_reads_the_applications_again(
    redis_server: RedisServer, own_gateway: Gateway, tmp_path: Path
) -> None:
    own_gateway.stop()
    path = tmp_path / "applications.json"
    shop = {"id": "shop", "key": "shop-key", "secret": "a-secret-for-the-shop"}

    def write(content: str) -> None:
        path.touch(0o600)
        path.write_text(content)

    def hang_up() -> None:
        assert own_gateway.process is not None
        own_gateway.process.send_signal(signal.SIGHUP)

    write(json.dumps({"applications": [shop]}))
    own_gateway.env["DESKLINE_GATEWAY_APPLICATIONS"] = str(path)
    own_gateway.start()
    url = f"ws://127.0.0.1:{own_gateway.port}/app/shop-key?protocol=7"
    async with await own_gateway.connect() as stays:
        await stays.subscribe(CHANNEL)
        goes = await websockets.connect(url)
        assert "established" in str(await goes.recv())
        write("{ not JSON")
        hang_up()
        await until(lambda: any(line["event"] == "not reloaded" for line in own_gateway.events()))
        assert await (await goes.ping()) >= 0  # nothing has changed
        write(json.dumps({"default": {"max_connections": 1}}))
        hang_up()
        async with asyncio.timeout(10):
            await goes.wait_closed()
        assert goes.close_code == 4001
        redis_server.publish(CHANNEL, b'{"event":"e"}')
        assert await stays.receive() == {"event": "e"}
        over = await websockets.connect(own_gateway.url)
        assert json.loads(await over.recv())["data"]["code"] == 4004
        await over.close()
        assert "a-secret-for-the-shop" not in own_gateway.log_file.read_text()


# --- measures


async def test_it_measures_latency_and_the_loop(
    gateway: Gateway, redis_server: RedisServer
) -> None:
    async with await gateway.connect() as client:
        await client.subscribe(CHANNEL)
        redis_server.publish(CHANNEL, b'{"event":"e"}')
        await client.receive()

        def value(name: str) -> float:
            for line in gateway.get("/metrics").text.splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[1])
            return 0.0

        prefix = "deskline_gateway_"
        await until(lambda: value(prefix + "publish_to_write_seconds_count") >= 2)
        assert value(prefix + "publish_to_write_seconds_sum") < 60
        assert value(prefix + 'publish_to_write_seconds_bucket{le="+Inf"}') >= 2
        assert value(prefix + "loop_lag_seconds_count") > 5
        assert 0 <= value(prefix + "loop_lag_worst_seconds") < 10
        for name in ("writes_total", "sent_bytes_total", "subscriptions", "deliveries_total"):
            assert value(prefix + name) > 0, name
        assert value("process_resident_memory_bytes") > 1_000_000
        assert value("process_open_fds") > 5


def test_a_histogram_counts_upwards() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 5.0):
        histogram.observe(seconds)
    assert histogram.buckets() == [("0.1", 2.0), ("1", 3.0), ("+Inf", 4.0)]
    assert histogram.total == pytest.approx(5.65)


def test_the_oldest_generation_is_collected_only_while_that_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    garbage = Garbage()

    def collect() -> int:
        calls.append(1)
        return 0

    monkeypatch.setattr(gc, "collect", collect)
    before = gc.get_threshold()
    try:
        garbage.start()
        assert gc.get_threshold()[2] > 10**6
        # at first 2 µs a socket are assumed, later at least what was measured
        for sockets, seconds, expected in (
            (20_000, 0.0, 0),
            (1000, 0.008, 1),
            (2000, 0.0, 1),
            (900, 0.001, 2),
            (3000, 0.0, 3),
        ):
            garbage._last = seconds  # what its callback measures
            for _ in range(FULL_INTERVAL_SECONDS):
                garbage.tick(sockets)
            assert len(calls) == expected
        assert (garbage.full_collections, garbage.skipped) == (3, 2)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.clear()


async def test_no_collection_stops_the_loop_with_10_000_sockets(
    redis_server: RedisServer, own_gateway: Gateway
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < SOCKETS + 1000:
        pytest.skip(f"a process may have {hard} open files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets: list[socket.socket] = []
    head = (
        f"GET /app/{APPLICATION.key}?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()

    def open_all() -> None:
        for number in range(SOCKETS):
            made = socket.create_connection(("127.0.0.1", own_gateway.port))
            fields = {"event": "pusher:subscribe", "data": {"channel": f"own-{number}"}}
            message = json.dumps(fields).encode()
            # masked with four zeros, which leaves it as it is
            made.sendall(head + bytes((0x81, 0x80 | len(message))) + bytes(4) + message)
            sockets.append(made)

    def metric(name: str) -> float:
        for line in own_gateway.get("/metrics").text.splitlines():
            if line.startswith(f"deskline_gateway_{name} "):
                return float(line.split()[1])
        raise AssertionError(name)

    try:
        await asyncio.to_thread(open_all)
        await until(lambda: metric("connections") == SOCKETS, 60)
        ending = time.monotonic() + PAUSE_TEST_SECONDS
        async with await own_gateway.connect() as client:
            await client.subscribe(CHANNEL)
            while time.monotonic() < ending:
                redis_server.publish(CHANNEL, b'{"event":"e"}')
                await client.receive()
                await asyncio.sleep(0.02)
        longest = metric("longest_collection_seconds")
        print(
            f"{SOCKETS} sockets: longest collection {longest * 1000:.1f} ms, "
            f"worst lag {metric('loop_lag_worst_seconds') * 1000:.1f} ms"
        )
        # of processor time, so that a busy machine does not make it fail
        assert 0 < longest < 0.02
    finally:
        for made in sockets:
            made.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
