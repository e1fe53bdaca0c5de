"""A real MySQL primary with a real replica, migrated; see tools/private_mysql.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app import embedded
from app.db import migrate
from tests.conftest import ROOT, START_SECONDS, STOP_SECONDS, Deskline, free_port
from tests.unit.conftest import SECRETS
from tools import private_mysql
from tools.private_mysql import Servers


@pytest.fixture(scope="session")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One primary and one replica for all tests; a test that disturbs them puts them right."""
    folder = tmp_path_factory.mktemp("mysql") / "servers"
    with private_mysql.servers(folder, replica=True) as servers:
        migrate.upgrade(servers.primary.url("migrate"), say=lambda _line: None)
        servers.catch_up()
        yield servers


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded.private_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


class Web:
    """A web process, as a node of a cluster runs it."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, output: Path) -> None:
        self.process = process
        self.url = url
        self.output = output
        self.deskline = Deskline(url, "")

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series; 0 when there is none yet."""
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        text = httpx.get(f"{self.url}/metrics", timeout=5).text
        for line in text.splitlines():
            found = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name:
                given = ",".join(sorted((found[2] or "").split(","))) if found[2] else ""
                if given == wanted:
                    return float(found[3])
        return 0.0


def environment(mysql: Servers, redis_url: str, *, replica: bool = True) -> dict[str, str]:
    """The settings of a node."""
    env = {
        **{name: value for name, value in os.environ.items() if "DESKLINE" not in name},
        **SECRETS,
        "DESKLINE_ENV": "demo",
        "DESKLINE_DATABASE_URL": mysql.primary.url("app"),
        "DESKLINE_REDIS_URL": redis_url,
        "DESKLINE_DRAIN_SECONDS": "10",
        "DESKLINE_RATE_LIMITS": "observe",
    }
    if replica and mysql.replica is not None:
        env["DESKLINE_DATABASE_REPLICA_URL"] = mysql.replica.url("app")
    return env


@contextmanager
def web_process(env: dict[str, str], folder: Path) -> Iterator[Web]:
    """A running web process with these settings, on a port of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    port, output = free_port(), folder / "web.txt"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "web"],
            cwd=ROOT,
            env={**env, "DESKLINE_WEB_PORT": str(port), "DESKLINE_WEB_HOST": "127.0.0.1"},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    web = Web(process, f"http://127.0.0.1:{port}", output)
    try:
        give_up_at = time.monotonic() + START_SECONDS
        while True:
            try:
                if httpx.get(f"{web.url}/healthz", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.monotonic() > give_up_at:
                pytest.fail(f"the web process did not start:\n{output.read_text()}")
            time.sleep(0.05)
        yield web
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@pytest.fixture(scope="session")
def demo(mysql: Servers, redis_url: str) -> None:
    """The demo accounts and the demo inbox."""
    subprocess.run(
        [sys.executable, "-m", "app", "demo"],
        cwd=ROOT,
        env=environment(mysql, redis_url),
        check=True,
        timeout=60,
    )
    mysql.catch_up()


@pytest.fixture
def web(mysql: Servers, redis_url: str, demo: None, tmp_path: Path) -> Iterator[Web]:
    """A web process with primary and replica."""
    with web_process(environment(mysql, redis_url), tmp_path) as running:
        yield running
