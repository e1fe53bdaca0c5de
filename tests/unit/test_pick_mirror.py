"""The first mirror of a list that answers is chosen, and the others are named with a reason."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools import pick_mirror

SCRIPT = Path(pick_mirror.__file__)


class Mirror(BaseHTTPRequestHandler):
    """Answers by the first part of the path: up, broken, empty; anything else is absent."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        body = b"" if kind == "empty" else b"a package list"
        self.send_response({"up": 200, "empty": 200, "broken": 500}.get(kind, 404))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def hanging() -> Iterator[str]:
    """A server that takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/up"


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that sends a header byte now and then: each byte would renew a socket's limit."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"z")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/up"
    stop.set()
    listener.close()
    thread.join(2)


@pytest.fixture
def down() -> str:
    """An address where nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/up"


def test_the_first_is_taken_when_it_answers(server: str, down: str) -> None:
    assert pick_mirror.first([f"{server}/up", down], "x") == (f"{server}/up", [])


@pytest.mark.parametrize(
    ("kind", "reason"), [("broken", "500"), ("absent", "404"), ("empty", "empty page")]
)
def test_a_wrong_answer_is_skipped_with_its_reason(server: str, kind: str, reason: str) -> None:
    chosen, skipped = pick_mirror.first([f"{server}/{kind}", f"{server}/up"], "x")
    assert chosen == f"{server}/up"
    assert len(skipped) == 1
    assert f"{server}/{kind}" in skipped[0]
    assert reason in skipped[0]


def test_nothing_listening_is_skipped(server: str, down: str) -> None:
    chosen, skipped = pick_mirror.first([down, f"{server}/up"])
    assert chosen == f"{server}/up"
    assert "refused" in skipped[0]


@pytest.mark.parametrize("kind", ["hanging", "dripping"])
def test_a_server_that_never_finishes_costs_no_more_than_the_limit(
    server: str, kind: str, request: pytest.FixtureRequest
) -> None:
    slow = request.getfixturevalue(kind)
    begun = time.monotonic()
    chosen, skipped = pick_mirror.first([slow, f"{server}/up"], timeout_seconds=0.4)
    assert time.monotonic() - begun < 2
    assert chosen == f"{server}/up"
    assert "no answer within 0.4 s" in skipped[0]


def test_an_unknown_name_is_skipped(server: str) -> None:
    assert pick_mirror.first(["http://mirror.invalid/", f"{server}/up"])[0] == f"{server}/up"


def test_none_reachable_is_one_error_that_names_each_and_a_remedy(server: str, down: str) -> None:
    with pytest.raises(pick_mirror.NoMirrorReachable) as failure:
        pick_mirror.first([down, f"{server}/broken"])
    text = str(failure.value)
    assert down in text
    assert f"{server}/broken" in text
    assert "Check" in text
    assert "\n" not in text


def test_an_empty_list_and_another_scheme_are_said() -> None:
    with pytest.raises(pick_mirror.NoMirrorReachable, match="empty"):
        pick_mirror.first([])
    with pytest.raises(pick_mirror.NoMirrorReachable, match="not an http"):
        pick_mirror.first(["file:///etc"])


def test_a_password_is_not_shown() -> None:
    with pytest.raises(pick_mirror.NoMirrorReachable) as failure:
        pick_mirror.first(["http://somebody:hidden@127.0.0.1:1/x"])
    assert "hidden" not in str(failure.value)


def index(environment: dict[str, str], home: Path) -> str:
    return pick_mirror.python_index(
        {"HOME": str(home), "PIP_CONFIG_FILE": os.devnull, **environment}
    )


@pytest.mark.parametrize("name", ["PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_a_configured_index_wins_without_a_question(name: str, tmp_path: Path) -> None:
    environment = {
        name: "http://127.0.0.1:1/own",
        "DESKLINE_PYTHON_INDEXES": "http://127.0.0.1:1/x",
    }
    assert index(environment, tmp_path) == "http://127.0.0.1:1/own"


def test_pips_own_file_wins_without_a_question(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = http://127.0.0.1:1/from-file\n")
    environment = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(file)}
    assert pick_mirror.configured_python_index(environment) == "http://127.0.0.1:1/from-file"
    assert pick_mirror.configured_python_index({"PIP_CONFIG_FILE": os.devnull}) is None


@pytest.mark.parametrize("separator", [" ", ",", ", ", "\n"])
def test_own_list_replaces_the_built_in_one(
    separator: str, server: str, down: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"DESKLINE_PYTHON_INDEXES": separator.join([down, f"{server}/up"])}
    assert index(environment, tmp_path) == f"{server}/up"
    assert down in capsys.readouterr().err


def test_no_index_names_the_variables_to_set(down: str, tmp_path: Path) -> None:
    with pytest.raises(pick_mirror.NoMirrorReachable, match="DESKLINE_PYTHON_INDEXES"):
        index({"DESKLINE_PYTHON_INDEXES": down}, tmp_path)


def test_the_official_index_comes_first() -> None:
    hosts = [url.split("/")[2] for url in pick_mirror.PYTHON_INDEXES]
    assert hosts == ["pypi.org", "mirrors.aliyun.com", "mirrors.cloud.tencent.com"]


def test_as_a_command_and_from_standard_input(server: str, down: str) -> None:
    arguments = ["first", "--probe", "x", down, f"{server}/up"]
    for command, stdin in (([str(SCRIPT)], None), (["-"], SCRIPT.read_text())):
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{server}/up\n"
        assert done.stderr.startswith(f"skipped {down}: ")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "first", down], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
