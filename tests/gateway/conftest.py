"""A Redis, a gateway process and a small client for the tests of this folder."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import redis
import websockets
from websockets.asyncio.client import ClientConnection

from app import config
from app.gateway import pusher
from app.gateway.applications import Application
from tests.conftest import ROOT, START_SECONDS

APPLICATION = Application("app1", "key1", b"a-secret-for-tests-only", client_events=True)
FAKE_REDIS = """
import sys
from fakeredis import TcpFakeServer
TcpFakeServer.allow_reuse_address = True
TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="redis").serve_forever()
"""


def free_port() -> int:
    """A port of loopback that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until ``condition()`` is true; it is asked every 20 ms."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"this did not become true within {seconds} s")


def node_modules(package: str) -> str:
    """The folder of node modules that has ``package``; skips, under CI fails, when none has."""
    folders = [str(ROOT / "web" / "node_modules"), *os.environ.get("NODE_PATH", "").split(":")]
    for folder in folders:
        if folder and (Path(folder) / package).is_dir() and shutil.which("node"):
            return folder
    reason = f"{package} or node is not installed: run `npm ci` in web/ first"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    """Send a signal to a process of ours and wait for its end; gives its exit code."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        return process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
        raise


class RedisServer:
    """A redis-server of our own, or fakeredis' TCP server where none is installed."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(port=self.port, socket_timeout=5)

    @property
    def is_fake(self) -> bool:
        return shutil.which("redis-server") is None or bool(os.environ.get("DESKLINE_FAKE_REDIS"))

    def start(self) -> Self:
        if self.is_fake:
            words = [sys.executable, "-c", FAKE_REDIS, str(self.port)]
        else:
            words = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
            words += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.client.ping()
            except redis.RedisError:
                assert time.monotonic() < deadline, "Redis did not start"
                time.sleep(0.05)
            else:
                return self

    def stop(self) -> None:
        self.client.close()
        if self._process is not None:
            stop(self._process, signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the server's process."""
        assert self._process is not None
        self._process.send_signal(number)

    def publish(self, channel: str, message: bytes, *, excluded: str = "") -> int:
        """Publish as Deskline does; gives how many gateways got it."""
        topic = f"deskline:ch:{APPLICATION.id}:{channel}"
        count = self.client.publish(topic, excluded.encode() + b"\n" + message)
        assert isinstance(count, int)
        return count


class Gateway:
    """A process ``python -m app gateway``."""

    def __init__(self, redis_url: str, folder: Path, *, drain_seconds: int = 3) -> None:
        self.port, self.control_port = free_port(), free_port()
        self.url = f"ws://127.0.0.1:{self.port}/app/{APPLICATION.key}?protocol=7&client=test"
        self.control = f"http://127.0.0.1:{self.control_port}"
        self.env = {
            **{name: value for name, value in os.environ.items() if name[:9] != config.PREFIX},
            "DESKLINE_REDIS_URL": redis_url,
            "DESKLINE_PUSHER_APP_ID": APPLICATION.id,
            "DESKLINE_PUSHER_KEY": APPLICATION.key,
            "DESKLINE_PUSHER_SECRET": APPLICATION.secret.decode(),
            "DESKLINE_GATEWAY_PORT": str(self.port),
            "DESKLINE_GATEWAY_CONTROL_PORT": str(self.control_port),
            "DESKLINE_DRAIN_SECONDS": str(drain_seconds),
            "DESKLINE_NODE": "test-node",
        }
        self.log_file = folder / f"gateway-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> Self:
        """Start and wait until it answers, with ``ready`` until /readyz is 200."""
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "gateway"],
                cwd=ROOT,
                env=self.env,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                status = httpx.get(f"{self.control}/readyz").status_code
            except httpx.HTTPError:
                status = 0
            if status == 200 or (status and not ready):
                return self
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"the gateway did not start:\n{self.log_file.read_text()}")
            time.sleep(0.05)

    def stop(self) -> int:
        assert self.process is not None
        return stop(self.process)

    def get(self, path: str) -> httpx.Response:
        """GET on the control port."""
        return httpx.get(f"{self.control}{path}")

    def events(self) -> list[dict[str, Any]]:
        """The lines of its log; each of them must be JSON."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    async def connect(self, **options: Any) -> Client:
        """A client that is connected and knows its socket id."""
        websocket = await websockets.connect(self.url, compression=None, **options)
        client = Client(websocket)
        established = await client.receive()
        assert established["event"] == "pusher:connection_established"
        client.socket_id = json.loads(established["data"])["socket_id"]
        return client


class Client:
    """A Pusher client, as small as can be."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.socket_id = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.websocket.close()

    async def send(self, event: str, data: object) -> None:
        await self.websocket.send(json.dumps({"event": event, "data": data}))

    async def receive_bytes(self) -> bytes:
        return await self.websocket.recv(decode=False)

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.receive_bytes())
        return message

    async def subscribe(self, channel: str) -> None:
        """Subscribe with a right signature and wait until the events flow."""
        auth = pusher.sign_channel(APPLICATION, self.socket_id, channel)
        await self.send("pusher:subscribe", {"channel": channel, "auth": auth})
        answer = await self.receive()
        assert answer == {
            "event": "pusher_internal:subscription_succeeded",
            "channel": channel,
            "data": "{}",
        }

    async def unsubscribe(self, channel: str) -> None:
        await self.send("pusher:unsubscribe", {"channel": channel})
        await self.expect_nothing()

    async def expect_nothing(self) -> None:
        """Whatever was sent to us before is here; there must be nothing."""
        await self.send("pusher:ping", {})
        assert await self.receive() == {"event": "pusher:pong", "data": {}}


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gateway(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway that tests share; none may leave it broken."""
    running = Gateway(redis_server.url, tmp_path_factory.mktemp("gateway")).start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def own_gateway(redis_server: RedisServer, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway of the test's own, to be stopped by it."""
    running = Gateway(redis_server.url, tmp_path).start()
    yield running
    running.stop()


@pytest.fixture
def settings() -> config.Settings:
    """Settings for parts that are tested without a process."""
    return config.load(
        "gateway",
        {
            "DESKLINE_REDIS_URL": "redis://127.0.0.1:1/0",
            "DESKLINE_PUSHER_APP_ID": APPLICATION.id,
            "DESKLINE_PUSHER_KEY": APPLICATION.key,
            "DESKLINE_PUSHER_SECRET": APPLICATION.secret.decode(),
        },
    )
