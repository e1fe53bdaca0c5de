"""One connection and the sweep, with a transport that only notes what happens to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.uri import parse_uri

from app.config import Settings
from app.gateway import connection, frames, pusher, sweep
from app.gateway.connection import Connection, State
from app.gateway.node import Node


class Transport:
    """Notes writes, closing and aborting."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False
        self.is_aborted = False
        self.eof = False
        self.high = 0
        self.peername = ("127.0.0.1", 4711)

    def get_extra_info(self, name: str) -> object:
        return self.peername if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True


class Peer:
    """A connection of ours with the `websockets` library's client protocol at the other end."""

    def __init__(self, node: Node, path: str = "/app/key1?protocol=7") -> None:
        self.transport = Transport()
        self.connection = Connection(node)
        self.connection.connection_made(cast(Any, self.transport))
        self.client = ClientProtocol(parse_uri(f"ws://gateway{path}"))
        self._read = 0
        self.client.send_request(self.client.connect())

    def open(self) -> list[dict[str, Any]]:
        self.push()
        return self.messages()

    def push(self) -> None:
        """Bring the client's bytes to the connection."""
        for data in self.client.data_to_send():
            if data:
                self.connection.data_received(data)

    def say(self, event: str, **data: object) -> None:
        self.client.send_text(json.dumps({"event": event, "data": data}).encode())
        self.push()

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that the client got."""
        return self.client.close_rcvd.code if self.client.close_rcvd is not None else None

    def messages(self) -> list[dict[str, Any]]:
        """What the client has got since the last time."""
        data = self.transport.written[self._read :]
        self._read += len(data)
        if data:
            self.client.receive_data(data)
        received = []
        for event in self.client.events_received():
            if isinstance(event, Frame) and event.opcode == frames.OP_TEXT:
                received.append(json.loads(bytes(event.data)))
        return received


@pytest.fixture
def node(settings: Settings) -> Node:
    made = Node(settings)
    made.capacity = 100
    return made


def pass_seconds(node: Node, seconds: int) -> None:
    """Let the sweep run as the clock would; no loop is needed for that."""
    sweeper = sweep.Sweep(node, cast(Any, None))
    for _ in range(seconds):
        node.tick += 1
        sweeper.sweep()


def test_the_handshake_may_come_in_pieces_and_frames_with_it(node: Node) -> None:
    peer = Peer(node)
    (request,) = peer.client.data_to_send()
    ping = bytes.fromhex("8980 00000000")
    for byte in (request + ping)[:-7]:
        peer.connection.data_received(bytes((byte,)))
    assert peer.connection.state is State.HANDSHAKE
    peer.connection.data_received((request + ping)[-7:])
    (established,) = peer.messages()
    assert established["event"] == "pusher:connection_established"
    assert peer.transport.written.endswith(bytes.fromhex("8a00"))


def test_a_head_without_end_is_refused(node: Node) -> None:
    peer = Peer(node)
    peer.connection.data_received(b"GET / HTTP/1.1\r\nX: " + b"x" * frames.MAX_HEAD_BYTES)
    assert peer.transport.written.startswith(b"HTTP/1.1 431 ")
    assert peer.transport.is_closed


def test_a_draining_node_refuses_upgrades_with_503(node: Node) -> None:
    node.draining = True
    peer = Peer(node)
    peer.push()
    assert peer.transport.written.startswith(b"HTTP/1.1 503 ")
    assert node.refusals[503] == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/app/nobody?protocol=7", 4001),
        ("/else?protocol=7", 4005),
        ("/app/key1?protocol=x", 4006),
        ("/app/key1?protocol=99", 4007),
        ("/app/key1", 4008),
    ],
)
def test_a_rejected_client_is_upgraded_told_and_closed(node: Node, path: str, code: int) -> None:
    peer = Peer(node, path)
    (error,) = peer.open()
    assert (error["event"], error["data"]["code"]) == ("pusher:error", code)
    assert peer.close_code == code
    peer.push()  # the client's answer to the close frame
    assert peer.transport.is_closed
    assert node.established_count == 0


def test_a_full_node_says_4100(node: Node) -> None:
    node.capacity = 0
    peer = Peer(node)
    (error,) = peer.open()
    assert error["data"]["code"] == peer.close_code == 4100


def test_far_over_capacity_the_connection_is_cut_at_once(node: Node) -> None:
    node.capacity = -1000
    assert Peer(node).transport.is_aborted


def test_leaving_is_complete(node: Node) -> None:
    peer = Peer(node)
    peer.open()
    peer.say("pusher:subscribe", channel="news")
    assert len(node.channels) == 1
    peer.connection.connection_lost(None)
    assert (len(node.channels), len(node.connections)) == (0, 0)


@pytest.mark.parametrize(("code", "answer"), [(1000, 1000), (4321, 4321)])
def test_a_clients_close_is_answered_with_its_code(node: Node, code: int, answer: int) -> None:
    peer = Peer(node)
    peer.open()
    peer.client.send_close(code)
    peer.push()
    assert peer.transport.written.endswith(frames.close_frame(answer))
    assert peer.transport.is_closed


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x01a", 1002),
        (bytes.fromhex("8181 00000000 ff"), 1007),
        (bytes.fromhex("81ff 00000000 00ffffff 00000000"), 1009),
        (bytes.fromhex("8281 00000000 41"), 1003),
    ],
)
def test_a_violation_closes_with_its_code_and_ends_our_side(
    node: Node, frame: bytes, code: int
) -> None:
    peer = Peer(node)
    peer.open()
    peer.say("pusher:subscribe", channel="news")
    peer.connection.data_received(frame)
    peer.messages()
    assert peer.close_code == code
    assert peer.transport.eof
    assert len(node.channels) == 0
    pass_seconds(node, sweep.CLOSING_SECONDS)
    assert peer.transport.is_aborted


async def test_more_than_the_write_buffer_cuts_the_reader_off(node: Node) -> None:
    peer = Peer(node)
    peer.open()
    assert peer.transport.high == connection.WRITE_BUFFER_BYTES == 1024 * 1024
    peer.connection.pause_writing()
    peer.messages()
    assert peer.close_code is None  # a fan-out may be under way
    await asyncio.sleep(0)
    peer.messages()
    assert peer.close_code == pusher.Code.RECONNECT  # if it reads on
    assert len(node.channels) == 0
    pass_seconds(node, sweep.CLOSING_SECONDS)
    assert peer.transport.is_aborted  # if it never does
    assert node.slow_readers == 1


# --- the sweep


def test_a_silent_client_is_asked_once_then_closed_with_4201(node: Node) -> None:
    peer = Peer(node)
    peer.open()
    pass_seconds(node, sweep.PING_AFTER_SECONDS - 1)
    assert peer.messages() == []
    pass_seconds(node, 5)
    assert [message["event"] for message in peer.messages()] == ["pusher:ping"]
    pass_seconds(node, sweep.DEAD_AFTER_SECONDS - sweep.PING_AFTER_SECONDS)
    (error,) = peer.messages()
    assert error["data"]["code"] == peer.close_code == 4201
    pass_seconds(node, sweep.CLOSING_SECONDS)
    assert peer.transport.is_aborted


def test_any_sign_of_life_is_enough(node: Node) -> None:
    peer = Peer(node)
    peer.open()
    for _ in range(3):
        pass_seconds(node, sweep.PING_AFTER_SECONDS + 1)
        assert [message["event"] for message in peer.messages()] == ["pusher:ping"]
        peer.say("pusher:pong")
    pass_seconds(node, sweep.PING_AFTER_SECONDS - 1)
    assert peer.messages() == []
    assert peer.connection.state is State.OPEN


def test_the_dead_are_found_in_less_than_120_seconds() -> None:
    assert sweep.DEAD_AFTER_SECONDS + sweep.CLOSING_SECONDS < 120


def test_a_handshake_without_end_is_cut(node: Node) -> None:
    peer = Peer(node)
    pass_seconds(node, sweep.HANDSHAKE_SECONDS - 1)
    assert not peer.transport.is_aborted
    pass_seconds(node, 1)
    assert peer.transport.is_aborted


def test_an_idle_connection_has_no_dictionary(node: Node) -> None:
    assert not hasattr(Connection(node), "__dict__")


def test_closing_is_said_once(node: Node) -> None:
    peer = Peer(node)
    peer.open()
    peer.connection.close(pusher.Code.RECONNECT, "later")
    (error,) = peer.messages()
    assert error == {"event": "pusher:error", "data": {"code": 4200, "message": "later"}}
    peer.connection.close(pusher.Code.RECONNECT, "later")
    assert peer.transport.is_aborted
