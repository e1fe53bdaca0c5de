"""What hypothesis feeds to the targets of fuzz.py."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from tests.gateway.client_frames import masked
from tests.gateway.fuzz import HEAD
from tests.gateway.test_oracles import streams

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
names = st.one_of(
    st.sampled_from(["", "a", "x" * 200, "private-a", "presence-a", "cache-a", "private-cache-a"]),
    st.sampled_from(["#server-to-user-1", "private-encrypted-a", "my channel", "é"]),
    values,
)
data = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "channel": names,
            "auth": st.one_of(st.just("key1:x"), values),
            "channel_data": st.one_of(values, values.map(json.dumps)),
            "user_data": st.one_of(values, values.map(json.dumps), st.just('{"id":"7"}')),
        },
    ),
    values,
)
events = st.one_of(
    st.sampled_from(["pusher:ping", "pusher:pong", "pusher:subscribe", "pusher:subscribe"]),
    st.sampled_from(["pusher:unsubscribe", "pusher:signin", "client-x", "client-", "other"]),
    values,
)
messages = st.one_of(
    st.fixed_dictionaries({"event": events}, optional={"data": data, "channel": names}).map(
        json.dumps
    ),
    st.fixed_dictionaries({"event": events, "data": data.map(json.dumps)}).map(json.dumps),
    st.text(max_size=40),
    st.just("[" * 2000),
).map(lambda text: text.replace("\n", " ").encode(errors="surrogatepass"))
conversations = st.lists(messages, max_size=8)
header_lines = st.one_of(
    st.sampled_from(HEAD.split(b"\r\n")[1:-2]),
    st.tuples(st.binary(max_size=12), st.binary(max_size=40)).map(b": ".join),
    st.tuples(
        st.sampled_from([b"Host", b"Sec-WebSocket-Extensions", b"Content-Length", b"Connection"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.encode),
    ).map(b": ".join),
)
requests = st.builds(
    lambda line, lines: b"\r\n".join([line, *lines]),
    st.one_of(
        st.just(HEAD.split(b"\r\n")[0]),
        st.text(st.characters(max_codepoint=255), max_size=40).map(
            lambda target: f"GET /{target} HTTP/1.1".encode("latin-1")
        ),
        st.binary(max_size=40),
    ),
    st.lists(header_lines, max_size=8),
)
byte = st.binary(min_size=1, max_size=1)


def joined(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """One after the other."""
    return st.tuples(*parts).map(b"".join)


spoken = conversations.map(lambda texts: b"".join(masked(1, text) for text in texts))
inputs = [
    joined(st.just(b"\0"), byte, streams),
    joined(st.just(b"\1"), requests),
    joined(st.just(b"\2"), byte, conversations.map(b"\n".join)),
    joined(st.just(b"\3\xff"), byte, st.one_of(streams, spoken)),
    joined(st.just(b"\3\0"), byte, requests, st.just(b"\r\n\r\n"), streams),
]
