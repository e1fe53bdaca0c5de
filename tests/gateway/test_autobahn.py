"""Every case of the public Autobahn suite that applies to us, over TCP, twice.

First against an echo: our :class:`Connection` and :class:`FrameReader` on uvloop as they are, with
a session that sends every text back, and a reader that does the same with every binary message and
takes as much as the largest case sends. There every case must have its strictest outcome.

Then against a gateway process, which does not echo: it answers a text that is no Pusher message
with a pusher:error, refuses a binary message (1003) and one over its limit (1009), so these take
the place of the echo. Pings, closes, failures and their codes are as in the suite.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import uvloop

from app import config
from app.gateway import frames, pusher
from app.gateway.connection import Connection
from app.gateway.node import Node
from tests.gateway.autobahn_cases import CASES, Case, Event, Received, StillOpen
from tests.gateway.client_frames import masked
from tests.gateway.conftest import APPLICATION, Gateway

ECHO_LIMIT = 16 * 1024 * 1024
PATIENCE_SECONDS = 30
SHORT_WHILE_SECONDS = 0.05
NAMES = {1: "text", 2: "binary", 9: "ping", 10: "pong"}


def test_the_cases_are_the_301_of_the_suite() -> None:
    sections: dict[str, int] = {}
    for number in CASES:
        section = number.split(".")[0]
        sections[section] = sections.get(section, 0) + 1
    expected = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}
    assert sections == expected
    assert sum(expected.values()) == 301


# --- an echo out of the gateway's own parts


class EchoSession(pusher.Session):
    """Sends every text back."""

    def receive(self, text: bytes, *_: object) -> tuple[pusher.Action, ...]:
        return (pusher.Send(text),)


class EchoReader(frames.FrameReader):
    """Sends binary messages back instead of giving them to the connection, which refuses them."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(ECHO_LIMIT)
        self._connection = connection

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:  # type: ignore[override]
        for opcode, payload in super().feed(data):
            if opcode == frames.OP_BINARY:
                self._connection.writer.write(frames.build_frame(opcode, payload))
            else:
                yield opcode, payload


class Echo(Connection):
    """The gateway's connection with these two in it."""

    def _read(self, data: bytes) -> None:
        session = self.session
        if session is not None and not isinstance(session, EchoSession):
            self.session = EchoSession(session.application, session.socket_id)
            self._reader = EchoReader(self)
        super()._read(data)

    def pause_writing(self) -> None:
        """An echo of 16 MiB is more than the write buffer of a gateway's socket may hold."""


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    environment = {
        "DESKLINE_REDIS_URL": "redis://127.0.0.1:1/0",
        "DESKLINE_PUSHER_APP_ID": APPLICATION.id,
        "DESKLINE_PUSHER_KEY": APPLICATION.key,
        "DESKLINE_PUSHER_SECRET": APPLICATION.secret.decode(),
    }
    loop = uvloop.new_event_loop()

    async def listen() -> asyncio.Server:
        node = Node(config.load("gateway", environment))
        node.capacity = 100
        return await loop.create_server(lambda: Echo(node), "127.0.0.1", 0)

    server = loop.run_until_complete(listen())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


# --- a client


class Client:
    """Carries a case out and notes what comes back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.events: list[Event] = []
        self.code: int | None = None
        self.is_closing = False  # a close frame or the end of the stream has come
        self._news = asyncio.Event()

    @classmethod
    async def open(cls, port: int) -> Client:
        """Shake hands, and take what the gateway says first."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /app/{APPLICATION.key}?protocol=7 HTTP/1.1\r\nHost: localhost\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        client = cls(reader, writer)
        await client.take()
        assert b"connection_established" in client.events.pop()[1]
        return client

    async def take(self) -> None:
        """The next frame; its form is checked as strictly as ours by a client."""
        await self._take()
        self._news.set()

    async def _take(self) -> None:
        try:
            first, second = await self._reader.readexactly(2)
            size = second
            assert second < 0x80, "a server must not mask"
            assert first & 0xF0 == 0x80, "the server sends whole messages, without extensions"
            if second >= 126:
                width = 2 if second == 126 else 8
                size = int.from_bytes(await self._reader.readexactly(width), "big")
                assert size > (125 if width == 2 else 0xFFFF)
            payload = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.is_closing = True
            return
        if first & 0x0F == 8:
            self.is_closing = True
            self.code = int.from_bytes(payload[:2], "big") if payload else None
        else:
            self.events.append((NAMES[first & 0x0F], payload))

    async def carry_out(self, case: Case) -> None:
        """All steps, the closing handshake, and the end of the stream."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            sending = asyncio.create_task(self._send(case))
            while not self.is_closing and len(self.events) < len(case.events):
                await self.take()
            if not case.fails and not case.is_closed_in_steps and not self.is_closing:
                await sending
                self._writer.write(masked(8, b"\x03\xe8"))
            while not self.is_closing:
                await self.take()
            with contextlib.suppress(ConnectionError):
                await sending
            # RFC 6455 §7.1.1: the server closes the TCP connection, we only wait for that
            with contextlib.suppress(ConnectionError):
                assert await self._reader.read() == b"", "something came after the close frame"
        self._writer.close()

    async def _send(self, case: Case) -> None:
        for step in case.steps:
            if isinstance(step, bytes):
                if self.is_closing:
                    return
                self._writer.write(step)
                await self._writer.drain()
                await asyncio.sleep(0)
            elif isinstance(step, Received):
                while len(self.events) < step.count and not self.is_closing:
                    self._news.clear()
                    await self._news.wait()
            else:
                assert isinstance(step, StillOpen)
                await asyncio.sleep(SHORT_WHILE_SECONDS)
                assert not self.is_closing, "failed too early"


def check(case: Case, client: Client, events: Sequence[Event]) -> None:
    """Compare what came back and how it ended."""
    assert [(name, len(data)) for name, data in client.events] == [
        (name, len(data)) for name, data in events
    ]
    assert client.events == list(events)
    assert client.code in (case.fails or case.closes)


# --- the tests


@pytest.mark.parametrize("number", CASES)
async def test_the_echo(number: str, echo_port: int) -> None:
    case = CASES[number]()
    client = await Client.open(echo_port)
    await client.carry_out(case)
    check(case, client, case.events)


def at_the_gateway(case: Case) -> tuple[Case, str]:
    """The case with what our gateway does in place of an echo, and the reason for a change."""
    sizes = iter(case.sizes)
    events: list[Event] = []
    for name, payload in case.events:
        if name == "pong":
            events.append((name, payload))
            continue
        size = next(sizes)
        if size > APPLICATION.max_message_bytes:
            limit = f"{size} bytes are over the limit of {APPLICATION.max_message_bytes}"
            return replace(case, events=tuple(events), fails=(frames.CLOSE_TOO_BIG,)), limit
        if name == "binary":
            reason = "Channels has no binary messages"
            return replace(case, events=tuple(events), fails=(frames.CLOSE_UNSUPPORTED,)), reason
        events.append(("error", b""))
    return replace(case, events=tuple(events)), ""


@pytest.mark.parametrize("number", CASES)
async def test_the_gateway(number: str, gateway: Gateway) -> None:
    case, reason = at_the_gateway(CASES[number]())
    if reason:
        print(f"{number}: refused with {case.fails[0]}, because {reason}")
    client = await Client.open(gateway.port)
    await client.carry_out(case)
    seen: list[Event] = []
    for name, payload in client.events:
        is_error = name == "text" and json.loads(payload)["event"] == "pusher:error"
        seen.append(("error", b"") if is_error else (name, payload))
    client.events = seen
    check(case, client, case.events)
