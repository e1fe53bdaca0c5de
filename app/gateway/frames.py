"""RFC 6455 without sockets: the opening handshake, the frame parser, the frame builders.

Nothing here reads or writes a socket, so all of it is tested with bytes alone. Only the server's
side is here: frames that are read must be masked, frames that are built never are. No extension
is negotiated, so the reserved bits are always 0; docs/engineers/gateway.md says why not.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote

import httptools

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel and no C compiler for this platform
    from websockets.utils import apply_mask

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
_CONTROL: Final = 0x08  # of an opcode
_FINAL_TEXT: Final = _FIN | OP_TEXT
_EXTENDED: Final = _MASKED | 126  # from here on the length is in bytes of its own
_KNOWN_OPCODES: Final = frozenset((OP_CONTINUATION, OP_TEXT, OP_BINARY, OP_CLOSE, OP_PING, OP_PONG))

# RFC 6455 §7.4.1, and 1012 to 1014 from IANA's registry
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


_NOT_UTF8: Final = Violation(CLOSE_INVALID_DATA, "text is not UTF-8")
_Utf8Decoder: Final = codecs.getincrementaldecoder("utf-8")


class _Message:
    """A message in several frames of which the last is still to come."""

    __slots__ = ("data", "fragments", "opcode")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.data = bytearray()
        self.fragments = 0


class _Begun:
    """A frame that has not come whole.

    ``need``: how many bytes must be in ``buffer`` before it is worth another look, because a frame
    that trickles in byte by byte must not be parsed at each of them. ``text_at``: where the payload
    of a text begins in it; 0 when it is none or its head is cut.
    """

    __slots__ = ("buffer", "need", "text_at")

    def __init__(self, data: bytes, need: int, text_at: int) -> None:
        self.buffer = bytearray(data)
        self.need = need
        self.text_at = text_at


class FrameReader:
    """Turns what one client sends into whole messages and control frames.

    :meth:`feed` takes any piece of the stream. After a violation, :attr:`violation` is set, and
    whatever follows is ignored. A reader between two messages keeps nothing of the stream.
    ``max_bytes``, of a whole message, is at least 125.
    """

    __slots__ = ("_begun", "_checked", "_decoder", "_max_bytes", "_message", "violation")

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.violation: Violation | None = None
        self._max_bytes = max_bytes
        self._begun: _Begun | None = None
        self._message: _Message | None = None
        # The UTF-8 of a text in pieces is checked as it comes (§8.1, "fail fast"): by this decoder,
        # which has seen so many bytes of the payload of the frame in _begun.
        self._decoder: codecs.IncrementalDecoder | None = None
        self._checked = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes in; give (opcode, unmasked payload) of each message that became whole.

        Opcodes are text, binary, close, ping and pong: fragments are put together first. The
        payload of a text message is valid UTF-8, that of a close frame has passed
        :func:`parse_close`. Items before a violation in the same piece are given all the same.
        """
        if self.violation is not None:
            return []
        if (begun := self._begun) is not None:
            data = self._with_begun(begun, data)
        items: list[tuple[int, bytes]] = []
        end = len(data)
        position = payload_at = 0
        need = 2
        while end - position >= 2:
            first, second = data[position], data[position + 1]
            if first == _FINAL_TEXT and _MASKED <= second < _EXTENDED and self._message is None:
                # a whole short text, which is what clients send nearly always
                payload_at = position + 6
                stop = payload_at + second - _MASKED
            else:
                payload_at, stop = self._bounds(data, position)
                if self.violation is not None:
                    break
            if stop > end:
                need = (stop if payload_at <= end else payload_at) - position
                break
            payload = apply_mask(data[payload_at:stop], data[payload_at - 4 : payload_at])
            position, need = stop, 2
            if first == _FINAL_TEXT and self._decoder is None and payload.isascii():
                items.append((OP_TEXT, payload))
                continue
            item = self._take(first, payload)
            if item is not None:
                items.append(item)
                if item[0] == OP_CLOSE:
                    return items  # RFC 6455 §5.5.1: nothing counts after a close frame
            elif self.violation is not None:
                break
        if self.violation is None and position < end:
            self._keep(data[position:] if position else data, need, payload_at - position)
        return items

    def _bounds(self, data: bytes, position: int) -> tuple[int, int]:
        """Where the payload of the frame at ``position`` begins and where it ends.

        While the head is not whole: 0, and where it ends at the earliest. May set
        :attr:`violation`: by its head alone, so that nobody makes us keep more than the limit.
        """
        first, second = data[position], data[position + 1]
        reason = self._fault_of_head(first, second)
        start, size = position + 2, second & 0x7F
        if size >= 126 and not reason:
            start += 2 if size == 126 else 8
            if start > len(data):
                return 0, start
            is_long = size == 127
            size = int.from_bytes(data[position + 2 : start], "big")
            if size < 126 or (is_long and (size <= 0xFFFF or size >> 63)):
                # RFC 6455 §5.2: in the fewest bytes, the highest bit 0
                reason = "a length in a wrong form"
        if reason:
            self._fail(Violation(CLOSE_PROTOCOL_ERROR, reason))
        held = 0 if self._message is None else len(self._message.data)
        if size + held > self._max_bytes and not first & _CONTROL and not reason:
            self._fail(Violation(CLOSE_TOO_BIG, f"more than {self._max_bytes} bytes"))
        payload_at = start + 4
        return (0, payload_at) if payload_at > len(data) else (payload_at, payload_at + size)

    def _with_begun(self, begun: _Begun, data: bytes) -> bytes:
        """What is kept of earlier pieces with ``data`` behind it; empty while that is too short."""
        begun.buffer += data
        if len(begun.buffer) < begun.need:
            if begun.text_at:
                self._check_begun(begun)
            return b""
        self._begun = None
        return bytes(begun.buffer)

    def _keep(self, data: bytes, need: int, payload_at: int) -> None:
        """Keep ``data``, the beginning of a frame, until ``need`` bytes of it are there."""
        opcode = data[0] & 0x0F
        if opcode == OP_CONTINUATION and self._message is not None:
            opcode = self._message.opcode
        is_text = opcode == OP_TEXT and 0 < payload_at < need
        self._begun = _Begun(data, need, payload_at if is_text else 0)
        if is_text:
            self._check_begun(self._begun)

    def _check_begun(self, begun: _Begun) -> None:
        """Whether the new bytes of a text frame's payload may stand in UTF-8."""
        masked = begun.buffer[begun.text_at + self._checked :]
        if not masked:
            return
        turn = self._checked & 3
        mask = begun.buffer[begun.text_at - 4 : begun.text_at]
        self._checked += len(masked)
        if self._decoder is None:
            self._decoder = _Utf8Decoder()
        try:
            self._decoder.decode(apply_mask(masked, mask[turn:] + mask[:turn]))
        except UnicodeDecodeError:
            self._fail(_NOT_UTF8)

    def _fail(self, violation: Violation) -> None:
        self.violation = violation
        self._begun = None
        self._message = None
        self._decoder = None

    def _fault_of_head(self, first: int, second: int) -> str:
        """What is wrong with a frame's first two bytes; empty when nothing is."""
        opcode = first & 0x0F
        reason = ""
        if first & _RSV:
            reason = "reserved bits are set"
        elif opcode not in _KNOWN_OPCODES:
            reason = "unknown opcode"
        elif not second & _MASKED:
            reason = "frames of a client must be masked"
        elif opcode & _CONTROL:
            if not first & _FIN:
                reason = "fragmented control frame"
            elif second & 0x7F > _MAX_CONTROL_BYTES:
                reason = "control frame over 125 bytes"
        elif (opcode == OP_CONTINUATION) != (self._message is not None):
            reason = "a message begins inside another, or continues none"
        return reason

    def _take(self, first: int, payload: bytes) -> tuple[int, bytes] | None:
        """One whole frame: the item it completes, or None; may set :attr:`violation`."""
        opcode = first & 0x0F
        if opcode & _CONTROL:
            if opcode == OP_CLOSE:
                closing = parse_close(payload)
                if isinstance(closing, Violation):
                    self._fail(closing)
                    return None
            return opcode, payload
        message = self._message
        is_final = bool(first & _FIN)
        if message is not None:
            opcode = message.opcode
        if opcode == OP_TEXT and not self._is_utf8(payload, is_final=is_final):
            self._fail(_NOT_UTF8)
            return None
        if message is None:
            if is_final:
                return opcode, payload
            message = self._message = _Message(opcode)
        message.data += payload
        message.fragments += 1
        if is_final:
            self._message = None
            return opcode, bytes(message.data)
        if message.fragments > self._max_bytes >> 4:
            # empty or tiny fragments without end cost us more than the bytes they carry
            self._fail(Violation(CLOSE_TOO_BIG, "too many fragments"))
        return None

    def _is_utf8(self, payload: bytes, *, is_final: bool) -> bool:
        """Whether a text frame's payload goes on, and with ``is_final`` ends, as UTF-8 does."""
        decoder, checked = self._decoder, self._checked
        try:
            if decoder is None and is_final:
                payload.decode()
            elif decoder is not None or not payload.isascii():
                decoder = decoder or _Utf8Decoder()
                self._decoder = None if is_final else decoder
                self._checked = 0
                decoder.decode(payload[checked:], is_final)
        except UnicodeDecodeError:
            return False
        return True


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


_SHORT_TEXT_HEADS: Final = tuple(bytes((_FINAL_TEXT, size)) for size in range(126))


def text_frame(payload: bytes) -> bytes:
    """The frame of a text message; ``payload`` must be UTF-8."""
    size = len(payload)
    if size <= 125:
        return _SHORT_TEXT_HEADS[size] + payload
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


# Which may come once only: RFC 9112 §3.2; RFC 6454 §7.3; RFC 6455 §11.3.1, §11.3.5
_ONCE: Final = frozenset(("host", "origin", "sec-websocket-key", "sec-websocket-version"))
# RFC 6455 §9.1 and §11.3.4, with the lists of RFC 9110 §5.6.1, in which elements may be empty; all
# possessive, so that no value takes long
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_PARAMETER: Final = rf'[ \t]*+;[ \t]*+{_WORD}(?:[ \t]*+=[ \t]*+(?:{_WORD}|"{_WORD}"))?+'
_EXTENSION: Final = rf"{_WORD}(?:{_PARAMETER})*+"


def _list_of(element: str) -> re.Pattern[str]:
    return re.compile(rf"[ \t,]*+{element}(?:[ \t]*+,[ \t,]*+{element})*+[ \t,]*+")


_OFFERS: Final = (
    ("sec-websocket-extensions", _list_of(_EXTENSION)),
    ("sec-websocket-protocol", _list_of(_WORD)),
)


class _Head:
    """Collects what httptools finds; its method names are that library's."""

    __slots__ = ("fields", "is_whole", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.is_whole = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.is_whole = True


def parse_request(head: bytes) -> Request | Refusal:
    """Parse a request head (RFC 9112 §3, §5), up to and without the empty line at its end."""
    found = _Head()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(head + b"\r\n\r\n")
    except httptools.HttpParserUpgrade:
        pass  # what follows the head is not HTTP, as it shall be
    except httptools.HttpParserError:
        found.is_whole = False
    if not found.is_whole:
        return _bad("This is not a valid HTTP request.")
    if parser.get_http_version() != "1.1":
        return Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is needed.")
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in found.fields
    }
    repeated = ""
    if len(headers) < len(found.fields):
        headers, repeated = _joined(found.fields)
    if repeated:
        return _bad(f"The header {repeated} may be given only once.")
    if "host" not in headers:
        return _bad("The header Host is missing.")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        return _bad("A request with a body has no place here.")
    return _request(parser.get_method().decode("latin-1"), found.target, headers)


def _request(method: str, target: bytes, headers: dict[str, str]) -> Request | Refusal:
    try:
        # the absolute form, http://host/path, must be understood as well (RFC 9112 §3.2.2)
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return _bad("The address of the request is not valid.")
    query = (url.query or b"").decode("latin-1")
    if query.count("&") >= _MAX_QUERY_FIELDS:
        return _bad(f"The query has more than {_MAX_QUERY_FIELDS} parameters.")
    path = unquote((url.path or b"/").decode("latin-1"))
    return Request(method, path, _parameters(query), headers)


def _parameters(query: str) -> dict[str, str]:
    """The parameters that have a value; of one given twice the last."""
    if "%" in query or "+" in query:
        return dict(parse_qsl(query))
    # nothing to decode, as usual: that takes a third of the time
    pairs = [field.partition("=") for field in query.split("&")]
    return {name: value for name, _, value in pairs if value}


def _joined(fields: list[tuple[bytes, bytes]]) -> tuple[dict[str, str], str]:
    """The headers, repeated ones joined by commas (RFC 9110 §5.3); one that may not be repeated."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers:
            if name in _ONCE:
                return headers, name
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers, ""


def check_upgrade(request: Request) -> bytes | Refusal:
    """The 101 response to a valid WebSocket handshake, else why there is none."""
    if request.method != "GET":
        return Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is possible here.", (("Allow", "GET"),)
        )
    headers = request.headers
    if not request.wants_upgrade:
        return UPGRADE_REQUIRED if request.path.startswith("/app/") else NOT_FOUND
    if headers.get("sec-websocket-version") != "13":
        return UPGRADE_REQUIRED
    fault = _fault_of_upgrade(headers)
    if fault:
        return _bad(fault)
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: "
        + accept_value(headers["sec-websocket-key"].encode())
        + b"\r\n\r\n"
    )


def _fault_of_upgrade(headers: dict[str, str]) -> str:
    if "upgrade" not in _tokens(headers.get("connection", "")):
        return "The header Connection: Upgrade is missing; a proxy may have removed it."
    try:
        valid = len(base64.b64decode(headers["sec-websocket-key"], validate=True)) == _KEY_BYTES
    except (KeyError, ValueError):
        valid = False
    if not valid:
        return "The header Sec-WebSocket-Key is missing or not 16 bytes of base64."
    # Neither is ever agreed to, but what is not valid must fail the handshake (RFC 6455 §9.1).
    for name, form in _OFFERS:
        if (value := headers.get(name)) is not None and form.fullmatch(value) is None:
            return f"The header {name} is not valid."
    return ""


def accept_value(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 §4.2.2)."""
    digest = hashlib.sha1(key + _ACCEPT_SUFFIX, usedforsecurity=False).digest()
    return base64.b64encode(digest)
