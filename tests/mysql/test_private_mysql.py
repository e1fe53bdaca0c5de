"""The MySQL that tests and measurements run on is the real thing and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.conftest import ROOT
from tools.private_mysql import Servers

# the servers are started within the first test
pytestmark = pytest.mark.timeout(300)


def test_the_servers_commit_as_production_does(mysql: Servers) -> None:
    variables = mysql.primary.sql(
        "SELECT @@version AS version, @@sync_binlog AS binlog, @@gtid_mode AS gtid,"
        " @@innodb_flush_log_at_trx_commit AS redo, @@bind_address AS address"
    )[0]
    assert variables["version"].split(".")[0] in {"8", "9"}
    assert (variables["binlog"], variables["redo"], variables["gtid"]) == (1, 1, "ON")
    assert variables["address"] == "127.0.0.1"


def test_the_application_may_not_change_the_schema_nor_write_on_the_replica(
    mysql: Servers,
) -> None:
    assert mysql.replica is not None
    grants = mysql.primary.sql("SHOW GRANTS FOR deskline_app@'127.0.0.1'")
    assert "SELECT, INSERT, UPDATE, DELETE ON" in str(grants)
    assert mysql.replica.sql("SELECT @@super_read_only AS locked")[0]["locked"] == 1


def test_chinese_and_english_words_are_found_by_ngrams(mysql: Servers) -> None:
    engine = create_engine(mysql.primary.url("migrate"))
    try:
        with engine.begin() as connection:
            connection.execute(
                text("CREATE TABLE words (body TEXT, FULLTEXT (body) WITH PARSER ngram)")
            )
            connection.execute(text("INSERT INTO words VALUES ('訂單什麼時候到'), ('late parcel')"))
        with engine.begin() as connection:
            found = "SELECT body FROM words WHERE MATCH (body) AGAINST (:word IN BOOLEAN MODE)"
            for word, body in (("時候", "訂單什麼時候到"), ("parcel", "late parcel")):
                assert connection.execute(text(found), {"word": word}).scalars().all() == [body]
            connection.execute(text("DROP TABLE words"))
    finally:
        engine.dispose()
    mysql.catch_up()


def test_nothing_is_left_when_the_command_is_killed(tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    command = [sys.executable, "tools/private_mysql.py", "run", "--folder", str(tmp_path / "data")]
    with output.open("wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=subprocess.STDOUT)
    try:
        give_up_at = time.monotonic() + 60
        while "Ctrl-C" not in output.read_text():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < give_up_at, output.read_text()
            time.sleep(0.1)
        address = make_url(output.read_text().splitlines()[0].split()[-1])
        assert address.host == "127.0.0.1"
        server = int((tmp_path / "data/primary/data/mysqld.pid").read_text())
        assert b"mysqld" in Path(f"/proc/{server}/cmdline").read_bytes()
        assert address.password not in Path(f"/proc/{server}/cmdline").read_text()
    finally:
        process.kill()
        process.wait()
    give_up_at = time.monotonic() + 10
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < give_up_at, "mysqld outlived the command that started it"
        time.sleep(0.05)
