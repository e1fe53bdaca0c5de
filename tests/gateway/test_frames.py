"""Frames and the opening handshake, with bytes alone; test_oracles.py compares with others."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.uri import parse_uri

from app.gateway import frames
from tests.gateway.client_frames import MASK, masked

LIMIT = 4096


def read_all(data: bytes, limit: int = LIMIT) -> tuple[list[tuple[int, bytes]], int | None]:
    reader = frames.FrameReader(limit)
    items = reader.feed(data)
    return items, reader.violation.code if reader.violation else None


def test_the_masked_hello_of_rfc_6455_section_5_7() -> None:
    data = bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")
    assert read_all(data) == ([(frames.OP_TEXT, b"Hello")], None)


def test_the_built_frames_of_rfc_6455_section_5_7() -> None:
    assert frames.text_frame(b"Hello") == bytes.fromhex("81 05 48 65 6c 6c 6f")
    assert frames.build_frame(frames.OP_PONG, b"Hello") == bytes.fromhex("8a 05 48 65 6c 6c 6f")
    assert frames.build_frame(2, bytes(256))[:4] == bytes.fromhex("82 7e 01 00")
    assert frames.build_frame(2, bytes(65536))[:10] == bytes.fromhex("82 7f 00000000 00010000")


@given(st.binary(max_size=2000), st.binary(min_size=4, max_size=4))
def test_unmasking_is_xor_with_the_repeated_mask(payload: bytes, mask: bytes) -> None:
    # of RFC 6455 §5.3, whoever does it
    data = masked(2, payload, mask=mask)
    assert read_all(data) == ([(frames.OP_BINARY, payload)], None)


@given(
    st.sampled_from([1, 2, 9, 10]),
    st.one_of(st.binary(max_size=130), st.sampled_from([bytes(125), bytes(126), bytes(70_000)])),
)
def test_built_frames_are_what_the_library_builds(opcode: int, payload: bytes) -> None:
    if opcode >= 8:
        payload = payload[:125]
    expected = Frame(Opcode(opcode), payload).serialize(mask=False)
    assert frames.build_frame(opcode, payload) == expected


@given(st.integers(3000, 4999), st.text(max_size=200))
def test_close_frames_are_read_by_the_library(code: int, reason: str) -> None:
    data = frames.close_frame(code, reason)
    close = Close.parse(data[2:])
    assert len(data) <= 127
    assert close.code == code
    assert reason.startswith(close.reason)
    assert len(reason) == len(close.reason) or len(close.reason.encode()) > 119


def test_a_close_frame_without_a_code_is_empty() -> None:
    assert frames.close_frame(frames.CLOSE_NO_STATUS) == b"\x88\x00"


# --- any stream, cut anywhere ----------------------------------------------------------------

client_frame = st.builds(
    masked,
    st.sampled_from([0, 1, 2, 8, 9, 10, 3, 11]),
    st.one_of(
        st.binary(max_size=140),
        st.text(max_size=60).map(str.encode),
        st.sampled_from([b"", b"\x03\xe8", b"\x03\xedx", b"\x0f\xa0ok", b"\xff", bytes(1500)]),
    ),
    fin=st.booleans(),
    mask=st.binary(min_size=4, max_size=4),
)
stream = st.one_of(
    st.lists(client_frame, max_size=8).map(b"".join),
    st.binary(max_size=60),
    st.tuples(st.lists(client_frame, max_size=4).map(b"".join), st.binary(max_size=30)).map(
        b"".join
    ),
)


@settings(max_examples=300, deadline=None)
@given(stream, st.lists(st.integers(1, 40), max_size=30))
def test_where_the_stream_is_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    reader = frames.FrameReader(LIMIT)
    items = []
    position = 0
    for cut in cuts:
        items += reader.feed(data[position : position + cut])
        position += cut
        if items and items[-1][0] == frames.OP_CLOSE:
            break
    else:
        items += reader.feed(data[position:])
    code = reader.violation.code if reader.violation else None
    assert (items, code) == read_all(data)


# --- the rules, one by one -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05Hello", 1002),  # not masked
        (b"\xc1\x80" + MASK, 1002),  # a reserved bit
        (b"\x83\x80" + MASK, 1002),  # an unknown opcode
        (masked(9, b"x", fin=False), 1002),  # a ping in pieces
        (masked(9, bytes(126)), 1002),  # a ping too long
        (masked(0, b"x"), 1002),  # continues nothing
        (masked(1, b"a", fin=False) + masked(1, b"b"), 1002),  # two messages at once
        (masked(8, b"\x03"), 1002),  # half a close code
        (masked(8, b"\x03\xed"), 1002),  # 1005 must not be sent
        (masked(8, b"\x03\xe8\xff"), 1007),  # reason not UTF-8
        (masked(1, b"\xff"), 1007),
        (masked(1, b"\xe4\xb8", fin=False) + masked(0, b"\x41"), 1007),
        (masked(2, bytes(LIMIT + 1)), 1009),
        (masked(1, bytes(LIMIT), fin=False) + masked(0, b"x"), 1009),
        (b"\x81\xff\x7f" + b"\xff" * 7 + MASK, 1009),  # a length of 2**63-1
        (b"\x81\xff" + b"\xff" * 8 + MASK, 1002),  # the highest bit of a length is 0
        (b"\x81\xfe\x00\x7d" + MASK, 1002),  # 125 in more bytes than needed
        (b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff" + MASK, 1002),
        (masked(8, b"\x03\xec"), 1002),  # 1004, and what nobody defined
        (masked(8, b"\x0b\xb7"), 1002),
        (masked(8, b"\x13\x88"), 1002),
    ],
)
def test_a_violation_has_its_close_code(data: bytes, code: int) -> None:
    items, seen = read_all(data)
    assert (items, seen) == ([], code)


def test_a_message_too_big_is_refused_from_its_length_alone() -> None:
    items, code = read_all(b"\x82\xfe" + (LIMIT + 1).to_bytes(2, "big"))
    assert (items, code) == ([], 1009)


def test_a_character_cut_by_fragments_and_a_ping_between_them() -> None:
    euro = "€".encode()
    data = masked(1, euro[:1], fin=False) + masked(9, b"p") + masked(0, euro[1:])
    assert read_all(data) == ([(frames.OP_PING, b"p"), (frames.OP_TEXT, euro)], None)


def test_endless_empty_fragments_are_stopped() -> None:
    reader = frames.FrameReader(LIMIT)
    reader.feed(masked(1, b"", fin=False))
    for _ in range(LIMIT):
        reader.feed(masked(0, b"", fin=False))
    assert reader.violation is not None
    assert reader.violation.code == frames.CLOSE_TOO_BIG


def test_nothing_is_read_after_a_close_frame_or_a_violation() -> None:
    assert read_all(masked(8, b"") + masked(1, b"x")) == ([(frames.OP_CLOSE, b"")], None)
    reader = frames.FrameReader()
    reader.feed(b"\xff\xff")
    assert reader.feed(masked(1, b"x")) == []


# --- handshake -------------------------------------------------------------------------------

GOOD = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def head(
    line: str = "GET /app/key?protocol=7 HTTP/1.1",
    changes: dict[str, str | None] | None = None,
) -> bytes:
    fields: dict[str, str | None] = {**GOOD, **(changes or {})}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([line, *lines]).encode()


def answer(data: bytes) -> bytes:
    request = frames.parse_request(data)
    result = frames.check_upgrade(request) if isinstance(request, frames.Request) else request
    return result if isinstance(result, bytes) else result.to_bytes()


def test_the_accept_value_of_rfc_6455_section_1_3() -> None:
    assert frames.accept_value(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_library_accepts_our_handshake() -> None:
    client = ClientProtocol(parse_uri("ws://localhost/app/key?protocol=7"))
    client.send_request(client.connect())
    (request,) = client.data_to_send()
    client.receive_data(answer(request.removesuffix(b"\r\n\r\n")))
    assert client.state is client.state.OPEN


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(changes={"Upgrade": None}), 426),
        (head("GET / HTTP/1.1", {"Upgrade": None}), 404),
        (head("POST /app/key HTTP/1.1"), 405),
        (head(changes={"Connection": "close"}), 400),
        (head(changes={"Sec-WebSocket-Version": "8"}), 426),
        (head(changes={"Sec-WebSocket-Key": None}), 400),
        (head(changes={"Sec-WebSocket-Key": "c2hvcnQ="}), 400),
        (head(changes={"Sec-WebSocket-Key": "é"}), 400),
        (head("GET /app/key HTTP/1.0"), 505),
        (head("nonsense"), 400),
        (head() + b"\r\nbroken line", 400),
        (head() + b"\r\nX y: 1", 400),
        (head() + b"\r\nX : 1", 400),
        (head() + b"\r\nX: 1\x002", 400),
        (head() + b"\r\nX: 1\nY: 2", 400),
        (head() + b"\r\nX: 1\rY: 2", 400),
        (head(changes={"Host": None}), 400),
        (head() + b"\r\nHost: another", 400),
        (head() + b"\r\nOrigin: http://a\r\nOrigin: http://b", 400),
        (head() + b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
        (head() + b"\r\nSec-WebSocket-Version: 13", 400),
        (head() + b"\r\nSec-WebSocket-Extensions: ", 400),
        (head() + b"\r\nSec-WebSocket-Extensions: permessage-deflate; =1", 400),
        (head() + b"\r\nSec-WebSocket-Extensions: a b", 400),
        (head() + b"\r\nSec-WebSocket-Protocol: a;b", 400),
        (head() + b"\r\nContent-Length: 4", 400),
        (head() + b"\r\nTransfer-Encoding: chunked", 400),
        (head("CONNECT chat.example.com:443 HTTP/1.1"), 400),
        (head("GET /app/key HTTP/2.0"), 505),
        (head("GET /\xff HTTP/1.1"), 400),
        (b"", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS on the plain port
        (head() + b"\r\n folded: yes", 400),
        (head("GET /app/k?" + "a=1&" * 60 + " HTTP/1.1"), 400),
    ],
)
def test_what_is_no_handshake_gets_a_small_http_answer(data: bytes, status: int) -> None:
    response = answer(data)
    first, _, rest = response.partition(b"\r\n")
    headers, _, body = rest.partition(b"\r\n\r\n")
    assert first.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Content-Length: {len(body)}".encode() in headers
    assert b"Connection: close" in headers
    if status == 426:
        assert b"Sec-WebSocket-Version: 13" in headers


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_request_parser_raise(data: bytes) -> None:
    answer(data)


@pytest.mark.parametrize(
    "more",
    [
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        b'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=15; x="y" , z',
        b"Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: b; c",
        b"Sec-WebSocket-Protocol: chat, superchat",
        b"Content-Length: 0",
        b"Connection: keep-alive\r\nUpgrade: h2c",
        b"X-Long: " + b"x" * 8000,
    ],
)
def test_what_a_handshake_may_have_besides(more: bytes) -> None:
    response = answer(head() + b"\r\n" + more)
    assert response.startswith(b"HTTP/1.1 101 ")
    # RFC 6455 §4.2.2: nothing is answered that was not agreed to
    assert b"extensions" not in response.lower()
    assert b"protocol:" not in response.lower()


@pytest.mark.parametrize("value", ["WebSocket", "h2c, websocket", "WEBSOCKET"])
def test_the_tokens_of_a_handshake_have_no_case(value: str) -> None:
    changes: dict[str, str | None] = {"Upgrade": value, "Connection": "UPGRADE"}
    assert answer(head(changes=changes)).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://chat.example.com:80/app/key?protocol=7", "/app/key", {"protocol": "7"}),
        ("http://chat.example.com", "/", {}),
        ("/app/a%20b?x=%C3%A9&y=a+b&z=&x=2", "/app/a b", {"x": "2", "y": "a b"}),
        ("/app/key?a=1&b=2=3&&c", "/app/key", {"a": "1", "b": "2=3"}),
    ],
)
def test_the_forms_of_an_address(target: str, path: str, query: dict[str, str]) -> None:
    request = frames.parse_request(head(f"GET {target} HTTP/1.1"))
    assert isinstance(request, frames.Request)
    assert (request.path, request.query) == (path, query)


def test_no_offer_takes_long_to_refuse() -> None:
    started = time.perf_counter()
    for value in ("a;" * 8000, "a," * 8000 + "b c", "a;b=" + "c" * 16_000 + '"'):
        changes: dict[str, str | None] = {"Sec-WebSocket-Extensions": value}
        assert answer(head(changes=changes)).startswith(b"HTTP/1.1 400 ")
    assert time.perf_counter() - started < 1


def test_header_names_have_no_case_and_repeats_are_joined() -> None:
    request = frames.parse_request(head() + b"\r\nX-A: 1\r\nx-a: 2")
    assert isinstance(request, frames.Request)
    assert request.headers["x-a"] == "1, 2"
    assert request.query == {"protocol": "7"}


def test_reading_100_kb_takes_well_under_a_millisecond_each() -> None:
    # a guard against a loop over bytes, which takes 10 ms and more; no fine measurement
    data = masked(2, os.urandom(100_000)) * 20
    reader = frames.FrameReader()
    start = time.perf_counter()
    assert len(reader.feed(data)) == 20
    assert time.perf_counter() - start < 0.1
