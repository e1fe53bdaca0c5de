"""Promises of the application's machines: what runs, as whom, and who may read what."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from testinfra.host import Host

from tests.cluster.conftest import Inventory

UNITS = {
    "app": ("deskline-web", "deskline-worker"),
    "realtime": ("deskline-gateway",),
    "lb": ("nginx",),
}
PROCESSES = [(group, unit) for group in ("app", "realtime") for unit in UNITS[group]]
ENV_FILES = {
    "app": {"web.env": "0o640", "worker.env": "0o640", "migrate.env": "0o600"},
    "realtime": {"gateway.env": "0o640"},
}
# What builds programs, or fetches them.
BUILD_TOOLS = ("gcc", "cc", "c++", "clang", "make", "npm", "node", "cargo")
# /proc/PID/status: seccomp mode 2 is a filter.
HARDENED = {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "CapBnd": "0" * 16}

Machine = Callable[[str], Host]


def status_of(host: Host, unit: str) -> dict[str, str]:
    """/proc/PID/status of a unit's main process."""
    pid = host.check_output("systemctl show --property=MainPID --value %s", unit)
    lines = host.check_output(f"cat /proc/{int(pid)}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("group", UNITS)
def test_units_run_and_start_with_the_machine(
    inventory: Inventory, machine: Machine, group: str
) -> None:
    for name in inventory.groups[group]:
        for unit in UNITS[group]:
            service = machine(name).service(unit)
            assert service.is_running, f"{unit} on {name}"
            assert service.is_enabled, f"{unit} on {name}"


@pytest.mark.parametrize(("group", "unit"), PROCESSES)
def test_process_has_no_rights_beyond_its_work(
    inventory: Inventory, machine: Machine, group: str, unit: str
) -> None:
    for name in inventory.groups[group]:
        host = machine(name)
        status = status_of(host, unit)
        assert {key: status[key] for key in HARDENED} == HARDENED
        assert status["Uid"].split() == [str(host.user("deskline").uid)] * 4
        mounts = host.check_output("cat /proc/%s/mountinfo", status["Pid"]).splitlines()
        root = next(line.split() for line in mounts if line.split()[4] == "/")
        assert "ro" in root[5].split(","), f"{unit} on {name} can write to the system"


@pytest.mark.parametrize("group", ENV_FILES)
def test_settings_are_read_by_their_process_only(
    inventory: Inventory, machine: Machine, group: str
) -> None:
    for name in inventory.groups[group]:
        host = machine(name)
        found = set(host.check_output("ls /etc/deskline").split())
        assert found == set(ENV_FILES[group]), f"files on {name}"
        assert oct(host.file("/etc/deskline").mode) == "0o750"
        for file, mode in ENV_FILES[group].items():
            entry = host.file(f"/etc/deskline/{file}")
            group_name = "root" if file == "migrate.env" else "deskline"
            assert (oct(entry.mode), entry.user, entry.group) == (mode, "root", group_name)


def test_gateway_knows_no_database_password(
    inventory: Inventory, machine: Machine, secrets: dict[str, str]
) -> None:
    for name in inventory.groups["realtime"]:
        settings = machine(name).file("/etc/deskline/gateway.env").content_string
        assert "DATABASE" not in settings
        for each in ("vault_mysql_app_password", "vault_secret_key", "vault_redis_web_password"):
            assert secrets[each] not in settings


def test_no_secret_in_process_lists_or_logs(
    inventory: Inventory, machine: Machine, secrets: dict[str, str]
) -> None:
    # The Channels key is public, and ids are short numbers that occur by chance.
    hidden = {name: value for name, value in secrets.items() if re.search("password|secret", name)}
    assert len(hidden) >= 8
    for name in {host for group in UNITS for host in inventory.groups[group]}:
        seen = machine(name).check_output(
            "ps axww -o args; journalctl --no-pager --output=cat; cat /var/log/nginx/*.log || true"
        )
        assert "deskline" in seen
        assert [key for key, value in hidden.items() if value in seen] == [], f"on {name}"


def test_no_tool_that_builds_programs(inventory: Inventory, machine: Machine) -> None:
    for name in {host for group in UNITS for host in inventory.groups[group]}:
        found = [tool for tool in BUILD_TOOLS if machine(name).run(f"command -v {tool}").rc == 0]
        assert found == [], f"on {name}"


def test_the_account_cannot_change_its_own_program(inventory: Inventory, machine: Machine) -> None:
    for name in inventory.groups["app"] + inventory.groups["realtime"]:
        host = machine(name)
        writable = host.check_output(
            "cd / && runuser -u deskline -- find /opt/deskline/ /etc/deskline ! -type l -writable"
        )
        assert writable == ""
        shown = host.check_output(
            "cd / && runuser -u deskline -- /opt/deskline/current/venv/bin/python -m app --help"
        )
        assert "Deskline" in shown


def test_every_node_runs_the_same_release(inventory: Inventory, machine: Machine) -> None:
    releases = {
        name: machine(name).check_output("readlink /opt/deskline/current")
        for group in UNITS
        for name in inventory.groups[group]
    }
    assert len(set(releases.values())) == 1, releases
    for group, unit in PROCESSES:
        for name in inventory.groups[group]:
            host = machine(name)
            pid = status_of(host, unit)["Pid"]
            assert host.check_output(f"readlink /proc/{pid}/cwd") == releases[name]


def test_a_wrong_setting_is_refused_by_name(inventory: Inventory, machine: Machine) -> None:
    host = machine(inventory.groups["app"][0])
    checked = host.run(
        "sed 's/^DESKLINE_WEB_PORT=.*/DESKLINE_WEB_PORT=\"eighty\"/' /etc/deskline/web.env"
        " | /opt/deskline/current/venv/bin/python -m app --env-file /dev/stdin checkconfig"
    )
    assert checked.rc == 2
    assert "DESKLINE_WEB_PORT" in checked.stderr
    assert "Traceback" not in checked.stderr
