"""The ledger on two web nodes with a real primary and replica, while all of them are broken.

A small edition of tests/chaos that needs no machines: the same faults, as signals to processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import faults
from bench.faults import Fault, Marks
from tests.conftest import ROOT
from tests.ledger import local_servers
from tests.ledger.local_servers import LocalServers
from tools.private_mysql import Server, Servers

SECONDS = float(os.environ.get("DESKLINE_LEDGER_SECONDS", "45"))
ENDS_WITHIN_SECONDS = SECONDS + 300


@pytest.fixture
def cluster(mysql: Servers, tmp_path: Path) -> Iterator[LocalServers]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here (Debian, Ubuntu: apt-get install redis-server)")
    assert mysql.replica is not None
    yield from local_servers.made(
        tmp_path, webs=2, database_url=mysql.primary.url(), replica_url=mysql.replica.url()
    )
    mysql.catch_up()


def start(server: Server) -> None:
    if server.process is None:
        server.start()


def replicates(replica: Server) -> bool:
    state = replica.sql("SHOW REPLICA STATUS")[0]
    return {state["Replica_IO_Running"], state["Replica_SQL_Running"]} == {"Yes"}


@pytest.mark.timeout(3 * SECONDS + ENDS_WITHIN_SECONDS + 240)
def test_nothing_is_lost_on_mysql_whatever_breaks(
    mysql: Servers, cluster: LocalServers, tmp_path: Path
) -> None:
    primary, replica = mysql.primary, mysql.replica
    assert replica is not None
    plan = [
        cluster.killed("web1", outage_seconds=1.0),
        cluster.killed("redis", outage_seconds=0.5),
        Fault(
            "replica stopped and started",
            replica.stop,
            lambda: start(replica),
            lambda: replicates(replica),
            outage_seconds=3.0,
        ),
        Fault(
            "primary killed with -9",
            primary.kill,
            lambda: start(primary),
            lambda: bool(primary.sql("SELECT 1")) and cluster.ready(),
        ),
    ]
    marks = Marks(tmp_path / "marks.jsonl")
    out = tmp_path / "out"
    ledger = subprocess.Popen(
        [
            *(sys.executable, "-m", "bench.ledger", "--url", cluster.url),
            *("--visitors", "40", "--agents", "4", "--rate", "40", "--seconds", str(SECONDS)),
            *("--poll", "0", "--settle", "20"),
            *(
                "--until-faults-are-over",
                "--marks",
                str(tmp_path / "marks.jsonl"),
                "--out",
                str(out),
            ),
        ],
        cwd=ROOT,
        env={**os.environ, "LEDGER_DATABASE_URL": primary.url()},
        stdin=subprocess.DEVNULL,
    )
    try:
        began = faults.wait_for_talk(marks, seconds=120, alive=lambda: ledger.poll() is None)
        troubles = faults.run(plan, marks, began=began, seconds=SECONDS)
        code = ledger.wait(ENDS_WITHIN_SECONDS)
    finally:
        if ledger.poll() is None:
            ledger.kill()
            ledger.wait(10)
    assert troubles == []
    assert code == 0, "the ledger is not clean: see its output above"
    told = json.loads((out / "ledger.json").read_text(encoding="utf-8"))
    assert told["compared_with_database"]
    assert told["figures"]["only_by_poll"] == 0
    struck = {mark["what"] for mark in told["marks"]}
    assert struck == {*(fault.name for fault in plan), "all well again"}
    # nobody waits longer than the primary's restart takes: the rest went on without a pause
    assert told["longest_without_acknowledgement_seconds"] < 20
