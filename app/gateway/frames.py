"""RFC 6455 without sockets: the opening handshake, the frame parser, the frame builders.

Nothing here reads or writes a socket, so all of it is tested with bytes alone. Only the server's
side is here: frames that are read must be masked, frames that are built never are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote

# RFC 6455 §5.2
OP_CONTINUATION: Final = 0x0
OP_TEXT: Final = 0x1
OP_BINARY: Final = 0x2
OP_CLOSE: Final = 0x8
OP_PING: Final = 0x9
OP_PONG: Final = 0xA
_FIN: Final = 0x80
_RSV: Final = 0x70
_MASKED: Final = 0x80
_KNOWN_OPCODES: Final = frozenset((OP_CONTINUATION, OP_TEXT, OP_BINARY, OP_CLOSE, OP_PING, OP_PONG))

# RFC 6455 §7.4.1
CLOSE_NORMAL: Final = 1000
CLOSE_PROTOCOL_ERROR: Final = 1002
CLOSE_UNSUPPORTED: Final = 1003
CLOSE_NO_STATUS: Final = 1005  # never on the wire: a close frame without a code
CLOSE_INVALID_DATA: Final = 1007
CLOSE_TOO_BIG: Final = 1009
_CODES_ON_THE_WIRE: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))

MAX_MESSAGE_BYTES: Final = 100_000
MAX_HEAD_BYTES: Final = 16_384
_MAX_CONTROL_BYTES: Final = 125
_ACCEPT_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16
_MAX_QUERY_FIELDS: Final = 50


@dataclass(frozen=True, slots=True)
class Violation:
    """Why a peer's bytes break the protocol: the close code to send and a short reason."""

    code: int
    reason: str


def unmask(payload: bytes, mask: bytes) -> bytes:
    """XOR ``payload`` with the four bytes of ``mask`` repeated (RFC 6455 §5.3).

    Done as one big-integer XOR, which costs about 1 µs for a short payload and some 20 µs for
    100 KB; a loop over bytes costs a thousand times that.
    """
    size = len(payload)
    key = (mask * ((size + 3) >> 2))[:size]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return number.to_bytes(size, "little")


class FrameReader:
    """Turns what one client sends into whole messages and control frames.

    :meth:`feed` takes any piece of the stream. After a violation, :attr:`violation` is set, and
    whatever follows is ignored.
    """

    __slots__ = ("_max_bytes", "_need", "_opcode", "_parts", "_pending", "_size", "violation")

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.violation: Violation | None = None
        self._max_bytes = max_bytes
        # an incomplete frame and how many bytes must be there before it is worth another look:
        # a frame that trickles in byte by byte must not be copied at each of them
        self._pending: bytearray | None = None
        self._need = 0
        # of a message in several frames; None, 0 and 0 while there is none
        self._parts: list[bytes] | None = None
        self._opcode = 0
        self._size = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes in; give (opcode, unmasked payload) of each message that became whole.

        Opcodes are text, binary, close, ping and pong: fragments are put together first. The
        payload of a text message is valid UTF-8, that of a close frame has passed
        :func:`parse_close`. Items before a violation in the same piece are given all the same.
        """
        if self.violation is not None:
            return []
        if self._pending is not None:
            data = self._with_pending(data)
        items: list[tuple[int, bytes]] = []
        end = len(data)
        position = 0
        need = 2
        while end - position >= 2:
            first, second = data[position], data[position + 1]
            self.violation = self._check_head(first, second)
            if self.violation is not None:
                break
            start, size = position + 2, second & 0x7F
            if size >= 126:
                start += 2 if size == 126 else 8
                need = start - position
                if start > end:
                    break
                size = int.from_bytes(data[position + 2 : start], "big")
            # before anything of it is kept, so that nobody makes us hold more than the limit
            if size + self._size > self._max_bytes and first & 0x08 == 0:
                self.violation = Violation(CLOSE_TOO_BIG, f"more than {self._max_bytes} bytes")
                break
            stop = start + 4 + size
            need = stop - position
            if stop > end:
                break
            payload = unmask(data[start + 4 : stop], data[start : start + 4]) if size else b""
            position, need = stop, 2
            item = self._take(first, payload)
            if item is not None:
                items.append(item)
                if item[0] == OP_CLOSE:
                    return items  # RFC 6455 §5.5.1: nothing counts after a close frame
            elif self.violation is not None:
                break
        if self.violation is None and position < end:
            self._pending = bytearray(data[position:] if position else data)
            self._need = need
        return items

    def _with_pending(self, data: bytes) -> bytes:
        """What is kept of earlier pieces with ``data`` behind it; empty while that is too short."""
        kept = self._pending or bytearray()
        kept += data
        if len(kept) < self._need:
            return b""
        self._pending = None
        return bytes(kept)

    def _check_head(self, first: int, second: int) -> Violation | None:
        opcode = first & 0x0F
        reason = ""
        if first & _RSV:
            reason = "reserved bits are set"
        elif opcode not in _KNOWN_OPCODES:
            reason = "unknown opcode"
        elif not second & _MASKED:
            reason = "frames of a client must be masked"
        elif opcode & 0x08:
            if not first & _FIN:
                reason = "fragmented control frame"
            elif second & 0x7F > _MAX_CONTROL_BYTES:
                reason = "control frame over 125 bytes"
        elif (opcode == OP_CONTINUATION) != (self._parts is not None):
            reason = "a message begins inside another, or continues none"
        return Violation(CLOSE_PROTOCOL_ERROR, reason) if reason else None

    def _take(self, first: int, payload: bytes) -> tuple[int, bytes] | None:
        """One whole frame: the item it completes, or None; may set :attr:`violation`."""
        opcode = first & 0x0F
        if opcode & 0x08:
            if opcode == OP_CLOSE:
                closing = parse_close(payload)
                if isinstance(closing, Violation):
                    self.violation = closing
                    return None
            return opcode, payload
        if not first & _FIN:
            if self._parts is None:
                self._parts = []
                self._opcode = opcode
            self._parts.append(payload)
            self._size += len(payload)
            if len(self._parts) > self._max_bytes >> 4:
                # empty or tiny fragments without end cost us more than the bytes they carry
                self.violation = Violation(CLOSE_TOO_BIG, "too many fragments")
            return None
        if self._parts is not None:
            self._parts.append(payload)
            payload = b"".join(self._parts)
            opcode = self._opcode
            self._parts = None
            self._size = 0
        if opcode == OP_TEXT and not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError:
                self.violation = Violation(CLOSE_INVALID_DATA, "text is not UTF-8")
                return None
        return opcode, payload


def parse_close(payload: bytes) -> tuple[int, str] | Violation:
    """The code and reason of a close frame's payload (RFC 6455 §5.5.1, §7.4).

    An empty payload is (1005, "").
    """
    if not payload:
        return CLOSE_NO_STATUS, ""
    if len(payload) == 1:
        return Violation(CLOSE_PROTOCOL_ERROR, "close code cut short")
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError:
        return Violation(CLOSE_INVALID_DATA, "close reason is not UTF-8")
    code = int.from_bytes(payload[:2], "big")
    if code not in _CODES_ON_THE_WIRE and not 3000 <= code <= 4999:
        return Violation(CLOSE_PROTOCOL_ERROR, "invalid close code")
    return code, reason


def build_frame(opcode: int, payload: bytes) -> bytes:
    """One whole, final, unmasked frame (RFC 6455 §5.2)."""
    size = len(payload)
    if size <= 125:
        return bytes((_FIN | opcode, size)) + payload
    if size <= 0xFFFF:
        return bytes((_FIN | opcode, 126, size >> 8, size & 0xFF)) + payload
    return bytes((_FIN | opcode, 127)) + size.to_bytes(8, "big") + payload


def text_frame(payload: bytes) -> bytes:
    """The frame of a text message; ``payload`` must be UTF-8."""
    return build_frame(OP_TEXT, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; 1005 gives an empty one. A long reason is cut at a character's border."""
    if code == CLOSE_NO_STATUS:
        return build_frame(OP_CLOSE, b"")
    text = reason.encode()[: _MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return build_frame(OP_CLOSE, code.to_bytes(2, "big") + text)


# --- the opening handshake (RFC 6455 §4.2) ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """The head of an HTTP request. ``path`` is percent-decoded, header names are lower-case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def wants_upgrade(self) -> bool:
        """Whether this asks for a WebSocket at all, rightly or not."""
        return "websocket" in _tokens(self.headers.get("upgrade", ""))


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that ends the connection; ``text`` says what to do instead."""

    status: HTTPStatus
    text: str
    headers: tuple[tuple[str, str], ...] = ()

    def to_bytes(self) -> bytes:
        """The whole response."""
        body = f"{self.text}\n".encode()
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


UPGRADE_REQUIRED: Final = Refusal(
    HTTPStatus.UPGRADE_REQUIRED,
    "This is a WebSocket address: connect with a Pusher Channels client.",
    (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
)
NOT_FOUND: Final = Refusal(
    HTTPStatus.NOT_FOUND, "Nothing is here: WebSockets are at /app/KEY?protocol=7."
)


def _bad(text: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, text)


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]


def parse_request(head: bytes) -> Request | Refusal:
    """Parse a request head (RFC 9112 §3, §5), up to and without the empty line at its end."""
    request_line, *lines = head.decode("latin-1").split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or not words[1].startswith("/"):
        return _bad("The request line is not valid HTTP.")
    method, target, version = words
    if version != "HTTP/1.1":
        if version == "HTTP/1.0":
            return Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is needed.")
        return _bad("The request line is not valid HTTP.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            return _bad("A header line is not valid HTTP.")
        name = name.lower()
        value = value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path, _, query = target.partition("?")
    try:
        parameters = dict(parse_qsl(query, max_num_fields=_MAX_QUERY_FIELDS))
    except ValueError:
        return _bad(f"The query has more than {_MAX_QUERY_FIELDS} parameters.")
    return Request(method, unquote(path), parameters, headers)


def check_upgrade(request: Request) -> bytes | Refusal:
    """The 101 response to a valid WebSocket handshake, else why there is none."""
    if request.method != "GET":
        return Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is possible here.", (("Allow", "GET"),)
        )
    headers = request.headers
    if not request.wants_upgrade:
        return UPGRADE_REQUIRED if request.path.startswith("/app/") else NOT_FOUND
    if "upgrade" not in _tokens(headers.get("connection", "")):
        return _bad("The header Connection: Upgrade is missing; a proxy may have removed it.")
    if headers.get("sec-websocket-version") != "13":
        return UPGRADE_REQUIRED
    key = headers.get("sec-websocket-key", "")
    try:
        valid = len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        return _bad("The header Sec-WebSocket-Key is missing or not 16 bytes of base64.")
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_value(key.encode()) + b"\r\n\r\n"
    )


def accept_value(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 §4.2.2)."""
    digest = hashlib.sha1(key + _ACCEPT_SUFFIX, usedforsecurity=False).digest()
    return base64.b64encode(digest)
