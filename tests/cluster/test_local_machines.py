"""Making and removing test machines: in the right order, after a kill, twice, without a trace.

Uses a network, a bridge and a state folder of its own, beside the cluster's. Nothing is sent to
an address: the kernel is asked which way a packet would take.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = ROOT / ".venv/bin/ansible-playbook"
NETWORK = ROOT / "roles/local_machines/files/network.sh"
BRIDGE, SUBNET, GATEWAY, MACHINE = "deskline9", "10.83.9.0/24", "10.83.9.1", "10.83.9.11"
PREFIX = "desklinetest-"

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.geteuid() != 0 and os.environ.get("CI") != "true",
        reason="not root: bridges and containers cannot be made",
    ),
]


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def way_to(address: str) -> str:
    """The interface that a packet for ADDRESS would take now, or ``refused``."""
    asked = subprocess.run(
        ["ip", "route", "get", address], capture_output=True, text=True, check=False
    )
    found = re.search(r"\bdev (\S+)", asked.stdout)
    return found[1] if asked.returncode == 0 and found else "refused"


def network(verb: str) -> str:
    return output(NETWORK, verb, BRIDGE, SUBNET, GATEWAY).strip()


@pytest.fixture
def clean() -> Iterator[None]:
    """The network's own way of going, whatever a failed test left."""
    yield
    network("down")


def test_no_packet_leaves_while_the_bridge_is_down_or_away(clean: None) -> None:
    assert network("up") == "changed"
    assert way_to(MACHINE) == BRIDGE
    output("ip", "link", "set", "dev", BRIDGE, "down")
    assert way_to(MACHINE) == "refused"
    output("ip", "link", "set", "dev", BRIDGE, "up")
    assert way_to(MACHINE) == BRIDGE
    output("ip", "link", "delete", "dev", BRIDGE)
    assert way_to(MACHINE) == "refused"


def test_the_network_is_made_and_removed_twice_and_repaired(clean: None) -> None:
    before = (output("iptables-save", "-t", "nat"), output("ip", "route"))
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    forward_before = forward.read_text()
    assert (network("up"), network("up")) == ("changed", "unchanged")
    assert forward.read_text() == "1\n"
    # What a killed run, or somebody, took away comes back.
    output("ip", "link", "delete", "dev", BRIDGE)
    assert network("up") == "changed"
    assert way_to(MACHINE) == BRIDGE
    assert (network("down"), network("down")) == ("changed", "unchanged")
    assert forward.read_text() == forward_before
    assert BRIDGE not in output("ip", "-brief", "link")
    after = (output("iptables-save", "-t", "nat"), output("ip", "route"))
    rules = [[line for line in text.splitlines() if line[0] not in "#:"] for text in before + after]
    assert rules[:2] == rules[2:]


def test_an_ssh_of_the_inventories_needs_the_bridge() -> None:
    """Asked of this computer itself: the option that the inventories give stops before sending."""
    for name in ("local", "single"):
        text = (ROOT / f"inventories/{name}/group_vars/all/connection.yml").read_text()
        assert "-o BindInterface=deskline0" in text
    command = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", f"BindInterface={BRIDGE}"]
    refused = subprocess.run(
        [*command, "127.0.0.1", "true"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 255
    assert "no suitable addresses" in refused.stderr


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[str | Path]]:
    """The start of a command line for an inventory of one machine; removed at the end."""
    state = tmp_path / "state"
    (tmp_path / "hosts.yml").write_text(
        f"""
all:
  vars:
    ansible_user: root
    ansible_python_interpreter: /usr/bin/python3
    ansible_ssh_private_key_file: {state}/ssh/id_ed25519
    ansible_ssh_common_args: >-
      -o BindInterface={BRIDGE} -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes
      -o UserKnownHostsFile={state}/ssh/known_hosts
    local_machines_state_dir: {state}
    local_machines_cache_dir: {tmp_path}/cache
    local_machines_bridge: {BRIDGE}
    local_machines_subnet: {SUBNET}
    local_machines_gateway: {GATEWAY}
    local_machines_prefix: {PREFIX}
  hosts:
    m1:
      ansible_host: {MACHINE}
"""
    )
    command: list[str | Path] = [PLAYBOOK, "-i", tmp_path / "hosts.yml"]
    yield command
    play(command, "local_down")


def play(command: list[str | Path], name: str) -> int:
    """Run the playbook; returns how many tasks changed something, over all hosts."""
    done = subprocess.run(
        [*command, f"playbooks/{name}.yml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sum(int(count) for count in re.findall(r"\bchanged=(\d+)", done.stdout))


def play_and_kill_when(command: list[str | Path], moment: Callable[[], bool], log: Path) -> None:
    """Start making the machines and kill the run, with all that it started, once MOMENT is true."""
    with log.open("wb") as sink:
        run = subprocess.Popen(
            [*command, "playbooks/local_up.yml"],
            cwd=ROOT,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    give_up = time.monotonic() + 120
    while not moment():
        assert run.poll() is None, log.read_text()
        assert time.monotonic() < give_up, "the moment never came"
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def processes_of_machine(part: str) -> set[int]:
    """The processes of PART (monitor or machine), by the control group that bears its name."""
    groups = Path("/sys/fs/cgroup").glob(f"**/deskline/{PREFIX}m1/{part}/**/cgroup.procs")
    return {int(number) for group in groups for number in group.read_text().split()}


def test_killed_at_any_moment_then_made_then_removed_without_a_trace(
    machines: list[str | Path], tmp_path: Path
) -> None:
    log = tmp_path / "killed.log"
    machine = tmp_path / f"state/machines/{PREFIX}m1"

    unpacking = "cache/trixie-*.partial/var/lib/dpkg/info"
    play_and_kill_when(machines, lambda: any(tmp_path.glob(unpacking)), log)
    assert not machine.exists()
    play_and_kill_when(machines, (machine / "config").exists, log)

    assert play(machines, "local_up") > 0
    assert len(processes_of_machine("monitor")) == 1
    assert way_to(MACHINE) == BRIDGE
    assert play(machines, "local_up") == 0, "a second run makes nothing"

    # A monitor that was killed leaves a machine that LXC calls stopped and that runs on.
    before = processes_of_machine("machine")
    for monitor in processes_of_machine("monitor"):
        os.kill(monitor, signal.SIGKILL)
    assert before & processes_of_machine("machine"), "the machine runs on by itself"
    assert play(machines, "local_up") > 0
    assert len(processes_of_machine("monitor")) == 1

    # As `make down` does it: with another inventory's name, every machine goes.
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("m1:", "m2:"))
    assert play(machines, "local_down") == 0, "a machine of another inventory stays"
    assert len(processes_of_machine("monitor")) == 1
    everything = [*machines, "-e", "local_machines_remove_all=true"]
    assert play(everything, "local_down") > 0
    assert play(everything, "local_down") == 0, "a second run finds nothing"
    hosts.write_text(hosts.read_text().replace("m2:", "m1:"))
    assert not processes_of_machine("machine") | processes_of_machine("monitor")
    assert not (tmp_path / "state").exists()
    assert BRIDGE not in output("ip", "-brief", "link")
    assert SUBNET not in output("ip", "route")
    assert PREFIX not in output("find", "/sys/fs/cgroup", "-type", "d", "-name", f"{PREFIX}*")
