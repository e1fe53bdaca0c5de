"""Redis fails over: a replica takes the primary's place at the address that the gateway knows."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.gateway.conftest import APPLICATION, Client, Gateway, RedisServer, stop, until
from tests.gateway.test_presence import ADDED, REMOVED, enter, told

RESYNC = "deskline:resync"


class Address:
    """A port of loopback that leads to one Redis, later to another, as a service address does."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._writers: set[asyncio.StreamWriter] = set()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, far_writer}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        self._writers -= {writer, far_writer}

    def lead_to(self, target: int) -> None:
        """From now on to another server; whoever is connected is cut off."""
        self.target = target
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def address_of(port: int) -> AsyncIterator[tuple[Address, int]]:
    address = Address(port)
    server = await asyncio.start_server(address.relay, "127.0.0.1", 0)
    try:
        yield address, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        address.lead_to(0)


async def heard_until_event(client: Client, name: str) -> list[str]:
    """The names of what the client is told, up to and with the event ``name``."""
    heard: list[str] = []
    while name not in heard:
        heard.append((await told(client))[0])
    return heard


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A Redis and its replica."""
    first, second = RedisServer(tmp_path).start(), RedisServer(tmp_path).start()
    try:
        if first.is_fake:
            pytest.skip("fakeredis has no replicas")
        second.client.replicaof("127.0.0.1", first.port)
        yield first, second
    finally:
        first.stop()
        second.stop()


@asynccontextmanager
async def gateways_at(port: int, folder: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    one, other = (Gateway(f"redis://127.0.0.1:{port}/0", folder) for _ in range(2))
    try:
        yield await asyncio.to_thread(one.start), await asyncio.to_thread(other.start)
    finally:
        for gateway in (one, other):
            if gateway.process is not None:  # a drain is not what is tested here
                stop(gateway.process, signal.SIGKILL)


async def heard_after(client: Client) -> list[str]:
    """What the client is told up to ``after``, with the resync, which is spread over seconds."""
    heard = await heard_until_event(client, "after")
    if RESYNC not in heard:
        heard.append((await told(client))[0])
    await client.expect_nothing()
    return heard


@pytest.mark.parametrize("planned", [False, True], ids=["primary dead", "primary demoted"])
async def test_a_replica_takes_over_and_nothing_is_doubled_nor_anybody_gone(
    tmp_path: Path, pair: tuple[RedisServer, RedisServer], *, planned: bool
) -> None:
    """Sentinel's two cases: the primary is dead, or lives on as a replica of the new one."""
    first, second = pair
    await until(lambda: second.client.info("replication")["master_link_status"] == "up")
    async with address_of(first.port) as (address, port), gateways_at(port, tmp_path) as gateways:
        ann, bob = await gateways[0].connect(), await gateways[1].connect()
        await enter(ann, "presence-desk", "ann")
        await enter(bob, "presence-desk", "bob")
        assert await told(ann) == (ADDED, "bob")
        for client in (ann, bob):
            await client.subscribe("private-desk")
        assert first.publish("private-desk", b'{"event":"before","data":"{}"}') == 2
        for client in (ann, bob):
            assert await heard_until_event(client, "before") == ["before"]

        if not planned:
            first.signal(signal.SIGKILL)
        second.client.replicaof("NO", "ONE")
        if planned:
            first.client.replicaof("127.0.0.1", second.port)
        address.lead_to(second.port)
        topic = f"deskline:ch:{APPLICATION.id}:private-desk"
        await until(lambda: dict(second.client.pubsub_numsub(topic))[topic.encode()] == 2, 10)
        assert second.publish("private-desk", b'{"event":"after","data":"{}"}') == 2
        for client in (ann, bob):
            assert sorted(await heard_after(client)) == ["after", RESYNC]

        # the roster is in the new primary, and is written there
        late = await gateways[0].connect()
        assert set(await enter(late, "presence-desk", "late")) == {"ann", "bob", "late"}
        for client in (ann, bob):
            assert await told(client) == (ADDED, "late")
        await bob.websocket.close()
        for client in (ann, late):
            assert await told(client, 16) == (REMOVED, "bob")
