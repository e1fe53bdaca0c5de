"""The promise of the whole: whatever breaks, every message is accounted for.

The ledger talks to the cluster through its balancer while a web process and a gateway are killed,
another gateway is drained, Redis is restarted, the replica is stopped and started and the primary's
mysqld is killed. `make chaos` runs it for ten minutes with 300 visitors; without further settings
it is a short version of the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from testinfra.host import Host

from bench import faults
from bench.faults import Marks
from bench.ledger.book import Message
from bench.ledger.truth import STREAMS, compare_acknowledged
from tests.chaos import cluster_faults
from tests.chaos.conftest import AGENTS, Accounts
from tests.cluster.conftest import Inventory, Mysql
from tests.conftest import ROOT

SECONDS = float(os.environ.get("DESKLINE_CHAOS_SECONDS", "90"))
VISITORS = os.environ.get("DESKLINE_CHAOS_VISITORS", "100")
RATE = os.environ.get("DESKLINE_CHAOS_RATE", "40")
FOLDER = ROOT / "dist" / "chaos"
COME_IN_SECONDS = 330.0
# Coming in, the last retries, settling, reading everything back.
AROUND_SECONDS = 700.0
REPLICA_SECONDS = 150.0


def rows_of(server: Mysql, conversations: list[int]) -> list[Message]:
    """What a database server holds of the conversations."""
    lines = server.lines(
        "SELECT conversation_id, stream, seq, client_id, sender_type, LEFT(SHA2(body, 256), 16)"  # noqa: S608  numbers of ours
        " FROM deskline.messages"
        f" WHERE conversation_id IN ({','.join(map(str, conversations))})"
    )
    rows = []
    for line in lines:
        conversation_id, stream, seq, client_id, sender_type, digest = line.split("\t")
        place = (int(conversation_id), STREAMS[int(stream)], int(seq))
        rows.append(Message(*place, client_id, sender_type, digest))
    return rows


@pytest.mark.timeout(3 * SECONDS + COME_IN_SECONDS + AROUND_SECONDS + REPLICA_SECONDS)
def test_nothing_is_lost_whatever_breaks(
    base_url: str,
    inventory: Inventory,
    machine: Callable[[str], Host],
    *,
    primary: Mysql,
    replica: Mysql,
    accounts: Accounts,
) -> None:
    app, redis = inventory.groups["app"][0], inventory.groups["redis"][0]
    killed, drained = inventory.groups["realtime"][:2]
    outage_seconds = min(30.0, SECONDS / 15)
    plan = [
        cluster_faults.web_killed(machine(app), app, inventory.address(app)),
        cluster_faults.gateway_killed(machine(killed), killed, inventory.address(killed)),
        cluster_faults.redis_restarted(machine(redis), redis, inventory.address(redis)),
        cluster_faults.gateway_drained(machine(drained), drained, inventory.address(drained)),
        cluster_faults.replica_stopped(replica.host, replica.name, outage_seconds),
        cluster_faults.primary_killed(primary.host, primary.name),
    ]
    ill = [fault.name for fault in plan if not fault.healthy()]
    assert not ill, f"the cluster is not well before anything is broken; asked for: {ill}"

    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("marks.jsonl", "ledger.json", "ledger.svg", "acknowledged.tsv"):
        (FOLDER / name).unlink(missing_ok=True)
    marks = Marks(FOLDER / "marks.jsonl")
    ledger = subprocess.Popen(
        [
            *(sys.executable, "-m", "bench.ledger", "--url", base_url, "--inbox", "demo"),
            *("--visitors", VISITORS, "--agents", str(AGENTS), "--rate", RATE),
            *("--seconds", str(SECONDS), "--duplicate", "0.03", "--abort", "0.03"),
            *(
                "--until-faults-are-over",
                "--marks",
                str(FOLDER / "marks.jsonl"),
                "--out",
                str(FOLDER),
            ),
        ],
        cwd=ROOT,
        env={**os.environ, "LEDGER_ACCOUNTS": accounts.text},
        stdin=subprocess.DEVNULL,
    )
    try:
        began = faults.wait_for_talk(
            marks, seconds=COME_IN_SECONDS, alive=lambda: ledger.poll() is None
        )
        troubles = faults.run(plan, marks, began=began, seconds=SECONDS)
        code = ledger.wait(timeout=AROUND_SECONDS + SECONDS)
    finally:
        if ledger.poll() is None:
            ledger.kill()
            ledger.wait(10)
    assert troubles == []
    assert code == 0, f"the ledger ended with {code}: see its output above, and {FOLDER}"

    told = json.loads((FOLDER / "ledger.json").read_text(encoding="utf-8"))
    assert set(told["counts"].values()) == {0}, told["counts"]
    struck = [mark["what"] for mark in told["marks"] if mark["what"] in {f.name for f in plan}]
    assert struck == [fault.name for fault in plan], "a fault is missing in the plot's marks"

    outages = {each["what"]: each for each in told["outages"]}
    away = [name for name, each in outages.items() if each["everybody_back_after_seconds"] is None]
    assert not away, f"somebody never came back after: {away}"
    drain = next(each for name, each in outages.items() if "drained" in name)
    assert set(drain["sockets_closed"]) == {"closed 4200"}, f"not by its turn: {drain}"

    conversations = told["conversations"]
    rows = rows_of(primary, conversations)
    assert compare_acknowledged(FOLDER / "acknowledged.tsv", rows) == []
    # The replica was left behind for a while; in the end it holds the same.
    deadline = time.monotonic() + REPLICA_SECONDS
    while set(rows_of(replica, conversations)) != set(rows):
        assert time.monotonic() < deadline, (
            f"the replica does not hold the same rows {REPLICA_SECONDS:.0f} s after the run"
        )
        time.sleep(2)
