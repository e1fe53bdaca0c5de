"""A WebSocket client (RFC 6455) of the Pusher Channels protocol 7, as small as it can be.

:class:`FrameReader` is without a socket; :class:`Socket` is one connection. Frames from a server
are not masked, those to it are (RFC 6455 §5.1). Compression is not offered.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import orjson

from bench.ledger.target import Target

CONNECT_TIMEOUT_SECONDS: Final = 8.0
MAX_FRAME_BYTES: Final = 1 << 20
MAX_HEAD_BYTES: Final = 16 << 10
OP_TEXT: Final = 1
OP_CLOSE: Final = 8
OP_PING: Final = 9
OP_PONG: Final = 10
_ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class SocketFailed(Exception):
    """The WebSocket could not be opened; the text says why."""


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A final, masked frame."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2)
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8)
    mask = os.urandom(4)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    masked = (int.from_bytes(payload) ^ key).to_bytes(size) if size else b""
    return head + mask + masked


class FrameReader:
    """Frames out of bytes. A fragmented or oversized message raises ValueError."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are complete now, as (opcode, payload)."""
        data = self._rest + data if self._rest else data
        start, end = 0, len(data)
        while end - start >= 2:
            size = data[start + 1]
            at = start + 2
            if size == 126:
                at += 2
                if end < at:
                    break
                size = int.from_bytes(data[at - 2 : at])
            elif size == 127:
                at += 8
                if end < at:
                    break
                size = int.from_bytes(data[at - 8 : at])
            if size > MAX_FRAME_BYTES:
                raise ValueError("a frame of more than 1 MiB, or a masked one")
            if end < at + size:
                break
            if not data[start] & 0x80:
                raise ValueError("a fragmented message")
            yield data[start] & 0x0F, data[at : at + size]
            start = at + size
        self._rest = data[start:]


class Socket(asyncio.Protocol):
    """One connection. ``on_message`` gets each text message, ``on_lost`` the close code or 1006."""

    def __init__(self, request: bytes, accept: str, on_message: Callable[[bytes], None]) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.heard_at = asyncio.get_running_loop().time()
        self._request = request
        self._accept = accept
        self._on_message = on_message
        self._head: bytes | None = b""
        self._frames = FrameReader()
        self._close_code = 1006  # RFC 6455 §7.1.5: closed without a closing frame

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        if self._head is not None:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                if len(self._head) > MAX_HEAD_BYTES:
                    self._refuse("the answer to the handshake is too long")
                return
            head, _, data = self._head.partition(b"\r\n\r\n")
            self._head = None
            lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines[1:])
            }
            if " 101 " not in f"{lines[0]} ":
                self._refuse(f"the handshake was answered: {lines[0]}")
                return
            if headers.get("sec-websocket-accept") != self._accept:
                self._refuse("the handshake has a wrong Sec-WebSocket-Accept")
                return
            self.opened.set_result(None)
        try:
            for opcode, payload in self._frames.feed(data):
                self._frame(opcode, payload)
        except ValueError:
            self.transport.abort()

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == OP_TEXT:
            self._on_message(payload)
        elif opcode == OP_PING:
            self.transport.write(client_frame(OP_PONG, payload))
        elif opcode == OP_CLOSE:
            if len(payload) >= 2:
                self._close_code = int.from_bytes(payload[:2])
            self.transport.write(client_frame(OP_CLOSE, payload[:2]))
            self.transport.close()

    def _refuse(self, reason: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(SocketFailed(reason))
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(SocketFailed("the connection was closed"))
        if not self.lost.done():
            self.lost.set_result(self._close_code)

    def send(self, event: str, data: Any) -> None:
        """Send a Pusher message."""
        if not self.transport.is_closing():
            self.transport.write(
                client_frame(OP_TEXT, orjson.dumps({"event": event, "data": data}))
            )

    def drop(self) -> None:
        """Cut the connection at once."""
        self.transport.abort()


async def connect(
    target: Target, path: str, origin: str, on_message: Callable[[bytes], None]
) -> Socket:
    """Open a WebSocket. Raises :class:`SocketFailed`."""
    key = base64.b64encode(os.urandom(16))
    # SHA-1 is what RFC 6455 §4.2.2 says; it protects nothing
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_GUID).digest()).decode()  # noqa: S324
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {target.host_header}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nOrigin: {origin}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\n\r\n"
    ).encode("latin-1")
    tls = target.tls
    socket: Socket | None = None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            _, socket = await asyncio.get_running_loop().create_connection(
                lambda: Socket(request, accept, on_message),
                target.address,
                target.port,
                ssl=tls,
                server_hostname=target.host if tls else None,
            )
            await socket.opened
    except (OSError, TimeoutError) as error:
        if socket is not None:
            socket.drop()
        raise SocketFailed(type(error).__name__) from None
    return socket
