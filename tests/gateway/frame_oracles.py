"""What four other implementations of RFC 6455 make of a client's bytes, in our form.

Each takes pieces of a stream and a limit in bytes, and gives the whole messages and control frames
as (opcode, payload), and the close code of its refusal or None.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

from aiohttp import EofStream, WSMsgType
from aiohttp import WebSocketError as AiohttpError
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame
from websockets.server import ServerProtocol
from websockets.streams import StreamReader
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from app.gateway.frames import FrameReader

Verdict = tuple[list[tuple[int, bytes]], int | None]
Oracle = Callable[[Sequence[bytes], int], Verdict]


def ours(pieces: Sequence[bytes], limit: int) -> Verdict:
    """Our own reader, which its owner stops at a close frame."""
    reader = FrameReader(limit)
    items: list[tuple[int, bytes]] = []
    for piece in pieces:
        items += reader.feed(piece)
        if items and items[-1][0] == 8:
            break
    return items, reader.violation.code if reader.violation else None


def websockets(pieces: Sequence[bytes], limit: int) -> Verdict:
    """The `websockets` library; it leaves the UTF-8 of a text to whoever reads it."""
    protocol = ServerProtocol(max_size=limit)
    protocol.state = protocol.state.OPEN
    protocol.reader = StreamReader()
    protocol.parser = protocol.parse()
    next(protocol.parser)
    for piece in pieces:
        if protocol.parser_exc is None:
            protocol.receive_data(piece)
    messages = Messages()
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if not messages.add(int(event.opcode), bytes(event.data), is_final=event.fin):
            return messages.items, 1007
    error = protocol.parser_exc
    if isinstance(error, PayloadTooBig):
        return messages.items, 1009
    if isinstance(error, UnicodeDecodeError):
        return messages.items, 1007
    if isinstance(error, ProtocolError):
        return messages.items, 1002
    assert error is None or isinstance(error, EOFError), error
    return messages.items, None


def wsproto(pieces: Sequence[bytes], _limit: int) -> Verdict:
    """The `wsproto` library, which has no limit of its own."""
    protocol = FrameProtocol(client=False, extensions=[])
    messages = Messages()
    for piece in pieces:
        protocol.receive_bytes(piece)
        try:
            for frame in protocol.received_frames():
                payload = frame.payload
                if isinstance(payload, tuple):
                    code, reason = payload
                    payload = b"" if code == 1005 else code.to_bytes(2, "big") + reason.encode()
                if isinstance(payload, str):
                    payload = payload.encode()
                is_final = frame.frame_finished and frame.message_finished
                messages.add(int(frame.opcode), bytes(payload), is_final=is_final)
        except ParseFailed as error:
            return messages.items, int(error.code)
    return messages.items, None


class Messages:
    """Puts fragments together; what comes after a close frame does not count."""

    def __init__(self) -> None:
        self.items: list[tuple[int, bytes]] = []
        self._opcode = 0
        self._data = b""

    def add(self, opcode: int, data: bytes, *, is_final: bool) -> bool:
        """Take a frame; False for a text that is not UTF-8."""
        if self.items and self.items[-1][0] == 8:
            return True
        if opcode >= 8:
            self.items.append((opcode, data))
            return True
        self._opcode = self._opcode or opcode
        self._data += data
        if not is_final:
            return True
        opcode, data, self._opcode, self._data = self._opcode, self._data, 0, b""
        if opcode == 1:
            try:
                data.decode()
            except UnicodeDecodeError:
                return False
        self.items.append((opcode, data))
        return True


class Unpaused:
    """The protocol that aiohttp's queue would pause."""

    _reading_paused = False


def aiohttp(pieces: Sequence[bytes], limit: int) -> Verdict:
    """The frame reader of aiohttp. Its limit is the first size that is too big."""
    queue = WebSocketDataQueue(Unpaused(), 2**30, loop=None)
    reader = WebSocketReader(queue, limit + 1, compress=False, decode_text=True)
    for piece in pieces:
        reader.feed_data(piece)
    error = queue.exception()
    queue.feed_eof()
    items: list[tuple[int, bytes]] = []
    while not items or items[-1][0] != 8:
        try:
            queue.read().send(None)  # never waits, because the end is there
        except StopIteration as found:
            items.append(_aiohttp_item(found.value))
        except EofStream:
            assert error is None or isinstance(error, AiohttpError), error
            return items, None if error is None else int(error.code)
    return items, None


def _aiohttp_item(message: Any) -> tuple[int, bytes]:
    data = message.data
    if message.type is WSMsgType.CLOSE:
        data = data.to_bytes(2, "big") + message.extra.encode() if data else b""
    elif isinstance(data, str):
        data = data.encode()
    return int(message.type), bytes(data)


class NodeWs:
    """The reader of Node's `ws`, in a process that is fed with cases."""

    SCRIPT: Final = Path(__file__).with_name("ws_receiver.cjs")

    def __init__(self, modules: str) -> None:
        self._process = subprocess.Popen(
            ["node", str(self.SCRIPT)],
            env={**os.environ, "NODE_PATH": modules},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __call__(self, pieces: Sequence[bytes], limit: int) -> Verdict:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        case = {"chunks": [piece.hex() for piece in pieces], "limit": limit}
        self._process.stdin.write(json.dumps(case).encode() + b"\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        return [(opcode, bytes.fromhex(data)) for opcode, data in said["items"]], said["code"]
