"""Presence channels over several gateway processes and a real Redis."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.bus import events
from app.gateway import pusher
from app.gateway.presence import LEAVE_DELAY_SECONDS, NODES_KEY, keys
from tests.gateway.conftest import APPLICATION, Client, Gateway, RedisServer, until

ADDED = "pusher_internal:member_added"
REMOVED = "pusher_internal:member_removed"
SUCCEEDED = "pusher_internal:subscription_succeeded"


@pytest.fixture(scope="module")
def pair(
    redis_server: RedisServer, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways that tests share."""
    other = Gateway(redis_server.url, tmp_path_factory.mktemp("other")).start()
    yield gateway, other
    assert other.stop() == 0


async def ask_to_enter(client: Client, channel: str, user: object, info: object = None) -> None:
    fields = {"user_id": user} | ({} if info is None else {"user_info": info})
    data = json.dumps(fields)
    auth = pusher.sign_channel(APPLICATION, client.socket_id, channel, data)
    await client.send("pusher:subscribe", {"channel": channel, "auth": auth, "channel_data": data})


async def enter(client: Client, channel: str, user: object, info: object = None) -> dict[str, Any]:
    """Subscribe as ``user``; gives the members that the client is told."""
    await ask_to_enter(client, channel, user, info)
    async with asyncio.timeout(10):
        answer = await client.receive()
    assert (answer["event"], answer["channel"]) == (SUCCEEDED, channel), answer
    presence: dict[str, Any] = json.loads(answer["data"])["presence"]
    assert presence["count"] == len(presence["ids"]) == len(presence["hash"])
    assert set(presence["ids"]) == set(presence["hash"])
    members: dict[str, Any] = presence["hash"]
    return members


async def told(client: Client, seconds: float = 10.0) -> tuple[str, str]:
    """The next message: the event's name and the user whom it is about."""
    async with asyncio.timeout(seconds):
        message = await client.receive()
    return message["event"], json.loads(message["data"]).get("user_id", "")


async def nothing_for(client: Client, seconds: float) -> None:
    """The client is told nothing in this time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            raise AssertionError(await client.receive())


async def test_who_comes_is_told_who_is_there_and_the_others_are_told(
    pair: tuple[Gateway, Gateway],
) -> None:
    channel = "presence-first"
    async with await pair[0].connect() as ann, await pair[1].connect() as bob:
        assert await enter(ann, channel, "ann", {"name": "Ann \u00e9"}) == {
            "ann": {"name": "Ann \u00e9"}
        }
        assert await enter(bob, channel, 7) == {"ann": {"name": "Ann \u00e9"}, "7": {}}
        async with asyncio.timeout(5):
            message = await ann.receive()
        assert message["event"] == ADDED
        assert json.loads(message["data"]) == {"user_id": "7", "user_info": {}}
        await bob.send("pusher:unsubscribe", {"channel": channel})
        assert await told(ann, 2) == (REMOVED, "7")
        await ann.expect_nothing()
        await bob.expect_nothing()


async def test_a_user_is_told_once_however_many_sockets_on_however_many_gateways(
    pair: tuple[Gateway, Gateway],
) -> None:
    channel = "presence-twice"
    async with await pair[0].connect() as watcher:
        await enter(watcher, channel, "watcher")
        sockets = [await pair[number % 2].connect() for number in range(4)]
        for socket in sockets:
            assert set(await enter(socket, channel, "ann")) == {"watcher", "ann"}
        assert await told(watcher) == (ADDED, "ann")
        await watcher.expect_nothing()
        for socket in sockets[:3]:
            await socket.websocket.close()
        await nothing_for(watcher, LEAVE_DELAY_SECONDS + 2)
        await sockets[3].websocket.close()
        assert await told(watcher, LEAVE_DELAY_SECONDS + 2) == (REMOVED, "ann")
        await nothing_for(watcher, 0.5)


async def test_who_reconnects_to_another_gateway_has_not_left(
    pair: tuple[Gateway, Gateway],
) -> None:
    channel = "presence-moves"
    async with await pair[0].connect() as watcher:
        await enter(watcher, channel, "watcher")
        socket = await pair[0].connect()
        await enter(socket, channel, "ann")
        assert await told(watcher) == (ADDED, "ann")
        for number in (1, 0, 1):
            socket.websocket.transport.abort()
            await asyncio.sleep(0.5)
            socket = await pair[number].connect()
            assert set(await enter(socket, channel, "ann")) == {"watcher", "ann"}
        await nothing_for(watcher, LEAVE_DELAY_SECONDS + 2)
        await socket.websocket.close()
        assert await told(watcher) == (REMOVED, "ann")


async def test_many_come_and_go_at_once_and_all_agree(pair: tuple[Gateway, Gateway]) -> None:
    channel = "presence-crowd"
    watchers = [await pair[number].connect() for number in (0, 1)]
    for number, watcher in enumerate(watchers):
        await enter(watcher, channel, f"watcher-{number}")
    views = [{"watcher-0", "watcher-1"}, {"watcher-0", "watcher-1"}]
    assert await told(watchers[0]) == (ADDED, "watcher-1")
    sockets = [await pair[number % 2].connect() for number in range(60)]
    # two sockets a user, one on each gateway, all at the same time
    await asyncio.gather(
        *(ask_to_enter(socket, channel, f"user-{n // 2}") for n, socket in enumerate(sockets))
    )
    for number, socket in enumerate(sockets):
        async with asyncio.timeout(10):
            answer = await socket.receive()
        assert answer["event"] == SUCCEEDED
        seen = set(json.loads(answer["data"])["presence"]["ids"])
        assert f"user-{number // 2}" in seen
        # what is told from now on completes the list, without a hole and without doubles
        while len(seen) < 32:
            event, user = await told(socket)
            assert event == ADDED
            assert user not in seen
            seen.add(user)
    for view, watcher in zip(views, watchers, strict=True):
        for _ in range(30):
            event, user = await told(watcher)
            assert event == ADDED
            assert user not in view
            view.add(user)
        await watcher.expect_nothing()
    await asyncio.gather(
        *(socket.send("pusher:unsubscribe", {"channel": channel}) for socket in sockets)
    )
    for view, watcher in zip(views, watchers, strict=True):
        for _ in range(30):
            event, user = await told(watcher)
            assert event == REMOVED
            view.remove(user)
        await watcher.expect_nothing()
        assert view == {"watcher-0", "watcher-1"}
    for client in (*sockets, *watchers):
        await client.websocket.close()


async def test_events_flow_in_presence_channels_and_stand_in_order_with_the_members(
    pair: tuple[Gateway, Gateway], redis_server: RedisServer
) -> None:
    channel = "presence-order"
    async with await pair[0].connect() as ann:
        await enter(ann, channel, "ann")
        for number in range(20):
            redis_server.publish(channel, b'{"event":"e","data":"{}","n":%d}' % number)
            bob = await pair[1].connect()
            await enter(bob, channel, f"bob-{number}")
            redis_server.publish(channel, b'{"event":"f","data":"{}"}')
            assert (await bob.receive())["event"] == "f"
            await bob.send("pusher:unsubscribe", {"channel": channel})
            assert (await ann.receive())["n"] == number
            assert await told(ann) == (ADDED, f"bob-{number}")
            assert (await ann.receive())["event"] == "f"
            assert await told(ann) == (REMOVED, f"bob-{number}")
            await bob.websocket.close()


async def test_limits_and_wrong_channel_data(pair: tuple[Gateway, Gateway]) -> None:
    channel = "presence-full"
    async with await pair[0].connect() as client:
        for user, info in (("x" * 129, None), ("", None), (None, None), (True, None), ("a\nb", 1)):
            await ask_to_enter(client, channel, user, info)
            answer = await client.receive()
            assert answer["event"] == "pusher:subscription_error"
            assert answer["data"]["type"] == "InvalidMember"
        await ask_to_enter(client, channel, "a", {"text": "x" * 1024})
        assert (await client.receive())["data"]["status"] == 413
        await client.send("pusher:subscribe", {"channel": channel})
        assert (await client.receive())["data"]["status"] == 401
        assert (await client.receive())["data"]["code"] == 4009
        await client.expect_nothing()
        assert set(await enter(client, channel, "\u00fc" * 128)) == {"\u00fc" * 128}
    members = [await pair[number % 2].connect() for number in range(100)]
    channel = "presence-hundred"
    for number, member in enumerate(members):
        await ask_to_enter(member, channel, f"user-{number}")
    for member in members:
        async with asyncio.timeout(10):
            assert (await member.receive())["event"] == SUCCEEDED
    async with await pair[0].connect() as late, await pair[1].connect() as again:
        await ask_to_enter(late, channel, "one-too-many")
        async with asyncio.timeout(5):
            answer = await late.receive()
        assert answer["event"] == "pusher:subscription_error"
        assert (answer["data"]["type"], answer["data"]["status"]) == ("LimitReached", 429)
        await late.expect_nothing()
        # a second socket of somebody who is in is no further member
        assert len(await enter(again, channel, "user-0")) == 100
        await members[1].send("pusher:unsubscribe", {"channel": channel})
        await asyncio.sleep(0.3)
        assert "one-too-many" in await enter(late, channel, "one-too-many")
    for member in members:
        # a close handshake would wait behind the hundred messages that nobody reads
        member.websocket.transport.abort()


async def test_a_presence_cache_channel_tells_the_members_and_the_last_event(
    pair: tuple[Gateway, Gateway], redis_server: RedisServer
) -> None:
    channel = "presence-cache-board"
    async with await pair[0].connect() as ann, await pair[1].connect() as bob:
        await enter(ann, channel, "ann")
        assert (await ann.receive())["event"] == "pusher:cache_miss"
        publish_kept(redis_server, channel, b'{"event":"news"}')
        assert await ann.receive() == {"event": "news"}
        assert set(await enter(bob, channel, "bob")) == {"ann", "bob"}
        assert await bob.receive() == {"event": "news"}
        assert await told(ann) == (ADDED, "bob")
    # with nobody in a presence channel a gateway has no beat that others could miss
    await until(lambda: redis_server.client.hlen(NODES_KEY) == 0, 20)
    assert redis_server.client.keys("deskline:members:{*") == []


def publish_kept(redis_server: RedisServer, channel: str, message: bytes) -> None:
    """Publish as all publishers do, who keep a cache channel's last event."""
    topic = events.redis_channel(APPLICATION.id, channel)
    for words in events.commands(topic, b"\n" + message):
        redis_server.client.execute_command(*words)


# --- a gateway dies


async def test_no_ghosts_after_a_gateway_was_killed(
    pair: tuple[Gateway, Gateway], redis_server: RedisServer, tmp_path: Path
) -> None:
    channel = "presence-killed"
    doomed = Gateway(redis_server.url, tmp_path).start()
    watchers = [await pair[number % 2].connect() for number in range(4)]
    for number, watcher in enumerate(watchers):
        await enter(watcher, channel, f"watcher-{number}")
    gone = [await doomed.connect() for _ in range(5)]
    for number, client in enumerate(gone):
        await enter(client, channel, f"gone-{number}")
    both = await doomed.connect()
    await enter(both, channel, "watcher-0")
    for watcher in watchers:
        for _ in range(100):
            if await told(watcher) == (ADDED, "gone-4"):
                break
    started = time.monotonic()
    assert doomed.process is not None
    doomed.process.send_signal(signal.SIGKILL)
    doomed.process.wait()
    for watcher in watchers:
        removed = {await told(watcher, 16) for _ in range(5)}
        assert removed == {(REMOVED, f"gone-{number}") for number in range(5)}
    assert time.monotonic() - started < 15
    # exactly once, and nobody who is still there
    await asyncio.gather(*(nothing_for(watcher, 3) for watcher in watchers))
    async with await pair[1].connect() as late:
        assert set(await enter(late, channel, "late")) == {
            "late",
            *(f"watcher-{number}" for number in range(4)),
        }
    await until(lambda: redis_server.client.hlen(NODES_KEY) == 2)
    for watcher in watchers:
        await watcher.websocket.close()


async def test_what_a_killed_gateway_left_is_not_shown_to_who_comes_later(
    pair: tuple[Gateway, Gateway], redis_server: RedisServer, tmp_path: Path
) -> None:
    # nobody else was in the channel, so nobody removed the member
    channel = "presence-left-over"
    topic = APPLICATION.topic_prefix + channel.encode()
    redis_server.client.hset(keys(topic)[0].decode(), "ghost", "0123456789ab, {}")
    async with await pair[0].connect() as late:
        assert set(await enter(late, channel, "late")) == {"late"}


async def test_a_drained_gateway_does_not_take_its_users_with_it(
    pair: tuple[Gateway, Gateway], redis_server: RedisServer, tmp_path: Path
) -> None:
    channel = "presence-drained"
    ending = Gateway(redis_server.url, tmp_path).start()
    async with await pair[0].connect() as watcher:
        await enter(watcher, channel, "watcher")
        client, leaver = await ending.connect(), await ending.connect()
        await enter(client, channel, "ann")
        await enter(leaver, channel, "leaver")
        assert [await told(watcher), await told(watcher)] == [(ADDED, "ann"), (ADDED, "leaver")]
        stopping = asyncio.create_task(asyncio.to_thread(ending.stop))
        assert (await client.receive())["event"] in (ADDED, "pusher:error")
        await client.websocket.wait_closed()
        client = await pair[1].connect()
        assert "ann" in await enter(client, channel, "ann")
        assert await stopping == 0
        assert await told(watcher, 16) == (REMOVED, "leaver")
        await nothing_for(watcher, 2)
        await client.websocket.close()


# --- Redis loses its memory


async def test_redis_forgets_everything_and_nobody_is_told_a_false_leave_or_join(
    tmp_path: Path,
) -> None:
    channel = "presence-forgotten"
    redis_server = RedisServer(tmp_path).start()
    gateways = [Gateway(redis_server.url, tmp_path).start() for _ in range(2)]
    try:
        clients = [await gateways[number % 2].connect() for number in range(4)]
        for number, client in enumerate(clients):
            await enter(client, channel, f"user-{number}")
        for number, client in enumerate(clients):
            for later in range(number + 1, 4):
                assert await told(client) == (ADDED, f"user-{later}")
        leaver = clients.pop()
        redis_server.stop()
        await asyncio.sleep(0.5)
        await leaver.websocket.close()  # nobody can be told now
        waiting = await gateways[0].connect()
        await ask_to_enter(waiting, channel, "waiting")
        await waiting.expect_nothing()
        redis_server.start()
        # the resync goes to everybody in random order: it may come first
        events = {(await told(waiting, 15))[0]}
        if events == {"deskline:resync"}:
            events.add((await told(waiting, 15))[0])
        assert SUCCEEDED in events
        heard: list[list[tuple[str, str]]] = []
        for client in clients:
            messages = []
            with suppress(TimeoutError):
                while True:
                    messages.append(await told(client, 16 if len(messages) < 3 else 3))
            heard.append(sorted(messages))
        expected = [("deskline:resync", ""), (ADDED, "waiting"), (REMOVED, "user-3")]
        assert heard == [sorted(expected)] * 3
        late = await gateways[1].connect()
        assert set(await enter(late, channel, "late")) == {
            "user-0", "user-1", "user-2", "waiting", "late",
        }  # fmt: skip
    finally:
        for gateway in gateways:
            gateway.stop()
        redis_server.stop()


async def test_a_frozen_redis_makes_nobody_leave(tmp_path: Path) -> None:
    channel = "presence-frozen"
    redis_server = RedisServer(tmp_path).start()
    if redis_server.is_fake:
        redis_server.stop()
        pytest.skip("fakeredis is not frozen")
    gateways = [Gateway(redis_server.url, tmp_path).start() for _ in range(2)]
    try:
        ann, bob = await gateways[0].connect(), await gateways[1].connect()
        await enter(ann, channel, "ann")
        await enter(bob, channel, "bob")
        assert await told(ann) == (ADDED, "bob")
        redis_server.signal(signal.SIGSTOP)
        await asyncio.sleep(18)
        redis_server.signal(signal.SIGCONT)

        async def heard(client: Client) -> set[str]:
            messages = set()
            with suppress(TimeoutError):
                while True:
                    messages.add((await told(client, 15))[0])
            return messages

        for messages in await asyncio.gather(heard(ann), heard(bob)):
            assert messages <= {"deskline:resync"}
    finally:
        for gateway in gateways:
            gateway.stop()
        redis_server.stop()
