"""Everything on one machine: all parts run there, behind one closed firewall."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest
from testinfra.host import Host
from websockets.sync.client import connect

from tests.cluster.app_client import fetch

GATEWAYS = ("deskline-gateway", "deskline-gateway-2")
UNITS = ("deskline-web", *GATEWAYS, "deskline-worker", "nginx", "redis-server", "mysql")


@pytest.fixture
def single(machine: Callable[[str], Host]) -> Host:
    return machine("single1")


@pytest.mark.parametrize("unit", UNITS)
def test_every_part_runs(single: Host, unit: str) -> None:
    state = single.run(f"systemctl is-active {unit}")
    assert state.stdout.strip() == "active", single.run(f"journalctl -n 30 -u {unit}").stdout


def test_nothing_failed_on_the_machine(single: Host) -> None:
    assert single.run("systemctl --failed --no-legend --plain").stdout == ""


def test_the_web_node_is_ready_through_nginx(base_url: str) -> None:
    page = httpx.get(f"{base_url}/login", timeout=10)
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    refused = httpx.get(f"{base_url}/api/v1/me", timeout=10)
    assert refused.status_code == 401
    assert refused.json()["code"] == "not_authenticated"


@pytest.mark.parametrize("port", [3306, 6379, 8000, 8080, 8081, 8082, 8090, 8091])
def test_inner_ports_are_closed_to_others(base_url: str, port: int) -> None:
    """Asked from the controller, which is no peer of any of them."""
    address = base_url.removeprefix("http://")
    command = ["timeout", "1", "bash", "-c", f"</dev/tcp/{address}/{port}"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_sockets_are_spread_over_both_gateway_processes(single: Host, base_url: str) -> None:
    """Each has settings, ports and a place in Nginx of its own."""
    address = base_url.removeprefix("http://")
    settings = single.check_output("cat /etc/deskline/gateway-2.env")
    key = re.search(r'^DESKLINE_PUSHER_KEY="(.*)"', settings, re.MULTILINE)
    assert key, "the second process has no settings"
    url = f"ws://{address}/app/{key[1]}?protocol=7&client=test"
    with ExitStack() as stack:
        for _ in range(8):
            socket = stack.enter_context(connect(url, open_timeout=10))
            assert "pusher:connection_established" in str(socket.recv(timeout=10))
        for port in (8081, 8091):
            _, _, shown = fetch(single, f"http://{address}:{port}/metrics")
            found = re.search(r"^deskline_gateway_connections (\d+)", shown, re.MULTILINE)
            assert found, shown
            assert int(found[1]) >= 2, f"port {port} holds {found[1]} of 8 sockets"


def test_the_firewall_is_loaded_and_closed(single: Host) -> None:
    rules = single.run("nft list table inet deskline").stdout
    assert re.search(r"hook input priority filter; policy drop;", rules)


def test_the_account_has_no_shell_and_the_settings_are_not_readable_by_others(single: Host) -> None:
    assert single.user("deskline").shell == "/usr/sbin/nologin"
    assert single.file("/etc/deskline").mode == 0o750
    assert single.run("runuser -u nobody -- cat /etc/deskline/web.env").rc != 0
