"""The machines of the deployed cluster, for the tests in this folder.

Everything that knows how a machine is reached is in this one file: a test asks for
`machine("db1")` and gets a testinfra host. `DESKLINE_TEST_INVENTORY` names another inventory
than `inventories/local`.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".venv" / "bin"
INVENTORY = os.environ.get("DESKLINE_TEST_INVENTORY", "inventories/local")
BRIDGE = "deskline0"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "heavy: breaks or rebuilds a machine; runs after all other tests of the cluster"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("heavy") is not None)


@dataclass(frozen=True)
class Inventory:
    """What `ansible-inventory --list` says: hosts by group, and each host's variables."""

    groups: dict[str, list[str]]
    variables: dict[str, dict[str, Any]]

    def address(self, name: str) -> str:
        """The IPv4 address of a host."""
        return str(self.variables[name]["ansible_host"])

    def addresses(self, group: str) -> list[str]:
        """The IPv4 addresses of a group, in the inventory's order."""
        return [self.address(name) for name in self.groups[group]]


@dataclass(frozen=True)
class PlayResult:
    """How a run of ansible-playbook ended; `changed` counts over all hosts."""

    code: int
    changed: int
    output: str


def _environment() -> dict[str, str]:
    """The environment of the ansible commands: plain output, whatever the terminal is."""
    return {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}


def _unavailable(reason: str) -> None:
    """Without the cluster the tests are left out, in CI they fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _hosts_of(listing: dict[str, Any], group: str) -> list[str]:
    """The hosts of a group and of the groups in it."""
    entry = listing.get(group, {})
    names = list(entry.get("hosts", []))
    for child in entry.get("children", []):
        names += [name for name in _hosts_of(listing, child) if name not in names]
    return names


@pytest.fixture(scope="session")
def inventory() -> Inventory:
    """The inventory under test. No machine is contacted."""
    command = [BIN / "ansible-inventory", "-i", INVENTORY, "--list"]
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=True
    )
    listing = json.loads(done.stdout)
    groups = {name: _hosts_of(listing, name) for name in listing if name != "_meta"}
    return Inventory(groups=groups, variables=listing["_meta"]["hostvars"])


@pytest.fixture(scope="session")
def bridge(inventory: Inventory) -> None:
    """Refuse to send anything unless every address is on our bridge.

    Without the bridge the packets for its subnet would leave this computer by the default route.
    """
    for name in inventory.groups["all"]:
        address = inventory.address(name)
        route = subprocess.run(
            ["ip", "route", "get", address], capture_output=True, text=True, check=False
        )
        if route.returncode != 0 or f" dev {BRIDGE} " not in route.stdout:
            _unavailable(f"{address} is not on the bridge {BRIDGE}: run `make up` first")


@pytest.fixture(scope="session")
def machine(
    inventory: Inventory, bridge: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Host]:
    """A function from an inventory name to the testinfra host of that machine."""
    known: dict[str, Host] = {}
    # One connection per machine for all commands. It ends by itself soon after the last one.
    sockets = tmp_path_factory.mktemp("ssh")
    shared = f"-o ControlMaster=auto -o ControlPersist=20 -o ControlPath={sockets}/%C"

    def connect(name: str) -> Host:
        if name not in known:
            variables = inventory.variables[name]
            options = "&".join(
                (
                    f"ssh_identity_file={variables['ansible_ssh_private_key_file']}",
                    "timeout=10",
                )
            )
            host = testinfra.get_host(
                f"ssh://{variables['ansible_user']}@{variables['ansible_host']}?{options}",
                ssh_extra_args=f"{variables['ansible_ssh_common_args']} -o BatchMode=yes {shared}",
            )
            if host.run("true").rc != 0:
                _unavailable(f"{name} does not answer over ssh: run `make up` first")
            known[name] = host
        return known[name]

    return connect


@pytest.fixture(scope="session")
def base_url(inventory: Inventory, bridge: None) -> str:
    """The address that browsers use: the balancer's."""
    return f"http://{inventory.addresses('lb')[0]}"


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """The opened vault of the inventory under test."""
    folder = ROOT / INVENTORY / "secrets"
    if not (folder / "vault.yml").exists():
        _unavailable(f"{folder / 'vault.yml'} does not exist: run `make up` first")
    opened = subprocess.run(
        [
            BIN / "ansible-vault",
            "view",
            "--vault-password-file",
            folder / "vault-password",
            folder / "vault.yml",
        ],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    values: dict[str, str] = yaml.safe_load(opened.stdout)
    return values


@pytest.fixture(scope="session")
def play(bridge: None) -> Callable[..., PlayResult]:
    """A function that runs a playbook on the inventory under test, with further arguments."""

    def run(playbook: str, *arguments: str, timeout_seconds: int = 600) -> PlayResult:
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", INVENTORY, playbook, *arguments],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        changed = sum(int(n) for n in re.findall(r"\bchanged=(\d+)", done.stdout))
        return PlayResult(done.returncode, changed, done.stdout + done.stderr)

    return run


class Mysql:
    """SQL as root over the socket of one machine."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name

    def lines(self, sql: str) -> list[str]:
        """The rows, columns separated by tabs. An SQL error fails the test."""
        done = self.host.run("mysql --batch --raw --skip-column-names --execute %s", sql)
        assert done.rc == 0, f"{self.name}: {sql}: {done.stderr}"
        return str(done.stdout).splitlines()

    def value(self, sql: str) -> str:
        """The one value of the one row."""
        (line,) = self.lines(sql)
        return line

    def gtids(self) -> str:
        """The transactions that this server has executed."""
        return self.value("SELECT REPLACE(@@global.gtid_executed, '\\n', '')")

    def pid(self) -> int:
        """The process id of mysqld; changes with every restart."""
        return int(self.host.run("systemctl show --property=MainPID --value mysql").stdout)


@pytest.fixture(scope="session")
def primary(inventory: Inventory, machine: Callable[[str], Host]) -> Mysql:
    name = inventory.groups["db_primary"][0]
    return Mysql(machine(name), name)


@pytest.fixture(scope="session")
def replica(inventory: Inventory, machine: Callable[[str], Host]) -> Mysql:
    name = inventory.groups["db_replica"][0]
    return Mysql(machine(name), name)


@pytest.fixture
def scratch(primary: Mysql) -> Iterator[None]:
    """The schema `test_scratch` with the table `written` on the primary; gone afterwards."""
    primary.lines(
        "DROP SCHEMA IF EXISTS test_scratch; CREATE SCHEMA test_scratch;"
        " CREATE TABLE test_scratch.written (id INT PRIMARY KEY AUTO_INCREMENT, word VARCHAR(40))"
    )
    yield
    primary.lines("DROP SCHEMA test_scratch")
