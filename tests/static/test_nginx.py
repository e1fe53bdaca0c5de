"""What Nginx asks a second node for, when the first one died with the request."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jinja2
import pytest
import yaml

from app.http import server

ROLE = Path(__file__).resolve().parents[2] / "roles" / "nginx"
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
# an upload that was stored twice is sent once; the rest carries its own key or only moves forward
REPEATED = {
    "POST /api/v1/conversations/{conversation_id}/messages",
    "POST /api/v1/conversations/{conversation_id}/claim",
    "POST /api/v1/conversations/{conversation_id}/read",
    "POST /api/v1/conversations/{conversation_id}/delivered",
    "POST /api/v1/conversations/{conversation_id}/attachments",
    "POST /api/v1/sync",
    "POST /api/v1/widget/session",
    "POST /api/v1/widget/sync",
    "POST /api/v1/widget/conversations",
    "POST /api/v1/widget/conversations/{conversation_id}/messages",
    "POST /api/v1/widget/conversations/{conversation_id}/read",
    "POST /api/v1/widget/conversations/{conversation_id}/delivered",
    "POST /api/v1/widget/conversations/{conversation_id}/attachments",
    "POST /broadcasting/auth",
}


def rendered(**variables: Any) -> str:
    """The configuration as the role writes it."""
    environment = jinja2.Environment(  # noqa: S701  no HTML
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    values = {
        "ansible_managed": "test",
        "nginx_web_nodes": ["127.0.0.1:8000"],
        "nginx_gateway_nodes": ["127.0.0.1:8080"],
        "nginx_websocket_origin": "ws://127.0.0.1",
        **yaml.safe_load((ROLE / "vars" / "main.yml").read_text()),
        **yaml.safe_load((ROLE / "defaults" / "main.yml").read_text()),
        **variables,
    }
    return environment.get_template("nginx.conf.j2").render(values)


def test_only_what_may_be_done_twice_is_asked_of_a_second_node() -> None:
    blocks = re.findall(r"location (=|~|) ?(\S+) \{\n(.*?)\n        \}", rendered(), re.DOTALL)
    exact = {path: block for kind, path, block in blocks if kind == "="}
    patterns = [(re.compile(path), block) for kind, path, block in blocks if kind == "~"]
    prefixes = {path: block for kind, path, block in blocks if not kind}

    def block_of(path: str) -> str:
        if path in exact:
            return exact[path]
        found = [block for pattern, block in patterns if pattern.search(path)]
        return found[0] if found else prefixes["/api/"]

    repeated = {
        f"{each.method} {each.path}"
        for each in server.endpoints()
        if each.method in {"POST", "PATCH"}
        and "non_idempotent" in block_of(re.sub(r"\{[^}]*\}", "1", each.path))
    }
    assert repeated == REPEATED


class Node(ThreadingHTTPServer):
    """A web node; one that dies closes the connection when it has read the request."""

    daemon_threads = True

    def __init__(self, *, dies: bool, asked: Counter[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dies = dies
        self.asked = asked


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        node = self.server
        assert isinstance(node, Node)
        self.rfile.read(int(self.headers["Content-Length"]))
        node.asked[self.path] += 1
        if node.dies:
            self.close_connection = True
            return
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def nginx(folder: Path, nodes: list[str]) -> Iterator[str]:
    """Nginx with the role's configuration, on loopback and with its files in ``folder``."""
    assert NGINX is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = rendered(
        nginx_web_nodes=nodes,
        nginx_listen_address="127.0.0.1",
        nginx_http_port=port,
        nginx_worker_processes=1,
        nginx_worker_connections=100,
        nginx_max_fails=0,
        __nginx_pid_file=f"{folder}/nginx.pid",
        __nginx_log_folder=str(folder),
    )
    assert "user www-data;" in text
    text = text.replace("user www-data;", "")
    config = folder / "nginx.conf"
    config.write_text(text)
    command = [NGINX, "-e", f"{folder}/error.log", "-c", str(config)]
    subprocess.run([*command, "-t"], check=True, timeout=20)
    process = subprocess.Popen([*command, "-g", "daemon off;"])
    try:
        give_up_at = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < give_up_at
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.skipif(NGINX is None, reason="no nginx on this computer")
def test_a_request_that_a_node_died_with(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()
    nodes = [Node(dies=dies, asked=asked) for dies in (True, False)]
    for node in nodes:
        threading.Thread(target=node.serve_forever, daemon=True).start()
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        refusing = gone.getsockname()[1]
    try:
        ports = [node.server_address[1] for node in nodes]
        with nginx(tmp_path, [f"127.0.0.1:{port}" for port in ports]) as url:
            for path in ("conversations/7/messages", "widget/session", "conversations/7/claim"):
                answers = {httpx.post(f"{url}/api/v1/{path}", json={}).status_code for _ in "1234"}
                assert answers == {201}, path
                assert asked[f"/api/v1/{path}"] > 4, "the first node was asked too"
            for path in ("api-keys", "me/password", "auth/login"):
                statuses = [httpx.post(f"{url}/api/v1/{path}", json={}).status_code for _ in "1234"]
                assert set(statuses) == {201, 503}, path
                assert asked[f"/api/v1/{path}"] == 4, "none was asked for twice"
        # a node that took nothing is passed over
        asked.clear()
        with nginx(tmp_path, [f"127.0.0.1:{port}" for port in (refusing, ports[1])]) as url:
            for _ in range(4):
                assert httpx.post(f"{url}/api/v1/api-keys", json={}).status_code == 201
    finally:
        for node in nodes:
            node.shutdown()
            node.server_close()
