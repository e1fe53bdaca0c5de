"""`make run` as a newcomer meets it: a fresh clone, the second start, the refusals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
FRESH_SECONDS = 120
AGAIN_SECONDS = 5
STOP_SECONDS = 10
# A newcomer's shell: `make test`, which runs this, must not show through.
SHELL_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"MAKELEVEL", "MAKEFLAGS", "MFLAGS"}
}

pytestmark = pytest.mark.timeout(420)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Run:
    """One `make run`: its process group, its output, and how long it took to come up."""

    def __init__(self, clone: Path, **variables: str) -> None:
        self.port, self.gateway_port = free_port(), free_port()
        path = variables.pop("PATH", os.environ["PATH"])
        arguments = {"PORT": str(self.port), "GATEWAY_PORT": str(self.gateway_port)} | variables
        self.log = clone / "make-run.log"
        self.begun = time.monotonic()
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                ["make", "run", *(f"{name}={value}" for name, value in arguments.items())],
                cwd=clone,
                env=SHELL_ENVIRONMENT | {"PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_running(self, limit_seconds: float) -> float:
        """Seconds from the start until the addresses are printed; fails beyond the limit."""
        while time.monotonic() - self.begun < limit_seconds:
            if "API documentation" in self.output:
                return time.monotonic() - self.begun
            if self.process.poll() is not None:
                pytest.fail(f"make run ended with {self.process.returncode}:\n{self.output}")
            time.sleep(0.05)
        pytest.fail(f"not running after {limit_seconds} s:\n{self.output}")

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the whole foreground group, as a terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=STOP_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of HEAD in an empty folder."""
    folder = tmp_path_factory.mktemp("newcomer") / "deskline"
    subprocess.run(["git", "clone", "--quiet", f"file://{ROOT}", folder], check=True)
    return folder


@pytest.fixture
def started() -> Iterator[list[Run]]:
    """The runs that a test made; whatever still runs is stopped at its end."""
    runs: list[Run] = []
    yield runs
    for run in runs:
        run.close()


def test_fresh_clone_runs_within_two_minutes_and_again_within_five_seconds(
    clone: Path, started: list[Run]
) -> None:
    fresh = Run(clone)
    started.append(fresh)
    took = fresh.wait_until_running(FRESH_SECONDS)
    print(f"\nfresh clone: running after {took:.1f} s (limit {FRESH_SECONDS})")
    base = f"http://localhost:{fresh.port}"
    lines = fresh.output.splitlines()
    shown = [line.split() for line in lines[lines.index("Deskline is running (Ctrl-C stops it)") :]]
    assert shown[1][-1] == f"{base}/"
    assert shown[2][2:] == [f"{base}/login", "admin@demo.com", "/", "password123"]
    assert shown[3][-1] == f"{base}/docs"
    for path in ("/", "/login", "/docs", "/widget.js", "/openapi.json"):
        assert httpx.get(base + path, follow_redirects=True).status_code == 200, path
    fresh.interrupt()
    assert "Traceback" not in fresh.output
    for port in (fresh.port, fresh.gateway_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, "still listening after Ctrl-C"

    again = Run(clone)
    started.append(again)
    took = again.wait_until_running(AGAIN_SECONDS)
    print(f"second start: running after {took:.1f} s (limit {AGAIN_SECONDS})")
    again.interrupt()
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert status.stdout.replace("?? make-run.log\n", "") == "", (
        "git ignores all that make run made"
    )


def refusal(clone: Path, *arguments: str, **env: str) -> str:
    """What `make run` prints on stderr when it refuses, without make's own closing line."""
    done = subprocess.run(
        ["make", "run", *arguments],
        cwd=clone,
        env=SHELL_ENVIRONMENT | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_taken_port_is_one_sentence(clone: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        assert port in refusal(clone, f"PORT={port}", f"GATEWAY_PORT={free_port()}")
        assert port in refusal(clone, f"PORT={free_port()}", f"GATEWAY_PORT={port}")


def test_unwritable_data_folder_is_one_sentence(clone: Path) -> None:
    sentence = refusal(
        clone, f"PORT={free_port()}", f"GATEWAY_PORT={free_port()}", "DATA_DIR=/proc/deskline"
    )
    assert "/proc/deskline" in sentence


def test_old_python_is_one_sentence(clone: Path, tmp_path: Path) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (tmp_path / name).write_text(
            "#!/bin/sh\nexit 1\n"
        )  # as `python3 -c 'version check'` of 3.9
        (tmp_path / name).chmod(0o755)
    sentence = refusal(clone, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert re.search(r"Python 3\.11 or newer", sentence)


def test_node_comes_from_a_wheel_when_the_machine_has_none(
    tmp_path: Path, clone: Path, started: list[Run]
) -> None:
    folder = tmp_path / "deskline"
    subprocess.run(["git", "clone", "--quiet", f"file://{clone}", folder], check=True)
    without_node = tmp_path / "bin"
    without_node.mkdir()
    python = Path(sys.base_prefix, "bin", "python3")
    (without_node / "python3").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    (without_node / "python3").chmod(0o755)
    for tool in ("make", "sh", "git", "awk", "env", "redis-server", "uname"):
        found = shutil.which(tool)
        if found:
            (without_node / tool).symlink_to(found)
    assert shutil.which("node", path=str(without_node)) is None
    run = Run(folder, PATH=str(without_node))
    started.append(run)
    took = run.wait_until_running(FRESH_SECONDS)
    print(f"\nfresh clone without Node.js: running after {took:.1f} s (limit {FRESH_SECONDS})")
    assert "taking one from a Python wheel" in run.output
    run.interrupt()
