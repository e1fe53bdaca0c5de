"""A worker that dies between sending and noting it: the receiver gets the same delivery again."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.test_processes import Cluster, a_message, until

pytestmark = pytest.mark.timeout(120)


def test_killed_between_send_and_mark(tmp_path: Path) -> None:
    got: list[tuple[str, dict[str, Any]]] = []
    killed = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append((self.headers["X-Deskline-Delivery"], body))
            killed.wait(30)  # the first answer comes when nobody waits for it any more
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silence."""

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.daemon_threads = True
    threading.Thread(target=receiver.serve_forever, args=(0.05,), daemon=True).start()
    cluster = Cluster(tmp_path)
    cluster.env["DESKLINE_WEBHOOK_ALLOW_PRIVATE"] = "true"
    try:
        cluster.start_redis()
        cluster.start_web()
        with httpx.Client(base_url=f"{cluster.url}/api/v1", timeout=10) as admin:
            login = {"email": "admin@demo.com", "password": "password123"}
            opened = admin.post("/auth/login", json=login).json()
            made = admin.post(
                "/webhooks",
                json={
                    "name": "kept",
                    "url": f"http://127.0.0.1:{receiver.server_port}/",
                    "events": ["message.created"],
                },
                headers={"X-CSRF-Token": opened["csrf_token"]},
            )
            assert made.status_code == 201, made.text
        visitor = cluster.visitor()
        assert visitor.post("/conversations", json=a_message()).status_code == 201
        visitor.close()
        worker = cluster.start_worker()
        until(lambda: got)
        worker.kill()
        worker.wait()
        killed.set()
        assert cluster.rows("SELECT status, attempts FROM webhook_deliveries") == [("pending", 0)]
        # the dead worker's lock ends by itself
        cluster.start_worker()
        delivered = "SELECT count(*) FROM webhook_deliveries WHERE status = 'delivered'"
        until(lambda: cluster.rows(delivered) == [(1,)], seconds=60)
        assert len(got) == 2
        assert got[0] == got[1]
        assert cluster.rows("SELECT count(*) FROM webhook_events") == [(0,)]
    finally:
        cluster.stop()
        receiver.shutdown()
        receiver.server_close()
