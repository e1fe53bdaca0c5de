"""The processes of the bench: a server on one core, the generator and Redis on another."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tools import environment, web_build

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "bench" / "gateway"
BUILT = ROOT / ".cache" / "bench-gateway"
PEERS_PYTHON = ROOT / ".cache" / "bench-peers" / "bin" / "python"
PEERS_NODE = ROOT / ".cache" / "bench-peers-node"
SERVER_CPU, OTHER_CPU = "0", "1"
HOST = "127.0.0.1"
APP_ID, KEY, SECRET = "bench", "bench-key", "a-secret-for-the-bench-only"  # nothing to protect
TOPIC_PREFIX = f"deskline:ch:{APP_ID}:"
START_SECONDS = 30.0
MAX_OPEN_PER_PROCESS = 19_800
_INSIDE = "DESKLINE_BENCH_IN_OWN_NETWORK"


class BenchFailed(Exception):
    """The measurement cannot be made or means nothing; the text says why."""


@dataclass(frozen=True)
class Kind:
    """One thing to measure. A slow one gets the smaller half of the work, to bound the run."""

    name: str
    language: str
    path: str = "/ws"
    dialect: str = "pusher"
    slow: bool = False


OURS = "Deskline"
LIMIT = "C epoll"
KINDS = {
    kind.name: kind
    for kind in (
        Kind(OURS, "own", path=f"/app/{KEY}?protocol=7&client=bench"),
        Kind(LIMIT, "c"),
        Kind("picows", "python"),
        Kind("Node ws", "node"),
        Kind("websockets", "python"),
        Kind("aiohttp", "python"),
        Kind("Sanic", "python"),
        Kind("socket.io", "node", path="/socket.io/?EIO=4&transport=websocket", dialect="socketio"),
        Kind("Channels", "python", slow=True),
    )
}
FILES = {
    "picows": "picows_server.py",
    "Node ws": "ws_server.cjs",
    "websockets": "websockets_server.py",
    "aiohttp": "aiohttp_server.py",
    "Sanic": "sanic_server.py",
    "socket.io": "socketio_server.cjs",
    "Channels": "channels_server.py",
}


# --- preparations -----------------------------------------------------------------------------


def check_loopback() -> None:
    """Raise :class:`BenchFailed` unless this machine keeps 127.0.0.0/8 to itself."""
    with socket.socket() as server, socket.socket() as client:
        server.bind((HOST, 0))
        server.listen(1)
        client.settimeout(2)
        client.bind(("127.0.1.10", 0))
        try:
            client.connect(server.getsockname())
        except OSError as error:
            raise BenchFailed(f"Loopback does not work here ({error}): no load is sent.") from None
        peer = server.accept()[0]
        with peer:
            if not peer.getpeername()[0].startswith("127."):
                raise BenchFailed("A connection to loopback came from elsewhere: no load is sent.")


def is_inside() -> bool:
    """Whether :func:`enter_own_network` has done its work."""
    return _INSIDE in os.environ


def enter_own_network(module: str) -> None:
    """Run this program again in a network namespace of its own, where that is allowed.

    In there is only a loopback interface, so that no load can leave; and no firewall that tracks
    connections, which would be a third of what a small packet costs. Returns when that is done, or
    not allowed: then the machine's own loopback serves. The interface is brought up with
    SIOCSIFFLAGS (netdevice(7)).
    """
    if is_inside():
        with socket.socket() as sock:
            fcntl.ioctl(sock, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
        return
    tried = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if shutil.which("unshare") is None or subprocess.run([*tried, "true"], check=False).returncode:
        print("No network namespace of our own is allowed here: using this machine's loopback.")
        return
    os.environ[_INSIDE] = "1"
    os.execvp("unshare", [*tried, sys.executable, "-m", module, *sys.argv[1:]])  # noqa: S606  ours


def build() -> None:
    """Compile the generator and the limit into the cache folder."""
    BUILT.mkdir(parents=True, exist_ok=True)
    for name in ("load", "limit"):
        done = subprocess.run(
            ["cc", "-O2", "-std=gnu11", "-o", BUILT / name, SOURCES / f"{name}.c"], check=False
        )
        if done.returncode:
            raise BenchFailed(f"{name}.c could not be compiled: the lines above say why.")


def prepare_peers() -> None:
    """Make the peers' own environments when they are missing; Node.js is then in our PATH."""
    lock = SOURCES / "peers" / "requirements.txt"
    environment.tool_venv(PEERS_PYTHON.parent.parent.name, lock, environment.index_environment())
    env = web_build.node_environment()
    stamp = PEERS_NODE / "node_modules" / ".package-lock.json"
    source = SOURCES / "peers" / "package-lock.json"
    copied = PEERS_NODE / "package-lock.json"
    if not stamp.exists() or copied.read_bytes() != source.read_bytes():
        PEERS_NODE.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCES / "peers" / name, PEERS_NODE / name)
        environment.run(
            *("npm", "--prefix", PEERS_NODE, "ci", "--no-audit", "--no-fund", "--loglevel=error"),
            env=env,
        )
    os.environ["PATH"] = env["PATH"]


# --- processes --------------------------------------------------------------------------------


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(words: list[str], *, cpu: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core, ended with the block."""
    guard = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    process = subprocess.Popen(["taskset", "--cpu-list", cpu, *guard, *words], **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tree(pid: int) -> list[int]:
    """``pid`` and its children's, their children's too."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def resident_bytes(pid: int) -> int:
    """The RSS of a process and its children."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children so far (proc(5), stat)."""
    total = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A running server."""

    kind: Kind
    port: int
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


@contextmanager
def server(kind: Kind, redis_port: int, log: IO[bytes]) -> Iterator[Server]:
    """One process of ``kind``, ready."""
    port = free_port()
    five = [str(port), str(redis_port), KEY, SECRET, TOPIC_PREFIX]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DESKLINE")}
    words = {
        "own": lambda: [sys.executable, "-m", "app", "gateway"],
        "c": lambda: [str(BUILT / "limit"), *five],
        "python": lambda: [str(PEERS_PYTHON), str(SOURCES / "peers" / FILES[kind.name]), *five],
        "node": lambda: ["node", str(SOURCES / "peers" / FILES[kind.name]), *five],
    }[kind.language]()
    if kind.language == "node":
        env |= {"NODE_PATH": str(PEERS_NODE / "node_modules"), "NODE_ENV": "production"}
    control = free_port()
    if kind.language == "own":
        env |= {
            "DESKLINE_REDIS_URL": f"redis://{HOST}:{redis_port}/0",
            "DESKLINE_PUSHER_APP_ID": APP_ID,
            "DESKLINE_PUSHER_KEY": KEY,
            "DESKLINE_PUSHER_SECRET": SECRET,
            "DESKLINE_GATEWAY_PORT": str(port),
            "DESKLINE_GATEWAY_CONTROL_PORT": str(control),
            "DESKLINE_DRAIN_SECONDS": "0",
            "DESKLINE_LOG_LEVEL": "warning",
        }
    with running(words, cpu=SERVER_CPU, cwd=ROOT, env=env, stdout=log, stderr=log) as process:
        made = Server(kind, port, process)
        give_up_at = time.monotonic() + START_SECONDS
        while not _answers(made, control):
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise BenchFailed(f"{kind.name} did not start: see {log.name}")
            time.sleep(0.1)
        yield made


def _answers(one: Server, control: int) -> bool:
    try:
        if one.kind.language == "own":
            with urllib.request.urlopen(f"http://{HOST}:{control}/readyz", timeout=2):
                return True
        with socket.create_connection((HOST, one.port), timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


class Generator:
    """One load generator; see the head of load.c for what it can be told."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def tell(self, command: str) -> None:
        """Give a command; :meth:`answer` gives what came of it."""
        assert self._process.stdin is not None  # noqa: S101  made with a pipe
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, seconds: float, meanwhile: Callable[[], None] | None = None) -> dict[str, Any]:
        """The answer to the oldest command that has none; ``meanwhile`` is called while waiting."""
        assert self._process.stdout is not None  # noqa: S101  made with a pipe
        give_up_at = time.monotonic() + seconds
        while not select.select([self._process.stdout], [], [], 0.05)[0]:
            if meanwhile is not None:
                meanwhile()
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise BenchFailed("The load generator ended or hangs.")
        line = self._process.stdout.readline()
        if not line:
            raise BenchFailed("The load generator has ended: see the lines above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(
        self, command: str, seconds: float = 130.0, meanwhile: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.tell(command)
        return self.answer(seconds, meanwhile)


@contextmanager
def generator(target: Server, redis_port: int, number: int = 0) -> Iterator[Generator]:
    """A generator for ``target``; several at once have different numbers."""
    words = [
        *(str(BUILT / "load"), str(target.port), str(redis_port), str(number)),
        *(target.kind.dialect, target.kind.path, KEY, SECRET, TOPIC_PREFIX),
    ]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running(words, cpu=OTHER_CPU, **pipes) as process:
        yield Generator(process)
