"""After `make down` nothing of the local cluster is left on this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SUBNET = "10.83.7."

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and os.environ.get("CI") != "true",
    reason="not root: bridges, firewall rules and containers cannot be listed",
)


def output(*command: str) -> str:
    """What COMMAND prints; a failing command fails the test."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_no_bridge_no_address_no_route() -> None:
    assert "deskline" not in output("ip", "-oneline", "link", "show")
    assert SUBNET not in output("ip", "-oneline", "address", "show")
    assert SUBNET not in output("ip", "route", "show", "table", "all")


def test_no_container_and_no_process_of_one() -> None:
    assert "deskline" not in output("lxc-ls", "-1")
    processes = output("ps", "-eo", "args")
    assert not [line for line in processes.splitlines() if line.startswith("[lxc monitor]")]


def test_no_mount() -> None:
    assert "deskline" not in Path("/proc/self/mounts").read_text()


def test_no_firewall_rule() -> None:
    assert SUBNET not in output("iptables-save")
