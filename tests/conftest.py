"""A running Deskline for the tests that speak to it from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 15.0
PLACEHOLDERS = (
    "shop/index.html",
    "dashboard/index.html",
    "widget/index.html",
    "docs/index.html",
    "widget.js",
)


@dataclass(frozen=True)
class Deskline:
    """Where it runs, and the demo data's accounts and inbox.

    ``data_dir`` is known only when the tests started the server themselves.
    """

    url: str
    ws_url: str
    email: str = "admin@demo.com"
    password: str = "password123"
    second_email: str = "agent@demo.com"
    inbox_key: str = "demo"
    data_dir: Path | None = None


def free_port() -> int:
    """A port of loopback that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def web_root(folder: Path) -> Path:
    """The built web files, or stand-ins for them where nobody has built them yet."""
    built = ROOT / "web" / "dist"
    if all((built / name).is_file() for name in PLACEHOLDERS):
        return built
    for name in PLACEHOLDERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("<!doctype html><title>not built</title>", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def deskline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deskline]:
    """The deployment that DESKLINE_TEST_URL names, or the embedded mode on free ports."""
    if url := os.environ.get("DESKLINE_TEST_URL"):
        url = url.rstrip("/")
        yield Deskline(url, os.environ.get("DESKLINE_TEST_WS_URL", "ws" + url[4:]))
        return
    with embedded_deskline(tmp_path_factory.mktemp("deskline")) as running:
        yield running


@contextmanager
def embedded_deskline(folder: Path, **settings: str) -> Iterator[Deskline]:
    """An embedded server of its own on free ports; ``settings`` are named without DESKLINE_."""
    port, gateway_port = free_port(), free_port()
    output = folder / "output.txt"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "app", "run", "--api-only"),
                *("--data-dir", str(folder / "data")),
                *("--port", str(port), "--gateway-port", str(gateway_port)),
            ],
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("DESKLINE_")},
                "DESKLINE_WEB_ROOT": str(web_root(folder / "web")),
                # the receivers of the tests listen on loopback
                "DESKLINE_WEBHOOK_ALLOW_PRIVATE": "true",
                **{f"DESKLINE_{name}": value for name, value in settings.items()},
            },
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://localhost:{port}"
        _wait(process, url, output)
        yield Deskline(url, f"ws://localhost:{gateway_port}", data_dir=folder / "data")
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _wait(process: subprocess.Popen[bytes], url: str, output: Path) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    said = output.read_text(errors="replace")
    pytest.fail(f"the server did not start (exit {process.poll()}); it said:\n{said}")
