"""The ledger against the real thing, and against what it must not speak to."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.ledger import target
from bench.ledger.book import KINDS
from tests.conftest import ROOT, Deskline, free_port
from tests.ledger.test_broken_servers import run_ledger


async def test_a_busy_server_is_clean(deskline: Deskline, tmp_path: Path) -> None:
    marks = tmp_path / "marks.jsonl"
    arguments = ["--visitors", "30", "--agents", "4", "--rate", "25", "--seconds", "15"]
    arguments += ["--duplicate", "0.1", "--abort", "0.1", "--poll", "0", "--marks", str(marks)]
    if deskline.data_dir is not None:
        arguments += ["--database-url", f"sqlite:///{deskline.data_dir}/deskline.db"]
    marks.write_text('{"t": 1.0, "what": "long ago"}\nnot a mark\n', encoding="utf-8")
    run = await run_ledger(deskline.url, tmp_path / "out", *arguments)
    assert run.code == 0, run.output
    told = run.told
    assert told["verdict"] == "clean"
    assert told["counts"] == dict.fromkeys(KINDS, 0)
    figures = told["figures"]
    assert figures["sent"] == figures["acknowledged"] > 200
    assert figures["stored"] == figures["sent"] + figures["stored_by_system"]
    assert figures["live"] > figures["sent"]
    assert told["compared_with_database"] == (deskline.data_dir is not None)
    assert told["on_the_way"]["sent twice"] > 0
    assert told["on_the_way"]["hung up on purpose"] > 0
    assert told["latency_ms"]["sent_to_seen_live"]["count"] > 0
    assert [mark["what"] for mark in told["marks"]] == ["long ago"]
    assert "not a mark, left out: not a mark" in run.output
    listed = (tmp_path / "out" / "acknowledged.tsv").read_text(encoding="utf-8").splitlines()
    assert len(listed) == figures["acknowledged"] + 1
    ET.fromstring((tmp_path / "out" / "ledger.svg").read_text(encoding="utf-8"))  # noqa: S314  ours


def tool(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.ledger", *arguments],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--url", "http://192.0.2.1"), "--i-own-this-server"),
        (("--url", "ftp://127.0.0.1"), "give scheme, host and port"),
        (("--url", "http://127.0.0.1:99999"), "is no URL"),
        (("--url", "http://nowhere.invalid"), "has no address"),
        (("--rate", "5000"), "--rate should be above 0 and at most 500"),
        (("--visitors", "900", "--agents", "5"), "too many visitors for so few agents"),
        (("--accounts-file", "/nowhere"), "--accounts-file /nowhere: No such file"),
        (("--database-url", "mysql+pymysql://u:secret@h/d"), "LEDGER_DATABASE_URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_it_refuses(arguments: tuple[str, ...], said: str) -> None:
    done = tool(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "secret" not in done.stderr


def test_a_server_that_is_not_there() -> None:
    done = tool("--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 2
    assert "is it running?" in done.stderr


def test_a_wrong_password_is_told_at_once(deskline: Deskline) -> None:
    done = tool("--url", deskline.url, LEDGER_ACCOUNTS="admin@demo.com not-the-password")
    assert done.returncode == 2
    assert "401 invalid_credentials" in done.stderr
    assert "not-the-password" not in done.stderr


def test_an_unknown_inbox_is_told_at_once(deskline: Deskline) -> None:
    done = tool("--url", deskline.url, "--inbox", "nobodys")
    assert done.returncode == 2
    assert "404 unknown_inbox" in done.stderr


def test_a_database_that_cannot_be_read_is_told_before_the_run(
    deskline: Deskline, tmp_path: Path
) -> None:
    done = tool("--url", deskline.url, "--database-url", f"sqlite:///{tmp_path}/nothing.db")
    assert done.returncode == 2
    assert "the database could not be read" in done.stderr


def test_loopback_is_local_and_a_strangers_address_is_not() -> None:
    assert target.is_local("127.0.0.1")
    assert target.is_local("::1")
    assert not target.is_local("192.0.2.1")
