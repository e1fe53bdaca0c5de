"""The embedded mode: everything that a cluster has on other machines, on this one.

A private Redis on a loopback port (``redis-server`` when it is installed, else the TCP server of
the fakeredis library), SQLite, and secrets that are made once. The rest is the same code.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app import config
from app.serving import StartError

SECRETS_FILE: Final = "secrets.env"
DATABASE_FILE: Final = "deskline.db"
LOG_FILE: Final = "deskline.log"
REDIS_START_SECONDS: Final = 5.0
_PAGES: Final = ("shop/index.html", "dashboard/index.html", "widget/index.html", "widget.js")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the embedded mode keeps its things and listens."""

    data_dir: Path
    port: int
    gateway_port: int


@contextmanager
def data_dir(path: Path) -> Iterator[Path]:
    """The data folder, made when missing and locked against a second run.

    Raises :class:`StartError` when it cannot be written or is in use.
    """
    path = path.resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (path / "run.lock").open("w")
    except OSError as error:
        raise StartError(
            f"Cannot write to the data folder {path} ({error.strerror}): "
            "make it writable for this user or choose another one with --data-dir."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"Another Deskline already uses the data folder {path}: "
                "stop that one or choose another folder with --data-dir."
            ) from None
        yield path


def environment(place: Place, redis_url: str, outer: Mapping[str, str]) -> dict[str, str]:
    """The settings of the embedded mode over those of ``outer``."""
    return {
        "DESKLINE_PUBLIC_URL": f"http://localhost:{place.port}",
        "DESKLINE_WS_PUBLIC_URL": f"ws://localhost:{place.gateway_port}",
        "DESKLINE_DRAIN_SECONDS": "1",
        **outer,
        **_secrets(place.data_dir),
        "DESKLINE_ENV": "demo",
        "DESKLINE_DATABASE_URL": f"sqlite:///{place.data_dir / DATABASE_FILE}",
        "DESKLINE_DATABASE_REPLICA_URL": "",
        "DESKLINE_REDIS_URL": redis_url,
        "DESKLINE_WEB_PORT": str(place.port),
        "DESKLINE_GATEWAY_PORT": str(place.gateway_port),
        "DESKLINE_DATA_DIR": str(place.data_dir),
    }


def check_web_files(web_root: Path) -> None:
    """Raise :class:`StartError` when the built web files are missing."""
    missing = [name for name in _PAGES if not (web_root / name).is_file()]
    if missing:
        raise StartError(
            f"The built web files are missing in {web_root.resolve()} ({missing[0]}): "
            "run `make run`, which builds them, or name their folder in DESKLINE_WEB_ROOT."
        )


def _secrets(folder: Path) -> dict[str, str]:
    """The secrets of this data folder; made at the first start, readable only by the owner."""
    path = folder / SECRETS_FILE
    if not path.exists():
        made = {
            "DESKLINE_SECRET_KEY": secrets.token_urlsafe(48),
            "DESKLINE_PUSHER_APP_ID": "deskline",
            "DESKLINE_PUSHER_KEY": secrets.token_hex(10),
            "DESKLINE_PUSHER_SECRET": secrets.token_hex(20),
        }
        text = "".join(f'{name}="{value}"\n' for name, value in made.items())
        unfinished = path.with_suffix(".tmp")
        unfinished.touch(mode=0o600)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    return config.parse_env_file(path.read_text(encoding="utf-8"))


@contextmanager
def private_redis(folder: Path) -> Iterator[str]:
    """A Redis of our own for as long as the block runs; gives its URL."""
    program = shutil.which("redis-server")
    serve = _redis_server(program, folder) if program else _fake_redis()
    with serve as port:
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _redis_server(program: str, folder: Path) -> Iterator[int]:
    port = _free_port()
    # setpriv ends the server when this process is killed, so that no orphan stays behind
    guard = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    arguments = [
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
        *("--save", "", "--appendonly", "no", "--daemonize", "no"),
    ]
    process = subprocess.Popen(  # noqa: S603  the arguments are ours
        [*guard, program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C goes to the whole foreground group: Redis must outlive our drain
        start_new_session=True,
    )
    try:
        _wait_for_redis(process, port)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_redis(process: subprocess.Popen[bytes], port: int) -> None:
    give_up_at = time.monotonic() + REDIS_START_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return
        time.sleep(0.02)
    raise StartError(
        "The private redis-server did not start: run `redis-server --version` to see why, "
        "or remove it, and the built-in one is used."
    )


@contextmanager
def _fake_redis() -> Iterator[int]:
    # imported here: only this mode needs it, and it takes a quarter of a second
    from fakeredis import TcpFakeServer  # noqa: PLC0415  only without a redis-server

    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="redis", daemon=True
    )
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
