"""Many sockets through the deployed Nginx: the bench's long run, made short."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from app import config
from bench.gateway import deployed, through_nginx

SOCKETS, SECONDS, RATE = 1200, 8.0, 1000.0


def test_workers_have_descriptors_for_both_sides_of_every_socket() -> None:
    for sockets in (1, 9_000, 40_000, 1_000_000):
        for connections in (1_024, 19_800, 70_000):
            workers = deployed.nginx_workers(sockets, connections)
            assert workers * connections >= 2 * sockets * 1.1
    assert deployed.nginx_workers(40_000, 19_800) == 5
    assert deployed.nginx_workers(250_000, 70_000) == 8


@pytest.mark.skipif(deployed.NGINX is None, reason="no Nginx here (apt-get install nginx-light)")
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here")
@pytest.mark.skipif(os.geteuid() != 0, reason="not root: Debian's Nginx keeps its folders to root")
def test_the_roles_give_each_process_ports_and_a_name_and_nginx_knows_all(tmp_path: Path) -> None:
    made = deployed.Deployed(tmp_path, gateways=3, sockets=100)
    made.render()
    told = [config.parse_env_file((tmp_path / f"{name}.env").read_text()) for name in made.gateways]
    ports = [int(each["DESKLINE_GATEWAY_PORT"]) for each in told]
    assert [port - ports[0] for port in ports] == [0, 10, 20]
    controls = [int(each["DESKLINE_GATEWAY_CONTROL_PORT"]) for each in told]
    assert controls == [port + 1 for port in ports]
    assert [each["DESKLINE_NODE"] for each in told] == ["bench", "bench-2", "bench-3"]
    text = (tmp_path / "nginx.conf").read_text()
    upstream = text.partition("upstream deskline_gateway {")[2].partition("}")[0]
    servers = re.findall(r"server 127\.0\.0\.1:(\d+) max_fails=0;", upstream)
    assert [int(port) for port in servers] == ports


@pytest.mark.timeout(240)
@pytest.mark.skipif(os.geteuid() != 0, reason="not root: Debian's Nginx keeps its folders to root")
@pytest.mark.skipif(deployed.NGINX is None, reason="no Nginx here (apt-get install nginx-light)")
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here (apt-get install gcc)")
def test_nobody_is_dropped_and_nothing_lost() -> None:
    figures = through_nginx.measure(SOCKETS, SECONDS, RATE, gateways=3, say=print)
    assert through_nginx.problems(figures) == []
    total = figures["total"]
    assert total["open_at_the_end"] == SOCKETS
    assert total["deliveries"] >= 0.9 * SECONDS * RATE
    held = [each["connections"] for each in figures["of_gateways"]]
    # least_conn: every gateway has its share
    assert sum(held) == SOCKETS
    assert min(held) > 0.8 * SOCKETS / 3
    assert figures["storm"]["back"] == SOCKETS
    assert "polyline" in through_nginx.plot(figures)


def test_what_must_not_be_is_told() -> None:
    fine = {
        "settings": {"sockets": 6},
        "total": dict.fromkeys(through_nginx.COUNTED, 0)
        | {"deliveries": 5, "wanted": 5, "open_at_the_end": 6},
        "storm": {"back": 6},
        "nginx_complaints": [],
    }
    assert through_nginx.problems(fine) == []
    for changed in (
        {"total": fine["total"] | {"lost": 1}},
        {"total": fine["total"] | {"ended": 1}},
        {"total": fine["total"] | {"doubled": 1}},
        {"total": fine["total"] | {"open_at_the_end": 5}},
        {"total": fine["total"] | {"deliveries": 0, "wanted": 0}},
        {"storm": {"back": 5}},
        {"nginx_complaints": ["1024 worker_connections are not enough"]},
    ):
        assert len(through_nginx.problems(fine | changed)) == 1, changed
