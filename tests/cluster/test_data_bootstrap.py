"""The replica can be lost and made again while rows are being written; the primary never pauses."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.conftest import Mysql, PlayResult
from tests.cluster.test_data_mysql import errant, wait_for_replica

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(400)]

WRITER = "deskline-test-writer"
WRITES_AT_MOST = 3000


@pytest.fixture
def writing(primary: Mysql, scratch: None) -> Iterator[Callable[[], int]]:
    """Rows are written to the primary, ten a second, until the function is called.

    It returns how many the primary has acknowledged.
    """
    insert = "INSERT INTO test_scratch.written (word) VALUES (UUID())"
    loop = (
        f"for n in $(seq {WRITES_AT_MOST}); do mysql --execute '{insert}' || exit 1;"
        f" echo $n > /run/{WRITER}; sleep 0.1; done"
    )
    started = primary.host.run(f"systemd-run --quiet --collect --unit={WRITER} bash -c %s", loop)
    assert started.rc == 0, started.stderr

    def stop() -> int:
        active = primary.host.run(f"systemctl is-active {WRITER}").stdout.strip()
        assert active == "active", "a write failed, or there were more than expected"
        primary.host.run(f"systemctl stop {WRITER}")
        return int(primary.host.run(f"cat /run/{WRITER}").stdout)

    yield stop
    primary.host.run(f"systemctl stop {WRITER}; rm -f /run/{WRITER}")


def test_destroyed_replica_comes_back_while_rows_are_written(
    primary: Mysql,
    replica: Mysql,
    scratch: None,
    writing: Callable[[], int],
    play: Callable[..., PlayResult],
) -> None:
    pid = primary.pid()
    time.sleep(1)
    destroyed = replica.host.run(
        "systemctl kill --signal=KILL mysql; systemctl stop mysql;"
        " find /var/lib/mysql -mindepth 1 -delete"
    )
    assert destroyed.rc == 0, destroyed.stderr

    rebuilt = play("playbooks/replica_bootstrap.yml")
    assert rebuilt.code == 0, rebuilt.output
    assert "no data directory any more" in rebuilt.output

    acknowledged = writing()
    assert acknowledged > 10
    wait_for_replica(primary, replica)
    on_primary, on_replica = (
        int(server.value("SELECT COUNT(*) FROM test_scratch.written"))
        for server in (primary, replica)
    )
    assert on_primary == on_replica >= acknowledged
    assert errant(primary, replica) == ""
    assert replica.value("SELECT @@global.super_read_only") == "1"
    assert primary.pid() == pid, "the primary was restarted"


def test_transactions_of_its_own_are_discarded_only_when_asked(
    primary: Mysql, replica: Mysql, play: Callable[..., PlayResult]
) -> None:
    replica.lines(
        "SET GLOBAL super_read_only = OFF; CREATE SCHEMA strayed; SET GLOBAL super_read_only = ON"
    )
    try:
        refused = play("playbooks/replica_bootstrap.yml")
        assert refused.code != 0
        assert "replica_bootstrap_force=yes" in refused.output
        assert replica.lines("SHOW SCHEMAS LIKE 'strayed'") == ["strayed"]
    finally:
        forced = play("playbooks/replica_bootstrap.yml", "-e", "replica_bootstrap_force=yes")
    assert forced.code == 0, forced.output
    assert replica.lines("SHOW SCHEMAS LIKE 'strayed'") == []
    assert errant(primary, replica) == ""

    # It is healthy now, so another run leaves it alone.
    again = play("playbooks/replica_bootstrap.yml")
    assert again.code == 0, again.output
    assert again.changed == 0
