"""Promises of playbooks/migrate.yml: one run at a time, on one host, and the right schema."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from testinfra.host import Host

from tests.cluster.conftest import Inventory, Mysql, PlayResult

SCHEMA = "deskline_test_migrate"
ENV_FILE = "/run/deskline-test-migrate.env"
HOLDER = "deskline-test-holder"
WAITS = "another run is at work"

Play = Callable[..., PlayResult]


@pytest.fixture
def empty_schema(
    inventory: Inventory, machine: Callable[[str], Host], primary: Mysql
) -> Iterator[None]:
    """A schema without tables, and settings on the first app node that lead to it."""
    accounts = [f"deskline_migrate@'{address}'" for address in inventory.addresses("app")]
    grants = "".join(f"GRANT ALL ON {SCHEMA}.* TO {account};" for account in accounts)
    primary.lines(f"DROP SCHEMA IF EXISTS {SCHEMA}; CREATE SCHEMA {SCHEMA}; {grants}")
    host = machine(inventory.groups["app"][0])
    host.check_output(
        f"umask 077; sed 's|:3306/deskline\"|:3306/{SCHEMA}\"|' /etc/deskline/migrate.env"
        f" > {ENV_FILE}"
    )
    assert SCHEMA in host.file(ENV_FILE).content_string
    yield
    host.check_output(f"rm {ENV_FILE}")
    revokes = "".join(f"REVOKE ALL ON {SCHEMA}.* FROM {account};" for account in accounts)
    primary.lines(f"DROP SCHEMA {SCHEMA}; {revokes}")


def waiting_for_the_lock(primary: Mysql) -> int:
    """How many connections wait for the lock of the migrations."""
    return int(
        primary.value(
            "SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE"
            " object_type = 'USER LEVEL LOCK' AND object_name = 'deskline_migrate'"
            " AND lock_status = 'PENDING'"
        )
    )


def columns(server: Mysql, schema: str) -> list[str]:
    """Every column of a schema with its type, in order."""
    where = f"table_schema = '{schema}'"
    return server.lines(
        "SELECT table_name, ordinal_position, column_name, column_type, is_nullable"  # noqa: S608  constants
        f" FROM information_schema.columns WHERE {where} ORDER BY 1, 2"
    )


@pytest.mark.timeout(180)
def test_two_runs_at_once_migrate_once(play: Play, primary: Mysql, empty_schema: None) -> None:
    # Somebody holds the lock until both runs ask for it: otherwise the first might be done before
    # the second begins, and the test would prove nothing.
    primary.host.check_output(
        f"systemd-run --quiet --collect --unit={HOLDER}"
        " mysql --execute \"SELECT GET_LOCK('deskline_migrate', 5); SELECT SLEEP(120)\""
    )
    try:
        with ThreadPoolExecutor(2) as pool:
            runs = [
                pool.submit(play, "playbooks/migrate.yml", "-e", f"__migrate_env={ENV_FILE}")
                for _ in range(2)
            ]
            for _ in range(600):
                if waiting_for_the_lock(primary) == 2:
                    break
                assert not any(run.done() for run in runs), [run.result().output for run in runs]
                time.sleep(0.1)
            assert waiting_for_the_lock(primary) == 2
            assert columns(primary, SCHEMA) == []
            primary.host.check_output(f"systemctl kill --signal=KILL {HOLDER}")
            results = [run.result() for run in runs]
    finally:
        primary.host.run(f"systemctl stop {HOLDER}")
    assert [result.code for result in results] == [0, 0], [result.output for result in results]
    assert all(WAITS in result.output for result in results)
    assert sorted(result.changed for result in results) == [0, 1]
    assert sum("migrate: changed base" in result.output for result in results) == 1
    assert sum("migrate: unchanged" in result.output for result in results) == 1
    assert columns(primary, SCHEMA) == columns(primary, "deskline") != []


def test_a_further_run_changes_nothing(play: Play) -> None:
    result = play("playbooks/migrate.yml")
    assert (result.code, result.changed) == (0, 0), result.output
    assert "migrate: unchanged" in result.output


def test_a_leader_that_does_not_exist_is_refused(play: Play) -> None:
    result = play("playbooks/migrate.yml", "-e", "deskline_migrate_leader=nobody")
    assert result.code != 0
    assert "deskline_migrate_leader" in result.output
