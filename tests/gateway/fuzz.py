"""Fuzzing of whatever reads bytes of strangers: `python -m tests.gateway.fuzz ENGINE SECONDS`.

ENGINE is `atheris` (guided by coverage; the package must be on the path, `make fuzz` sees to it) or
`hypothesis` (guided by the structure of streams and messages). Both feed the same targets; a target
raises when a promise is broken. At the end one line of JSON has the figures: executions, the
longest one, and the memory that repeating the last inputs over and over took.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, cast

with contextlib.suppress(ImportError):
    import atheris

# instrumented for coverage where atheris runs, plain elsewhere
with (
    atheris.instrument_imports(include=["app.gateway"])
    if "atheris" in sys.argv[1:2]
    else contextlib.nullcontext()
):
    from app import config
    from app.gateway import frames, pusher
    from app.gateway.applications import Application
    from app.gateway.connection import Connection, State
    from app.gateway.node import Node

from tests.gateway.client_frames import masked

ROOT: Final = Path(__file__).resolve().parents[2]
CORPUS: Final = ROOT / ".cache" / "fuzz-corpus"
LIMIT: Final = 1000
SLOWEST_SECONDS: Final = 0.5  # of processor time for one input of at most a few KB
ROUNDS: Final = 12  # of repeats in which the memory must stay
MAX_INPUT_BYTES: Final = 4096
MAX_GROWTH_BYTES: Final = 4 * 1024 * 1024
APPLICATION: Final = Application("app1", "key1", b"a-secret-for-fuzzing", client_events=True)
HEAD: Final = (
    b"GET /app/key1?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def pieces(data: bytes) -> list[bytes]:
    """The input, whose first byte says into how large pieces it is cut (0: not at all)."""
    size, data = data[:1], data[1:]
    step = size[0] if size and size[0] else max(1, len(data))
    return [data[at : at + step] for at in range(0, len(data), step)]


def kept_bytes(reader: frames.FrameReader) -> int:
    """What a reader keeps of the stream."""
    begun, message = reader._begun, reader._message
    return (len(begun.buffer) if begun else 0) + (len(message.data) if message else 0)


def read_frames(data: bytes) -> None:
    """Whatever the pieces, the outcome is the same, and little is kept."""
    parts = pieces(data)
    whole = frames.FrameReader(LIMIT)
    expected = whole.feed(b"".join(parts))
    reader = frames.FrameReader(LIMIT)
    items: list[tuple[int, bytes]] = []
    for part in parts:
        items += reader.feed(part)
        assert kept_bytes(reader) <= LIMIT + 14 + len(part), "keeps too much"
        if items and items[-1][0] == frames.OP_CLOSE:
            break
    assert items == expected, "depends on the pieces"
    assert (reader.violation is None) == (whole.violation is None)
    if reader.violation is not None and whole.violation is not None:
        assert reader.violation.code == whole.violation.code
        assert kept_bytes(reader) == 0
        assert reader.feed(b"\x81\x80\0\0\0\0") == []
    for opcode, payload in items:
        if opcode == frames.OP_TEXT:
            payload.decode()
        assert len(payload) <= (LIMIT if opcode < 8 else 125)


def shake_hands(data: bytes) -> None:
    """A request gets a 101 or a small HTTP answer."""
    request = frames.parse_request(data)
    answer = frames.check_upgrade(request) if isinstance(request, frames.Request) else request
    if isinstance(request, frames.Request):
        assert len(request.query) <= 50
        origin = request.headers.get("origin", "")
        pusher.check_connect(NODE.applications, request.path, request.query, origin)
    head = answer if isinstance(answer, bytes) else answer.to_bytes()
    assert head.startswith(b"HTTP/1.1 ")
    assert len(head) < 1000


class Trusting(pusher.Session):
    """A session that takes every signature for right, so that what is behind it is reached."""

    def _is_signed(self, *_: object) -> bool:
        return True


def talk(data: bytes) -> None:
    """Lines are the messages of one client."""
    make = Trusting if data[:1] > b"\x7f" else pusher.Session
    session = make(APPLICATION, "123.456")
    for now, line in enumerate(data[1:].split(b"\n")):
        try:
            line.decode()
        except UnicodeDecodeError:
            continue  # the frame reader refuses it
        for action in session.receive(line, float(now)):
            assert isinstance(action, pusher.Action)
            if isinstance(action, pusher.Send):
                json.loads(action.message)
                assert len(action.message) < 2 * len(line) + 1000, "answers more than it is asked"
        assert len(session.channels) <= APPLICATION.max_channels_per_socket
        assert len(set(session.channels)) == len(session.channels)


class Transport:
    """Counts what is written."""

    def __init__(self) -> None:
        self.written = 0
        self.is_over = False

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def abort(self) -> None:
        self.is_over = True

    close = write_eof = abort

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing is buffered."""

    def get_extra_info(self, _name: str) -> None:
        """There is no peer."""


class Quiet(Node):
    """A node that is not started: it publishes nothing and asks Redis nothing."""

    def publish(self, *_: Any) -> None:
        """Nobody is there."""

    def join_cache_channel(self, *_: Any) -> None:
        """Nothing is remembered."""


def make_node() -> Node:
    """A node for :func:`connect`."""
    environment = {
        "DESKLINE_REDIS_URL": "redis://127.0.0.1:1/0",
        "DESKLINE_PUSHER_APP_ID": APPLICATION.id,
        "DESKLINE_PUSHER_KEY": APPLICATION.key,
        "DESKLINE_PUSHER_SECRET": APPLICATION.secret.decode(),
    }
    node = Quiet(config.load("gateway", environment))
    node.capacity = 1000
    return node


NODE: Final = make_node()


def connect(data: bytes) -> None:
    """A socket's whole life: a handshake, ours or the input's, then the input; nothing stays."""
    transport = Transport()
    connection = Connection(NODE)
    connection.connection_made(cast(Any, transport))
    is_shaken = data[:1] > b"\x1f"
    parts = pieces(data[1:])
    for part in [HEAD, *parts] if is_shaken else parts:
        if transport.is_over and connection.state is not State.CLOSING:
            break
        connection.data_received(part)
    assert transport.written < 100_000 + 100 * len(data)
    connection.connection_lost(None)
    assert connection.state is State.CLOSED
    assert (len(NODE.connections), len(NODE.channels)) == (0, 0)


TARGETS: Final[tuple[Callable[[bytes], None], ...]] = (read_frames, shake_hands, talk, connect)


class Run:
    """Executes inputs and keeps the figures."""

    def __init__(self, engine: str, seconds: float) -> None:
        self.engine = engine
        self.started = time.monotonic()
        self.deadline = self.started + seconds
        self.executions: Counter[str] = Counter()
        self.slowest = 0.0
        self.last: deque[bytes] = deque(maxlen=500)

    def one(self, data: bytes) -> None:
        """The first byte of an input chooses the target."""
        if not data:
            return
        begun = time.process_time()
        target = TARGETS[data[0] % len(TARGETS)]
        target(data[1:])
        took = time.process_time() - begun
        assert took < SLOWEST_SECONDS, f"{took:.1f} s for one input"
        self.slowest = max(self.slowest, took)
        self.executions[target.__name__] += 1
        self.last.append(data)

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.deadline

    def report(self) -> None:
        """Repeat the last inputs, which must take no more memory, and print the figures."""
        growth = []
        for _ in range(ROUNDS):
            before = resident_bytes()
            for data in list(self.last):
                TARGETS[data[0] % len(TARGETS)](data[1:])
            growth.append(resident_bytes() - before)
        figures = {
            "engine": self.engine,
            "seconds": round(time.monotonic() - self.started),
            "executions": sum(self.executions.values()),
            "by target": dict(self.executions),
            "slowest, ms": round(1000 * self.slowest, 1),
            # the first round warms caches up
            "growth in repeats, KB": sum(growth[1:]) // 1024,
            "peak resident, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        print(json.dumps(figures), flush=True)
        assert sum(growth[1:]) < MAX_GROWTH_BYTES, "memory grows"


def resident_bytes() -> int:
    """The memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def seeds() -> list[bytes]:
    """Inputs to begin with, one of each kind."""
    ping = b'{"event":"pusher:ping","data":{}}'
    join = b'{"event":"pusher:subscribe","data":{"channel":"private-a","auth":"k:s"}}'
    said = b'{"event":"client-x","channel":"private-a","data":{"a":[1,"\\u00e9"]}}'
    sign_in = b'{"event":"pusher:signin","data":{"auth":"k:s","user_data":"{\\"id\\":\\"1\\"}"}}'
    leave = b'{"event":"pusher:unsubscribe","data":"{\\"channel\\":\\"private-a\\"}"}'
    texts = [ping, join, said, sign_in, leave]
    streams = [
        b"".join(masked(1, text) for text in texts),
        masked(1, "é".encode()[:1], fin=False) + masked(9, b"p") + masked(0, "é".encode()[1:]),
        masked(2, bytes(300)) + masked(8, b"\x03\xe8bye"),
        masked(1, b"x" * 900)[:500],
        masked(1, b"\xff"),
        masked(1, b"a", mask=None),
        masked(10, rsv=1),
    ]
    return [
        *(b"\0" + bytes((cut,)) + stream for stream in streams for cut in (0, 1, 7)),
        b"\1" + HEAD[:-4],
        b'\1POST http://a/b?c=%20 HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Extensions: a; b="c"',
        *(b"\2" + first + b"\n".join(texts) for first in (b"\0", b"\xff")),
        *(b"\3\xff" + bytes((cut,)) + stream for stream in streams for cut in (0, 5)),
        b"\3\0\x05" + HEAD + streams[0],
    ]


WORDS: Final = (
    *("pusher:ping", "pusher:pong", "pusher:subscribe", "pusher:unsubscribe", "pusher:signin"),
    *("client-", "event", "data", "channel", "auth", "channel_data", "user_data", "user_id"),
    *(
        "private-",
        "presence-",
        "cache-",
        "private-cache-",
        "private-encrypted-",
        "#server-to-user-",
    ),
    *("websocket", "Upgrade: ", "Connection: ", "Sec-WebSocket-Key: ", "Transfer-Encoding: "),
    *("Content-Length: ", "Host: ", "Sec-WebSocket-Extensions: ", "HTTP/1.1", "/app/key1"),
)


def run_atheris(seconds: float) -> None:
    """Until the time is up; a broken promise ends it at once, with the input in a file."""
    CORPUS.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(seeds()):
        (CORPUS / f"seed-{index}").write_bytes(seed)
    words = CORPUS.with_suffix(".dict")
    words.write_text("".join(f'"{word}"\n' for word in WORDS))
    run = Run("atheris", seconds)

    def test_one_input(data: bytes) -> None:
        run.one(data)
        if run.is_over:
            end()

    def end() -> NoReturn:
        try:
            run.report()
        except AssertionError as failure:
            print(failure, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)  # libFuzzer has no other way to end from within

    options = [f"-max_len={MAX_INPUT_BYTES}", "-timeout=60", "-rss_limit_mb=1024", f"-dict={words}"]
    artifacts = f"-artifact_prefix={CORPUS.parent}/fuzz-"
    atheris.Setup([sys.argv[0], *options, artifacts, str(CORPUS)], test_one_input)
    atheris.Fuzz()


def run_hypothesis(seconds: float) -> None:
    """The streams of test_oracles.py and messages of Channels clients, until the time is up."""
    from hypothesis import HealthCheck, Phase, given, settings  # noqa: PLC0415  not for atheris
    from hypothesis import strategies as st  # noqa: PLC0415

    from tests.gateway.fuzz_inputs import inputs  # noqa: PLC0415

    run = Run("hypothesis", seconds)

    @settings(
        max_examples=2000,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.target, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(inputs))
    def batch(data: bytes) -> None:
        if not run.is_over:
            run.one(data)

    while not run.is_over:
        batch()
    run.report()


def main() -> int:
    """Entry point."""
    engines = {"atheris": run_atheris, "hypothesis": run_hypothesis}
    if len(sys.argv) != 3 or sys.argv[1] not in engines:
        print(__doc__, file=sys.stderr)
        return 2
    engines[sys.argv[1]](float(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
