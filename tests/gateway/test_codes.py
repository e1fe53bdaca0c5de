"""Every documented code: when it is sent, that the socket ends or stays, and what a client may do.

Public source: https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/,
"Error codes". 4000-4099: do not reconnect, 4100-4199: after a second or more, 4200-4299: at once,
4300-4399: any other error; the socket stays open.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.config import Settings
from app.gateway import pusher, sweep
from app.gateway.applications import Applications
from app.gateway.connection import State
from app.gateway.node import CLOSE_INTERVAL_SECONDS, CLOSED_AT_ONCE, Node
from app.gateway.pusher import Code
from tests.gateway.conftest import APPLICATION
from tests.gateway.test_connection import Peer, pass_seconds

PATH = "/app/key1?protocol=7"
CHANNEL = "private-a"


class FromProxy(Peer):
    """A peer whose connection comes from a trusted proxy, with more headers."""

    def __init__(self, node: Node, headers: dict[str, str], *, peer: str = "10.0.0.1") -> None:
        super().__init__(node, PATH)
        self.transport.peername = (peer, 4711)
        self.more = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()

    def push(self) -> None:
        for data in self.client.data_to_send():
            if data.startswith(b"GET "):
                data = data.replace(b"\r\n", b"\r\n" + self.more, 1)  # noqa: PLW2901
            if data:
                self.connection.data_received(data)


@pytest.fixture
def node(settings: Settings) -> Iterator[Node]:
    proxies = (ipaddress.ip_network("10.0.0.0/24"),)
    made = Node(dataclasses.replace(settings, trusted_proxies=proxies))
    made.capacity = 100
    yield made


def limit(node: Node, **limits: Any) -> None:
    """Give the application these limits."""
    node.reload(Applications([dataclasses.replace(APPLICATION, **limits)]))


def refused(peer: Peer) -> Peer:
    """A peer that is told at once why it may not stay."""
    (error,) = peer.open()
    assert error["event"] == "pusher:error"
    assert error["data"]["code"] == peer.close_code
    return peer


def tls_only(node: Node) -> Peer:
    limit(node, tls_only=True)
    good = FromProxy(node, {"X-Forwarded-Proto": "https"})
    assert good.open()[0]["event"] == "pusher:connection_established"
    assert (
        refused(FromProxy(node, {"X-Forwarded-Proto": "https"}, peer="10.9.9.9")).close_code == 4000
    )
    return refused(FromProxy(node, {"X-Forwarded-Proto": "http"}))


def unknown_key(node: Node) -> Peer:
    return refused(Peer(node, "/app/nobody?protocol=7"))


def disabled(node: Node) -> Peer:
    limit(node, enabled=False)
    return refused(Peer(node))


def over_quota(node: Node) -> Peer:
    limit(node, max_connections=1)
    first = Peer(node)
    first.open()
    second = refused(Peer(node))
    first.connection.connection_lost(None)
    assert Peer(node).open()[0]["event"] == "pusher:connection_established"
    return second


def wrong_path(node: Node) -> Peer:
    return refused(Peer(node, "/else?protocol=7"))


def no_number(node: Node) -> Peer:
    return refused(Peer(node, "/app/key1?protocol=x"))


def unknown_version(node: Node) -> Peer:
    return refused(Peer(node, "/app/key1?protocol=99"))


def no_version(node: Node) -> Peer:
    return refused(Peer(node, "/app/key1"))


def wrong_origin(node: Node) -> Peer:
    limit(node, allowed_origins=("*.shop.example",))
    assert FromProxy(node, {"Origin": "https://www.shop.example"}).open()[0]["event"] == (
        "pusher:connection_established"
    )
    assert refused(Peer(node)).close_code == 4009  # none at all: no page of ours
    return refused(FromProxy(node, {"Origin": "https://evil.example"}))


def wrong_sign_in(node: Node) -> Peer:
    peer = Peer(node)
    peer.open()
    peer.say("pusher:signin", auth="key1:00", user_data='{"id":"7"}')
    return refused(peer)


def not_authorized_in_time(node: Node) -> Peer:
    limit(node, authorize_seconds=5)
    late, signed_in, subscribed = Peer(node), Peer(node), Peer(node)
    for peer in (late, signed_in, subscribed):
        peer.open()
    user_data = '{"id":"7"}'
    auth = pusher.sign_user(APPLICATION, signed_in.connection.socket_id, user_data)
    signed_in.say("pusher:signin", auth=auth, user_data=user_data)
    auth = pusher.sign_channel(APPLICATION, subscribed.connection.socket_id, CHANNEL)
    subscribed.say("pusher:subscribe", channel=CHANNEL, auth=auth)
    for _ in range(5):
        assert late.connection.state is State.OPEN
        node.tick += 1
        node.close_unauthorized()
    for peer in (signed_in, subscribed):
        assert peer.connection.state is State.OPEN
    return refused(late)


def node_full(node: Node) -> Peer:
    node.capacity = 1
    Peer(node).open()
    return refused(Peer(node))


def address_full(node: Node) -> Peer:
    limit(node, max_connections_per_address=1)
    first = FromProxy(node, {"X-Forwarded-For": "203.0.113.7"})
    first.open()
    other = FromProxy(node, {"X-Forwarded-For": "203.0.113.8"})
    assert other.open()[0]["event"] == "pusher:connection_established"
    # what a client claims itself is not believed
    liar = FromProxy(node, {"X-Forwarded-For": "203.0.113.7"}, peer="203.0.113.9")
    assert liar.open()[0]["event"] == "pusher:connection_established"
    second = refused(FromProxy(node, {"X-Forwarded-For": "203.0.113.7"}))
    first.connection.connection_lost(None)
    again = FromProxy(node, {"X-Forwarded-For": "203.0.113.7"})
    assert again.open()[0]["event"] == "pusher:connection_established"
    return second


def one_network(node: Node) -> Peer:
    limit(node, max_connections_per_address=1)
    FromProxy(node, {"X-Forwarded-For": "2001:db8:1:2::1"}).open()
    other = FromProxy(node, {"X-Forwarded-For": "2001:db8:1:3::1"})
    assert other.open()[0]["event"] == "pusher:connection_established"
    return refused(FromProxy(node, {"X-Forwarded-For": "2001:db8:1:2::2"}))


def drained(node: Node) -> Peer:
    peer = Peer(node)
    peer.open()
    peer.connection.close(Code.RECONNECT, "This gateway is about to stop: reconnect")
    return refused(peer)


def access_changed(node: Node) -> Peer:
    peer = Peer(node)
    peer.open()
    owned(peer, "user.7")
    stranger = Peer(node)
    stranger.open()
    owned(stranger, "user.77")
    node.cluster.receive(b"deskline:ch:app1:#control", b'{"do":"reauthorize","owner":"user.7"}')
    assert stranger.connection.state is State.OPEN
    peer.messages()
    assert peer.close_code == 4200
    return peer


def owned(peer: Peer, owner: str, channel: str = CHANNEL) -> None:
    data = f'{{"owner":"{owner}","user_id":"7"}}'
    auth = pusher.sign_channel(APPLICATION, peer.connection.socket_id, channel, data)
    peer.say("pusher:subscribe", channel=channel, auth=auth, channel_data=data)


def old_signature(node: Node) -> Peer:
    peer = Peer(node)
    peer.open()
    node.cluster.receive(b"deskline:ch:app1:#control", b'{"do":"reauthorize","owner":"user.7"}')
    assert peer.connection.state is State.OPEN
    owned(peer, "user.7")
    return refused(peer)


def old_signature_of_a_presence_channel(node: Node) -> Peer:
    peer = Peer(node)
    peer.open()
    node.cluster.receive(b"deskline:ch:app1:#control", b'{"do":"reauthorize","owner":"user.7"}')
    owned(peer, "user.7", "presence-a")
    return refused(peer)


def silent(node: Node) -> Peer:
    peer = Peer(node)
    peer.open()
    pass_seconds(node, sweep.PING_AFTER_SECONDS)
    assert peer.messages()[0]["event"] == "pusher:ping"
    pass_seconds(node, sweep.DEAD_AFTER_SECONDS - sweep.PING_AFTER_SECONDS)
    return refused(peer)


def terminated(node: Node) -> Peer:
    peer = Peer(node)
    peer.open()
    user_data = '{"id":"7"}'
    auth = pusher.sign_user(APPLICATION, peer.connection.socket_id, user_data)
    peer.say("pusher:signin", auth=auth, user_data=user_data)
    assert peer.messages()[0]["event"] == "pusher:signin_success"
    node.cluster.receive(b"deskline:ch:app1:#control", b'{"do":"terminate","user":"8"}')
    assert peer.connection.state is State.OPEN
    node.cluster.receive(b"deskline:ch:app1:#control", b'{"do":"terminate","user":"7"}')
    return refused(peer)


# 4202 is for clients that cannot answer a ping, that is of protocol 4 and older: they get 4007.
@pytest.mark.parametrize(
    ("scene", "code"),
    [
        (tls_only, 4000),
        (unknown_key, 4001),
        (disabled, 4003),
        (over_quota, 4004),
        (wrong_path, 4005),
        (no_number, 4006),
        (unknown_version, 4007),
        (no_version, 4008),
        (wrong_origin, 4009),
        (wrong_sign_in, 4009),
        (not_authorized_in_time, 4009),
        (terminated, 4009),
        (node_full, 4100),
        (address_full, 4100),
        (one_network, 4100),
        (drained, 4200),
        (access_changed, 4200),
        (old_signature, 4200),
        (old_signature_of_a_presence_channel, 4200),
        (silent, 4201),
    ],
)
async def test_what_ends_a_socket(node: Node, scene: Callable[[Node], Peer], code: int) -> None:
    peer = scene(node)
    assert peer.close_code == code
    assert peer.connection.state is State.CLOSING


async def test_what_leaves_a_socket_open(node: Node) -> None:
    limit(node, client_events_per_second=2)
    peer = Peer(node)
    peer.open()
    peer.say("pusher:subscribe", channel=CHANNEL, auth="key1:00")
    assert [message["data"].get("code") for message in peer.messages()] == [None, 4009]
    owned(peer, "user.7")
    for _ in range(3):
        peer.client.send_text(b'{"event":"client-a","channel":"private-a","data":{}}')
        peer.push()
    (error,) = peer.messages()
    assert (error["event"], error["data"]["code"]) == ("pusher:error", 4301)
    assert peer.connection.state is State.OPEN


async def test_reload_closes_what_is_gone_or_disabled_and_leaves_the_rest(node: Node) -> None:
    others = [dataclasses.replace(APPLICATION, id=f"app{n}", key=f"key{n}") for n in (2, 3)]
    node.reload(Applications([APPLICATION, *others]))
    peers = [Peer(node, f"/app/key{n}?protocol=7") for n in (1, 2, 3)]
    for peer in peers:
        peer.open()
    assert node.sockets == {"app1": 1, "app2": 1, "app3": 1}
    changed = dataclasses.replace(APPLICATION, secret=b"another-secret-now", client_events=False)
    node.reload(Applications([changed, dataclasses.replace(others[0], enabled=False)]))
    peers[0].messages()
    for peer, code in zip(peers[1:], (4003, 4001), strict=True):
        refused(peer)
        assert peer.close_code == code
        peer.connection.connection_lost(None)
    assert node.sockets == {"app1": 1}
    # many are closed a few at a time, and not when it was taken back meanwhile
    many = [Peer(node) for _ in range(CLOSED_AT_ONCE + 1)]
    node.capacity = 1000
    for peer in many:
        peer.open()
    node.reload(Applications([dataclasses.replace(changed, enabled=False)]))
    left = [connection for connection in node.connections if connection.state is State.OPEN]
    assert len(left) == 2
    node.reload(Applications([changed]))
    await asyncio.sleep(CLOSE_INTERVAL_SECONDS * 3)
    assert all(connection.state is State.OPEN for connection in left)
    # the new secret and the new limits hold for a socket that stayed
    peers = [peer for peer in (*peers[:1], *many) if peer.connection in left]
    peers[0].messages()
    auth = pusher.sign_channel(APPLICATION, peers[0].connection.socket_id, CHANNEL)
    peers[0].say("pusher:subscribe", channel=CHANNEL, auth=auth)
    assert peers[0].messages()[0]["event"] == "pusher:subscription_error"
    auth = pusher.sign_channel(changed, peers[0].connection.socket_id, CHANNEL)
    peers[0].say("pusher:subscribe", channel=CHANNEL, auth=auth)
    assert peers[0].connection.session is not None
    assert peers[0].connection.session.channels == (CHANNEL,)
    peers[0].client.send_text(b'{"event":"client-a","channel":"private-a","data":{}}')
    peers[0].push()
    assert "not enabled" in peers[0].messages()[0]["data"]["message"]


async def test_the_message_size_is_the_applications(node: Node) -> None:
    limit(node, max_message_bytes=1000)
    peer = Peer(node)
    peer.open()
    peer.client.send_text(b"x" * 1001)
    peer.push()
    peer.messages()
    assert peer.close_code == 1009
