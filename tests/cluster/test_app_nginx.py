"""Promises of the balancer: what it shows, to whom it passes requests, whose address it tells."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from testinfra.host import Host

from tests.cluster.app_client import fetch
from tests.cluster.conftest import Inventory

Machine = Callable[[str], Host]


@pytest.fixture
def http(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=20) as client:
        yield client


def own_address(base_url: str) -> str:
    """The address of this computer as the balancer sees it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((urlsplit(base_url).hostname, 80))
        return str(sock.getsockname()[0])


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/metrics/",
        "//metrics",
        "/apps",
        "/apps/1/channels",
        "/apps/1/events",
        "/app/../apps/1/channels",
        "/%61pps/1/channels",
        "/app/..%2fmetrics",
    ],
)
def test_what_is_for_machines_stays_inside(http: httpx.Client, path: str) -> None:
    # Written by hand: a client library would tidy the path up first.
    request = http.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=path.encode())
    for method in ("GET", "POST"):
        request.method = method
        answer = http.send(request)
        assert answer.status_code in (400, 404, 405, 426), answer.text
        assert "deskline_" not in answer.text
        assert "channels" not in answer.text


def test_metrics_and_the_channels_api_are_there_behind(
    inventory: Inventory, machine: Machine, secrets: dict[str, str]
) -> None:
    host = machine(inventory.groups["realtime"][0])
    address = inventory.addresses("realtime")[0]
    status, _, shown = fetch(host, f"http://{address}:8081/metrics")
    assert status == 200
    assert "deskline_gateway_connections" in shown
    channels = f"http://{address}:8081/apps/{secrets['vault_pusher_app_id']}/channels"
    assert fetch(host, channels)[0] == 401


def test_requests_take_turns(http: httpx.Client, inventory: Inventory) -> None:
    nodes = [http.get("/healthz").headers["X-Deskline-Node"] for _ in range(8)]
    assert set(nodes) == set(inventory.groups["app"])


def test_the_client_is_known_by_its_real_address(
    http: httpx.Client, base_url: str, inventory: Inventory, machine: Machine
) -> None:
    claimed = "203.0.113.9"
    answer = http.get("/api/v1/me", headers={"X-Forwarded-For": claimed})
    node, request_id = answer.headers["X-Deskline-Node"], answer.headers["X-Request-ID"]
    logged = machine(node).check_output(
        "journalctl --unit=deskline-web --output=cat --since=-60s | grep %s", request_id
    )
    entry = json.loads(logged.splitlines()[-1])
    assert entry["remote_addr"] == own_address(base_url)
    assert entry["remote_addr"] not in (*inventory.addresses("lb"), claimed)

    balancer = machine(inventory.groups["lb"][0])
    line = json.loads(
        balancer.check_output("grep %s /var/log/nginx/deskline_access.log", request_id)
    )
    address = inventory.address(node)
    assert (line["remote_addr"], line["upstream_addr"]) == (
        own_address(base_url),
        f"{address}:8000",
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [("a-callers-own-id", True), ("short", False), ('x"} {"forged":"line"', False)],
)
def test_a_callers_request_id_is_kept_when_it_is_one(
    http: httpx.Client, given: str, kept: bool
) -> None:
    answer = http.get("/healthz", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) == kept


def test_the_log_holds_no_query(http: httpx.Client, inventory: Inventory, machine: Machine) -> None:
    http.get("/api/v1/me", params={"token": "quite-a-secret"})
    balancer = machine(inventory.groups["lb"][0])
    assert balancer.run("grep -r quite-a-secret /var/log/nginx/").rc == 1


@pytest.mark.parametrize("path", ["/login", "/dashboard/conversations/1", "/docs", "/widget/"])
def test_pages_are_checked_again_and_framed_only_where_meant(http: httpx.Client, path: str) -> None:
    page = http.get(path)
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Cache-Control"] == "no-cache"
    policy = page.headers["Content-Security-Policy"]
    assert ("frame-ancestors *" in policy) == (path == "/widget/")
    assert ("X-Frame-Options" in page.headers) == (path != "/widget/")
    again = http.get(path, headers={"If-None-Match": page.headers["ETag"]})
    assert again.status_code == 304


def test_pages_have_the_headers_of_the_web_process(
    http: httpx.Client, inventory: Inventory, machine: Machine
) -> None:
    name = inventory.groups["app"][0]
    _, headers, _ = fetch(machine(name), f"http://{inventory.address(name)}:8000/nothing-here")
    given = httpx.Headers(headers)
    page = http.get("/login")
    for header in (
        "Content-Security-Policy",
        "X-Content-Type-Options",
        "Referrer-Policy",
        "Permissions-Policy",
        "X-Frame-Options",
    ):
        assert page.headers[header] == given[header], header


def test_assets_are_kept_for_ever_and_sent_compressed(http: httpx.Client) -> None:
    page = http.get("/login").text
    scripts = re.findall(r'(?:src|href)="(/assets/[^"]+\.(?:js|css))"', page)
    assert scripts
    for path in scripts:
        asset = http.get(path, headers={"Accept-Encoding": "gzip"})
        assert asset.status_code == 200
        assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        if int(http.head(path, headers={"Accept-Encoding": ""}).headers["Content-Length"]) > 2048:
            assert asset.headers["Content-Encoding"] == "gzip"
    assert http.get("/assets/never-built.js").status_code == 404


def test_the_loader_is_not_kept_for_long(http: httpx.Client) -> None:
    loader = http.get("/widget.js")
    assert loader.status_code == 200
    assert loader.headers["Cache-Control"] == "public, max-age=300"


def test_a_page_of_the_release_before_still_gets_its_files(
    http: httpx.Client, inventory: Inventory, machine: Machine
) -> None:
    balancer = machine(inventory.groups["lb"][0])
    previous = "/opt/deskline/previous"
    kept = balancer.run(f"readlink {previous}").stdout.strip()
    folder = "/opt/deskline/releases/test-before"
    balancer.check_output(
        f"mkdir -p {folder}/web/assets && echo 'before()' > {folder}/web/assets/before-1.js"
        f" && ln -sfn {folder} {previous}"
    )
    try:
        assert http.get("/assets/before-1.js").text.strip() == "before()"
    finally:
        back = f"ln -sfn {kept} {previous}" if kept else f"rm {previous}"
        balancer.check_output(f"{back} && rm -r {folder}")


def test_a_request_that_is_too_large_gets_a_problem_document(http: httpx.Client) -> None:
    answer = http.post("/api/v1/auth/login", content=b" " * (1 << 20 | 1))
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 413
    assert answer.json()["code"] == "payload_too_large"


@pytest.mark.parametrize(
    ("size_mib", "code"), [(2, "not_authenticated"), (12, "payload_too_large")]
)
def test_uploads_have_a_limit_of_their_own(http: httpx.Client, size_mib: int, code: str) -> None:
    path = "/api/v1/widget/conversations/1/attachments"
    answer = http.post(path, params={"name": "a"}, content=b"x" * (size_mib << 20))
    assert answer.json()["code"] == code


@pytest.mark.heavy
def test_without_any_web_node_the_api_says_so_in_its_own_form(
    http: httpx.Client, inventory: Inventory, machine: Machine
) -> None:
    hosts = [machine(name) for name in inventory.groups["app"]]
    try:
        for host in hosts:
            host.check_output("systemctl stop deskline-web")
        answer = http.get("/api/v1/me")
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == "service_unavailable"
        assert int(answer.headers["Retry-After"]) > 0
        assert http.get("/login").status_code == 200, "pages need no web node"
    finally:
        for host in hosts:
            host.check_output("systemctl start deskline-web")
    # The nodes are looked at again after nginx_fail_timeout.
    for _ in range(60):
        if http.get("/readyz").status_code == 200:
            break
        hosts[0].run("sleep 0.5")
    assert http.get("/readyz").status_code == 200
