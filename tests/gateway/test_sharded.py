"""Redis Cluster: sharded pub/sub over two primaries, with the gateway's process."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from redis.crc import key_slot

from app.bus import connection, events, publisher
from app.gateway import control
from tests.gateway.conftest import APPLICATION, Gateway, free_port, stop, until
from tests.gateway.test_presence import ADDED, REMOVED, enter, nothing_for, told

HALF = 8192
START_SECONDS = 20.0

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="fakeredis has no cluster"
)


class RedisCluster:
    """Two primaries, each with half of the slots, and no replica."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # the cluster's own port is 10,000 higher and must exist
        self.ports = []
        while len(self.ports) < 2:
            port = free_port()
            if port < 50_000 and port not in self.ports:
                self.ports.append(port)
        self.url = f"redis+cluster://127.0.0.1:{self.ports[0]}"
        self.clients = [redis.Redis(port=port, socket_timeout=5) for port in self.ports]
        self._processes: list[subprocess.Popen[bytes] | None] = [None, None]

    def start(self) -> None:
        for number in range(2):
            self.start_one(number)
        for number, slots in enumerate(((0, HALF - 1), (HALF, 16_383))):
            self.command(number, "CLUSTER", "ADDSLOTSRANGE", *slots)
        self.command(0, "CLUSTER", "MEET", "127.0.0.1", self.ports[1])
        self.wait_until_ok()

    def start_one(self, number: int) -> None:
        port = self.ports[number]
        words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        words += ["--dir", str(self._folder), "--cluster-enabled", "yes"]
        words += ["--cluster-config-file", f"nodes-{port}.conf", "--cluster-node-timeout", "2000"]
        words += ["--cluster-require-full-coverage", "no"]
        self._processes[number] = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.clients[number].ping()
            except redis.RedisError:
                assert time.monotonic() < deadline, "Redis did not start"
                time.sleep(0.05)
            else:
                return

    def stop_one(self, number: int) -> None:
        process = self._processes[number]
        assert process is not None
        stop(process, signal.SIGKILL)

    def stop(self) -> None:
        for number in range(2):
            self.clients[number].close()
            self.stop_one(number)

    def command(self, number: int, *words: Any) -> Any:
        return self.clients[number].execute_command(*words)

    def wait_until_ok(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not all(
            b"cluster_state:ok" in self.info(number)
            and b"cluster_known_nodes:2" in self.info(number)
            for number in range(2)
        ):
            assert time.monotonic() < deadline, "the cluster is not ready"
            time.sleep(0.1)

    def info(self, number: int) -> bytes:
        answer = self.clients[number].execute_command("CLUSTER INFO")
        return repr(answer).replace("': '", ":").encode()

    def shard_of(self, channel: str) -> int:
        return int(key_slot(APPLICATION.topic_prefix + channel.encode()) >= HALF)

    def publish(self, channel: str, message: bytes) -> int:
        """Publish on the shard of the channel; gives how many connections got it."""
        topic = APPLICATION.topic_prefix + channel.encode()
        count: int = self.command(self.shard_of(channel), "SPUBLISH", topic, b"\n" + message)
        return count


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    running = RedisCluster(tmp_path_factory.mktemp("cluster"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def gateways(
    cluster: RedisCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Gateway]]:
    folder = tmp_path_factory.mktemp("sharded")
    running = [Gateway(cluster.url, folder).start() for _ in range(2)]
    yield running
    assert [gateway.stop() for gateway in running] == [0, 0]


def channels_of_both(cluster: RedisCluster, kind: str = "private") -> list[str]:
    """A channel on each shard."""
    names = [f"{kind}-{number}" for number in range(50)]
    return [next(name for name in names if cluster.shard_of(name) == shard) for shard in (0, 1)]


async def test_events_of_both_shards_arrive_once_and_in_order(
    cluster: RedisCluster, gateways: list[Gateway]
) -> None:
    channels = channels_of_both(cluster)
    async with await gateways[0].connect() as first, await gateways[1].connect() as second:
        for channel in channels:
            await first.subscribe(channel)
            await second.subscribe(channel)
        for number in range(100):
            for channel in channels:
                message = b'{"event":"e","channel":"%b","n":%d}' % (channel.encode(), number)
                assert cluster.publish(channel, message) == 2
        for client in (first, second):
            got: dict[str, list[int]] = {channel: [] for channel in channels}
            for _ in range(200):
                event = await client.receive()
                got[event["channel"]].append(event["n"])
            assert list(got.values()) == [list(range(100))] * 2
            await client.expect_nothing()
        # not a word goes over the shard that has not the slot
        assert cluster.command(1 - cluster.shard_of(channels[0]), "PUBSUB", "SHARDCHANNELS", "*0*")
        await first.unsubscribe(channels[0])
        await until(lambda: cluster.publish(channels[0], b"{}") == 1)


async def test_all_publishers_reach_the_shards(
    cluster: RedisCluster, gateways: list[Gateway]
) -> None:
    client = connection.connect(cluster.url)
    async with await gateways[0].connect() as socket, await gateways[1].connect() as sender:
        for channel in channels_of_both(cluster):
            await socket.subscribe(channel)
            await sender.subscribe(channel)
            await publisher.send(client, APPLICATION.id, [events.make(channel, "web", {"a": 1})])
            for each in (socket, sender):
                assert (await each.receive())["event"] == "web"
            body = b'{"name":"api","channel":"%b","data":"1"}' % channel.encode()
            path = f"/apps/{APPLICATION.id}/events"
            fields = {
                "auth_key": APPLICATION.key,
                "auth_timestamp": str(int(time.time())),
                "auth_version": "1.0",
            }
            query = control.sign_request(APPLICATION.secret, "POST", path, fields, body)
            async with httpx.AsyncClient() as http:
                answer = await http.post(gateways[1].control + path, params=query, content=body)
            assert (answer.status_code, answer.text) == (200, "{}")
            for each in (socket, sender):
                assert (await each.receive())["event"] == "api"
            message = {"event": "client-typing", "channel": channel, "data": {}}
            await sender.websocket.send(json.dumps(message))
            assert (await socket.receive())["event"] == "client-typing"
            await sender.expect_nothing()
    await client.aclose()


async def test_presence_over_shards(cluster: RedisCluster, gateways: list[Gateway]) -> None:
    for channel in channels_of_both(cluster, "presence"):
        async with await gateways[0].connect() as ann, await gateways[1].connect() as bob:
            await enter(ann, channel, "ann")
            assert set(await enter(bob, channel, "bob")) == {"ann", "bob"}
            assert await told(ann) == (ADDED, "bob")
            await bob.send("pusher:unsubscribe", {"channel": channel})
            assert await told(ann) == (REMOVED, "bob")


async def test_a_broken_shard_concerns_its_own_channels_only(
    cluster: RedisCluster, gateways: list[Gateway]
) -> None:
    channels = channels_of_both(cluster, "presence")
    clients = [[await gateway.connect() for gateway in gateways] for _ in channels]
    for pair, channel in zip(clients, channels, strict=True):
        await enter(pair[0], channel, "ann")
        await enter(pair[1], channel, "bob")
        assert await told(pair[0]) == (ADDED, "bob")
    broken = cluster.shard_of(channels[1])
    cluster.stop_one(broken)
    await asyncio.sleep(0.5)
    # the other shard works on
    cluster.publish(channels[0], b'{"event":"on"}')
    for client in clients[0]:
        assert (await client.receive())["event"] == "on"
    cluster.start_one(broken)
    cluster.wait_until_ok()
    for client in clients[1]:
        async with asyncio.timeout(20):
            assert (await client.receive())["event"] == "deskline:resync"
    cluster.publish(channels[1], b'{"event":"again"}')
    for client in clients[1]:
        assert (await client.receive())["event"] == "again"
    # nobody left or came, and the others were not troubled
    everybody = [client for pair in clients for client in pair]
    await asyncio.gather(*(nothing_for(client, 14) for client in everybody))
    for client in everybody:
        await client.websocket.close()


async def test_slots_that_move_take_their_subscriptions_along(
    cluster: RedisCluster, gateways: list[Gateway]
) -> None:
    channel = channels_of_both(cluster)[0]
    slot = key_slot(APPLICATION.topic_prefix + channel.encode())
    ids = [cluster.command(number, "CLUSTER", "MYID").decode() for number in range(2)]
    async with await gateways[0].connect() as client:
        await client.subscribe(channel)
        for number in (1, 0):  # the new owner first
            cluster.command(number, "CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        topic = APPLICATION.topic_prefix + channel.encode()
        await until(
            lambda: cluster.command(1, "SPUBLISH", topic, b'\n{"event":"moved"}') == 1, seconds=30
        )
        async with asyncio.timeout(20):
            got = [(await client.receive())["event"] for _ in range(2)]
        assert sorted(got) == ["deskline:resync", "moved"]
