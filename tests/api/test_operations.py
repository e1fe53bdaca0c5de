"""Health, headers, pages, errors of the server itself."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.conftest import Visitor, assert_problem
from tests.conftest import Deskline


def test_health_and_readiness(deskline: Deskline) -> None:
    assert httpx.get(f"{deskline.url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{deskline.url}/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


def test_metrics_count_messages(deskline: Deskline, visitor: Visitor) -> None:
    if deskline.data_dir is None:
        pytest.skip("the balancer does not pass /metrics on")
    before = stored(deskline)
    visitor.conversation()
    assert stored(deskline) == before + 1


def stored(deskline: Deskline) -> float:
    text = httpx.get(f"{deskline.url}/metrics").text
    line = next(li for li in text.splitlines() if li.startswith("deskline_messages_stored_total"))
    return float(line.split()[1])


def answers(deskline: Deskline, status: int) -> float:
    """How many logins were answered with a status."""
    text = httpx.get(f"{deskline.url}/metrics").text
    found = [
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("deskline_http_requests_total{")
        and "auth/login" in line
        and f'status="{status}"' in line
    ]
    return sum(found)


def test_a_client_that_hangs_up_is_no_failure_of_the_server(deskline: Deskline) -> None:
    if deskline.data_dir is None:
        pytest.skip("the balancer does not pass /metrics on")
    body = json.dumps({"email": deskline.email, "password": deskline.password}).encode()
    head = (
        "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    failures, hung_up = answers(deskline, 500), answers(deskline, 499)
    target = urlsplit(deskline.url)
    for _ in range(50):
        with socket.create_connection((target.hostname, target.port or 80)) as sock:
            sock.sendall(head.encode() + body)
            time.sleep(0.01)  # the password's check takes longer
        if answers(deskline, 499) > hung_up:
            break
    else:
        pytest.fail("no request was counted as hung up on")
    assert answers(deskline, 500) == failures


def test_an_unknown_address_is_a_problem_document(deskline: Deskline) -> None:
    assert_problem(httpx.get(f"{deskline.url}/api/v1/nothing-here"), 404, "not_found")


def test_a_wrong_method_is_a_problem_document(deskline: Deskline) -> None:
    answer = httpx.delete(f"{deskline.url}/api/v1/auth/login")
    assert_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


def test_too_large_a_request(visitor: Visitor) -> None:
    answer = visitor.http.post("/api/v1/widget/conversations", content=b" " * 2_000_000)
    assert answer.status_code == 413


def test_answers_name_the_request_and_the_node(deskline: Deskline) -> None:
    answer = httpx.get(f"{deskline.url}/healthz", headers={"X-Request-ID": "chosen-by-client"})
    assert answer.headers["X-Request-ID"] == "chosen-by-client"
    assert answer.headers["X-Deskline-Node"]
    unfit = {"X-Request-ID": "not fit; for a log"}
    assert httpx.get(f"{deskline.url}/healthz", headers=unfit).headers["X-Request-ID"] != unfit


@pytest.mark.parametrize("path", ["/login", "/dashboard", "/dashboard/conversations/1", "/docs"])
def test_pages_may_not_stand_in_a_frame(deskline: Deskline, path: str) -> None:
    answer = httpx.get(f"{deskline.url}{path}", follow_redirects=True)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_widget_may_stand_in_a_frame(deskline: Deskline) -> None:
    answer = httpx.get(f"{deskline.url}/widget/")
    assert answer.status_code == 200
    assert "frame-ancestors 'none'" not in answer.headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "/assets/..%2f..%2f..%2fpyproject.toml",
        "/assets/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fpyproject.toml",
        "//etc/passwd",
        "/%00",
    ],
)
def test_no_path_leads_out_of_the_web_files(deskline: Deskline, path: str) -> None:
    host, port = httpx.URL(deskline.url).host, httpx.URL(deskline.url).port or 80
    # a raw socket: HTTP clients tidy such paths up
    with socket.create_connection((host, port), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := raw.recv(65536):
            answer += part
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 404), answer[:200]
    assert b"requires-python" not in answer
    assert b"root:" not in answer


def test_the_loader_is_cached_shortly_and_checked_by_etag(deskline: Deskline) -> None:
    first = httpx.get(f"{deskline.url}/widget.js")
    assert first.status_code == 200
    assert "javascript" in first.headers["Content-Type"]
    again = httpx.get(f"{deskline.url}/widget.js", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
