"""Promises of the MySQL servers: durable, replicated by GTID, no right more than needed."""

from collections.abc import Callable

import pytest
from testinfra.host import Host

from tests.cluster.conftest import Inventory, Mysql, PlayResult

CATCH_UP_SECONDS = 20


def errant(primary: Mysql, replica: Mysql) -> str:
    """Transactions of the replica that the primary lacks. The replica is read first."""
    of_replica = replica.gtids()
    return primary.value(f"SELECT GTID_SUBTRACT('{of_replica}', '{primary.gtids()}')")


def wait_for_replica(primary: Mysql, replica: Mysql) -> None:
    """Wait until the replica has what the primary has now."""
    waited = replica.value(
        f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{primary.gtids()}', {CATCH_UP_SECONDS})"
    )
    assert waited == "0", f"not caught up after {CATCH_UP_SECONDS} s"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("gtid_mode", "ON"),
        ("enforce_gtid_consistency", "ON"),
        ("log_bin", "1"),
        ("binlog_format", "ROW"),
        ("sync_binlog", "1"),
        ("innodb_flush_log_at_trx_commit", "1"),
        ("character_set_server", "utf8mb4"),
        ("collation_server", "utf8mb4_0900_ai_ci"),
        ("require_secure_transport", "1"),
        ("local_infile", "0"),
    ],
)
def test_setting_is_in_force_on_both(
    primary: Mysql, replica: Mysql, variable: str, value: str
) -> None:
    for server in (primary, replica):
        assert server.value(f"SELECT @@global.{variable}") == value, server.name


def test_servers_differ_where_they_must(primary: Mysql, replica: Mysql) -> None:
    for variable in ("server_id", "server_uuid", "report_host"):
        one, other = (server.value(f"SELECT @@{variable}") for server in (primary, replica))
        assert one != other, variable


def test_only_the_replica_is_read_only(primary: Mysql, replica: Mysql) -> None:
    assert primary.value("SELECT @@global.read_only") == "0"
    assert replica.value("SELECT @@global.super_read_only") == "1"
    refused = replica.host.run("mysql --execute 'CREATE SCHEMA must_not_be'")
    assert refused.rc != 0
    assert "super-read-only" in refused.stderr


def test_replica_stays_read_only_after_a_restart(replica: Mysql) -> None:
    told = replica.host.run("my_print_defaults mysqld")
    assert "--super_read_only=ON" in told.stdout.splitlines()


def test_replica_follows_over_tls(primary: Mysql, replica: Mysql) -> None:
    status = replica.value(
        "SELECT CONCAT_WS(' ', c.host, c.ssl_allowed, c.auto_position, s.service_state,"
        " a.service_state) FROM performance_schema.replication_connection_configuration c"
        " JOIN performance_schema.replication_connection_status s USING (channel_name)"
        " JOIN performance_schema.replication_applier_status a USING (channel_name)"
    )
    address = primary.value("SELECT @@report_host")
    assert status == f"{address} YES 1 ON ON"
    ciphers = primary.lines(
        "SELECT t.variable_value FROM performance_schema.status_by_thread t"
        " JOIN performance_schema.threads h USING (thread_id)"
        " WHERE h.processlist_command LIKE 'Binlog Dump%' AND t.variable_name = 'Ssl_cipher'"
    )
    assert ciphers and all(ciphers)


def test_replica_catches_up_after_a_write(primary: Mysql, replica: Mysql, scratch: None) -> None:
    primary.lines("INSERT INTO test_scratch.written (word) VALUES ('seen on the replica')")
    wait_for_replica(primary, replica)
    assert replica.lines("SELECT word FROM test_scratch.written") == ["seen on the replica"]
    assert errant(primary, replica) == ""


def test_accounts_have_exactly_their_rights(primary: Mysql, inventory: Inventory) -> None:
    expected = {}
    for address in inventory.addresses("app"):
        expected[f"deskline_app@{address}"] = [
            "GRANT SELECT, INSERT, UPDATE, DELETE ON `deskline`.* TO",
            "GRANT USAGE ON *.* TO",
        ]
        expected[f"deskline_migrate@{address}"] = [
            "GRANT ALL PRIVILEGES ON `deskline`.* TO",
            "GRANT USAGE ON *.* TO",
        ]
    for address in inventory.addresses("db"):
        expected[f"deskline_replication@{address}"] = [
            "GRANT BACKUP_ADMIN ON *.* TO",
            "GRANT REPLICATION SLAVE ON *.* TO",
        ]
    found = {}
    for line in primary.lines(
        "SELECT CONCAT(user, '\t', host) FROM mysql.user WHERE user LIKE 'deskline%'"
    ):
        user, host = line.split("\t")
        grants = primary.lines(f"SHOW GRANTS FOR '{user}'@'{host}'")
        found[f"{user}@{host}"] = sorted(grant.split(" TO ")[0] + " TO" for grant in grants)
    assert found == expected


def test_nobody_comes_in_without_a_name_or_as_root_from_outside(
    primary: Mysql, replica: Mysql
) -> None:
    strange = (
        "SELECT CONCAT(user, '@', host) FROM mysql.user WHERE user = ''"
        " OR (user = 'root' AND (host <> 'localhost' OR plugin <> 'auth_socket'))"
        " OR (user LIKE 'deskline%' AND plugin <> 'caching_sha2_password')"
    )
    for server in (primary, replica):
        assert server.lines(strange) == [], server.name


def test_password_of_each_account_is_the_vaults(
    primary: Mysql, secrets: dict[str, str], inventory: Inventory
) -> None:
    """The replication account is the one that may connect from a database machine."""
    address = primary.value("SELECT @@report_host")
    login = (
        f"MYSQL_PWD=%s mysql --no-defaults --host={address} --user=deskline_replication"
        " --batch --skip-column-names --execute %s"
    )
    right = primary.host.run(login, secrets["vault_mysql_replication_password"], "SELECT 1")
    assert right.stdout.strip() == "1", right.stderr
    wrong = primary.host.run(login, "not the password", "SELECT 1")
    assert "ERROR 1045" in wrong.stderr


def test_no_secret_in_the_journals(
    inventory: Inventory, machine: Callable[[str], Host], secrets: dict[str, str]
) -> None:
    pattern = "|".join(value for value in secrets.values() if len(value) >= 20)
    for name in inventory.groups["db"] + inventory.groups["redis"]:
        found = machine(name).run("journalctl --no-pager --quiet | grep -c -E %s", pattern)
        assert found.stdout.strip() == "0", f"{name}: a secret stands in the journal"


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_a_run_repairs_what_drifted(
    primary: Mysql, replica: Mysql, inventory: Inventory, play: Callable[..., PlayResult]
) -> None:
    address = inventory.addresses("app")[0]
    pid = primary.pid()
    primary.lines(
        f"REVOKE INSERT ON deskline.* FROM 'deskline_app'@'{address}';"
        f"GRANT DROP ON deskline.* TO 'deskline_app'@'{address}';"
        "CREATE USER 'deskline_app'@'203.0.113.9' IDENTIFIED BY 'a stranger at 203.0.113.9'"
    )
    replica.lines("STOP REPLICA; SET GLOBAL super_read_only = OFF")

    told = play("playbooks/database.yml", "--check")
    assert told.code == 0, told.output
    assert told.changed > 0
    assert "INSERT" not in "".join(primary.lines(f"SHOW GRANTS FOR 'deskline_app'@'{address}'"))

    repaired = play("playbooks/database.yml")
    assert repaired.code == 0, repaired.output
    assert repaired.changed > 0
    test_accounts_have_exactly_their_rights(primary, inventory)
    test_only_the_replica_is_read_only(primary, replica)
    wait_for_replica(primary, replica)
    assert primary.pid() == pid, "the primary was restarted"


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_two_primaries_stop_the_run(
    primary: Mysql, replica: Mysql, play: Callable[..., PlayResult]
) -> None:
    replica.lines("STOP REPLICA; SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF;")
    source = replica.value(
        "SELECT host FROM performance_schema.replication_connection_configuration"
    )
    replica.lines("RESET REPLICA ALL")
    try:
        refused = play("playbooks/database.yml")
    finally:
        replica.lines("SET GLOBAL super_read_only = ON")
    assert refused.code != 0
    assert f"{primary.name} and {replica.name} both accept writes" in " ".join(
        refused.output.split()
    )
    assert refused.changed == 0
    assert source

    # Nothing was lost, so an ordinary run connects it again.
    assert play("playbooks/database.yml").code == 0
    wait_for_replica(primary, replica)
