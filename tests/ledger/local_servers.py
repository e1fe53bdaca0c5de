"""Web, gateway, worker and Redis as processes of this computer, to be killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx

from bench.faults import Fault
from tests.conftest import ROOT, free_port, web_root

START_SECONDS = 60.0


class Balancer:
    """Connections in turn to the web processes that accept them, as Nginx does for requests."""

    def __init__(self, ports: list[int]) -> None:
        self.port = free_port()
        self._ports = ports
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._work, daemon=True)
        listening = threading.Event()
        self._listening = listening
        self._thread.start()
        assert listening.wait(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(
            asyncio.start_server(self._carry, "127.0.0.1", self.port, backlog=1024)
        )
        self._listening.set()
        self._loop.run_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self._ports:
            self._turn += 1
            port = self._ports[self._turn % len(self._ports)]
            with suppress(OSError):
                theirs, ours = await asyncio.open_connection("127.0.0.1", port)
                break
        else:
            writer.close()
            return
        await asyncio.gather(self._pipe(reader, ours), self._pipe(theirs, writer))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


class LocalServers:
    """The processes by name: redis, web1 …, gateway, worker. Without a URL: one SQLite file."""

    def __init__(
        self, folder: Path, *, webs: int = 1, database_url: str = "", replica_url: str = ""
    ) -> None:
        self.database_url = database_url or f"sqlite:///{folder}/deskline.db"
        self.webs = [f"web{number + 1}" for number in range(webs)]
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = {
            name: free_port() for name in (*self.webs, "gateway", "control", "worker", "redis")
        }
        self._balancer = Balancer([self._ports[name] for name in self.webs])
        self.url = f"http://127.0.0.1:{self._balancer.port}"
        self._env = {
            **{name: value for name, value in os.environ.items() if name[:9] != "DESKLINE_"},
            "DESKLINE_ENV": "demo",
            "DESKLINE_DATABASE_URL": self.database_url,
            "DESKLINE_DATABASE_REPLICA_URL": replica_url,
            "DESKLINE_REDIS_URL": f"redis://127.0.0.1:{self._ports['redis']}/0",
            "DESKLINE_SECRET_KEY": "a-secret-key-for-tests-only-that-is-long-enough",
            "DESKLINE_PUSHER_APP_ID": "ledger",
            "DESKLINE_PUSHER_KEY": "ledger-key",
            "DESKLINE_PUSHER_SECRET": "a-secret-for-tests-only",
            "DESKLINE_PUBLIC_URL": self.url,
            "DESKLINE_WS_PUBLIC_URL": f"ws://127.0.0.1:{self._ports['gateway']}",
            "DESKLINE_GATEWAY_PORT": str(self._ports["gateway"]),
            "DESKLINE_GATEWAY_CONTROL_PORT": str(self._ports["control"]),
            "DESKLINE_WORKER_PORT": str(self._ports["worker"]),
            "DESKLINE_WEB_ROOT": str(web_root(folder / "web")),
        }

    def command(self, *words: str) -> None:
        """Run ``python -m app …`` to its end."""
        subprocess.run(
            [sys.executable, "-m", "app", *words], cwd=ROOT, env=self._env, timeout=60, check=True
        )

    def start_all(self) -> None:
        """Start everything and wait until it is ready."""
        for name in ("redis", *self.webs, "gateway", "worker"):
            self.start(name)
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            assert time.monotonic() < deadline, f"not ready; see the logs in {self._folder}"
            time.sleep(0.1)

    def start(self, name: str) -> None:
        """Start one, unless it runs."""
        running = self._processes.get(name)
        if running is not None and running.poll() is None:
            return
        words = [sys.executable, "-m", "app", name.rstrip("123456789")]
        env = self._env
        if name in self.webs:
            env = env | {"DESKLINE_WEB_PORT": str(self._ports[name]), "DESKLINE_NODE": name}
        if name == "redis":
            words = ["redis-server", "--port", str(self._ports["redis"]), "--bind", "127.0.0.1"]
            words += ["--save", "", "--dir", str(self._folder)]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                words, cwd=ROOT, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def kill(self, name: str) -> None:
        """kill -9."""
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes[name].wait(10)

    def ready(self) -> bool:
        """Whether every process says that it may get traffic."""
        try:
            return all(
                httpx.get(f"http://127.0.0.1:{self._ports[name]}/readyz", timeout=2).is_success
                for name in (*self.webs, "control", "worker")
            )
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """Kill everything."""
        for process in self._processes.values():
            process.kill()
            process.wait(10)
        self._balancer.close()

    def killed(self, *names: str, outage_seconds: float) -> Fault:
        """The fault that these processes are killed at once, and started after a while."""

        def kill() -> None:
            for name in names:
                self.kill(name)

        def start() -> None:
            for name in names:
                self.start(name)

        words = f"{' and '.join(names)} killed with -9"
        return Fault(words, kill, start, self.ready, outage_seconds)


def made(
    folder: Path, *, webs: int = 1, database_url: str = "", replica_url: str = ""
) -> Iterator[LocalServers]:
    """Running servers with the demo data, for a fixture to yield from. The schema is there."""
    servers = LocalServers(folder, webs=webs, database_url=database_url, replica_url=replica_url)
    try:
        if not database_url:
            servers.command("migrate")
        servers.command("demo")
        servers.start_all()
        yield servers
    finally:
        servers.stop()
