"""The command line: what operators and plays read, and the sentences when something is wrong."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy.exc import OperationalError

from app import cli, embedded
from app.db import engines
from tests.conftest import PLACEHOLDERS, ROOT, free_port


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "x.db"
    monkeypatch.setenv("DESKLINE_DATABASE_URL", f"sqlite:///{path}")
    monkeypatch.delenv("DESKLINE_ENV", raising=False)
    return path


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_accounts_and_inboxes_are_made_once(
    database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert database.parent.is_dir()
    assert cli.main(["migrate"]) == 0
    user = ["user", "create", "--email", "a@b.example", "--name", "A", "--role", "admin"]
    for expected in ("user: created", "user: exists"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("long-enough\n"))
        assert cli.main([*user, "--password-stdin"]) == 0
        assert last_line(capsys) == expected
    for expected in ("inbox: created key=shop", "inbox: exists key=shop"):
        assert cli.main(["inbox", "create", "--name", "Shop", "--key", "shop"]) == 0
        assert last_line(capsys) == expected
    assert cli.main(["inbox", "create", "--name", "Other"]) == 0
    assert last_line(capsys).startswith("inbox: created key=")
    monkeypatch.setattr(sys, "stdin", io.StringIO("another-one\n"))
    assert cli.main(["user", "password", "--email", "a@b.example", "--password-stdin"]) == 0
    assert last_line(capsys) == "user: password set"
    assert cli.main(["user", "reset-totp", "--email", "A@b.example"]) == 0
    assert last_line(capsys) == "user: second factor turned off"
    assert cli.main(["user", "reset-totp", "--email", "nobody@b.example"]) == 2
    assert "--email" in capsys.readouterr().err


def test_demo_data_is_refused_on_a_real_deployment(
    database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not database.exists()
    assert cli.main(["migrate"]) == 0
    assert cli.main(["demo"]) == 2
    assert "DESKLINE_ENV=demo" in capsys.readouterr().err
    monkeypatch.setenv("DESKLINE_ENV", "demo")
    for expected in ("demo: created", "demo: unchanged"):
        assert cli.main(["demo"]) == 0
        assert last_line(capsys) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["user", "create", "--email", "nobody", "--name", "A", "--password-stdin"], "--email"),
        (["user", "create", "--email", "a@b", "--name", " ", "--password-stdin"], "--name"),
        (["user", "create", "--email", "a@b", "--name", "A", "--password-stdin"], "password"),
        (["inbox", "create", "--name", "A", "--key", "a b"], "--key"),
        (["user", "password", "--email", "x@y", "--password-stdin"], "password"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    assert database.parent.is_dir()
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


def test_a_database_that_was_not_migrated(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not database.exists()
    assert cli.main(["inbox", "create", "--name", "A"]) == 2
    assert "python -m app migrate" in capsys.readouterr().err


def test_a_database_server_that_does_not_answer_tells_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"mysql+pymysql://ann:hunter2@127.0.0.1:{free_port()}/deskline"
    monkeypatch.setenv("DESKLINE_DATABASE_URL", url)
    for command in (
        ["migrate"],
        ["inbox", "create", "--name", "A"],
        ["doctor", "--for", "migrate"],
    ):
        assert cli.main(command) in (1, 2)
        said = "".join(capsys.readouterr())
        assert "127.0.0.1" in said
        assert "hunter2" not in said
        assert "Traceback" not in said


def test_a_missing_server_counts_as_unavailable() -> None:
    engine = engines.make_engine(f"mysql+pymysql://a:b@127.0.0.1:{free_port()}/x")
    with pytest.raises(OperationalError) as caught, engine.connect():
        pass
    assert engines.is_unavailable(caught.value)
    assert not engines.is_retryable(caught.value)


@pytest.mark.parametrize(
    ("number", "unavailable", "retryable"),
    [
        (1213, False, True),
        (1205, False, True),
        (1290, True, False),
        (1836, True, False),
        (2013, True, False),
        (1040, True, False),
        (1146, False, False),
        (1062, False, False),
    ],
)
def test_errors_of_mysql_are_told_apart(number: int, unavailable: bool, retryable: bool) -> None:
    import pymysql  # noqa: PLC0415  only its error is needed

    error = OperationalError("x", {}, pymysql.err.OperationalError(number, "words"))
    assert engines.is_unavailable(error) is unavailable
    assert engines.is_retryable(error) is retryable


# --- run ------------------------------------------------------------------------------------------


def run(data_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m app run`, of which nothing but a refusal is expected."""
    return subprocess.run(
        [sys.executable, "-m", "app", "run", "--data-dir", str(data_dir), *arguments],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if "DESKLINE" not in k} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_one_sentence(refused: subprocess.CompletedProcess[str], *words: str) -> None:
    assert refused.returncode == 2, refused
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    for word in words:
        assert word in refused.stderr


@pytest.mark.parametrize("option", ["--port", "--gateway-port"])
def test_run_with_a_taken_port(tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        other = "--gateway-port" if option == "--port" else "--port"
        arguments = ("--api-only", option, port, other, str(free_port()))
        assert_one_sentence(run(tmp_path, *arguments), f"Port {port}", option)


def test_run_with_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    assert_one_sentence(run(in_the_way / "data"), "data folder", "--data-dir")


def test_run_without_web_files(tmp_path: Path) -> None:
    ports = ("--port", str(free_port()), "--gateway-port", str(free_port()))
    refused = run(tmp_path / "data", *ports, DESKLINE_WEB_ROOT=str(tmp_path / "nothing"))
    assert_one_sentence(refused, "web files", "DESKLINE_WEB_ROOT")


def test_run_twice_on_one_data_folder(tmp_path: Path) -> None:
    ports = ("--port", str(free_port()), "--gateway-port", str(free_port()))
    with embedded.data_dir(tmp_path / "data"):
        assert_one_sentence(run(tmp_path / "data", *ports), "already uses")


def test_run_says_where_it_is_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    for name in PLACEHOLDERS:
        (tmp_path / "web" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / name).write_text("x", encoding="utf-8")
    port = free_port()
    ports = ("--port", str(port), "--gateway-port", str(free_port()))
    environment = {k: v for k, v in os.environ.items() if "DESKLINE" not in k}
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "run", "--data-dir", str(tmp_path / "data"), *ports],
        cwd=ROOT,
        env={**environment, "DESKLINE_WEB_ROOT": str(tmp_path / "web")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().rstrip("\n") for _ in range(4)]
        url = f"http://localhost:{port}"
        assert lines == [
            "Deskline is running (Ctrl-C stops it)",
            f"  Demo shop with the widget   {url}/",
            f"  Staff login                 {url}/login   admin@demo.com / password123",
            f"  API documentation           {url}/docs",
        ]
        begun = time.monotonic()
        process.send_signal(2)
        rest, _ = process.communicate(timeout=20)
        assert rest == ""
        assert process.returncode == 0
        assert time.monotonic() - begun < 8
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
