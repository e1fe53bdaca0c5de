"""Real web and worker processes: Redis goes and comes back, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from app.db import migrate
from tests.conftest import ROOT, free_port
from tests.unit.conftest import SECRETS

FAKE_REDIS = """
import sys
from fakeredis import TcpFakeServer
TcpFakeServer.allow_reuse_address = True
server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="redis")
server.daemon_threads = True
server.serve_forever(poll_interval=0.05)
"""

pytestmark = pytest.mark.timeout(120)


class Cluster:
    """A web node, a worker and a Redis, each a process that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "deskline.db"
        self.web_port, self.worker_port, self.redis_port = (free_port() for _ in range(3))
        self.url = f"http://127.0.0.1:{self.web_port}"
        self.env = {
            **{name: value for name, value in os.environ.items() if "DESKLINE" not in name},
            **SECRETS,
            "DESKLINE_DATABASE_URL": f"sqlite:///{self.database}",
            "DESKLINE_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "DESKLINE_ENV": "demo",
            "DESKLINE_WEB_PORT": str(self.web_port),
            "DESKLINE_WORKER_PORT": str(self.worker_port),
            "DESKLINE_DRAIN_SECONDS": "10",
        }
        migrate.upgrade(f"sqlite:///{self.database}", say=print)
        self.run("demo")
        self.started: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "app", *arguments], cwd=ROOT, env=self.env, check=True
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{arguments[-1][-20:]}.log").open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        self.started.append(process)
        return process

    def start_web(self) -> subprocess.Popen[bytes]:
        process = self.start("-m", "app", "web")
        self.wait_for(self.url)
        return process

    def start_worker(self) -> subprocess.Popen[bytes]:
        process = self.start("-m", "app", "worker")
        self.wait_for(f"http://127.0.0.1:{self.worker_port}")
        return process

    def start_redis(self) -> subprocess.Popen[bytes]:
        process = self.start("-c", FAKE_REDIS, str(self.redis_port))
        client = redis.Redis(port=self.redis_port)
        until(lambda: answers(client))
        client.close()
        return process

    def wait_for(self, url: str) -> None:
        def ready() -> bool:
            try:
                return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
            except httpx.HTTPError:
                return False

        until(ready)

    def visitor(self) -> httpx.Client:
        http = httpx.Client(base_url=f"{self.url}/api/v1/widget", timeout=10)
        opened = http.post("/session", json={"inbox_key": "demo"}).json()
        http.headers["Authorization"] = f"Bearer {opened['visitor_token']}"
        return http

    def rows(self, statement: str) -> list[Any]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def stop(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait until ``condition()`` is true; it is asked every 50 ms."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"did not become true within {seconds} s"
        time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.stop()


def a_message() -> dict[str, str]:
    return {"client_id": str(uuid.uuid4()), "body": "hello"}


def test_redis_may_vanish(cluster: Cluster) -> None:
    server = cluster.start_redis()
    cluster.start_web()
    cluster.start_worker()
    visitor = cluster.visitor()
    started = visitor.post("/conversations", json=a_message())
    conversation_id = started.json()["conversation"]["id"]

    server.kill()
    server.wait()
    slowest = 0.0
    for _ in range(10):
        begun = time.monotonic()
        sent = visitor.post(f"/conversations/{conversation_id}/messages", json=a_message())
        slowest = max(slowest, time.monotonic() - begun)
        assert sent.status_code == 201
    assert slowest < 2, "the ack waited for Redis"
    login = {"email": "admin@demo.com", "password": "password123"}
    answer = httpx.post(f"{cluster.url}/api/v1/auth/login", json=login, timeout=10)
    assert answer.status_code == 200
    assert httpx.get(f"{cluster.url}/readyz").status_code == 200
    messages = "SELECT count(*) FROM outbox WHERE message LIKE '%message.created%'"
    until(lambda: cluster.rows(messages) == [(10,)])

    cluster.start_redis()
    until(lambda: cluster.rows("SELECT count(*) FROM outbox") == [(0,)])
    listener = redis.Redis(port=cluster.redis_port).pubsub()
    listener.subscribe(f"deskline:ch:app1:private-conversation.{conversation_id}")
    listener.get_message(timeout=5)

    def heard() -> bool:
        visitor.post(f"/conversations/{conversation_id}/messages", json=a_message())
        return listener.get_message(ignore_subscribe_messages=True, timeout=1) is not None

    until(heard)
    listener.close()
    visitor.close()


def test_a_stopped_node_has_stored_what_it_acknowledged(cluster: Cluster) -> None:
    # six threads of one address send as fast as they can
    cluster.env["DESKLINE_RATE_LIMITS"] = "observe"
    cluster.start_redis()
    web = cluster.start_web()
    acknowledged: list[str] = []
    refused: list[str] = []

    def send() -> None:
        visitor = cluster.visitor()
        try:
            while True:
                message = a_message()
                answer = visitor.post("/conversations", json=message)
                if answer.status_code not in (200, 201):
                    refused.append(answer.text)
                    return
                acknowledged.append(message["client_id"])
        except httpx.TransportError:
            return  # the connection was closed: not acknowledged

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 50)
    begun = time.monotonic()
    web.send_signal(signal.SIGTERM)
    assert web.wait(20) == 0
    assert time.monotonic() - begun < 10
    for thread in threads:
        thread.join(20)
    stored = {row[0] for row in cluster.rows("SELECT client_id FROM messages")}
    assert set(acknowledged) <= stored
    assert refused == []
    log = (cluster.folder / "web.log").read_text(encoding="utf-8")
    assert "stopped" in log.splitlines()[-1]
    assert "Traceback" not in log


def test_a_draining_node_says_so_and_finishes_what_it_began(cluster: Cluster) -> None:
    cluster.start_redis()
    web = cluster.start_web()
    visitor = cluster.visitor()
    other = httpx.Client(base_url=cluster.url, timeout=10)
    assert other.get("/readyz").headers["Connection"] == "keep-alive"
    blocker = sqlite3.connect(cluster.database, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    answers_seen: list[httpx.Response] = []
    sender = threading.Thread(
        target=lambda: answers_seen.append(visitor.post("/conversations", json=a_message()))
    )
    sender.start()
    time.sleep(0.5)
    web.send_signal(signal.SIGTERM)
    until(lambda: httpx.get(f"{cluster.url}/readyz").json()["status"] == "draining", 5)
    draining = other.get("/readyz")
    assert draining.status_code == 503
    assert draining.headers["Connection"] == "close"
    assert web.poll() is None
    blocker.execute("ROLLBACK")
    blocker.close()
    sender.join(20)
    assert [answer.status_code for answer in answers_seen] == [201]
    assert web.wait(20) == 0
    visitor.close()
    other.close()


def test_a_killed_node_has_stored_what_it_acknowledged(cluster: Cluster) -> None:
    cluster.start_redis()
    web = cluster.start_web()
    visitor = cluster.visitor()
    acknowledged = []
    for _ in range(20):
        message = a_message()
        assert visitor.post("/conversations", json=message).status_code == 201
        acknowledged.append(message["client_id"])
    web.kill()
    web.wait()
    stored = {row[0] for row in cluster.rows("SELECT client_id FROM messages")}
    assert set(acknowledged) == stored
    visitor.close()


def test_the_log_tells_who_asked_but_no_secret(cluster: Cluster) -> None:
    cluster.env["DESKLINE_TRUSTED_PROXIES"] = "127.0.0.0/8"
    cluster.start_redis()
    web = cluster.start_web()
    visitor = cluster.visitor()
    token = visitor.headers["Authorization"].split()[1]
    body = {"client_id": str(uuid.uuid4()), "body": "my card is 4111"}
    visitor.post("/conversations", json=body, headers={"X-Forwarded-For": "203.0.113.9"})
    login = {"email": "admin@demo.com", "password": "wrong-password-here"}
    httpx.post(f"{cluster.url}/api/v1/auth/login", json=login)
    visitor.close()
    web.send_signal(signal.SIGTERM)
    web.wait(20)
    log = (cluster.folder / "web.log").read_text(encoding="utf-8")
    assert '"remote_addr":"203.0.113.9"' in log
    assert '"user":"visitor:' in log
    for secret in ("4111", token, "wrong-password-here", SECRETS["DESKLINE_SECRET_KEY"]):
        assert secret not in log


def test_a_taken_port_is_one_sentence(cluster: Cluster) -> None:
    cluster.start_redis()
    cluster.start_web()
    second = subprocess.run(
        [sys.executable, "-m", "app", "web"],
        cwd=ROOT,
        env=cluster.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 2
    assert f"Port {cluster.web_port} on 127.0.0.1 is taken" in second.stderr
    assert "DESKLINE_WEB_PORT" in second.stderr
    assert "Traceback" not in second.stderr
